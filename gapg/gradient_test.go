package gapg

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model"
)

// witness keeps the batch that an algorithm was given and what it chose.
type witness struct {
	Algorithm
	batch *Batch
	keep  []int
}

func (w *witness) Weights(b *Batch, keep []int) [][][]float32 {
	w.batch, w.keep = b, keep
	return w.Algorithm.Weights(b, keep)
}

// The gradient of an update is Σ_prompts Σ_i (r_i − r̄)/(G−1)/prompts · ∇log π(y_i|x),
// each term found by a forward and a backward of its own, summed in float64.
func TestUpdateIsTheGroupGradient(t *testing.T) {
	for name, c := range map[string]struct {
		alg     GAPG
		prompts func(b *Batch, keep []int) int
	}{
		"unfiltered":          {GAPG{NoFilter: true}, func(b *Batch, _ []int) int { return len(b.Groups) }},
		"filtered":            {GAPG{}, func(_ *Batch, keep []int) int { return len(keep) }},
		"filtered, per batch": {GAPG{PerBatch: true}, func(b *Batch, _ []int) int { return len(b.Groups) }},
	} {
		for _, rows := range []int{512, 7} {
			t.Run(name, func(t *testing.T) {
				w := &witness{Algorithm: c.alg}
				y := newToy(t, toyOptions{maxRows: rows, config: func(c *Config) {
					c.Algorithm, c.PromptsPerStep, c.NumGenerations, c.Budget = w, 10, 12, Budget{1, 3}
				}})
				before := y.params(t, model.Weights)
				st := y.step(t)
				require.False(t, st.Skipped)
				got := y.params(t, model.Gradients)
				after := y.params(t, model.Weights)
				if c.alg.NoFilter {
					require.Len(t, w.keep, 10)
				} else {
					require.Less(t, len(w.keep), 10, "the filter drops something")
				}

				// The same weights in another model, and each response on its own.
				z := newToy(t, toyOptions{})
				for name, v := range before {
					require.NoError(t, z.m.WriteParam(bg, model.Weights, name, v))
				}
				z.m.RefreshWeights()
				want, scale := map[string][]float64{}, map[string][]float64{}
				for _, k := range w.keep {
					g := w.batch.Groups[k]
					mean := 0.0
					for i := range g.Rollouts {
						mean += g.Rollouts[i].Reward / float64(len(g.Rollouts))
					}
					for i := range g.Rollouts {
						r := &g.Rollouts[i]
						weight := (r.Reward - mean) / float64(len(g.Rollouts)-1) / float64(c.prompts(w.batch, w.keep))
						z.m.ZeroGrad()
						_, err := z.m.Forward(bg, &model.Batch{Groups: []model.Group{{Prompt: g.PromptTokens, Responses: [][]int32{r.Tokens}}}})
						require.NoError(t, err)
						ones := make([]float32, len(r.Tokens))
						for j := range ones {
							ones[j] = 1
						}
						require.NoError(t, z.m.Backward(bg, ones, nil))
						for name, v := range z.params(t, model.Gradients) {
							if want[name] == nil {
								want[name], scale[name] = make([]float64, len(v)), make([]float64, len(v))
							}
							for j, x := range v {
								want[name][j] -= weight * float64(x) // the optimizer descends
								scale[name][j] += math.Abs(weight * float64(x))
							}
						}
					}
				}
				norm := 0.0
				for name, v := range want {
					largest := 0.0
					for _, s := range scale[name] {
						largest = max(largest, s)
					}
					for j, x := range v {
						norm += x * x
						require.True(t, math.Abs(float64(got[name][j])-x) <= 1e-5*largest, "%s[%d]: %g, want %g", name, j, got[name][j], x)
					}
				}
				require.InEpsilon(t, math.Sqrt(norm), st.GradNorm, 1e-4)

				// And the first step of AdamW moves a weight by the rate, against
				// its gradient's sign.
				clip := 1.0
				if st.GradNorm > 1 {
					clip = 1 / st.GradNorm
				}
				for name, v := range got {
					for j, g := range v {
						x := float64(g) * clip
						move := 1e-2 * x / (math.Abs(x) + 1e-8)
						b := float64(before[name][j])
						require.True(t, math.Abs(float64(after[name][j])-(b-move)) <= 1e-6*(1+math.Abs(b))+1e-4*math.Abs(move), "%s[%d]", name, j)
					}
				}
			})
		}
	}
}

// A group of equal rewards has no gradient, not one of rounding: 0.2 eight
// times has a mean that is not 0.2 when summed plainly.
func TestEqualRewardsHaveNoGradient(t *testing.T) {
	g := group(false, false, wrong, wrong, wrong, wrong, wrong, wrong, wrong, wrong)
	for _, r := range []float64{0.2, 2.2, 0.1, 1.0 / 3, 0} {
		for i := range g.Rollouts {
			g.Rollouts[i].Reward = r
		}
		b := &Batch{Groups: []*Group{g}, Config: AlgConfig{MaxTokens: 3}}
		for _, a := range allAlgorithms() {
			for _, rollout := range a.Weights(b, []int{0})[0] {
				for _, w := range rollout {
					require.Zero(t, w, "%s at reward %g", a.Name(), r)
				}
			}
		}
		require.Empty(t, DAPO{}.Select(b).Keep)
		var st StepStats
		st.summarise(b, KeepAll(b))
		require.Equal(t, 1.0, st.FracRewardZeroStd)
		require.Equal(t, 1, st.KeptWithoutGradient)
	}
}

// DAPO draws further prompts until the batch is full of groups with a gradient.
func TestRefill(t *testing.T) {
	w := &witness{Algorithm: DAPO{}}
	y := newToy(t, toyOptions{config: func(c *Config) {
		c.Algorithm, c.PromptsPerStep, c.NumGenerations, c.MaxRefill = named{w, DAPO{}}, 3, 2, 50
	}})
	refilled := false
	cursor := 0
	for range 4 {
		st := y.step(t)
		require.Equal(t, 3, st.Kept)
		require.Zero(t, st.KeptWithoutGradient)
		drawn := y.tr.State().Cursor - cursor
		cursor = y.tr.State().Cursor
		require.Equal(t, drawn, st.Groups)
		require.Zero(t, drawn%3)
		refilled = refilled || drawn > 3
		require.Zero(t, st.MaxLogpDifference)
	}
	require.True(t, refilled)

	// The limit holds where no group ever has a gradient.
	y = newToy(t, toyOptions{config: func(c *Config) {
		c.Algorithm, c.PromptsPerStep, c.MaxRefill = DAPO{}, 3, 2
		c.Reward = RewardFunc(func(context.Context, *Group, int) (RewardParts, error) { return RewardParts{Other: 0.2}, nil })
	}})
	st := y.step(t)
	require.True(t, st.Skipped)
	require.Equal(t, 9, st.Groups)
}

type named struct {
	*witness
	DAPO
}

func (n named) Name() string                               { return "dapo" }
func (n named) Select(b *Batch) Selection                  { return n.DAPO.Select(b) }
func (n named) Weights(b *Batch, keep []int) [][][]float32 { return n.witness.Weights(b, keep) }
