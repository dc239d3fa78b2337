package answer

import (
	"math"
	"math/cmplx"
	"slices"
	"strings"
)

// same reports whether two answers denote the same.
func same(a, b *node) bool {
	a, b = simplify(a), simplify(b)
	if a.kind == relation && b.kind != relation {
		a = valueOf(a)
	} else if b.kind == relation && a.kind != relation {
		b = valueOf(b)
	}
	switch {
	case a.kind == chain && b.kind == tuple:
		a = interval(a)
	case b.kind == chain && a.kind == tuple:
		b = interval(b)
	case a.kind == list && b.kind == union:
		a = unionOf(a)
	case b.kind == list && a.kind == union:
		b = unionOf(b)
	}
	switch {
	case a.kind == list && b.kind != list && len(a.args) == 1:
		return same(a.args[0], b)
	case b.kind == list && a.kind != list && len(b.args) == 1:
		return same(a, b.args[0])
	case a.unit != "" && b.unit != "" && !sameUnit(a.unit, b.unit):
		return false
	case a.kind == negative && b.kind == negative:
		return same(a.args[0], b.args[0])
	case a.kind == percent || b.kind == percent:
		return samePercent(a, b)
	case a.kind == based || b.kind == based:
		return sameBased(a, b)
	case a.scalar() && b.scalar():
		return equal(a, b)
	case a.kind != b.kind:
		return false
	}
	switch a.kind {
	case wordy:
		return a.text != "" && a.text == b.text
	case list, union:
		return sameUnordered(a.args, b.args)
	case tuple:
		if a.text == ":" && b.text == ":" {
			return proportional(a.args, b.args)
		}
		return brackets(a.text) == brackets(b.text) && sameOrdered(a.args, b.args)
	case matrix:
		return slices.EqualFunc(a.args, b.args, func(x, y *node) bool { return sameOrdered(x.args, y.args) })
	case chain:
		return a.text == b.text && sameOrdered(a.args, b.args)
	case relation:
		return sameRelation(a, b)
	}
	return false
}

// simplify turns ± into the list of its two values, and takes from sets what
// they hold twice.
func simplify(n *node) *node {
	switch n.kind {
	case list:
		out := &node{kind: list, text: n.text}
		for _, a := range n.args {
			if s := simplify(a); s.kind == list {
				out.args = append(out.args, s.args...)
			} else {
				out.args = append(out.args, s)
			}
		}
		if n.text == "{}" && len(out.args) <= mostElements {
			out.args = distinct(out.args)
		}
		return out
	case union:
		for i, a := range n.args {
			n.args[i] = simplify(a)
		}
		return n
	}
	if plus, ok := n.signed(1); ok {
		minus, _ := n.signed(-1)
		return &node{kind: list, args: []*node{plus, minus}}
	}
	return n
}

// distinct leaves out what is the same as something before it.
func distinct(list []*node) []*node {
	var out []*node
	for _, x := range list {
		if !slices.ContainsFunc(out, func(y *node) bool { return same(x, y) }) {
			out = append(out, x)
		}
	}
	return out
}

// signed returns n with its ± taken as +, or as − for −1; ok is false where n
// has none.
func (n *node) signed(sign int) (out *node, ok bool) {
	copied := *n
	copied.args = make([]*node, len(n.args))
	for i, a := range n.args {
		s, found := a.signed(sign)
		copied.args[i] = s
		ok = ok || found
	}
	if n.kind != plusMinus {
		return &copied, ok
	}
	if n.text == "mp" {
		sign = -sign
	}
	last := copied.args[len(copied.args)-1]
	if sign < 0 {
		last = &node{kind: negative, args: []*node{last}}
	}
	if len(copied.args) == 1 {
		return last, true
	}
	return &node{kind: sum, args: []*node{copied.args[0], last}}, true
}

// valueOf is what "x = 5" says beside an answer "5": its right side, where the
// left one is a name. "x < 3" is the interval.
func valueOf(r *node) *node {
	a, b := r.args[0], r.args[1]
	name := func(n *node) bool {
		if n.kind == product && len(n.args) == 2 && n.args[0].kind == symbol { // f(x)
			return n.args[1].kind == symbol
		}
		if n.kind == tuple { // (x, y)
			return !slices.ContainsFunc(n.args, func(a *node) bool { return a.kind != symbol })
		}
		return n.kind == symbol
	}
	inf := &node{kind: symbol, text: "infty"}
	switch {
	case r.text == "=" && name(a):
		return simplify(b)
	case r.text == "=" && name(b):
		return simplify(a)
	case r.text == "<" && name(a):
		return &node{kind: tuple, text: "()", args: []*node{{kind: negative, args: []*node{inf}}, b}}
	case r.text == "<=" && name(a):
		return &node{kind: tuple, text: "(]", args: []*node{{kind: negative, args: []*node{inf}}, b}}
	case r.text == "<" && name(b):
		return &node{kind: tuple, text: "()", args: []*node{a, inf}}
	case r.text == "<=" && name(b):
		return &node{kind: tuple, text: "[)", args: []*node{a, inf}}
	}
	return r
}

// interval is a chain a < x < b as a tuple.
func interval(c *node) *node {
	if c.args[1].kind != symbol {
		return c
	}
	open, end := "(", ")"
	ops := strings.Fields(c.text)
	if ops[0] == "<=" {
		open = "["
	}
	if ops[1] == "<=" {
		end = "]"
	}
	return &node{kind: tuple, text: open + end, args: []*node{c.args[0], c.args[2]}}
}

// unionOf is a list of inequalities, x < 1 or x > 2, as a union of intervals; the
// list itself where it is none.
func unionOf(l *node) *node {
	u := &node{kind: union}
	for _, r := range l.args {
		if r.kind == relation {
			r = valueOf(r)
		} else if r.kind == chain {
			r = interval(r)
		}
		if r.kind != tuple {
			return l
		}
		u.args = append(u.args, r)
	}
	return u
}

// proportional compares ratios of three and more.
func proportional(a, b []*node) bool {
	if len(a) != len(b) {
		return false
	}
	x, y := a[0].rational(), b[0].rational()
	if x == nil || y == nil || x.Sign()*y.Sign() <= 0 {
		return sameOrdered(a, b)
	}
	for i := range a {
		if !a[i].scalar() || !b[i].scalar() ||
			!equal(&node{kind: product, args: []*node{a[i], b[0]}}, &node{kind: product, args: []*node{b[i], a[0]}}) {
			return false
		}
	}
	return true
}

// brackets makes the two ways to write a point one.
func brackets(s string) string {
	if s == "" {
		return "()"
	}
	return s
}

func sameOrdered(a, b []*node) bool { return slices.EqualFunc(a, b, same) }

// mostElements bounds the lists that are compared in any order.
const mostElements = 60

// sameUnordered matches each element of a with one of b.
func sameUnordered(a, b []*node) bool {
	if len(a) != len(b) || len(a) > mostElements {
		return false
	}
	used := make([]bool, len(b))
next:
	for _, x := range a {
		for i, y := range b {
			if !used[i] && same(x, y) {
				used[i] = true
				continue next
			}
		}
		return false
	}
	return true
}

// sameUnit compares words behind numbers, "cm" and "centimeters" among them.
func sameUnit(a, b string) bool {
	canonical := func(s string) string {
		f := strings.Fields(s)
		for i, w := range f {
			w = strings.TrimSuffix(w, ".")
			if full, ok := abbreviations[w]; ok {
				w = full
			}
			f[i] = strings.TrimSuffix(w, "s")
		}
		return strings.Join(f, " ")
	}
	return canonical(a) == canonical(b)
}

var abbreviations = map[string]string{
	"cm": "centimeter", "mm": "millimeter", "m": "meter", "km": "kilometer", "in": "inch", "inches": "inch", "ft": "foot", "feet": "foot",
	"hr": "hour", "hrs": "hour", "min": "minute", "sec": "second", "kg": "kilogram", "g": "gram", "lb": "pound", "lbs": "pound",
	"sq": "square", "deg": "degree", "mph": "mile per hour", "mi": "mile",
}

// samePercent: 50% is 50, as in answers in percent, and one half.
func samePercent(a, b *node) bool {
	if a.kind == b.kind {
		return equal(a.args[0], b.args[0])
	}
	if b.kind == percent {
		a, b = b, a
	}
	if !b.scalar() || b.unit != "" {
		return false
	}
	x := a.args[0]
	return equal(x, b) || equal(&node{kind: quotient, args: []*node{x, num("100")}}, b)
}

// sameBased: numbers in a base have the same digits; one of them may leave the
// base to the question.
func sameBased(a, b *node) bool {
	if a.kind == b.kind {
		return a.text == b.text && same(a.args[0], b.args[0])
	}
	if b.kind == based {
		a, b = b, a
	}
	return b.kind == number && a.text == b.text
}

// sameRelation: both sides' difference is the same up to a factor, positive
// where the order matters.
func sameRelation(a, b *node) bool {
	if a.text != b.text {
		return false
	}
	if sameOrdered(a.args, b.args) {
		return true
	}
	for _, n := range slices.Concat(a.args, b.args) {
		if !n.scalar() {
			return false
		}
	}
	diff := func(r *node) *node {
		return &node{kind: sum, args: []*node{r.args[0], {kind: negative, args: []*node{r.args[1]}}}}
	}
	x, y := diff(a), diff(b)
	var ratio complex128
	n := probe(x, y, func(p, q complex128) bool {
		if cmplx.Abs(p) < 1e-9 || cmplx.Abs(q) < 1e-9 {
			return false
		}
		r := p / q
		if ratio == 0 {
			ratio = r
		}
		return cmplx.Abs(r-ratio) <= 1e-9*max(cmplx.Abs(r), cmplx.Abs(ratio)) // however small both are
	})
	if ratio == 0 || !n || math.Abs(imag(ratio)) > 1e-9*cmplx.Abs(ratio) {
		return false
	}
	return a.text == "=" || a.text == "!=" || real(ratio) > 0
}

// equal compares two scalars: exactly where both are rational, else at points.
func equal(a, b *node) bool {
	x, y := a.rational(), b.rational()
	if x != nil && y != nil {
		return x.Cmp(y) == 0
	}
	return probe(a, b, close)
}

// points is at how many points expressions are compared, and enough how many
// of them must give values.
const points, enough = 12, 4

// probe evaluates both at the same points and reports whether agree holds at
// all of those where both have a value. At some points variables are negative
// or complex, so that √(x²) is not x.
func probe(a, b *node, agree func(p, q complex128) bool) bool {
	set := map[string]bool{}
	a.symbols(set)
	b.symbols(set)
	var names []string
	for s := range set {
		names = append(names, s)
	}
	slices.Sort(names)
	if len(names) == 0 {
		p, q := a.value(nil), b.value(nil)
		return agree(p, q)
	}
	state := uint64(0x9e3779b97f4a7c15)
	uniform := func() float64 { // splitmix64 (Steele, Lea and Flood 2014)
		state += 0x9e3779b97f4a7c15
		z := state
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		return float64((z^z>>31)>>11) / (1 << 53)
	}
	valid := 0
	for i := range points {
		at := map[string]complex128{}
		for _, s := range names {
			v := 0.3 + 2.5*uniform()
			if i%3 == 1 {
				v = -v
			}
			at[s] = complex(v, 0)
		}
		p, q := a.value(at), b.value(at)
		if cmplx.IsNaN(p) != cmplx.IsNaN(q) {
			return false
		}
		if cmplx.IsNaN(p) || cmplx.IsInf(p) || cmplx.IsInf(q) {
			continue
		}
		if !agree(p, q) {
			return false
		}
		valid++
	}
	return valid >= enough
}

// close allows the errors of a few dozen operations.
func close(p, q complex128) bool {
	if cmplx.IsInf(p) || cmplx.IsInf(q) {
		return cmplx.IsInf(p) && cmplx.IsInf(q) && real(p) == real(q)
	}
	return cmplx.Abs(p-q) <= 1e-9*max(cmplx.Abs(p), cmplx.Abs(q), 1e-3)
}
