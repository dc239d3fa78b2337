package bench

import (
	"context"
	"fmt"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model"
)

// scalingWorkloads compare one thread with all of them, and steps of growing
// batches with a straight line.
func (r *runner) scalingWorkloads() (all []*workload) {
	name, length := Tiny, 64
	if r.o.Full {
		name = SmolLM2
	}
	for _, s := range r.shapes(name) {
		if r.o.Threads > 1 {
			all = append(all, r.scaledTraining(s, 4, length), r.scaledDecode(s, 32, 16, 16))
		}
		all = append(all, r.linearity(s, length))
	}
	return all
}

// onThreads makes variants of one workload on one thread and on all.
func (r *runner) onThreads(v func(threads int) variant) []variant {
	all := []variant{v(r.o.Threads), v(1)}
	for i, n := range []int{r.o.Threads, 1} {
		all[i].threads, all[i].name = n, threadsName(n)
	}
	return all
}

func threadsName(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

// backend is one of its own, closed with the workload.
func (e *env) backend(threads int) *cpu.Backend {
	be, err := cpu.New(cpu.Options{Threads: threads})
	must(err)
	e.closers = append(e.closers, be.Close)
	return be
}

func (r *runner) scaledTraining(s Shape, sequences, length int) *workload {
	rows := float64(sequences * (length - 1))
	flop := s.trainFLOP(rows, rows, float64(sequences)*causalPairs(0, length-1))
	bytes := (3*r.weightBytes() + 28) * float64(s.Config.NumParameters())
	w := &workload{group: "scaling", shape: s.Name, name: fmt.Sprintf("threads: training step of %d × %d tokens", sequences, length), flop: float64(1+r.o.Threads) * flop, bytes: 2 * bytes}
	w.setup = func(e *env) *subject {
		var trainers []*trainer
		variants := r.onThreads(func(threads int) variant {
			o := model.Options{Trainable: true, MaxRows: sequences * length, MaxContext: length, Weights: e.r.o.DType}
			m := e.modelOn(e.backend(threads), s, o)
			e.closers = append(e.closers, m.Close)
			e.rng = newRNG() // both train on the same tokens
			t := newTrainer(e, m, sequences, length)
			trainers = append(trainers, t)
			t.step(nil, true)
			return variant{flop: flop, bytes: bytes, tokens: int(rows), whole: true, run: func(l *laps) { t.step(l, false) }}
		})
		return &subject{variants: variants, compare: [][2]string{{variants[0].name, variants[1].name}}, check: func() string {
			a, b := trainers[0], trainers[1]
			if a.losses[1] != b.losses[1] || a.norms[0] != b.norms[0] {
				fail("wrong result: on one thread the bits differ: loss %v and %v", a.losses[1], b.losses[1])
			}
			return a.check() + "; the same bits on one thread"
		}}
	}
	return w
}

func (r *runner) scaledDecode(s Shape, rows, prompt, steps int) *workload {
	one := r.decode(s, rows, prompt, steps)
	w := &workload{group: "scaling", shape: s.Name, name: "threads: decode " + one.name, flop: float64(1+r.o.Threads) * one.flop, bytes: 2 * one.bytes, set: one.set}
	w.setup = func(e *env) *subject {
		must(e.r.forget())
		var checks []func() string
		variants := r.onThreads(func(threads int) variant {
			other := *e
			other.Backend, other.rng, other.closers, other.buffers = e.backend(threads), newRNG(), nil, nil
			sub := one.setup(&other)
			// The model stays until the workload ends, not until another is wanted.
			m := e.r.latest.m
			e.r.latest = latestModel{}
			e.closers = append(append(e.closers, m.Close), other.closers...)
			checks = append(checks, sub.check)
			return sub.variants[0]
		})
		return &subject{variants: variants, compare: [][2]string{{variants[0].name, variants[1].name}}, check: func() string { checks[1](); return checks[0]() }}
	}
	return w
}

// linearity steps on batches of one, two, three and four times as many sequences,
// and fits a line to the times.
func (r *runner) linearity(s Shape, length int) *workload {
	sizes := []int{2, 4, 6, 8}
	flopOf := func(sequences int) float64 {
		rows := float64(sequences * (length - 1))
		return s.trainFLOP(rows, rows, float64(sequences)*causalPairs(0, length-1))
	}
	bytes := (3*r.weightBytes() + 28) * float64(s.Config.NumParameters())
	w := &workload{group: "scaling", shape: s.Name, name: fmt.Sprintf("tokens: training steps of %v × %d", sizes, length), bytes: float64(len(sizes)) * bytes}
	for _, n := range sizes {
		w.flop += flopOf(n)
	}
	w.setup = func(e *env) *subject {
		most := sizes[len(sizes)-1]
		m := e.modelOn(e.Backend, s, model.Options{Trainable: true, MaxRows: most * length, MaxContext: length, Weights: e.r.o.DType})
		e.closers = append(e.closers, m.Close)
		sub := &subject{}
		var tokens []float64
		for _, n := range sizes {
			t := newTrainer(e, m, n, length)
			rows := n * (length - 1)
			tokens = append(tokens, float64(rows))
			sub.variants = append(sub.variants, variant{name: fmt.Sprintf("%d tokens", rows), flop: flopOf(n), bytes: bytes, tokens: rows, whole: true,
				run: func(l *laps) { t.step(l, false) }})
		}
		sub.figures = func(rows []*Row) []Figure {
			var seconds []float64
			for _, row := range rows {
				seconds = append(seconds, spreadOf(row.Samples).Median)
			}
			a, b, r2 := linearFit(tokens, seconds)
			return []Figure{{"R² of a line through the median times", r2, ""}, {"seconds of a step without tokens", a, "s"}, {"seconds of a token more", b, "s"}}
		}
		return sub
	}
	return w
}

// memoryWorkloads hold what a model takes against its plan.
func (r *runner) memoryWorkloads() (all []*workload) {
	names := []string{Tiny}
	if r.o.Full {
		names = []string{Tiny, SmolLM2}
	}
	for _, s := range r.shapes(names...) {
		all = append(all, r.memory(s, 4, 256))
	}
	return all
}

// memory trains for two steps and generates, and compares the growth of the
// resident set with the plan.
func (r *runner) memory(s Shape, sequences, length int) *workload {
	rows := float64(sequences * (length - 1))
	w := &workload{group: "memory", shape: s.Name, name: fmt.Sprintf("training of %d × %d tokens and a rollout", sequences, length),
		flop: 4 * s.trainFLOP(rows, rows, float64(sequences)*causalPairs(0, length-1))}
	w.setup = func(e *env) *subject {
		must(e.r.forget())
		e.free()
		before, _, ok := residentPeak()
		if !ok {
			fail("this system does not tell how much memory is resident: not measured")
		}
		o := model.Options{Trainable: true, MaxRows: sequences * length, MaxContext: length, Weights: e.r.o.DType}
		so := model.SchedulerOptions{MaxBatch: sequences, MaxTokens: length}
		be := e.backend(e.r.o.Threads)
		act, err := be.Precision(o.Weights)
		must(err)
		planned := float64(model.NewPlan(s.Config, act, o, &so).Bytes())
		m := e.modelOn(be, s, o)
		e.closers = append(e.closers, m.Close)
		sched, err := model.NewScheduler(m, so)
		must(err)
		e.closers = append(e.closers, sched.Close)
		t := newTrainer(e, m, sequences, length)
		(&env{}).free() // what making the model left
		if !clearPeak() {
			fail("this system does not let the peak of resident memory begin anew: not measured")
		}
		for range 2 {
			t.step(nil, true)
		}
		for i := range sequences {
			submit(sched, t.tokens()[:length/2], i, length/2, new(generated))
		}
		must(sched.Run(context.Background()))
		_, peak, _ := residentPeak()
		grown := float64(peak - before)
		figures := []Figure{{"planned", planned, "bytes"}, {"allocated for it", float64(be.Allocated()), "bytes"}, {"peak of the resident set, above what it was before", grown, "bytes"},
			{"peak over plan", grown / planned, ""}}
		return &subject{check: t.check, figures: func([]*Row) []Figure { return figures }}
	}
	return w
}
