package bench

import (
	"encoding/binary"
	"fmt"
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

// Samples that a peer takes of one workload: all rounds, or, where it is so slow
// that they would take longer than peerTime, no fewer than leastPairs.
const (
	peerTime   = 30 * time.Second
	leastPairs = 5
)

// contenders asks the peers of a workload to prepare, runs each of their variants
// once and compares its result. What cannot be had becomes a row that says why.
func (r *runner) contenders(w *workload, a *ask, res *Result) (all []*contender) {
	for _, name := range w.peers {
		p := r.peers[name]
		if p == nil {
			continue
		}
		gone := func(variant, format string, args ...any) {
			res.Rows = append(res.Rows, Row{Who: name, Variant: variant, Missing: fmt.Sprintf(format, args...)})
		}
		if err := p.open(); err != nil {
			gone("", "%v", err)
			continue
		}
		if !slices.Contains(p.works, a.work) {
			gone("", "does no %s", a.work)
			continue
		}
		fields := map[string]any{"op": "prepare", "work": a.work, "dir": a.dir}
		for k, v := range a.params {
			fields[k] = v
		}
		got, err := p.request(fields, p.limits.prepare)
		if err != nil {
			gone("", "%v", err)
			continue
		}
		for _, v := range got.Variants {
			c, err := r.contender(p, v, a)
			if err != nil {
				gone(v, "%v", err)
				continue
			}
			all = append(all, c)
		}
	}
	return all
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

// round takes a sample, unless the variant is out.
func (c *contender) round() {
	if c.out {
		return
	}
	seconds, err := c.sample()
	if err != nil { // half a contest is none
		c.row.Missing, c.row.Samples, c.out = err.Error(), nil, true
		return
	}
	c.row.Samples = append(c.row.Samples, seconds)
	c.out = c.spent > peerTime && len(c.row.Samples) >= leastPairs
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
