package simd

// PanelWidth is the number of columns in one packed panel of B.
const PanelWidth = 16

const (
	errGemmShape  = "simd: gemm: negative dimension"
	errGemmStride = "simd: gemm: bad stride"
	errGemmA      = "simd: gemm: a too short"
	errGemmB      = "simd: gemm: b too short"
	errGemmC      = "simd: gemm: c too short"
	errGemmBias   = "simd: gemm: bias too short"
	errPackShape  = "simd: pack: negative dimension"
	errPackStride = "simd: pack: bad leading dimension"
	errPackSrc    = "simd: pack: source too short"
	errPackDst    = "simd: pack: destination too short"
)

// start says what the chain of an element of C begins from.
type start int

const (
	startZero start = iota // C = A·B
	startC                 // C += A·B
	startBias              // C = bias + A·B
)

// Gemm computes C = A·B, or C += A·B where acc is set.
//
// A is M×K with element (i,p) at a[i*rsa+p*csa]: rsa=lda, csa=1 is a row-major
// A, rsa=1, csa=lda the transpose of a row-major K×M matrix. B is K×N with
// element (p,j) at b[p*ldb+j]; C is M×N with element (i,j) at c[i*ldc+j].
// c must not overlap a or b. With K = 0, C becomes zero (or stays, with acc).
//
// Each element is the chain
//
//	s₀ = 0 or c[i,j];  s_{p+1} = a[i,p]·b[p,j] + s_p;  c[i,j] = s_K
//
// in float32, one step per p in rising order whatever the shape: see the
// package's numerical contract.
func Gemm(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	checkB(n, k, b, ldb)
	st := startZero
	if acc {
		st = startC
	}
	if m > 0 && n > 0 {
		gemm(m, n, k, a, rsa, csa, b, ldb, c, ldc, nil, st)
	}
}

// GemmBias computes C = bias + A·B with bias[j] added to every row: the bias is
// the start of the chain, so a row equals Gemm with acc over a C that holds the
// bias. Shapes as in Gemm; bias has N elements.
func GemmBias(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, c []float32, ldc int, bias []float32) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	checkB(n, k, b, ldb)
	if len(bias) < n {
		panic(errGemmBias)
	}
	if m > 0 && n > 0 {
		gemm(m, n, k, a, rsa, csa, b, ldb, c, ldc, bias, startBias)
	}
}

// GemmPacked is Gemm over a B packed by PackNT or PackNN, of logical shape
// K×N. A caller that splits N among threads gives each a whole number of
// panels: packed[p*PanelWidth*k:], c[p*PanelWidth:] and the columns left there.
// The bits are those of Gemm on the unpacked B.
func GemmPacked(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, acc bool) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	if len(packed) < PackedLen(n, k) {
		panic(errGemmB)
	}
	st := startZero
	if acc {
		st = startC
	}
	if m > 0 && n > 0 {
		gemmPacked(m, n, k, a, rsa, csa, packed, c, ldc, nil, st)
	}
}

// GemmPackedBias is GemmBias over a packed B.
func GemmPackedBias(m, n, k int, a []float32, rsa, csa int, packed []float32, c []float32, ldc int, bias []float32) {
	checkGemm(m, n, k, a, rsa, csa, c, ldc)
	if len(packed) < PackedLen(n, k) {
		panic(errGemmB)
	}
	if len(bias) < n {
		panic(errGemmBias)
	}
	if m > 0 && n > 0 {
		gemmPacked(m, n, k, a, rsa, csa, packed, c, ldc, bias, startBias)
	}
}

func checkGemm(m, n, k int, a []float32, rsa, csa int, c []float32, ldc int) {
	if m < 0 || n < 0 || k < 0 {
		panic(errGemmShape)
	}
	if rsa < 0 || csa < 0 || (m > 1 && ldc < n) {
		panic(errGemmStride)
	}
	if m == 0 || n == 0 {
		return
	}
	if k > 0 && len(a) <= (m-1)*rsa+(k-1)*csa {
		panic(errGemmA)
	}
	if len(c) < (m-1)*ldc+n {
		panic(errGemmC)
	}
}

func checkB(n, k int, b []float32, ldb int) {
	if k > 1 && ldb < n {
		panic(errGemmStride)
	}
	if n > 0 && k > 0 && len(b) < (k-1)*ldb+n {
		panic(errGemmB)
	}
}

// PackedLen is the number of floats that a packed K×N matrix takes:
// ceil(N/PanelWidth) panels of K·PanelWidth.
func PackedLen(n, k int) int {
	if n < 0 || k < 0 {
		panic(errPackShape)
	}
	return (n + PanelWidth - 1) / PanelWidth * PanelWidth * k
}

// PackNT packs the transpose of a row-major W[N×K] (element (j,p) at
// w[j*ldw+p], the layout of a linear layer's weight) as the K×N operand of
// GemmPacked, which then computes A·Wᵀ.
//
// Layout: [ceil(N/16)][K][16], panel q holding columns 16q … 16q+15 of B with
// zeros beyond N. dst has at least PackedLen(n, k) elements and must not
// overlap w. Packing rows 16q… of W alone fills exactly panel q, so packing may
// be split among threads by panels.
func PackNT(dst, w []float32, n, k, ldw int) {
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
	if len(dst) < PackedLen(n, k) {
		panic(errPackDst)
	}
	for j := 0; j < n; j += PanelWidth {
		panel := dst[j*k:][:PanelWidth*k]
		cols := min(PanelWidth, n-j)
		if cols < PanelWidth {
			clear(panel)
		}
		transpose(k, cols, panel, PanelWidth, w[j*ldw:], ldw)
	}
}

// PackNN packs a row-major B[K×N] (element (p,j) at b[p*ldb+j]) into the panels
// that PackNT describes.
func PackNN(dst, b []float32, n, k, ldb int) {
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
		packPanel(dst[j*k:][:PanelWidth*k], b[j:], ldb, k, min(PanelWidth, n-j))
	}
}

// packPanel copies k rows of cols columns into one panel, zero beyond cols.
func packPanel(dst, b []float32, ldb, k, cols int) {
	if cols == PanelWidth {
		packWhole(dst, b, ldb, k)
		return
	}
	for p := range k {
		row := dst[p*PanelWidth:][:PanelWidth]
		copy(row, b[p*ldb:][:cols])
		clear(row[cols:])
	}
}

// packWholeGeneric copies k rows of a whole panel.
func packWholeGeneric(dst, b []float32, ldb, k int) {
	for p := range k {
		*(*[PanelWidth]float32)(dst[p*PanelWidth:]) = *(*[PanelWidth]float32)(b[p*ldb:])
	}
}
