package gpu

import (
	"unsafe"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
)

// elements views page-locked bytes as elements; pieces begin at multiples of
// stagingAlign.
func elements[T cuda.Scalar](b []byte) []T {
	var t T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(t)))
}

// take brings the elements of a download to where they are wanted.
func (d delivery) take(b []byte) {
	switch {
	case d.f != nil && d.dtype == engine.BF16:
		half.DecodeBF16(d.f, elements[uint16](b))
	case d.f != nil:
		copy(d.f, elements[float32](b))
	case d.i != nil && d.dtype == engine.U8:
		for j, c := range b {
			d.i[j] = int32(c)
		}
	case d.i != nil:
		copy(d.i, elements[int32](b))
	}
}

// hostView resolves a tensor that an upload or a download of n elements goes to
// or comes from; wide and narrow are the types that it may have.
func (b *Backend) hostView(t engine.Tensor, n int, wide, narrow engine.DType) view {
	b.outside()
	v := b.tensor(t)
	if v.dtype != wide && v.dtype != narrow {
		panic("gpu: upload or download: tensor has the wrong dtype")
	}
	if !dense(t) || v.len() != n {
		panic("gpu: upload or download: lengths differ or tensor is not dense")
	}
	return v
}

// UploadF32 copies src to dst, an F32 or BF16 tensor.
func (b *Backend) UploadF32(dst engine.Tensor, src []float32) {
	v := b.hostView(dst, len(src), engine.F32, engine.BF16)
	b.upload(v, func(to []byte, from, n int) {
		if v.dtype == engine.BF16 {
			half.EncodeBF16(elements[uint16](to), src[from:from+n])
		} else {
			copy(elements[float32](to), src[from:from+n])
		}
	})
}

// UploadI32 copies src to dst, an I32 or U8 tensor.
func (b *Backend) UploadI32(dst engine.Tensor, src []int32) {
	v := b.hostView(dst, len(src), engine.I32, engine.U8)
	b.stale()
	b.upload(v, func(to []byte, from, n int) {
		if v.dtype == engine.U8 {
			for j, x := range src[from : from+n] {
				to[j] = uint8(x)
			}
		} else {
			copy(elements[int32](to), src[from:from+n])
		}
	})
}

// upload copies v's elements from staging, where put writes n of them, beginning
// with element from.
func (b *Backend) upload(v view, put func(to []byte, from, n int)) {
	if v.len() > 0 {
		b.send("Upload", v.buf.mem, v.off*v.dtype.Size(), v.len(), v.dtype.Size(), put)
	}
}

// send copies n elements of a size to offset of dst.
func (b *Backend) send(op string, dst *cuda.Buffer, offset, n, size int, put func(to []byte, from, n int)) {
	for from := 0; from < n; {
		m := min(n-from, stagingPiece/size)
		at, mem, err := b.up.reserve(m * size)
		if err == nil {
			put(mem, from, m)
			err = b.stream.UploadAsync(dst, offset+from*size, b.up.mem, at, m*size)
		}
		if err == nil {
			err = b.up.issued(piece{at: at, n: m * size})
		}
		b.issue(op, err)
		if err != nil {
			return
		}
		from += m
	}
}

// DownloadF32 copies src, an F32 or BF16 tensor, to dst, which holds the values
// after Wait or Sync.
func (b *Backend) DownloadF32(dst []float32, src engine.Tensor) engine.Ticket {
	v := b.hostView(src, len(dst), engine.F32, engine.BF16)
	return b.download(v, func(from, n int) delivery { return delivery{f: dst[from : from+n], dtype: v.dtype} })
}

// DownloadI32 copies src, an I32 or U8 tensor, to dst, which holds the values
// after Wait or Sync.
func (b *Backend) DownloadI32(dst []int32, src engine.Tensor) engine.Ticket {
	v := b.hostView(src, len(dst), engine.I32, engine.U8)
	return b.download(v, func(from, n int) delivery { return delivery{i: dst[from : from+n], dtype: v.dtype} })
}

// download copies v's elements to staging, from where they go to wherever to
// says for n of them, beginning with element from. What is larger than the ring
// waits for its own first pieces.
func (b *Backend) download(v view, to func(from, n int) delivery) engine.Ticket {
	b.issued++ // a ticket
	size := v.dtype.Size()
	for from := 0; from < v.len(); {
		m := min(v.len()-from, stagingPiece/size)
		at, _, err := b.down.reserve(m * size)
		if err == nil {
			err = b.stream.DownloadAsync(b.down.mem, at, v.buf.mem, (v.off+from)*size, m*size)
		}
		if err == nil {
			err = b.down.issued(piece{at: at, n: m * size, ticket: b.issued, deliver: to(from, m)})
		}
		b.issue("Download", err)
		if err != nil {
			break
		}
		from += m
	}
	return b.issued
}
