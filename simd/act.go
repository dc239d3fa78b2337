package simd

// Sigmoid computes dst[i] = 1/(1 + exp(−x[i])). Below about −88.7 the result is
// 0: exp overflows where the true value is under 3e-39.
func Sigmoid(dst, x []float32) {
	same(len(dst), len(x))
	sigmoid(dst, x)
}

// SwiGLU computes dst[i] = silu(g[i])·u[i] with silu(g) = g/(1 + exp(−g)).
// silu(−Inf) is NaN, as in the formula.
func SwiGLU(dst, g, u []float32) {
	same(len(dst), len(g))
	same(len(dst), len(u))
	swiGLU(dst, g, u)
}

// SwiGLUBackward computes the gradients of y = silu(g)·u from dy, with
// s = sigmoid(g):
//
//	dg = dy·u·s·(1 + g·(1 − s))    du = dy·g·s
//
// dg and du may be any of the inputs, but not one and the same slice.
func SwiGLUBackward(dg, du, dy, g, u []float32) {
	same(len(dg), len(du))
	same(len(dg), len(dy))
	same(len(dg), len(g))
	same(len(dg), len(u))
	swiGLUBackward(dg, du, dy, g, u)
}

func sigmoidGeneric(dst, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = 1 / (1 + exp1(-x[i]))
	}
}

func swiGLUGeneric(dst, g, u []float32) {
	g, u = g[:len(dst)], u[:len(dst)]
	for i := range dst {
		dst[i] = g[i] / (1 + exp1(-g[i])) * u[i]
	}
}

func swiGLUBackwardGeneric(dg, du, dy, g, u []float32) {
	du, dy, g, u = du[:len(dg)], dy[:len(dg)], g[:len(dg)], u[:len(dg)]
	for i := range dg {
		gi, ui, d := g[i], u[i], dy[i]
		s := 1 / (1 + exp1(-gi))
		ds := d * s
		h := float32(gi*(1-s)) + 1
		dg[i] = float32(ds*ui) * h
		du[i] = ds * gi
	}
}
