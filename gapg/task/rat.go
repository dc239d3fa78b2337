package task

import (
	"math"
	"math/big"
	"math/bits"
	"strconv"
)

// Rat is an exact rational number in lowest terms with a positive denominator.
// The zero value is not a number; make one with Int. Two Rats are equal exactly
// when they are equal as Go values, so a Rat can be a map key.
//
// Arithmetic is exact: each operation reports false when its reduced result
// does not fit in int64, and never wraps around. Intermediate products that
// overflow are formed again in package math/big.
type Rat struct {
	num, den int64
}

// Int returns v as a Rat.
func Int(v int64) Rat { return Rat{v, 1} }

// IsInt reports whether r is a whole number.
func (r Rat) IsInt() bool { return r.den == 1 }

// Num and Den return the numerator and the positive denominator in lowest terms.
func (r Rat) Num() int64 { return r.num }

// Den returns the denominator: see Num.
func (r Rat) Den() int64 { return r.den }

// Sign returns -1, 0 or 1.
func (r Rat) Sign() int {
	switch {
	case r.num > 0:
		return 1
	case r.num < 0:
		return -1
	}
	return 0
}

// less reports r < s, exactly.
func (r Rat) less(s Rat) bool {
	if r.den == 1 && s.den == 1 {
		return r.num < s.num
	}
	return big.NewRat(r.num, r.den).Cmp(big.NewRat(s.num, s.den)) < 0
}

// String writes 7 or 7/3.
func (r Rat) String() string {
	s := strconv.FormatInt(r.num, 10)
	if r.den != 1 {
		s += "/" + strconv.FormatInt(r.den, 10)
	}
	return s
}

// Apply computes a op b for op one of + - * /. It reports false for a division
// by zero and for a result that does not fit.
func Apply(a Rat, op byte, b Rat) (Rat, bool) {
	switch op {
	case '+':
		return add(a, b)
	case '-':
		if b.num == math.MinInt64 {
			return applyBig(a, op, b)
		}
		return add(a, Rat{-b.num, b.den})
	case '*':
		return mul(a, b)
	case '/':
		if b.num == 0 {
			return Rat{}, false
		}
		if b.num == math.MinInt64 {
			return applyBig(a, op, b)
		}
		if b.num < 0 {
			return mul(a, Rat{-b.den, -b.num})
		}
		return mul(a, Rat{b.den, b.num})
	}
	panic("task: unknown operation")
}

func add(a, b Rat) (Rat, bool) {
	if a.den == 1 && b.den == 1 {
		s := a.num + b.num
		if (s > a.num) != (b.num > 0) {
			// b = 0 lands here too: s == a.num and b.num is not positive, so the
			// two sides agree and only a real overflow differs.
			return Rat{}, false
		}
		return Rat{s, 1}, true
	}
	x, ok1 := mulInt(a.num, b.den)
	y, ok2 := mulInt(b.num, a.den)
	d, ok3 := mulInt(a.den, b.den)
	s := x + y
	if !ok1 || !ok2 || !ok3 || (s > x) != (y > 0) {
		return applyBig(a, '+', b)
	}
	return reduce(s, d), true
}

func mul(a, b Rat) (Rat, bool) {
	n, ok1 := mulInt(a.num, b.num)
	d, ok2 := mulInt(a.den, b.den)
	if !ok1 || !ok2 {
		return applyBig(a, '*', b)
	}
	return reduce(n, d), true
}

// applyBig is the slow road for intermediates beyond int64.
func applyBig(a Rat, op byte, b Rat) (Rat, bool) {
	x, y := big.NewRat(a.num, a.den), big.NewRat(b.num, b.den)
	switch op {
	case '+':
		x.Add(x, y)
	case '-':
		x.Sub(x, y)
	case '*':
		x.Mul(x, y)
	case '/':
		x.Quo(x, y)
	}
	if !x.Num().IsInt64() || !x.Denom().IsInt64() {
		return Rat{}, false
	}
	return Rat{x.Num().Int64(), x.Denom().Int64()}, true
}

// mulInt multiplies and reports whether the product fits. The most negative
// int64 is treated as not fitting: the caller falls back to big numbers.
func mulInt(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(absInt(a), absInt(b))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	return a * b, true
}

// absInt returns |v| as an unsigned number, right for the most negative v too.
func absInt(v int64) uint64 {
	if v < 0 {
		return -uint64(v)
	}
	return uint64(v)
}

// reduce puts n/d, d > 0, into lowest terms.
func reduce(n, d int64) Rat {
	g := int64(gcd(absInt(n), uint64(d))) // at most d, so it fits
	return Rat{n / g, d / g}
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
