package gpu

import (
	"errors"

	"github.com/updraft-ml/updraft/engine"
)

// SumSquares computes Out[0] = Σ X².
func (b *Backend) SumSquares(a engine.SumSquaresArgs) {
	b.begin("SumSquares")
	out, x := b.vec(a.Out, engine.F32, 1), b.vec(a.X, engine.F32, a.X.Len())
	_, _ = out, x
	b.fail("SumSquares", errors.ErrUnsupported) // its kernel is still to come
}

// AdamW takes one optimizer step.
func (b *Backend) AdamW(a engine.AdamWArgs) {
	b.begin("AdamW")
	if a.Step < 1 {
		panic("gpu: adamw: step counts from 1")
	}
	n := a.P.Len()
	p, g := b.vec(a.P, engine.F32, n), b.vec(a.G, engine.F32, n)
	m := b.tensor(a.M)
	if !m.is(engine.F32) && !m.is(engine.U8) {
		panic("gpu: adamw: moments are F32 or U8")
	}
	m, v := b.vec(a.M, m.dtype, n), b.vec(a.V, m.dtype, n)
	var mScale, vScale view
	if m.is(engine.U8) {
		blocks := (n + engine.MomentBlock - 1) / engine.MomentBlock
		mScale, vScale = b.vec(a.MScale, engine.F32, blocks), b.vec(a.VScale, engine.F32, blocks)
	}
	half := b.optionalVec(a.Copy, engine.BF16, n)
	_, _, _, _, _, _ = p, g, v, mScale, vScale, half
	if n == 0 {
		return
	}
	b.fail("AdamW", errors.ErrUnsupported) // its kernel is still to come
}
