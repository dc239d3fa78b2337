package gapg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
)

// parityTask is a task that a random model solves now and then: a response is
// right if it has an even number of characters, kept in format if it does not
// begin with a digit.
type parityTask struct{}

func (parityTask) Name() string { return "parity" }

func (parityTask) Judge(_ context.Context, p Prompt, response string) (Verdict, error) {
	if strings.Contains(p.ID, "broken") {
		return Verdict{}, errors.New("a scorer that is down")
	}
	if strings.HasSuffix(response, Marker) {
		return Verdict{Help: true}, nil
	}
	return Verdict{Correct: len(response)%2 == 0, Format: response != "" && response[0] > '9', Answer: response}, nil
}

func (parityTask) JudgeCloud(_ context.Context, _ Prompt, answer string) (bool, error) {
	return answer == "right", nil
}

func (parityTask) PromptFeatures(p Prompt) []float64 { return []float64{float64(len(p.Text))} }

func (parityTask) SelfCheck(_ Prompt, response string) bool { return strings.Contains(response, "x") }

// testDesk answers rightly seven times in eight, by a hash of the ID.
type testDesk struct {
	mu    sync.Mutex
	calls int
}

func (d *testDesk) AnswerAll(_ context.Context, _ int, questions []cloud.Question) ([]cloud.Result, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]cloud.Result, len(questions))
	for i, q := range questions {
		d.calls++
		out[i].Answer = cloud.Answer{Text: "right", CostUSD: 0.001}
		if hash64("cloud", q.ID)%8 == 0 {
			out[i].Answer.Text = "wrong"
		}
		if strings.Contains(q.ID, "silent") {
			out[i] = cloud.Result{Err: errors.New("no answer")}
		}
	}
	return out, nil
}

func testPrompts(kind string, n int) []Prompt {
	out := make([]Prompt, n)
	for i := range out {
		out[i] = Prompt{ID: fmt.Sprintf("%s %d", kind, i), Text: fmt.Sprintf("%d+%d=", i*7%31, i)}
	}
	return out
}

func newBackend(t testing.TB) engine.Backend {
	be, err := cpu.New(cpu.Options{Threads: 2})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, be.Close()) })
	return be
}

func testExperiment(t testing.TB, seed uint64) Experiment {
	tok, be := testTokenizer(t), newBackend(t)
	id := func(token string) int32 {
		n, ok := tok.ID(token)
		require.True(t, ok, token)
		return n
	}
	cfg := model.Config{ModelType: "llama", HiddenSize: 32, IntermediateSize: 48, NumHiddenLayers: 2, NumAttentionHeads: 2, NumKeyValueHeads: 1,
		HeadDim: 16, VocabSize: tok.Size(), MaxPositionEmbeddings: 64, TieWordEmbeddings: true, RMSNormEps: 1e-5, RopeTheta: 10000,
		InitializerRange: 0.3, EOSTokenID: model.TokenIDs{id("<end>")}}
	var after []int32
	for _, c := range "0123456789+-=abc" {
		after = append(after, id(string(c)))
	}
	return Experiment{
		Open: func(context.Context) (*model.Model, error) {
			return model.New(be, cfg, 7, model.Options{Trainable: true, MaxRows: 256})
		},
		Task: parityTask{}, Tokenizer: tok, Cloud: &testDesk{}, Budget: Budget{3, 10}, Seed: seed,
		Train: testPrompts("train", 40), Validation: testPrompts("validation", 60), Test: testPrompts("test", 80),
		Methods:  AllMethods(),
		Config:   Config{MaxSteps: 2, PromptsPerStep: 4, NumGenerations: 4, MaxCompletionLength: 14, LearningRate: 1e-3},
		EndToken: id("<end>"), Marker: []int32{id(Marker)}, MarkerAfter: after, Resamples: 200,
	}
}

// The whole of it on a very small model: every method, figures that add up,
// the records' shortcut against really generating, twice the same.
func TestExperiment(t *testing.T) {
	e := testExperiment(t, 5)
	// Two prompts that cannot be resolved count nowhere.
	e.Test[3].ID, e.Validation[4].ID = "test silent", "validation broken"
	var seen []string
	steps := map[string]int{}
	e.OnProgress = func(p Progress) {
		require.LessOrEqual(t, p.Step, p.Of)
		if key := p.Phase + " " + p.Method; len(seen) == 0 || seen[len(seen)-1] != key {
			seen = append(seen, key)
		}
	}
	e.OnStep = func(method string, st *StepStats) { steps[method]++ }
	res, err := e.Run(t.Context())
	require.NoError(t, err)

	require.Equal(t, []string{"cloud ", "evaluate base", "train task-tuning", "evaluate task-tuning", "train gapg", "evaluate gapg",
		"train collaboration-aware", "evaluate collaboration-aware", "train da-grpo", "evaluate da-grpo", "compare "}, seen)
	require.Equal(t, map[string]int{"task-tuning": 2, "gapg": 2, "collaboration-aware": 2, "da-grpo": 2}, steps)
	require.Zero(t, res.ShortcutMismatches, "the records tell what generating at the bias gives")
	require.Equal(t, 79, res.TestPrompts)
	require.Equal(t, 59, res.ValidationPrompts)
	require.Equal(t, 1, res.Unresolved)
	require.Equal(t, "task-tuning", res.Weak)

	var names []string
	for _, m := range res.Methods {
		names = append(names, m.Name)
		d := res.Details[m.Name]
		require.Len(t, d.Predictions, 79)
		right, calls, device := 0, 0, 0
		for _, p := range d.Predictions {
			right += count(p.Correct)
			calls += count(p.Asked)
			device += count(p.DeviceCorrect)
			require.False(t, p.Asked && p.Denied)
			if p.Asked {
				require.Equal(t, p.CloudCorrect, p.Answer == "right")
			} else if m.Name != MethodCloud {
				require.Equal(t, p.DeviceCorrect, p.Correct)
			}
		}
		require.InDelta(t, float64(right)/79, m.OverallAccuracy, 1e-12, m.Name)
		require.InDelta(t, float64(calls)/79, m.CloudRatio, 1e-12, m.Name)
		require.True(t, m.CI95[0] <= m.OverallAccuracy && m.OverallAccuracy <= m.CI95[1], m.Name)
		if m.Name != MethodCloud {
			require.LessOrEqual(t, m.CloudRatio, 0.3, m.Name)
			require.InDelta(t, float64(device)/79, *m.SoloAccuracy, 1e-12, m.Name)
		}
		if m.Name != MethodGAPG {
			require.NotNil(t, m.Difference, m.Name)
		}
	}
	require.Equal(t, AllMethods(), names)
	require.Zero(t, *res.Method(MethodTaskTuning).PGR)
	require.Equal(t, 1., *res.Method(MethodCloud).PGR)
	for _, name := range []string{MethodNaive, MethodRouter, MethodConfidence, MethodSelfCheck} {
		require.LessOrEqual(t, res.Method(name).OverallAccuracy, res.Method(MethodOracle).OverallAccuracy)
		require.LessOrEqual(t, *res.Method(name).APGR, *res.Method(MethodOracle).APGR)
	}
	require.NotNil(t, res.Method(MethodGAPG).NaturalCloudRatio)
	require.Positive(t, res.Method(MethodGAPG).CloudRatio, "or the test shows nothing")
	require.NotEmpty(t, res.Router)
	require.NotEmpty(t, res.Confidence)
	require.Len(t, res.Comparisons, 11)

	require.Len(t, res.Trainings, 4)
	for i := range res.Trainings {
		tr := &res.Trainings[i]
		require.Zero(t, tr.MaxLogpDifference)
		require.Len(t, tr.Stats, 2)
		require.Positive(t, tr.RolloutTokens)
		require.Len(t, tr.Metrics().Records, 2)
	}
	require.Zero(t, res.Training(MethodTaskTuning).CloudCalls, "task tuning asks nobody")

	require.Len(t, res.Transcripts, 10)
	kinds := map[report.TranscriptKind]int{}
	for _, s := range res.Transcripts {
		kinds[s.Kind]++
		require.Equal(t, s.Asked, s.Cloud != "")
		require.Equal(t, s.Asked, strings.HasSuffix(s.Response, Marker))
	}
	require.GreaterOrEqual(t, len(kinds), 3)

	d := res.Report()
	require.NotEmpty(t, d.Training)
	require.Len(t, d.BudgetCurves, 9, "all but base, task-tuning and cloud")
	requireSummary(t, res)

	again, err := func() (*Result, error) {
		f := testExperiment(t, 5)
		f.Test, f.Validation = e.Test, e.Validation
		return f.Run(t.Context())
	}()
	require.NoError(t, err)
	require.Equal(t, res.Methods, again.Methods)
	require.Equal(t, res.Curves, again.Curves)
	require.Equal(t, res.Transcripts, again.Transcripts)
	for name, d := range res.Details {
		require.Equal(t, d.Predictions, again.Details[name].Predictions, name)
	}
}

// requireSummary checks the JSON that scripts read.
func requireSummary(t *testing.T, res *Result) {
	data, err := json.Marshal(res.Summary())
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, json.Unmarshal(data, &got))
	for _, key := range []string{"task", "seed", "budget", "test_prompts", "seconds", "methods", "train"} {
		require.Contains(t, got, key)
	}
	require.Equal(t, 0.3, got["budget"])
	require.Equal(t, 79., got["test_prompts"])
	for _, m := range got["methods"].([]any) {
		for _, key := range []string{"name", "overall_accuracy", "device_accuracy", "solo_accuracy", "cloud_ratio", "pgr", "apgr", "help_precision", "help_recall", "ci95"} {
			require.Contains(t, m, key)
		}
	}
	train := got["train"].(map[string]any)
	require.Equal(t, 2., train["steps"])
	require.Equal(t, float64(res.Training(MethodGAPG).CloudCalls), train["training_cloud_calls"])
	require.Equal(t, 0., train["max_logp_difference"])
	require.Positive(t, train["rollout_tokens_per_second"])
	require.Positive(t, train["train_tokens_per_second"])
}

// Given models are compared and not trained, and no base is needed for them.
func TestExperimentOnTrainedModels(t *testing.T) {
	e := testExperiment(t, 5)
	e.Trained = map[string]OpenModel{MethodGAPG: e.Open, MethodTaskTuning: e.Open}
	e.Open = nil
	e.Methods = []string{MethodGAPG, MethodTaskTuning, MethodConfidence, MethodCloud}
	e.OnStep = func(string, *StepStats) { t.Fatal("nothing is to be trained") }
	desk := &testDesk{}
	e.Cloud = desk
	res, err := e.Run(t.Context())
	require.NoError(t, err)
	require.Equal(t, 140, desk.calls, "each prompt once")
	require.Len(t, res.Methods, 4)
	require.Empty(t, res.Trainings)
	require.Equal(t, *res.Method(MethodGAPG).SoloAccuracy, *res.Method(MethodTaskTuning).SoloAccuracy, "the same model")
	data, err := json.Marshal(res.Summary())
	require.NoError(t, err)
	require.NotContains(t, string(data), "NaN")
}

// At every bias the records tell what the scheduler generates, whether the marker is
// one token or several, which the length may cut off.
func TestShortcutAtManyBiases(t *testing.T) {
	e := testExperiment(t, 1)
	one := e.Marker
	think, ok := e.Tokenizer.ID("<think>")
	require.True(t, ok)
	for _, length := range []int{1, 2, 6} {
		e.Marker = append(slices.Repeat([]int32{think}, length-1), one...)
		t.Run(fmt.Sprintf("%d tokens", length), func(t *testing.T) { shortcutAtManyBiases(t, &e) })
	}
}

func shortcutAtManyBiases(t *testing.T, e *Experiment) {
	m, err := e.Open(t.Context())
	require.NoError(t, err)
	defer m.Close()
	ev := Evaluator{Tokenizer: e.Tokenizer, Task: e.Task, EndToken: e.EndToken, Marker: e.Marker, MarkerAfter: e.MarkerAfter, MaxNewTokens: 14, MaxBatch: 16}
	records, err := ev.Run(t.Context(), m, e.Test)
	require.NoError(t, err)
	tokens, err := EncodePrompts(e.Tokenizer, e.Test, 64, 14)
	require.NoError(t, err)
	answers := make([]CloudOutcome, len(records))
	o := Outcomes(records, answers)
	asking := map[int]bool{}
	for _, b := range []Budget{{0, 1}, {1, 20}, {3, 10}, {6, 10}, {99, 100}} {
		for i := range o {
			o[i].Device, o[i].Cloud = false, true // every call gains: the whole budget is used
		}
		c := Calibrate(o, b, 0)
		got, err := ev.generate(t.Context(), m, e.Test, tokens, -c.Threshold)
		require.NoError(t, err)
		for i := range o {
			o[i].TokensBeforeCall, _ = records[i].AsksAt(-c.Threshold)
		}
		want := wants(o, c.Threshold)
		asking[int(math.Round(c.Share*80))] = true
		require.Zero(t, mismatches(Measured{Test: records, Generated: got}, o, want), "budget %v", b)
	}
	require.GreaterOrEqual(t, len(asking), 4, "the biases really differ: %v", asking)
}

func TestExperimentRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(e *Experiment)
		want   string
	}{
		"method":     {func(e *Experiment) { e.Methods = []string{"magic"} }, "unknown"},
		"no cloud":   {func(e *Experiment) { e.Cloud = nil }, "cloud"},
		"no test":    {func(e *Experiment) { e.Test = nil }, "test prompts"},
		"validation": {func(e *Experiment) { e.Validation = nil }, "validation prompts"},
		"no base":    {func(e *Experiment) { e.Open = nil }, "base model"},
		"no marker":  {func(e *Experiment) { e.Marker = nil }, "marker"},
		"steps": {func(e *Experiment) {
			c := e.Config
			c.MaxSteps = 3
			e.Configs = map[string]Config{MethodGAPG: c}
		}, "same number"},
		"settings": {func(e *Experiment) { e.Config.NumGenerations = 1 }, "num-generations"},
		"weights":  {func(e *Experiment) { e.Config.Reward = Hierarchical{1, 2, 0} }, "alpha-c"},
		"context":  {func(e *Experiment) { e.MaxNewTokens = 100 }, "context"},
	} {
		e := testExperiment(t, 1)
		c.change(&e)
		_, err := e.Run(t.Context())
		require.ErrorContains(t, err, c.want, name)
	}
	e := testExperiment(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	e.OnStep = func(string, *StepStats) { cancel() }
	_, err := e.Run(ctx)
	require.ErrorIs(t, err, context.Canceled)
}

// What each method trains with.
func TestExperimentConfigs(t *testing.T) {
	e := testExperiment(t, 9)
	e.Config.Reward = Hierarchical{3, 1, 0.5}
	e.Configs = map[string]Config{MethodDAGRPO: {MaxSteps: 2, LearningRate: 5}}
	r, err := newExperimentRun(e)
	require.NoError(t, err)
	c := r.config(MethodTaskTuning)
	require.Equal(t, AccuracyOnly{3, 0.5}, c.Reward)
	require.Equal(t, GAPG{NoFilter: true}, c.Algorithm)
	require.Equal(t, Budget{}, c.Budget)
	require.EqualValues(t, 9, c.Seed)
	for method, algorithm := range map[string]string{MethodGAPG: "gapg", MethodCollaborationAware: "dr-grpo", MethodDAGRPO: "da-grpo"} {
		c := r.config(method)
		require.Equal(t, algorithm, c.Algorithm.Name())
		require.Equal(t, Hierarchical{3, 1, 0.5}, c.Reward)
		require.Equal(t, e.Budget, c.Budget)
	}
	require.Equal(t, 5., r.config(MethodDAGRPO).LearningRate)
	require.True(t, slices.Equal(DefaultMethods(), slices.DeleteFunc(AllMethods(), func(m string) bool {
		return m == MethodCollaborationAware || m == MethodDAGRPO
	})))
}
