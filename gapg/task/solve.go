package task

import (
	"iter"
	"math/bits"
)

// Solve returns an expression that solves p and true, or false if there is
// none. The search is exact over the rationals and complete: false means that p
// cannot be solved. Which solution is returned is fixed, but not otherwise
// specified. It panics if p is not valid.
//
// The method tabulates the values of all subsets of at most three numbers and
// reaches larger sets from the target downwards: S reaches t if for some split
// of S into A and B and some value v of the smaller part A, the other part
// reaches the w with v op w = t. Six numbers take milliseconds where trying every
// order of every operation takes the better part of a second.
func (p Countdown) Solve() (*Expr, bool) {
	s := newSolver(p)
	full := uint(1)<<len(p.Nums) - 1
	e := s.reach(full, Int(int64(p.Target)))
	return e, e != nil
}

// Solvable reports whether p has a solution: see Solve.
func (p Countdown) Solvable() bool {
	_, ok := p.Solve()
	return ok
}

// tabulated is the greatest size of a subset whose values are listed.
const tabulated = 3

type solver struct {
	leaf  []Rat
	table []map[Rat]*Expr // by subset, nil until asked for
	order [][]value       // the same values in the order of their discovery
}

type value struct {
	v Rat
	e *Expr
}

func newSolver(p Countdown) *solver {
	if err := p.Validate(); err != nil {
		panic("task: invalid countdown problem")
	}
	s := &solver{
		table: make([]map[Rat]*Expr, 1<<len(p.Nums)),
		order: make([][]value, 1<<len(p.Nums)),
	}
	for _, n := range p.Nums {
		s.leaf = append(s.leaf, Int(int64(n)))
	}
	return s
}

// values lists what subset set can be, each value once with one expression.
func (s *solver) values(set uint) []value {
	if s.table[set] != nil {
		return s.order[set]
	}
	m := make(map[Rat]*Expr)
	var list []value
	put := func(v Rat, e *Expr) {
		if _, seen := m[v]; !seen {
			m[v] = e
			list = append(list, value{v, e})
		}
	}
	if bits.OnesCount(set) == 1 {
		v := s.leaf[bits.TrailingZeros(set)]
		put(v, &Expr{Num: v.num})
	}
	for a := range splits(set) {
		for _, x := range s.values(a) {
			for _, y := range s.values(set &^ a) {
				for _, op := range []byte("+-*/") {
					if v, ok := Apply(x.v, op, y.v); ok {
						put(v, &Expr{Op: op, Left: x.e, Right: y.e})
					}
					if op == '-' || op == '/' {
						if v, ok := Apply(y.v, op, x.v); ok {
							put(v, &Expr{Op: op, Left: y.e, Right: x.e})
						}
					}
				}
			}
		}
	}
	s.table[set], s.order[set] = m, list
	return list
}

// splits yields one part of each split of set into two nonempty parts, the part
// with fewer members (or, of equal parts, the one with the lowest member).
func splits(set uint) iter.Seq[uint] {
	return func(yield func(uint) bool) {
		n := bits.OnesCount(set)
		low := set & -set
		for a := (set - 1) & set; a != 0; a = (a - 1) & set {
			k := bits.OnesCount(a)
			if 2*k > n || 2*k == n && a&low == 0 {
				continue
			}
			if !yield(a) {
				return
			}
		}
	}
}

// reach returns an expression over set that equals t, or nil.
func (s *solver) reach(set uint, t Rat) *Expr {
	if bits.OnesCount(set) <= tabulated {
		s.values(set)
		return s.table[set][t]
	}
	for a := range splits(set) {
		for _, x := range s.values(a) {
			if e := s.complete(x, set&^a, t); e != nil {
				return e
			}
		}
	}
	return nil
}

// complete finds y over rest with x op y = t or y op x = t. A needed value that
// does not fit in a Rat cannot be reached: see MaxMagnitude.
func (s *solver) complete(x value, rest uint, t Rat) *Expr {
	try := func(need Rat, fits bool, op byte, xFirst bool) *Expr {
		if !fits {
			return nil
		}
		y := s.reach(rest, need)
		if y == nil {
			return nil
		}
		if xFirst {
			return &Expr{Op: op, Left: x.e, Right: y}
		}
		return &Expr{Op: op, Left: y, Right: x.e}
	}
	calc := func(a Rat, op byte, b Rat, with byte, xFirst bool) *Expr {
		need, fits := Apply(a, op, b)
		return try(need, fits, with, xFirst)
	}
	if e := calc(t, '-', x.v, '+', true); e != nil { // x + y = t
		return e
	}
	if e := calc(x.v, '-', t, '-', true); e != nil { // x - y = t
		return e
	}
	if e := calc(t, '+', x.v, '-', false); e != nil { // y - x = t
		return e
	}
	if x.v.Sign() == 0 {
		// x·y = 0 for every y, and 0/y = 0 for every y but zero; y/x is undefined.
		if t.Sign() == 0 {
			return &Expr{Op: '*', Left: x.e, Right: s.any(rest)}
		}
		return nil
	}
	if e := calc(t, '/', x.v, '*', true); e != nil { // x · y = t
		return e
	}
	if e := calc(t, '*', x.v, '/', false); e != nil { // y / x = t
		return e
	}
	if t.Sign() != 0 {
		return calc(x.v, '/', t, '/', true) // x / y = t
	}
	return nil
}

// any returns some expression over set: its sum.
func (s *solver) any(set uint) *Expr {
	var e *Expr
	for ; set != 0; set &= set - 1 {
		l := &Expr{Num: s.leaf[bits.TrailingZeros(set)].num}
		if e == nil {
			e = l
		} else {
			e = &Expr{Op: '+', Left: e, Right: l}
		}
	}
	return e
}
