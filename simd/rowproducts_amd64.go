//go:build !noasm

package simd

// rowUnits is the most products that a kernel takes at once.
const rowUnits = 4

func rowProducts(n, k int, a []float32, lda, rows int, b []float32, at []int, c []float32) {
	whole := n / 32 * 32
	if !use.avx2 || k == 0 {
		whole = 0
	}
	if whole > 0 {
		units := 2
		if use.avx512 {
			units = 4
		}
		var aAt, bAt, cAt [rowUnits]uintptr
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
				if use.avx512 {
					rowProductsAVX512(k, &a[0], &aAt[0], &b[j], &bAt[0], uintptr(4*n), &c[j], &cAt[0])
				} else {
					rowProductsAVX2(k, &a[0], &aAt[0], &b[j], &bAt[0], uintptr(4*n), &c[j], &cAt[0])
				}
			}
		}
	}
	if whole < n {
		rowProductsEach(whole, n, k, a, lda, rows, b, at, c)
	}
}
