package simd

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// TestRowProducts: the bits of Gemm, which has tests of its own against float64,
// for every number of products and rows, and no byte read or written outside.
func TestRowProducts(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(71)
		for _, n := range []int{1, 20, 32, 40, 64, 96} {
			for _, k := range []int{0, 1, 7, 32, 64} {
				for units := range 10 {
					rows, lda, matrices := 1+r.IntN(units+1), k+r.IntN(3), 1+r.IntN(4)
					side := testx.Side(units % 2)
					a := testx.GuardCopy(t, randFloats(r, max(0, (min(rows, units)-1)*lda+k)), side)
					b := testx.GuardCopy(t, randFloats(r, matrices*k*n), side)
					at := make([]int, units)
					for i := range at {
						at[i] = r.IntN(matrices) * k * n
					}
					want, got := make([]float32, units*n), testx.Guard(t, units*n, side)
					for u, off := range at {
						Gemm(1, n, k, a[u%rows*lda:], k, 1, b[off:], n, want[u*n:], n, false)
					}
					RowProducts(n, k, a, lda, rows, b, at, got)
					requireBits(t, want, got, "%d products of %d×%d, %d rows", units, k, n, rows)
				}
			}
		}
	})
}

func TestRowProductsPanics(t *testing.T) {
	f := func(n int) []float32 { return make([]float32, n) }
	for _, call := range []func(){
		func() { RowProducts(32, 4, f(3), 4, 1, f(128), []int{0}, f(32)) },
		func() { RowProducts(32, 4, f(4), 4, 1, f(128), []int{1}, f(32)) },
		func() { RowProducts(32, 4, f(4), 4, 1, f(128), []int{-1}, f(32)) },
		func() { RowProducts(32, 4, f(4), 4, 1, f(128), []int{0, 0}, f(63)) },
		func() { RowProducts(32, 4, f(8), 3, 2, f(128), []int{0, 0}, f(64)) },
		func() { RowProducts(32, 4, f(4), 4, 0, f(128), []int{0}, f(32)) },
	} {
		require.PanicsWithValue(t, errRows, call)
	}
}

// BenchmarkRowProducts measures twelve heads over the keys of three pages.
func BenchmarkRowProducts(b *testing.B) {
	for _, d := range []int{32, 64, 128} {
		b.Run(fmt.Sprint(d), func(b *testing.B) {
			r := newRand(72)
			q, keys, c := randFloats(r, 12*d), randFloats(r, 36*32*d), make([]float32, 36*32)
			at := make([]int, 36)
			for i := range at {
				at[i] = i * 32 * d
			}
			b.ReportAllocs()
			for b.Loop() {
				RowProducts(32, d, q, d, 12, keys, at, c)
			}
			b.ReportMetric(2*36*32*float64(d)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
		})
	}
}
