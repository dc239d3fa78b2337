package simd

import "math"

// Exp computes dst[i] = eˣ within 1.5 ulp (the largest error found over one in
// five of all arguments is 1.01 ulp; results below 2⁻¹²⁶ are within one step of
// the subnormals): overflow gives +Inf, x below about −103.97 and −Inf give 0, NaN gives
// NaN.
//
// Method: Cody and Waite's reduction x = n·ln2 + r with |r| ≤ ln2/2, the
// minimax polynomial of Cephes' expf for eʳ, and a scaling by 2ⁿ in two exact
// halves, so that subnormal results are rounded once.
func Exp(dst, x []float32) {
	same(len(dst), len(x))
	exp(dst, x)
}

// ExpSub computes dst[i] = exp(x[i] − m) and returns the sum of dst, in float32
// over 32 lanes. It is the inner pass of a softmax whose maximum is m. With
// m = −Inf every element is NaN, as IEEE subtraction has it: a caller with
// wholly masked rows tests for that.
func ExpSub(dst, x []float32, m float32) float32 {
	same(len(dst), len(x))
	return expSub(dst, x, m)
}

// SumExp returns, for d[i] = x[i] − m,
//
//	s = Σ exp(d[i])    t = Σ d[i]·exp(d[i])
//
// each in float32 over 32 lanes; an element −Inf adds nothing to either. With m
// the maximum of a row, log-sum-exp is m + log s and the entropy of the softmax
// is log s − t/s. Chunks with maxima m₁, m₂ merge under m = max(m₁, m₂), with
// δ = m₁ − m:  s₁ ← s₁·e^δ,  t₁ ← e^δ·(t₁ + δ·s₁).
func SumExp(x []float32, m float32) (s, t float32) { return sumExp(x, m) }

// Bounds between which the argument is clamped, and the constants of the
// reduction. ln2Hi has 9 significant bits, so n·ln2Hi is exact.
const (
	expMax   = 89
	expMin   = -104
	log2e    = 1.44269504088896341
	ln2Hi    = 0.693359375
	ln2Lo    = -2.12194440e-4
	expMagic = 3 << 22 // 1.5·2²³: adding it rounds to an integer in the low bits
)

// Coefficients of (eʳ − 1 − r)/r², highest power first.
const (
	expP0 = 1.9875691500e-4
	expP1 = 1.3981999507e-3
	expP2 = 8.3334519073e-3
	expP3 = 4.1665795894e-2
	expP4 = 1.6666665459e-1
	expP5 = 5.0000001201e-1
)

// exp1 is the generic exponential of one value.
func exp1(x float32) float32 {
	if x > expMax {
		x = expMax
	}
	if x < expMin {
		x = expMin
	}
	t := float32(x*log2e) + expMagic
	n := int32(math.Float32bits(t)) - 0x4b400000
	f := t - expMagic
	r := x - float32(f*ln2Hi)
	r -= float32(f * ln2Lo)
	p := float32(expP0)
	p = float32(p*r) + expP1
	p = float32(p*r) + expP2
	p = float32(p*r) + expP3
	p = float32(p*r) + expP4
	p = float32(p*r) + expP5
	p = float32(p*float32(r*r)) + r + 1
	n1 := n >> 1
	n2 := n - n1
	p *= math.Float32frombits(uint32(n1+127) << 23)
	return p * math.Float32frombits(uint32(n2+127)<<23)
}

func expGeneric(dst, x []float32) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = exp1(x[i])
	}
}

func expSubGeneric(dst, x []float32, m float32) float32 {
	x = x[:len(dst)]
	var l [32]float32
	for i := range dst {
		e := exp1(x[i] - m)
		dst[i] = e
		l[i%32] += e
	}
	return laneSum32(&l)
}

func sumExpGeneric(x []float32, m float32) (s, t float32) {
	var ls, lt [32]float32
	for i, v := range x {
		d := v - m
		if d < expMin {
			d = expMin
		}
		e := exp1(d)
		ls[i%32] += e
		lt[i%32] += float32(d * e)
	}
	return laneSum32(&ls), laneSum32(&lt)
}
