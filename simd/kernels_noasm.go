//go:build noasm || !(amd64 || arm64)

package simd

func transpose(rows, cols int, dst []float32, ldd int, src []float32, lds int) {
	transposeGeneric(rows, cols, dst, ldd, src, lds)
}

func add(dst, a, b []float32)                               { addGeneric(dst, a, b) }
func mul(dst, a, b []float32)                               { mulGeneric(dst, a, b) }
func scale(dst []float32, alpha float32, x []float32)       { scaleGeneric(dst, alpha, x) }
func axpy(dst []float32, alpha float32, x []float32)        { axpyGeneric(dst, alpha, x) }
func scaleMul(dst []float32, alpha float32, x, w []float32) { scaleMulGeneric(dst, alpha, x, w) }
func dot(a, b []float32) float32                            { return dotGeneric(a, b) }
func sum(x []float32) float64                               { return sumGeneric(x) }
func sumSq(x []float32) float64                             { return sumSqGeneric(x) }
func maxOf(x []float32) float32                             { return maxGeneric(x) }
func exp(dst, x []float32)                                  { expGeneric(dst, x) }
func expSub(dst, x []float32, m float32) float32            { return expSubGeneric(dst, x, m) }
func sumExp(x []float32, m float32) (s, t float32)          { return sumExpGeneric(x, m) }
func sigmoid(dst, x []float32)                              { sigmoidGeneric(dst, x) }
func swiGLU(dst, g, u []float32)                            { swiGLUGeneric(dst, g, u) }
func swiGLUBackward(dg, du, dy, g, u []float32)             { swiGLUBackwardGeneric(dg, du, dy, g, u) }
func dot3(a, b, c []float32) float64                        { return dot3Generic(a, b, c) }
func mulAxpy(dst []float32, alpha float32, a, b []float32)  { mulAxpyGeneric(dst, alpha, a, b) }
func rmsNormDX(dx, dy, x, w []float32, rstd, c float32)     { rmsNormDXGeneric(dx, dy, x, w, rstd, c) }
func rmsNormDXAcc(dx, dy, x, w []float32, rstd, c float32) {
	rmsNormDXAccGeneric(dx, dy, x, w, rstd, c)
}
func rotate(x, y, cos, sin []float32, sign float32) { rotateGeneric(x, y, cos, sin, sign) }
func adamw(p, g, m, v []float32, c *adamwConsts)    { adamwGeneric(p, g, m, v, c) }
func softmaxRows(s []float32, scale float32, seen, step int, m, sum []float32) {
	softmaxRowsGeneric(s, scale, seen, step, m, sum)
}
func softmaxGradRows(p, ds []float32, scale float32, seen, step int, lse, delta []float32) {
	softmaxGradRowsGeneric(p, ds, scale, seen, step, lse, delta)
}
func softmaxMerge(m, sum, ms, sums, a, b []float32)            { softmaxMergeGeneric(m, sum, ms, sums, a, b) }
func mergeRows(o, part []float32, d int, a, b []float32)       { mergeRowsGeneric(o, part, d, a, b) }
func sumAbove(x []float32, t float32) (sum float64, count int) { return sumAboveGeneric(x, t) }
func zeroBelow(dst []float32, t float32, x []float32)          { zeroBelowGeneric(dst, t, x) }
