package simd

import "math"

const errLen = "simd: slices differ in length"

func same(n, m int) {
	if n != m {
		panic(errLen)
	}
}

// Add computes dst[i] = a[i] + b[i]. All slices have one length.
func Add(dst, a, b []float32) {
	same(len(dst), len(a))
	same(len(dst), len(b))
	add(dst, a, b)
}

// Mul computes dst[i] = a[i] · b[i]. All slices have one length.
func Mul(dst, a, b []float32) {
	same(len(dst), len(a))
	same(len(dst), len(b))
	mul(dst, a, b)
}

// Scale computes dst[i] = alpha · x[i].
func Scale(dst []float32, alpha float32, x []float32) {
	same(len(dst), len(x))
	scale(dst, alpha, x)
}

// Axpy computes dst[i] += alpha · x[i], one multiply-add per element.
func Axpy(dst []float32, alpha float32, x []float32) {
	same(len(dst), len(x))
	axpy(dst, alpha, x)
}

// ScaleMul computes dst[i] = (alpha · x[i]) · w[i].
func ScaleMul(dst []float32, alpha float32, x, w []float32) {
	same(len(dst), len(x))
	same(len(dst), len(w))
	scaleMul(dst, alpha, x, w)
}

// Dot returns Σ a[i]·b[i] in float32: 32 lanes of multiply-adds, then pairwise.
func Dot(a, b []float32) float32 {
	same(len(a), len(b))
	return dot(a, b)
}

// Sum returns Σ x[i], added in float64 over 16 lanes.
func Sum(x []float32) float64 { return sum(x) }

// SumSq returns Σ x[i]², in float64 over 16 lanes; the squares are exact.
func SumSq(x []float32) float64 { return sumSq(x) }

// Max returns the largest element, −Inf of an empty slice, and NaN if there is
// a NaN. Whether a zero maximum is +0 or −0 is not specified.
func Max(x []float32) float32 { return maxOf(x) }

// SumAbove returns the sum, as Sum adds, and the number of the elements greater
// than t. x has fewer than 2³¹ elements.
func SumAbove(x []float32, t float32) (sum float64, count int) { return sumAbove(x, t) }

// ZeroBelow computes dst[i] = x[i] where x[i] ≥ t, and 0 elsewhere.
func ZeroBelow(dst []float32, t float32, x []float32) {
	same(len(dst), len(x))
	zeroBelow(dst, t, x)
}

// ArgMax returns the index of the first element equal to Max(x), the first NaN
// if there is one, and −1 for an empty slice.
func ArgMax(x []float32) int {
	m := maxOf(x)
	if m != m {
		for i, v := range x {
			if v != v {
				return i
			}
		}
	}
	for i, v := range x {
		if v == m {
			return i
		}
	}
	return -1
}

func addGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] + b[i]
	}
}

func mulGeneric(dst, a, b []float32) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] * b[i]
	}
}

func scaleGeneric(dst []float32, alpha float32, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = alpha * x[i]
	}
}

func axpyGeneric(dst []float32, alpha float32, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += float32(alpha * x[i])
	}
}

func scaleMulGeneric(dst []float32, alpha float32, x, w []float32) {
	x, w = x[:len(dst)], w[:len(dst)]
	for i := range dst {
		dst[i] = float32(alpha*x[i]) * w[i]
	}
}

func dotGeneric(a, b []float32) float32 {
	b = b[:len(a)]
	var l [32]float32
	for i, v := range a {
		l[i%32] += float32(v * b[i])
	}
	return laneSum32(&l)
}

func sumGeneric(x []float32) float64 {
	var l [16]float64
	for i, v := range x {
		l[i%16] += float64(v)
	}
	return laneSum64(&l)
}

func sumSqGeneric(x []float32) float64 {
	var l [16]float64
	for i, v := range x {
		l[i%16] += float64(float64(v) * float64(v))
	}
	return laneSum64(&l)
}

func sumAboveGeneric(x []float32, t float32) (sum float64, count int) {
	var l [16]float64
	for i, v := range x {
		if v > t {
			l[i%16] += float64(v)
			count++
		}
	}
	return laneSum64(&l), count
}

func zeroBelowGeneric(dst []float32, t float32, x []float32) {
	x = x[:len(dst)]
	for i, v := range x {
		if !(v >= t) {
			v = 0
		}
		dst[i] = v
	}
}

func maxGeneric(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		m = max(m, v)
	}
	return m
}

// laneSum32 adds 32 lanes as four vectors of eight do it: vectors (0+1)+(2+3),
// then lane l with l+4, l+2, l+1.
func laneSum32(l *[32]float32) float32 {
	for i := range 8 {
		l[i] = (l[i] + l[i+8]) + (l[i+16] + l[i+24])
	}
	for i := range 4 {
		l[i] += l[i+4]
	}
	return (l[0] + l[2]) + (l[1] + l[3])
}

// laneSum64 adds 16 lanes as four vectors of four do it: vectors (0+1)+(2+3),
// then lane l with l+2, l+1.
func laneSum64(l *[16]float64) float64 {
	for i := range 4 {
		l[i] = (l[i] + l[i+4]) + (l[i+8] + l[i+12])
	}
	return (l[0] + l[2]) + (l[1] + l[3])
}
