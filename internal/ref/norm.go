package ref

import "math"

// RMSNorm normalises each of groups runs of columns of x and multiplies by w:
// y = x·rstd·w, rstd = 1/√(mean(x²)+eps) [T, groups].
func RMSNorm(x Mat, w []float64, groups int, eps float64) (y, rstd Mat) {
	d := x.Cols / groups
	y, rstd = New(x.Rows, x.Cols), New(x.Rows, groups)
	for t := range x.Rows {
		for g := range groups {
			xs := x.Row(t)[g*d : (g+1)*d]
			sum := 0.0
			for _, v := range xs {
				sum += v * v
			}
			r := 1 / math.Sqrt(sum/float64(d)+eps)
			rstd.Row(t)[g] = r
			for i, v := range xs {
				y.Row(t)[g*d+i] = v * r * w[i]
			}
		}
	}
	return y, rstd
}

// RMSNormBackward returns, with x̂ = x·rstd and per group,
// dx = rstd·(w·dy − x̂·mean(w·dy·x̂)) and dw = Σ dy·x̂ over rows and groups.
func RMSNormBackward(dy, x Mat, w []float64, rstd Mat, groups int) (dx Mat, dw []float64) {
	d := x.Cols / groups
	dx, dw = New(x.Rows, x.Cols), make([]float64, d)
	for t := range x.Rows {
		for g := range groups {
			xs, dys := x.Row(t)[g*d:(g+1)*d], dy.Row(t)[g*d:(g+1)*d]
			r := rstd.At(t, g)
			mean := 0.0
			for i := range d {
				mean += w[i] * dys[i] * xs[i] * r / float64(d)
			}
			for i := range d {
				dx.Row(t)[g*d+i] = r * (w[i]*dys[i] - xs[i]*r*mean)
				dw[i] += dys[i] * xs[i] * r
			}
		}
	}
	return dx, dw
}
