//go:build noasm || !(amd64 || arm64)

package simd

func gemmPackedBF16(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32, st start) {
	gemmPackedBF16Generic(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

func widenRows(dst []float32, b []uint16, ldb, k int) { widenRowsGeneric(dst, b, ldb, k) }

func transposePairs(pairs, cols int, panel, w []uint16, ldw int) {
	transposePairsGeneric(pairs, cols, panel, w, ldw)
}
