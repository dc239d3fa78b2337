//go:build !noasm

package simd

// rowUnits is the number of products that rowUnitsProduct takes, 0 without one.
func rowUnits() int {
	switch {
	case use.avx512:
		return 4
	case use.avx2:
		return 2
	}
	return 0
}

func rowUnitsProduct(k int, a *float32, aAt *uintptr, b *float32, bAt *uintptr, ldb uintptr, c *float32, cAt *uintptr) {
	if use.avx512 {
		rowProductsAVX512(k, a, aAt, b, bAt, ldb, c, cAt)
	} else {
		rowProductsAVX2(k, a, aAt, b, bAt, ldb, c, cAt)
	}
}
