//go:build noasm || !(amd64 || arm64)

package simd

func gemm(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	gemmGeneric(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, st)
}

func gemmPacked(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	gemmPackedGeneric(m, n, k, a, rsa, csa, packed, c, ldc, bias, st)
}

func packWhole(dst, b []float32, ldb, k int) { packWholeGeneric(dst, b, ldb, k) }
