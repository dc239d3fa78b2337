//go:build !noasm

package simd

import "unsafe"

func gemmPackedBF16(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32, st start) {
	if use.avx2 && k > 0 {
		gemmPackedBF16Tiles(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
		return
	}
	gemmPackedBF16Generic(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

// widensBF16 says whether a product of m rows widens slices of B first. AVX-512
// tiles leave time to do it in registers; for many rows AVX2 ones lose more by it
// than copies cost.
func widensBF16(m int) bool { return !use.avx512 && m > directMax }

// tileBF16 runs the micro-kernel for rows × 16·panels over panels of BF16.
func tileBF16(rows, panels, k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	if use.avx512 {
		tileBF16x512(rows, panels, k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		return
	}
	tileBF16x2(rows, panels, k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
}

func tileBF16x2(rows, panels, k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	switch panels {
	case 4:
		switch rows {
		default:
			gemm1x64BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 2:
		switch rows {
		case 1:
			gemm1x32BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x32BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm3x32BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	default:
		switch rows {
		case 1:
			gemm1x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 3:
			gemm3x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 4:
			gemm4x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 5:
			gemm5x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm6x16BF16AVX2(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	}
}

func tileBF16x512(rows, panels, k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr) {
	switch panels {
	case 4:
		switch rows {
		case 1:
			gemm1x64BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm2x64BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	case 2:
		switch rows {
		case 1:
			gemm1x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 3:
			gemm3x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 4:
			gemm4x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 5:
			gemm5x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 6:
			gemm6x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 7:
			gemm7x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 8:
			gemm8x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 9:
			gemm9x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 10:
			gemm10x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 11:
			gemm11x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm12x32BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	default:
		switch rows {
		case 1:
			gemm1x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 2:
			gemm2x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 3:
			gemm3x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 4:
			gemm4x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 5:
			gemm5x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 6:
			gemm6x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 7:
			gemm7x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 8:
			gemm8x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 9:
			gemm9x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 10:
			gemm10x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		case 11:
			gemm11x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		default:
			gemm12x16BF16AVX512(k, a, rsa, csa, b, bps, c, ldc, init, ldi, ahead, pace)
		}
	}
}

// widenPairs widens pairs ≥ 1 pairs of rows of one panel.
func widenPairs(dst *float32, b *uint16, pairs int) {
	if use.avx512 {
		widenPairsAVX512(dst, b, pairs)
		return
	}
	widenPairsAVX2(dst, b, pairs)
}

func widenRows(dst []float32, b []uint16, ldb, k int) {
	if use.avx2 {
		widenRowsAVX2(data(dst), unsafe.SliceData(b), uintptr(2*ldb), k)
		return
	}
	widenRowsGeneric(dst, b, ldb, k)
}

// transposePairs moves words of two elements as transpose moves floats.
func transposePairs(pairs, cols int, panel, w []uint16, ldw int) {
	if !use.avx2 {
		transposePairsGeneric(pairs, cols, panel, w, ldw)
		return
	}
	blocks, strips := pairs/8, cols/8
	if blocks == 0 {
		strips = 0
	}
	for j := 0; j < 8*strips; j += 8 {
		transpose8AVX2((*float32)(unsafe.Pointer(&panel[2*j])), 4*PanelWidth, (*float32)(unsafe.Pointer(&w[j*ldw])), uintptr(2*ldw), blocks)
	}
	if q := 8 * blocks; strips > 0 && q < pairs {
		transposePairsGeneric(pairs-q, 8*strips, panel[2*q*PanelWidth:], w[2*q:], ldw)
	}
	if j := 8 * strips; j < cols {
		transposePairsGeneric(pairs, cols-j, panel[2*j:], w[j*ldw:], ldw)
	}
}
