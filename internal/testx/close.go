package testx

import (
	"fmt"
	"math"
)

// Unit roundoffs: the largest relative error of one rounding to nearest.
const (
	EpsF32  = 1.0 / (1 << 24)
	EpsBF16 = 1.0 / (1 << 8)
)

// Float is what the comparators accept.
type Float interface{ ~float32 | ~float64 }

// Report says how near a comparison came to its limit.
type Report struct {
	Worst   int     // index of the element that used most of its budget
	Got     float64 // its value
	Want    float64 // the value expected
	Tol     float64 // its tolerance
	Percent float64 // of the tolerance used: 100·|Got−Want|/Tol
}

// String formats the worst element.
func (r Report) String() string {
	return fmt.Sprintf("worst at %d: got %.9g, want %.9g, off by %.3g, tolerance %.3g (%.0f%% used)",
		r.Worst, r.Got, r.Want, math.Abs(r.Got-r.Want), r.Tol, r.Percent)
}

// Close compares got with want element by element under tol, which holds one
// absolute tolerance for each element. It returns an error when the lengths
// differ, when a tolerance is negative or not finite, or when any element is
// not within its tolerance; a NaN or Inf that was not expected never is. An
// element whose expected value is NaN must be NaN; one whose expected value is
// infinite must be that infinity.
func Close[G Float](got []G, want, tol []float64) (Report, error) {
	r := Report{Worst: -1}
	if len(got) != len(want) || len(tol) != len(want) {
		return r, fmt.Errorf("length mismatch: got %d, want %d, tolerances %d", len(got), len(want), len(tol))
	}
	bad := 0
	for i := range got {
		g, w := float64(got[i]), want[i]
		used := budget(g, w, tol[i])
		if !(used <= 100) {
			bad++
		}
		if r.Worst < 0 || used > r.Percent {
			r = Report{Worst: i, Got: g, Want: w, Tol: tol[i], Percent: used}
		}
	}
	if bad > 0 {
		return r, fmt.Errorf("%d of %d elements out of tolerance; %v", bad, len(want), r)
	}
	return r, nil
}

// budget returns the percent of tol that |g-w| uses, +Inf for whatever cannot
// be within any tolerance.
func budget(g, w, tol float64) float64 {
	switch {
	case !(tol >= 0) || math.IsInf(tol, 1):
		return math.Inf(1)
	case math.IsNaN(w):
		if math.IsNaN(g) {
			return 0
		}
		return math.Inf(1)
	case g == w:
		return 0
	}
	diff := math.Abs(g - w)
	if !(diff <= tol) { // NaN and Inf end here
		if tol == 0 || math.IsNaN(diff) {
			return math.Inf(1)
		}
		// A difference that rounds to 100 % is over the budget all the same.
		return math.Max(100*diff/tol, math.Nextafter(100, 200))
	}
	return math.Min(100*diff/tol, 100)
}

// Tolerance returns the tolerances C·EpsF32·mag[i] + EpsF32·|want[i]| of a sum
// of products in float32, where mag[i] = Σ|a·b| over the products of element
// i and the result is rounded once to float32.
func Tolerance(c float64, mag, want []float64) []float64 {
	if len(mag) != len(want) {
		panic("testx: tolerance: magnitudes and values differ in length")
	}
	tol := make([]float64, len(want))
	for i := range tol {
		tol[i] = c*EpsF32*mag[i] + EpsF32*math.Abs(want[i]) + minTol
	}
	return tol
}

// minTol allows for results that fall among float32's subnormal numbers.
const minTol = 1.0 / (1 << 126) / (1 << 20)

// ChainC is the C of Tolerance for a sum of n products. The worst case of a
// chain of n roundings is n; roundings are not all of one sign, and the error
// of a sum of n of them exceeds 2√n with probability below 1e-4 even if every
// partial sum were as large as the whole Σ|a·b| (Higham and Mary, "A new
// approach to probabilistic rounding error analysis", 2019), while partial
// sums are smaller by √n on data of mixed signs. 4 covers short chains, where
// the worst case is reached.
func ChainC(n int) float64 { return 4 + 2*math.Sqrt(float64(n)) }

// MatrixC is the C of Tolerance for a sum of n products of BF16 numbers in
// matrix units, which add 8 or 16 exact products and the float32 sum so far in
// one step, aligned to the largest of them with the bits below its last place
// cut off, and the result cut off too (Fasi et al., "Numerical behavior of
// NVIDIA tensor cores", 2021). A step of 8 loses at most ten units of its largest
// summand: 16 covers a single one. Over n/8 steps of products of mixed signs the
// sum so far, which is then the largest, grows as the root of what has been
// added: ten times the sum over the steps is below 3√n of Σ|a·b|. Unlike
// roundings, cuts are of one sign, so that C holds for mixed signs alone.
func MatrixC(n int) float64 { return 16 + 4*math.Sqrt(float64(n)) }

// HalfULPBF16 is the largest error of rounding a number up to v in magnitude to
// BF16: half the distance of its neighbours there.
func HalfULPBF16(v float64) float64 {
	if v == 0 {
		return math.Ldexp(1, -134)
	}
	_, e := math.Frexp(math.Abs(v))      // v in [2^(e-1), 2^e)
	return math.Ldexp(1, max(e-9, -134)) // eight bits of significand; subnormal below 2^-126
}

// Identical compares bits and tells the first element that differs. NaNs of
// one payload are identical; 0 and −0 are not.
func Identical(got, want []float32) error {
	if len(got) != len(want) {
		return fmt.Errorf("length mismatch: got %d, want %d", len(got), len(want))
	}
	first, n := -1, 0
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			if n == 0 {
				first = i
			}
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("%d of %d elements differ in bits, the first at %d: got %.9g (%#08x), want %.9g (%#08x)",
			n, len(want), first, got[first], math.Float32bits(got[first]), want[first], math.Float32bits(want[first]))
	}
	return nil
}
