package gapg

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
)

// seen keeps the groups that a step left in.
type seen struct {
	Algorithm
	ids []string
}

func (s *seen) Select(b *Batch) Selection {
	for _, g := range b.Groups {
		s.ids = append(s.ids, g.Prompt.ID)
	}
	return s.Algorithm.Select(b)
}

// A group whose verifier, cloud or reward gave no outcome leaves the batch, is
// counted, and is in no figure; the others stay.
func TestUnresolvedGroups(t *testing.T) {
	prompts := toyPrompts(6)
	bad := prompts[1].ID // a prompt that asks for help
	isBad := func(p Prompt) bool { return p.ID == bad }
	cases := map[string]struct {
		o    toyOptions
		want string
	}{
		"verifier's error": {o: toyOptions{setup: func(s *Setup) {
			s.Task = toyTask{judge: func(_ context.Context, p Prompt, _ string) error {
				if isBad(p) {
					return errNoScorer
				}
				return nil
			}}
		}}},
		"verifier's time limit": {o: toyOptions{config: func(c *Config) { c.JudgeTimeout = 5 * time.Millisecond }, setup: func(s *Setup) {
			s.Task = toyTask{judge: func(ctx context.Context, p Prompt, _ string) error {
				if isBad(p) {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil // in time, however late the machine lets it run
			}}
		}}},
		"verifier of the cloud's answer": {o: toyOptions{setup: func(s *Setup) {
			s.Task = toyTask{judgeCloud: func(_ context.Context, p Prompt) error {
				if isBad(p) {
					return errNoScorer
				}
				return nil
			}}
		}}},
		"its time limit": {o: toyOptions{config: func(c *Config) { c.JudgeTimeout = 5 * time.Millisecond }, setup: func(s *Setup) {
			s.Task = toyTask{judgeCloud: func(ctx context.Context, p Prompt) error {
				if isBad(p) {
					<-ctx.Done()
					return ctx.Err()
				}
				return nil // in time, however late the machine lets it run
			}}
		}}},
		"a passing failure of the cloud": {o: toyOptions{cloud: &toyCloud{answer: func(q cloud.Question) (string, error) {
			if q.ID == bad {
				return "", cloud.Transient(errors.New("no network"))
			}
			return "right", nil
		}}}},
		"a final failure of the cloud": {o: toyOptions{cloud: &toyCloud{answer: func(q cloud.Question) (string, error) {
			if q.ID == bad {
				return "", errors.New("refused")
			}
			return "right", nil
		}}}},
		"reward": {o: toyOptions{config: func(c *Config) {
			c.Reward = RewardFunc(func(ctx context.Context, g *Group, i int) (RewardParts, error) {
				if isBad(g.Prompt) {
					return RewardParts{}, errNoScorer
				}
				return PaperWeights().Reward(ctx, g, i)
			})
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := &seen{Algorithm: GAPG{NoFilter: true}}
			o, config, setup := c.o, c.o.config, c.o.setup
			o.config = func(c *Config) {
				c.Algorithm, c.PromptsPerStep, c.NumGenerations, c.QueryCloud = s, 6, 8, "all-fail"
				if config != nil {
					config(c)
				}
			}
			o.setup = func(s *Setup) {
				s.Prompts = prompts
				if setup != nil {
					setup(s)
				}
			}
			y := newToy(t, o)
			st := y.step(t)
			require.Equal(t, 1, st.Unresolved)
			require.Equal(t, 5, st.Groups)
			require.Len(t, s.ids, 5)
			require.NotContains(t, s.ids, bad)
			require.False(t, st.Skipped)
			require.Equal(t, 1.0, st.Metrics()["filter/unresolved"])
			require.True(t, isFinite(st.Reward))

			// The reward's mean is that of the five: the same without the sixth.
			want := 0.0
			y2 := newToy(t, toyOptions{config: func(c *Config) {
				c.Algorithm, c.PromptsPerStep, c.NumGenerations, c.QueryCloud = GAPG{NoFilter: true}, 6, 8, "all-fail"
				c.Reward = RewardFunc(func(ctx context.Context, g *Group, i int) (RewardParts, error) {
					p, err := PaperWeights().Reward(ctx, g, i)
					if !isBad(g.Prompt) {
						want += p.Sum() / 40
					}
					return p, err
				})
			}, setup: func(s *Setup) { s.Prompts = prompts }})
			y2.step(t)
			require.InDelta(t, want, st.Reward, 1e-12)
		})
	}
}

// With no group left the step is skipped; nothing hangs.
func TestAllUnresolved(t *testing.T) {
	for _, a := range allAlgorithms() {
		y := newToy(t, toyOptions{config: func(c *Config) { c.Algorithm, c.Temperature, c.NumIterations = a, 0.9, 2 },
			setup: func(s *Setup) {
				s.Task = toyTask{judge: func(context.Context, Prompt, string) error { return errNoScorer }}
			}})
		before := y.params(t, model.Weights)
		st := y.step(t)
		require.True(t, st.Skipped)
		require.Zero(t, st.Groups)
		require.GreaterOrEqual(t, st.Unresolved, 4)
		require.Equal(t, 1.0, st.Metrics()["filter/skipped"])
		for k, v := range st.Metrics() {
			require.True(t, isFinite(v), k)
		}
		require.True(t, sameBits(before, y.params(t, model.Weights)))
		require.Equal(t, 1, y.tr.State().Step)
		require.Zero(t, y.cloud.total(), "the cloud is not asked about what cannot be judged")
	}
}

// A failure of the ledger's file ends the step: calls that cannot be recorded
// are not made.
type brokenDesk struct{}

func (brokenDesk) AnswerAll(context.Context, int, []cloud.Question) ([]cloud.Result, error) {
	return nil, &cloud.StoreError{Path: "ledger.db", Op: "record", Err: fs.ErrPermission}
}

func TestLedgerFailureEndsStep(t *testing.T) {
	alg := NewDAGRPO()
	y := newToy(t, toyOptions{config: func(c *Config) { c.Algorithm, c.QueryCloud = alg, "all-fail" }, setup: func(s *Setup) { s.Cloud = brokenDesk{} }})
	before := y.params(t, model.Weights)
	_, err := y.tr.Step(bg)
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Equal(t, State{}, y.tr.State())
	require.Equal(t, *NewDAGRPO(), *alg)
	require.True(t, sameBits(before, y.params(t, model.Weights)))
}

// Weights that are not finite are noticed, though every group's rewards are
// equal then, and nothing is changed.
func TestNonFiniteWeights(t *testing.T) {
	for _, a := range []Algorithm{GAPG{}, NewDAGRPO()} {
		for _, v := range []float64{math.NaN(), math.Inf(1)} {
			y := newToy(t, toyOptions{config: func(c *Config) { c.Algorithm = a }})
			y.step(t)
			name := y.m.Params()[len(y.m.Params())-1].Name
			w, err := y.m.ReadParam(bg, model.Weights, name)
			require.NoError(t, err)
			w[0] = float32(v)
			require.NoError(t, y.m.WriteParam(bg, model.Weights, name, w))
			y.m.RefreshWeights()
			before, state := y.params(t, model.Weights), y.tr.State()
			lambda := NewDAGRPO().Lambda
			if d, ok := a.(*DAGRPO); ok {
				lambda = d.Lambda
			}
			steps := y.m.StepCount()
			_, err = y.tr.Step(bg)
			require.ErrorIs(t, err, ErrNonFinite)
			require.ErrorContains(t, err, "step 2")
			require.True(t, sameBits(before, y.params(t, model.Weights)))
			require.Equal(t, state, y.tr.State())
			require.Equal(t, steps, y.m.StepCount())
			if d, ok := a.(*DAGRPO); ok {
				require.Equal(t, lambda, d.Lambda)
			}
		}
	}
}

// infinite gives weights beyond float32: the loss is not finite.
type infinite struct{ Algorithm }

func (a infinite) Weights(b *Batch, keep []int) [][][]float32 {
	w := a.Algorithm.Weights(b, keep)
	for _, g := range w {
		for _, r := range g {
			for t := range r {
				r[t] *= float32(math.Inf(1))
			}
		}
	}
	return w
}

func TestNonFiniteLoss(t *testing.T) {
	d := NewDAGRPO()
	y := newToy(t, toyOptions{config: func(c *Config) { c.Algorithm = both{infinite{d}, d}; c.PromptsPerStep = 10 }})
	before := y.params(t, model.Weights)
	_, err := y.tr.Step(bg)
	require.ErrorIs(t, err, ErrNonFinite)
	require.True(t, sameBits(before, y.params(t, model.Weights)))
	require.Equal(t, State{}, y.tr.State())
	require.Equal(t, 0.5, d.Lambda, "the dual variable is put back")
	require.Zero(t, y.m.StepCount())
}

// both weighs by one algorithm and keeps the state of another.
type both struct {
	infinite
	*DAGRPO
}

func (b both) Name() string                               { return b.DAGRPO.Name() }
func (b both) Select(x *Batch) Selection                  { return b.DAGRPO.Select(x) }
func (b both) Weights(x *Batch, keep []int) [][][]float32 { return b.infinite.Weights(x, keep) }

// expiring is a context that ends at its n-th look.
type expiring struct {
	context.Context
	looks atomic.Int64
}

func (e *expiring) Err() error {
	if e.looks.Add(-1) < 0 {
		return context.Canceled
	}
	return nil
}

// A step that its context ended, at whatever point, leaves no trace: made again
// it does what it would have done. Once the first of several updates is made
// the others are made too.
func TestCancelledStep(t *testing.T) {
	run := func(looks int) (failed bool, weights map[string][]float32, metrics map[string]float64) {
		y := newToy(t, toyOptions{plain: true, maxRows: 9, config: func(c *Config) {
			c.Algorithm, c.NumIterations, c.PromptsPerStep, c.NumGenerations = NewDAGRPO(), 2, 8, 6
		}})
		ctx := &expiring{Context: bg}
		ctx.looks.Store(int64(looks))
		st, err := y.tr.Step(ctx)
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
			require.Equal(t, State{}, y.tr.State())
			require.Zero(t, y.m.StepCount())
			failed = true
			drawn := y.tr.rollout.Stats().Tokens
			st = y.step(t)
			require.Equal(t, st.RolloutTokens, y.tr.rollout.Stats().Tokens-drawn, "nothing of the first attempt goes on")
		}
		require.False(t, st.Skipped)
		require.Equal(t, 2, y.m.StepCount())
		weights, metrics = y.params(t, model.Weights), st.Metrics()
		y.close()
		return failed, weights, metrics
	}
	_, weights, metrics := run(1 << 30)
	failures := 0
	stride := 1
	if testing.Short() {
		stride = 3
	}
	for looks := 0; ; looks += stride {
		failed, w, m := run(looks)
		require.True(t, sameBits(weights, w), "%d looks", looks)
		require.Equal(t, metrics, m)
		if !failed {
			break
		}
		failures++
	}
	t.Logf("%d points to end at", failures)
	require.Greater(t, failures, 8)
}
