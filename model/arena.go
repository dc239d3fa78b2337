package model

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// arena plans many tensors in one buffer per element type, so that a role's
// memory is allocated once and is known before it is allocated.
type arena struct {
	f32, i32 int // elements planned
	views    []arenaView
}

type arenaView struct {
	dst        *engine.Tensor
	dtype      engine.DType
	off        int
	rows, cols int
}

// matrix plans *dst as a dense F32 matrix.
func (a *arena) matrix(dst *engine.Tensor, rows, cols int) {
	a.views = append(a.views, arenaView{dst, engine.F32, a.f32, rows, cols})
	a.f32 = align(a.f32 + rows*cols)
}

// ints plans *dst as a dense I32 matrix.
func (a *arena) ints(dst *engine.Tensor, rows, cols int) {
	a.views = append(a.views, arenaView{dst, engine.I32, a.i32, rows, cols})
	a.i32 = align(a.i32 + rows*cols)
}

func (a *arena) bytes() int64 {
	return int64(a.f32)*int64(engine.F32.Size()) + int64(a.i32)*int64(engine.I32.Size())
}

// alloc makes the buffers and fills in the planned tensors. It returns the
// buffers, for Free.
func (a *arena) alloc(be engine.Backend, what string) ([]engine.Buffer, error) {
	var f, i engine.Buffer
	var bufs []engine.Buffer
	var err error
	if a.f32 > 0 {
		if f, err = be.Alloc(engine.F32, a.f32); err != nil {
			return nil, fmt.Errorf("model: %s: %w", what, err)
		}
		bufs = append(bufs, f)
	}
	if a.i32 > 0 {
		if i, err = be.Alloc(engine.I32, a.i32); err != nil {
			freeAll(be, bufs)
			return nil, fmt.Errorf("model: %s: %w", what, err)
		}
		bufs = append(bufs, i)
	}
	for _, v := range a.views {
		buf := f
		if v.dtype == engine.I32 {
			buf = i
		}
		*v.dst = engine.Matrix(buf, v.off, v.rows, v.cols)
	}
	return bufs, nil
}

func freeAll(be engine.Backend, bufs []engine.Buffer) {
	for _, b := range bufs {
		be.Free(b)
	}
}

// head views the first n elements of a vector.
func head(v engine.Tensor, n int) engine.Tensor { return v.ColRange(0, n) }
