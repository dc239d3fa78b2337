package ref

import "math"

// LogSumExp returns log Σ e^z.
func LogSumExp(z []float64) float64 {
	top := math.Inf(-1)
	for _, v := range z {
		if math.IsNaN(v) {
			return v
		}
		top = math.Max(top, v)
	}
	if math.IsInf(top, 0) {
		return top
	}
	sum := 0.0
	for _, v := range z {
		sum += math.Exp(v - top)
	}
	return top + math.Log(sum)
}

// Logits returns scale·x·wᵀ, whole.
func Logits(x, w Mat, scale float64) Mat {
	return Linear(x, w, Mat{}, Mat{}).Map(func(z float64) float64 { return scale * z })
}

// LogProb returns, for each row of z = scale·x·wᵀ, lse = log Σ e^z,
// z_target − lse and the entropy lse − Σ p·z.
func LogProb(x, w Mat, targets []int32, scale float64) (logp, entropy, lse []float64) {
	return Rounding(nil).LogProb(x, w, targets, scale)
}

// LogProb is the function LogProb with rounded logits.
func (r Rounding) LogProb(x, w Mat, targets []int32, scale float64) (logp, entropy, lse []float64) {
	z := Logits(x, w, scale).Map(r.round)
	for t := range z.Rows {
		l, h := LogitStats(z.Row(t))
		lse, entropy = append(lse, l), append(entropy, h)
		logp = append(logp, z.At(t, int(targets[t]))-l)
	}
	return logp, entropy, lse
}

// LogitStats returns the log-sum-exp of z and the entropy of softmax(z).
func LogitStats(z []float64) (lse, entropy float64) {
	lse = LogSumExp(z)
	entropy = lse
	for _, v := range z {
		if p := math.Exp(v - lse); p != 0 {
			entropy -= p * v
		}
	}
	return lse, entropy
}

// LogitGradient returns, for one row of logits z and p = softmax(z),
//
//	dz = dlogp·(onehot(target) − p) − dentropy·p·(log p + entropy).
func LogitGradient(z []float64, target int, lse, entropy, dlogp, dentropy float64) []float64 {
	dz := make([]float64, len(z))
	for v := range z {
		logp := z[v] - lse
		p := math.Exp(logp)
		dz[v] = -dlogp * p
		if v == target {
			dz[v] += dlogp
		}
		if p != 0 {
			dz[v] -= dentropy * p * (logp + entropy)
		}
	}
	return dz
}

// LogProbBackward returns dx = scale·dz·w and dw = scale·dzᵀ·x with dz as in
// LogitGradient. dentropy may be nil; entropy is read only where it is not.
func LogProbBackward(x, w Mat, targets []int32, lse, entropy, dlogp, dentropy []float64, scale float64) (dx, dw Mat) {
	return Rounding(nil).LogProbBackward(x, w, targets, lse, entropy, dlogp, dentropy, scale)
}

// LogProbBackward is the function LogProbBackward with dz rounded before its
// products.
func (r Rounding) LogProbBackward(x, w Mat, targets []int32, lse, entropy, dlogp, dentropy []float64, scale float64) (dx, dw Mat) {
	z := Logits(x, w, scale)
	dx, dw = New(x.Rows, x.Cols), New(w.Rows, w.Cols)
	for t := range x.Rows {
		h, dh := 0.0, 0.0
		if dentropy != nil {
			h, dh = entropy[t], dentropy[t]
		}
		for v, dz := range LogitGradient(z.Row(t), int(targets[t]), lse[t], h, dlogp[t], dh) {
			dz = r.round(dz)
			for c := range x.Cols {
				dx.Row(t)[c] += scale * dz * w.At(v, c)
				dw.Row(v)[c] += scale * dz * x.At(t, c)
			}
		}
	}
	return dx, dw
}
