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

// directBF16 is the most rows for which tiles read BF16: there are no such tiles,
// so that a slice of B is always widened first.
const directBF16 = 0

func tileBF16(rows, panels, k int, a *float32, rsa, csa uintptr, b *uint16, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr) {
	panic("simd: gemm: no tiles over BF16")
}

// widenPairs widens pairs ≥ 1 pairs of rows of one panel.
func widenPairs(dst *float32, b *uint16, pairs int) {
	n := 2 * PanelWidth * pairs
	widenPairsGeneric(unsafe.Slice(dst, n), unsafe.Slice(b, n), pairs)
}

func widenRows(dst []float32, b []uint16, ldb, k int) { widenRowsGeneric(dst, b, ldb, k) }

func transposePairs(pairs, cols int, panel, w []uint16, ldw int) {
	transposePairsGeneric(pairs, cols, panel, w, ldw)
}
