package simd

import "github.com/updraft-ml/updraft/internal/half"

// Matrix products with a second operand in BF16, held as uint16 bit patterns. It
// is widened on the way into registers or, where that costs more, into a copy of a
// slice; sums are float32, and every element is the chain that Gemm describes: the bits
// are those of the product with the same values in float32.
//
// A packed K×N matrix is [ceil(N/16)][ceil(K/2)][16][2]: panels of 16 columns as
// in PackNT, but of pairs of steps of k, so that one shift or one mask widens a
// vector of words. Beyond N and K stand zeros.

// PackedLenBF16 is the number of elements that a packed K×N matrix takes.
func PackedLenBF16(n, k int) int {
	if n < 0 || k < 0 {
		panic(errPackShape)
	}
	return PackedLen(n, k+k%2)
}

// PackNTBF16 packs the transpose of a row-major W[N×K] (element (j,p) at
// w[j*ldw+p]) as the K×N operand of GemmPackedBF16. dst has at least
// PackedLenBF16(n, k) elements and must not overlap w. Packing rows 16q… of W
// alone fills exactly panel q, so packing may be split among threads by panels.
func PackNTBF16(dst, w []uint16, n, k, ldw int) {
	if n < 0 || k < 0 {
		panic(errPackShape)
	}
	if n > 1 && ldw < k {
		panic(errPackStride)
	}
	if n == 0 || k == 0 {
		return
	}
	if len(w) < (n-1)*ldw+k {
		panic(errPackSrc)
	}
	if len(dst) < PackedLenBF16(n, k) {
		panic(errPackDst)
	}
	pairs := k / 2
	size := PanelWidth * (k + k%2)
	for j := 0; j < n; j += PanelWidth {
		panel := dst[j/PanelWidth*size:][:size]
		cols := min(PanelWidth, n-j)
		if cols < PanelWidth {
			clear(panel)
		}
		rows := w[j*ldw:]
		if pairs > 0 {
			transposePairs(pairs, cols, panel, rows, ldw)
		}
		if k%2 == 1 {
			last := panel[pairs*2*PanelWidth:]
			for l := range cols {
				last[2*l], last[2*l+1] = rows[l*ldw+k-1], 0
			}
		}
	}
}

// transposePairsGeneric writes pair q of row l of w to word [q][l] of the panel.
func transposePairsGeneric(pairs, cols int, panel, w []uint16, ldw int) {
	for l := range cols {
		row := w[l*ldw:][:2*pairs]
		for q := range pairs {
			to := panel[(q*PanelWidth+l)*2:][:2]
			to[0], to[1] = row[2*q], row[2*q+1]
		}
	}
}

// PackNNBF16 widens a row-major B[K×N] in BF16 (element (p,j) at b[p*ldb+j]) into
// panels of float32, as PackNN packs it.
func PackNNBF16(dst []float32, b []uint16, n, k, ldb int) {
	if n < 0 || k < 0 {
		panic(errPackShape)
	}
	if k > 1 && ldb < n {
		panic(errPackStride)
	}
	if n == 0 || k == 0 {
		return
	}
	if len(b) < (k-1)*ldb+n {
		panic(errPackSrc)
	}
	if len(dst) < PackedLen(n, k) {
		panic(errPackDst)
	}
	for j := 0; j < n; j += PanelWidth {
		cols := min(PanelWidth, n-j)
		if cols == PanelWidth {
			widenRows(dst[j*k:], b[j:], ldb, k)
			continue
		}
		for p := range k {
			row := dst[j*k+p*PanelWidth:][:PanelWidth]
			half.DecodeBF16(row[:cols], b[p*ldb+j:][:cols])
			clear(row[cols:])
		}
	}
}

// widenRowsGeneric widens k ≥ 1 rows of a whole panel.
func widenRowsGeneric(dst []float32, b []uint16, ldb, k int) {
	for p := range k {
		half.DecodeBF16(dst[p*PanelWidth:][:PanelWidth], b[p*ldb:][:PanelWidth])
	}
}

// GemmPackedBF16 is GemmPacked over a B packed by PackNTBF16. A caller that splits
// N among threads gives each a whole number of panels, PackedLenBF16(PanelWidth, k)
// elements each.
func GemmPackedBF16(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, acc bool) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	if len(packed) < PackedLenBF16(n, k) {
		panic(errGemmB)
	}
	st := startZero
	if acc {
		st = startC
	}
	if m > 0 && n > 0 {
		gemmPackedBF16(m, n, k, a, rsa, csa, packed, c, ldc, nil, st)
	}
}

// GemmPackedBF16Bias is GemmPackedBias over a B packed by PackNTBF16.
func GemmPackedBF16Bias(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	if len(packed) < PackedLenBF16(n, k) {
		panic(errGemmB)
	}
	if len(bias) < n {
		panic(errGemmBias)
	}
	if m > 0 && n > 0 {
		gemmPackedBF16(m, n, k, a, rsa, csa, packed, c, ldc, bias, startBias)
	}
}

// widenSteps is the number of steps of k that the generic product widens at once.
const widenSteps = 64

func gemmPackedBF16Generic(m, n, k int, a []float32, rsa, csa int, packed []uint16, c []float32, ldc int, bias []float32, st start) {
	for i := range m {
		initRow(c[i*ldc:][:n], bias, st)
	}
	var b [widenSteps * PanelWidth]float32
	size := PanelWidth * (k + k%2)
	for j := 0; j < n; j += PanelWidth {
		panel := packed[j/PanelWidth*size:][:size]
		for p := 0; p < k; p += widenSteps {
			kb := min(widenSteps, k-p)
			widenPairsGeneric(b[:], panel[p*PanelWidth:], (kb+1)/2)
			for i := range m {
				gemmRow(c[i*ldc+j:], min(PanelWidth, n-j), kb, a[min(i*rsa+p*csa, len(a)):], csa, b[:], PanelWidth)
			}
		}
	}
}

// widenPairsGeneric widens pairs of rows of a panel.
func widenPairsGeneric(dst []float32, b []uint16, pairs int) {
	for q := range pairs {
		even, odd := dst[2*q*PanelWidth:][:PanelWidth], dst[(2*q+1)*PanelWidth:][:PanelWidth]
		row := b[2*q*PanelWidth:][:2*PanelWidth]
		for l := range even {
			even[l], odd[l] = half.FromBF16(row[2*l]), half.FromBF16(row[2*l+1])
		}
	}
}
