//go:build !noasm

package simd

// gemm1x64NEON computes a tile of 1 row and 64 columns, and so on; see the
// header of the assembly.
//
//go:noescape
func gemm1x64NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm1x32NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm1x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm2x32NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm2x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm3x32NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm3x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm4x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm5x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm6x16NEON(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

// copyPanelNEON copies k rows of 16 floats, ldb bytes apart, to dst; k ≥ 1.
//
//go:noescape
func copyPanelNEON(dst, b *float32, ldb uintptr, k int)

// copyTiles4NEON packs tiles of 4 rows of a matrix whose columns are contiguous
// and csa bytes apart: dst[(t·k + p)·4 + i] = a[p·csa + 4·t + i]; k ≥ 1, tiles ≥ 1.
// copyTiles5NEON and copyTiles6NEON do it for 5 and 6 rows.
//
//go:noescape
func copyTiles4NEON(dst, a *float32, csa uintptr, k, tiles int)

//go:noescape
func copyTiles5NEON(dst, a *float32, csa uintptr, k, tiles int)

//go:noescape
func copyTiles6NEON(dst, a *float32, csa uintptr, k, tiles int)

// transpose8NEON writes eight columns of dst from eight rows of src, in blocks ≥ 1
// of 4×8: dst[i,j] = src[j,i] for i < 4·blocks, j < 8. Strides in bytes.
//
//go:noescape
func transpose8NEON(dst *float32, ldd uintptr, src *float32, lds uintptr, blocks int)

// rowProductsNEON multiplies 2 rows with matrices of 32 columns, from zero: c_u[j] =
// Σ_p a_u[p]·b_u[p,j], p < k, with a_u, b_u, c_u at the offsets of unit u from a, b
// and c; k ≥ 1. Offsets and ldb in bytes.
//
//go:noescape
func rowProductsNEON(k int, a *float32, aAt *uintptr, b *float32, bAt *uintptr, ldb uintptr, c *float32, cAt *uintptr)
