package simd_test

import (
	"fmt"

	"github.com/updraft-ml/updraft/simd"
)

// A linear layer y = x·Wᵀ + bias: the weight is packed once and serves any
// number of rows, each with the bits that it would have alone.
func ExampleGemmPackedBias() {
	const rows, in, out = 2, 3, 2
	w := []float32{ // [out][in]
		1, 0, -1,
		2, 2, 2,
	}
	bias := []float32{10, 20}
	x := []float32{ // [rows][in]
		1, 2, 3,
		4, 5, 6,
	}
	packed := make([]float32, simd.PackedLen(out, in))
	simd.PackNT(packed, w, out, in, in)

	y := make([]float32, rows*out)
	simd.GemmPackedBias(rows, out, in, x, in, 1, packed, y, out, bias)
	fmt.Println(y)
	// Output: [8 32 8 50]
}

// A softmax with its log-sum-exp.
func ExampleExpSub() {
	x := []float32{0, 0, 0, 0}
	m := simd.Max(x)
	sum := simd.ExpSub(x, x, m)
	simd.Scale(x, 1/sum, x)
	fmt.Println(x)
	// Output: [0.25 0.25 0.25 0.25]
}
