package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// backwardProblem is a forward's problem with its results and their gradient.
type backwardProblem struct {
	*attentionProblem
	do, o, lse ref.Mat
}

func newBackward(p *attentionProblem) backwardProblem {
	o, lse := ref.Attention(p.q, p.k, p.v, p.d, p.scale(), p.packing)
	hold := func(v float64) float64 { return float64(float32(v)) }
	holdO := hold
	if p.bf16 {
		holdO = func(v float64) float64 { return float64(half.FromBF16(half.BF16(float32(v)))) }
	}
	do := random(rand.New(rand.NewPCG(uint64(p.d), 12)), o.Rows, o.Cols, 1)
	return backwardProblem{p, do, o.Map(holdO), lse.Map(hold)}
}

// gradients runs the three kernels.
func (p backwardProblem) gradients(d *kerneltest.Device) (dq, dk, dv ref.Mat, err error) {
	a, err := p.kernels()
	if err != nil {
		return dq, dk, dv, err
	}
	t, l := p.packing.Rows, p.layout
	in := func(m ref.Mat) *tensor { return input(d, m, l, p.bf16) }
	q, k, v, do, o, lse := in(p.q), in(p.k), in(p.v), in(p.do), in(p.o), input(d, p.lse, l, false)
	tq, tk, tv := output(d, t, p.h*p.d, l, p.bf16), output(d, t, p.kv*p.d, l, p.bf16), output(d, t, p.kv*p.d, l, p.bf16)
	delta := d.Out(4 * t * p.h)
	segments := segmentsOf(p.packing.Segments)
	queries := a.QueryTiles(segments)
	keys, runs := kernels.KeyTiles(segments)
	if err = d.Launch(a.Delta, [3]int{a.DeltaGrid(t, p.h)}, delta, do.arg(), o.arg(), t, p.h, p.d, do.stride, o.stride); err != nil {
		return dq, dk, dv, err
	}
	if err = d.Launch(a.DQ, [3]int{a.Blocks(queries, p.kv)}, tq.arg(), do.arg(), q.arg(), k.arg(), v.arg(), lse.arg(), delta,
		kerneltest.In(d, queries), p.kv, a.Group, p.d, tq.stride, do.stride, q.stride, k.stride, v.stride, lse.stride, p.scale()); err != nil {
		return dq, dk, dv, err
	}
	if err = d.Launch(a.DKV, [3]int{kernels.KeyBlocks(keys, p.kv)}, tk.arg(), tv.arg(), do.arg(), q.arg(), k.arg(), v.arg(), lse.arg(), delta,
		kerneltest.In(d, keys), kerneltest.In(d, runs), p.kv, a.Group, p.d, tk.stride, tv.stride, do.stride, q.stride, k.stride, v.stride,
		lse.stride, p.scale()); err != nil {
		return dq, dk, dv, err
	}
	for _, x := range []struct {
		m *ref.Mat
		t *tensor
	}{{&dq, tq}, {&dk, tk}, {&dv, tv}} {
		if *x.m, err = x.t.read(d); err != nil {
			return dq, dk, dv, err
		}
	}
	return dq, dk, dv, nil
}

// check compares the gradients with the reference. A weight errs by its score's
// and LSE's errors, relatively; dS = P·(dP − delta) by that and by the errors of
// two products; both are rounded before they enter a product; a gradient is then
// a sum of such terms, and is rounded.
func (p backwardProblem) check(d *kerneltest.Device) error {
	dq, dk, dv, err := p.gradients(d)
	if err != nil {
		return err
	}
	wq, wk, wv := ref.AttentionBackward(p.do, p.q, p.k, p.v, p.o, p.lse, p.d, p.scale(), p.packing)
	eq, ek, ev := ref.New(wq.Rows, wq.Cols), ref.New(wk.Rows, wk.Cols), ref.New(wv.Rows, wv.Cols)
	group := p.h / p.kv
	each := p.rounding() + p.chain(p.packing.Rows*group)
	for t := range p.packing.Rows {
		keys := ref.Visible(p.packing, t)
		for h := range p.h {
			g, lse := h/group, p.lse.At(t, h)
			cols := func(m ref.Mat, row, head int) []float64 { return m.Row(row)[head*p.d:][:p.d] }
			do, o, q := cols(p.do, t, h), cols(p.o, t, h), cols(p.q, t, h)
			delta, sizes := 0.0, 0.0
			for i := range p.d {
				delta += do[i] * o[i]
				sizes += math.Abs(do[i] * o[i])
			}
			x := p.see(t, h, keys)
			for j, r := range keys {
				k, v := cols(p.k, r, g), cols(p.v, r, g)
				dp, size := 0.0, sizes
				for i := range p.d {
					dp += do[i] * v[i]
					size += math.Abs(do[i] * v[i])
				}
				w := math.Exp(x.s[j] - lse)
				relative := x.err[j] + 4*u32bit*math.Abs(lse)
				ds := math.Abs(w * (dp - delta))
				dsErr := ds*(relative+2*u32bit) + w*size*(p.chain(p.d)+float64(p.d)*u32bit)
				for i := range p.d {
					ev.Row(r)[g*p.d+i] += w * math.Abs(do[i]) * (relative + each)
					eq.Row(t)[h*p.d+i] += p.scale() * math.Abs(k[i]) * (dsErr + ds*each)
					ek.Row(r)[g*p.d+i] += p.scale() * math.Abs(q[i]) * (dsErr + ds*each)
				}
			}
		}
	}
	for _, c := range []struct {
		name           string
		got, want, tol ref.Mat
	}{{"dQ", dq, wq, eq}, {"dK", dk, wk, ek}, {"dV", dv, wv, ev}} {
		for i, w := range c.want.V {
			c.tol.V[i] += p.rounding() * (math.Abs(w) + c.tol.V[i])
		}
		if err := near(c.name, c.got, c.want, c.tol); err != nil {
			return err
		}
	}
	return nil
}

func TestAttentionBackward(t *testing.T) {
	for _, bf16 := range []bool{true, false} {
		t.Run(map[bool]string{true: "bf16", false: "f32"}[bf16], func(t *testing.T) {
			kerneltest.EachMode(t, func(d *kerneltest.Device) error {
				for i, p := range attentionProblems(bf16) {
					if err := newBackward(p).check(d); err != nil {
						return fmt.Errorf("problem %d: %w", i, err)
					}
				}
				return nil
			}, noConflicts)
		})
	}
}
