package simd

import "math"

// SoftmaxWidth is the number of scores in a row of the kernels below: a split of
// attention's keys, and the lanes of a float32 sum.
const SoftmaxWidth = 32

const errSoftmax = "simd: softmax: bad shape"

// SoftmaxRows turns rows of SoftmaxWidth scores, row r at s[r·SoftmaxWidth], into
// the weights of an online softmax. Row r sees its first min(seen + r·step,
// SoftmaxWidth) scores; with x = scale·s over them
//
//	m[r] = max x,   s[r,j] = exp(x[j] − m[r]),   sum[r] = Σ s[r,j]
//
// and 0 for scores that it does not see, whatever they were. The bits are those
// of Scale, Max and ExpSub over what it sees. m and sum have one element for each
// row; seen ≥ 1, step ≥ 0.
func SoftmaxRows(s []float32, scale float32, seen, step int, m, sum []float32) {
	same(len(sum), len(m))
	checkRows(s, len(m), seen, step)
	if len(m) > 0 {
		softmaxRows(s, scale, seen, step, m, sum)
	}
}

// SoftmaxGradRows turns rows of scores p, laid out and seen as in SoftmaxRows,
// into probabilities, and the gradients ds of those into gradients of the scores:
//
//	p[r,j] = exp(scale·p[r,j] − lse[r]),   ds[r,j] = (scale·p[r,j])·(ds[r,j] − delta[r])
//
// and both into 0 where the row does not see the key.
func SoftmaxGradRows(p, ds []float32, scale float32, seen, step int, lse, delta []float32) {
	same(len(lse), len(delta))
	checkRows(p, len(lse), seen, step)
	checkRows(ds, len(lse), seen, step)
	if len(lse) > 0 {
		softmaxGradRows(p, ds, scale, seen, step, lse, delta)
	}
}

func checkRows(s []float32, rows, seen, step int) {
	if len(s) < rows*SoftmaxWidth || seen < 1 || step < 0 || seen > math.MaxInt32/2 || step > SoftmaxWidth {
		panic(errSoftmax)
	}
}

// SoftmaxMerge adds a further split, with maxima ms and sums of weights sums, to
// the state m, sum of as many queries (Milakov and Gimelshein 2018):
//
//	M = max(m, ms),   a = exp(m − M),   b = exp(ms − M),   sum ← a·sum + b·sums,   m ← M
//
// a and b are what MergeRows multiplies the outputs with; one of the two is 1. The
// exponential is computed in float64 and rounded once.
func SoftmaxMerge(m, sum, ms, sums, a, b []float32) {
	n := len(m)
	same(n, len(sum))
	same(n, len(ms))
	same(n, len(sums))
	same(n, len(a))
	same(n, len(b))
	if n > 0 {
		softmaxMerge(m, sum, ms, sums, a, b)
	}
}

// MergeRows computes o[r,i] = b[r]·part[r,i] + (a[r]·o[r,i]) over rows of d
// elements without gaps; the product with a is rounded, that with b fused where
// the instruction set fuses. There are len(a) rows.
func MergeRows(o, part []float32, d int, a, b []float32) {
	same(len(a), len(b))
	if d < 0 || len(o) < len(a)*d || len(part) < len(a)*d {
		panic(errSoftmax)
	}
	if d > 0 && len(a) > 0 {
		mergeRows(o, part, d, a, b)
	}
}

func softmaxRowsGeneric(s []float32, scale float32, seen, step int, m, sum []float32) {
	for r := range m {
		row := s[r*SoftmaxWidth:][:SoftmaxWidth]
		n := min(seen+r*step, SoftmaxWidth)
		clear(row[n:])
		row = row[:n]
		scaleGeneric(row, scale, row)
		m[r] = maxGeneric(row)
		sum[r] = expSubGeneric(row, row, m[r])
	}
}

func softmaxGradRowsGeneric(p, ds []float32, scale float32, seen, step int, lse, delta []float32) {
	for r := range lse {
		pr, dr := p[r*SoftmaxWidth:][:SoftmaxWidth], ds[r*SoftmaxWidth:][:SoftmaxWidth]
		n := min(seen+r*step, SoftmaxWidth)
		clear(pr[n:])
		clear(dr[n:])
		pr, dr = pr[:n], dr[:n]
		scaleGeneric(pr, scale, pr)
		expSubGeneric(pr, pr, lse[r])
		for j, v := range pr {
			dr[j] = float32(scale*v) * (dr[j] - delta[r])
		}
	}
}

func softmaxMergeGeneric(m, sum, ms, sums, a, b []float32) {
	for r := range m {
		if m[r] >= ms[r] {
			e := exp32(ms[r] - m[r])
			a[r], b[r] = 1, e
			sum[r] += float32(e * sums[r])
			continue
		}
		e := exp32(m[r] - ms[r])
		a[r], b[r] = e, 1
		sum[r] = float32(e*sum[r]) + sums[r]
		m[r] = ms[r]
	}
}

func exp32(x float32) float32 { return float32(math.Exp(float64(x))) }

func mergeRowsGeneric(o, part []float32, d int, a, b []float32) {
	for r := range a {
		or, pr := o[r*d:][:d], part[r*d:][:d]
		for i, v := range pr {
			or[i] = float32(b[r]*v) + float32(a[r]*or[i])
		}
	}
}
