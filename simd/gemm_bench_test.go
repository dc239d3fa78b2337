package simd

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func randFloats(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

var gemmBenchKN = [][2]int{{128, 128}, {128, 384}, {384, 128}, {576, 1536}, {1536, 576}, {896, 4864}}

func shapeName(m, k, n int) string { return fmt.Sprintf("%dx%dx%d", m, k, n) }

// rate runs f in b's loop and reports the rate of its flop per second elapsed
// and, where the system tells, per second of processor time.
func rate(b *testing.B, flop float64, f func()) {
	b.ReportAllocs()
	t := cpuTime()
	for b.Loop() {
		f()
	}
	t = cpuTime() - t
	total := flop * float64(b.N) / 1e9
	b.ReportMetric(total/b.Elapsed().Seconds(), "GFLOP/s")
	if t > 0 {
		b.ReportMetric(total/t.Seconds(), "GFLOP/cpu-s")
	}
}

// BenchmarkPeak runs the largest tiles on operands that never leave the first-level
// cache: what the core's FMA units give, the figure that others are a share of.
func BenchmarkPeak(b *testing.B) {
	const m, n, k = 12, 32, 128
	r := rand.New(rand.NewPCG(1, 2))
	a, w, c := randFloats(r, m*k), randFloats(r, n*k), make([]float32, m*n)
	rate(b, 2*m*n*k, func() { GemmPacked(m, n, k, a, k, 1, w, c, n, false) })
}

func BenchmarkGemm(b *testing.B) {
	for _, kn := range gemmBenchKN {
		k, n := kn[0], kn[1]
		for _, m := range []int{1, 8, 64, 256, 2048} {
			r := rand.New(rand.NewPCG(1, 2))
			a, w, c := randFloats(r, m*k), randFloats(r, k*n), make([]float32, m*n)
			packed := make([]float32, PackedLen(n, k))
			PackNN(packed, w, n, k, n)
			shape := shapeName(m, k, n)
			bytes := int64(4 * (m*k + k*n + m*n))
			b.Run("packed/"+shape, func(b *testing.B) {
				b.SetBytes(bytes)
				rate(b, 2*float64(m)*float64(n)*float64(k), func() { GemmPacked(m, n, k, a, k, 1, packed, c, n, false) })
			})
			b.Run("nn/"+shape, func(b *testing.B) {
				b.SetBytes(bytes)
				rate(b, 2*float64(m)*float64(n)*float64(k), func() { Gemm(m, n, k, a, k, 1, w, n, c, n, false) })
			})
			b.Run("tn/"+shape, func(b *testing.B) {
				b.SetBytes(bytes)
				rate(b, 2*float64(m)*float64(n)*float64(k), func() { Gemm(m, n, k, a, 1, m, w, n, c, n, false) })
			})
		}
	}
}
