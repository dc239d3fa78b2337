package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// prefillWorkloads compute a prompt from an empty cache.
func (r *runner) prefillWorkloads() (all []*workload) {
	names := []string{Tiny, SmolLM2}
	if r.o.Full {
		names = append(names, Qwen25)
	}
	for _, s := range r.shapes(names...) {
		all = append(all, r.prefill(s, 512))
	}
	return all
}

// decodeWorkloads are decode steps of batches whose rows each have a short prompt
// of their own.
func (r *runner) decodeWorkloads() (all []*workload) {
	names := []string{Tiny, SmolLM2}
	if r.o.Full {
		names = append(names, Qwen25)
	}
	for _, s := range r.shapes(names...) {
		for _, rows := range []int{1, 8, 32} {
			steps := 16
			if s.Name == Tiny {
				steps = 128
			}
			all = append(all, r.decode(s, rows, 16, steps))
		}
	}
	return all
}

// weightBytes is what a weight takes in memory.
func (r *runner) weightBytes() float64 { return float64(r.o.DType.Size()) }

// tokenPeers are those that run whole models; the largest shape is ours alone, and
// so are weights that they do not compute with.
func (r *runner) tokenPeers(s Shape, names ...string) []string {
	if s.Name == Qwen25 || r.o.DType != engine.F32 {
		return nil
	}
	return names
}

// generated is what a scheduler gave for one sequence.
type generated struct {
	tokens             []int32
	logProbs, entropys []float32
}

// submit asks a scheduler for one sample that ends by its length alone.
func submit(s *model.Scheduler, prompt []int32, index, length int, out *generated) {
	*out = generated{tokens: out.tokens[:0], logProbs: out.logProbs[:0], entropys: out.entropys[:0]}
	_, err := s.Submit(model.Request{Prompt: prompt, MaxNewTokens: length, PromptIndex: index, Seed: 3, StopTokens: []int32{},
		Sampling: model.Sampling{Temperature: 1}, OnToken: func(t model.Token) bool {
			out.tokens, out.logProbs, out.entropys = append(out.tokens, t.ID), append(out.logProbs, t.LogProb), append(out.entropys, t.Entropy)
			return true
		}})
	must(err)
}

func (r *runner) prefill(s Shape, length int) *workload {
	flop, bytes := s.forwardFLOP(float64(length), 1, causalPairs(0, length)), r.weightBytes()*(s.body()+s.head())
	w := &workload{group: "prefill", shape: s.Name, name: fmt.Sprintf("prompt of %d tokens", length), flop: flop, bytes: bytes, peers: r.tokenPeers(s, "pytorch", "llamacpp")}
	w.setup = func(e *env) *subject {
		ctx := context.Background()
		m := e.model(s, model.Options{MaxContext: length + 1})
		sched, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: 1, MaxTokens: length + 1})
		must(err)
		e.closers = append(e.closers, sched.Close)
		prompt := e.tokens(length, s.Config.VocabSize)
		var out generated
		// All rows but the prompt's last are packed; that one is a decode step, which
		// gives the logits.
		run := func(*laps) {
			submit(sched, prompt, 0, 1, &out)
			must(sched.Run(ctx))
		}
		sub := &subject{variants: []variant{{flop: flop, bytes: bytes, tokens: length, whole: true, run: run}}}
		sub.check = func() string {
			line := checkGenerated([]generated{out}, 1, s.Config.VocabSize)
			if len(w.peers) > 0 && len(e.r.o.Peers) > 0 {
				sub.ask = e.modelAsk(s, m, prompt, map[string]any{"length": length})
				sub.ask.work, sub.ask.length = "prefill", s.Config.VocabSize
				token, logProb, entropy := out.tokens[0], out.logProbs[0], out.entropys[0]
				sub.ask.compare = func(got []float32) error { return sameDistribution(got, token, logProb, entropy) }
			}
			return line
		}
		return sub
	}
	return w
}

// batchFigure names the number of sequences of a decode step.
const batchFigure = "sequences"

func (r *runner) decode(s Shape, rows, prompt, steps int) *workload {
	var pairs, flop, bytes float64 // of all steps: a row's first timed step sees its prompt and a token
	for i := range steps {
		pairs += float64(rows * (prompt + i + 1))
	}
	flop = s.forwardFLOP(float64(rows*steps), float64(rows*steps), pairs)
	weights := r.weightBytes() * (s.body() + s.head())
	bytes = float64(steps)*weights + pairs*s.cacheBytes()
	w := &workload{group: "decode", shape: s.Name, name: fmt.Sprintf("B=%d, %d + %d tokens", rows, prompt, steps), flop: flop, bytes: bytes, set: weights,
		peers: r.tokenPeers(s, "pytorch", "llamacpp")}
	w.setup = func(e *env) *subject {
		ctx := context.Background()
		m := e.model(s, model.Options{MaxContext: 513})
		total := prompt + steps + 1
		sched, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: rows, MaxTokens: total, PrefillRows: max(rows*prompt, total)})
		must(err)
		e.closers = append(e.closers, sched.Close)
		prompts, out := make([][]int32, rows), make([]generated, rows)
		for i := range prompts {
			prompts[i] = e.tokens(prompt, s.Config.VocabSize)
		}
		step := func() bool {
			more, err := sched.Step(ctx)
			must(err)
			return more
		}
		before := func() { // the prompts, and the first token of each
			for i := range out {
				submit(sched, prompts[i], i, steps+1, &out[i])
			}
			step()
			for i := range out {
				if len(out[i].tokens) != 1 {
					fail("row %d has %d tokens after the prompts' step: not all were there", i, len(out[i].tokens))
				}
			}
		}
		run := func(*laps) {
			for i := range steps {
				if more := step(); more != (i < steps-1) {
					fail("the batch ended at step %d of %d, or did not", i+1, steps)
				}
			}
		}
		sub := &subject{variants: []variant{{flop: flop, bytes: bytes, tokens: rows * steps, whole: true, before: before, run: run}}}
		sub.figures = func([]*Row) []Figure { return []Figure{{batchFigure, float64(rows), ""}} }
		sub.check = func() string {
			line := checkGenerated(out, steps+1, s.Config.VocabSize)
			if len(w.peers) > 0 && len(e.r.o.Peers) > 0 {
				sub.ask = e.decodeAsk(s, m, prompts, out, steps)
			}
			return line
		}
		return sub
	}
	return w
}

// decodeAsk gives peers the tokens that we drew, so that all compute the same.
func (e *env) decodeAsk(s Shape, m *model.Model, prompts [][]int32, out []generated, steps int) *ask {
	var tokens, last []int32
	var logProbs, entropies []float32
	for i, p := range prompts {
		tokens = append(append(tokens, p...), out[i].tokens[:steps]...)
		last = append(last, out[i].tokens[steps])
		logProbs, entropies = append(logProbs, out[i].logProbs[steps]), append(entropies, out[i].entropys[steps])
	}
	v := s.Config.VocabSize
	a := e.modelAsk(s, m, tokens, map[string]any{"batch": len(prompts), "prompt": len(prompts[0]), "new": steps})
	a.work, a.length = "decode", len(prompts)*v
	a.compare = func(got []float32) error {
		for i := range last {
			if err := sameDistribution(got[i*v:(i+1)*v], last[i], logProbs[i], entropies[i]); err != nil {
				return fmt.Errorf("row %d: %w", i, err)
			}
		}
		return nil
	}
	return a
}

// checkGenerated demands so many tokens of each sequence, and log-probs and
// entropies that a distribution over the vocabulary has.
func checkGenerated(out []generated, length, vocabulary int) string {
	n, most := 0, math.Log(float64(vocabulary))*(1+1e-5)
	for i, g := range out {
		if len(g.tokens) != length {
			fail("wrong result: sequence %d has %d tokens, want %d", i, len(g.tokens), length)
		}
		for j, id := range g.tokens {
			p, h := float64(g.logProbs[j]), float64(g.entropys[j])
			if !(p <= 0 && p > -1e3 && h >= 0 && h <= most) || id < 0 || int(id) >= vocabulary {
				fail("wrong result: token %d with log-prob %v, entropy %v", id, p, h)
			}
			n++
		}
	}
	return fmt.Sprintf("%d tokens", n)
}

// modelAsk writes a model and tokens for peers. A shape's files stay until the run
// ends.
func (e *env) modelAsk(s Shape, m *model.Model, tokens []int32, params map[string]any) *ask {
	dir, err := os.MkdirTemp(e.r.temp, "tokens-")
	must(err)
	file := filepath.Join(dir, "tokens.i32")
	writeInts(file, tokens)
	params["model"], params["gguf"] = e.r.modelFiles(s, m)
	params["tokens"] = file
	return &ask{dir: dir, params: params, whole: true}
}

// modelFiles saves a model's weights in both formats that peers read, once for each
// shape: all models of a shape begin with the same weights.
func (r *runner) modelFiles(s Shape, m *model.Model) (dir, gguf string) {
	dir = filepath.Join(r.temp, s.Name)
	gguf = filepath.Join(dir, "model.gguf")
	if _, err := os.Stat(gguf); err == nil {
		return dir, gguf
	}
	if m.StepCount() > 0 {
		must(errors.New("the weights have been trained: they are not those that peers begin with"))
	}
	ctx := context.Background()
	must(os.MkdirAll(dir, 0o755))
	must(m.Save(ctx, dir))
	must(m.SaveGGUF(ctx, gguf, "F32", placeholderVocabulary(s.Config.VocabSize)))
	return dir, gguf
}

// placeholderVocabulary is a vocabulary of numbers: llama.cpp loads no file without
// one.
func placeholderVocabulary(n int) []checkpoint.GGUFValue {
	tokens, types := make([]string, n), make([]int32, n)
	for i := range tokens {
		tokens[i], types[i] = fmt.Sprintf("t%d", i), 1
	}
	return []checkpoint.GGUFValue{
		{Key: "tokenizer.ggml.model", Value: "gpt2"}, {Key: "tokenizer.ggml.pre", Value: "gpt-2"}, {Key: "tokenizer.ggml.tokens", Value: tokens},
		{Key: "tokenizer.ggml.token_type", Value: types}, {Key: "tokenizer.ggml.merges", Value: []string{"t 0"}},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(0)}, {Key: "tokenizer.ggml.eos_token_id", Value: uint32(n - 1)},
	}
}
