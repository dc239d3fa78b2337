package gapg

import (
	"math"
	"strings"

	"github.com/updraft-ml/updraft/model/tokenizer"
)

// A confidence cascade lets the device answer first and sends the answers that
// it was least sure of to the cloud.

// ConfidenceScore is one measure of how unsure a model was of a response: the
// larger, the sooner it asks.
type ConfidenceScore struct {
	Name  string
	Score func(r *Record) float64
}

// ConfidenceScores returns the measures: less the mean, sum and minimum of the
// tokens' log-probs, less the mean log-prob of the last answer's tokens, and
// the mean entropy. An empty response is the least sure.
func ConfidenceScores(tok *tokenizer.Tokenizer) []ConfidenceScore {
	return []ConfidenceScore{
		{"mean log-prob", func(r *Record) float64 { return -mean(r.Logprobs) }},
		{"sum of log-probs", func(r *Record) float64 { return -sum(r.Logprobs) }},
		{"least log-prob", func(r *Record) float64 { return -least(r.Logprobs) }},
		{"mean log-prob of the answer", func(r *Record) float64 {
			from, to := answerTokens(tok, r)
			return -mean(r.Logprobs[from:to])
		}},
		{"mean entropy", func(r *Record) float64 {
			if len(r.Entropies) == 0 {
				return math.Inf(1)
			}
			return mean(r.Entropies)
		}},
	}
}

func sum(v []float32) float64 {
	if len(v) == 0 {
		return math.Inf(-1)
	}
	s := 0.0
	for _, x := range v {
		s += float64(x)
	}
	return s
}

func mean(v []float32) float64 { return sum(v) / float64(max(1, len(v))) }

func least(v []float32) float64 {
	m := math.Inf(1)
	for _, x := range v {
		m = min(m, float64(x))
	}
	if len(v) == 0 {
		return math.Inf(-1)
	}
	return m
}

// answerTokens returns the tokens that write the last answer of a response:
// the last occurrence of what the task extracted, else what stands in the last
// answer tags, else all tokens.
func answerTokens(tok *tokenizer.Tokenizer, r *Record) (from, to int) {
	lo, hi := -1, -1
	if a := r.Verdict.Answer; a != "" {
		if lo = strings.LastIndex(r.Text, a); lo >= 0 {
			hi = lo + len(a)
		}
	}
	if lo < 0 {
		if i, j, ok := lastAnswer(r.Text); ok {
			lo, hi = i, j
		}
	}
	if lo < 0 || lo == hi {
		return 0, len(r.Tokens)
	}
	// Tokens stand for runs of bytes: the answer's are those that overlap it.
	from, to = len(r.Tokens), 0
	pos := 0
	for i, id := range r.Tokens {
		end := pos + len(tok.Decode([]int32{id}))
		if pos < hi && end > lo {
			from, to = min(from, i), i+1
		}
		pos = end
	}
	if from >= to {
		return 0, len(r.Tokens)
	}
	return from, to
}

// bestRanking returns the candidate whose validation accuracy with exactly the
// budget's calls is the highest, the one with the higher APGR among equals, the
// first among equals again. The candidates' outcomes differ in their scores
// alone.
func bestRanking(candidates [][]Outcome, b Budget) int {
	best, bestAcc, bestArea := 0, math.Inf(-1), math.Inf(-1)
	for i, o := range candidates {
		c := NewCurve(o)
		// With weak 0 and strong 1, APGR is the area under the curve, which
		// orders candidates with equal ends as APGR does.
		acc, area := c.Accuracy[b.Calls(len(o))], c.APGR(0, 1)
		if acc > bestAcc || acc == bestAcc && area > bestArea {
			best, bestAcc, bestArea = i, acc, area
		}
	}
	return best
}
