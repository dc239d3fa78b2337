package gapg

import (
	"cmp"
	"math"
	"slices"
)

// Calibration is a threshold on scores, chosen on validation prompts so that
// the share of prompts that ask stays within a budget on others.
type Calibration struct {
	// Threshold: a prompt asks where its score is at least this; +Inf asks never.
	// For the trained models, whose score is −Record.AskBias, the help bias is
	// −Threshold.
	Threshold float64
	// Target is the share aimed at: the budget less the margin.
	Target float64
	Margin float64
	// Share is the share of the validation prompts that ask.
	Share   float64
	Prompts int
}

// Calibrate chooses the threshold with which the most prompts ask without
// going beyond the budget less a margin. The margin is errors standard errors
// of the share, √(s(1−s)/n) for n validation prompts: a share measured on n
// prompts is that uncertain, and without a margin every second run would
// exceed its budget. Prompts with equal scores ask all or not at all. The
// threshold lies halfway between the last score that asks and the first that
// does not, away from the roundings of either.
func Calibrate(scores []float64, b Budget, errors float64) Calibration {
	n := len(scores)
	c := Calibration{Threshold: math.Inf(1), Prompts: n}
	if n == 0 {
		return c
	}
	s := b.Share()
	c.Margin = max(0, errors) * math.Sqrt(s*(1-s)/float64(n))
	c.Target = max(0, s-c.Margin)
	k := b.Calls(n) // exact where there is no margin
	if c.Margin > 0 {
		k = min(k, int(math.Floor(c.Target*float64(n))))
	}
	sorted := slices.Clone(scores)
	slices.SortFunc(sorted, func(a, b float64) int { return cmp.Compare(b, a) })
	// What never asks (−Inf, or NaN, which sorts like it) cannot be made to.
	for k > 0 && !(sorted[k-1] > math.Inf(-1)) {
		k--
	}
	for k > 0 && k < n && sorted[k] == sorted[k-1] {
		k--
	}
	c.Share = float64(k) / float64(n)
	if k > 0 {
		next := math.Inf(-1)
		if k < n {
			next = sorted[k]
		}
		c.Threshold = between(sorted[k-1], next)
	}
	return c
}

// between returns a finite threshold t with lo < t ≤ hi, halfway where both are
// finite.
func between(hi, lo float64) float64 {
	switch {
	case !(lo > math.Inf(-1)):
		return min(hi, math.MaxFloat64)
	case math.IsInf(hi, 1):
		return math.Nextafter(lo, hi)
	}
	if t := lo + (hi-lo)/2; t > lo {
		return t
	}
	return hi
}

// asksAt reports whether a score asks at a threshold. No score asks at +Inf, and
// −Inf asks at none.
func asksAt(score, threshold float64) bool {
	return score >= threshold && threshold < math.Inf(1) && score > math.Inf(-1)
}

// wants returns the prompts that ask at a threshold.
func wants(o []Outcome, threshold float64) []bool {
	w := make([]bool, len(o))
	for i := range o {
		w[i] = asksAt(o[i].Score, threshold)
	}
	return w
}

// HardBudget is the budget at run time over a stream of n prompts in order: the
// first floor(share·n) requests are granted, the later ones denied. A denied
// request is answered on the device with help disabled.
func HardBudget(wants []bool, b Budget) (asked []bool, denied int) {
	left := b.Calls(len(wants))
	asked = make([]bool, len(wants))
	for i, w := range wants {
		switch {
		case !w:
		case left > 0:
			asked[i] = true
			left--
		default:
			denied++
		}
	}
	return asked, denied
}
