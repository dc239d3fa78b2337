package ref

import "math"

// Sigmoid returns 1/(1+e^−x).
func Sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// SwiGLU returns gate·σ(gate)·up.
func SwiGLU(gate, up Mat) Mat {
	y := New(gate.Rows, gate.Cols)
	for i, g := range gate.V {
		y.V[i] = g * Sigmoid(g) * up.V[i]
	}
	return y
}

// SwiGLUBackward returns dgate = dy·up·σ·(1+gate·(1−σ)) and dup = dy·gate·σ.
func SwiGLUBackward(dy, gate, up Mat) (dgate, dup Mat) {
	dgate, dup = New(gate.Rows, gate.Cols), New(gate.Rows, gate.Cols)
	for i, g := range gate.V {
		s := Sigmoid(g)
		dgate.V[i] = dy.V[i] * up.V[i] * s * (1 + g*(1-s))
		dup.V[i] = dy.V[i] * g * s
	}
	return dgate, dup
}

// RoPE rotates pairs (j, j+headDim/2) of each head of x by the angle whose
// cosine and sine are cos[position][j] and sin[position][j]; inverse rotates
// back. Rows at a negative position are copied.
func RoPE(x Mat, positions []int32, cos, sin Mat, headDim int, inverse bool) Mat {
	out, half := x.Clone(), headDim/2
	for t := range x.Rows {
		p := int(positions[t])
		if p < 0 {
			continue
		}
		for h := 0; h < x.Cols; h += headDim {
			for j := range half {
				a, b := x.At(t, h+j), x.At(t, h+j+half)
				c, s := cos.At(p, j), sin.At(p, j)
				if inverse {
					s = -s
				}
				out.Row(t)[h+j] = a*c - b*s
				out.Row(t)[h+j+half] = b*c + a*s
			}
		}
	}
	return out
}

// SumSquares returns Σ x².
func SumSquares(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return sum
}

// AdamWParams are the scalars of one step of AdamW.
type AdamWParams struct {
	LR, Beta1, Beta2, Eps, WeightDecay, GradScale float64
	Step                                          int
}

// AdamW updates p, m and v in place from the gradient g: with g scaled by
// GradScale, m = β1·m + (1−β1)·g, v = β2·v + (1−β2)·g² and
// p −= LR·((m/(1−β1^Step)) / (√(v/(1−β2^Step)) + Eps) + WeightDecay·p).
func AdamW(p, g, m, v []float64, a AdamWParams) {
	c1 := 1 - math.Pow(a.Beta1, float64(a.Step))
	c2 := 1 - math.Pow(a.Beta2, float64(a.Step))
	for i := range p {
		gi := g[i] * a.GradScale
		m[i] = a.Beta1*m[i] + (1-a.Beta1)*gi
		v[i] = a.Beta2*v[i] + (1-a.Beta2)*gi*gi
		p[i] -= a.LR * (m[i]/c1/(math.Sqrt(v[i]/c2)+a.Eps) + a.WeightDecay*p[i])
	}
}
