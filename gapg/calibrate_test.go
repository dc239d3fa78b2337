package gapg

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func budget(t require.TestingT, s string) Budget {
	b, err := ParseBudget(s)
	require.NoError(t, err)
	return b
}

func TestCalibrate(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name      string
		scores    []float64
		budget    string
		errors    float64
		threshold float64
		share     float64
	}{
		{"halfway between the last that asks and the next", []float64{1, 5, 2, 4, 3, 0, -1, -2, -3, -4}, "0.3", 0, 2.5, 0.3},
		{"a margin of one error: 0.3 − √(0.21/10) = 0.155", []float64{1, 5, 2, 4, 3, 0, -1, -2, -3, -4}, "0.3", 1, 4.5, 0.1},
		{"a margin larger than the budget", []float64{1, 2, 3}, "0.3", 5, inf, 0},
		{"budget 0", []float64{1, 2, 3}, "0", 1, inf, 0},
		{"ties ask all or not at all", []float64{5, 4, 4, 4, 1, 1, 1, 1, 1, 1}, "0.3", 0, 4.5, 0.1},
		{"all tied beyond the budget: none", []float64{2, 2, 2, 2}, "0.5", 0, inf, 0},
		{"a tie that fits", []float64{4, 4, 4, 1, 1, 1, 1, 1, 1, 1}, "0.3", 0, 2.5, 0.3},
		{"never asks stays so", []float64{3, math.Inf(-1), math.Inf(-1), math.Inf(-1)}, "0.75", 0, 3, 0.25},
		{"always asks", []float64{inf, 1, 0, 0}, "0.25", 0, math.Nextafter(1, 2), 0.25},
		{"NaN never asks", []float64{math.NaN(), 2, 1, math.NaN()}, "0.75", 0, 1, 0.5},
		{"no scores", nil, "0.3", 1, inf, 0},
	} {
		got := Calibrate(failing(c.scores), budget(t, c.budget), c.errors)
		require.Equal(t, c.threshold, got.Threshold, c.name)
		require.InDelta(t, c.share, got.Share, 1e-12, c.name)
		require.Equal(t, len(c.scores), got.Prompts, c.name)
	}
	got := Calibrate(failing(make([]float64, 1000)), budget(t, "0.3"), 1)
	require.InDelta(t, math.Sqrt(0.21/1000), got.Margin, 1e-12)
	require.InDelta(t, 0.3-math.Sqrt(0.21/1000), got.Target, 1e-12)
}

// failing are prompts that the device fails and the cloud solves: every call
// gains.
func failing(scores []float64) []Outcome {
	o := make([]Outcome, len(scores))
	for i, s := range scores {
		o[i] = Outcome{Score: s, Cloud: true}
	}
	return o
}

// Calls that gain nothing are not made, budget or not.
func TestCalibrateStopsWhereCallsStopGaining(t *testing.T) {
	o := failing([]float64{9, 8, 7, 6, 5, 4, 3, 2, 1, 0})
	for _, i := range []int{3, 4, 5, 6, 7, 8, 9} {
		o[i].Device = true
	}
	require.Equal(t, 6.5, Calibrate(o, budget(t, "0.9"), 0).Threshold, "right answers are kept at home")
	o[4].Cloud, o[5].Cloud = false, false
	o[8].Device = false
	require.Equal(t, 6.5, Calibrate(o, budget(t, "0.9"), 0).Threshold, "one gain does not pay for two harmful calls")
	require.Equal(t, math.Inf(1), Calibrate(o[3:], budget(t, "0.3"), 0).Threshold)
}

func TestCalibrateProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawOutcomes(t)
		b := budget(t, rapid.SampledFrom([]string{"0", "0.05", "0.3", "1/3", "0.5", "0.99"}).Draw(t, "budget"))
		errors := float64(rapid.IntRange(0, 2).Draw(t, "errors"))
		c := Calibrate(o, b, errors)
		asking := wants(o, c.Threshold)
		require.InDelta(t, c.Share, shareOf(asking), 1e-12, "the threshold does what it says")
		require.LessOrEqual(t, c.Share, c.Target+1e-9)
		// No other threshold within the target answers more prompts rightly.
		right := func(asking []bool) (n int) {
			for i := range o {
				n += count(o[i].right(asking[i]))
			}
			return n
		}
		for i := range o {
			if other := wants(o, o[i].Score); shareOf(other) <= c.Target && (errors > 0 || shareOf(other) <= b.Share()) {
				require.LessOrEqual(t, right(other), right(asking))
			}
		}
		asked, denied := HardBudget(asking, b)
		calls := 0
		for i := range asked {
			require.False(t, asked[i] && !asking[i])
			calls += count(asked[i])
		}
		require.LessOrEqual(t, calls, b.Calls(len(o)))
		require.Equal(t, int(math.Round(shareOf(asking)*float64(len(o)))), calls+denied)
	})
}

func TestHardBudget(t *testing.T) {
	yes := []bool{true, false, true, true, false, true, true, false, false, true}
	asked, denied := HardBudget(yes, budget(t, "0.3"))
	require.Equal(t, []bool{true, false, true, true, false, false, false, false, false, false}, asked)
	require.Equal(t, 3, denied)
	asked, denied = HardBudget(yes, budget(t, "0"))
	require.Equal(t, make([]bool, 10), asked)
	require.Equal(t, 6, denied)
	asked, denied = HardBudget(yes, budget(t, "0.9"))
	require.Equal(t, yes, asked)
	require.Zero(t, denied)
	asked, denied = HardBudget(nil, budget(t, "0.9"))
	require.Empty(t, asked)
	require.Zero(t, denied)
}

// The margin is what keeps a calibrated share within the budget on fresh
// prompts: with one error on 500 and 1,000 prompts, z = 1/√(1+½) = 0.82, so
// that 79 % of runs stay below, and without a margin half of them.
func TestMarginHolds(t *testing.T) {
	within := func(errors float64) float64 {
		n := 0
		const runs = 400
		for run := range runs {
			rng := rand.New(rand.NewPCG(uint64(run), 3))
			draw := func(n int) []float64 {
				v := make([]float64, n)
				for i := range v {
					v[i] = rng.NormFloat64()
				}
				return v
			}
			c := Calibrate(failing(draw(500)), budget(t, "0.3"), errors)
			asking := 0
			for _, s := range draw(1000) {
				asking += count(asksAt(s, c.Threshold))
			}
			n += count(asking <= 300)
		}
		return float64(n) / runs
	}
	require.InDelta(t, 0.79, within(1), 0.08)
	require.InDelta(t, 0.5, within(0), 0.1)
}
