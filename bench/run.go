package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/updraft-ml/updraft/bench/roofline"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
)

// Options say what a run measures. The zero value is the quick set of every group
// without peers, kept nowhere.
type Options struct {
	Groups  []string // of Groups(); empty: all
	Shapes  []string // names of Shapes(); empty: all
	Full    bool     // every shape and size; otherwise what shows the most in a few minutes
	Pairs   int      // rounds; 0: 5, with Full 15
	Threads int      // 0: one per core
	// WorkloadTime bounds the rounds of a workload, once there are five of them; 0:
	// 20 seconds, with Full 3 minutes.
	WorkloadTime time.Duration
	DType        engine.DType
	// Miniature replaces every shape by one that computes in no time: it tries
	// everything out and measures nothing.
	Miniature bool

	Peers    []string // of PeerNames(); empty: none
	PeersDir string   // a directory for each peer; empty: bench/peers

	OutputDir string // where results are written after each workload; empty: nowhere
	Resume    bool   // keep what OutputDir has and measure the rest

	Command, Version string // for the record
	// Available says how much memory is free, and whether that is known.
	Available func() (free, total uint64, known bool)
	// Progress hears of each workload that begins and of each that is done.
	Progress func(Progress)

	limits limits
}

// Progress is how far a run is.
type Progress struct {
	Done, Total int
	Begins      string        // the workload that begins now; empty at the end of one
	Result      *Result       // what has just been measured
	Left        time.Duration // estimated
}

// Groups are the kinds of workloads, in the order in which they run.
func Groups() []string {
	return []string{"kernels", "prefill", "decode", "train", "gapg", "sharing", "scaling", "memory"}
}

// OptionError is a mistake in Options, or a directory that they do not fit.
type OptionError struct{ Err error }

func (e *OptionError) Error() string { return e.Err.Error() }
func (e *OptionError) Unwrap() error { return e.Err }

func optionf(format string, args ...any) error { return &OptionError{fmt.Errorf(format, args...)} }

func (o *Options) setDefaults() error {
	if err := checkShapes(o.Shapes); err != nil {
		return err
	}
	for _, g := range o.Groups {
		if !slices.Contains(Groups(), g) {
			return optionf("group %q: there are %s", g, strings.Join(Groups(), ", "))
		}
	}
	for _, p := range o.Peers {
		if !slices.Contains(PeerNames(), p) {
			return optionf("peer %q: there are %s", p, strings.Join(PeerNames(), ", "))
		}
	}
	if o.Pairs < 0 {
		return optionf("pairs %d: must be 1 or more", o.Pairs)
	}
	if o.Resume && o.OutputDir == "" {
		return optionf("resume: name the output directory whose results to go on with")
	}
	if o.Pairs == 0 {
		o.Pairs = 5
		if o.Full {
			o.Pairs = 15
		}
	}
	if o.WorkloadTime < 0 {
		return optionf("workload time %v: must not be negative", o.WorkloadTime)
	}
	if o.WorkloadTime == 0 {
		o.WorkloadTime = 20 * time.Second
		if o.Full {
			o.WorkloadTime = 3 * time.Minute
		}
	}
	if o.PeersDir == "" {
		o.PeersDir = filepath.Join("bench", "peers")
	}
	if o.limits == (limits{}) {
		o.limits = usualLimits()
	}
	return nil
}

// runner is a run under way.
type runner struct {
	o        Options
	be       *cpu.Backend
	machine  *roofline.Machine
	pool     []float32
	peers    map[string]*peer
	temp     string // of files for peers
	latest   latestModel
	results  *Results
	estimate estimate

	sampleFor time.Duration // aimed length of a sample that can be repeated
	burst     time.Duration // and of a measurement of a limit
}

// Run measures, and returns what was measured also where an error ends it early.
// A workload that fails has its error in its result and ends nothing.
func Run(ctx context.Context, o Options) (res *Results, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	r := &runner{o: o, pool: newPool(), peers: map[string]*peer{}, sampleFor: 20 * time.Millisecond, burst: 5 * time.Millisecond}
	if o.Miniature {
		r.sampleFor, r.burst = time.Millisecond, time.Millisecond
	}
	if r.be, err = cpu.New(cpu.Options{Threads: o.Threads}); err != nil {
		return nil, &OptionError{err}
	}
	defer func() { err = errors.Join(err, r.be.Close()) }()
	r.o.Threads = r.be.Threads()
	r.machine = roofline.New(r.o.Threads)
	defer func() { err = errors.Join(err, r.end()) }()
	if err := r.begin(); err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(r.workloads(), func(w *workload) bool { return r.o.Resume && r.results.finished(w) })
	r.estimate = newEstimate(r, all)
	for i, w := range all {
		r.report(Progress{Done: i, Total: len(all), Begins: w.String(), Left: r.estimate.left(i)})
		begun := time.Now()
		one := r.workload(ctx, w)
		if err := ctx.Err(); err != nil {
			return r.results, err
		}
		one.Date, one.Seconds = begun.UTC().Truncate(time.Second), time.Since(begun).Seconds()
		r.estimate.done(i, one.Seconds)
		r.results.add(one)
		r.session()
		if err := r.save(); err != nil {
			return r.results, err
		}
		r.report(Progress{Done: i + 1, Total: len(all), Result: &one, Left: r.estimate.left(i + 1)})
	}
	return r.results, nil
}

func (r *runner) report(p Progress) {
	if r.o.Progress != nil {
		r.o.Progress(p)
	}
}

// begin opens the directories and the record of the run.
func (r *runner) begin() (err error) {
	if r.temp, err = os.MkdirTemp("", "updraft-bench-"); err != nil {
		return err
	}
	logs := r.temp
	r.results = &Results{}
	if dir := r.o.OutputDir; dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		logs = dir
		before, err := ReadResults(dir)
		switch {
		case err != nil:
			return err
		case before != nil && !r.o.Resume:
			return optionf("%s holds results already: resume them, or choose another directory", dir)
		case before != nil:
			if before.Settings != r.settings() {
				return optionf("%s was measured with other settings (%+v): %+v cannot go on with it", dir, before.Settings, r.settings())
			}
			r.results = before
		}
	}
	r.results.Machine = thisMachine(r.be.Name(), r.machine.Name())
	if r.o.Available != nil {
		if _, total, known := r.o.Available(); known {
			r.results.Machine.Memory = total
		}
	}
	r.results.Command, r.results.Version, r.results.Settings = r.o.Command, r.o.Version, r.settings()
	now := time.Now().UTC().Truncate(time.Second)
	r.results.Sessions = append(r.results.Sessions, Session{Begun: now, Ended: now, LoadBegun: loadAverage(), LoadEnded: loadAverage()})
	for _, name := range r.o.Peers {
		r.peers[name] = &peer{name: name, dir: filepath.Join(r.o.PeersDir, name), log: filepath.Join(logs, name+".log"), threads: r.o.Threads,
			limits: r.o.limits, info: PeerInfo{Name: name}, barred: map[string]string{}}
	}
	return nil
}

func (r *runner) settings() Settings {
	return Settings{Full: r.o.Full, Miniature: r.o.Miniature, Pairs: r.o.Pairs, Threads: r.o.Threads, DType: r.o.DType.String()}
}

// session brings the record of this process up to date.
func (r *runner) session() {
	s := &r.results.Sessions[len(r.results.Sessions)-1]
	s.Ended, s.LoadEnded = time.Now().UTC().Truncate(time.Second), loadAverage()
	for _, name := range r.o.Peers {
		p := r.peers[name]
		i := slices.IndexFunc(r.results.Peers, func(x PeerInfo) bool { return x.Name == name })
		switch {
		case p.started == 0 && p.info.Missing == "": // nobody has asked it
		case i < 0:
			r.results.Peers = append(r.results.Peers, p.info)
		default:
			r.results.Peers[i] = p.info
		}
	}
}

func (r *runner) save() error {
	if r.o.OutputDir == "" {
		return nil
	}
	return r.results.Write(r.o.OutputDir)
}

func (r *runner) end() error {
	for _, p := range r.peers {
		p.quit()
	}
	return errors.Join(r.forget(), os.RemoveAll(r.temp))
}

// workload measures one workload, and answers failure with a result that has it.
func (r *runner) workload(ctx context.Context, w *workload) Result {
	res := Result{Group: w.group, Name: w.name, Shape: w.shape, Class: w.class}
	e := r.env()
	err := guard(func() { r.measure(ctx, w, e, &res) })
	if free := guard(e.free); err == nil {
		err = free
	}
	if err != nil && ctx.Err() == nil {
		res.Error = strings.Join(strings.Fields(err.Error()), " ")
	}
	return res
}

func (r *runner) measure(ctx context.Context, w *workload, e *env, res *Result) {
	s := w.setup(e)
	rows := make([]*Row, len(s.variants))
	var longest time.Duration
	for i := range s.variants {
		begun := time.Now()
		rows[i] = r.first(&s.variants[i])
		longest = max(longest, time.Since(begun))
	}
	if s.check != nil {
		res.Checked = s.check()
	}
	var peers []*contender
	if s.ask != nil {
		if s.ask.dir != "" {
			defer os.RemoveAll(s.ask.dir)
		}
		peers = r.contenders(w, s.ask, res)
		defer func() { closePeers(peers) }()
	}
	res.Set = w.set
	if res.Set == 0 && len(s.variants) > 0 {
		res.Set = s.variants[0].bytes
	}
	// Samples of seconds want more than a glance at the limits beside them.
	burst := min(max(r.burst, longest/10), 100*time.Millisecond)
	begun := time.Now()
	for i := range r.o.Pairs {
		if ctx.Err() != nil || i >= leastPairs && time.Since(begun) > r.o.WorkloadTime {
			break
		}
		if len(rows) > 0 {
			res.Peak = append(res.Peak, r.machine.Peak(burst))
			res.Bandwidth = append(res.Bandwidth, r.machine.Bandwidth(int(min(res.Set, mostRead)), burst))
		}
		for i, row := range rows {
			s.variants[i].sample(row)
		}
		for _, c := range peers {
			c.round(r.o.WorkloadTime / peerShare)
		}
	}
	if s.figures != nil {
		res.Figures = s.figures(rows)
	}
	ours := make([]Row, 0, len(rows)+len(res.Rows)+len(peers))
	for _, row := range rows {
		ours = append(ours, *row)
	}
	for _, c := range peers { // the same work as the first of ours
		c.row.Threads, c.row.FLOP, c.row.Bytes, c.row.Tokens = r.o.Threads, rows[0].FLOP, rows[0].Bytes, rows[0].Tokens
		ours = append(ours, *c.row)
	}
	res.Rows = append(ours, res.Rows...)
	for i := range res.Rows {
		res.Rows[i].summarise(res, r.o.Threads)
	}
	res.compare(s.compare)
}

// mostRead bounds the working set at which the bandwidth is measured: most caches
// hold less.
const mostRead = 512 << 20

// first runs a variant for the first time, and learns how often a sample repeats
// it.
func (r *runner) first(v *variant) *Row {
	row := &Row{Who: Ours, Variant: v.name, Threads: v.threads, FLOP: v.flop, Bytes: v.bytes, Tokens: v.tokens, Runs: 1}
	if row.Threads == 0 {
		row.Threads = r.o.Threads
	}
	v.timed(1, nil)
	if !v.whole {
		row.Runs = r.repeats(v.timed(1, nil))
	}
	return row
}

// timed is the time of a run, over so many.
func (v *variant) timed(runs int, l *laps) float64 {
	if v.before != nil {
		v.before()
	}
	begun := time.Now()
	if l != nil {
		l.last = begun
	}
	for range runs {
		v.run(l)
	}
	return time.Since(begun).Seconds() / float64(runs)
}

func (v *variant) sample(row *Row) {
	l := &laps{times: map[string]float64{}}
	row.Samples = append(row.Samples, v.timed(row.Runs, l))
	for _, phase := range l.names {
		if row.Laps == nil {
			row.Laps = map[string][]float64{}
		}
		row.Laps[phase] = append(row.Laps[phase], l.times[phase]/float64(row.Runs))
	}
	row.Phases = l.names
}
