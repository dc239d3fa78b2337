package testx

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCloseRejects(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	small := []float64{1e-3, 1e-3, 1e-3}
	for name, c := range map[string]struct{ got, want, tol []float64 }{
		"NaN":                {[]float64{1, nan, 3}, []float64{1, 2, 3}, small},
		"Inf":                {[]float64{1, inf, 3}, []float64{1, 2, 3}, small},
		"-Inf for Inf":       {[]float64{1, -inf, 3}, []float64{1, inf, 3}, small},
		"finite for Inf":     {[]float64{1, 1e300, 3}, []float64{1, inf, 3}, small},
		"finite for NaN":     {[]float64{1, 2, 3}, []float64{1, nan, 3}, small},
		"wrong sign":         {[]float64{1, -2, 3}, []float64{1, 2, 3}, small},
		"both negative":      {[]float64{-1, -2, -3}, []float64{-1, -2, -4}, small},
		"swapped rows":       {[]float64{3, 4, 1, 2}, []float64{1, 2, 3, 4}, []float64{1, 1, 1, 1}},
		"short":              {[]float64{1, 2}, []float64{1, 2, 3}, small},
		"long":               {[]float64{1, 2, 3, 4}, []float64{1, 2, 3}, small},
		"tolerances short":   {[]float64{1, 2, 3}, []float64{1, 2, 3}, small[:2]},
		"NaN tolerance":      {[]float64{1, 2, 3}, []float64{1, 2, 3}, []float64{1, nan, 1}},
		"infinite tolerance": {[]float64{1, 2, 3}, []float64{1, 2, 3}, []float64{1, inf, 1}},
		"negative tolerance": {[]float64{1, 2, 3}, []float64{1, 2, 3}, []float64{1, -1, 1}},
		"zero tolerance":     {[]float64{1, 2, 3}, []float64{1, 2 + 1e-15, 3}, []float64{0, 0, 0}},
		"just over":          {[]float64{1}, []float64{0}, []float64{math.Nextafter(1, 0)}},
		"zeros":              {[]float64{0, 0, 0}, []float64{1, 2, 3}, small},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Close(c.got, c.want, c.tol)
			require.Error(t, err)
		})
	}
}

func TestCloseAccepts(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	r, err := Close([]float32{1, 2.25, -3}, []float64{1, 2, -3}, []float64{1, 1, 1})
	require.NoError(t, err)
	require.Equal(t, 1, r.Worst)
	require.InDelta(t, 25, r.Percent, 1e-9)

	_, err = Close([]float64{inf, -inf, nan, 0}, []float64{inf, -inf, nan, 0}, make([]float64, 4))
	require.NoError(t, err)
	_, err = Close([]float64{1}, []float64{0}, []float64{1})
	require.NoError(t, err, "exactly the tolerance")
	_, err = Close([]float32{}, nil, nil)
	require.NoError(t, err)
}

func TestCloseReportsWorst(t *testing.T) {
	r, err := Close([]float64{1, 5, 9}, []float64{1, 2, 3}, []float64{1, 1, 1})
	require.ErrorContains(t, err, "2 of 3")
	require.Equal(t, 2, r.Worst)
	require.InDelta(t, 600, r.Percent, 1e-9)
	r, err = Close([]float64{9, math.NaN(), 9}, []float64{1, 2, 3}, []float64{1, 1, 1})
	require.Error(t, err)
	require.Equal(t, 1, r.Worst, "NaN is worse than any number")
}

func TestTolerance(t *testing.T) {
	got := Tolerance(3, []float64{2, 0}, []float64{-1, 0})
	require.InEpsilon(t, 7*EpsF32, got[0], 1e-12)
	require.Positive(t, got[1])
	require.Less(t, got[1], 1e-43)
	require.Panics(t, func() { Tolerance(1, []float64{1}, nil) })
	require.Equal(t, 24.0, ChainC(100))
}

// One float32 rounding is within the tolerance of a sum of one product, and
// ten of them are not.
func TestToleranceHasTeeth(t *testing.T) {
	want := []float64{math.Pi}
	tol := Tolerance(ChainC(1), want, want)
	_, err := Close([]float32{float32(math.Pi)}, want, tol)
	require.NoError(t, err)
	x := float32(math.Pi)
	for range 10 {
		x = math.Nextafter32(x, 4)
	}
	_, err = Close([]float32{x}, want, tol)
	require.Error(t, err)
}

func TestIdentical(t *testing.T) {
	nan := float32(math.NaN())
	require.NoError(t, Identical([]float32{1, nan}, []float32{1, nan}))
	require.Error(t, Identical([]float32{1, nan}, []float32{1, 2}))
	require.Error(t, Identical([]float32{0}, []float32{float32(math.Copysign(0, -1))}))
	require.Error(t, Identical([]float32{1}, []float32{1, 2}))
	err := Identical([]float32{1, math.Nextafter32(2, 3)}, []float32{1, 2})
	require.ErrorContains(t, err, "the first at 1")
}

func TestGradCheck(t *testing.T) {
	x := []float64{0.3, -1.7, 2.2}
	f := func() float64 { return math.Exp(x[0])*math.Sin(x[1]) + x[2]*x[2]*x[0] }
	grad := []float64{
		math.Exp(x[0])*math.Sin(x[1]) + x[2]*x[2],
		math.Exp(x[0]) * math.Cos(x[1]),
		2 * x[2] * x[0],
	}
	before := append([]float64(nil), x...)
	require.NoError(t, GradCheck(f, x, grad, nil, 1e-9, 1e-3))
	require.Equal(t, before, x, "the argument is restored")

	for i := range grad {
		bad := append([]float64(nil), grad...)
		bad[i] *= 1 + 1e-5
		require.Error(t, GradCheck(f, x, bad, nil, 1e-6, 1e-3), "element %d", i)
		bad[i] = -grad[i]
		require.Error(t, GradCheck(f, x, bad, []int{i}, 1e-6, 1e-3))
		bad[i] = math.NaN()
		require.Error(t, GradCheck(f, x, bad, nil, 1e-6, 1e-3))
	}
	bad := []float64{grad[0], 0, grad[2]}
	require.NoError(t, GradCheck(f, x, bad, []int{0, 2}, 1e-6, 1e-3), "only the indices asked for")
	require.Error(t, GradCheck(f, x, grad[:2], nil, 1e-6, 1e-3))
	require.Error(t, GradCheck(f, x, grad, nil, 1e-6, 0))
}

func TestHalfULPBF16(t *testing.T) {
	for v, want := range map[float64]float64{
		1: 1.0 / 256, 1.99: 1.0 / 256, 2: 1.0 / 128, 0.75: 1.0 / 512, 0: math.Ldexp(1, -134), math.Ldexp(1, -126): math.Ldexp(1, -134),
	} {
		require.Equal(t, want, HalfULPBF16(v), "%g", v)
	}
}
