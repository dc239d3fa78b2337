//go:build noasm || !(amd64 || arm64)

package simd

func rowProducts(n, k int, a []float32, lda, rows int, b []float32, at []int, c []float32) {
	rowProductsEach(0, n, k, a, lda, rows, b, at, c)
}
