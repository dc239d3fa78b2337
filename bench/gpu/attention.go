package main

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// attentionShape is packed attention over sequences of equal length.
type attentionShape struct {
	sequences, length, heads, kv, dim int
}

func (a attentionShape) rows() int { return a.sequences * a.length }

func (a attentionShape) String() string {
	return fmt.Sprintf("%d × %d tokens, %d heads, %d kv heads, head %d", a.sequences, a.length, a.heads, a.kv, a.dim)
}

func attentionWorkloads(quick bool) (all []*workload) {
	shapes := []attentionShape{
		{8, 1024, 14, 2, 64}, {8, 1024, 12, 2, 128}, {8, 1024, 16, 16, 128},
		{1, 8192, 14, 2, 64}, {1, 8192, 12, 2, 128}, {1, 8192, 16, 16, 128},
	}
	if quick {
		shapes = []attentionShape{{2, 40, 2, 1, 64}}
	}
	for _, s := range shapes {
		all = append(all, attentionForward(s), attentionBackward(s))
	}
	return all
}

// attentionWorkload has the operations of the causal half: two products forward,
// five backward.
func attentionWorkload(pass string, s attentionShape, products float64) *workload {
	pairs := float64(s.sequences) * float64(s.length) * float64(s.length+1) / 2
	return &workload{
		group: "attention", name: pass + " " + s.String(), flop: 2 * products * pairs * float64(s.heads*s.dim),
		operands: 2 * s.rows() * s.dim * (3*s.heads + 4*s.kv),
		peers: []request{{"kind": "sdpa", "pass": pass, "sequences": s.sequences, "length": s.length, "heads": s.heads,
			"kv": s.kv, "dim": s.dim}},
	}
}

// attentionSet is the operands of one set.
type attentionSet struct {
	q, k, v, do        operand
	o, lse, dq, dk, dv engine.Tensor
	shape              attentionShape
	packing            *engine.Packing
	scale              float64
}

func newAttentionSet(e *env, s attentionShape, backward bool) *attentionSet {
	wide := func() operand { return e.random(engine.BF16, s.rows(), s.heads*s.dim) }
	narrow := func() operand { return e.random(engine.BF16, s.rows(), s.kv*s.dim) }
	a := &attentionSet{q: wide(), k: narrow(), v: narrow(), o: e.empty(engine.BF16, s.rows(), s.heads*s.dim),
		lse: e.empty(engine.F32, s.rows(), s.heads), shape: s, packing: &engine.Packing{Rows: s.rows()}, scale: 1 / math.Sqrt(float64(s.dim))}
	for i := range s.sequences {
		a.packing.Segments = append(a.packing.Segments, engine.Segment{Start: i * s.length, Len: s.length})
	}
	if backward {
		a.do = wide()
		a.dq, a.dk, a.dv = e.empty(engine.BF16, s.rows(), s.heads*s.dim), e.empty(engine.BF16, s.rows(), s.kv*s.dim), e.empty(engine.BF16, s.rows(), s.kv*s.dim)
		a.forward(e)
	}
	return a
}

func (a *attentionSet) forward(e *env) {
	e.Attention(engine.AttentionArgs{O: a.o, Q: a.q.Tensor, K: a.k.Tensor, V: a.v.Tensor, LSE: a.lse, HeadDim: a.shape.dim,
		Scale: float32(a.scale), Packing: a.packing})
}

func (a *attentionSet) backward(e *env) {
	e.AttentionBackward(engine.AttentionBackwardArgs{DQ: a.dq, DK: a.dk, DV: a.dv, DO: a.do.Tensor, Q: a.q.Tensor, O: a.o,
		K: a.k.Tensor, V: a.v.Tensor, LSE: a.lse, HeadDim: a.shape.dim, Scale: float32(a.scale), Packing: a.packing})
}

// weights returns the scores of a query, exp(score − log-sum-exp), with the most
// that one of the scores may err by, and the log-sum-exp.
func weights(n, dim int, scale float64, q func(l int) float64, k func(j, l int) float64) (p []float64, errs, lse float64) {
	p = make([]float64, n)
	most := math.Inf(-1)
	for j := range p {
		s, tol := dot(dim, q, func(l int) float64 { return k(j, l) })
		p[j], errs = s*scale, max(errs, tol*scale)
		most = max(most, p[j])
	}
	sum := 0.0
	for j := range p {
		sum += math.Exp(p[j] - most)
	}
	lse = most + math.Log(sum)
	for j := range p {
		p[j] = math.Exp(p[j] - lse)
	}
	// The exponent itself is a float32 product of the score, and exp2 errs by two
	// last places: 2^-21 of an exponent up to the largest score.
	return p, errs + 0x1p-21*(1+math.Abs(lse)), lse
}

// mix is Σ p·v with its tolerance: p errs by the scores' error and is rounded to
// BF16, once in the numerator.
func mix(p []float64, errs float64, v func(j int) float64) (sum, tolerance float64) {
	for j, w := range p {
		x := v(j)
		sum += w * x
		tolerance += w * math.Abs(x)
	}
	return sum, tolerance * (2*errs + roundedBF16 + float64(len(p))*0x1p-23)
}

// checkedRows is how many rows and heads of attention are compared, in all columns.
const checkedRows = 6

func attentionForward(s attentionShape) *workload {
	x := attentionWorkload("forward", s, 2)
	x.setup = func(e *env) (func(int), func() verdict) {
		sets := each(e, func() *attentionSet { return newAttentionSet(e, s, false) })
		return func(i int) { sets[i].forward(e) }, func() verdict {
			a := sets[0]
			var c compared
			o, lse := e.read(a.o), e.read(a.lse)
			for i := range checkedRows {
				row, h := e.rng.IntN(s.rows()), e.rng.IntN(s.heads)
				if i == 0 {
					row = s.rows() - 1
				}
				first, g := row/s.length*s.length, h/(s.heads/s.kv)
				p, errs, want := weights(row-first+1, s.dim, a.scale, func(l int) float64 { return a.q.at(row, h*s.dim+l) },
					func(j, l int) float64 { return a.k.at(first+j, g*s.dim+l) })
				c.element("LSE", float64(lse[row*s.heads+h]), want, errs+0x1p-21*(1+math.Abs(want)))
				for l := range s.dim {
					want, tol := mix(p, errs, func(j int) float64 { return a.v.at(first+j, g*s.dim+l) })
					c.element(fmt.Sprintf("O[%d] head %d column %d", row, h, l), float64(o[row*s.heads*s.dim+h*s.dim+l]), want, stored(engine.BF16, want, tol))
				}
			}
			return c.verdict
		}
	}
	return x
}

// attentionBackward checks rows of DQ; that DK and DV are right is the conformance
// suite's to show, at smaller shapes.
func attentionBackward(s attentionShape) *workload {
	x := attentionWorkload("backward", s, 5)
	x.operands += 2 * s.rows() * s.dim * (2*s.heads + 2*s.kv)
	x.setup = func(e *env) (func(int), func() verdict) {
		sets := each(e, func() *attentionSet { return newAttentionSet(e, s, true) })
		return func(i int) { sets[i].backward(e) }, func() verdict {
			a := sets[0]
			var c compared
			o, dq := e.read(a.o), e.read(a.dq)
			for range checkedRows {
				row, h := e.rng.IntN(s.rows()), e.rng.IntN(s.heads)
				first, g := row/s.length*s.length, h/(s.heads/s.kv)
				p, errs, _ := weights(row-first+1, s.dim, a.scale, func(l int) float64 { return a.q.at(row, h*s.dim+l) },
					func(j, l int) float64 { return a.k.at(first+j, g*s.dim+l) })
				do := func(l int) float64 { return a.do.at(row, h*s.dim+l) }
				delta, deltaTol := dot(s.dim, do, func(l int) float64 { return float64(o[row*s.heads*s.dim+h*s.dim+l]) })
				ds, tols := make([]float64, len(p)), make([]float64, len(p))
				for j := range p {
					dp, tol := dot(s.dim, do, func(l int) float64 { return a.v.at(first+j, g*s.dim+l) })
					ds[j] = p[j] * (dp - delta)
					tols[j] = p[j]*(tol+deltaTol) + math.Abs(ds[j])*(2*errs+roundedBF16+0x1p-21)
				}
				for l := range s.dim {
					want, tol := 0.0, 0.0
					for j := range p {
						k := a.k.at(first+j, g*s.dim+l)
						want += a.scale * ds[j] * k
						tol += a.scale * math.Abs(k) * (tols[j] + math.Abs(ds[j])*float64(len(p))*0x1p-23)
					}
					c.element(fmt.Sprintf("DQ[%d] head %d column %d", row, h, l), float64(dq[row*s.heads*s.dim+h*s.dim+l]), want, stored(engine.BF16, want, tol))
				}
			}
			return c.verdict
		}
	}
	return x
}
