package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// split is the number of keys that attention reduces at once. It is a page, so
// that whole splits of a prompt lie in whole pages.
const split = engine.PageSize

// Attention and DecodeAttention go through the two functions below for every
// (query, split), with the split's keys in the same order and its scores from a
// product with the same inner dimension. That is what makes their outputs equal
// bit for bit.

// softmaxSplit turns the scaled scores s[:split] of one query against one split,
// of whose keys the query sees the first n, into weights relative to their
// maximum m, and returns m and the weights' sum. Weights of unseen keys are 0,
// whatever their scores were.
func softmaxSplit(s []float32, n int) (m, sum float32) {
	s = s[:split]
	for j := n; j < split; j++ {
		s[j] = negInf
	}
	m = simd.Max(s[:n])
	return m, simd.ExpSub(s, s, m)
}

var negInf = float32(math.Inf(-1))

// running is the state of one query's online softmax (Milakov and Gimelshein
// 2018): the maximum so far and the sum of weights relative to it.
type running struct{ m, sum float32 }

// merge adds a further split, with maximum m, weights' sum and output os, to a
// query's state and output o. The first split needs no merging: its output is o
// and its m and sum are the state.
func (r *running) merge(o, os []float32, m, sum float32) {
	if r.m >= m {
		e := exp32(m - r.m)
		simd.Axpy(o, e, os)
		r.sum += float32(e * sum)
		return
	}
	e := exp32(r.m - m)
	simd.Scale(o, e, o)
	simd.Add(o, o, os)
	r.sum = float32(e*r.sum) + sum
	r.m = m
}

// finish divides o by the sum of weights.
func (r *running) finish(o []float32) { simd.Scale(o, 1/r.sum, o) }

// lse returns the log of the sum of exponentials.
func (r *running) lse() float32 { return r.m + log32(r.sum) }

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }
func log32(x float32) float32 { return float32(math.Log(float64(x))) }
