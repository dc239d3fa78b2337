package cpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// RMSNorm normalises each group of columns of each row.
func (b *Backend) RMSNorm(a engine.RMSNormArgs) {
	op := next(b, &b.ops.rmsNorm)
	*op = rmsNormOp{y: b.f32(a.Y), groups: a.Groups, eps: a.Eps}
	op.x = b.shaped(a.X, op.y.rows, op.y.cols)
	op.d = groupWidth(op.y.cols, a.Groups)
	op.w = b.vec(a.W, op.d)
	if a.Rstd.Valid() {
		op.rstd = b.shaped(a.Rstd, op.y.rows, a.Groups)
		op.keep = true
	}
	b.submit(op)
}

func groupWidth(cols, groups int) int {
	if groups <= 0 || cols%groups != 0 {
		panic("cpu: rms norm: groups do not divide the columns")
	}
	return cols / groups
}

type rmsNormOp struct {
	y, x, rstd mat
	w          []float32
	groups, d  int
	eps        float32
	keep       bool // rstd
	block      int
}

func (o *rmsNormOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.y.rows, o.y.cols)
	b.parallel(o, tiles)
}

func (o *rmsNormOp) tile(_ *worker, i int) {
	for t := i * o.block; t < min((i+1)*o.block, o.y.rows); t++ {
		y, x := o.y.row(t), o.x.row(t)
		for g := range o.groups {
			at := g * o.d
			r := simd.RMSNorm(y[at:at+o.d], x[at:at+o.d], o.w, o.eps)
			if o.keep {
				o.rstd.p[t*o.rstd.stride+g] = r
			}
		}
	}
}

// normRows is the number of rows whose share of DW is summed before the shares
// are added in ascending order. It does not depend on the number of threads, so
// neither does DW.
const normRows = 64

// RMSNormBackward computes the gradients of X and W.
func (b *Backend) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	op := next(b, &b.ops.rmsNormBack)
	*op = rmsNormBackwardOp{dx: b.f32(a.DX), groups: a.Groups, accumulate: a.Accumulate}
	r, c := op.dx.rows, op.dx.cols
	op.dy, op.x = b.shaped(a.DY, r, c), b.shaped(a.X, r, c)
	op.d = groupWidth(c, a.Groups)
	op.w = b.vec(a.W, op.d)
	op.dw = b.optionalVec(a.DW, op.d)
	op.rstd = b.shaped(a.Rstd, r, a.Groups)
	b.submit(op)
}

type rmsNormBackwardOp struct {
	dx, dy, x, rstd mat
	w, dw           []float32
	groups, d       int
	accumulate      bool
	partial         []float32 // [row blocks][d]
}

func (o *rmsNormBackwardOp) run(b *Backend) {
	blocks := (o.dx.rows + normRows - 1) / normRows
	if o.dw == nil {
		b.parallel(o, blocks)
		return
	}
	o.partial = b.sharedFloats(blocks * o.d)
	b.parallel(o, blocks)
	for i := range blocks {
		simd.Add(o.dw, o.dw, o.partial[i*o.d:][:o.d])
	}
}

func (o *rmsNormBackwardOp) tile(_ *worker, i int) {
	var dw []float32
	if o.dw != nil {
		dw = o.partial[i*o.d:][:o.d]
		clear(dw)
	}
	for t := i * normRows; t < min((i+1)*normRows, o.dx.rows); t++ {
		dx, dy, x := o.dx.row(t), o.dy.row(t), o.x.row(t)
		for g := range o.groups {
			from, to := g*o.d, (g+1)*o.d
			simd.RMSNormBackward(dx[from:to], dw, dy[from:to], x[from:to], o.w, o.rstd.p[t*o.rstd.stride+g], o.accumulate)
		}
	}
}
