package gapg

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// policy is an enumerable two-token policy: three first tokens, then two
// second tokens each; nine logits.
type policy [9]float64

func softmax(z []float64) []float64 {
	p, sum := make([]float64, len(z)), 0.0
	for i, v := range z {
		p[i] = math.Exp(v)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}

// score returns π(a, b) and, for each token, ∇ log π of that token.
func (th policy) score(a, b int) (prob float64, grad [2]policy) {
	first, second := softmax(th[:3]), softmax(th[3+2*a:5+2*a])
	for i := range 3 {
		grad[0][i] = -first[i]
	}
	grad[0][a]++
	for i := range 2 {
		grad[1][3+2*a+i] = -second[i]
	}
	grad[1][3+2*a+b]++
	return first[a] * second[b], grad
}

var testRewards = [3][2]float64{{2.2, 0.2}, {0.5, 0}, {2, 0.5}}

func (th policy) exactGradient() (out policy) {
	for a := range 3 {
		for b := range 2 {
			p, g := th.score(a, b)
			for i := range out {
				out[i] += p * testRewards[a][b] * (g[0][i] + g[1][i])
			}
		}
	}
	return out
}

// expectation enumerates every group of three responses with its probability,
// so that the mean of an estimator is exact and not sampled.
func (th policy) expectation(a Algorithm) (out policy) {
	budget, _ := ParseBudget("0.3")
	for code := range 6 * 6 * 6 {
		g, prob := &Group{}, 1.0
		var grads [3][2]policy
		for j, c := 0, code; j < 3; j, c = j+1, c/6 {
			x, y := c%6/2, c%2
			p, grad := th.score(x, y)
			prob *= p
			grads[j] = grad
			g.Rollouts = append(g.Rollouts, Rollout{Tokens: []int32{int32(x), int32(y)}, Reward: testRewards[x][y]})
		}
		b := &Batch{Groups: []*Group{g}, Budget: budget, Config: AlgConfig{MaxTokens: 2}}
		for j, w := range a.Weights(b, []int{0})[0] {
			for i := range out {
				out[i] += prob * (float64(w[0])*grads[j][0][i] + float64(w[1])*grads[j][1][i])
			}
		}
	}
	return out
}

var testPolicy = policy{0.3, -0.2, 0.7, 1.1, -0.4, 0.2, 0.9, -1, 0.5}

func TestGroupGradientIsUnbiased(t *testing.T) {
	want := testPolicy.exactGradient()
	got := testPolicy.expectation(GAPG{NoFilter: true})
	require.InDeltaSlice(t, want[:], got[:], 1e-6)
}

func TestGroupGradientIsRLOO(t *testing.T) {
	want := testPolicy.expectation(RLOO{})
	got := testPolicy.expectation(GAPG{NoFilter: true})
	require.InDeltaSlice(t, want[:], got[:], 1e-6)
}

// The test above can fail: dividing by the standard deviation is biased.
func TestStandardDeviationBiases(t *testing.T) {
	want, worst := testPolicy.exactGradient(), 0.0
	for i, g := range testPolicy.expectation(GAPG{NoFilter: true, Std: true}) {
		worst = max(worst, math.Abs(g-want[i]))
	}
	require.Greater(t, worst, 0.01)
}

func rewarded(rewards ...float64) *Group {
	g := &Group{}
	for i, r := range rewards {
		g.Rollouts = append(g.Rollouts, Rollout{Tokens: make([]int32, i+1), Reward: r,
			Logprobs: make([]float32, i+1), OldLogprobs: make([]float32, i+1)})
	}
	return g
}

func TestNormalisers(t *testing.T) {
	b := &Batch{Groups: []*Group{rewarded(1, 0), rewarded(0, 0)}, Config: AlgConfig{MaxTokens: 10, Epsilon: 0.2}}
	keep := []int{0, 1}
	std := math.Sqrt(0.5)
	for _, c := range []struct {
		a    Algorithm
		want [2]float64 // weight of a token of the first group's rollouts
	}{
		{GAPG{}, [2]float64{0.5 / 2, -0.5 / 2}},
		{RLOO{}, [2]float64{1.0 / 4, -1.0 / 4}},
		{GRPO{}, [2]float64{0.5 / (std + stdEps) / 4, -0.5 / (std + stdEps) / 4 / 2}},
		{DrGRPO{}, [2]float64{0.5 / 40, -0.5 / 40}},
		{DAPO{}, [2]float64{0.5 / (std + stdEps) / 6, -0.5 / (std + stdEps) / 6}},
		{NewDAGRPO(), [2]float64{0.5 / 2, -0.5 / 2}},
	} {
		w := c.a.Weights(b, keep)
		require.Len(t, w[0][1], 2)
		require.InDelta(t, c.want[0], w[0][0][0], 1e-6, c.a.Name())
		require.InDelta(t, c.want[1], w[0][1][1], 1e-6, c.a.Name())
		require.Zero(t, w[1][0][0], "equal rewards have no gradient")
	}
	require.InDelta(t, 0.5/3, GAPG{PerBatch: true}.Weights(&Batch{Groups: append(b.Groups, b.Groups[1])}, keep)[0][0][0], 1e-6)
	require.Equal(t, []int{0}, DAPO{}.Select(b).Keep, "dynamic sampling drops groups without gradient")
}

func TestDAGRPOPaysForCalls(t *testing.T) {
	g := rewarded(1, 1)
	g.Rollouts[1].Verdict.Help = true
	budget, _ := ParseBudget("0.3")
	b := &Batch{Groups: []*Group{g}, Budget: budget}
	a := NewDAGRPO()
	w := a.Weights(b, []int{0})[0]
	require.InDelta(t, 0.25, w[0][0], 1e-6, "λ(c̄ − c)/(G−1) = 0.5·0.5")
	require.InDelta(t, -0.25, w[1][0], 1e-6)
	a.Observe(b)
	require.InDelta(t, 0.5+0.01*(0.5-0.3), a.Lambda, 1e-12)
	s, err := a.State()
	require.NoError(t, err)
	restored := &DAGRPO{}
	require.NoError(t, restored.SetState(s))
	require.Equal(t, a, restored)
	a.Lambda = 0
	b.Groups[0].Rollouts[1].Verdict.Help = false
	a.Observe(b)
	require.Zero(t, a.Lambda, "λ stays ≥ 0")
}

// The weight is the slope of PPO's clipped surrogate and of the KL estimators.
func TestWeightsAreSlopes(t *testing.T) {
	const h = 1e-5
	c := AlgConfig{Epsilon: 0.2, EpsilonHigh: 0.28}
	surrogate := func(adv, d float64) float64 {
		r := math.Exp(d)
		return min(r*adv, min(max(r, 1-c.Epsilon), 1+c.EpsilonHigh)*adv)
	}
	for _, adv := range []float64{-1.5, 0.7} {
		for _, d := range []float64{-0.5, -0.2, -0.1, 0, 0.1, 0.24, 0.3, 0.6} {
			want := (surrogate(adv, d+h) - surrogate(adv, d-h)) / (2 * h)
			require.InDelta(t, want, adv*clippedRatio(adv, d, c), 1e-6, "A %g, log ratio %g", adv, d)
		}
	}
	for _, k := range []string{"k1", "k2", "k3"} {
		for _, d := range []float64{-1, -0.1, 0, 0.3, 2} {
			want := (klValue(k, d+h) - klValue(k, d-h)) / (2 * h)
			require.InDelta(t, want, klSlope(k, d), 1e-6, k)
		}
	}
}
