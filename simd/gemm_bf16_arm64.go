//go:build !noasm

package simd

import "unsafe"

func gemmPackedBF16(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32, st start) {
	if use.neon && k > 0 {
		gemmPackedBF16Tiles(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
		return
	}
	gemmPackedBF16Generic(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

// widensBF16 says whether a product of m rows widens slices of B first, rather than
// in registers.
func widensBF16(m int) bool { return m > longM }

// tileBF16 runs the micro-kernel for rows × 16·panels over panels of BF16.
func tileBF16(rows, panels, k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, _, _ uintptr) {
	switch rows {
	case 1:
		switch panels {
		case 4:
			gemm1x64BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		case 2:
			gemm1x32BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		default:
			gemm1x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		}
	case 2:
		if panels == 2 {
			gemm2x32BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		} else {
			gemm2x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		}
	case 3:
		if panels == 2 {
			gemm3x32BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		} else {
			gemm3x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
		}
	case 4:
		gemm4x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
	case 5:
		gemm5x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
	default:
		gemm6x16BF16NEON(k, a, rsa, csa, b, bps, c, ldc, init, ldi)
	}
}

// widenPairs widens pairs ≥ 1 pairs of rows of one panel.
func widenPairs(dst *float32, b *uint16, pairs int) { widenPairsNEON(dst, b, pairs) }

func widenRows(dst []float32, b []uint16, ldb, k int) {
	if use.neon {
		widenRowsNEON(data(dst), unsafe.SliceData(b), uintptr(2*ldb), k)
		return
	}
	widenRowsGeneric(dst, b, ldb, k)
}

// transposePairs moves words of two elements as transpose moves floats.
func transposePairs(pairs, cols int, panel, w []uint16, ldw int) {
	if !use.neon {
		transposePairsGeneric(pairs, cols, panel, w, ldw)
		return
	}
	blocks, strips := pairs/4, cols/8
	if blocks == 0 {
		strips = 0
	}
	for j := 0; j < 8*strips; j += 8 {
		transpose8NEON((*float32)(unsafe.Pointer(&panel[2*j])), 4*PanelWidth, (*float32)(unsafe.Pointer(&w[j*ldw])), uintptr(2*ldw), blocks)
	}
	if q := 4 * blocks; strips > 0 && q < pairs {
		transposePairsGeneric(pairs-q, 8*strips, panel[2*q*PanelWidth:], w[2*q:], ldw)
	}
	if j := 8 * strips; j < cols {
		transposePairsGeneric(pairs, cols-j, panel[2*j:], w[j*ldw:], ldw)
	}
}
