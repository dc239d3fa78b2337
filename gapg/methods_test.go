package gapg

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
)

// handRecords makes a record per prompt: solved says whether the device is
// right, gaps at which bias it asks, after 2 of 10 tokens; unsure is the
// log-prob of each token, negated.
func handRecords(prompts []Prompt, solved string, gaps, unsure []float32) []Record {
	out := make([]Record, len(prompts))
	for i, p := range prompts {
		out[i] = Record{Prompt: p, Tokens: make([]int32, 10), Text: fmt.Sprint("text of ", p.ID), Logprobs: slices.Repeat([]float32{-unsure[i]}, 10),
			Entropies: make([]float32, 10), Gaps: []float32{50, gaps[i]}, Places: []int{1, 2},
			Verdict: Verdict{Correct: solved[i] == '1', Format: true, Answer: fmt.Sprint("answer ", i)}}
	}
	return out
}

func handCloud(right string) []CloudOutcome {
	out := make([]CloudOutcome, len(right))
	for i := range out {
		out[i] = CloudOutcome{Asked: true, Correct: right[i] == '1', Answer: cloud.Answer{Text: fmt.Sprint("cloud ", i), CostUSD: 0.01}}
	}
	return out
}

// handEvidence is ten prompts of each set, every figure of which is worked out
// in TestCompareByHand.
func handEvidence(t testing.TB) Evidence {
	val, test := testPrompts("v", 10), testPrompts("t", 10)
	const cloudRight = "1111111101" // the cloud fails on prompt 8
	//                  prompt:  0    1  2  3  4  5  6  7   8   9
	valGaps := []float32{0.5, 3, 3, 3, 3, 3, 3, -2, -1, 1}
	testGaps := []float32{0.5, 3, 3, 3, 3, 3, 3, -2, -1, 1}
	flat := make([]float32, 10)
	unsure := []float32{.1, .1, .1, .1, .7, .1, .8, .9, .1, .1}
	tuned := "1111110000"
	// On validation every call within the budget gains: calibration uses it up.
	const baseVal, tunedVal, trainedVal, cloudVal = "0111000000", "1111000000", "0111111000", "1111111111"
	return Evidence{
		Budget: budget(t, "0.3"), Seed: 1, Resamples: 200, Methods: AllMethods(),
		Validation: val, Test: test, ValidationCloud: handCloud(cloudVal), TestCloud: handCloud(cloudRight),
		Models: map[string]Measured{
			MethodBase:       {Validation: handRecords(val, baseVal, valGaps, flat), Test: handRecords(test, "1111000000", testGaps, flat)},
			MethodTaskTuning: {Validation: handRecords(val, tunedVal, flat, unsure), Test: handRecords(test, tuned, flat, unsure)},
			MethodGAPG:       {Validation: handRecords(val, trainedVal, valGaps, flat), Test: handRecords(test, "1111111000", testGaps, flat)},
			MethodCollaborationAware: {Validation: handRecords(val, "1111111000", []float32{9, 9, 9, 9, 9, 9, 9, 9, 9, 9}, flat),
				Test: handRecords(test, "1111111000", []float32{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1}, flat)},
			MethodDAGRPO: {Validation: handRecords(val, trainedVal, valGaps, flat), Test: handRecords(test, "1111111000", []float32{-1, -1, -1, -1, 9, 9, 9, 9, 9, 9}, flat)},
		},
		Routers: []RankedBy{
			{"bad", []float64{9, 8, 7, 0, 0, 0, 0, 0, 0, 0}, make([]float64, 10)},
			{"good", []float64{0, 1, 2, 3, 4, 5, 6, 9, 8, 7}, []float64{0, 1, 2, 3, 4, 5, 6, 9, 8, 7}},
		},
		Confidence: ConfidenceScores(testTokenizer(t)),
		SelfCheck: func(p Prompt, response string) bool {
			return !slices.Contains([]string{"5", "8", "9"}, p.ID[2:]) && response == "text of "+p.ID
		},
	}
}

func TestCompareByHand(t *testing.T) {
	res, err := Compare(handEvidence(t))
	require.NoError(t, err)
	const no = -1
	for _, w := range []struct {
		name                                                          string
		overall, device, solo, ratio, natural, pgr, precision, recall float64
	}{
		{"base", .4, .4, .4, 0, no, -2. / 3, no, no},
		// 7, 8 and 0 ask: gained 7.
		{"base-help-bias", .5, 3. / 7, .4, .3, .2, -1. / 3, 2. / 3, 2. / 6},
		{"task-tuning", .6, .6, .6, 0, no, 0, no, no},
		// 7, 8 and 9 ask: gained 7 and 9.
		{"router", .8, 6. / 7, .6, .3, no, 2. / 3, 1, 3. / 4},
		// 7, 6 and 4 ask: gained 7 and 6.
		{"confidence", .8, 5. / 7, .6, .3, no, 2. / 3, 2. / 3, 2. / 4},
		// 5, 8 and 9 ask: gained 9.
		{"self-check", .7, 5. / 7, .6, .3, .3, 1. / 3, 2. / 3, 2. / 4},
		// Calibrated where nobody is to ask: the threshold is below the natural one.
		{"collaboration-aware", .7, .7, .7, 0, 1, 1. / 3, no, 0},
		// 7, 8 and 0 ask: gained 7.
		{"gapg", .8, 6. / 7, .7, .3, .2, 2. / 3, 2. / 3, 2. / 3},
		// 0 to 3 ask and are right anyway; the fourth is denied.
		{"da-grpo", .7, 4. / 7, .7, .3, .4, 1. / 3, 0, 0},
		{"cloud", .9, no, no, 1, no, 1, no, no},
		// 6, 7 and 9: what only the cloud knows.
		{"oracle", .9, 6. / 7, .6, .3, no, 1, 1, 3. / 4},
	} {
		m := res.Method(w.name)
		require.NotNil(t, m, w.name)
		check := func(what string, want float64, got *float64) {
			t.Helper()
			if want == no {
				require.Nil(t, got, "%s: %s", w.name, what)
				return
			}
			require.NotNil(t, got, "%s: %s", w.name, what)
			require.InDelta(t, want, *got, 1e-12, "%s: %s", w.name, what)
		}
		check("overall", w.overall, &m.OverallAccuracy)
		check("device", w.device, m.DeviceAccuracy)
		check("solo", w.solo, m.SoloAccuracy)
		check("ratio", w.ratio, &m.CloudRatio)
		check("natural", w.natural, m.NaturalCloudRatio)
		check("pgr", w.pgr, m.PGR)
		check("precision", w.precision, m.HelpPrecision)
		check("recall", w.recall, m.HelpRecall)
		check("cost", w.ratio*10, m.CostPer1000)
	}
	require.InDelta(t, .3, res.Method(MethodNaive).CloudRatio, 1e-12)
	require.Equal(t, "good", res.Router)
	require.Equal(t, "mean log-prob", res.Confidence)
	require.Equal(t, 1, res.Details[MethodDAGRPO].Figures.Denied)
	require.True(t, res.Details[MethodDAGRPO].Predictions[3].Denied)
	require.Equal(t, "answer 3", res.Details[MethodDAGRPO].Predictions[3].Answer)
	require.Equal(t, "cloud 0", res.Details[MethodDAGRPO].Predictions[0].Answer)

	g := res.Method(MethodGAPG)
	require.Equal(t, 2., *g.TokensBeforeCall)
	require.Equal(t, 10., *g.TokensSolution)
	require.Zero(t, *g.HarmfulCalls)
	require.Zero(t, *res.Method(MethodRouter).TokensBeforeCall)
	require.Equal(t, 10., *res.Method(MethodConfidence).TokensBeforeCall)
	require.InDelta(t, -0.75, res.Details[MethodGAPG].Calibration.Threshold, 1e-12)
	require.Equal(t, MethodGAPG, res.Reference)

	// Differences are at gapg's three calls.
	diff := func(name string) float64 { return res.Method(name).Difference.Mean }
	require.Nil(t, g.Difference)
	require.InDelta(t, 0, diff(MethodRouter), 1e-12)
	require.InDelta(t, -0.1, diff(MethodSelfCheck), 1e-12)
	require.InDelta(t, -0.2, diff(MethodTaskTuning), 1e-12)
	require.InDelta(t, 0.1, diff(MethodOracle), 1e-12)
	require.InDelta(t, 0.1, diff(MethodCloud), 1e-12)
	for _, c := range res.Comparisons {
		require.Equal(t, MethodGAPG, c.A)
		require.InDelta(t, -diff(c.B), c.Difference.Mean, 1e-12)
		require.LessOrEqual(t, c.Difference.Lo, c.Difference.Mean)
		require.GreaterOrEqual(t, c.Difference.Hi, c.Difference.Mean)
	}
}

// Baselines are cut to gapg's number of calls for the comparison, whatever
// their own calibration says.
func TestCompareAtTheSameRatio(t *testing.T) {
	ev := handEvidence(t)
	m := ev.Models[MethodGAPG]
	// One call only: gapg's test prompts ask later than its validation prompts.
	m.Test = handRecords(ev.Test, "1111111000", []float32{3, 3, 3, 3, 3, 3, 3, -2, 3, 3}, make([]float32, 10))
	ev.Models[MethodGAPG] = m
	res, err := Compare(ev)
	require.NoError(t, err)
	require.InDelta(t, .1, res.Method(MethodGAPG).CloudRatio, 1e-12)
	require.InDelta(t, .8, res.Method(MethodGAPG).OverallAccuracy, 1e-12)
	require.InDelta(t, .8, res.Method(MethodRouter).OverallAccuracy, 1e-12, "at its own three calls")
	require.InDelta(t, -.1, res.Method(MethodRouter).Difference.Mean, 1e-12, "with one call it gains 7 alone: 0.7")
	i := slices.IndexFunc(res.Comparisons, func(c report.Comparison) bool { return c.B == MethodRouter })
	require.Equal(t, "overall accuracy with 1 calls each", res.Comparisons[i].Metric)
}

// What was generated counts, and differences from the records are counted.
func TestCompareGenerated(t *testing.T) {
	ev := handEvidence(t)
	m := ev.Models[MethodGAPG]
	asks := Verdict{Help: true}
	for i := range ev.Test {
		r := &m.Test[i]
		g := Generated{Tokens: r.Tokens, Text: r.Text, Verdict: r.Verdict}
		if i == 7 || i == 8 || i == 0 {
			g = Generated{Tokens: r.Tokens[:2], Text: "a" + Marker, Verdict: asks}
		}
		m.Generated = append(m.Generated, g)
	}
	ev.Models[MethodGAPG] = m
	res, err := Compare(ev)
	require.NoError(t, err)
	require.Zero(t, res.ShortcutMismatches)
	require.InDelta(t, .8, res.Method(MethodGAPG).OverallAccuracy, 1e-12)
	require.Len(t, res.Transcripts, 10)
	require.Equal(t, report.AskedEarly, res.Transcripts[slices.IndexFunc(res.Transcripts, func(s report.Transcript) bool { return s.Asked })].Kind)

	m.Generated[1].Verdict = Verdict{Answer: "other"} // wrong after all
	m.Generated[1].Tokens = []int32{1}
	m.Generated[7] = Generated{Tokens: m.Test[7].Tokens, Verdict: Verdict{}} // does not ask after all
	res, err = Compare(ev)
	require.NoError(t, err)
	require.Equal(t, 2, res.ShortcutMismatches)
	require.InDelta(t, .6, res.Method(MethodGAPG).OverallAccuracy, 1e-12)
	require.InDelta(t, .2, res.Method(MethodGAPG).CloudRatio, 1e-12)
	require.Equal(t, "other", res.Details[MethodGAPG].Predictions[1].Answer)
}

func TestCompareEdges(t *testing.T) {
	// Budget 0: nobody asks, nothing divides by zero.
	ev := handEvidence(t)
	ev.Budget = Budget{0, 1}
	res, err := Compare(ev)
	require.NoError(t, err)
	for _, m := range res.Methods {
		if m.Name != MethodCloud {
			require.Zero(t, m.CloudRatio, m.Name)
			require.Nil(t, m.HelpPrecision, m.Name)
			require.Equal(t, *m.SoloAccuracy, m.OverallAccuracy, m.Name)
		}
	}
	// A cloud that is no better than the device: no gap, no PGR.
	ev = handEvidence(t)
	ev.TestCloud = handCloud("1111110000")
	res, err = Compare(ev)
	require.NoError(t, err)
	require.Nil(t, res.Method(MethodGAPG).PGR)
	require.Zero(t, res.Method(MethodOracle).CloudRatio, "no call gains anything")
	// A response that asks even where it may not is a call before all others.
	ev = handEvidence(t)
	ev.Models[MethodGAPG].Test[4].Verdict = Verdict{Help: true}
	res, err = Compare(ev)
	require.NoError(t, err)
	require.True(t, res.Details[MethodGAPG].Predictions[4].Asked)
	require.Equal(t, math.Inf(1), res.Details[MethodGAPG].Predictions[4].Score)
	// No self-check rule: no such row, and no error.
	ev = handEvidence(t)
	ev.SelfCheck = nil
	res, err = Compare(ev)
	require.NoError(t, err)
	require.Nil(t, res.Method(MethodSelfCheck))

	for want, change := range map[string]func(*Evidence){
		"needs the model task-tuning": func(e *Evidence) { delete(e.Models, MethodTaskTuning) },
		"router scores":               func(e *Evidence) { e.Routers = nil },
		"confidence scores":           func(e *Evidence) { e.Confidence = nil },
		"differ in number":            func(e *Evidence) { e.Test = e.Test[1:] },
		"no test prompts":             func(e *Evidence) { e.Test = nil },
		"no methods":                  func(e *Evidence) { e.Methods = nil },
		"no test prompt was resolved": func(e *Evidence) { e.TestCloud = make([]CloudOutcome, 10) },
	} {
		ev := handEvidence(t)
		change(&ev)
		_, err := Compare(ev)
		require.ErrorContains(t, err, want)
	}
}

// Naive offloading draws anew with each seed and not within one.
func TestNaiveFollowsTheSeed(t *testing.T) {
	asked := func(seed uint64) (ids []string) {
		ev := handEvidence(t)
		ev.Seed, ev.Methods = seed, []string{MethodNaive}
		res, err := Compare(ev)
		require.NoError(t, err)
		for _, p := range res.Details[MethodNaive].Predictions {
			if p.Asked {
				ids = append(ids, p.ID)
			}
		}
		return ids
	}
	require.Equal(t, asked(1), asked(1))
	require.NotEqual(t, asked(1), asked(2))
	require.Len(t, asked(3), 3)
}
