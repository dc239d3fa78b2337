package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/gpu"
	"github.com/updraft-ml/updraft/internal/half"
)

// pool is random numbers, uniform in [-1, 1) and rounded to BF16, that operands are
// made from on the device: its length is prime, so that no row repeats another.
type pool struct {
	host   []float32
	device engine.Tensor
}

const (
	poolLength      = 16777213
	quickPoolLength = 4099
)

func newPool(b *gpu.Backend, n int) (*pool, error) {
	r := rand.New(rand.NewPCG(20, 26))
	p := &pool{host: make([]float32, n)}
	for i := range p.host {
		p.host[i] = half.FromBF16(half.BF16(2*r.Float32() - 1))
	}
	buf, err := b.Alloc(engine.BF16, n)
	if err != nil {
		return nil, err
	}
	p.device = engine.Vector(buf, 0, n)
	b.UploadF32(p.device, p.host)
	return p, nil
}

// env is one workload's operands on a backend. What fails in it panics with a
// failure, which guard turns into an error.
type env struct {
	*gpu.Backend
	pool    *pool
	sets    int // copies of the operands to walk through
	rng     *rand.Rand
	buffers []engine.Buffer
	closers []func() error
	runs    int // of the workload that a call of run makes, where it is not one
}

type failure struct{ error }

func newEnv(b *gpu.Backend, p *pool, sets int) *env {
	return &env{Backend: b, pool: p, sets: sets, runs: 1, rng: rand.New(rand.NewPCG(1, 2))}
}

func (e *env) must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// guard calls f and returns what it panicked with, if it did.
func guard(f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return f()
}

// free gives everything back.
func (e *env) free() error {
	var errs []error
	for i := len(e.closers) - 1; i >= 0; i-- {
		errs = append(errs, e.closers[i]())
	}
	for _, x := range e.buffers {
		e.Free(x)
	}
	return errors.Join(append(errs, e.Sync())...)
}

// operand is a tensor, and what its elements are as long as nothing has written
// to it.
type operand struct {
	engine.Tensor
	pool []float32
	off  int
}

// at returns element (i, j).
func (o operand) at(i, j int) float64 { return float64(o.pool[(o.off+i*o.Cols+j)%len(o.pool)]) }

// empty is a tensor of zeros.
func (e *env) empty(d engine.DType, rows, cols int) engine.Tensor {
	buf, err := e.Alloc(d, rows*cols)
	e.must(err)
	e.buffers = append(e.buffers, buf)
	return engine.Matrix(buf, 0, rows, cols)
}

// random is a tensor, F32 or BF16, of random elements.
func (e *env) random(d engine.DType, rows, cols int) operand {
	o := operand{Tensor: e.empty(d, rows, cols), pool: e.pool.host, off: e.rng.IntN(len(e.pool.host))}
	flat := engine.Vector(o.Buf, 0, rows*cols)
	for at := 0; at < flat.Cols; {
		from := (o.off + at) % len(o.pool)
		n := min(flat.Cols-at, len(o.pool)-from)
		e.Copy(flat.ColRange(at, at+n), e.pool.device.ColRange(from, from+n))
		at += n
	}
	return o
}

// each makes one thing for every set.
func each[T any](e *env, make func() T) []T {
	var all []T
	for range e.sets {
		all = append(all, make())
	}
	return all
}

// ints is a matrix of the given integers.
func (e *env) ints(rows, cols int, v []int32) engine.Tensor {
	x := e.empty(engine.I32, rows, cols)
	e.UploadI32(engine.Vector(x.Buf, 0, len(v)), v)
	return x
}

// read returns the elements of a dense F32 or BF16 tensor.
func (e *env) read(t engine.Tensor) []float32 {
	v := make([]float32, t.Len())
	e.must(e.Wait(e.DownloadF32(v, t)))
	return v
}
