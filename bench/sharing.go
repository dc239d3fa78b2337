package bench

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/model"
)

// sharingWorkloads compare a group that shares its prompt with the same group where
// each response has a copy of its own, in the same engine.
func (r *runner) sharingWorkloads() (all []*workload) {
	for _, s := range r.shapes(Tiny) {
		all = append(all, r.sharedRollout(s, 8, 512, 128), r.sharedTraining(s, 8, 512, 128))
	}
	if r.o.Full {
		for _, s := range r.shapes(SmolLM2) {
			all = append(all, r.sharedRollout(s, 8, 512, 128), r.sharedTraining(s, 8, 512, 128))
		}
	}
	return all
}

const (
	sharedName   = "shared"
	unsharedName = "unshared"
)

// sharingWork is a forward pass of a group with its prompt computed so many times.
func sharingWork(s Shape, group, prompt, answer, copies int) float64 {
	tokens := float64(group * answer)
	return s.forwardFLOP(tokens+float64(copies*(prompt-1)), tokens, float64(copies)*causalPairs(0, prompt-1)+float64(group)*causalPairs(prompt-1, answer))
}

func (r *runner) sharedRollout(s Shape, group, prompt, answer int) *workload {
	weights := r.weightBytes() * (s.body() + s.head())
	// Bytes: the weights for each step, and the keys of the prompt, once or for each row.
	work := func(copies int) (flop, bytes float64) {
		keys := float64(answer)*float64(copies*prompt) + float64(group)*causalPairs(0, answer)
		return sharingWork(s, group, prompt, answer, copies), float64(answer)*weights + keys*s.cacheBytes()
	}
	flop, bytes := work(1)
	more, moreBytes := work(group)
	w := &workload{group: "sharing", shape: s.Name, name: fmt.Sprintf("rollout of %d answers, %d + %d tokens", group, prompt, answer),
		flop: flop + more, bytes: bytes + moreBytes, set: weights}
	w.setup = func(e *env) *subject {
		ctx := context.Background()
		m := e.model(s, model.Options{MaxContext: prompt + answer})
		sched, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: group, MaxTokens: prompt + answer, PrefillRows: group * prompt})
		must(err)
		e.closers = append(e.closers, sched.Close)
		ids := e.tokens(prompt, s.Config.VocabSize)
		// A draw depends on seed, prompt index, sample and position: both ways draw alike.
		roll := func(requests, each int) []model.Completion {
			var handles []*model.Handle
			for i := range requests {
				h, err := sched.Submit(model.Request{Prompt: ids, N: each, FirstSample: i * each, MaxNewTokens: answer, Seed: 5, StopTokens: []int32{},
					Sampling: model.Sampling{Temperature: 1}})
				must(err)
				handles = append(handles, h)
			}
			must(sched.Run(ctx))
			var all []model.Completion
			for _, h := range handles {
				all = append(all, h.Completions()...)
			}
			return all
		}
		var shared, unshared []model.Completion
		return &subject{
			variants: []variant{
				{name: sharedName, flop: flop, bytes: bytes, tokens: group * answer, whole: true, run: func(*laps) { shared = roll(1, group) }},
				{name: unsharedName, flop: more, bytes: moreBytes, tokens: group * answer, whole: true, run: func(*laps) { unshared = roll(group, 1) }},
			},
			compare: [][2]string{{sharedName, unsharedName}},
			check: func() string {
				for i := range shared {
					a, b := shared[i], unshared[i]
					if !slices.Equal(a.Tokens, b.Tokens) || !sameBits(a.LogProbs, b.LogProbs) || len(a.Tokens) != answer {
						fail("wrong result: answer %d differs without sharing", i)
					}
				}
				return fmt.Sprintf("%d tokens, their log-probs equal to the bit without sharing", group*answer)
			},
		}
	}
	return w
}

// normTolerance is the share by which the gradient's norm may differ between both
// ways: their float32 sums over up to 5,120 rows are taken in another order
// (chain(5120) is 3e-4).
const normTolerance = 1e-3

func (r *runner) sharedTraining(s Shape, group, prompt, answer int) *workload {
	flop, more := 3*sharingWork(s, group, prompt, answer, 1), 3*sharingWork(s, group, prompt, answer, group)
	bytes := 3 * r.weightBytes() * (s.body() + s.head())
	w := &workload{group: "sharing", shape: s.Name, name: fmt.Sprintf("forward and backward of %d answers, %d + %d tokens", group, prompt, answer),
		flop: flop + more, bytes: 2 * bytes}
	w.setup = func(e *env) *subject {
		ctx := context.Background()
		m := e.modelOn(e.Backend, s, model.Options{Trainable: true, MaxContext: prompt + answer, MaxRows: group * (prompt + answer), Weights: e.r.o.DType})
		e.closers = append(e.closers, m.Close)
		batch := model.Batch{Groups: []model.Group{{Prompt: e.tokens(prompt, s.Config.VocabSize)}}}
		for range group {
			batch.Groups[0].Responses = append(batch.Groups[0].Responses, e.tokens(answer, s.Config.VocabSize))
		}
		d := make([]float32, group*answer)
		for i := range d { // each token has a weight of its own
			d[i] = float32(i%7-3) / float32(len(d))
		}
		outs, norms := map[bool]*model.Output{}, map[bool]float64{}
		run := func(unshare bool) func(l *laps) {
			return func(l *laps) {
				b := batch
				b.Unshare = unshare
				m.ZeroGrad()
				out, err := m.Forward(ctx, &b)
				must(err)
				if l != nil {
					l.done("forward")
				}
				must(m.Backward(ctx, d, nil))
				if l != nil {
					l.done("backward")
				} else {
					outs[unshare] = out
					norms[unshare], err = m.GradNorm(ctx)
					must(err)
				}
			}
		}
		return &subject{
			variants: []variant{
				{name: sharedName, flop: flop, bytes: bytes, tokens: group * answer, whole: true, run: run(false)},
				{name: unsharedName, flop: more, bytes: bytes, tokens: group * answer, whole: true, run: run(true)},
			},
			compare: [][2]string{{sharedName, unsharedName}},
			check: func() string {
				if !sameBits(outs[false].LogProbs, outs[true].LogProbs) {
					fail("wrong result: log-probs differ without sharing")
				}
				if a, b := norms[false], norms[true]; !(math.Abs(a-b) <= normTolerance*a) {
					fail("wrong result: the gradient's norm is %v, without sharing %v", a, b)
				}
				return fmt.Sprintf("%d log-probs equal to the bit without sharing; the gradient's norm %.6g and %.6g", len(d), norms[false], norms[true])
			},
		}
	}
	return w
}
