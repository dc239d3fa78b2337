package gapg

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// handMade is eight prompts in falling order of score, small enough to work
// every figure out by hand: the device solves 5, the cloud 6.
func handMade() []Outcome {
	return []Outcome{
		{ID: "a", Device: false, Cloud: true, Score: 8, TokensBeforeCall: 2, TokensSolution: 10, CostUSD: 1},
		{ID: "b", Device: false, Cloud: true, Score: 7, TokensBeforeCall: 4, TokensSolution: 10, CostUSD: 2},
		{ID: "c", Device: true, Cloud: false, Score: 6, TokensBeforeCall: 6, TokensSolution: 10, CostUSD: 3},
		{ID: "d", Device: false, Cloud: true, Score: 5, TokensBeforeCall: 8, TokensSolution: 10, CostUSD: 4},
		{ID: "e", Device: true, Cloud: true, Score: 4, TokensSolution: 20},
		{ID: "f", Device: true, Cloud: true, Score: 3, TokensSolution: 20},
		{ID: "g", Device: true, Cloud: true, Score: 2, TokensSolution: 30},
		{ID: "h", Device: true, Cloud: false, Score: 1, TokensSolution: 30},
	}
}

func TestCurveByHand(t *testing.T) {
	c := NewCurve(handMade())
	require.Equal(t, []float64{5. / 8, 6. / 8, 7. / 8, 6. / 8, 7. / 8, 7. / 8, 7. / 8, 7. / 8, 6. / 8}, c.Accuracy)
	weak, strong := 5./8, 6./8
	// Mean of the line: (5/2+6+7+6+7+7+7+7+6/2)/8 eighths = 52.5/64.
	require.InDelta(t, (52.5/64-weak)/(strong-weak), c.APGR(weak, strong), 1e-12)
	ratio, ok := c.CPT(0.5, weak, strong)
	require.True(t, ok)
	require.Equal(t, 1./8, ratio)
	ratio, ok = c.CPT(0, weak, strong)
	require.True(t, ok)
	require.Zero(t, ratio)
	_, ok = c.CPT(2.5, weak, strong)
	require.False(t, ok, "the curve never gets that far")
	_, ok = c.CPT(0.5, strong, weak)
	require.False(t, ok, "no gap")
	points := c.Points(4)
	require.Len(t, points, 5)
	require.Equal(t, 0.5, points[2].Ratio)
	require.Equal(t, 7./8, points[2].Accuracy)
	require.Len(t, c.Points(1000), 9, "no more points than prompts")
	require.Empty(t, NewCurve(nil).Points(10))
}

func TestMeasureByHand(t *testing.T) {
	o := handMade()
	f := Measure(o, TopCalls(o, 4))
	require.Equal(t, 8, f.Prompts)
	require.Equal(t, 4, f.Calls)
	require.InDelta(t, 7./8, f.Overall, 1e-12)
	require.InDelta(t, 1, f.Device, 1e-12)
	require.InDelta(t, 5./8, f.Solo, 1e-12)
	require.InDelta(t, 0.5, f.Ratio, 1e-12)
	require.InDelta(t, 3./4, f.HelpPrecision, 1e-12)
	require.InDelta(t, 1, f.HelpRecall, 1e-12)
	require.InDelta(t, 1./4, f.Harmful, 1e-12)
	require.InDelta(t, 5, f.TokensBeforeCall, 1e-12)
	require.InDelta(t, 25, f.TokensSolution, 1e-12)
	require.InDelta(t, 10./8*1000, f.CostPer1000, 1e-9)

	none := Measure(o, TopCalls(o, 0))
	require.True(t, math.IsNaN(none.HelpPrecision) && math.IsNaN(none.Harmful) && math.IsNaN(none.TokensBeforeCall))
	require.Zero(t, none.HelpRecall)
	require.Zero(t, none.CostPer1000)
	all := Measure(o, TopCalls(o, 100))
	require.True(t, math.IsNaN(all.Device) && math.IsNaN(all.TokensSolution))
	require.Equal(t, 1., all.HelpRecall)
	require.InDelta(t, 3./8, all.HelpPrecision, 1e-12)
}

func TestPGR(t *testing.T) {
	require.Equal(t, 0.5, PGR(0.75, 0.5, 1))
	require.True(t, math.IsNaN(PGR(0.75, 0.5, 0.5)))
	require.True(t, math.IsNaN(PGR(0.75, 0.9, 0.5)))
	require.True(t, math.IsNaN(PGR(0.75, math.NaN(), 1)))
}

func TestTopCallsTies(t *testing.T) {
	o := make([]Outcome, 200)
	for i := range o {
		o[i] = Outcome{ID: fmt.Sprint(i), Device: i%2 == 0, Score: 1}
	}
	asked := TopCalls(o, 80)
	require.Equal(t, 0.4, shareOf(asked))
	// Neither the outcome nor the order of the prompts matters to a tie.
	back := slices.Clone(o)
	slices.Reverse(back)
	for i := range back {
		back[i].Device, back[i].Cloud = !back[i].Device, true
	}
	again := TopCalls(back, 80)
	slices.Reverse(again)
	require.Equal(t, asked, again)
	// A NaN, and a prompt that never asks, come last.
	o[3].Score, o[4].Score = math.NaN(), math.Inf(-1)
	asked = TopCalls(o, 198)
	require.False(t, asked[3] || asked[4])
}

// drawOutcomes draws prompts with scores that are often equal.
func drawOutcomes(t *rapid.T) []Outcome {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Outcome {
		return Outcome{
			ID:     rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "id"),
			Device: rapid.Bool().Draw(t, "device"), Cloud: rapid.Bool().Draw(t, "cloud"),
			Score: rapid.OneOf(rapid.Just(math.Inf(-1)), rapid.Just(math.Inf(1)), rapid.Custom(func(t *rapid.T) float64 {
				return float64(rapid.IntRange(-3, 3).Draw(t, "level")) / 4
			})).Draw(t, "score"),
		}
	}), 1, 40).Draw(t, "outcomes")
}

func TestCurveProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := drawOutcomes(t)
		n := len(o)
		c := NewCurve(o)
		require.Len(t, c.Accuracy, n+1)
		weak, strong := Measure(o, make([]bool, n)).Overall, Measure(o, TopCalls(o, n)).Overall
		require.InDelta(t, weak, c.Accuracy[0], 1e-12, "no calls: the device alone")
		require.InDelta(t, strong, c.Accuracy[n], 1e-12, "all calls: the cloud alone")
		if strong > weak {
			require.InDelta(t, 0, PGR(c.Accuracy[0], weak, strong), 1e-12)
			require.InDelta(t, 1, PGR(c.Accuracy[n], weak, strong), 1e-12)
		}
		oracle := NewCurve(Rescored(o, func(i int) float64 { return oracleScore(&o[i]) }))
		var before []bool
		for k := range n + 1 {
			asked := TopCalls(o, k)
			f := Measure(o, asked)
			require.Equal(t, k, f.Calls)
			require.InDelta(t, f.Overall, c.Accuracy[k], 1e-12, "the curve and the figures agree at %d calls", k)
			require.GreaterOrEqual(t, oracle.Accuracy[k], c.Accuracy[k]-1e-12, "nothing beats the oracle at %d calls", k)
			for i := range before {
				require.False(t, before[i] && !asked[i], "who asks with %d calls asks with %d", k-1, k)
			}
			before = asked
		}
	})
}

// A random order lies on the straight line between its ends.
func TestRandomOrderIsAStraightLine(t *testing.T) {
	o := make([]Outcome, 20000)
	for i := range o {
		o[i] = Outcome{ID: fmt.Sprint(i), Device: hash64("d", fmt.Sprint(i))%10 < 6, Cloud: hash64("c", fmt.Sprint(i))%10 < 9}
		o[i].Score = float64(hash64("order", o[i].ID))
	}
	c := NewCurve(o)
	n := len(o)
	for _, ratio := range []float64{0.1, 0.3, 0.5, 0.9} {
		line := c.Accuracy[0] + ratio*(c.Accuracy[n]-c.Accuracy[0])
		require.InDelta(t, line, c.Accuracy[int(ratio*float64(n))], 0.015, "4 standard deviations at %v", ratio)
	}
	require.InDelta(t, 0.5, c.APGR(c.Accuracy[0], c.Accuracy[n]), 0.03)
}
