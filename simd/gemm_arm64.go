//go:build !noasm

package simd

func gemm(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	if use.neon && k > 0 {
		gemmTiles(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, st)
		return
	}
	gemmGeneric(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, st)
}

func gemmPacked(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	if use.neon && k > 0 {
		gemmPackedTiles(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
		return
	}
	gemmPackedGeneric(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

const (
	neonRows     = 6 // most rows of a tile
	copyTilesMin = 4 // fewest rows of a tile that copyTiles packs
)

// tileRows is the most rows of a tile.
func tileRows() int { return neonRows }

// blockDepth is the most steps of K of a block: a panel's slice takes 20 KB.
func blockDepth() int { return 320 }

// panelGroup is the number of panels, 1, 2 or 4, that the tiles of a product of m
// rows take at once, so that enough independent chains are in flight to hide the
// latency of a multiply-add.
func panelGroup(m int) int {
	switch {
	case m == 1:
		return 4
	case m <= 3:
		return 2
	}
	return 1
}

// nextRows chooses the rows of the next tile so that the last ones are not left
// with few accumulators.
func nextRows(left int) int {
	switch {
	case left >= 11 || left <= 6:
		return min(left, neonRows)
	case left <= 8:
		return 4
	default:
		return 5
	}
}

// tile runs the micro-kernel for rows × 16·panels.
func tile(rows, panels, k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, _, _ uintptr) {
	switch rows {
	case 1:
		switch panels {
		case 4:
			gemm1x64NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		case 2:
			gemm1x32NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		default:
			gemm1x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 2:
		if panels == 2 {
			gemm2x32NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		} else {
			gemm2x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 3:
		if panels == 2 {
			gemm3x32NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		} else {
			gemm3x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
		}
	case 4:
		gemm4x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	case 5:
		gemm5x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	default:
		gemm6x16NEON(k, a, rsa, csa, b, ldb, bps, c, ldc, init, ldi)
	}
}

func packWhole(dst, b []float32, ldb, k int) {
	if use.neon {
		copyPanelNEON(data(dst), data(b), uintptr(4*ldb), k)
		return
	}
	packWholeGeneric(dst, b, ldb, k)
}

// copyRows copies k ≥ 1 rows of one whole panel, ldb bytes apart.
func copyRows(dst, b *float32, ldb uintptr, k int) { copyPanelNEON(dst, b, ldb, k) }

// copyTiles packs k ≥ 1 columns, csa bytes apart, of tiles ≥ 1 tiles of
// copyTilesMin rows or more.
func copyTiles(rows int, dst, a *float32, csa uintptr, k, tiles int) {
	switch rows {
	case 4:
		copyTiles4NEON(dst, a, csa, k, tiles)
	case 5:
		copyTiles5NEON(dst, a, csa, k, tiles)
	default:
		copyTiles6NEON(dst, a, csa, k, tiles)
	}
}
