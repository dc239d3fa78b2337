package bench

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// ask is what a peer must know to do a workload, and what its results must be.
type ask struct {
	work    string
	params  map[string]any            // of the request; files lie in dir
	dir     string                    // of files, removed with the workload; empty where there are none
	compare func(got []float32) error // says what is wrong with a peer's output
	length  int                       // floats of an output; 0: any
	whole   bool                      // a run is a sample
}

// contender is one variant of a peer's in a workload.
type contender struct {
	peer  *peer
	row   *Row
	runs  int
	spent time.Duration
	out   bool // takes no more samples
}

// Samples of a workload: one in each round, or, where its time or a peer's share of
// it runs out, no fewer than leastPairs.
const (
	peerShare  = 6
	leastPairs = 5
)

// contenders asks the peers of a workload to prepare, runs each of their variants
// once and compares its result. What cannot be had becomes a row that says why.
func (r *runner) contenders(w *workload, a *ask, res *Result) (all []*contender) {
	for _, name := range w.peers {
		if p := r.peers[name]; p != nil {
			all = append(all, r.enter(p, a, func(variant, why string) {
				res.Rows = append(res.Rows, Row{Who: name, Variant: variant, Missing: why})
			})...)
		}
	}
	return all
}

// enter is contenders for one peer. A variant that ends the process is barred from
// this work for the rest of the run, and the others enter with a new process.
func (r *runner) enter(p *peer, a *ask, gone func(variant, why string)) (in []*contender) {
	settled := map[string]bool{}
	for {
		variants, err := p.prepare(a)
		if err != nil {
			gone("", err.Error())
			return nil
		}
		for _, c := range in { // in the new process too, before they are timed
			if _, err := c.sample(); err != nil {
				gone("", fmt.Sprintf("started anew: %v", err))
				return nil
			}
		}
		again := false
		for _, v := range variants {
			if settled[v] {
				continue
			}
			settled[v] = true
			key := a.work + " " + v
			if why := p.barred[key]; why != "" {
				gone(v, "not asked again: "+why)
				continue
			}
			c, err := r.contender(p, v, a)
			if err == nil {
				in = append(in, c)
				continue
			}
			gone(v, err.Error())
			if again = p.cmd == nil; again {
				p.barred[key] = err.Error()
				break
			}
		}
		if !again {
			return in
		}
	}
}

// prepare starts a peer unless it runs, and has it prepare a work.
func (p *peer) prepare(a *ask) (variants []string, err error) {
	if why := p.barred[a.work]; why != "" {
		return nil, fmt.Errorf("not asked again: %s", why)
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	if !slices.Contains(p.works, a.work) {
		return nil, fmt.Errorf("does no %s", a.work)
	}
	fields := map[string]any{"op": "prepare", "work": a.work, "dir": a.dir}
	maps.Copy(fields, a.params)
	got, err := p.request(fields, p.limits.prepare)
	if err != nil && p.cmd == nil {
		p.barred[a.work] = err.Error()
	}
	return got.Variants, err
}

// contender runs a variant for the first time, compares its result, and learns
// how often a sample repeats it.
func (r *runner) contender(p *peer, variant string, a *ask) (*contender, error) {
	c := &contender{peer: p, row: &Row{Who: p.name, Variant: variant}, runs: 1}
	if _, err := c.sample(); err != nil {
		return nil, err
	}
	file := filepath.Join(r.temp, "output.f32")
	defer os.Remove(file)
	if _, err := p.request(map[string]any{"op": "output", "variant": variant, "file": file}, p.limits.run); err != nil {
		return nil, err
	}
	got, err := readFloats(file)
	if err != nil {
		return nil, fmt.Errorf("its output cannot be read: %w", err)
	}
	switch {
	case a.length > 0 && len(got) != a.length:
		err = fmt.Errorf("%d numbers, want %d", len(got), a.length)
	default:
		err = a.compare(got)
	}
	if err != nil {
		c.row.Wrong, c.out = err.Error(), true
		return c, nil
	}
	if !a.whole {
		seconds, err := c.sample()
		if err != nil {
			return nil, err
		}
		c.runs = r.repeats(seconds)
	}
	c.row.Runs, c.spent = c.runs, 0
	return c, nil
}

// repeats is the number of runs that fill a sample.
func (r *runner) repeats(seconds float64) int {
	return min(max(int(math.Ceil(r.sampleFor.Seconds()/max(seconds, 1e-9))), 1), 1<<20)
}

// sample is the time of one run, measured by the peer over so many.
func (c *contender) sample() (float64, error) {
	begun := time.Now()
	got, err := c.peer.request(map[string]any{"op": "run", "variant": c.row.Variant, "repeat": c.runs}, c.peer.limits.run)
	if err != nil {
		return 0, err
	}
	c.spent += time.Since(begun)
	if !(got.Seconds > 0) {
		return 0, fmt.Errorf("gave no time")
	}
	return got.Seconds / float64(c.runs), nil
}

// round takes a sample, unless the variant is out. Its samples together may take so
// long, once there are leastPairs of them.
func (c *contender) round(most time.Duration) {
	if c.out {
		return
	}
	if c.peer.cmd == nil && len(c.row.Samples) > 0 { // another variant ended it: these samples stand
		c.out = true
		return
	}
	seconds, err := c.sample()
	if err != nil { // half a contest is none
		c.row.Missing, c.row.Samples, c.out = err.Error(), nil, true
		return
	}
	c.row.Samples = append(c.row.Samples, seconds)
	c.out = c.spent > most && len(c.row.Samples) >= leastPairs
}

// closePeers frees what a workload's peers have prepared.
func closePeers(all []*contender) {
	closed := map[*peer]bool{}
	for _, c := range all {
		if !closed[c.peer] && c.peer.cmd != nil {
			c.peer.request(map[string]any{"op": "close"}, c.peer.limits.run)
			closed[c.peer] = true
		}
	}
}

func readFloats(path string) ([]float32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	x := make([]float32, len(b)/4)
	for i := range x {
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x, nil
}

func writeFloats(path string, x []float32) {
	b := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
	}
	must(os.WriteFile(path, b, 0o644))
}

func writeInts(path string, x []int32) {
	b := make([]byte, 4*len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	must(os.WriteFile(path, b, 0o644))
}
