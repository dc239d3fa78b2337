//go:build !noasm

package simd

// rowUnits is the number of products that rowUnitsProduct takes, 0 without one.
func rowUnits() int {
	if use.neon {
		return 2
	}
	return 0
}

func rowUnitsProduct(k int, a *float32, aAt *uintptr, b *float32, bAt *uintptr, ldb uintptr, c *float32, cAt *uintptr) {
	rowProductsNEON(k, a, aAt, b, bAt, ldb, c, cAt)
}
