package gpu

import (
	"errors"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
)

// buffer is device memory of one dtype.
type buffer struct {
	owner *Backend
	dtype engine.DType
	n     int
	mem   *cuda.Buffer // nil where n is 0, and once freed
	freed bool
}

func (x *buffer) DType() engine.DType { return x.dtype }
func (x *buffer) Len() int            { return x.n }

// Alloc returns n zeroed elements. The error names the bytes asked for, and those
// that the device has.
func (b *Backend) Alloc(d engine.DType, n int) (engine.Buffer, error) {
	b.outside()
	if n < 0 {
		panic("gpu: alloc: negative length")
	}
	if d > engine.U8 {
		panic("gpu: alloc: unsupported dtype")
	}
	if n > math.MaxInt/d.Size() {
		return nil, fmt.Errorf("gpu: cannot allocate %d elements of %v: more bytes than the address space holds", n, d)
	}
	x := &buffer{owner: b, dtype: d, n: n}
	if bytes := n * d.Size(); bytes > 0 {
		mem, err := b.pool.Alloc(bytes)
		if err != nil {
			return nil, fmt.Errorf("gpu: %w", b.memoryError(fmt.Sprintf("%d elements of %v", n, d), bytes, err))
		}
		x.mem = mem
		b.issue("Alloc", b.stream.Fill(mem, 0, bytes, 0))
	}
	b.live[x] = struct{}{}
	return x, nil
}

// memoryError says of a failed allocation how much was asked for and how much
// there is.
func (b *Backend) memoryError(what string, bytes int, err error) error {
	if free, total, infoErr := b.Memory(); infoErr == nil && errors.Is(err, cuda.OutOfMemory) {
		return fmt.Errorf("cannot allocate %d bytes (%s): %d of the %d bytes of cuda:%d (%s) are free: %w",
			bytes, what, free, total, b.info.Ordinal, b.info.Name, err)
	}
	return fmt.Errorf("cannot allocate %d bytes (%s): %w", bytes, what, err)
}

// Free gives a buffer's memory to later operations and allocations. Using it
// afterwards panics; programs that use it can no longer be run.
func (b *Backend) Free(x engine.Buffer) {
	b.outside()
	buf := b.buffer(x)
	if buf.freed {
		panic("gpu: free: buffer was freed before")
	}
	b.dropUsers(buf)
	b.stale()
	buf.release()
}

// release returns the memory to the pool.
func (x *buffer) release() {
	if x.mem != nil {
		x.owner.pool.Free(x.mem)
	}
	x.mem, x.freed = nil, true
	delete(x.owner.live, x)
}

func (b *Backend) buffer(x engine.Buffer) *buffer {
	buf, ok := x.(*buffer)
	if !ok || buf.owner != b {
		panic("gpu: buffer of another backend")
	}
	return buf
}

// view is a tensor resolved to device memory.
type view struct {
	buf                *buffer // nil where the tensor is absent
	dtype              engine.DType
	off                int // elements
	rows, cols, stride int
}

// ptr returns the address of the first element, 0 where there is none.
func (v view) ptr() uint64 {
	if v.buf == nil || v.rows == 0 || v.cols == 0 {
		return 0
	}
	return v.buf.mem.Ptr(v.off * v.dtype.Size())
}

// rowRange views n rows from row from on; colRange n columns.
func (v view) rowRange(from, n int) view {
	v.off += from * v.stride
	v.rows = n
	return v
}

func (v view) colRange(from, n int) view {
	v.off += from
	v.cols = n
	return v
}

func (v view) present() bool { return v.buf != nil }

// len returns the number of elements.
func (v view) len() int { return v.rows * v.cols }

// bytes returns the offset and the number of bytes of a view without gaps.
func (v view) bytes() (offset, n int) { return v.off * v.dtype.Size(), v.len() * v.dtype.Size() }

func (v view) is(d engine.DType) bool { return v.dtype == d }

// tensor resolves t, of any dtype, and notes its buffer as used by the program
// that is being recorded.
func (b *Backend) tensor(t engine.Tensor) view {
	if t.Buf == nil {
		panic("gpu: a required tensor is absent")
	}
	buf := b.buffer(t.Buf)
	if buf.freed {
		panic("gpu: tensor's buffer was freed")
	}
	if t.Rows < 0 || t.Cols < 0 || t.Off < 0 || t.Rows > 1 && t.Stride < t.Cols {
		panic("gpu: malformed tensor")
	}
	if t.Rows > 0 && t.Cols > 0 && t.Off+(t.Rows-1)*t.Stride+t.Cols > buf.n {
		panic("gpu: tensor exceeds its buffer")
	}
	b.use(buf)
	stride := t.Stride
	if t.Rows <= 1 {
		stride = max(stride, t.Cols)
	}
	return view{buf, buf.dtype, t.Off, t.Rows, t.Cols, stride}
}

// of resolves a tensor of the given type.
func (b *Backend) of(t engine.Tensor, d engine.DType) view {
	v := b.tensor(t)
	if v.dtype != d {
		panic("gpu: tensor has the wrong dtype")
	}
	return v
}

// real resolves a tensor of F32 or BF16.
func (b *Backend) real(t engine.Tensor) view {
	v := b.tensor(t)
	if v.dtype != engine.F32 && v.dtype != engine.BF16 {
		panic("gpu: tensor has the wrong dtype")
	}
	return v
}

// shaped resolves a tensor of a given type and shape.
func (b *Backend) shaped(t engine.Tensor, d engine.DType, rows, cols int) view {
	v := b.of(t, d)
	if v.rows != rows || v.cols != cols {
		panic("gpu: tensor has the wrong shape")
	}
	return v
}

// optional resolves a tensor of a given type and shape that may be absent.
func (b *Backend) optional(t engine.Tensor, d engine.DType, rows, cols int) view {
	if t.Buf == nil {
		return view{}
	}
	return b.shaped(t, d, rows, cols)
}

// vec resolves n elements of a type that follow one another.
func (b *Backend) vec(t engine.Tensor, d engine.DType, n int) view {
	v := b.of(t, d)
	if !dense(t) || v.len() != n {
		panic("gpu: vector has the wrong length")
	}
	return v
}

// optionalVec resolves a vector that may be absent.
func (b *Backend) optionalVec(t engine.Tensor, d engine.DType, n int) view {
	if t.Buf == nil {
		return view{}
	}
	return b.vec(t, d, n)
}

// dense reports whether t's elements follow one another.
func dense(t engine.Tensor) bool { return t.Rows <= 1 || t.Stride == t.Cols }
