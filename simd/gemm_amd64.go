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

// Sizes of the micro-kernels' tiles.
const (
	tileRows2    = 6  // AVX2
	tileRows512  = 12 // AVX-512
	copyTilesMin = 4  // fewest rows of a tile that copyTiles packs
)

// tileRows is the most rows of a tile.
func tileRows() int {
	if use.avx512 {
		return tileRows512
	}
	return tileRows2
}

// blockDepth is the most steps of K of a block: with AVX2 a panel's slice takes
// 20 KB.
func blockDepth() int {
	if use.avx512 {
		return 960
	}
	return 320
}

// panelGroup is the number of panels, 1, 2 or 4, that the tiles of a product of m
// rows take at once, so that enough independent chains are in flight to hide the
// latency of a multiply-add.
func panelGroup(m int) int {
	switch {
	case use.avx512 && m > 2:
		return 2
	case use.avx512, m == 1:
		return 4
	case m <= 3:
		return 2
	}
	return 1
}

// nextRows chooses the rows of the next tile so that the last ones are not left
// with few accumulators.
func nextRows(left int) int {
	if use.avx512 {
		if left >= 2*tileRows512 {
			return tileRows512
		}
		return evenBlock(left, tileRows512)
	}
	switch {
	case left >= 11 || left <= 6:
		return min(left, tileRows2)
	case left <= 8:
		return 4
	default:
		return 5
	}
}

// tile runs the micro-kernel for rows × 16·panels.
func tile(rows, panels, k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	if use.avx512 {
		tile512(rows, panels, k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		return
	}
	tile2(rows, panels, k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
}

func tile2(rows, panels, k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	switch rows {
	case 1:
		switch panels {
		case 4:
			gemm1x64AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm1x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm1x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 2:
		if panels == 2 {
			gemm2x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		} else {
			gemm2x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 3:
		if panels == 2 {
			gemm3x32AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		} else {
			gemm3x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 4:
		gemm4x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
	case 5:
		gemm5x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
	default:
		gemm6x16AVX2(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
	}
}

func tile512(rows, panels, k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	switch panels {
	case 4:
		if rows == 1 {
			gemm1x64AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		} else {
			gemm2x64AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 2:
		switch rows {
		case 1:
			gemm1x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 3:
			gemm3x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 4:
			gemm4x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 5:
			gemm5x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 6:
			gemm6x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 7:
			gemm7x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 8:
			gemm8x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 9:
			gemm9x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 10:
			gemm10x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 11:
			gemm11x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm12x32AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	default:
		switch rows {
		case 1:
			gemm1x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 3:
			gemm3x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 4:
			gemm4x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 5:
			gemm5x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 6:
			gemm6x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 7:
			gemm7x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 8:
			gemm8x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 9:
			gemm9x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 10:
			gemm10x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		case 11:
			gemm11x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm12x16AVX512(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi, ahead, pace)
		}
	}
}

func packWhole(dst, b []float32, ldb, k int) {
	if use.avx2 {
		copyPanelAVX2(data(dst), data(b), uintptr(4*ldb), k)
		return
	}
	packWholeGeneric(dst, b, ldb, k)
}

// copyRows copies k ≥ 1 rows of one whole panel, ldb bytes apart.
func copyRows(dst, b *float32, ldb uintptr, k int) { copyPanelAVX2(dst, b, ldb, k) }

// copyTiles packs k ≥ 1 columns, csa bytes apart, of tiles ≥ 1 tiles of
// copyTilesMin rows or more.
func copyTiles(rows int, dst, a *float32, csa uintptr, k, tiles int) {
	if use.avx512 {
		copyTilesAVX512(dst, a, csa, k, tiles, rows)
		return
	}
	switch rows {
	case 4:
		copyTiles4AVX2(dst, a, csa, k, tiles)
	case 5:
		copyTiles5AVX2(dst, a, csa, k, tiles)
	default:
		copyTiles6AVX2(dst, a, csa, k, tiles)
	}
}
