package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine/gpu"
)

// workload is something to check and to time.
type workload struct {
	group, name string
	flop        float64 // of one run
	bytes       float64 // that one run must move through device memory at least
	operands    int     // bytes of a set of operands
	families    bool    // also timed without the kernels for sm_90a, where there are such
	host        bool    // a step timed by the clock, with few rounds, and not recorded
	peers       []request
	// setup makes operands for e.sets sets and returns what runs on one of them, and
	// what compares the result of run(0) with float64.
	setup func(e *env) (run func(set int), check func() verdict)
}

// verdict is what a check found.
type verdict struct {
	Compared int     `json:"compared"`           // elements compared with float64
	Worst    float64 `json:"worst_of_tolerance"` // the largest error as a share of its tolerance
	err      error
}

const (
	rounds     = 15 // timed rounds; the median is reported
	hostRounds = 5
	roundFor   = 20 * time.Millisecond // aimed length of a round
	l2Turns    = 4                     // sets of operands together are this many times L2
	mostSets   = 64
	mostBytes  = 6 << 30 // of all sets together, where one set is not larger
)

// rig is what all workloads use.
type rig struct {
	options
	out      *results
	w        io.Writer
	driver   *cuda.Driver
	backends []*gpu.Backend // one with all kernels; on Hopper one more without those for sm_90a
	pools    []*pool
	peer     *peer
	copyRate float64 // bytes read and written per second, measured by the copy workload
}

func open(o options, w io.Writer) (r *rig, err error) {
	r = &rig{options: o, w: w}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	if r.driver, err = cuda.Open(cuda.WithLeakTracing()); err != nil {
		return r, err
	}
	info, err := r.driver.Info(o.device)
	if err != nil {
		return r, err
	}
	fmt.Fprintln(w, info)
	families := []bool{false}
	if info.Major == 9 && info.Minor == 0 {
		families = append(families, true)
	}
	length := poolLength
	if o.quick {
		length = quickPoolLength
	}
	for _, without := range families {
		b, err := gpu.New(gpu.Options{Driver: r.driver, Device: o.device, NoSM90a: without})
		if err != nil {
			return r, err
		}
		r.backends = append(r.backends, b)
		p, err := newPool(b, length)
		if err != nil {
			return r, err
		}
		r.pools = append(r.pools, p)
	}
	if r.out, err = openResults(o.out); err != nil {
		return r, err
	}
	before, err := readResults(o.out)
	if err != nil {
		return r, err
	}
	for _, x := range before { // of an earlier run of this program, for another group
		if x.Group == copyGroup && x.GBs > 0 {
			r.copyRate = 1e9 * x.GBs
		}
	}
	if o.peer != "" {
		r.peer = startPeer(o.peer, o.out, o.device)
	}
	return r, r.out.add(result{Group: "machine", Name: info.String(), Device: &info, Quick: o.quick, Command: commandLine(), Machine: machine()})
}

func (r *rig) close() error {
	var errs []error
	if r.peer != nil {
		r.peer.close()
	}
	for i, b := range r.backends {
		if i < len(r.pools) {
			b.Free(r.pools[i].device.Buf)
		}
		errs = append(errs, b.Close())
	}
	if r.driver != nil {
		for _, l := range r.driver.Leaks() {
			errs = append(errs, fmt.Errorf("leaked: %v", l))
		}
	}
	if r.out != nil {
		errs = append(errs, r.out.close())
	}
	return errors.Join(errs...)
}

// workload checks and times one workload with each family of kernels, and writes
// what it found. The error says that a result was wrong or that something failed.
func (r *rig) workload(x *workload) error {
	var errs []error
	for i, b := range r.backends {
		if i > 0 && !x.families {
			break
		}
		res := result{Group: x.group, Name: x.name, Kernels: "sm_80"}
		if i == 0 && len(r.backends) > 1 {
			res.Kernels = "sm_90a"
		}
		err := guard(func() error { return r.measure(x, b, r.pools[i], &res) })
		if err != nil {
			res.Error = err.Error()
			errs = append(errs, fmt.Errorf("%s %s (%s): %w", x.group, x.name, res.Kernels, err))
		}
		fmt.Fprintln(r.w, res)
		errs = append(errs, r.out.add(res))
	}
	return errors.Join(errs...)
}

func (r *rig) measure(x *workload, b *gpu.Backend, p *pool, res *result) (err error) {
	sets := 1
	if !x.host {
		sets = min(max(l2Turns*b.Device().L2/max(x.operands, 1), 1)+1, mostSets)
		sets = max(min(sets, mostBytes/max(x.operands, 1)), 1)
		if r.quick {
			sets = 2
		}
	}
	e := newEnv(b, p, sets)
	defer func() { err = errors.Join(err, e.free()) }()
	run, check := x.setup(e)
	run(0)
	if err := b.Sync(); err != nil {
		return err
	}
	v := check()
	res.verdict, res.Sets = v, sets
	if v.err != nil {
		return fmt.Errorf("wrong result: %w", v.err)
	}
	timer, err := b.NewTimer()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, timer.Close()) }()
	round := func() (float64, error) {
		begun := time.Now()
		run(0)
		err := b.Sync()
		return time.Since(begun).Seconds() / float64(e.runs), err
	}
	n := hostRounds
	if !x.host {
		n = rounds
		if round, err = r.recorded(b, timer, sets, run, res); err != nil {
			return err
		}
	}
	if r.quick {
		n = 2
	}
	return r.alternate(x, n, round, res)
}

// recorded records a program that runs every set, and returns a function that runs
// it for about roundFor and returns the seconds of one run of the workload.
func (r *rig) recorded(b *gpu.Backend, timer *gpu.Timer, sets int, run func(int), res *result) (func() (float64, error), error) {
	program := b.Record(func() {
		for s := range sets {
			run(s)
		}
	})
	if err := b.Sync(); err != nil {
		return nil, err
	}
	turn := func(times int) (float64, error) {
		d, err := timer.Time(func() {
			for range times {
				b.Run(program)
			}
		})
		return d.Seconds() / float64(times*sets), err
	}
	turns := 1
	if !r.quick { // warm up, and learn how many runs fill a round
		if _, err := turn(2); err != nil {
			return nil, err
		}
		warm, err := turn(2)
		if err != nil {
			return nil, err
		}
		turns = max(int(roundFor.Seconds()/max(warm*float64(sets), 1e-6)), 1)
	}
	res.Runs = turns * sets
	return func() (float64, error) { return turn(turns) }, nil
}

// alternate takes n rounds of ours and of each peer's, in turn.
func (r *rig) alternate(x *workload, n int, round func() (float64, error), res *result) error {
	peers := r.openPeers(x)
	times := make([]float64, 0, n)
	for range n {
		seconds, err := round()
		if err != nil {
			return err
		}
		times = append(times, seconds)
		for _, p := range peers {
			p.round()
		}
	}
	res.timing = timeOf(times)
	res.TFLOPS = x.flop / res.Microseconds / 1e6
	res.GBs = x.bytes / res.Microseconds / 1e3
	if x.group == copyGroup {
		r.copyRate = x.bytes / res.Microseconds * 1e6
	} else if x.bytes > 0 && r.copyRate > 0 {
		res.OfCopy = res.GBs * 1e9 / r.copyRate
	}
	for _, p := range peers {
		res.Peers = append(res.Peers, p.result(res.Microseconds))
	}
	return nil
}

// timeOf summarises rounds given in seconds.
func timeOf(seconds []float64) timing {
	s := slices.Sorted(slices.Values(seconds))
	return timing{Microseconds: 1e6 * s[len(s)/2], Least: 1e6 * s[0], Most: 1e6 * s[len(s)-1], Rounds: len(s)}
}
