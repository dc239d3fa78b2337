package simd

import "math"

// AdamW holds the scalars of one optimizer step.
type AdamW struct {
	LR          float32 // learning rate η
	Beta1       float32 // decay of the first moment
	Beta2       float32 // decay of the second moment
	Eps         float32 // ε, added to √v̂
	WeightDecay float32 // λ, decoupled
	Bias1       float32 // 1 − β₁ᵗ; 1 for no correction
	Bias2       float32 // 1 − β₂ᵗ; 1 for no correction
	GradScale   float32 // factor on every gradient (clipping, loss scale); 1 for none
}

// Update applies one step of AdamW (Loshchilov and Hutter, 2019) to parameters
// p with gradients g and moments m, v, all of one length:
//
//	g ← GradScale·g (g itself is not written)
//	m ← β₁·m + (1−β₁)·g      v ← β₂·v + (1−β₂)·g²
//	p ← p·(1 − η·λ) − (η/Bias1)·m / (√v/√Bias2 + ε)
//
// The four slices must not overlap.
func (o *AdamW) Update(p, g, m, v []float32) {
	same(len(p), len(g))
	same(len(p), len(m))
	same(len(p), len(v))
	c := adamwConsts{
		gradScale: o.GradScale,
		beta1:     o.Beta1,
		omBeta1:   float32(1 - float64(o.Beta1)),
		beta2:     o.Beta2,
		omBeta2:   float32(1 - float64(o.Beta2)),
		decay:     float32(1 - float64(float64(o.LR)*float64(o.WeightDecay))), // not fused, on any machine
		step:      float32(float64(o.LR) / float64(o.Bias1)),
		rsqrtB2:   float32(1 / math.Sqrt(float64(o.Bias2))),
		eps:       o.Eps,
	}
	adamw(p, g, m, v, &c)
}

// adamwConsts are the factors that the kernels use; assembly reads them by
// offset, in this order.
type adamwConsts struct {
	gradScale, beta1, omBeta1, beta2, omBeta2, decay, step, rsqrtB2, eps float32
}

func adamwGeneric(p, g, m, v []float32, c *adamwConsts) {
	g, m, v = g[:len(p)], m[:len(p)], v[:len(p)]
	for i := range p {
		gi := c.gradScale * g[i]
		mi := float32(c.beta1*m[i]) + float32(c.omBeta1*gi)
		vi := float32(c.beta2*v[i]) + float32(float32(c.omBeta2*gi)*gi)
		m[i], v[i] = mi, vi
		den := float32(float32(math.Sqrt(float64(vi)))*c.rsqrtB2) + c.eps
		p[i] = float32(p[i]*c.decay) - float32(c.step*(mi/den))
	}
}
