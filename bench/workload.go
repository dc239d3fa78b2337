package bench

import (
	"fmt"
	"time"
)

// workload is one thing to measure.
type workload struct {
	group, name, shape string
	class              string // workloads that a summary takes together; empty: it stands alone

	// What a round computes and reads, for the time that is left: the sums over all
	// variants.
	flop, bytes float64

	// set is the number of bytes that one run goes over again and again: the working
	// set at which the bandwidth is measured. 0: the first variant's bytes.
	set float64

	peers []string // that are asked, where peers are wanted
	setup func(e *env) *subject
}

func (w *workload) String() string { return w.group + ": " + w.shape + " " + w.name }

// subject is a workload that is set up. What fails inside its functions panics by
// must, which measure turns into the workload's error.
type subject struct {
	variants []variant
	compare  [][2]string           // pairs of our variants whose ratio is wanted: the second's time over the first's
	check    func() string         // after every variant has run once: compares results, says what it compared
	ask      *ask                  // for peers; nil where there are none
	figures  func([]*Row) []Figure // after the rounds: what else can be said of our variants
}

// variant is one of our ways to do the work.
type variant struct {
	name        string
	flop, bytes float64 // of a run: products, and what must move between memory and cores at least
	tokens      int     // of a run; 0 where it has none
	threads     int     // where they are not the run's: then no share of the limits is given
	whole       bool    // a run is a sample: it takes long, or changes what the next one does
	before      func()  // untimed, before each sample
	run         func(l *laps)
}

// laps are the phases of a run, in seconds. nil keeps none.
type laps struct {
	last  time.Time
	names []string
	times map[string]float64
}

// done ends a phase, which began with the run or at the last done.
func (l *laps) done(phase string) {
	now := time.Now()
	l.add(phase, now.Sub(l.last))
	l.last = now
}

// add counts a phase whose duration is known.
func (l *laps) add(phase string, d time.Duration) {
	if _, ok := l.times[phase]; !ok {
		l.names = append(l.names, phase)
	}
	l.times[phase] += d.Seconds()
}

// failure is what must panics with.
type failure struct{ error }

func must(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func fail(format string, args ...any) { must(fmt.Errorf(format, args...)) }

// guard calls f and returns what it panicked with, if it did.
func guard(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	f()
	return nil
}
