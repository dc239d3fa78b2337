package testx

import (
	"fmt"
	"math"
)

// GradCheck compares grad, the gradient of f at x, with central differences:
// for every i of indices (nil: all)
//
//	g_i ≈ (8(f(x+h) − f(x−h)) − (f(x+2h) − f(x−2h))) / 12h
//
// which is off by h⁴f⁗′/30, f⁗′ the fifth derivative. f reads x, and x is left
// as it was given. h is 1e-3·max(|x_i|, 1): for a smooth f of order 1 in float64
// the truncation is near 1e-13 and rounding contributes about 1e-16/h = 1e-13.
// The relative error |grad − g| / max(|grad|, |g|, floor) must not exceed
// relTol; floor keeps gradients that are zero by structure from being compared
// with rounding noise and should be the size of a typical gradient.
func GradCheck(f func() float64, x, grad []float64, indices []int, relTol, floor float64) error {
	if len(x) != len(grad) {
		return fmt.Errorf("gradient has %d elements, the argument %d", len(grad), len(x))
	}
	if !(floor > 0) || !(relTol > 0) {
		return fmt.Errorf("relative tolerance %g and floor %g must be positive", relTol, floor)
	}
	if indices == nil {
		indices = make([]int, len(x))
		for i := range indices {
			indices[i] = i
		}
	}
	at := func(i int, v float64) float64 {
		x[i] = v
		return f()
	}
	for _, i := range indices {
		old := x[i]
		h := 1e-3 * math.Max(math.Abs(old), 1)
		d1 := at(i, old+h) - at(i, old-h)
		d2 := at(i, old+2*h) - at(i, old-2*h)
		x[i] = old
		num := (8*d1 - d2) / (12 * h)
		rel := math.Abs(grad[i]-num) / math.Max(floor, math.Max(math.Abs(grad[i]), math.Abs(num)))
		if !(rel <= relTol) {
			return fmt.Errorf("gradient at %d is %.12g, central differences give %.12g: relative error %.3g exceeds %.3g",
				i, grad[i], num, rel, relTol)
		}
	}
	return nil
}
