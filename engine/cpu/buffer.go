package cpu

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/hugepages"
)

// buffer is host memory of one dtype. Exactly one of f, i, h and c is set.
type buffer struct {
	owner *Backend
	dtype engine.DType
	n     int
	f     []float32
	i     []int32
	h     []uint16 // BF16
	c     []uint8  // U8
	freed bool
}

func (b *buffer) DType() engine.DType { return b.dtype }
func (b *buffer) Len() int            { return b.n }

// align is the alignment of buffers and scratch: a cache line, and the widest
// vector.
const align = 64

// alignedBytes returns n zeroed bytes that begin on a cache line.
func alignedBytes(n int) []byte {
	raw := make([]byte, n+align)
	hugepages.Advise(raw)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (align - 1))
	return raw[off : off+n : off+n]
}

func alignedF32(n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(alignedBytes(4*n)))), n)
}

// Alloc returns n zeroed elements, on a cache line. The error names the bytes
// asked for.
func (b *Backend) Alloc(d engine.DType, n int) (engine.Buffer, error) {
	b.outside()
	if n < 0 {
		panic("cpu: alloc: negative length")
	}
	if d > engine.U8 {
		panic("cpu: alloc: unsupported dtype")
	}
	if n > (math.MaxInt-2*align)/d.Size() {
		return nil, fmt.Errorf("cpu: cannot allocate %d elements of %v: more bytes than the address space holds", n, d)
	}
	bytes := n * d.Size()
	if limit := memoryLimit(); uint64(bytes) > limit {
		return nil, fmt.Errorf("cpu: cannot allocate %d bytes (%d elements of %v): the machine has %d bytes of memory", bytes, n, d, limit)
	}
	buf := &buffer{owner: b, dtype: d, n: n}
	raw, err := tryBytes(bytes)
	if err != nil {
		return nil, fmt.Errorf("cpu: cannot allocate %d bytes (%d elements of %v): %w", bytes, n, d, err)
	}
	if n > 0 {
		p := unsafe.Pointer(unsafe.SliceData(raw))
		switch d {
		case engine.F32:
			buf.f = unsafe.Slice((*float32)(p), n)
		case engine.I32:
			buf.i = unsafe.Slice((*int32)(p), n)
		case engine.BF16:
			buf.h = unsafe.Slice((*uint16)(p), n)
		case engine.U8:
			buf.c = raw
		}
	}
	b.allocated += int64(bytes)
	return buf, nil
}

// tryBytes turns the runtime's refusal of an absurd size into an error.
func tryBytes(n int) (raw []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return alignedBytes(n), nil
}

// Free lets go of a buffer's memory. Using it afterwards panics.
func (b *Backend) Free(x engine.Buffer) {
	b.outside()
	buf := b.buffer(x)
	if buf.freed {
		panic("cpu: free: buffer was freed before")
	}
	b.allocated -= int64(buf.n * buf.dtype.Size())
	buf.f, buf.i, buf.h, buf.c, buf.freed = nil, nil, nil, nil, true
	b.ops = operations{} // the last operation of a kind may hold its slices
}

func (b *Backend) buffer(x engine.Buffer) *buffer {
	buf, ok := x.(*buffer)
	if !ok || buf.owner != b {
		panic("cpu: buffer of another backend")
	}
	return buf
}

// mat is a tensor resolved to a slice.
type mat struct {
	p                  []float32
	rows, cols, stride int
}

// row returns row i.
func (m *mat) row(i int) []float32 { return m.p[i*m.stride:][:m.cols:m.cols] }

// from returns the elements from (i, j) on, for kernels that stride themselves.
func (m *mat) from(i, j int) []float32 { return m.p[i*m.stride+j:] }

// rowRange returns n rows from row i on.
func (m mat) rowRange(i, n int) mat {
	return mat{p: m.p[min(i*m.stride, len(m.p)):], rows: n, cols: m.cols, stride: m.stride}
}

// extent checks t against n elements and returns the bounds of its elements.
func extent(t engine.Tensor, n int) (from, to int) {
	if t.Rows < 0 || t.Cols < 0 || t.Off < 0 || t.Rows > 1 && t.Stride < t.Cols {
		panic("cpu: malformed tensor")
	}
	if t.Rows == 0 || t.Cols == 0 {
		return 0, 0
	}
	to = t.Off + (t.Rows-1)*t.Stride + t.Cols
	if to > n {
		panic("cpu: tensor exceeds its buffer")
	}
	return t.Off, to
}

// live resolves t's buffer and checks its dtype.
func (b *Backend) live(t engine.Tensor, d engine.DType) *buffer {
	if t.Buf == nil {
		panic("cpu: a required tensor is absent")
	}
	buf := b.buffer(t.Buf)
	if buf.freed {
		panic("cpu: tensor's buffer was freed")
	}
	if buf.dtype != d {
		if buf.dtype == engine.BF16 {
			panic("cpu: unsupported dtype: only weights may be BF16")
		}
		panic("cpu: tensor has the wrong dtype")
	}
	return buf
}

// f32 resolves a float32 tensor.
func (b *Backend) f32(t engine.Tensor) mat {
	buf := b.live(t, engine.F32)
	from, to := extent(t, buf.n)
	return mat{p: buf.f[from:to:to], rows: t.Rows, cols: t.Cols, stride: t.Stride}
}

// optional resolves a float32 tensor that may be absent.
func (b *Backend) optional(t engine.Tensor) mat {
	if t.Buf == nil {
		return mat{}
	}
	return b.f32(t)
}

// shaped resolves a float32 tensor and checks its shape.
func (b *Backend) shaped(t engine.Tensor, rows, cols int) mat {
	m := b.f32(t)
	if m.rows != rows || m.cols != cols {
		panic("cpu: tensor has the wrong shape")
	}
	return m
}

// isVector reports whether t's elements follow one another, and their number.
func isVector(t engine.Tensor) (int, bool) {
	return t.Rows * t.Cols, t.Rows <= 1 || t.Stride == t.Cols
}

// vec resolves n float32 elements that follow one another.
func (b *Backend) vec(t engine.Tensor, n int) []float32 {
	m := b.f32(t)
	if k, ok := isVector(t); !ok || k != n {
		panic("cpu: vector has the wrong length")
	}
	return m.p
}

// optionalVec resolves a vector that may be absent.
func (b *Backend) optionalVec(t engine.Tensor, n int) []float32 {
	if t.Buf == nil {
		return nil
	}
	return b.vec(t, n)
}

// ints resolves n int32 elements that follow one another.
func (b *Backend) ints(t engine.Tensor, n int) []int32 {
	buf := b.live(t, engine.I32)
	from, to := extent(t, buf.n)
	if k, ok := isVector(t); !ok || k != n {
		panic("cpu: vector has the wrong length")
	}
	return buf.i[from:to:to]
}

// imat is an int32 tensor resolved to a slice.
type imat struct {
	p                  []int32
	rows, cols, stride int
}

func (m *imat) row(i int) []int32 { return m.p[i*m.stride:][:m.cols:m.cols] }

func (b *Backend) i32(t engine.Tensor, rows, cols int) imat {
	buf := b.live(t, engine.I32)
	from, to := extent(t, buf.n)
	if t.Rows != rows || cols >= 0 && t.Cols != cols {
		panic("cpu: tensor has the wrong shape")
	}
	return imat{p: buf.i[from:to:to], rows: t.Rows, cols: t.Cols, stride: t.Stride}
}

// bits is a BF16 tensor resolved to a slice.
type bits struct {
	p                  []uint16
	rows, cols, stride int
}

func (m *bits) row(i int) []uint16 { return m.p[i*m.stride:][:m.cols:m.cols] }

func (b *Backend) bf16(t engine.Tensor) bits {
	buf := b.live(t, engine.BF16)
	from, to := extent(t, buf.n)
	return bits{p: buf.h[from:to:to], rows: t.Rows, cols: t.Cols, stride: t.Stride}
}

// halves resolves n BF16 elements that follow one another.
func (b *Backend) halves(t engine.Tensor, n int) []uint16 {
	buf := b.live(t, engine.BF16)
	from, to := extent(t, buf.n)
	if k, ok := isVector(t); !ok || k != n {
		panic("cpu: vector has the wrong length")
	}
	return buf.h[from:to:to]
}

// codes resolves n U8 elements that follow one another.
func (b *Backend) codes(t engine.Tensor, n int) []uint8 {
	buf := b.live(t, engine.U8)
	from, to := extent(t, buf.n)
	if k, ok := isVector(t); !ok || k != n {
		panic("cpu: vector has the wrong length")
	}
	return buf.c[from:to:to]
}

// is reports whether t is present and of type d.
func is(t engine.Tensor, d engine.DType) bool { return t.Buf != nil && t.Buf.DType() == d }

// UploadF32 copies src to dst.
func (b *Backend) UploadF32(dst engine.Tensor, src []float32) {
	b.outside()
	if is(dst, engine.BF16) {
		half.EncodeBF16(b.halves(dst, len(src)), src)
		return
	}
	copy(b.vec(dst, len(src)), src)
}

// UploadI32 copies src to dst.
func (b *Backend) UploadI32(dst engine.Tensor, src []int32) {
	b.outside()
	if is(dst, engine.U8) {
		for i, d := 0, b.codes(dst, len(src)); i < len(d); i++ {
			d[i] = uint8(src[i])
		}
		return
	}
	copy(b.ints(dst, len(src)), src)
}

// DownloadF32 copies src to dst before it returns.
func (b *Backend) DownloadF32(dst []float32, src engine.Tensor) engine.Ticket {
	b.outside()
	if is(src, engine.BF16) {
		half.DecodeBF16(dst, b.halves(src, len(dst)))
	} else {
		copy(dst, b.vec(src, len(dst)))
	}
	b.ticket++
	return b.ticket
}

// DownloadI32 copies src to dst before it returns.
func (b *Backend) DownloadI32(dst []int32, src engine.Tensor) engine.Ticket {
	b.outside()
	if is(src, engine.U8) {
		for i, c := range b.codes(src, len(dst)) {
			dst[i] = int32(c)
		}
	} else {
		copy(dst, b.ints(src, len(dst)))
	}
	b.ticket++
	return b.ticket
}
