package gapg

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
)

func allAlgorithms() []Algorithm {
	return []Algorithm{GAPG{}, GAPG{NoFilter: true, Std: true, PerBatch: true}, NewDAGRPO(), GRPO{}, DrGRPO{}, RLOO{}, DAPO{}}
}

// Every algorithm makes finite updates, and the log-probs of rollouts are those
// of the training forward to the bit, whatever the settings.
func TestAlgorithmsTrain(t *testing.T) {
	variants := map[string]toyOptions{
		"plain":       {},
		"temperature": {config: func(c *Config) { c.Temperature, c.TopK = 0.7, 9 }},
		"iterations":  {config: func(c *Config) { c.NumIterations = 2 }},
		"both":        {config: func(c *Config) { c.NumIterations, c.Temperature = 2, 1.3 }, maxRows: 9},
		"small parts": {maxRows: 6},
	}
	for name, o := range variants {
		for _, a := range allAlgorithms() {
			t.Run(fmt.Sprintf("%s/%s", name, a.Name()), func(t *testing.T) {
				o := o
				inner := o.config
				o.config = func(c *Config) {
					c.Algorithm, c.PromptsPerStep, c.NumGenerations = a, 8, 6
					if inner != nil {
						inner(c)
					}
				}
				y := newToy(t, o)
				updates := 0
				for step := range 5 {
					before := y.params(t, model.Weights)
					st := y.step(t)
					require.Equal(t, step+1, st.Step)
					require.Zero(t, st.MaxLogpDifference)
					require.True(t, isFinite(st.Loss) && isFinite(st.GradNorm) && isFinite(st.Entropy) && isFinite(st.Reward))
					require.Equal(t, st.Skipped, sameBits(before, y.params(t, model.Weights)), "a step updates or says that it skipped")
					if !st.Skipped {
						updates++
						require.Positive(t, st.GradNorm)
						require.Positive(t, st.TrainTokens)
					}
				}
				require.Greater(t, updates, 2)
				require.Equal(t, updates*y.tr.cfg.NumIterations, y.m.StepCount())
			})
		}
	}
}

// A KL penalty pulls toward the reference and its estimate is logged.
func TestReferenceModel(t *testing.T) {
	for _, est := range []string{"k1", "k2", "k3"} {
		var ref *model.Model
		y := newToy(t, toyOptions{plain: true, maxRows: 11,
			config: func(c *Config) {
				c.Algorithm, c.Loss.Beta, c.Loss.KLEstimator, c.NumIterations, c.Temperature = GRPO{}, 0.1, est, 2, 0.8
			},
			setup: func(s *Setup) {
				var err error
				ref, err = s.Model.Clone(bg, model.Options{MaxRows: 40})
				require.NoError(t, err)
				s.Reference = ref
			}})
		before := map[string][]float32{}
		for _, p := range ref.Params() {
			before[p.Name], _ = ref.ReadParam(bg, model.Weights, p.Name)
		}
		for i := range 4 {
			st := y.step(t)
			require.Zero(t, st.MaxLogpDifference)
			require.True(t, isFinite(st.KL))
			if i > 0 {
				require.NotZero(t, st.KL)
			}
		}
		after := map[string][]float32{}
		for _, p := range ref.Params() {
			after[p.Name], _ = ref.ReadParam(bg, model.Weights, p.Name)
		}
		require.True(t, sameBits(before, after), "the reference does not change")
		require.NoError(t, ref.Close())
	}
	// With no reward to gain, the penalty alone brings a policy back.
	var ref *model.Model
	y := newToy(t, toyOptions{plain: true,
		config: func(c *Config) {
			c.Algorithm, c.Loss.Beta, c.Reward, c.LearningRate = GRPO{}, 1, RewardFunc(func(_ context.Context, _ *Group, _ int) (RewardParts, error) { return RewardParts{}, nil }), 3e-3
			c.PromptsPerStep, c.NumGenerations = 10, 16
		},
		setup: func(s *Setup) {
			var err error
			ref, err = model.New(s.Model.Backend(), toyConfig(16), 77, model.Options{MaxRows: 512})
			require.NoError(t, err)
			s.Reference = ref
		}})
	first := y.step(t).KL
	var last float64
	for range 60 {
		last = y.step(t).KL
	}
	require.Greater(t, first, 0.0)
	require.Less(t, last, first/2)
	require.NoError(t, ref.Close())
}

// With adapters the frozen weights are the reference, and a second copy of them
// changes nothing.
func TestAdaptersNeedNoReference(t *testing.T) {
	train := func(copied bool) (kl []float64, weights map[string][]float32) {
		y := newToy(t, toyOptions{plain: true, maxRows: 40, types: model.Options{LoRA: &model.LoRA{R: 2, TargetModules: []string{model.AllLinear}}},
			config: func(c *Config) { c.Algorithm, c.Loss.Beta, c.NumIterations = GRPO{}, 0.1, 2 },
			setup: func(s *Setup) {
				if copied {
					var err error
					s.Reference, err = s.Model.Clone(bg, model.Options{MaxRows: 40})
					require.NoError(t, err)
				}
			}})
		if copied {
			defer y.tr.s.Reference.Close()
		}
		for range 4 {
			st := y.step(t)
			require.Zero(t, st.MaxLogpDifference)
			kl = append(kl, st.KL)
		}
		return kl, y.params(t, model.Weights)
	}
	kl, weights := train(false)
	require.NotZero(t, kl[3])
	kl2, weights2 := train(true)
	require.Equal(t, kl2, kl)
	require.True(t, sameBits(weights, weights2))
}

// flaw carries out recorded programs operation by operation, so that a defect
// can be put in the decoder as well as in the training forward.
type flaw struct {
	engine.Backend
	decode, attention, logprob bool
}

type replay struct{ build func() }

func (replay) Ops() int { return 1 }

func (f *flaw) Record(build func()) engine.Program { return replay{build} }
func (f *flaw) Run(p engine.Program)               { p.(replay).build() }

func (f *flaw) nudge(x engine.Tensor) {
	one := engine.Vector(x.Buf, x.Off, 1)
	v := make([]float32, 1)
	if err := f.Wait(f.DownloadF32(v, one)); err != nil {
		panic(err)
	}
	v[0] = math.Nextafter32(v[0], float32(math.Inf(1)))
	f.UploadF32(one, v)
}

func (f *flaw) DecodeAttention(a engine.DecodeAttentionArgs) {
	f.Backend.DecodeAttention(a)
	if f.decode {
		f.nudge(a.O)
	}
}

func (f *flaw) Attention(a engine.AttentionArgs) {
	f.Backend.Attention(a)
	if f.attention && a.LSE.Valid() { // where a backward follows: training
		f.nudge(a.O.RowRange(a.O.Rows-1, a.O.Rows))
	}
}

func (f *flaw) LogProb(a engine.LogProbArgs) {
	f.Backend.LogProb(a)
	if f.logprob {
		f.nudge(a.LogProb)
	}
}

// One ulp in one element of either path is seen.
func TestOneUlpTrips(t *testing.T) {
	for name, c := range map[string]flaw{
		"none": {}, "decode": {decode: true}, "attention": {attention: true}, "head": {logprob: true},
	} {
		for _, temperature := range []float64{1, 0.7} {
			t.Run(fmt.Sprintf("%s/%g", name, temperature), func(t *testing.T) {
				y := newToy(t, toyOptions{
					wrap:   func(be engine.Backend) engine.Backend { c.Backend = be; return &c },
					config: func(g *Config) { g.Algorithm, g.Temperature, g.PromptsPerStep = GRPO{}, temperature, 10 }})
				worst := 0.0
				for range 6 {
					worst = max(worst, y.step(t).MaxLogpDifference)
				}
				if name == "none" {
					require.Zero(t, worst)
				} else {
					require.Positive(t, worst)
					require.Less(t, worst, 1e-3, "a defect of an ulp, not more")
				}
			})
		}
	}
}

func TestNaNDifferenceStays(t *testing.T) {
	var s StepStats
	s.compareRun(&Rollout{OldLogprobs: []float32{0, 0}}, 0, []float32{float32(math.NaN()), 1})
	require.True(t, math.IsNaN(s.MaxLogpDifference))
}

// The toy task has two things to learn: to say x to half of the prompts, to ask
// about the others.
func TestLearns(t *testing.T) {
	y := newToy(t, toyOptions{plain: true, config: func(c *Config) {
		c.PromptsPerStep, c.NumGenerations, c.MaxSteps, c.LearningRate = 10, 8, 80, 1e-2
	}})
	var first, last, calls, acc float64
	for i := range 80 {
		st := y.step(t)
		require.Zero(t, st.MaxLogpDifference)
		if i < 5 {
			first += st.Reward / 5
		}
		if i >= 75 {
			last += st.Reward / 5
			calls += st.CloudRatio / 5
			acc += st.AccuracyOverall / 5
		}
	}
	t.Logf("reward %.3f to %.3f, accuracy %.3f, calls %.3f", first, last, acc, calls)
	require.Less(t, first, 0.5)
	require.Greater(t, last, 1.1, "of (2.2+0.5)/2")
	require.InDelta(t, 0.5, calls, 0.15)
	require.Greater(t, acc, 0.85)
	require.Equal(t, 10, len(y.cloud.calls))
	require.Equal(t, 10, y.cloud.total(), "once per prompt, ever")
}

// neverRight judges every response wrong, so that each group wants the cloud
// under --query-cloud all-fail.
type neverRight struct{}

func (neverRight) Name() string                                           { return "never right" }
func (neverRight) Judge(context.Context, Prompt, string) (Verdict, error) { return Verdict{}, nil }
func (neverRight) JudgeCloud(context.Context, Prompt, string) (bool, error) {
	return true, nil
}

// stepCounter counts decode steps and, at one of them, waits until the cloud has
// been asked.
type stepCounter struct {
	engine.Backend
	steps, waitAt int
	asked         chan struct{}
	late          bool
}

func (s *stepCounter) Run(p engine.Program) {
	if s.steps++; s.steps == s.waitAt {
		select {
		case <-s.asked:
		case <-time.After(20 * time.Second):
			s.late = true
		}
	}
	s.Backend.Run(p)
}

// The cloud answers the first groups while later ones are still being written.
func TestCloudCallsOverlapRollouts(t *testing.T) {
	var once sync.Once
	counter := &stepCounter{asked: make(chan struct{})}
	c := &toyCloud{answer: func(cloud.Question) (string, error) {
		once.Do(func() { close(counter.asked) })
		return "right", nil
	}}
	y := newToy(t, toyOptions{cloud: c,
		wrap:  func(be engine.Backend) engine.Backend { counter.Backend = be; return counter },
		setup: func(s *Setup) { s.Task, s.MaxBatch = neverRight{}, 4 },
		config: func(c *Config) {
			c.NumGenerations, c.PromptsPerStep, c.QueryCloud = 4, 3, "all-fail"
			counter.waitAt = c.MaxCompletionLength + 1 // the first group is whole by then
		},
	})
	defer y.close()
	st, err := y.tr.Step(bg)
	require.NoError(t, err)
	require.GreaterOrEqual(t, counter.steps, counter.waitAt, "the rollouts went on")
	require.False(t, counter.late, "nobody asked before the last group was whole")
	require.Equal(t, 3, st.CloudCalls)
}

// In BF16 with 8-bit moments a trainer's rollouts have the log-probs of its
// forward to the bit, before and after updates, and it learns.
func TestTrainerInBF16(t *testing.T) {
	y := newToy(t, toyOptions{
		wrap: func(cpu engine.Backend) engine.Backend {
			require.NoError(t, cpu.Close())
			return enginetest.NewDeferred(enginetest.NewRounding())
		},
		types: model.Options{Weights: engine.BF16, Moments: engine.U8},
	})
	before := y.params(t, model.Weights)
	for range 8 {
		st := y.step(t)
		require.Zero(t, st.MaxLogpDifference)
		require.True(t, isFinite(st.GradNorm))
	}
	require.False(t, sameBits(before, y.params(t, model.Weights)))
}
