package cpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// BenchmarkContract measures what the numerical contract costs: beside each
// operation as it is, the fastest way that we know to do it without the contract,
// on one thread and the same kernels.
//
//   - attention: splits of 32 keys that are merged, so that decoding and training
//     agree; without, all keys that a block of rows sees at once, one softmax.
//   - gemm: one chain over K for each element at every M; without, two chains over
//     half of K each, whose sums are added, which only few rows could gain from.
func BenchmarkContract(b *testing.B) {
	const T, h, kv, d = 512, 9, 3, 64
	b.Run("attention/contract", func(b *testing.B) {
		r := newRig(b, 1, 41)
		p := &engine.Packing{Rows: T, Segments: []engine.Segment{{Len: T}}}
		a := engine.AttentionArgs{O: r.zeros(T, h*d), Q: r.random(T, h*d, 1), K: r.random(T, kv*d, 1), V: r.random(T, kv*d, 1), HeadDim: d, Scale: 0.125, Packing: p}
		perCall(b, func() { r.Attention(a) })
	})
	b.Run("attention/without", func(b *testing.B) {
		r := newRig(b, 1, 41)
		q, k, v := r.floats(r.random(T, h*d, 1)), r.floats(r.random(T, kv*d, 1)), r.floats(r.random(T, kv*d, 1))
		o, keys, scores := make([]float32, T*h*d), make([]float32, T*d), make([]float32, split*T)
		perCall(b, func() { wholeAttention(o, q, k, v, keys, scores, T, h, kv, d, 0.125) })
	})
	for _, s := range [][3]int{{1, 576, 1536}, {8, 576, 1536}, {32, 576, 1536}, {512, 576, 1536}} {
		m, n, k := s[0], s[1], s[2]
		r := newRig(b, 1, 42)
		x, w := r.floats(r.random(m, k, 1)), r.floats(r.random(n, k, 1))
		whole, parts := make([]float32, simd.PackedLen(n, k)), [2][]float32{}
		simd.PackNT(whole, w, n, k, k)
		for i := range parts {
			parts[i] = make([]float32, simd.PackedLen(n, k/2))
			simd.PackNT(parts[i], w[i*k/2:], n, k/2, k)
		}
		y, z := make([]float32, m*n), make([]float32, m*n)
		b.Run(fmt.Sprintf("gemm/M=%d/contract", m), func(b *testing.B) {
			perCall(b, func() { simd.GemmPacked(m, n, k, x, k, 1, whole, y, n, false) })
		})
		b.Run(fmt.Sprintf("gemm/M=%d/without", m), func(b *testing.B) {
			perCall(b, func() {
				simd.GemmPacked(m, n, k/2, x, k, 1, parts[0], y, n, false)
				simd.GemmPacked(m, n, k/2, x[k/2:], k, 1, parts[1], z, n, false)
				simd.Add(y, y, z)
			})
		})
	}
}

// perCall runs f and reports the processor time of a call, which is steadier than
// the clock on a machine that others use too.
func perCall(b *testing.B, f func()) {
	f()
	start := cpuTime()
	for b.Loop() {
		f()
	}
	if used := cpuTime() - start; used > 0 {
		b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	}
}

// wholeAttention is causal attention of one sequence in blocks of split rows, each
// over all keys that its rows see at once.
func wholeAttention(o, q, k, v, keys, scores []float32, n, h, kv, d int, scale float32) {
	for g := range kv {
		simd.Transpose(d, n, keys, n, k[g*d:], kv*d)
		for head := g * h / kv; head < (g+1)*h/kv; head++ {
			for from := 0; from < n; from += split {
				seen := from + split
				simd.Gemm(split, seen, d, q[from*h*d+head*d:], h*d, 1, keys, n, scores, seen, false)
				out := o[from*h*d+head*d:]
				var sums [split]float32
				for r := range split {
					row := scores[r*seen:][:from+r+1]
					clear(scores[r*seen+len(row) : (r+1)*seen])
					simd.Scale(row, scale, row)
					sums[r] = simd.ExpSub(row, row, simd.Max(row))
				}
				simd.Gemm(split, d, seen, scores, seen, 1, v[g*d:], kv*d, out, h*d, false)
				for r := range split {
					y := out[r*h*d:][:d]
					simd.Scale(y, 1/sums[r], y)
				}
			}
		}
	}
}

// TestWholeAttention: what the benchmark compares with computes the same function.
func TestWholeAttention(t *testing.T) {
	const T, h, kv, d = 96, 6, 2, 16
	r := newRig(t, 1, 43)
	p := &engine.Packing{Rows: T, Segments: []engine.Segment{{Len: T}}}
	a := engine.AttentionArgs{O: r.zeros(T, h*d), Q: r.random(T, h*d, 1), K: r.random(T, kv*d, 1), V: r.random(T, kv*d, 1), HeadDim: d, Scale: 0.25, Packing: p}
	r.Attention(a)
	got := make([]float32, T*h*d)
	wholeAttention(got, r.floats(a.Q), r.floats(a.K), r.floats(a.V), make([]float32, T*d), make([]float32, split*T), T, h, kv, d, a.Scale)
	// Each score errs by at most score, in both, hence a weight relatively by twice
	// that and a few units of the exponential, and their average of T values, with
	// its own chain and its merges, by:
	const u = 1.0 / (1 << 24)
	top := func(t engine.Tensor) float64 {
		m := 0.0
		for _, x := range r.floats(t) {
			m = max(m, math.Abs(float64(x)))
		}
		return m
	}
	score := (d + 2) * u * float64(a.Scale) * d * top(a.Q) * top(a.K)
	tol := top(a.V) * (4*score + 2*(T+16)*u)
	for i, want := range r.floats(a.O) {
		if diff := math.Abs(float64(want) - float64(got[i])); !(diff <= tol) {
			t.Fatalf("element %d: %g, want %g", i, got[i], want)
		}
	}
}
