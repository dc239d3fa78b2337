package gpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/kernels"
)

// maxFlat is how many elements of a dense tensor one launch of a row kernel takes:
// the kernels count in 32 bits, and a model's flat weights may have more.
const maxFlat = 1 << 30

// pieces calls f with the elements [from, to) of each piece of n.
func (b *Backend) pieces(n int, f func(from, to int)) {
	for from := 0; from < n; from += b.flat {
		f(from, min(from+b.flat, n))
	}
}

// Fill sets every element of dst to v.
func (b *Backend) Fill(dst engine.Tensor, v float32) {
	b.begin("Fill")
	d := b.tensor(dst)
	if d.len() == 0 {
		return
	}
	b.stale()
	var bits uint32
	switch d.dtype {
	case engine.F32:
		bits = math.Float32bits(v)
	case engine.BF16:
		bits = uint32(half.BF16(v))
	case engine.I32:
		bits = uint32(int32(v))
	case engine.U8:
		bits = uint32(uint8(v))
	}
	if dense(dst) && d.dtype.Size() == 4 {
		off, n := d.bytes()
		b.next = command{op: "Fill", dst: d.buf.mem, dstOff: off, n: n / 4, word: bits}
		b.submit(&b.next)
		return
	}
	if dense(dst) && d.len() > b.flat {
		b.pieces(d.len(), func(from, to int) { b.Fill(engine.Vector(dst.Buf, dst.Off+from, to-from), v) })
		return
	}
	k := kernels.Fill(d.dtype.Size())
	sizes(add(b.start(), d).Int32(int32(bits)), d.rows, d.cols, d.stride)
	b.launch("Fill", &k.Spec, k.Grid(d.rows, d.cols), 1, 1)
}

// Copy copies src to dst, rounding to BF16 or widening from it where only one of
// them is F32.
func (b *Backend) Copy(dst, src engine.Tensor) {
	b.begin("Copy")
	d, s := b.tensor(dst), b.tensor(src)
	k := kernels.CopyBits(d.dtype.Size())
	switch {
	case d.dtype == s.dtype:
	case d.is(engine.BF16) && s.is(engine.F32):
		k = kernels.ToBF16()
	case d.is(engine.F32) && s.is(engine.BF16):
		k = kernels.ToF32()
	default:
		panic("gpu: copy: dtypes differ")
	}
	if d.rows != s.rows || d.cols != s.cols {
		panic("gpu: copy: shapes differ")
	}
	if d.len() == 0 {
		return
	}
	b.stale()
	if d.dtype == s.dtype && dense(dst) && dense(src) {
		to, n := d.bytes()
		from, _ := s.bytes()
		b.next = command{op: "Copy", dst: d.buf.mem, dstOff: to, src: s.buf.mem, srcOff: from, n: n}
		b.submit(&b.next)
		return
	}
	if dense(dst) && dense(src) && d.len() > b.flat {
		b.pieces(d.len(), func(from, to int) {
			b.Copy(engine.Vector(dst.Buf, dst.Off+from, to-from), engine.Vector(src.Buf, src.Off+from, to-from))
		})
		return
	}
	sizes(add(b.start(), d, s), d.rows, d.cols, d.stride, s.stride)
	b.launch("Copy", &k.Spec, k.Grid(d.rows, d.cols), 1, 1)
}

// Gather computes Dst[t] = Table[IDs[t]].
func (b *Backend) Gather(a engine.GatherArgs) {
	b.begin("Gather")
	d, t := b.real(a.Dst), b.real(a.Table)
	ids := b.vec(a.IDs, engine.I32, d.rows)
	if d.dtype != t.dtype && !d.is(engine.F32) {
		panic("gpu: gather: dtypes do not go together")
	}
	if d.cols != t.cols {
		panic("gpu: gather: shapes do not match")
	}
	k := kernels.Gather(d.kernelType(), t.kernelType())
	sizes(add(b.start(), d, t, ids), d.rows, d.cols, t.rows, d.stride, t.stride)
	b.launch("Gather", &k.Spec, k.Grid(d.rows, d.cols), 1, 1)
}

// ScatterAdd computes Table[IDs[t]] += Src[t] in ascending t.
func (b *Backend) ScatterAdd(a engine.ScatterAddArgs) {
	b.begin("ScatterAdd")
	t, s := b.of(a.Table, engine.F32), b.of(a.Src, engine.F32)
	ids := b.vec(a.IDs, engine.I32, s.rows)
	if s.cols != t.cols {
		panic("gpu: scatter add: shapes do not match")
	}
	k := kernels.ScatterAdd()
	x, y := k.Grid(s.rows, s.cols)
	sizes(add(b.start(), t, s, ids), s.rows, s.cols, t.rows, t.stride, s.stride)
	b.launch("ScatterAdd", &k.Spec, x, y, 1)
}

// RoPE rotates each head of X by its row's position.
func (b *Backend) RoPE(a engine.RoPEArgs) {
	b.begin("RoPE")
	x := b.real(a.X)
	if a.HeadDim <= 0 || a.HeadDim%2 != 0 || x.cols%a.HeadDim != 0 {
		panic("gpu: rope: bad head dimension")
	}
	cos := b.of(a.Cos, engine.F32)
	sin := b.shaped(a.Sin, engine.F32, cos.rows, cos.cols)
	if cos.cols != a.HeadDim/2 {
		panic("gpu: rope: tables have the wrong width")
	}
	positions := b.vec(a.Positions, engine.I32, x.rows)
	k := kernels.RoPE(x.kernelType())
	heads, half := x.cols/a.HeadDim, a.HeadDim/2
	sizes(add(b.start(), x, positions, cos, sin), x.rows, heads, half, cos.rows, x.stride, cos.stride, sin.stride).
		Int32(int32Of(a.Inverse))
	b.launch("RoPE", &k.Spec, k.Grid(x.rows, heads, half), 1, 1)
}

// SwiGLU computes Y = silu(Gate)·Up.
func (b *Backend) SwiGLU(a engine.SwiGLUArgs) {
	b.begin("SwiGLU")
	y := b.real(a.Y)
	gate := b.shaped(a.Gate, y.dtype, y.rows, y.cols)
	up := b.shaped(a.Up, y.dtype, y.rows, y.cols)
	k := kernels.SwiGLU(y.kernelType())
	sizes(add(b.start(), y, gate, up), y.rows, y.cols, y.stride, gate.stride, up.stride)
	b.launch("SwiGLU", &k.Spec, k.Grid(y.rows, y.cols), 1, 1)
}

// SwiGLUBackward computes the gradients of Gate and Up.
func (b *Backend) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	b.begin("SwiGLUBackward")
	dg := b.real(a.DGate)
	same := func(t engine.Tensor) view { return b.shaped(t, dg.dtype, dg.rows, dg.cols) }
	du, dy, gate, up := same(a.DUp), same(a.DY), same(a.Gate), same(a.Up)
	k := kernels.SwiGLUBackward(dg.kernelType())
	sizes(add(b.start(), dg, du, dy, gate, up), dg.rows, dg.cols, dg.stride, du.stride, dy.stride, gate.stride, up.stride)
	b.launch("SwiGLUBackward", &k.Spec, k.Grid(dg.rows, dg.cols), 1, 1)
}
