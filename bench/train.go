package bench

import (
	"context"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/model"
)

// trainWorkloads are steps of full fine-tuning: forward, backward, AdamW.
func (r *runner) trainWorkloads() (all []*workload) {
	add := func(name string, sequences, length int, peers ...string) {
		for _, s := range r.shapes(name) {
			all = append(all, r.train(s, sequences, length, peers...))
		}
	}
	add(Tiny, 16, 64, "pytorch")
	add(GPT2, 4, 64, "pytorch")
	if r.o.Full {
		add(SmolLM2, 4, 512, "pytorch")
		add(Qwen25, 1, 512)
	} else {
		add(SmolLM2, 1, 512, "pytorch")
	}
	return all
}

// trainer runs training steps on random sequences.
type trainer struct {
	m      *model.Model
	batch  model.Batch
	d      []float32 // of the mean cross-entropy by each log-prob
	losses []float64
	norms  []float64
}

// newTrainer makes sequences of random tokens, whose every token but the first is a
// target.
func newTrainer(e *env, m *model.Model, sequences, length int) *trainer {
	t := &trainer{m: m}
	for range sequences {
		x := e.tokens(length, m.Config().VocabSize)
		t.batch.Groups = append(t.batch.Groups, model.Group{Prompt: x[:1], Responses: [][]int32{x[1:]}})
	}
	return t
}

// tokens are all of the sequences in one.
func (t *trainer) tokens() (all []int32) {
	for _, g := range t.batch.Groups {
		all = append(append(all, g.Prompt...), g.Responses[0]...)
	}
	return all
}

// step is one update. norm says whether the gradient's norm is wanted, which the
// peers do not compute.
func (t *trainer) step(l *laps, norm bool) {
	ctx := context.Background()
	t.m.ZeroGrad()
	out, err := t.m.Forward(ctx, &t.batch)
	must(err)
	if t.d == nil {
		t.d = make([]float32, len(out.LogProbs))
		for i := range t.d {
			t.d[i] = -1 / float32(len(t.d))
		}
	}
	loss := 0.0
	for _, p := range out.LogProbs {
		loss -= float64(p) / float64(len(out.LogProbs))
	}
	t.losses = append(t.losses, loss)
	if l != nil {
		l.done("forward")
	}
	must(t.m.Backward(ctx, t.d, nil))
	if l != nil {
		l.done("backward")
	}
	if norm {
		n, err := t.m.GradNorm(ctx)
		must(err)
		t.norms = append(t.norms, n)
	}
	t.m.AdamWStep(model.AdamW{LR: 1e-5, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8})
	if l != nil {
		l.done("optimizer")
	}
}

// check demands that the first loss is near log V, which is what random weights
// know, and that the loss then falls.
func (t *trainer) check() string {
	first, last, v := t.losses[0], t.losses[len(t.losses)-1], math.Log(float64(t.m.Config().VocabSize))
	if !(math.Abs(first-v) < 0.1*v) || len(t.losses) > 1 && !(last < first) {
		fail("wrong result: the losses are %.4g, beginning near %.4g expected, and falling", t.losses, v)
	}
	return fmt.Sprintf("loss %.4f, near log V = %.4f, then %.4f", first, v, last)
}

// trainTolerance is the share by which a peer's losses and the norm of its first
// gradient may differ from ours.
const trainTolerance = 1e-3

func (r *runner) train(s Shape, sequences, length int, peers ...string) *workload {
	rows := sequences * (length - 1)
	flop := s.trainFLOP(float64(rows), float64(rows), float64(sequences)*causalPairs(0, length-1))
	// Weights are read forward and twice backward; AdamW reads four vectors and writes three.
	bytes := (3*r.weightBytes() + 28) * float64(s.Config.NumParameters())
	w := &workload{group: "train", shape: s.Name, name: fmt.Sprintf("step of %d × %d tokens", sequences, length), flop: flop, bytes: bytes, peers: r.tokenPeers(s, peers...)}
	w.setup = func(e *env) *subject {
		o := model.Options{Trainable: true, MaxRows: sequences * length, MaxContext: length, Weights: e.r.o.DType}
		m := e.modelOn(e.Backend, s, o) // anew: its losses are compared
		e.closers = append(e.closers, m.Close)
		t := newTrainer(e, m, sequences, length)
		tokens, asked := t.tokens(), len(w.peers) > 0 && len(e.r.o.Peers) > 0
		var dir, gguf string
		if asked {
			dir, gguf = e.r.modelFiles(s, m)
		}
		t.step(nil, true)
		sub := &subject{variants: []variant{{flop: flop, bytes: bytes, tokens: rows, whole: true, run: func(l *laps) { t.step(l, false) }}}}
		sub.check = func() string {
			line := t.check()
			if asked {
				sub.ask = e.modelAsk(s, m, tokens, map[string]any{"sequences": sequences, "length": length})
				sub.ask.params["model"], sub.ask.params["gguf"] = dir, gguf
				sub.ask.work = "train"
				sub.ask.compare = sameTraining(t.losses[0], t.norms[0], t.losses[1])
			}
			return line
		}
		return sub
	}
	return w
}

// sameTraining compares what a peer's training begins with: its first loss, the
// norm of its first gradient and, where it has taken another step, the loss after
// the first update.
func sameTraining(want ...float64) func([]float32) error {
	return func(got []float32) error {
		if len(got) < 2 {
			return fmt.Errorf("%d numbers, want a loss and a norm at least", len(got))
		}
		for i, what := range []string{"loss", "norm of the gradient", "loss after an update"} {
			if i >= len(got) {
				break
			}
			if !(math.Abs(float64(got[i])-want[i]) <= trainTolerance*math.Abs(want[i])) {
				return fmt.Errorf("its %s is %.6g, ours is %.6g: they may differ by %g of it", what, got[i], want[i], trainTolerance)
			}
		}
		return nil
	}
}
