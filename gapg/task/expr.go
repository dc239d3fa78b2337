package task

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Expr is an arithmetic expression: a number if Op is 0, else Left Op Right with
// Op one of + - * /.
type Expr struct {
	Op          byte
	Num         int64
	Left, Right *Expr
}

// Value evaluates e exactly. It fails with ErrDivByZero, or with ErrWrongValue
// if an intermediate value does not fit in a Rat, which cannot happen with the
// numbers of a valid problem.
func (e *Expr) Value() (Rat, error) {
	if e.Op == 0 {
		return Int(e.Num), nil
	}
	l, err := e.Left.Value()
	if err != nil {
		return Rat{}, err
	}
	r, err := e.Right.Value()
	if err != nil {
		return Rat{}, err
	}
	if e.Op == '/' && r.Sign() == 0 {
		return Rat{}, fmt.Errorf("%w: in %s", ErrDivByZero, e)
	}
	v, ok := Apply(l, e.Op, r)
	if !ok {
		return Rat{}, fmt.Errorf("%w: %s is beyond 64 bits", ErrWrongValue, e)
	}
	return v, nil
}

func (e *Expr) leaves(to []int64) []int64 {
	if e.Op == 0 {
		return append(to, e.Num)
	}
	return e.Right.leaves(e.Left.leaves(to))
}

// String writes e with the brackets that keep its tree and no others:
// "(1+2)/3", "8-(3-1)", "2*(3*4)".
func (e *Expr) String() string {
	var b strings.Builder
	e.write(&b)
	return b.String()
}

func (e *Expr) write(b *strings.Builder) {
	if e.Op == 0 {
		b.WriteString(strconv.FormatInt(e.Num, 10))
		return
	}
	side := func(s *Expr, brackets bool) {
		if brackets {
			b.WriteByte('(')
		}
		s.write(b)
		if brackets {
			b.WriteByte(')')
		}
	}
	side(e.Left, prec(e.Left.Op) < prec(e.Op))
	b.WriteByte(e.Op)
	side(e.Right, prec(e.Right.Op) <= prec(e.Op)) // operations associate to the left
}

// Bracketed writes e with brackets around every operand that is not a number:
// "(16*5)+17".
func (e *Expr) Bracketed() string {
	if e.Op == 0 {
		return strconv.FormatInt(e.Num, 10)
	}
	side := func(s *Expr) string {
		if s.Op == 0 {
			return s.Bracketed()
		}
		return "(" + s.Bracketed() + ")"
	}
	return side(e.Left) + string(e.Op) + side(e.Right)
}

func prec(op byte) int {
	switch op {
	case '+', '-':
		return 1
	case '*', '/':
		return 2
	}
	return 3
}

// canonical names e up to the order of the operands of + and *.
func (e *Expr) canonical() string {
	if e.Op == 0 {
		return e.String()
	}
	l, r := e.Left.canonical(), e.Right.canonical()
	if (e.Op == '+' || e.Op == '*') && r < l {
		l, r = r, l
	}
	return "(" + l + string(e.Op) + r + ")"
}

// Step is one line of working: A Op B = Value.
type Step struct {
	A     Rat
	Op    byte
	B     Rat
	Value Rat
}

// String writes "6*4=24".
func (s Step) String() string {
	return s.A.String() + string(s.Op) + s.B.String() + "=" + s.Value.String()
}

// Steps returns e's operations in the order of evaluation, operands before the
// operation that uses them. e must have a value.
func (e *Expr) Steps() []Step {
	var steps []Step
	e.steps(&steps)
	return steps
}

func (e *Expr) steps(to *[]Step) Rat {
	if e.Op == 0 {
		return Int(e.Num)
	}
	a := e.Left.steps(to)
	b := e.Right.steps(to)
	v, ok := Apply(a, e.Op, b)
	if !ok {
		panic("task: steps of an expression without a value")
	}
	*to = append(*to, Step{a, e.Op, b, v})
	return v
}

// Rules say which operations a search may use. The zero value allows all four
// on all operands.
type Rules struct {
	// Plain allows only what a person works with in the head: values are
	// positive whole numbers, the greater operand stands first, and nothing is
	// multiplied or divided by one.
	Plain bool

	// MaxValue bounds the values under Plain; 0 means no bound.
	MaxValue int64
}

func (r Rules) apply(a Rat, op byte, b Rat) (Rat, bool) {
	v, ok := Apply(a, op, b)
	if !ok || !r.Plain {
		return v, ok
	}
	switch {
	case v.den != 1, v.num < 1, r.MaxValue > 0 && v.num > r.MaxValue, a.num < b.num:
		return Rat{}, false
	case (op == '*' || op == '/') && b.num == 1:
		return Rat{}, false
	}
	return v, true
}

// pair lists the values of one operation on x and y under the rules. The order
// of the operands of + and * is the one that Plain wants.
func (r Rules) pair(to []value, x, y value) []value {
	if x.v.less(y.v) || x.v == y.v && x.e.Op == 0 {
		x, y = y, x // of equal values the one that was worked out stands first
	}
	put := func(a value, op byte, b value) {
		if v, ok := r.apply(a.v, op, b.v); ok {
			to = append(to, value{v, &Expr{Op: op, Left: a.e, Right: b.e}})
		}
	}
	put(x, '+', y)
	put(x, '-', y)
	put(x, '*', y)
	put(x, '/', y)
	if !r.Plain && x.v != y.v {
		put(y, '-', x)
		put(y, '/', x)
	}
	return to
}

// Expressions yields the expressions over all of nums, each number once, with
// their values, in a fixed order. Of expressions that differ only by the order
// of the operands of + and *, or by exchanging equal numbers, one is given.
//
// The search is exhaustive, and memory grows with what it finds: it is meant
// for up to four numbers, or five under Plain.
func Expressions(nums []int, rules Rules) iter.Seq2[*Expr, Rat] {
	return func(yield func(*Expr, Rat) bool) {
		pool := make([]value, len(nums))
		for i, n := range nums {
			pool[i] = value{Int(int64(n)), &Expr{Num: int64(n)}}
		}
		seen := make(map[string]bool)
		combine(pool, rules, func(x value) bool {
			k := x.e.canonical()
			if seen[k] {
				return true
			}
			seen[k] = true
			return yield(x.e, x.v)
		})
	}
}

// combine replaces every pair of the pool by every result of it, and calls found
// with each value that is left alone. It returns false to stop.
func combine(pool []value, rules Rules, found func(value) bool) bool {
	if len(pool) == 1 {
		return found(pool[0])
	}
	rest := make([]value, 0, len(pool)-1)
	results := make([]value, 0, 6)
	for i := range pool {
		for j := i + 1; j < len(pool); j++ {
			rest = rest[:0]
			for k, x := range pool {
				if k != i && k != j {
					rest = append(rest, x)
				}
			}
			results = rules.pair(results[:0], pool[i], pool[j])
			for _, step := range results {
				if !combine(append(rest, step), rules, found) {
					return false
				}
			}
		}
	}
	return true
}

// Solutions yields the expressions of Expressions that solve p.
func (p Countdown) Solutions(rules Rules) iter.Seq[*Expr] {
	return func(yield func(*Expr) bool) {
		for e, v := range Expressions(p.Nums, rules) {
			if v == Int(int64(p.Target)) && !yield(e) {
				return
			}
		}
	}
}

// randomExpr combines random pairs by random operations that the rules allow
// until one value is left. It reports false if it gets stuck.
func randomExpr(r *stream, nums []int, rules Rules) (value, bool) {
	pool := make([]value, len(nums))
	for i, n := range nums {
		pool[i] = value{Int(int64(n)), &Expr{Num: int64(n)}}
	}
	var results []value
	for len(pool) > 1 {
		i := r.intn(len(pool))
		j := r.intn(len(pool) - 1)
		if j >= i {
			j++
		}
		results = rules.pair(results[:0], pool[i], pool[j])
		if len(results) == 0 {
			return value{}, false
		}
		pool[i] = results[r.intn(len(results))]
		pool[j] = pool[len(pool)-1]
		pool = pool[:len(pool)-1]
	}
	return pool[0], true
}
