package engine

import "slices"

// MomentBlock is the number of elements of an 8-bit moment that share a scale.
const MomentBlock = 256

// The maps from codes to values in [-1, 1] and [0, 1] are the dynamic maps of
// Dettmers et al. (2022, "8-bit optimizers via block-wise quantization"), as
// bitsandbytes makes them: seven decades down from one; decade i from below is
// cut into 2^i equal parts for each sign, or 2^(i+1) where there is none, and
// holds their centres; besides, 0 and 1. They ascend.

// SignedMomentMap returns the values of the codes of the first moment.
func SignedMomentMap() [256]float32 { return momentMap(true) }

// UnsignedMomentMap returns the values of the codes of the second moment.
func UnsignedMomentMap() [256]float32 { return momentMap(false) }

func momentMap(signed bool) [256]float32 {
	values := []float64{0, 1}
	decade := 1e-6
	for i := range 7 {
		parts := 1 << i
		if !signed {
			parts *= 2
		}
		for j := range parts {
			centre := decade * (0.1 + 0.9*(float64(j)+0.5)/float64(parts))
			values = append(values, centre)
			if signed {
				values = append(values, -centre)
			}
		}
		decade *= 10
	}
	slices.Sort(values)
	var m [256]float32
	for i, v := range values {
		m[i] = float32(v)
	}
	return m
}
