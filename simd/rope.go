package simd

// RoPE rotates in place the consecutive heads of one position, each of d
// elements, in the half-split convention (rotate_half of the Hugging Face Llama
// code): with h = d/2, for i < h,
//
//	x[i]   ← x[i]·cos[i] − x[i+h]·sin[i]
//	x[i+h] ← x[i+h]·cos[i] + x[i]·sin[i]
//
// len(x) is a multiple of d; cos and sin hold d/2 elements, for this position.
// (Su et al., 2021.)
func RoPE(x []float32, d int, cos, sin []float32) { rope(x, d, cos, sin, 1) }

// RoPEInverse undoes RoPE: the rotation by the negative angle, which is also
// its backward pass.
func RoPEInverse(x []float32, d int, cos, sin []float32) { rope(x, d, cos, sin, -1) }

func rope(x []float32, d int, cos, sin []float32, sign float32) {
	if d <= 0 || d%2 != 0 || len(x)%d != 0 {
		panic("simd: rope: bad head dimension")
	}
	h := d / 2
	if len(cos) < h || len(sin) < h {
		panic("simd: rope: cos or sin too short")
	}
	cos, sin = cos[:h], sin[:h]
	for ; len(x) > 0; x = x[d:] {
		rotate(x[:h], x[h:d], cos, sin, sign)
	}
}

func rotateGeneric(x, y, cos, sin []float32, sign float32) {
	y, cos, sin = y[:len(x)], cos[:len(x)], sin[:len(x)]
	for i := range x {
		a, b, c, s := x[i], y[i], cos[i], sign*sin[i]
		x[i] = float32(a*c) - float32(b*s)
		y[i] = float32(b*c) + float32(a*s)
	}
}
