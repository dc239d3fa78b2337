package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// RMSNorm normalises each of Groups runs of columns.
func (b *Backend) RMSNorm(a engine.RMSNormArgs) {
	b.begin("RMSNorm")
	y := b.real(a.Y)
	x := b.real(a.X)
	if x.rows != y.rows || x.cols != y.cols || a.Groups < 1 || y.cols%a.Groups != 0 {
		panic("gpu: rms norm: shapes do not match")
	}
	if x.dtype != y.dtype && !x.is(engine.F32) {
		panic("gpu: rms norm: dtypes do not go together")
	}
	d := y.cols / a.Groups
	w := b.vec(a.W, engine.F32, d)
	rstd := b.optional(a.Rstd, engine.F32, y.rows, a.Groups)
	if y.len() == 0 {
		return
	}
	k := kernels.RMSNorm(y.kernelType(), x.kernelType(), d)
	lines := y.rows * a.Groups
	sizes(add(b.start(), y, x, w, rstd), lines, a.Groups, d, y.stride, x.stride, rstd.stride).Float32(a.Eps)
	b.launch("RMSNorm", &k.Spec, k.Grid(lines), 1, 1)
}

// RMSNormBackward computes the gradients of X and W.
func (b *Backend) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	const op = "RMSNormBackward"
	b.begin(op)
	dx := b.real(a.DX)
	dy, x := b.real(a.DY), b.real(a.X)
	if dy.rows != dx.rows || dy.cols != dx.cols || x.rows != dx.rows || x.cols != dx.cols || a.Groups < 1 || dx.cols%a.Groups != 0 {
		panic("gpu: rms norm backward: shapes do not match")
	}
	if x.dtype != dy.dtype && !x.is(engine.F32) || dx.dtype != dy.dtype && !dx.is(engine.F32) || a.Accumulate && !dx.is(engine.F32) {
		panic("gpu: rms norm backward: dtypes do not go together")
	}
	d := dx.cols / a.Groups
	w := b.vec(a.W, engine.F32, d)
	dw := b.optionalVec(a.DW, engine.F32, d)
	rstd := b.shaped(a.Rstd, engine.F32, dx.rows, a.Groups)
	if dx.len() == 0 {
		return
	}
	lines := dx.rows * a.Groups
	k := kernels.RMSNormBackward(dx.kernelType(), dy.kernelType(), x.kernelType(), d, lines)
	var partial uint64
	if dw.present() {
		var ok bool
		if partial, ok = b.scratchFor(op, k.PartialBytes()); !ok {
			return
		}
	}
	sizes(add(add(b.start(), dx).Pointer(partial), dy, x, w, rstd), lines, a.Groups, d, k.LinesPerSlice,
		dx.stride, dy.stride, x.stride, rstd.stride).Int32(int32Of(a.Accumulate))
	b.launch(op, &k.Spec, k.Grid(), 1, 1)
	if dw.present() {
		sum := kernels.RMSNormWeight()
		sizes(add(b.start(), dw).Pointer(partial), k.Slices, d)
		b.launch(op, &sum.Spec, sum.Grid(d), 1, 1)
	}
}
