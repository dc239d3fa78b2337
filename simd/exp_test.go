package simd

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// ulps is the distance of got from want in units of the last place of a float32
// of want's size.
func ulps(want float64, got float32) float64 {
	_, e := math.Frexp(want)
	unit := math.Ldexp(1, max(e-24, -149))
	return math.Abs(float64(got)-want) / unit
}

// TestExpULP sweeps the whole range where the result is neither 0 nor +Inf.
func TestExpULP(t *testing.T) {
	variants(t, func(t *testing.T) {
		const n = 4096
		x, y := make([]float32, 0, n), make([]float32, n)
		worst, worstSub := 0.0, 0.0
		var at, atSub float32
		flush := func() {
			Exp(y[:len(x)], x)
			for i, v := range x {
				want := math.Exp(float64(v))
				u := ulps(want, y[i])
				if want > math.MaxFloat32 {
					if float64(y[i]) < math.MaxFloat32 {
						t.Fatalf("exp(%g) = %g", v, y[i])
					}
					continue
				}
				if want < 0x1p-126 {
					if u > worstSub {
						worstSub, atSub = u, v
					}
				} else if u > worst {
					worst, at = u, v
				}
			}
			x = x[:0]
		}
		step := uint32(1499)
		if testing.Short() {
			step = 14983
		}
		for _, sign := range []uint32{0, 1 << 31} {
			for b := uint32(0); b <= math.Float32bits(105); b += step {
				if x = append(x, math.Float32frombits(b|sign)); len(x) == n {
					flush()
				}
			}
		}
		flush()
		t.Logf("worst %.3f ulp at %g; subnormal %.3f at %g", worst, at, worstSub, atSub)
		require.LessOrEqual(t, worst, expULP)
		require.LessOrEqual(t, worstSub, 1.0)
	})
}

// expULP is the bound that Exp's comment states.
const expULP = 1.5

func TestExpSpecial(t *testing.T) {
	inf := float32(math.Inf(1))
	in := []float32{-inf, inf, float32(math.NaN()), 0, float32(math.Copysign(0, -1)), 1e-45, 88.72283, 88.72284, 1e30, -1e30, -103.972, -103.98, -104, math.MaxFloat32}
	variants(t, func(t *testing.T) {
		out := make([]float32, len(in))
		Exp(out, in)
		require.Equal(t, float32(0), out[0])
		require.Equal(t, inf, out[1])
		require.True(t, out[2] != out[2])
		require.Equal(t, []float32{1, 1, 1}, out[3:6])
		require.Less(t, out[6], inf)
		require.Equal(t, []float32{inf, inf, 0}, out[7:10])
		require.Equal(t, float32(math.SmallestNonzeroFloat32), out[10])
		require.Equal(t, []float32{0, 0, inf}, out[11:])
		require.False(t, slices.ContainsFunc(out, func(v float32) bool { return math.Signbit(float64(v)) && v == 0 }))
	})
}

func TestExpSub(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(21)
		for n := range 258 {
			x := randFloats(r, n)
			for i := range x {
				x[i] *= 4
				if i%11 == 3 {
					x[i] = float32(math.Inf(-1))
				}
			}
			m := Max(x)
			if n == 0 {
				m = 0
			}
			side := testx.Side(n % 2)
			gx, dst := testx.GuardCopy(t, x, side), testx.Guard(t, n, side)
			sum := ExpSub(dst, gx, m)
			s2, t2 := SumExp(gx, m)
			var want, wantT, absT float64
			lanes := [32]float32{}
			for i, v := range x {
				e := math.Exp(float64(v - m))
				want += e
				if e > 0 {
					wantT += float64(v-m) * e
					absT += math.Abs(float64(v-m)) * e
				}
				if !(ulps(e, dst[i]) <= expULP) {
					t.Fatalf("n=%d: dst[%d] = %g, want %g", n, i, dst[i], e)
				}
				lanes[i%32] += dst[i]
			}
			require.Equal(t, laneSum32(&lanes), sum, "n=%d: the stated order", n)
			require.Equal(t, sum, s2, "n=%d: SumExp and ExpSub", n)
			budget := float64(n/32+10) * 2 * eps32
			if !(math.Abs(float64(sum)-want) <= budget*want) || !(math.Abs(float64(t2)-wantT) <= budget*absT+1e-37) {
				t.Fatalf("n=%d: sums %g %g, want %g %g", n, sum, t2, want, wantT)
			}
			requireBits(t, x, gx, "input written")
			shifted := append(make([]float32, 3), x...)[3:]
			require.Equal(t, sum, ExpSub(shifted, shifted, m), "in place, other alignment")
		}
	})
}

func TestSumExpSpecial(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	variants(t, func(t *testing.T) {
		for _, n := range []int{1, 5, 8, 33, 40} {
			for i := range n {
				x := make([]float32, n)
				x[i] = -inf
				s, u := SumExp(x, 0)
				require.Equal(t, float32(n-1), s)
				require.Zero(t, u)
				x[i] = nan
				s, u = SumExp(x, 0)
				require.True(t, s != s && u != u)
				require.True(t, ExpSub(make([]float32, n), x, 0) != 0)
			}
		}
	})
}
