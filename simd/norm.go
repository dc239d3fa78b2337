package simd

import "math"

// RMSNorm normalises one row of N elements and returns rstd:
//
//	rstd = 1/√(Σ x[i]²/N + eps)    y[i] = (x[i]·rstd)·w[i]
//
// The sum and rstd are computed in float64 and rstd is rounded to float32
// before use. (Zhang and Sennrich, 2019.) An empty row returns 0.
func RMSNorm(y, x, w []float32, eps float32) float32 {
	same(len(y), len(x))
	same(len(y), len(w))
	if len(y) == 0 {
		return 0
	}
	r := rstd(x, eps)
	scaleMul(y, r, x, w)
	return r
}

// AddRMSNorm is the residual form of RMSNorm: h[i] = x[i] + r[i], then y is the
// RMSNorm of h. h may be x or r.
func AddRMSNorm(y, h, x, r, w []float32, eps float32) float32 {
	same(len(y), len(h))
	same(len(y), len(x))
	same(len(y), len(r))
	same(len(y), len(w))
	add(h, x, r)
	return RMSNorm(y, h, w, eps)
}

func rstd(x []float32, eps float32) float32 {
	return float32(1 / math.Sqrt(sumSq(x)/float64(len(x))+float64(eps)))
}

// RMSNormBackward computes the gradients of y = RMSNorm(x) for one row, given
// the rstd that the forward returned:
//
//	c     = rstd²·Σ dy[i]·w[i]·x[i] / N       (float64, 16 lanes)
//	dx[i] = rstd·(dy[i]·w[i] − c·x[i])        (+ dx[i] where acc is set)
//	dw[i] += (dy[i]·rstd)·x[i]
//
// dw may be nil for a weight that is not trained. dx may be dy.
func RMSNormBackward(dx, dw, dy, x, w []float32, rstd float32, acc bool) {
	same(len(dx), len(dy))
	same(len(dx), len(x))
	same(len(dx), len(w))
	if len(dx) == 0 {
		return
	}
	r := float64(rstd)
	c := float32(r * r * dot3(dy, w, x) / float64(len(x)))
	if dw != nil {
		same(len(dx), len(dw))
		mulAxpy(dw, rstd, dy, x)
	}
	if acc {
		rmsNormDXAcc(dx, dy, x, w, rstd, c)
	} else {
		rmsNormDX(dx, dy, x, w, rstd, c)
	}
}

func dot3Generic(a, b, c []float32) float64 {
	b, c = b[:len(a)], c[:len(a)]
	var l [16]float64
	for i, v := range a {
		l[i%16] += float64(float64(v) * float64(b[i]) * float64(c[i]))
	}
	return laneSum64(&l)
}

// mulAxpyGeneric: dst[i] += (alpha·a[i])·b[i].
func mulAxpyGeneric(dst []float32, alpha float32, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] += float32(float32(alpha*a[i]) * b[i])
	}
}

func rmsNormDXGeneric(dx, dy, x, w []float32, rstd, c float32) {
	dy, x, w = dy[:len(dx)], x[:len(dx)], w[:len(dx)]
	for i := range dx {
		t := float32(dy[i]*w[i]) - float32(c*x[i])
		dx[i] = rstd * t
	}
}

func rmsNormDXAccGeneric(dx, dy, x, w []float32, rstd, c float32) {
	dy, x, w = dy[:len(dx)], x[:len(dx)], w[:len(dx)]
	for i := range dx {
		t := float32(dy[i]*w[i]) - float32(c*x[i])
		dx[i] += float32(rstd * t)
	}
}
