package main

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// compared counts elements and keeps the first that is wrong.
type compared struct{ verdict }

func (c *compared) element(what string, got, want, tolerance float64) {
	c.Compared++
	d := math.Abs(got - want)
	if !(d <= tolerance) && c.err == nil { // so that NaN fails
		c.err = fmt.Errorf("%s is %v, want %v within %v", what, got, want, tolerance)
	}
	if tolerance > 0 && d/tolerance > c.Worst {
		c.Worst = d / tolerance
	}
}

// roundedBF16 is the largest share by which rounding to BF16 changes a number.
const roundedBF16 = 0x1p-8

// dot is Σ a(k)·b(k), and what a tensor core may err by. It adds the 16 products of
// a step and the sum so far after shifting all of them to the exponent of the
// largest and cutting them off there: each of the 17 errs by at most a last place
// of the largest, and so does the result.
func dot(n int, a, b func(k int) float64) (sum, tolerance float64) {
	var largest float64
	for k := range n {
		if k%16 == 0 {
			largest = math.Abs(sum)
		}
		p := a(k) * b(k)
		sum += p
		largest = max(largest, math.Abs(p), math.Abs(sum))
		if k%16 == 15 || k == n-1 {
			tolerance += 18 * 0x1p-23 * largest
		}
	}
	return sum, tolerance
}

// stored is the tolerance of a number once it is stored as a type.
func stored(d engine.DType, want, tolerance float64) float64 {
	if d == engine.BF16 {
		return tolerance + roundedBF16*(math.Abs(want)+tolerance)
	}
	return tolerance
}

// bits reports whether two lists have the same bits.
func sameBits(a, b []float32) bool {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}
