package gapg

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
)

// scripted judges a response by its prompt alone: what its Gold says of every
// second response, and a plain wrong answer of the others.
type scripted struct{ toyTask }

func (scripted) Judge(_ context.Context, p Prompt, response string) (Verdict, error) {
	return p.Gold.(Verdict), nil
}

func scriptedPrompts(vs ...Verdict) []Prompt {
	out := toyPrompts(len(vs))
	for i, v := range vs {
		out[i].Gold = v
	}
	return out
}

func scriptedToy(t testing.TB, prompts []Prompt, config func(*Config), o toyOptions) *toy {
	o.plain = true
	o.config = func(c *Config) {
		c.PromptsPerStep, c.NumGenerations = len(prompts), 2
		// Every group has a gradient: the first response gets a little more.
		c.Reward = RewardFunc(func(ctx context.Context, g *Group, i int) (RewardParts, error) {
			p, err := PaperWeights().Reward(ctx, g, i)
			p.Other = 0.1 * float64(1-i)
			return p, err
		})
		if config != nil {
			config(c)
		}
	}
	o.setup = func(s *Setup) { s.Task, s.Prompts = scripted{}, prompts }
	return newToy(t, o)
}

func TestFilterThroughTrainer(t *testing.T) {
	share := func(n, d int64) func(*Config) { return func(c *Config) { c.Budget = Budget{n, d} } }
	for name, c := range map[string]struct {
		prompts         []Prompt
		config          func(*Config)
		d1, d2, d2kept  int
		kept            int
		skipped         bool
		prompted, calls int
	}{
		"a budget of 0 keeps D1 alone":      {scriptedPrompts(right, right, help, help, wrong), share(0, 1), 2, 2, 0, 2, false, 2, 2},
		"the zero budget too":               {scriptedPrompts(right, right, help, help, wrong), share(0, 0), 2, 2, 0, 2, false, 2, 2},
		"no D1: nothing to learn from":      {scriptedPrompts(help, help, help, wrong), share(9, 10), 0, 3, 0, 0, true, 3, 3},
		"D2 over the cap":                   {scriptedPrompts(right, right, right, help, help, help, help), share(3, 10), 3, 4, 1, 4, false, 4, 4},
		"the cap's floor":                   {scriptedPrompts(right, right, help, help), share(3, 10), 2, 2, 0, 2, false, 2, 2},
		"D2 within the cap":                 {scriptedPrompts(right, right, help), share(1, 2), 2, 1, 1, 3, false, 1, 1},
		"who does not ask is not asked for": {scriptedPrompts(right, wrong, wrong), share(1, 2), 1, 0, 0, 1, false, 0, 0},
		"all-fail": {scriptedPrompts(right, wrong, wrong, help), func(c *Config) {
			c.QueryCloud, c.Budget = "all-fail", Budget{2, 3}
		}, 1, 3, 2, 3, false, 3, 3},
		"nothing but wrong": {scriptedPrompts(wrong, wrong), share(1, 2), 0, 0, 0, 0, true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, temperature := range []float64{1, 0.8} {
				y := scriptedToy(t, c.prompts, func(g *Config) { c.config(g); g.Temperature = temperature }, toyOptions{})
				before := y.params(t, model.Weights)
				st := y.step(t)
				require.Equal(t, []int{c.d1, c.d2, c.d2kept, c.kept}, []int{st.D1, st.D2, st.D2Kept, st.Kept})
				require.Equal(t, c.skipped, st.Skipped)
				require.Equal(t, c.skipped, sameBits(before, y.params(t, model.Weights)))
				require.Equal(t, c.skipped, st.Metrics()["filter/skipped"] == 1)
				require.Equal(t, c.prompted, st.CloudPrompts)
				require.Equal(t, c.calls, st.CloudCalls)
				require.Equal(t, c.calls, y.cloud.total())
				require.Equal(t, 0.25*float64(c.calls), st.CloudCostUSD)
			}
		})
	}
}

// The cloud wrong on a prompt makes it no D2, and its askers get nothing.
func TestWrongCloud(t *testing.T) {
	y := scriptedToy(t, scriptedPrompts(right, help, help), nil, toyOptions{cloud: &toyCloud{answer: func(q cloud.Question) (string, error) {
		if strings.HasPrefix(q.Text, "b") {
			return "wrong", nil
		}
		return "right", nil
	}}})
	st := y.step(t)
	require.Equal(t, []int{1, 1, 1}, []int{st.D1, st.D2, st.D2Kept})
	require.InDelta(t, 0.5/3, st.Parts.Coordination, 1e-12)
	require.InDelta(t, 2.0/3, st.AccuracyOverall, 1e-12)
	require.InDelta(t, 1, st.AccuracyDevice, 1e-12)
	require.InDelta(t, 2.0/3, st.CloudRatio, 1e-12)
}

// A prompt is asked about once, over epochs, twice in one step, in a refilled
// step and by a second trainer on the same store.
func TestAskedOnceEver(t *testing.T) {
	prompts := scriptedPrompts(right, help, help)
	y := scriptedToy(t, prompts, func(c *Config) { c.PromptsPerStep = 8 }, toyOptions{})
	st := y.step(t)
	require.GreaterOrEqual(t, st.CloudPrompts, 4)
	require.Equal(t, 2, st.CloudCalls, "eight draws from three prompts, of which two ask")
	require.Equal(t, 0.5, st.CloudCostUSD)
	for range 3 {
		st = y.step(t)
		require.Zero(t, st.CloudCalls)
		require.Equal(t, 2, st.CloudCallsTotal)
	}
	require.Equal(t, map[string]int{prompts[1].ID: 1, prompts[2].ID: 1}, y.cloud.calls)

	z := scriptedToy(t, prompts, func(c *Config) {
		c.Algorithm, c.PromptsPerStep, c.MaxRefill = DAPO{}, 3, 3
		c.Reward = RewardFunc(func(context.Context, *Group, int) (RewardParts, error) { return RewardParts{}, nil })
	}, toyOptions{})
	st = z.step(t)
	require.Equal(t, 12, st.Groups)
	require.Equal(t, 2, st.CloudCalls)
	require.Equal(t, 2, z.cloud.total())

	again := scriptedToy(t, prompts, nil, toyOptions{store: y.store, cloud: y.cloud, seed: 9})
	again.step(t)
	require.Equal(t, 2, y.cloud.total())
}

// Without a cloud nobody is asked, and only a budget of 0 is accepted.
func TestNoCloud(t *testing.T) {
	y := newToy(t, toyOptions{config: func(c *Config) { c.Budget = Budget{}; c.QueryCloud = "all-fail" }, setup: func(s *Setup) { s.Cloud = nil }})
	require.Zero(t, y.step(t).CloudPrompts)
}

func TestConfigErrors(t *testing.T) {
	y := newToy(t, toyOptions{plain: true})
	for want, c := range map[string]Config{
		"alpha-c 2 must be below alpha-a 2": {Reward: Hierarchical{2, 2, 0.2}},
		"num-generations 1":                 {NumGenerations: 1},
		"cloud budget 1/1: outside [0, 1)":  {Budget: Budget{1, 1}},
		"cloud budget -1/2: outside [0, 1)": {Budget: Budget{-1, 2}},
		"cloud budget 1/0":                  {Budget: Budget{1, 0}},
		"prompts per step -1":               {PromptsPerStep: -1},
		"num-iterations -1":                 {NumIterations: -1},
		"max-completion-length -1":          {MaxCompletionLength: -1},
		"temperature -1":                    {Temperature: -1},
		"temperature NaN":                   {Temperature: nan()},
		"learning-rate NaN":                 {LearningRate: nan()},
		"warmup-steps -1":                   {WarmupSteps: -1},
		"adam-beta1 1":                      {AdamBeta1: 1},
		`query-cloud "always"`:              {QueryCloud: "always"},
		`lr-scheduler-type "step"`:          {LRScheduler: "step"},
		`kl-estimator "k4"`:                 {Loss: AlgConfig{KLEstimator: "k4"}},
		"a KL penalty needs a reference":    {Loss: AlgConfig{Beta: 0.1}},
		"judge timeout -1ns":                {JudgeTimeout: -1},
		"exceed the model's context of 64":  {MaxCompletionLength: 63},
	} {
		_, err := NewTrainer(c, y.tr.s)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "\n")
	}
	for want, change := range map[string]func(*Setup){
		"no prompts":                      func(s *Setup) { s.Prompts = nil },
		"(empty): empty":                  func(s *Setup) { s.Prompts = []Prompt{{ID: "empty"}} },
		"prompt 1 (odd)":                  func(s *Setup) { s.Prompts = []Prompt{{ID: "odd", Text: "é"}} },
		"no cloud to ask":                 func(s *Setup) { s.Cloud = nil },
		"a Model, a Tokenizer and a Task": func(s *Setup) { s.Task = nil },
	} {
		s := y.tr.s
		change(&s)
		_, err := NewTrainer(Config{Budget: Budget{1, 2}, MaxCompletionLength: 3}, s)
		require.ErrorContains(t, err, want)
	}
	frozen, err := y.m.Clone(bg, model.Options{})
	require.NoError(t, err)
	defer frozen.Close()
	s := y.tr.s
	s.Model = frozen
	_, err = NewTrainer(Config{MaxCompletionLength: 3}, s)
	require.ErrorContains(t, err, "not made trainable")
}
