package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/model"
)

// env is what a workload is made of: a backend, tensors and models. Everything is
// given back when the workload ends, but for the latest model, which the next
// workload may want as well.
type env struct {
	*cpu.Backend
	r       *runner
	rng     *rand.Rand
	buffers []engine.Buffer
	closers []func() error
}

// pool is random numbers in [-1, 1), rounded to BF16 so that they are the same in
// either type. Its length is prime: no row of a matrix repeats another.
const poolLength = 1048573

func newPool() []float32 {
	r := rand.New(rand.NewPCG(20, 26))
	p := make([]float32, poolLength)
	for i := range p {
		p[i] = half.FromBF16(half.BF16(2*r.Float32() - 1))
	}
	return p
}

func (r *runner) env() *env {
	return &env{Backend: r.be, r: r, rng: newRNG()}
}

// newRNG begins the numbers of a workload, the same in every run.
func newRNG() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// free gives a workload's memory back, to the system too: the next one's plan
// counts on it.
func (e *env) free() {
	for i := len(e.closers) - 1; i >= 0; i-- {
		must(e.closers[i]())
	}
	for _, b := range e.buffers {
		e.Free(b)
	}
	e.buffers, e.closers = nil, nil
	runtime.GC()
	debug.FreeOSMemory()
}

// zeros is a tensor.
func (e *env) zeros(d engine.DType, rows, cols int) engine.Tensor {
	b, err := e.Alloc(d, rows*cols)
	must(err)
	e.buffers = append(e.buffers, b)
	return engine.Matrix(b, 0, rows, cols)
}

// numbers are n random floats.
func (e *env) numbers(n int) []float32 {
	x := make([]float32, n)
	for at, from := 0, e.rng.IntN(poolLength); at < n; from = 0 {
		at += copy(x[at:], e.r.pool[from:])
	}
	return x
}

// operand is a tensor, and what its elements are as long as nothing has written to
// it.
type operand struct {
	engine.Tensor
	v []float32
}

func (o operand) at(i, j int) float64 { return float64(o.v[i*o.Cols+j]) }

// row is a row as it was made.
func (o operand) row(i int) []float32 { return o.v[i*o.Cols : (i+1)*o.Cols] }

// random is a tensor of random elements.
func (e *env) random(d engine.DType, rows, cols int) operand {
	o := operand{e.zeros(d, rows, cols), e.numbers(rows * cols)}
	e.UploadF32(o.Tensor, o.v)
	return o
}

// ints is a matrix of integers.
func (e *env) ints(rows, cols int, v []int32) engine.Tensor {
	t := e.zeros(engine.I32, rows, cols)
	e.UploadI32(t, v)
	return t
}

// prepared is a matrix as a weight in the backend's layout.
func (e *env) prepared(t engine.Tensor) engine.Weight {
	w := engine.Weight{Tensor: t}
	must(e.PrepareWeight(&w))
	if w.Prepared != nil {
		e.buffers = append(e.buffers, w.Prepared)
	}
	return w
}

// read returns a dense tensor's elements.
func (e *env) read(t engine.Tensor) []float32 {
	v := make([]float32, t.Len())
	must(e.Wait(e.DownloadF32(v, t)))
	return v
}

// tokens are random ids.
func (e *env) tokens(n, vocabulary int) []int32 {
	t := make([]int32, n)
	for i := range t {
		t[i] = int32(e.rng.IntN(vocabulary))
	}
	return t
}

// model returns a model of a shape with random weights, on the run's backend. It
// is the latest one where that was made alike; training has then changed its
// weights, which costs no time.
func (e *env) model(s Shape, o model.Options) *model.Model {
	o.Weights = e.r.o.DType
	key := fmt.Sprintf("%s %+v", s.Name, o)
	if e.r.latest.key == key {
		return e.r.latest.m
	}
	must(e.r.forget())
	m := e.modelOn(e.Backend, s, o)
	e.r.latest = latestModel{key, m}
	return m
}

// modelOn makes a model that its caller closes. It refuses one for which the
// machine has too little memory.
func (e *env) modelOn(be engine.Backend, s Shape, o model.Options) *model.Model {
	act, err := be.Precision(o.Weights)
	must(err)
	if e.r.o.Available != nil {
		need := uint64(model.NewPlan(s.Config, act, o, nil).Bytes()) + 4*uint64(s.Config.NumParameters()) // its weights as they are drawn
		free, _, known := e.r.o.Available()
		if known && need > free {
			for _, p := range e.r.peers { // what they keep may be what is missing
				p.rest()
			}
			free, _, known = e.r.o.Available()
		}
		if known && need > free {
			fail("needs %.1f GB of memory, of which %.1f GB are available", float64(need)/1e9, float64(free)/1e9)
		}
	}
	m, err := model.New(be, s.Config, 1, o)
	must(err)
	return m
}

// latestModel is the model that the last workload used.
type latestModel struct {
	key string
	m   *model.Model
}

func (r *runner) forget() error {
	m := r.latest.m
	r.latest = latestModel{}
	if m == nil {
		return nil
	}
	err := m.Close()
	debug.FreeOSMemory()
	return err
}
