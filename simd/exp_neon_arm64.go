//go:build !noasm

package simd

// expNEON computes dst[i] = exp(x[i]).
//
//go:noescape
func expNEON(dst, x *float32, n int)

// sigmoidNEON computes dst[i] = 1/(1 + exp(−x[i])).
//
//go:noescape
func sigmoidNEON(dst, x *float32, n int)

// swiGLUNEON computes dst[i] = gate[i]/(1 + exp(−gate[i]))·u[i].
//
//go:noescape
func swiGLUNEON(dst, gate, u *float32, n int)

// swiGLUBackwardNEON computes dg[i] = dy·u·s·(1 + gate·(1 − s)) and du[i] =
// dy·s·gate with s = 1/(1 + exp(−gate)).
//
//go:noescape
func swiGLUBackwardNEON(dg, du, dy, gate, u *float32, n int)

// expSubNEON computes dst[i] = exp(x[i] − m) and returns their sum.
//
//go:noescape
func expSubNEON(dst, x *float32, n int, m float32) float32

// sumExpNEON returns Σ exp(d[i]) and Σ d[i]·exp(d[i]) with d[i] = x[i] − m.
//
//go:noescape
func sumExpNEON(x *float32, n int, m float32) (s, t float32)
