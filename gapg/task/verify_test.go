package task

import (
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestCheck(t *testing.T) {
	p := Countdown{[]int{1, 2, 3, 4}, 24}
	for _, c := range []struct {
		name   string
		p      Countdown
		answer string
		want   error
	}{
		{"product", p, "1*2*3*4", nil},
		{"spaces and brackets", p, " ( (1 + 2) + 3 ) * 4\n", nil},
		{"other order", p, "4*3*2/1", nil},
		{"Unicode signs", Countdown{[]int{8, 2, 3, 1}, 11}, "8 × 3 ÷ 2 − 1", nil},
		{"Unicode minus in the middle", Countdown{[]int{8, 3}, 5}, "8−3", nil},
		{"thirds", Countdown{[]int{8, 3, 8, 3}, 24}, "8/(3-8/3)", nil},
		{"left associative", Countdown{[]int{10, 3, 2}, 5}, "10-3-2", nil},
		{"left associative quotient", Countdown{[]int{12, 3, 2}, 2}, "12/3/2", nil},
		{"precedence", Countdown{[]int{2, 3, 4}, 14}, "2+3*4", nil},
		{"one number", Countdown{[]int{7}, 7}, "((7))", nil},
		{"negative target", Countdown{[]int{3, 5}, -2}, "3-5", nil},
		{"zero", Countdown{[]int{0, 5}, 5}, "0+5", nil},
		{"large numbers", Countdown{[]int{1 << 30, 1 << 30}, 1 << 60}, "1073741824*1073741824", nil},

		{"wrong value", p, "1+2+3+4", ErrWrongValue},
		{"no flooring", Countdown{[]int{7, 2}, 3}, "7/2", ErrWrongValue},
		{"nearly", Countdown{[]int{1, 3, 3}, 1}, "1/3*3+0", ErrNumbers},
		{"division by zero", Countdown{[]int{1, 2, 2}, 0}, "1/(2-2)", ErrDivByZero},
		{"division by zero times zero", Countdown{[]int{0, 1, 2, 2}, 0}, "0*(1/(2-2))", ErrDivByZero},

		{"a number missing", p, "4*3*2", ErrNumbers},
		{"a number twice", p, "1*2*3*4*1", ErrNumbers},
		{"a number of one's own", Countdown{[]int{1, 2}, 24}, "24", ErrNumbers},
		{"numbers glued", Countdown{[]int{1, 2}, 12}, "12", ErrNumbers},
		{"duplicates counted", Countdown{[]int{2, 2, 3}, 12}, "2*3*3", ErrNumbers},
		{"overflow to the target", Countdown{[]int{2, 2}, 0}, "999999999*999999999*999999999", ErrNumbers},

		{"empty", p, "", ErrSyntax},
		{"equation", p, "1*2*3*4=24", ErrSyntax},
		{"power", Countdown{[]int{2, 3}, 8}, "2**3", ErrSyntax},
		{"power by caret", Countdown{[]int{2, 3}, 8}, "2^3", ErrSyntax},
		{"floor division", Countdown{[]int{7, 2}, 3}, "7//2", ErrSyntax},
		{"spaced floor division", Countdown{[]int{7, 2}, 3}, "7/ /2", ErrSyntax},
		{"unary minus", Countdown{[]int{3, 5}, 2}, "-3+5", ErrSyntax},
		{"unary plus", Countdown{[]int{3, 5}, 8}, "+3+5", ErrSyntax},
		{"sign after a bracket", Countdown{[]int{3, 5}, 2}, "5+(-3)", ErrSyntax},
		{"two signs", Countdown{[]int{3, 5}, 8}, "5--3", ErrSyntax},
		{"implicit product", Countdown{[]int{3, 5}, 15}, "3(5)", ErrSyntax},
		{"implicit product of brackets", Countdown{[]int{3, 5}, 15}, "(3)(5)", ErrSyntax},
		{"two numbers", Countdown{[]int{3, 5}, 15}, "3 5", ErrSyntax},
		{"leading zero", Countdown{[]int{3, 5}, 15}, "03*5", ErrSyntax},
		{"leading zeros of zero", Countdown{[]int{0, 5}, 5}, "00+5", ErrSyntax},
		{"decimal point", Countdown{[]int{3, 5}, 15}, "3.0*5", ErrSyntax},
		{"exponent", Countdown{[]int{3, 5}, 15}, "3e0*5", ErrSyntax},
		{"hexadecimal", Countdown{[]int{0, 5}, 5}, "0x0+5", ErrSyntax},
		{"underscore", Countdown{[]int{10, 5}, 15}, "1_0+5", ErrSyntax},
		{"unclosed bracket", p, "(1*2*3*4", ErrSyntax},
		{"unopened bracket", p, "1*2*3*4)", ErrSyntax},
		{"empty brackets", p, "()1*2*3*4", ErrSyntax},
		{"other brackets", p, "[1*2]*3*4", ErrSyntax},
		{"operator at the end", p, "1*2*3*4*", ErrSyntax},
		{"words", p, "the answer is 1*2*3*4", ErrSyntax},
		{"two answers", p, "1*2*3*4, 1*2*3*4", ErrSyntax},
		{"newline inside", p, "1*2\n*3*4", ErrSyntax},
		{"tab inside", p, "1*2\t*3*4", ErrSyntax},
		{"fullwidth digits", p, "１*2*3*4", ErrSyntax},
		{"Arabic digits", p, "١*2*3*4", ErrSyntax},
		{"en dash", Countdown{[]int{8, 3}, 5}, "8–3", ErrSyntax},
		{"dot product", p, "1·2·3·4", ErrSyntax},
		{"NUL", p, "1*2*3*4\x00", ErrSyntax},
		{"NUL inside", p, "1*2\x00*3*4", ErrSyntax},
		{"0xff", p, "1*2*3*4\xff", ErrSyntax},
		{"broken UTF-8", p, "1*2*3*4\xc3", ErrSyntax},
		{"code", p, "__import__('os')", ErrSyntax},
		{"deep brackets", p, strings.Repeat("(", maxDepth+1) + "1*2*3*4" + strings.Repeat(")", maxDepth+1), ErrSyntax},
		{"deepest allowed", p, strings.Repeat("(", maxDepth) + "1*2*3*4" + strings.Repeat(")", maxDepth), nil},
		{"unclosed depth bomb", p, strings.Repeat("(", 1_000_000), ErrSyntax},
		{"too long", p, "1*2*3*4" + strings.Repeat(" ", maxAnswerBytes) + "+0", ErrSyntax},
		{"long white space around is no length", p, strings.Repeat(" ", 10_000) + "1*2*3*4", nil},
		{"huge number", p, strings.Repeat("9", 400), ErrSyntax},
		{"nineteen digits", p, "9223372036854775808", ErrSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.p.Check(c.answer)
			if c.want == nil {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, c.want)
			}
			require.Equal(t, c.want == nil, c.p.Correct(c.answer))
		})
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		p    Countdown
		want string
	}{
		{Countdown{[]int{1, 2}, 3}, ""},
		{Countdown{[]int{99, 99, 99, 99, 99, 99}, 100}, ""},
		{Countdown{[]int{0}, 0}, ""},
		{Countdown{nil, 3}, "nums is empty"},
		{Countdown{[]int{1, 1, 1, 1, 1, 1, 1, 1, 1}, 3}, "at most 8"},
		{Countdown{[]int{-1, 2}, 3}, "negative"},
		{Countdown{[]int{math.MaxInt64}, 3}, "too large"},
		{Countdown{[]int{1 << 40, 1 << 40}, 3}, "too large"},
		{Countdown{[]int{1, 2}, math.MinInt64}, "too large"},
	} {
		err := c.p.Validate()
		if c.want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.want)
		}
	}
}

// genExpr draws an expression over random numbers, shaped and bracketed at will.
func genExpr(t *rapid.T, maxNum int64) *Expr {
	n := rapid.IntRange(1, 6).Draw(t, "numbers")
	pool := make([]*Expr, n)
	for i := range pool {
		pool[i] = &Expr{Num: rapid.Int64Range(0, maxNum).Draw(t, "number")}
	}
	for len(pool) > 1 {
		i := rapid.IntRange(0, len(pool)-2).Draw(t, "pair")
		op := "+-*/"[rapid.IntRange(0, 3).Draw(t, "op")]
		e := &Expr{Op: op, Left: pool[i], Right: pool[i+1]}
		pool = append(append(append([]*Expr{}, pool[:i]...), e), pool[i+2:]...)
	}
	return pool[0]
}

// bigValue evaluates with math/big alone: nil for a division by zero.
func bigValue(e *Expr) *big.Rat {
	if e.Op == 0 {
		return new(big.Rat).SetInt64(e.Num)
	}
	l, r := bigValue(e.Left), bigValue(e.Right)
	if l == nil || r == nil {
		return nil
	}
	switch e.Op {
	case '+':
		return l.Add(l, r)
	case '-':
		return l.Sub(l, r)
	case '*':
		return l.Mul(l, r)
	}
	if r.Sign() == 0 {
		return nil
	}
	return l.Quo(l, r)
}

func TestValueAgainstBig(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		maxNum := rapid.SampledFrom([]int64{3, 99, 1200}).Draw(t, "max")
		e := genExpr(t, maxNum)
		want := bigValue(e)
		got, err := e.Value()
		if want == nil {
			require.ErrorIs(t, err, ErrDivByZero)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want.Num().String(), big.NewInt(got.Num()).String())
		require.Equal(t, want.Denom().String(), big.NewInt(got.Den()).String())

		// Writing and reading it back gives the same tree.
		back, err := ParseExpr(e.String())
		require.NoError(t, err)
		require.Equal(t, e, back)

		// And the verifier accepts exactly its value.
		if want.IsInt() {
			p := Countdown{Target: int(got.Num())}
			for _, n := range e.leaves(nil) {
				p.Nums = append(p.Nums, int(n))
			}
			require.NoError(t, p.Validate())
			require.NoError(t, p.Check(e.String()))
			p.Target++
			require.ErrorIs(t, p.Check(e.String()), ErrWrongValue)
		}
	})
}

func TestApplyAtTheLimits(t *testing.T) {
	vals := []int64{math.MinInt64, math.MinInt64 + 1, -1 << 32, -3, -1, 0, 1, 2, 3, 1<<32 + 1, math.MaxInt64 - 1, math.MaxInt64}
	var rats []Rat
	for _, n := range vals {
		for _, d := range []int64{1, 2, 3, 1<<32 + 1, math.MaxInt64} {
			r := big.NewRat(n, d)
			if r.Num().IsInt64() {
				rats = append(rats, Rat{r.Num().Int64(), r.Denom().Int64()})
			}
		}
	}
	for _, a := range rats {
		for _, b := range rats {
			x, y := big.NewRat(a.num, a.den), big.NewRat(b.num, b.den)
			require.Equal(t, x.Cmp(y) < 0, a.less(b))
			for _, op := range []byte("+-*/") {
				got, ok := Apply(a, op, b)
				if op == '/' && b.Sign() == 0 {
					require.False(t, ok)
					continue
				}
				want, wantOK := applyBig(a, op, b)
				require.Equal(t, wantOK, ok, "%v %c %v", a, op, b)
				require.Equal(t, want, got, "%v %c %v", a, op, b)
			}
		}
	}
}

// FuzzVerify checks that no text panics or is accepted for a wrong reason: what
// is accepted has the numbers as its only digits and the right value by another
// evaluator.
func FuzzVerify(f *testing.F) {
	for _, s := range []string{
		"1*2*3*4", "(1+2+3)*4", "4×3×2÷1", "((1))", "1/(2-2)", "-1+2", "2**3", "7//2", "03+1", "(", ")", "1 2 3 4",
		strings.Repeat("(", 100), "9999999999999999999999", "\x00", "1*2*3*4\xff", "−", "1=1",
	} {
		f.Add(s, 24)
	}
	p := Countdown{Nums: []int{1, 2, 3, 4}}
	f.Fuzz(func(t *testing.T, s string, target int) {
		p := Countdown{Nums: p.Nums, Target: target}
		e, perr := ParseExpr(s)
		err := p.Check(s)
		if (perr != nil) != errors.Is(err, ErrSyntax) {
			t.Fatalf("%q: parse says %v, check says %v", s, perr, err)
		}
		if perr == nil {
			if back, err := ParseExpr(e.String()); err != nil || back.String() != e.String() {
				t.Fatalf("%q: written as %q, which is read as %v, %v", s, e, back, err)
			}
		}
		if err != nil {
			return
		}
		var digits []byte
		for i := range len(s) {
			if '0' <= s[i] && s[i] <= '9' {
				digits = append(digits, s[i])
			}
		}
		if len(digits) != 4 {
			t.Fatalf("%q accepted with the digits %q", s, digits)
		}
		if v := bigValue(e); v == nil || v.Cmp(big.NewRat(int64(target), 1)) != 0 {
			t.Fatalf("%q accepted for %d, its value is %v", s, target, v)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	p := Countdown{[]int{8, 3, 8, 3}, 24}
	b.ReportAllocs()
	for b.Loop() {
		if !p.Correct("8 / (3 - 8 / 3)") {
			b.Fatal("wrong")
		}
	}
}
