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

// Calibrate chooses the threshold that answers most validation prompts rightly
// without asking more often than the budget less a margin; of equals, the one
// that asks less. So a method whose further calls would be about answers that
// are right anyway does not make them. Baselines and trained models are
// calibrated alike.
//
// The margin is errors standard errors of the share, √(s(1−s)/n) for n
// validation prompts: a share measured on n prompts is that uncertain, and
// without a margin every second run would exceed its budget. Prompts with equal
// scores ask all or not at all. The threshold lies halfway between the last
// score that asks and the first that does not, away from the roundings of
// either.
func Calibrate(val []Outcome, b Budget, errors float64) Calibration {
	n := len(val)
	c := Calibration{Threshold: math.Inf(1), Prompts: n}
	if n == 0 {
		return c
	}
	s := b.Share()
	c.Margin = max(0, errors) * math.Sqrt(s*(1-s)/float64(n))
	c.Target = max(0, s-c.Margin)
	most := b.Calls(n) // exact where there is no margin
	if c.Margin > 0 {
		most = min(most, int(math.Floor(c.Target*float64(n))))
	}
	sorted := slices.Clone(val)
	slices.SortFunc(sorted, func(a, b Outcome) int { return cmp.Compare(b.Score, a.Score) })
	best, gain, gained := 0, 0, 0 // against asking nobody
	for k := 1; k <= most; k++ {
		last := &sorted[k-1]
		if !(last.Score > math.Inf(-1)) {
			break // what never asks (−Inf, or NaN, which sorts like it) cannot be made to
		}
		gained += count(last.Cloud) - count(last.Device)
		if (k == n || sorted[k].Score != last.Score) && gained > gain {
			best, gain = k, gained
		}
	}
	c.Share = float64(best) / float64(n)
	if best > 0 {
		next := math.Inf(-1)
		if best < n {
			next = sorted[best].Score
		}
		c.Threshold = between(sorted[best-1].Score, next)
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
