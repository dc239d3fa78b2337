package roofline

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/updraft-ml/updraft/internal/hugepages"
)

// loop is one way to reach the limit with this processor's instructions.
type loop struct {
	name string
	// fma does n rounds of flop floating-point operations on registers.
	fma  func(n int)
	flop float64
	// read reads len(x) floats, a multiple of block, at addresses that rise.
	read  func(x []float32)
	block int
}

// Machine measures on a number of threads. It is not safe for concurrent use.
type Machine struct {
	threads int
	loop    loop
	data    []float32
}

// Each loop is tried so often and so long where the fastest is chosen.
const (
	trials = 4
	trial  = 2 * time.Millisecond
)

// New chooses the fastest loop of this processor.
func New(threads int) *Machine {
	m := &Machine{threads: threads}
	best := 0.0
	for range trials {
		for _, l := range loops() {
			t := Machine{threads: threads, loop: l}
			if rate := t.Peak(trial); rate > best {
				m.loop, best = l, rate
			}
		}
	}
	return m
}

// Name says which instructions reach the limit.
func (m *Machine) Name() string { return m.loop.name }

// Peak computes for about d on every thread at once and returns the floating-point
// operations per second of all of them together, a multiply-add being two.
func (m *Machine) Peak(d time.Duration) float64 {
	const chunk = 1 << 12
	return m.together(d, func(int) float64 {
		m.loop.fma(chunk)
		return chunk * m.loop.flop
	})
}

// Bandwidth reads a working set of the given bytes, each thread its share of it,
// once to warm the caches up and then again and again for about d, at least
// once. It returns bytes per second. What fits in a cache is read from there, as
// it would be by a kernel with such a working set.
func (m *Machine) Bandwidth(bytes int, d time.Duration) float64 {
	per := max(bytes/4/m.threads/m.loop.block, 1) * m.loop.block
	if n := per * m.threads; len(m.data) < n {
		m.data = make([]float32, n)
		hugepages.Advise(unsafe.Slice((*byte)(unsafe.Pointer(&m.data[0])), 4*n)) // as under the engine's matrices
		for i := range m.data {                                                  // pages of zeros would all be one page
			m.data[i] = float32(i)
		}
	}
	pass := func(t int) float64 {
		m.loop.read(m.data[t*per : (t+1)*per])
		return 4 * float64(per)
	}
	m.together(0, pass)
	return m.together(d, pass)
}

// together repeats work on every thread for about d, at least once, and returns
// the sum of what the threads do per second. Their clocks start when all are
// there: waking one up takes as long as a short measurement.
func (m *Machine) together(d time.Duration, work func(thread int) (done float64)) float64 {
	rates := make([]float64, m.threads)
	var ready atomic.Int32
	run := func(t int) {
		for ready.Add(1); int(ready.Load()) < m.threads; {
			runtime.Gosched()
		}
		done, begun := 0.0, time.Now()
		for {
			done += work(t)
			if elapsed := time.Since(begun); elapsed >= d {
				rates[t] = done / elapsed.Seconds()
				return
			}
		}
	}
	var all sync.WaitGroup
	for t := 1; t < m.threads; t++ {
		all.Go(func() { run(t) })
	}
	run(0)
	all.Wait()
	sum := 0.0
	for _, rate := range rates {
		sum += rate
	}
	return sum
}

// flopPerRound is that of an assembly loop's round: twelve registers of so many
// floats, enough to hide the latency of a multiply-add.
func flopPerRound(lanes int) float64 { return 2 * 12 * float64(lanes) }
