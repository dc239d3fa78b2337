package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/simd"
)

// sumChunk is the number of elements whose squares are summed before the sums
// are added in ascending order; it is the same for any number of threads.
const sumChunk = 1 << 14

// SumSquares computes Out[0] = Σ X².
func (b *Backend) SumSquares(a engine.SumSquaresArgs) {
	op := next(b, &b.ops.sumSquares)
	*op = sumSquaresOp{out: b.vec(a.Out, 1), x: b.vec(a.X, a.X.Len())}
	b.submit(op)
}

type sumSquaresOp struct {
	out, x  []float32
	partial []float64
}

func (o *sumSquaresOp) run(b *Backend) {
	n := (len(o.x) + sumChunk - 1) / sumChunk
	if len(b.partial) < n {
		b.partial = make([]float64, n)
	}
	o.partial = b.partial[:n]
	b.parallel(o, n)
	var s float64
	for _, v := range o.partial {
		s += v
	}
	o.out[0] = float32(s)
}

func (o *sumSquaresOp) tile(_ *worker, i int) {
	o.partial[i] = simd.SumSq(o.x[i*sumChunk : min((i+1)*sumChunk, len(o.x))])
}

// AdamW takes one optimizer step.
func (b *Backend) AdamW(a engine.AdamWArgs) {
	if a.Step < 1 {
		panic("cpu: adamw: step counts from 1")
	}
	n := a.P.Len()
	op := next(b, &b.ops.adamW)
	*op = adamWOp{p: b.vec(a.P, n), g: b.vec(a.G, n)}
	if is(a.M, engine.U8) {
		blocks := (n + engine.MomentBlock - 1) / engine.MomentBlock
		op.codes1, op.codes2 = b.codes(a.M, n), b.codes(a.V, n)
		op.scale1, op.scale2 = b.vec(a.MScale, blocks), b.vec(a.VScale, blocks)
		op.maps = b.moments()
	} else {
		op.m, op.v = b.vec(a.M, n), b.vec(a.V, n)
	}
	if a.Copy.Buf != nil {
		op.copy = b.halves(a.Copy, n)
	}
	op.step = simd.AdamW{
		LR: a.LR, Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps, WeightDecay: a.WeightDecay,
		Bias1:     float32(1 - math.Pow(float64(a.Beta1), float64(a.Step))),
		Bias2:     float32(1 - math.Pow(float64(a.Beta2), float64(a.Step))),
		GradScale: a.GradScale,
	}
	b.submit(op)
}

type adamWOp struct {
	p, g, m, v []float32
	copy       []uint16 // BF16 of the new p; may be absent

	// 8-bit moments in place of m and v.
	codes1, codes2 []uint8
	scale1, scale2 []float32
	maps           *momentMaps

	step simd.AdamW
}

func (o *adamWOp) run(b *Backend) {
	if o.maps != nil {
		b.reserve(2 * sumChunk)
	}
	b.parallel(o, (len(o.p)+sumChunk-1)/sumChunk)
}

func (o *adamWOp) tile(w *worker, i int) {
	from, to := i*sumChunk, min((i+1)*sumChunk, len(o.p))
	p, g := o.p[from:to], o.g[from:to]
	if o.maps == nil {
		o.step.Update(p, g, o.m[from:to], o.v[from:to])
	} else {
		m, v := w.arena[:to-from], w.arena[sumChunk:][:to-from]
		first := i * (sumChunk / engine.MomentBlock)
		o.maps[0].decode(m, o.codes1[from:to], o.scale1[first:])
		o.maps[1].decode(v, o.codes2[from:to], o.scale2[first:])
		o.step.Update(p, g, m, v)
		o.maps[0].encode(o.codes1[from:to], o.scale1[first:], m)
		o.maps[1].encode(o.codes2[from:to], o.scale2[first:], v)
	}
	if o.copy != nil {
		half.EncodeBF16(o.copy[from:to], p)
	}
}
