//go:build !noasm

package simd

func gemm(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	if use.avx2 && k > 0 {
		gemmTiles(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, st)
		return
	}
	gemmGeneric(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, st)
}

func gemmPacked(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	if use.avx2 && k > 0 {
		gemmPackedTiles(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
		return
	}
	gemmPackedGeneric(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

// tile runs the micro-kernel for rows × 16·panels.
func tile(rows, panels, k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr) {
	switch rows {
	case 1:
		switch panels {
		case 4:
			gemm1x64AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		case 2:
			gemm1x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		default:
			gemm1x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 2:
		if panels == 2 {
			gemm2x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		} else {
			gemm2x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 3:
		if panels == 2 {
			gemm3x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		} else {
			gemm3x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 4:
		gemm4x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	case 5:
		gemm5x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	default:
		gemm6x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	}
}

// copyRows copies k ≥ 1 rows of one whole panel, ldb bytes apart.
func copyRows(dst, b *float32, ldb uintptr, k int) { copyPanelAVX2(dst, b, ldb, k) }

// copyTiles packs k ≥ 1 columns, csa bytes apart, of tiles ≥ 1 tiles of 4 to 6 rows.
func copyTiles(rows int, dst, a *float32, csa uintptr, k, tiles int) {
	switch rows {
	case 4:
		copyTiles4AVX2(dst, a, csa, k, tiles)
	case 5:
		copyTiles5AVX2(dst, a, csa, k, tiles)
	default:
		copyTiles6AVX2(dst, a, csa, k, tiles)
	}
}
