package ref

import (
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// SampleParams are one row's settings in engine.SampleArgs.
type SampleParams struct {
	Temperature, TopP, MinP, HelpBias float64
	TopK                              int
	SeedLo, SeedHi                    int32
	Step, Prompt, Sample              int32
}

// Uniform returns the row's random number: the first word of Philox with the
// seed as its key and (position, sample, prompt, step) as its counter.
func (p SampleParams) Uniform(position int32) float64 {
	r := engine.Philox([4]uint32{uint32(position), uint32(p.Sample), uint32(p.Prompt), uint32(p.Step)},
		[2]uint32{uint32(p.SeedLo), uint32(p.SeedHi)})
	return float64(engine.Uniform(r[0]))
}

// Distribution returns the probabilities from which a token is drawn: the help
// bias is added to logit biased (none if negative), then follow temperature,
// top-k, top-p and min-p, each on what the one before it has left. On a tie
// the lower index is the more likely token.
func Distribution(logits []float64, p SampleParams, biased int) []float64 {
	z := slices.Clone(logits)
	if biased >= 0 {
		z[biased] += p.HelpBias
	}
	order := make([]int, len(z)) // descending, lower index first on a tie
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case z[a] > z[b]:
			return -1
		case z[a] < z[b]:
			return 1
		}
		return a - b
	})
	out := make([]float64, len(z))
	if p.Temperature == 0 {
		out[order[0]] = 1
		return out
	}
	top := z[order[0]]
	for i := range z {
		out[i] = math.Exp((z[i] - top) / p.Temperature)
	}
	keep := len(order)
	if p.TopK > 0 {
		keep = min(keep, p.TopK)
	}
	if p.TopP < 1 {
		total := 0.0
		for _, i := range order[:keep] {
			total += out[i]
		}
		mass, n := 0.0, 0
		for n < keep && (n == 0 || mass < p.TopP*total) {
			mass += out[order[n]]
			n++
		}
		keep = n
	}
	for keep > 1 && out[order[keep-1]] < p.MinP*out[order[0]] {
		keep--
	}
	for _, i := range order[keep:] {
		out[i] = 0
	}
	total := 0.0
	for _, v := range out {
		total += v
	}
	for i := range out {
		out[i] /= total
	}
	return out
}

// Draw returns the first index whose cumulative probability exceeds u, for u
// in [0, 1), and the cumulative probabilities around it: u lies in [lo, hi).
func Draw(p []float64, u float64) (index int, lo, hi float64) {
	last := -1
	for i, v := range p {
		if v == 0 {
			continue
		}
		lo, hi, last = hi, hi+v, i
		if hi > u {
			break
		}
	}
	return last, lo, hi
}

// SampleState is what a row of engine.SampleArgs carries from step to step.
type SampleState struct {
	Token, Position, Forced int32
}

// SampleResult is what a step reports of the drawn token.
type SampleResult struct {
	LogProb, SamplingLogProb, Entropy float64

	P      []float64 // the distribution drawn from; nil where the token was forced
	U      float64   // the random number
	Lo, Hi float64   // the drawn token's stretch of the cumulative distribution
}

// SampleRow moves one row on by one token, as engine.SampleArgs describes.
// mayFollow says whether the marker may follow the current token.
func SampleRow(logits []float64, p SampleParams, marker []int32, mayFollow bool, s *SampleState) SampleResult {
	lse, entropy := LogitStats(logits)
	r := SampleResult{Entropy: entropy}
	var token int32
	switch {
	case s.Forced > 0:
		token = marker[s.Forced]
		s.Forced = (s.Forced + 1) % int32(len(marker))
	default:
		biased := -1
		if len(marker) > 0 && mayFollow && p.HelpBias != 0 {
			biased = int(marker[0])
		}
		r.P = Distribution(logits, p, biased)
		r.U = p.Uniform(s.Position)
		var i int
		i, r.Lo, r.Hi = Draw(r.P, r.U)
		token = int32(i)
		r.SamplingLogProb = math.Log(r.P[i])
		if i == biased && len(marker) > 1 {
			s.Forced = 1
		}
	}
	r.LogProb = logits[token] - lse
	s.Token = token
	s.Position++
	return r
}
