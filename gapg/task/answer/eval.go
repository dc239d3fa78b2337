package answer

import (
	"math"
	"math/big"
	"math/cmplx"
)

// constants are the symbols with a value.
var constants = map[string]complex128{
	"pi": math.Pi, "e": math.E, "i": 1i, "infty": complex(math.Inf(1), 0),
}

// functions have at most so many arguments.
var functions = map[string]int{
	"sin": 1, "cos": 1, "tan": 1, "cot": 1, "sec": 1, "csc": 1, "arcsin": 1, "arccos": 1, "arctan": 1, "arccot": 1, "arcsec": 1, "arccsc": 1, "sinh": 1, "cosh": 1, "tanh": 1,
	"log": 2, "ln": 1, "lg": 1, "exp": 1, "sqrt": 1, "max": 9, "min": 9, "gcd": 9, "lcm": 9, "det": 1,
}

// trigonometric functions take an angle.
var trigonometric = map[string]bool{"sin": true, "cos": true, "tan": true, "cot": true, "sec": true, "csc": true}

// mostBits bounds exact numbers, so that 9^(9^9) is not computed.
const mostBits = 20000

// rational returns n's exact value, nil where it has none or is too large.
func (n *node) rational() *big.Rat {
	args := make([]*big.Rat, len(n.args))
	if n.kind != number {
		if n.kind == symbol || !n.scalar() {
			return nil
		}
		for i, a := range n.args {
			if args[i] = a.rational(); args[i] == nil {
				return nil
			}
		}
	}
	out := new(big.Rat)
	switch n.kind {
	case number:
		if r, ok := decimal(n.text); ok {
			return r
		}
		return nil
	case sum:
		for _, a := range args {
			out.Add(out, a)
		}
	case product:
		out.SetInt64(1)
		for _, a := range args {
			out.Mul(out, a)
			if tooLarge(out) {
				return nil
			}
		}
	case quotient:
		if args[1].Sign() == 0 {
			return nil
		}
		out.Quo(args[0], args[1])
	case negative:
		out.Neg(args[0])
	case percent:
		return args[0]
	case power:
		return ratPower(args[0], args[1])
	case function:
		return ratFunction(n, args)
	default:
		return nil
	}
	if tooLarge(out) {
		return nil
	}
	return out
}

func tooLarge(r *big.Rat) bool { return r.Num().BitLen()+r.Denom().BitLen() > mostBits }

func ratPower(a, b *big.Rat) *big.Rat {
	if !b.IsInt() || !b.Num().IsInt64() {
		return nil
	}
	k := b.Num().Int64()
	if k < 0 {
		if a.Sign() == 0 {
			return nil
		}
		a, k = new(big.Rat).Inv(a), -k
	}
	if k > 0 && (k > mostBits || int64(a.Num().BitLen()+a.Denom().BitLen())*k > 2*mostBits) {
		return nil
	}
	e := big.NewInt(k)
	return new(big.Rat).SetFrac(new(big.Int).Exp(a.Num(), e, nil), new(big.Int).Exp(a.Denom(), e, nil))
}

func ratFunction(n *node, args []*big.Rat) *big.Rat {
	switch n.text {
	case "abs":
		return new(big.Rat).Abs(args[0])
	case "factorial":
		if args[0].IsInt() && args[0].Sign() >= 0 && args[0].Cmp(big.NewRat(1000, 1)) <= 0 {
			return new(big.Rat).SetInt(new(big.Int).MulRange(1, max(1, args[0].Num().Int64())))
		}
	case "binom":
		a, b := args[0], args[1]
		if a.IsInt() && b.IsInt() && b.Sign() >= 0 && a.Cmp(b) >= 0 && a.Cmp(big.NewRat(5000, 1)) <= 0 {
			return new(big.Rat).SetInt(new(big.Int).Binomial(a.Num().Int64(), b.Num().Int64()))
		}
	case "floor", "ceil":
		q := new(big.Int).Div(args[0].Num(), args[0].Denom()) // towards −∞: the denominator is positive
		if n.text == "ceil" && !args[0].IsInt() {
			q.Add(q, big.NewInt(1))
		}
		return new(big.Rat).SetInt(q)
	}
	return nil
}

// value computes n at a point. NaN where it has no value there.
func (n *node) value(at map[string]complex128) complex128 {
	nan := complex(math.NaN(), 0)
	var arg [2]complex128
	switch n.kind {
	case number:
		if r, ok := decimal(n.text); ok {
			f, _ := r.Float64()
			return complex(f, 0)
		}
		return nan
	case symbol:
		if c, ok := constants[n.text]; ok {
			return c
		}
		return at[n.text]
	case sum:
		s := complex128(0)
		for _, a := range n.args {
			s += a.value(at)
		}
		return s
	case product:
		s := complex128(1)
		for _, a := range n.args {
			s *= a.value(at)
		}
		return s
	case function:
		if len(n.args) > 2 || len(n.args) == 0 {
			return nan
		}
	case quotient, power, negative, percent:
	default:
		return nan
	}
	for i, a := range n.args {
		arg[i] = a.value(at)
	}
	switch n.kind {
	case quotient:
		if arg[1] == 0 {
			return nan
		}
		return arg[0] / arg[1]
	case negative:
		return -arg[0]
	case percent:
		return arg[0]
	case power:
		return raise(arg[0], arg[1])
	}
	return n.apply(arg)
}

func raise(a, b complex128) complex128 {
	if imag(a) == 0 && imag(b) == 0 {
		if f := math.Pow(real(a), real(b)); !math.IsNaN(f) {
			return complex(f, 0)
		}
		// The odd roots of a negative number that people mean are real.
		if p, q := oddRoot(real(b)); q != 0 && real(a) < 0 {
			f := math.Pow(-real(a), real(b))
			if p%2 != 0 {
				f = -f
			}
			return complex(f, 0)
		}
	}
	return cmplx.Pow(a, b)
}

// oddRoot returns b as p/q with a small odd q, or 0.
func oddRoot(b float64) (p, q int) {
	for _, q := range []int{3, 5, 7} {
		if p := b * float64(q); math.Abs(p-math.Round(p)) < 1e-12 && math.Abs(p) < 1e6 {
			return int(math.Round(p)), q
		}
	}
	return 0, 0
}

func (n *node) apply(arg [2]complex128) complex128 {
	x := arg[0]
	if imag(x) == 0 {
		x = complex(real(x), 0) // no negative zero: √−1 is i
	}
	nan := complex(math.NaN(), 0)
	switch n.text {
	case "sin":
		return cmplx.Sin(x)
	case "cos":
		return cmplx.Cos(x)
	case "tan":
		return cmplx.Tan(x)
	case "cot":
		return 1 / cmplx.Tan(x)
	case "sec":
		return 1 / cmplx.Cos(x)
	case "csc":
		return 1 / cmplx.Sin(x)
	case "arcsin":
		return cmplx.Asin(x)
	case "arccos":
		return cmplx.Acos(x)
	case "arctan":
		return cmplx.Atan(x)
	case "arccot":
		return cmplx.Atan(1 / x)
	case "arcsec":
		return cmplx.Acos(1 / x)
	case "arccsc":
		return cmplx.Asin(1 / x)
	case "sinh":
		return cmplx.Sinh(x)
	case "cosh":
		return cmplx.Cosh(x)
	case "tanh":
		return cmplx.Tanh(x)
	case "ln":
		return cmplx.Log(x)
	case "lg":
		return cmplx.Log10(x)
	case "log":
		if len(n.args) == 2 {
			return cmplx.Log(x) / cmplx.Log(arg[1])
		}
		return cmplx.Log10(x)
	case "exp":
		return cmplx.Exp(x)
	case "sqrt":
		return cmplx.Sqrt(x)
	case "root":
		return raise(x, 1/arg[1])
	case "abs":
		return complex(cmplx.Abs(x), 0)
	case "floor":
		return complex(math.Floor(real(x)), 0)
	case "ceil":
		return complex(math.Ceil(real(x)), 0)
	case "max":
		return complex(math.Max(real(x), real(arg[1])), 0)
	case "min":
		return complex(math.Min(real(x), real(arg[1])), 0)
	case "factorial":
		return complex(math.Gamma(real(x)+1), 0)
	case "binom":
		a, b := real(x), real(arg[1])
		return complex(math.Gamma(a+1)/math.Gamma(b+1)/math.Gamma(a-b+1), 0)
	case "overline":
		return cmplx.Conj(x)
	}
	return nan
}
