package simd

// The generic product walks B by rows and updates a whole row of C at a time,
// which a compiler without vectorisation runs best. Four steps of k share one
// pass over the row; within it each element's chain stays in order.

func gemmGeneric(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32, st start) {
	for i := range m {
		row := c[i*ldc:][:n]
		initRow(row, bias, st)
		gemmRow(row, n, k, a[min(i*rsa, len(a)):], csa, b, ldb)
	}
}

func gemmPackedGeneric(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32, st start) {
	for i := range m {
		row := c[i*ldc:][:n]
		initRow(row, bias, st)
		ai := a[min(i*rsa, len(a)):]
		for j := 0; j < n; j += PanelWidth {
			cols := min(PanelWidth, n-j)
			gemmRow(row[j:], cols, k, ai, csa, packed[j*k:], PanelWidth)
		}
	}
}

func initRow(row, bias []float32, st start) {
	switch st {
	case startZero:
		clear(row)
	case startBias:
		copy(row, bias)
	}
}

// gemmRow continues the chains of c[0:n] over k rows of b.
func gemmRow(c []float32, n, k int, a []float32, csa int, b []float32, ldb int) {
	c = c[:n]
	p := 0
	for ; p+4 <= k; p += 4 {
		a0, a1, a2, a3 := a[p*csa], a[(p+1)*csa], a[(p+2)*csa], a[(p+3)*csa]
		b0 := b[p*ldb:][:n]
		b1 := b[(p+1)*ldb:][:n]
		b2 := b[(p+2)*ldb:][:n]
		b3 := b[(p+3)*ldb:][:n]
		for j, s := range c {
			s = mulAdd(a0, b0[j], s)
			s = mulAdd(a1, b1[j], s)
			s = mulAdd(a2, b2[j], s)
			c[j] = mulAdd(a3, b3[j], s)
		}
	}
	for ; p < k; p++ {
		a0 := a[p*csa]
		b0 := b[p*ldb:][:n]
		for j, s := range c {
			c[j] = mulAdd(a0, b0[j], s)
		}
	}
}

// mulAdd is a·b + s with one rounding, by way of float64: the product of two
// float32s is exact there, so that it makes no difference whether a compiler
// fuses it into the sum and the bits are the same on every architecture. The
// sum is rounded twice, to float64 and to float32; that differs from a fused
// multiply-add only where the float64 sum lies exactly between two float32s.
func mulAdd(a, b, s float32) float32 { return float32(float64(a)*float64(b) + float64(s)) }
