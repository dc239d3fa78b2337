package gpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// SumSquares computes Out[0] = Σ X².
func (b *Backend) SumSquares(a engine.SumSquaresArgs) {
	const op = "SumSquares"
	b.begin(op)
	n := a.X.Len()
	out, x := b.vec(a.Out, engine.F32, 1), b.vec(a.X, engine.F32, n)
	plan := kernels.PlanSumSquares(n)
	partial, ok := b.scratchFor(op, plan.PartialBytes())
	if !ok {
		return
	}
	sizes(add(b.start().Pointer(partial), x).Int64(int64(n)), plan.PacksPerBlock)
	b.launch(op, &plan.Parts, plan.Blocks, 1, 1)
	sizes(add(b.start(), out).Pointer(partial), plan.Blocks)
	b.launch(op, &plan.Sum, 1, 1, 1)
}

// AdamW takes one optimizer step.
func (b *Backend) AdamW(a engine.AdamWArgs) {
	const op = "AdamW"
	b.begin(op)
	if a.Step < 1 {
		panic("gpu: adamw: step counts from 1")
	}
	n := a.P.Len()
	p, g := b.vec(a.P, engine.F32, n), b.vec(a.G, engine.F32, n)
	moments := b.tensor(a.M).dtype
	if moments != engine.F32 && moments != engine.U8 {
		panic("gpu: adamw: moments are F32 or U8")
	}
	m, v := b.vec(a.M, moments, n), b.vec(a.V, moments, n)
	half := b.optionalVec(a.Copy, engine.BF16, n)
	k := kernels.AdamWF32()
	args := add(b.start(), p, g, m, v)
	if moments == engine.U8 {
		k = kernels.AdamWU8()
		blocks := (n + engine.MomentBlock - 1) / engine.MomentBlock
		add(args, b.vec(a.MScale, engine.F32, blocks), b.vec(a.VScale, engine.F32, blocks))
	}
	add(args, half)
	if moments == engine.U8 {
		table := b.list(op, b.momentTable())
		if table == nil {
			return
		}
		args.Pointer(table.ptr(0))
	}
	args.Int64(int64(n))
	for _, c := range kernels.AdamWStep(a.GradScale, a.Beta1, a.Beta2, a.LR, a.WeightDecay, a.Eps, a.Step) {
		args.Float32(c)
	}
	b.launch(op, &k.Spec, k.Grid(n), 1, 1)
}

// momentTable returns the bits of the table by which 8-bit moments are read and
// written.
func (b *Backend) momentTable() []int32 {
	if b.moments == nil {
		for _, v := range kernels.MomentTable(engine.SignedMomentMap(), engine.UnsignedMomentMap()) {
			b.moments = append(b.moments, int32(math.Float32bits(v)))
		}
	}
	return b.moments
}
