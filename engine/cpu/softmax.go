package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// split is the number of keys that attention reduces at once. It is a page, so
// that whole splits of a prompt lie in whole pages, and the width of simd's
// softmax, whose sum over a row then adds one weight in each lane.
const split = engine.PageSize

var _ [0]struct{} = [split - simd.SoftmaxWidth]struct{}{}

// queries is the state of the queries that a tile of Attention or DecodeAttention
// works on. Both do for every (query, split) what the method split does, with the
// split's keys in the same order and its scores from a product with the same inner
// dimension. That is what makes their outputs equal bit for bit.
type queries struct {
	d            int
	scale        float32
	q, out, part []float32 // [n][D]: the queries, their outputs, those of one split
	scores       []float32 // [n][split]
	m, sum       []float32 // [n]: the largest score so far, the sum of weights relative to it
	ms, sums     []float32 // [n]: the same of one split
	a, b         []float32 // [n]: see simd.SoftmaxMerge
}

func newQueries(w *worker, n, d int, scale float32) queries {
	return queries{
		d: d, scale: scale,
		q: w.floats(n * d), out: w.floats(n * d), part: w.floats(n * d), scores: w.floats(n * split),
		m: w.floats(n), sum: w.floats(n), ms: w.floats(n), sums: w.floats(n), a: w.floats(n), b: w.floats(n),
	}
}

// queriesLen is the scratch that newQueries takes.
func queriesLen(n, d int) int { return 3*scratchLen(n*d) + scratchLen(n*split) + 6*scratchLen(n) }

// load sets query i.
func (s *queries) load(i int, q []float32) { copy(s.q[i*s.d:][:s.d], q) }

// split takes queries from..to over split j, whose key panel is [D][split] and
// whose value panel is [split][D]. Query from sees the first seen keys, and each
// further one step more. Unless dirty is set, the values that the last query sees
// hold no NaN or Inf that an earlier one does not see.
func (s *queries) split(from, to, j, seen, step int, keys, values []float32, dirty bool) {
	n, d := to-from, s.d
	scores := s.scores[from*split : to*split]
	m, sum, out := s.m[from:to], s.sum[from:to], s.out[from*d:to*d]
	if j > 0 {
		m, sum, out = s.ms[from:to], s.sums[from:to], s.part[from*d:to*d]
	}
	simd.Gemm(n, split, d, s.q[from*d:], d, 1, keys, split, scores, split, false)
	simd.SoftmaxRows(scores, s.scale, seen, step, m, sum)
	if dirty {
		// A weight of 0 does not hide a NaN in a key that a row does not see.
		for r := range n {
			simd.Gemm(1, d, min(seen+r*step, split), scores[r*split:], split, 1, values, d, out[r*d:], d, false)
		}
	} else {
		simd.Gemm(n, d, min(seen+(n-1)*step, split), scores, split, 1, values, d, out, d, false)
	}
	if j > 0 {
		s.merge(from, to, m, sum, out)
	}
}

// merge adds the maxima, sums and outputs of one more split to queries from..to.
func (s *queries) merge(from, to int, m, sum, part []float32) {
	a, b := s.a[from:to], s.b[from:to]
	simd.SoftmaxMerge(s.m[from:to], s.sum[from:to], m, sum, a, b)
	simd.MergeRows(s.out[from*s.d:], part, s.d, a, b)
}

// finish writes query i's output, divided by the sum of weights.
func (s *queries) finish(i int, o []float32) { simd.Scale(o, 1/s.sum[i], s.out[i*s.d:][:s.d]) }

// lse returns the log of the sum of exponentials of query i's scores.
func (s *queries) lse(i int) float32 { return s.m[i] + log32(s.sum[i]) }

var negInf = float32(math.Inf(-1))

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }
func log32(x float32) float32 { return float32(math.Log(float64(x))) }
