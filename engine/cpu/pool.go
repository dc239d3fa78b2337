package cpu

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// tiler is work that falls into independent tiles.
type tiler interface {
	// tile computes tile i with w's scratch. Tiles run concurrently and in no
	// order, so each owns what it writes.
	tile(w *worker, i int)
}

// worker is one thread's scratch memory.
type worker struct {
	back  bool // takes tiles from the back of a job that has two ends
	arena []float32
	used  int
	at    []int    // offsets of a batch of products, reused
	_     [64]byte // keeps two workers' counters out of one cache line
}

// floats returns n floats of scratch on a cache line, valid until the tile
// ends. Their contents are whatever was there.
func (w *worker) floats(n int) []float32 {
	from := w.used
	to := from + roundUp(n, align/4)
	if to > len(w.arena) {
		// Only an operation that reserved too little comes here. Slices given
		// out before keep the old memory.
		w.arena = alignedF32(max(2*len(w.arena), to))
	}
	w.used = to
	return w.arena[from : from+n : from+n]
}

func roundUp(n, m int) int { return (n + m - 1) / m * m }

// scratchLen is the part of an arena that floats(n) takes.
func scratchLen(n int) int { return roundUp(n, align/4) }

// The state of a pool is one word: the tiles not yet taken, those taken from the front,
// whether they are taken from both ends, and a job number, so that a worker which read
// the word before a job ended cannot take a tile of the next one with it.
const (
	tileBits = 20
	tileMask = 1<<tileBits - 1
	oneFront = 1 << tileBits
	bothEnds = 1 << (2 * tileBits)
	oneJob   = 1 << (2*tileBits + 1)
)

// How long a worker looks for work before it parks. A parked worker costs some
// 300 µs to wake, a spinning one takes a core from others: within a step the
// gaps between operations are shorter than this, and an idle program parks.
const (
	spinTime  = 2 * time.Millisecond
	spinYield = 32   // looks between two yields to other goroutines
	spinCore  = 1024 // looks after which each yield is also one of the core
)

// pool is a set of workers that share the tiles of one operation at a time. The
// goroutine that calls run is its first worker.
type pool struct {
	workers []*worker

	state atomic.Uint64 // job number, both ends, tiles taken from the front, tiles left
	_     [56]byte
	done  atomic.Int64 // tiles finished
	_     [56]byte

	// Written by run before it publishes state, read by whoever took a tile of
	// that job; run does not return before these tiles are finished.
	task tiler
	n    int

	failure atomic.Pointer[any] // first panic of a tile

	mu      sync.Mutex
	wake    *sync.Cond
	parked  atomic.Int32
	closing atomic.Bool
	ended   sync.WaitGroup
}

func newPool(threads int) *pool {
	p := &pool{workers: make([]*worker, threads)}
	p.wake = sync.NewCond(&p.mu)
	for i := range p.workers {
		p.workers[i] = &worker{back: i%2 == 1}
	}
	for _, w := range p.workers[1:] {
		p.ended.Add(1)
		go p.work(w)
	}
	return p
}

// run computes all tiles of t and returns when they are finished. A panic in a
// tile is raised again here.
//
// Tiles are taken in their order, or from both ends, by every second worker from the
// back: there the upper half of the tiles stands in descending order, so that either
// end meets neighbours one after the other and what a tile prefetches beyond itself is
// its worker's next one, until one half is done and the rest of the other, from its
// last tile on, is shared.
func (p *pool) run(t tiler, n int, ends bool) {
	if n <= 0 {
		return
	}
	w := p.workers[0]
	if n == 1 || len(p.workers) == 1 {
		for i := range n {
			w.used = 0
			t.tile(w, i)
		}
		return
	}
	if n > tileMask {
		panic("cpu: an operation of too many tiles")
	}
	p.task, p.n = t, n
	p.done.Store(0)
	state := (p.state.Load()/oneJob+1)*oneJob + uint64(n)
	if ends {
		state += bothEnds
	}
	p.state.Store(state)
	if p.parked.Load() > 0 {
		p.mu.Lock()
		p.wake.Broadcast()
		p.mu.Unlock()
	}
	p.drain(w)
	p.await(n)
	p.task = nil
	if p.failure.Load() != nil {
		panic(*p.failure.Swap(nil))
	}
}

// await returns when n tiles are finished. Where the last ones take long, their
// workers may lack a core: then it leaves them its own, at last by sleeping.
func (p *pool) await(n int) {
	var since time.Time
	for spins := 1; p.done.Load() < int64(n); spins++ {
		if spins%spinYield != 0 {
			continue
		}
		yield(spins)
		switch {
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > spinTime:
			time.Sleep(50 * time.Microsecond)
		}
	}
}

// yield lets others run: goroutines, and, after some time without success, other
// threads, among which may be the one that is waited for.
func yield(spins int) {
	runtime.Gosched()
	if spins > spinCore {
		yieldCore()
	}
}

// drain takes and computes tiles until none is left.
func (p *pool) drain(w *worker) {
	for {
		s := p.state.Load()
		left, front, ends := int(s&tileMask), int(s/oneFront&tileMask), s&bothEnds != 0
		if left == 0 {
			return
		}
		at, next := front, s-1
		if ends && w.back {
			at += left - 1
		} else {
			next += oneFront
		}
		// Success means that the word has not changed, so that the tile belongs
		// to the job whose task and n are there now.
		if p.state.CompareAndSwap(s, next) {
			if half := (p.n + 1) / 2; ends && at >= half {
				at = half + p.n - 1 - at
			}
			p.one(w, at)
		}
	}
}

// one computes tile i and counts it, also when it panics.
func (p *pool) one(w *worker, i int) {
	defer p.finish()
	w.used = 0
	p.task.tile(w, i)
}

func (p *pool) finish() {
	if r := recover(); r != nil {
		first := r // only here, so that a tile that succeeds allocates nothing
		p.failure.CompareAndSwap(nil, &first)
	}
	p.done.Add(1)
}

// work is the life of a worker's goroutine.
func (p *pool) work(w *worker) {
	defer p.ended.Done()
	idleSince := time.Now()
	for spins := 1; ; spins++ {
		if p.state.Load()&tileMask != 0 {
			p.drain(w)
			idleSince = time.Now()
			spins = 0
			continue
		}
		if spins%spinYield != 0 {
			continue
		}
		if p.closing.Load() {
			return
		}
		yield(spins)
		if time.Since(idleSince) > spinTime {
			p.park()
			idleSince = time.Now()
		}
	}
}

// park blocks until there is work or the pool closes. The counter rises before
// the state is read, and run writes the state before it reads the counter, so
// one of the two always sees the other.
func (p *pool) park() {
	p.mu.Lock()
	p.parked.Add(1)
	for p.state.Load()&tileMask == 0 && !p.closing.Load() {
		p.wake.Wait()
	}
	p.parked.Add(-1)
	p.mu.Unlock()
}

// close ends the workers and waits for them.
func (p *pool) close() {
	p.closing.Store(true)
	p.mu.Lock()
	p.wake.Broadcast()
	p.mu.Unlock()
	p.ended.Wait()
}
