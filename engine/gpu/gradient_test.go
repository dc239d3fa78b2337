package gpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/model"
)

// gradientBatch shares prompts around the bounds of pages and splits, at a
// temperature.
func gradientBatch() (b model.Batch, dp, de []float32) {
	rng := rand.New(rand.NewPCG(4, 11))
	for _, n := range []int{1, 5, 33, 66} {
		b.Groups = append(b.Groups, model.Group{Prompt: randomTokens(rng, n, 61),
			Responses: [][]int32{randomTokens(rng, 1+rng.IntN(9), 61), randomTokens(rng, 1+rng.IntN(9), 61)}})
	}
	b.Scale = 0.8
	dp, de = make([]float32, b.Tokens()), make([]float32, b.Tokens())
	for i := range dp {
		dp[i], de[i] = rng.Float32()-0.3, rng.Float32()-0.5
	}
	return b, dp, de
}

// passes are the log-probs, entropies and, after those, the gradients of every
// parameter of one forward and backward on a backend. Weights are ones that BF16
// holds, so that all precisions start from the same.
func passes(t testing.TB, be engine.Backend, kind string, weights engine.DType, recompute bool) []float64 {
	t.Helper()
	m := newModel(t, be, kind, model.Options{Trainable: true, MaxRows: 200, Weights: weights, Recompute: recompute})
	defer m.Close()
	for _, p := range m.Params() {
		v, err := m.ReadParam(t.Context(), model.Weights, p.Name)
		require.NoError(t, err)
		for i, x := range v {
			v[i] = half.FromBF16(half.BF16(x))
		}
		require.NoError(t, m.WriteParam(t.Context(), model.Weights, p.Name, v))
	}
	m.RefreshWeights()
	b, dp, de := gradientBatch()
	m.ZeroGrad()
	out, err := m.Forward(t.Context(), &b)
	require.NoError(t, err)
	require.NoError(t, m.Backward(t.Context(), dp, de))
	var all []float64
	keep := func(v []float32) {
		for _, x := range v {
			all = append(all, float64(x))
		}
	}
	keep(out.LogProbs)
	keep(out.Entropies)
	for _, p := range m.Params() {
		v, err := m.ReadParam(t.Context(), model.Gradients, p.Name)
		require.NoError(t, err)
		keep(v)
	}
	return all
}

func distance(a, b []float64) float64 {
	s := 0.0
	for i := range a {
		s += (a[i] - b[i]) * (a[i] - b[i])
	}
	return math.Sqrt(s)
}

// In F32 a whole model's results err no more than the CPU's do, against float64:
// both sum in float32, in other orders, so that errors are of one size and not the
// same. Four times is allowed, and one rounding of each result.
func TestModelGradientsF32(t *testing.T) {
	for _, kind := range families {
		t.Run(kind, func(t *testing.T) {
			exact := passes(t, enginetest.NewReference(), kind, engine.F32, false)
			c, err := cpu.New(cpu.Options{Threads: 1})
			require.NoError(t, err)
			defer c.Close()
			onCPU := distance(exact, passes(t, c, kind, engine.F32, false))
			got := passes(t, open(t, Options{}), kind, engine.F32, false)
			size := distance(exact, make([]float64, len(exact)))
			require.LessOrEqual(t, distance(exact, got), 4*onCPU+size/(1<<24))
			t.Logf("relative error %.2g, on the CPU %.2g", distance(exact, got)/size, onCPU/size)
		})
	}
}

// In BF16 they lie as far from those without any rounding as models scatter that
// have noise in the place of roundings: eight standard deviations, each estimated
// from 24 models, which is six where it comes out a quarter too small.
func TestModelGradientsBF16(t *testing.T) {
	const samples, sigmas = 24, 8
	kinds := families
	if testing.Short() {
		kinds = kinds[2:3]
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			exact := passes(t, enginetest.NewReference(), kind, engine.F32, false)
			mean, variance := make([]float64, len(exact)), make([]float64, len(exact))
			var noisy [samples][]float64
			for k := range noisy {
				noisy[k] = passes(t, enginetest.NewNoisy(uint64(k)), kind, engine.BF16, false)
				for i, v := range noisy[k] {
					mean[i] += v / samples
				}
			}
			scatter := 0.0
			for i := range exact {
				for _, r := range noisy {
					variance[i] += (r[i] - mean[i]) * (r[i] - mean[i]) / (samples - 1)
				}
				scatter += variance[i]
			}
			b := open(t, Options{})
			got := passes(t, b, kind, engine.BF16, false)
			for i, want := range exact {
				// The device sums in float32; what is stored in it is rounded to it.
				tol := sigmas*math.Sqrt(variance[i]) + math.Abs(want)/(1<<20)
				if diff := math.Abs(got[i] - want); !(diff <= tol) {
					t.Fatalf("result %d of %d is %.6g, without roundings %.6g: the standard deviation is %.3g", i, len(exact), got[i], want, math.Sqrt(variance[i]))
				}
			}
			off := distance(exact, got)
			require.Less(t, off*off, 4*scatter, "all results together")
			require.Greater(t, off*off, scatter/16, "BF16 leaves no trace: was it used?")
			require.Zero(t, distance(got, passes(t, b, kind, engine.BF16, false)), "a second time")
			require.Zero(t, distance(got, passes(t, b, kind, engine.BF16, true)), "recomputed activations")
		})
	}
}
