package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// GAPGStep says how large a whole training step is, from the prompts to the updated
// weights.
type GAPGStep struct {
	Prompts    int
	Group      int // responses to each prompt
	Length     int // tokens of a prompt
	Completion int // tokens of a response
}

// judgeAll is a task whose every answer is right.
type judgeAll struct{}

func (judgeAll) Name() string { return "bench" }
func (judgeAll) Judge(context.Context, gapg.Prompt, string) (gapg.Verdict, error) {
	return gapg.Verdict{Correct: true, Format: true}, nil
}
func (judgeAll) JudgeCloud(context.Context, gapg.Prompt, string) (bool, error) { return false, nil }

// everySecond rewards every second response of a group, so that each has a weight.
func everySecond(_ context.Context, _ *gapg.Group, i int) (gapg.RewardParts, error) {
	return gapg.RewardParts{Accuracy: float64(i % 2)}, nil
}

// NewTrainer returns a trainer whose steps are of this size: random prompts, no
// token that ends a response, every response with a weight, no cloud. The model's
// vocabulary needs 26 tokens.
func (s GAPGStep) NewTrainer(m *model.Model, rng *rand.Rand) (*gapg.Trainer, error) {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	tok, err := tokenizer.NewCharacter(letters, nil)
	if err != nil {
		return nil, err
	}
	var all []gapg.Prompt
	for i := range s.Prompts {
		var text strings.Builder
		for range s.Length {
			text.WriteByte(letters[rng.IntN(len(letters))])
		}
		all = append(all, gapg.Prompt{ID: fmt.Sprint(i), Text: text.String()})
	}
	return gapg.NewTrainer(gapg.Config{Reward: gapg.RewardFunc(everySecond), NumGenerations: s.Group, PromptsPerStep: s.Prompts,
		MaxCompletionLength: s.Completion, LearningRate: 1e-6, JudgeTimeout: time.Minute},
		gapg.Setup{Model: m, Tokenizer: tok, Task: judgeAll{}, Prompts: all, EndToken: -1})
}

// Check returns an error where a step was not what it should be: a part of it left
// out, or log-probs of the rollout that are not those of the training forward.
func (s GAPGStep) Check(st *gapg.StepStats) error {
	switch {
	case st.MaxLogpDifference != 0:
		return fmt.Errorf("the log-probs of the rollout and of the forward differ by up to %v", st.MaxLogpDifference)
	case st.Skipped || st.RolloutTokens != s.Prompts*s.Group*s.Completion:
		return errors.New("the step was skipped or short")
	}
	return nil
}

// gapgWorkloads are whole steps of the method.
func (r *runner) gapgWorkloads() (all []*workload) {
	for _, s := range r.shapes(Tiny) {
		all = append(all, r.gapg(s, GAPGStep{32, 8, 24, 40}))
	}
	if r.o.Full {
		for _, s := range r.shapes(SmolLM2) {
			all = append(all, r.gapg(s, GAPGStep{2, 8, 128, 64}))
		}
	}
	return all
}

func (r *runner) gapg(s Shape, g GAPGStep) *workload {
	responses := float64(g.Prompts * g.Group)
	tokens := responses * float64(g.Completion)
	rows := tokens + float64(g.Prompts*(g.Length-1))
	pairs := float64(g.Prompts)*causalPairs(0, g.Length-1) + responses*causalPairs(g.Length-1, g.Completion)
	// The rollout computes prompts and tokens once, the check of its log-probs once
	// more, and the update three times.
	flop := 5 * s.forwardFLOP(rows, tokens, pairs)
	bytes := (float64(g.Completion)*r.weightBytes() + 40) * (s.body() + s.head())
	w := &workload{group: "gapg", shape: s.Name, name: fmt.Sprintf("step of %d prompts × %d, %d + %d tokens", g.Prompts, g.Group, g.Length, g.Completion), flop: flop, bytes: bytes}
	w.setup = func(e *env) *subject {
		total := g.Length + g.Completion
		m := e.modelOn(e.Backend, s, model.Options{Trainable: true, MaxRows: max(4096, 2*total), MaxContext: total, Weights: e.r.o.DType})
		e.closers = append(e.closers, m.Close)
		t, err := g.NewTrainer(m, e.rng)
		must(err)
		e.closers = append(e.closers, t.Close)
		run := func(l *laps) {
			st, err := t.Step(context.Background())
			must(err)
			must(g.Check(st))
			if l == nil {
				return
			}
			l.add("rollout", st.RolloutTime)
			l.add("rewards", st.CloudTime)
			l.add("forward", st.ForwardTime)
			l.add("backward", st.BackwardTime)
			l.add("optimizer", st.OptimizerTime)
		}
		return &subject{variants: []variant{{flop: flop, bytes: bytes, tokens: int(tokens), whole: true, run: run}},
			check: func() string { return "log-probs of rollout and training equal to the bit" }}
	}
	return w
}
