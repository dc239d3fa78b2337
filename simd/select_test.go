package simd

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// TestSumAboveAndZeroBelow: both agree with Sum over what they keep, for
// thresholds among, equal to and beyond the elements.
func TestSumAboveAndZeroBelow(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	variants(t, func(t *testing.T) {
		r := newRand(71)
		for n := range 140 {
			x := randFloats(r, n)
			if n > 9 {
				x[3], x[5], x[7] = inf, nan, -inf
			}
			for _, at := range []float32{-inf, -1, 0, 0.5, 3, inf, x0(x, n/2), x0(x, n-1)} {
				side := testx.Side(n % 2)
				gx, dst := testx.GuardCopy(t, x, side), testx.Guard(t, n, side)
				above, kept, count := make([]float32, n), make([]float32, n), 0
				for i, v := range x {
					if v > at {
						above[i] = v
						count++
					}
					if v >= at {
						kept[i] = v
					}
				}
				sum, c := SumAbove(gx, at)
				require.Equal(t, count, c, "n=%d above %g", n, at)
				require.Equal(t, math.Float64bits(Sum(above)), math.Float64bits(sum), "n=%d above %g", n, at)
				ZeroBelow(dst, at, gx)
				requireBits(t, kept, dst, "n=%d below %g", n, at)
				requireBits(t, x, gx, "input written")
				ZeroBelow(gx, at, gx)
				requireBits(t, kept, gx, "in place")
			}
		}
	})
}

// x0 is x[i], or 0 where there is none or it is a NaN.
func x0(x []float32, i int) float32 {
	if i < 0 || i >= len(x) || x[i] != x[i] {
		return 0
	}
	return x[i]
}
