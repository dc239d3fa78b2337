package report

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBootstrapMeanKnown(t *testing.T) {
	iv, err := BootstrapMean([]float64{0.5, 0.5, 0.5}, BootstrapOptions{})
	require.NoError(t, err)
	require.Equal(t, Interval{0.5, 0.5, 0.5}, iv)

	// 1,000 prompts, 80 % right: the interval is that of the normal
	// approximation, 1.96·√(0.8·0.2/1000) = 0.0248 to each side, up to the
	// bootstrap's own noise (a quantile at B = 2,000 is known to about 0.0012).
	x := make([]float64, 1000)
	for i := range 800 {
		x[i] = 1
	}
	iv, err = BootstrapMean(x, BootstrapOptions{Seed: 1})
	require.NoError(t, err)
	require.InDelta(t, 0.8, iv.Mean, 1e-12)
	require.InDelta(t, 0.8-0.0248, iv.Lo, 0.004)
	require.InDelta(t, 0.8+0.0248, iv.Hi, 0.004)

	again, err := BootstrapMean(x, BootstrapOptions{Seed: 1, Resamples: 2000, Level: 0.95})
	require.NoError(t, err)
	require.Equal(t, iv, again, "deterministic, and the defaults are B = 2,000 at 95 %%")
	other, err := BootstrapMean(x, BootstrapOptions{Seed: 2})
	require.NoError(t, err)
	require.NotEqual(t, iv, other)
	narrow, err := BootstrapMean(x, BootstrapOptions{Seed: 1, Level: 0.5})
	require.NoError(t, err)
	require.Less(t, narrow.Hi-narrow.Lo, 0.5*(iv.Hi-iv.Lo))
}

// Over many data sets of a known mean, about 95 % of intervals hold it.
func TestBootstrapCoverage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	const trials = 400
	held := 0
	x := make([]float64, 150)
	for trial := range trials {
		for i := range x {
			x[i] = rng.ExpFloat64()
		}
		iv, err := BootstrapMean(x, BootstrapOptions{Seed: uint64(trial), Resamples: 400})
		require.NoError(t, err)
		if iv.Lo <= 1 && 1 <= iv.Hi {
			held++
		}
	}
	// Binomial: 0.95·400 = 380 with a deviation of 4.4; skewness costs a little.
	require.GreaterOrEqual(t, held, 362)
	require.LessOrEqual(t, held, 395)
}

func TestBootstrapPaired(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	a, b := make([]float64, 1000), make([]float64, 1000)
	for i := range a {
		hard := rng.Float64() < 0.4
		if !hard || rng.Float64() < 0.1 {
			b[i] = 1
		}
		a[i] = b[i]
		if rng.Float64() < 0.05 {
			a[i] = 1
		}
	}
	d, err := BootstrapPaired(a, b, BootstrapOptions{Seed: 1})
	require.NoError(t, err)
	ia, _ := BootstrapMean(a, BootstrapOptions{Seed: 1})
	ib, _ := BootstrapMean(b, BootstrapOptions{Seed: 1})
	require.InDelta(t, ia.Mean-ib.Mean, d.Mean, 1e-12)
	require.Greater(t, d.Lo, 0.0, "never worse on any prompt")
	require.Less(t, d.Hi-d.Lo, 0.5*(ia.Hi-ia.Lo), "pairing takes out what both share")
	same, err := BootstrapPaired(a, a, BootstrapOptions{})
	require.NoError(t, err)
	require.Equal(t, Interval{}, same)
	_, err = BootstrapPaired(a, b[1:], BootstrapOptions{})
	require.ErrorContains(t, err, "1000 against 999")
}

func TestBootstrapStatistic(t *testing.T) {
	asked := []bool{true, false, false, false, false, false, false, false}
	precision := func(sample []int32) float64 {
		var calls, right float64
		for _, i := range sample {
			if asked[i] {
				calls++
				right++
			}
		}
		return right / calls
	}
	iv, err := Bootstrap(len(asked), BootstrapOptions{}, precision)
	require.NoError(t, err)
	require.Equal(t, Interval{1, 1, 1}, iv, "resamples without a call are left out")
	iv, err = Bootstrap(4, BootstrapOptions{}, func([]int32) float64 { return math.NaN() })
	require.NoError(t, err)
	require.True(t, math.IsNaN(iv.Mean) && math.IsNaN(iv.Lo) && math.IsNaN(iv.Hi))
}

func TestBootstrapRefuses(t *testing.T) {
	_, err := BootstrapMean(nil, BootstrapOptions{})
	require.ErrorContains(t, err, "no observations")
	_, err = BootstrapMean([]float64{1, math.NaN()}, BootstrapOptions{})
	require.ErrorContains(t, err, "value 1 is NaN")
	_, err = BootstrapMean([]float64{1}, BootstrapOptions{Level: 95})
	require.ErrorContains(t, err, "level 95")
	_, err = BootstrapMean([]float64{1}, BootstrapOptions{Resamples: -1})
	require.ErrorContains(t, err, "-1 resamples")
}

// Every index is drawn equally often: χ² over 101 cells of 2,000 resamples.
func TestResampleIsUniform(t *testing.T) {
	rng := rand.NewPCG(5, 5)
	counts := make([]float64, 101)
	sample := make([]int32, 101)
	const rounds = 2000
	for range rounds {
		resample(sample, rng)
		for _, i := range sample {
			counts[i]++
		}
	}
	var chi2 float64
	for _, c := range counts {
		chi2 += (c - rounds) * (c - rounds) / rounds
	}
	// 100 degrees of freedom: mean 100, deviation 14.1.
	require.Less(t, chi2, 160.0)
	require.Greater(t, chi2, 55.0)
}

func TestQuantile(t *testing.T) {
	x := []float64{1, 2, 4}
	for q, want := range map[float64]float64{0: 1, 0.25: 1.5, 0.5: 2, 0.75: 3, 1: 4} {
		require.InDelta(t, want, quantile(x, q), 1e-15)
	}
}

func BenchmarkBootstrapMean(b *testing.B) {
	x := make([]float64, 1000)
	for i := range x {
		x[i] = float64(i % 3)
	}
	for b.Loop() {
		if _, err := BootstrapMean(x, BootstrapOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}
