package enginetest

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/engine"
)

// NewDeferred wraps inner in a backend that proves of the layers above that
// they keep to the contract of a device with memory and a stream of its own:
//
//   - its buffers are handles of its own type; those of another backend panic;
//   - no operation is carried out before Wait or Sync asks for it, from copies
//     of the arguments, slices and upload sources made at the call;
//   - the destination of a download holds NaNs (or the smallest int32) until
//     Wait on its ticket, or on a later one, or Sync;
//   - a recorded program is replayed without calling build again;
//   - a buffer or a program's buffer that is used after Free panics, as does
//     what may not be called while recording;
//   - Close returns an error that lists the buffers never freed and where they
//     were allocated. Copies of weights that PrepareWeight made are not listed.
//
// Close closes inner too.
func NewDeferred(inner engine.Backend) engine.Backend {
	return &deferred{inner: inner, live: map[*deferredBuffer]bool{}}
}

const poisonI32 = math.MinInt32

type deferred struct {
	inner  engine.Backend
	live   map[*deferredBuffer]bool
	serial int

	queue     []submission // not carried out yet
	downloads []download   // carried out by inner, not delivered yet
	last      engine.Ticket
	record    *deferredProgram
	uses      []*deferredBuffer // of the arguments unwrapped since the last submission
	closed    bool
}

type submission struct {
	ticket engine.Ticket
	run    func()
}

type download struct {
	ticket, inner engine.Ticket
	deliver       func()
}

type deferredBuffer struct {
	owner    *deferred
	inner    engine.Buffer
	prepared bool   // a weight's copy, owned by the backend
	serial   int    // order of allocation
	where    string // of allocation
}

func (b *deferredBuffer) DType() engine.DType { return b.inner.DType() }
func (b *deferredBuffer) Len() int            { return b.inner.Len() }

type deferredProgram struct {
	owner *deferred
	ops   []func()
	uses  []*deferredBuffer
}

func (p *deferredProgram) Ops() int { return len(p.ops) }

// Name implements engine.Backend.
func (d *deferred) Name() string { return "deferred " + d.inner.Name() }

// Precision implements engine.Backend.
func (d *deferred) Precision(weights engine.DType) (engine.DType, error) {
	return d.inner.Precision(weights)
}

// Async implements engine.Backend. It answers for inner, so that tests of the
// layers above see the choices that these make for inner.
func (d *deferred) Async() bool { return d.inner.Async() }

func (d *deferred) wrap(b engine.Buffer, prepared bool) *deferredBuffer {
	d.serial++
	out := &deferredBuffer{owner: d, inner: b, prepared: prepared, serial: d.serial, where: caller()}
	d.live[out] = true
	return out
}

// caller names the first three callers outside this file.
func caller() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var out []string
	for len(out) < 3 {
		f, more := frames.Next()
		if f.Function != "" && !strings.HasSuffix(f.File, "/enginetest/deferred.go") {
			out = append(out, fmt.Sprintf("%s:%d", f.File, f.Line))
		}
		if !more {
			break
		}
	}
	return strings.Join(out, " < ")
}

// buffer returns inner's handle and notes the use.
func (d *deferred) buffer(b engine.Buffer) engine.Buffer {
	db, ok := b.(*deferredBuffer)
	must(ok && db.owner == d, "deferred: buffer of another backend")
	must(d.live[db], "deferred: buffer used after Free")
	d.uses = append(d.uses, db)
	return db.inner
}

// open replaces the handles of tensors by inner's; absent ones stay absent.
func (d *deferred) open(ts ...*engine.Tensor) {
	for _, t := range ts {
		if t.Valid() {
			t.Buf = d.buffer(t.Buf)
		}
	}
}

func (d *deferred) openWeight(w *engine.Weight) {
	d.open(&w.Tensor)
	if w.Prepared != nil {
		w.Prepared = d.buffer(w.Prepared)
	}
}

// submit queues an operation, or records it.
func (d *deferred) submit(run func()) {
	must(!d.closed, "deferred: used after Close")
	if d.record != nil {
		d.record.ops = append(d.record.ops, run)
		d.record.uses = append(d.record.uses, d.uses...)
	} else {
		d.last++
		d.queue = append(d.queue, submission{d.last, run})
	}
	d.uses = nil
}

// flush carries out what was submitted up to t.
func (d *deferred) flush(t engine.Ticket) {
	for len(d.queue) > 0 && d.queue[0].ticket <= t {
		next := d.queue[0]
		d.queue = d.queue[1:]
		next.run()
	}
}

func (d *deferred) notRecording() {
	must(d.record == nil, "deferred: not allowed while recording")
}

// Alloc implements engine.Backend.
func (d *deferred) Alloc(dt engine.DType, n int) (engine.Buffer, error) {
	d.notRecording()
	must(!d.closed, "deferred: used after Close")
	b, err := d.inner.Alloc(dt, n)
	if err != nil {
		return nil, err
	}
	return d.wrap(b, false), nil
}

// Free implements engine.Backend.
func (d *deferred) Free(b engine.Buffer) {
	d.notRecording()
	inner := d.buffer(b)
	delete(d.live, b.(*deferredBuffer))
	d.submit(func() { d.inner.Free(inner) })
}

// Sync implements engine.Backend.
func (d *deferred) Sync() error {
	d.flush(d.last)
	err := d.inner.Sync()
	for _, w := range d.downloads {
		w.deliver()
	}
	d.downloads = nil
	return err
}

// Wait implements engine.Backend.
func (d *deferred) Wait(t engine.Ticket) error {
	must(t <= d.last, "deferred: ticket of the future")
	d.flush(t)
	var first error
	for len(d.downloads) > 0 && d.downloads[0].ticket <= t {
		w := d.downloads[0]
		d.downloads = d.downloads[1:]
		if err := d.inner.Wait(w.inner); err != nil && first == nil {
			first = err
		}
		w.deliver()
	}
	return first
}

// Close implements engine.Backend.
func (d *deferred) Close() error {
	err := d.Sync()
	d.closed = true
	if e := d.inner.Close(); err == nil {
		err = e
	}
	var leaks []*deferredBuffer
	for b := range d.live {
		if !b.prepared {
			leaks = append(leaks, b)
		}
	}
	if err != nil || len(leaks) == 0 {
		return err
	}
	slices.SortFunc(leaks, func(a, b *deferredBuffer) int { return a.serial - b.serial })
	var s strings.Builder
	for _, b := range leaks {
		fmt.Fprintf(&s, "\n\t%d elements of %v, allocated at %s", b.Len(), b.DType(), b.where)
	}
	return fmt.Errorf("deferred: %d buffers were not freed:%s", len(leaks), s.String())
}

// UploadF32 implements engine.Backend.
func (d *deferred) UploadF32(dst engine.Tensor, src []float32) {
	d.notRecording()
	d.open(&dst)
	src = slices.Clone(src)
	d.submit(func() {
		d.inner.UploadF32(dst, src)
		for i := range src { // inner must have copied them
			src[i] = nan32
		}
	})
}

// UploadI32 implements engine.Backend.
func (d *deferred) UploadI32(dst engine.Tensor, src []int32) {
	d.notRecording()
	d.open(&dst)
	src = slices.Clone(src)
	d.submit(func() {
		d.inner.UploadI32(dst, src)
		for i := range src {
			src[i] = poisonI32
		}
	})
}

// DownloadF32 implements engine.Backend.
func (d *deferred) DownloadF32(dst []float32, src engine.Tensor) engine.Ticket {
	d.notRecording()
	d.open(&src)
	for i := range dst {
		dst[i] = nan32
	}
	t := d.last + 1
	d.submit(func() {
		private := make([]float32, len(dst))
		it := d.inner.DownloadF32(private, src)
		d.downloads = append(d.downloads, download{t, it, func() { copy(dst, private) }})
	})
	return t
}

// DownloadI32 implements engine.Backend.
func (d *deferred) DownloadI32(dst []int32, src engine.Tensor) engine.Ticket {
	d.notRecording()
	d.open(&src)
	for i := range dst {
		dst[i] = poisonI32
	}
	t := d.last + 1
	d.submit(func() {
		private := make([]int32, len(dst))
		it := d.inner.DownloadI32(private, src)
		d.downloads = append(d.downloads, download{t, it, func() { copy(dst, private) }})
	})
	return t
}

// Record implements engine.Backend.
func (d *deferred) Record(build func()) engine.Program {
	d.notRecording()
	p := &deferredProgram{owner: d}
	d.record, d.uses = p, nil
	defer func() { d.record = nil }()
	build()
	return p
}

// Run implements engine.Backend.
func (d *deferred) Run(p engine.Program) {
	d.notRecording()
	dp, ok := p.(*deferredProgram)
	must(ok && dp.owner == d, "deferred: program of another backend")
	for _, b := range dp.uses {
		must(d.live[b], "deferred: program uses a buffer after Free")
	}
	for _, op := range dp.ops {
		d.submit(op)
	}
}

// PrepareWeight implements engine.Backend. It is the one call besides Alloc
// that reaches inner at once, after everything submitted before it.
func (d *deferred) PrepareWeight(w *engine.Weight) error {
	d.notRecording()
	inner := engine.Weight{Tensor: w.Tensor}
	d.openWeight(&inner)
	d.uses = nil
	d.flush(d.last)
	if err := d.inner.PrepareWeight(&inner); err != nil {
		return err
	}
	if inner.Prepared != nil {
		w.Prepared = d.wrap(inner.Prepared, true)
	}
	return nil
}

// RefreshWeight implements engine.Backend.
func (d *deferred) RefreshWeight(w engine.Weight) {
	d.openWeight(&w)
	d.submit(func() { d.inner.RefreshWeight(w) })
}

// Fill implements engine.Backend.
func (d *deferred) Fill(dst engine.Tensor, v float32) {
	d.open(&dst)
	d.submit(func() { d.inner.Fill(dst, v) })
}

// Copy implements engine.Backend.
func (d *deferred) Copy(dst, src engine.Tensor) {
	d.open(&dst, &src)
	d.submit(func() { d.inner.Copy(dst, src) })
}
