package cpu

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"

	"github.com/updraft-ml/updraft/engine"
)

// Options configures New.
type Options struct {
	// Threads is the number of threads that compute, the caller's included.
	// 0 means runtime.NumCPU(); 1 starts no goroutine.
	Threads int
	// Logger receives what is worth knowing at start; nil for silence.
	Logger *slog.Logger
}

// maxThreads bounds Options.Threads: beyond it the value is surely a mistake.
const maxThreads = 1024

// Backend computes on the host's cores. See engine.Backend for its methods'
// contract. It is not safe for concurrent use; several Backends are.
type Backend struct {
	pool *pool

	recording *program
	ticket    engine.Ticket
	closed    bool

	allocated int64 // bytes held by buffers

	// One operation of each kind, reused by calls outside a recording so that
	// they allocate nothing.
	ops operations

	shared       []float32  // scratch that the tiles of one operation share
	packed       packedRows // panels of a weight that was not prepared
	columnPanels []float32  // panels of a gradient's second operand
	plan         attentionPlan
	decode       decodePlan
	partial      []float64
	maps         *momentMaps // of 8-bit moments; nil until they are used
}

var _ engine.Backend = (*Backend)(nil)

// New starts a backend. Close ends its workers.
func New(o Options) (*Backend, error) {
	n := o.Threads
	if n == 0 {
		n = runtime.NumCPU()
	}
	if n < 0 || n > maxThreads {
		return nil, fmt.Errorf("cpu: threads: %d is not in 0..%d; 0 takes one per core", o.Threads, maxThreads)
	}
	b := &Backend{pool: newPool(n)}
	if o.Logger != nil {
		o.Logger.Debug("cpu backend started", "threads", n, "kernels", kernelName())
	}
	return b, nil
}

// Name says which kernels compute and on how many threads.
func (b *Backend) Name() string {
	n := len(b.pool.workers)
	s := "cpu (" + kernelName() + ", " + strconv.Itoa(n) + " thread"
	if n > 1 {
		s += "s"
	}
	return s + ")"
}

// Precision says that activations are F32, with weights in F32 or BF16.
func (b *Backend) Precision(weights engine.DType) (engine.DType, error) {
	if weights != engine.F32 && weights != engine.BF16 {
		return 0, fmt.Errorf("cpu: weights in %v: the CPU takes F32 and BF16: %w", weights, errors.ErrUnsupported)
	}
	return engine.F32, nil
}

// Async says that operations have finished when their calls return.
func (b *Backend) Async() bool { return false }

// Threads returns the number of threads that compute, the caller's included.
func (b *Backend) Threads() int { return len(b.pool.workers) }

// Allocated returns the bytes that buffers hold now.
func (b *Backend) Allocated() int64 { return b.allocated }

// Close ends the workers and waits for them. Using the backend afterwards
// panics; closing it again does nothing.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	b.pool.close()
	b.shared, b.packed, b.columnPanels, b.partial = nil, packedRows{}, nil, nil
	b.plan, b.decode, b.ops = attentionPlan{}, decodePlan{}, operations{}
	return nil
}

var errClosed = errors.New("cpu: backend is closed")

// Sync returns at once: operations have finished when their calls return.
func (b *Backend) Sync() error {
	if b.closed {
		return errClosed
	}
	return nil
}

// Wait returns at once, like Sync.
func (b *Backend) Wait(engine.Ticket) error { return b.Sync() }

// operation is one call with its arguments resolved to slices.
type operation interface{ run(b *Backend) }

// program is a list of operations in the order of their calls.
type program struct{ ops []operation }

// Ops returns the number of recorded operations.
func (p *program) Ops() int { return len(p.ops) }

// Record keeps the operations that build submits, for Run.
func (b *Backend) Record(build func()) engine.Program {
	if b.recording != nil {
		panic("cpu: record: already recording")
	}
	p := &program{}
	b.recording = p
	defer func() { b.recording = nil }()
	build()
	return p
}

// Run carries out a recorded program; inside Record it appends its operations.
func (b *Backend) Run(p engine.Program) {
	prog, ok := p.(*program)
	if !ok {
		panic("cpu: run: program of another backend")
	}
	for _, op := range prog.ops {
		b.submit(op)
	}
}

// submit keeps op while recording and runs it otherwise.
func (b *Backend) submit(op operation) {
	if b.recording != nil {
		b.recording.ops = append(b.recording.ops, op)
		return
	}
	if b.closed {
		panic("cpu: backend is closed")
	}
	op.run(b)
}

// outside panics inside a recording, where host memory may not be touched.
func (b *Backend) outside() {
	if b.recording != nil {
		panic("cpu: alloc, free, upload, download and prepare are not allowed while recording")
	}
	if b.closed {
		panic("cpu: backend is closed")
	}
}

// operations holds the reused operation of each kind.
type operations struct {
	fill          fillOp
	copy          copyOp
	gather        gatherOp
	scatterAdd    scatterAddOp
	rmsNorm       rmsNormOp
	rmsNormBack   rmsNormBackwardOp
	pack          packOp
	packColumns   packColumnsOp
	linear        linearOp
	linearInput   linearInputOp
	linearWeight  linearWeightOp
	rope          ropeOp
	attention     attentionOp
	attentionBack attentionBackwardOp
	swiGLU        swiGLUOp
	swiGLUBack    swiGLUBackwardOp
	logProb       logProbOp
	logProbBack   logProbBackwardOp
	kvWrite       kvWriteOp
	decode        decodeOp
	sample        sampleOp
	sumSquares    sumSquaresOp
	adamW         adamWOp
}

// next returns the operation to fill in: a new one while recording, because the
// program keeps it, and the reused one otherwise.
func next[T any](b *Backend, reused *T) *T {
	if b.recording != nil {
		return new(T)
	}
	return reused
}

// parallel runs t.tile for each of n tiles on the workers.
func (b *Backend) parallel(t tiler, n int) { b.pool.run(t, n, false) }

// reserve sees to it that every worker has n floats of scratch, so that which
// worker takes a tile decides nothing about allocation.
func (b *Backend) reserve(n int) {
	for _, w := range b.pool.workers {
		if len(w.arena) < n {
			w.arena = alignedF32(n)
		}
	}
}

// sharedFloats returns n floats of scratch that all tiles of the running
// operation may use. Their contents are whatever was there.
func (b *Backend) sharedFloats(n int) []float32 {
	if len(b.shared) < n {
		b.shared = alignedF32(n)
	}
	return b.shared[:n]
}
