//go:build !noasm

package simd

// addNEON computes dst[i] = a[i] + b[i].
//
//go:noescape
func addNEON(dst, a, b *float32, n int)

// mulNEON computes dst[i] = a[i]·b[i].
//
//go:noescape
func mulNEON(dst, a, b *float32, n int)

// scaleNEON computes dst[i] = alpha·x[i].
//
//go:noescape
func scaleNEON(dst, x *float32, n int, alpha float32)

// axpyNEON computes dst[i] += alpha·x[i].
//
//go:noescape
func axpyNEON(dst, x *float32, n int, alpha float32)

// scaleMulNEON computes dst[i] = (alpha·x[i])·w[i].
//
//go:noescape
func scaleMulNEON(dst, x, w *float32, n int, alpha float32)

// mulAxpyNEON computes dst[i] += (alpha·a[i])·b[i].
//
//go:noescape
func mulAxpyNEON(dst, a, b *float32, n int, alpha float32)

// rmsNormDXNEON computes dx[i] = rstd·(dy[i]·w[i] − c·x[i]).
//
//go:noescape
func rmsNormDXNEON(dx, dy, x, w *float32, n int, rstd, c float32)

// rmsNormDXAccNEON computes dx[i] += rstd·(dy[i]·w[i] − c·x[i]).
//
//go:noescape
func rmsNormDXAccNEON(dx, dy, x, w *float32, n int, rstd, c float32)

// rotateNEON computes x[i], y[i] = x[i]·cos[i] − y[i]·s, y[i]·cos[i] + x[i]·s with
// s = sign·sin[i].
//
//go:noescape
func rotateNEON(x, y, cos, sin *float32, n int, sign float32)

// zeroBelowNEON computes dst[i] = x[i] where x[i] ≥ t, else 0.
//
//go:noescape
func zeroBelowNEON(dst, x *float32, n int, t float32)

// adamwNEON applies one step of AdamW; c points to an adamwConsts.
//
//go:noescape
func adamwNEON(p, grad, m, v *float32, n int, c *float32)

// sumAboveNEON returns the sum, in float64, and the number of the x[i] > t; n < 2³¹.
//
//go:noescape
func sumAboveNEON(x *float32, n int, t float32) (sum float64, count int)

// dotNEON returns Σ a[i]·b[i].
//
//go:noescape
func dotNEON(a, b *float32, n int) float32

// sumNEON returns Σ x[i] in float64.
//
//go:noescape
func sumNEON(x *float32, n int) float64

// sumSqNEON returns Σ x[i]² in float64.
//
//go:noescape
func sumSqNEON(x *float32, n int) float64

// dot3NEON returns Σ (a[i]·b[i])·c[i] in float64.
//
//go:noescape
func dot3NEON(a, b, c *float32, n int) float64

// maxNEON returns the largest x[i], NaN if there is a NaN, −Inf if n is 0.
//
//go:noescape
func maxNEON(x *float32, n int) float32
