package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// PrepareWeight does nothing: the kernels read a weight where it is.
func (b *Backend) PrepareWeight(w *engine.Weight) error {
	b.outside()
	b.real(w.Tensor)
	w.Prepared = nil
	return nil
}

// RefreshWeight does nothing, as PrepareWeight.
func (b *Backend) RefreshWeight(engine.Weight) { b.open() }

// Linear computes Y = X·Wᵀ + Bias + Residual.
func (b *Backend) Linear(a engine.LinearArgs) {
	const op = "Linear"
	b.begin(op)
	y := b.real(a.Y)
	x := b.real(a.X)
	w := b.of(a.W.Tensor, x.dtype)
	if y.dtype != x.dtype && !y.is(engine.F32) {
		panic("gpu: linear: dtypes do not go together")
	}
	if x.rows != y.rows || x.cols != w.cols || y.cols != w.rows {
		panic("gpu: linear: shapes do not match")
	}
	bias := b.optionalVec(a.Bias, engine.F32, y.cols)
	residual := b.optional(a.Residual, engine.F32, y.rows, y.cols)
	if residual.present() && !y.is(engine.F32) {
		panic("gpu: linear: a residual needs an F32 result")
	}
	b.product(op, kernels.Product{Op: kernels.Forward, Factors: x.kernelType(), Result: y.kernelType(),
		M: y.rows, N: y.cols, K: x.cols, A: x.matrix(), B: w.matrix(), C: y.matrix(), R: residual.matrix(), Bias: bias.ptr()})
}

// LinearSwiGLU computes GateUp = X·Wᵀ and Y = silu(Gate)·Up, in one pass where a
// kernel does that; the bits are the same.
func (b *Backend) LinearSwiGLU(a engine.LinearSwiGLUArgs) {
	const op = "LinearSwiGLU"
	y := b.real(a.Y)
	c, x, w := b.of(a.GateUp, y.dtype), b.of(a.X, y.dtype), b.of(a.W.Tensor, y.dtype)
	if c.rows != y.rows || x.rows != y.rows || c.cols != 2*y.cols || w.rows != c.cols || w.cols != x.cols {
		panic("gpu: linear swiglu: shapes do not match")
	}
	p := kernels.Product{Op: kernels.ForwardGated, Factors: x.kernelType(), Result: y.kernelType(),
		M: c.rows, N: c.cols, K: x.cols, A: x.matrix(), B: w.matrix(), C: c.matrix(), Y: y.matrix()}
	if b.chip.Family == kernels.MMA && p.M > 0 && p.N > 0 && p.GatedFits() {
		b.begin(op)
		b.product(op, p)
		return
	}
	f := y.cols
	b.Linear(engine.LinearArgs{Y: a.GateUp, X: a.X, W: a.W})
	b.SwiGLU(engine.SwiGLUArgs{Y: a.Y, Gate: a.GateUp.ColRange(0, f), Up: a.GateUp.ColRange(f, 2*f)})
}

// LinearBackwardInput computes DX = or += DY·W.
func (b *Backend) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	const op = "LinearBackwardInput"
	b.begin(op)
	dx := b.real(a.DX)
	dy, w := b.of(a.DY, dx.dtype), b.of(a.W.Tensor, dx.dtype)
	if dx.rows != dy.rows || dx.cols != w.cols || dy.cols != w.rows {
		panic("gpu: linear backward input: shapes do not match")
	}
	p := kernels.Product{Op: kernels.GradInput, Factors: dx.kernelType(), Result: dx.kernelType(),
		M: dx.rows, N: dx.cols, K: dy.cols, A: dy.matrix(), B: w.matrix(), C: dx.matrix()}
	if a.Accumulate {
		p.R = p.C
	}
	b.product(op, p)
}

// LinearBackwardWeight computes DW += DYᵀ·X and DBias += Σ_t DY.
func (b *Backend) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	const op = "LinearBackwardWeight"
	b.begin(op)
	dw := b.of(a.DW, engine.F32)
	dy := b.real(a.DY)
	x := b.of(a.X, dy.dtype)
	if dw.rows != dy.cols || dw.cols != x.cols || x.rows != dy.rows {
		panic("gpu: linear backward weight: shapes do not match")
	}
	dbias := b.optionalVec(a.DBias, engine.F32, dy.cols)
	if dy.rows == 0 {
		return
	}
	b.product(op, kernels.Product{Op: kernels.GradWeight, Factors: dy.kernelType(), Result: kernels.F32,
		M: dw.rows, N: dw.cols, K: dy.rows, A: dy.matrix(), B: x.matrix(), C: dw.matrix(), R: dw.matrix()})
	if !dbias.present() || dy.cols == 0 {
		return
	}
	g := kernels.BiasGrad{Type: dy.kernelType(), T: dy.rows, N: dy.cols, DB: dbias.ptr(), DY: dy.matrix()}
	var ok bool
	if g.Counters, _, ok = b.counters(op, g.NumCounters()); ok {
		l, err := g.Plan()
		b.run(op, &l, err)
	}
}

// product submits a matrix product; one without elements is none.
func (b *Backend) product(op string, p kernels.Product) {
	if p.M == 0 || p.N == 0 {
		return
	}
	var ok bool
	if p.Counters, p.NumCounters, ok = b.counters(op, 0); !ok {
		return
	}
	l, err := p.Plan(b.chip)
	b.run(op, &l, err)
}

// matrix is a view as package kernels takes it.
func (v view) matrix() kernels.Matrix {
	if v.buf == nil {
		return kernels.Matrix{}
	}
	return kernels.Matrix{Addr: v.ptr(), Stride: v.stride}
}
