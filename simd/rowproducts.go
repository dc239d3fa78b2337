package simd

const errRows = "simd: row products: bad shape"

// RowProducts computes len(at) products of one row each, every one with a matrix
// of its own: with B_u the dense K×N matrix whose first element is b[at[u]],
//
//	c[u·N:][:N] = a[(u mod rows)·lda:][:K] · B_u
//
// so that the first rows of a serve in turn where there are more products than
// rows. It is what attention does for one query token: its heads with the keys,
// then the values, of each page that the token sees. The bits are those of Gemm.
func RowProducts(n, k int, a []float32, lda, rows int, b []float32, at []int, c []float32) {
	if len(at) == 0 || n == 0 {
		return
	}
	if n < 0 || k < 0 || rows <= 0 || rows > 1 && lda < k || len(a) < (min(rows, len(at))-1)*lda+k || len(c) < len(at)*n {
		panic(errRows)
	}
	for _, off := range at {
		if off < 0 || off > len(b)-k*n {
			panic(errRows)
		}
	}
	rowProducts(n, k, a, lda, rows, b, at, c)
}

// rowProductsEach is RowProducts of the columns from from on, product by product.
func rowProductsEach(from, n, k int, a []float32, lda, rows int, b []float32, at []int, c []float32) {
	row := 0
	for u, off := range at {
		gemm(1, n-from, k, a[row*lda:], k, 1, b[off:][min(from, k*n):], n, c[u*n+from:], n, nil, startZero)
		if row++; row == rows {
			row = 0
		}
	}
}
