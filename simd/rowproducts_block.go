//go:build !noasm && (amd64 || arm64)

package simd

// maxRowUnits is the most products that a kernel takes at once.
const maxRowUnits = 4

func rowProducts(n, k int, a []float32, lda, rows int, b []float32, at []int, c []float32) {
	units, whole := rowUnits(), n/32*32
	if units == 0 || k == 0 {
		whole = 0
	}
	if whole > 0 {
		var aAt, bAt, cAt [maxRowUnits]uintptr
		row := 0
		for u := 0; u < len(at); u += units {
			for i := range units {
				if u+i >= len(at) { // the last product once more
					aAt[i], bAt[i], cAt[i] = aAt[i-1], bAt[i-1], cAt[i-1]
					continue
				}
				aAt[i], bAt[i], cAt[i] = uintptr(4*row*lda), uintptr(4*at[u+i]), uintptr(4*(u+i)*n)
				if row++; row == rows {
					row = 0
				}
			}
			for j := 0; j < whole; j += 32 {
				rowUnitsProduct(k, &a[0], &aAt[0], &b[j], &bAt[0], uintptr(4*n), &c[j], &cAt[0])
			}
		}
	}
	if whole < n {
		rowProductsEach(whole, n, k, a, lda, rows, b, at, c)
	}
}
