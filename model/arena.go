package model

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// arena plans many tensors in one buffer per element type, so that a role's
// memory is allocated once and is known before it is allocated.
type arena struct {
	elements [len(arenaTypes)]int // planned, by type
	views    []arenaView
}

// arenaTypes are the types of an arena's buffers, in the order of allocation.
var arenaTypes = [...]engine.DType{engine.F32, engine.BF16, engine.I32}

type arenaView struct {
	dst        *engine.Tensor
	dtype      int // of arenaTypes
	off        int
	rows, cols int
}

// matrix plans *dst as a dense F32 matrix.
func (a *arena) matrix(dst *engine.Tensor, rows, cols int) { a.plan(dst, engine.F32, rows, cols) }

// ints plans *dst as a dense I32 matrix.
func (a *arena) ints(dst *engine.Tensor, rows, cols int) { a.plan(dst, engine.I32, rows, cols) }

// plan plans *dst as a dense matrix of type d.
func (a *arena) plan(dst *engine.Tensor, d engine.DType, rows, cols int) {
	for i, t := range arenaTypes {
		if t == d {
			a.views = append(a.views, arenaView{dst, i, a.elements[i], rows, cols})
			a.elements[i] = align(a.elements[i] + rows*cols)
		}
	}
}

func (a *arena) bytes() (n int64) {
	for i, t := range arenaTypes {
		n += int64(a.elements[i]) * int64(t.Size())
	}
	return n
}

// alloc makes the buffers and fills in the planned tensors. It returns the
// buffers, for Free.
func (a *arena) alloc(be engine.Backend, what string) ([]engine.Buffer, error) {
	var of [len(arenaTypes)]engine.Buffer
	var bufs []engine.Buffer
	for i, t := range arenaTypes {
		if a.elements[i] == 0 {
			continue
		}
		b, err := be.Alloc(t, a.elements[i])
		if err != nil {
			freeAll(be, bufs)
			return nil, fmt.Errorf("model: %s: %w", what, err)
		}
		of[i], bufs = b, append(bufs, b)
	}
	for _, v := range a.views {
		*v.dst = engine.Matrix(of[v.dtype], v.off, v.rows, v.cols)
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
