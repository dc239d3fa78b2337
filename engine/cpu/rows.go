package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/simd"
)

// rowWork is the number of elements that a tile of row-wise work aims at.
const rowWork = 1 << 12

// rowBlocks cuts rows of cols elements into blocks of about rowWork elements.
func rowBlocks(rows, cols int) (block, tiles int) {
	if rows == 0 || cols == 0 {
		return 0, 0
	}
	block = min(rows, max(1, rowWork/cols))
	return block, (rows + block - 1) / block
}

// Fill sets every element of dst to v.
func (b *Backend) Fill(dst engine.Tensor, v float32) {
	if dst.Buf == nil {
		panic("cpu: a required tensor is absent")
	}
	op := next(b, &b.ops.fill)
	*op = fillOp{dst: b.live(dst, dst.Buf.DType()), to: dst, v: v}
	extent(dst, op.dst.n)
	b.submit(op)
}

type fillOp struct {
	dst   *buffer
	to    engine.Tensor
	v     float32
	block int
}

func (o *fillOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.to.Rows, o.to.Cols)
	b.parallel(o, tiles)
}

func (o *fillOp) tile(_ *worker, i int) {
	for r := i * o.block; r < min((i+1)*o.block, o.to.Rows); r++ {
		d := o.to.Off + r*o.to.Stride
		to := d + o.to.Cols
		if math.Float32bits(o.v) == 0 { // as gradients are: by the fastest stores there are
			switch o.dst.dtype {
			case engine.F32:
				clear(o.dst.f[d:to])
			case engine.I32:
				clear(o.dst.i[d:to])
			case engine.BF16:
				clear(o.dst.h[d:to])
			case engine.U8:
				clear(o.dst.c[d:to])
			}
			continue
		}
		switch o.dst.dtype {
		case engine.F32:
			fill(o.dst.f[d:to], o.v)
		case engine.I32:
			fill(o.dst.i[d:to], int32(o.v))
		case engine.BF16:
			fill(o.dst.h[d:to], half.BF16(o.v))
		case engine.U8:
			fill(o.dst.c[d:to], uint8(o.v))
		}
	}
}

func fill[T int32 | float32 | uint16 | uint8](s []T, v T) {
	for i := range s {
		s[i] = v
	}
}

// Copy copies src to dst, rounding to BF16 or widening from it where only one
// of them is F32.
func (b *Backend) Copy(dst, src engine.Tensor) {
	if dst.Buf == nil || src.Buf == nil {
		panic("cpu: copy: tensor is absent")
	}
	d, s := b.live(dst, dst.Buf.DType()), b.live(src, src.Buf.DType())
	if d.dtype != s.dtype && !(d.dtype == engine.F32 && s.dtype == engine.BF16) && !(d.dtype == engine.BF16 && s.dtype == engine.F32) {
		panic("cpu: copy: dtypes differ")
	}
	if dst.Rows != src.Rows || dst.Cols != src.Cols {
		panic("cpu: copy: shapes differ")
	}
	extent(dst, d.n)
	extent(src, s.n)
	op := next(b, &b.ops.copy)
	*op = copyOp{dst: d, src: s, to: dst, from: src}
	b.submit(op)
}

type copyOp struct {
	dst, src *buffer
	to, from engine.Tensor
	block    int
}

func (o *copyOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.to.Rows, o.to.Cols)
	b.parallel(o, tiles)
}

func (o *copyOp) tile(_ *worker, i int) {
	for r := i * o.block; r < min((i+1)*o.block, o.to.Rows); r++ {
		d, s, n := o.to.Off+r*o.to.Stride, o.from.Off+r*o.from.Stride, o.to.Cols
		switch {
		case o.dst.dtype != o.src.dtype && o.dst.dtype == engine.F32:
			half.DecodeBF16(o.dst.f[d:d+n], o.src.h[s:s+n])
		case o.dst.dtype != o.src.dtype:
			half.EncodeBF16(o.dst.h[d:d+n], o.src.f[s:s+n])
		case o.dst.dtype == engine.F32:
			copy(o.dst.f[d:d+n], o.src.f[s:s+n])
		case o.dst.dtype == engine.I32:
			copy(o.dst.i[d:d+n], o.src.i[s:s+n])
		case o.dst.dtype == engine.BF16:
			copy(o.dst.h[d:d+n], o.src.h[s:s+n])
		case o.dst.dtype == engine.U8:
			copy(o.dst.c[d:d+n], o.src.c[s:s+n])
		}
	}
}

// Gather computes Dst[t] = Table[IDs[t]].
func (b *Backend) Gather(a engine.GatherArgs) {
	op := next(b, &b.ops.gather)
	*op = gatherOp{rows: a.Dst.Rows, ids: b.ints(a.IDs, a.Dst.Rows), known: a.Table.Rows}
	op.rounded, op.rounding = is(a.Table, engine.BF16), is(a.Dst, engine.BF16)
	if op.rounded {
		op.table16 = b.bf16(a.Table)
	} else {
		op.table = b.f32(a.Table)
	}
	if op.rounding {
		op.dst16 = b.bf16(a.Dst)
	} else {
		op.dst = b.f32(a.Dst)
	}
	if a.Dst.Cols != a.Table.Cols || op.rounding && !op.rounded {
		panic("cpu: gather: shapes or types do not match")
	}
	b.submit(op)
}

// gatherOp copies rows of F32 or of BF16, or widens the latter.
type gatherOp struct {
	rows, known       int // of dst and of the table
	ids               []int32
	rounded, rounding bool // the table, and dst too, is BF16
	table, dst        mat
	table16, dst16    bits
	block             int
}

func (o *gatherOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.rows, max(o.dst.cols, o.dst16.cols))
	b.parallel(o, tiles)
}

func (o *gatherOp) tile(_ *worker, i int) {
	for t := i * o.block; t < min((i+1)*o.block, o.rows); t++ {
		id := int(o.ids[t])
		switch {
		case id >= o.known:
			panic("cpu: gather: id out of range")
		case o.rounding && id < 0:
			clear(o.dst16.row(t))
		case o.rounding:
			copy(o.dst16.row(t), o.table16.row(id))
		case id < 0:
			clear(o.dst.row(t))
		case o.rounded:
			half.DecodeBF16(o.dst.row(t), o.table16.row(id))
		default:
			copy(o.dst.row(t), o.table.row(id))
		}
	}
}

// ScatterAdd computes Table[IDs[t]] += Src[t] in ascending t.
func (b *Backend) ScatterAdd(a engine.ScatterAddArgs) {
	op := next(b, &b.ops.scatterAdd)
	*op = scatterAddOp{table: b.f32(a.Table), src: b.f32(a.Src)}
	op.ids = b.ints(a.IDs, op.src.rows)
	if op.src.cols != op.table.cols {
		panic("cpu: scatter add: shapes do not match")
	}
	b.submit(op)
}

// scatterCols is the width of the column block that one tile of ScatterAdd
// owns: rows may repeat an id, columns never meet.
const scatterCols = 64

type scatterAddOp struct {
	table, src mat
	ids        []int32
}

func (o *scatterAddOp) run(b *Backend) {
	if o.src.rows > 0 {
		b.parallel(o, (o.src.cols+scatterCols-1)/scatterCols)
	}
}

func (o *scatterAddOp) tile(_ *worker, i int) {
	from := i * scatterCols
	n := min(scatterCols, o.src.cols-from)
	for t, id := range o.ids {
		if id < 0 {
			continue
		}
		if int(id) >= o.table.rows {
			panic("cpu: scatter add: id out of range")
		}
		dst := o.table.from(int(id), from)[:n]
		simd.Add(dst, dst, o.src.from(t, from)[:n])
	}
}

// RoPE rotates each head of X by its row's position.
func (b *Backend) RoPE(a engine.RoPEArgs) {
	op := next(b, &b.ops.rope)
	*op = ropeOp{x: b.f32(a.X), d: a.HeadDim, inverse: a.Inverse}
	if op.d <= 0 || op.d%2 != 0 || op.x.cols%op.d != 0 {
		panic("cpu: rope: bad head dimension")
	}
	op.cos = b.f32(a.Cos)
	op.sin = b.shaped(a.Sin, op.cos.rows, op.cos.cols)
	if op.cos.cols != op.d/2 {
		panic("cpu: rope: tables have the wrong width")
	}
	op.positions = b.ints(a.Positions, op.x.rows)
	b.submit(op)
}

type ropeOp struct {
	x, cos, sin mat
	positions   []int32
	d           int
	inverse     bool
	block       int
}

func (o *ropeOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.x.rows, o.x.cols)
	b.parallel(o, tiles)
}

func (o *ropeOp) tile(_ *worker, i int) {
	for t := i * o.block; t < min((i+1)*o.block, o.x.rows); t++ {
		p := int(o.positions[t])
		if p < 0 {
			continue
		}
		if p >= o.cos.rows {
			panic("cpu: rope: position beyond the tables")
		}
		if o.inverse {
			simd.RoPEInverse(o.x.row(t), o.d, o.cos.row(p), o.sin.row(p))
		} else {
			simd.RoPE(o.x.row(t), o.d, o.cos.row(p), o.sin.row(p))
		}
	}
}

// SwiGLU computes Y = silu(Gate)·Up.
func (b *Backend) SwiGLU(a engine.SwiGLUArgs) {
	op := next(b, &b.ops.swiGLU)
	*op = swiGLUOp{y: b.f32(a.Y)}
	op.gate = b.shaped(a.Gate, op.y.rows, op.y.cols)
	op.up = b.shaped(a.Up, op.y.rows, op.y.cols)
	b.submit(op)
}

type swiGLUOp struct {
	y, gate, up mat
	block       int
}

func (o *swiGLUOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.y.rows, o.y.cols)
	b.parallel(o, tiles)
}

func (o *swiGLUOp) tile(_ *worker, i int) {
	for t := i * o.block; t < min((i+1)*o.block, o.y.rows); t++ {
		simd.SwiGLU(o.y.row(t), o.gate.row(t), o.up.row(t))
	}
}

// SwiGLUBackward computes the gradients of Gate and Up.
func (b *Backend) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	op := next(b, &b.ops.swiGLUBack)
	*op = swiGLUBackwardOp{dgate: b.f32(a.DGate)}
	r, c := op.dgate.rows, op.dgate.cols
	op.dup, op.dy = b.shaped(a.DUp, r, c), b.shaped(a.DY, r, c)
	op.gate, op.up = b.shaped(a.Gate, r, c), b.shaped(a.Up, r, c)
	b.submit(op)
}

type swiGLUBackwardOp struct {
	dgate, dup, dy, gate, up mat
	block                    int
}

func (o *swiGLUBackwardOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(o.dy.rows, o.dy.cols)
	b.parallel(o, tiles)
}

func (o *swiGLUBackwardOp) tile(_ *worker, i int) {
	for t := i * o.block; t < min((i+1)*o.block, o.dy.rows); t++ {
		simd.SwiGLUBackward(o.dgate.row(t), o.dup.row(t), o.dy.row(t), o.gate.row(t), o.up.row(t))
	}
}
