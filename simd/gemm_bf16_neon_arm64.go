//go:build !noasm

package simd

// gemm1x64BF16NEON computes a tile of 1 row and 64 columns, and so on; see the
// header of the assembly.
//
//go:noescape
func gemm1x64BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm1x32BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm1x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm2x32BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm2x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm3x32BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm3x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm4x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm5x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

//go:noescape
func gemm6x16BF16NEON(k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)

// widenPairsNEON widens pairs ≥ 1 pairs of rows of a panel: dst[2p+h, l] is the h-th
// half of word l of pair p.
//
//go:noescape
func widenPairsNEON(dst *float32, b *uint16, pairs int)

// widenRowsNEON widens k ≥ 1 rows of 16 elements, ldb bytes apart.
//
//go:noescape
func widenRowsNEON(dst *float32, b *uint16, ldb uintptr, k int)
