package bench

import "time"

// estimate guesses how long workloads take: their arithmetic and traffic at half
// of what the machine has, corrected by how long those took that are done.
type estimate struct {
	guess         []float64 // seconds
	took, guessed float64   // of those that are done
}

func newEstimate(r *runner, all []*workload) estimate {
	peak, bandwidth := r.machine.Peak(4*r.burst), r.machine.Bandwidth(64<<20, 4*r.burst)
	var e estimate
	for _, w := range all {
		round := max(2*max(w.flop/peak, w.bytes/bandwidth), 2*r.sampleFor.Seconds())
		for _, name := range w.peers {
			if r.peers[name] != nil {
				round *= 1.7 // of the others, some are slower
			}
		}
		const setup = 1.5
		e.guess = append(e.guess, setup+2*round+min(float64(r.o.Pairs)*round, r.o.WorkloadTime.Seconds()))
	}
	return e
}

// done counts a workload that took so many seconds.
func (e *estimate) done(i int, seconds float64) {
	e.took += seconds
	e.guessed += e.guess[i]
}

// left is the time that workloads from i on take.
func (e *estimate) left(i int) time.Duration {
	sum := 0.0
	for _, g := range e.guess[i:] {
		sum += g
	}
	// The guesses are worth a minute of measurement.
	const trust = 60
	sum *= (e.took + trust) / (e.guessed + trust)
	return time.Duration(sum * float64(time.Second)).Round(time.Second)
}
