package simd

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRMSNorm(t *testing.T) {
	const eps = 1e-5
	variants(t, func(t *testing.T) {
		r := newRand(31)
		for _, n := range []int{1, 2, 7, 8, 31, 64, 576, 1000} {
			x, w, res := randFloats(r, n), randFloats(r, n), randFloats(r, n)
			y, h := make([]float32, n), make([]float32, n)
			rs := AddRMSNorm(y, h, x, res, w, eps)
			var ss float64
			for i := range n {
				require.Equal(t, x[i]+res[i], h[i])
				ss += float64(h[i]) * float64(h[i])
			}
			want := 1 / math.Sqrt(ss/float64(n)+float64(float32(eps)))
			require.InEpsilon(t, want, rs, 2*eps32)
			for i := range n {
				v := float64(h[i]) * want * float64(w[i])
				if !(math.Abs(float64(y[i])-v) <= roundings(4, math.Abs(v))) {
					t.Fatalf("n=%d: y[%d] = %g, want %g", n, i, y[i], v)
				}
			}
			again := slices.Clone(x)
			require.Equal(t, rs, AddRMSNorm(y, again, again, res, w, eps), "h in place of x")
		}
		require.Zero(t, RMSNorm(nil, nil, nil, eps))
		y := make([]float32, 9)
		RMSNorm(y, make([]float32, 9), y, eps)
		require.Equal(t, make([]float32, 9), y)
	})
}

// rmsNorm64 is the forward in float64, for finite differences.
func rmsNorm64(x, w []float64, eps float64) []float64 {
	var ss float64
	for _, v := range x {
		ss += v * v
	}
	rs := 1 / math.Sqrt(ss/float64(len(x))+eps)
	y := make([]float64, len(x))
	for i := range x {
		y[i] = x[i] * rs * w[i]
	}
	return y
}

func TestRMSNormBackwardAgainstDifferences(t *testing.T) {
	const eps, step = 1e-5, 1e-5
	variants(t, func(t *testing.T) {
		r := newRand(32)
		for _, n := range []int{1, 3, 8, 29, 65} {
			x, w, dy := randFloats(r, n), randFloats(r, n), randFloats(r, n)
			y, dx, dw := make([]float32, n), make([]float32, n), randFloats(r, n)
			dw0 := slices.Clone(dw)
			rs := RMSNorm(y, x, w, eps)
			RMSNormBackward(dx, dw, dy, x, w, rs, false)
			x64, w64 := make([]float64, n), make([]float64, n)
			for i := range n {
				x64[i], w64[i] = float64(x[i]), float64(w[i])
			}
			loss := func() (s float64) {
				for i, v := range rmsNorm64(x64, w64, eps) {
					s += v * float64(dy[i])
				}
				return s
			}
			diff := func(p *float64) float64 {
				old := *p
				*p = old + step
				up := loss()
				*p = old - step
				down := loss()
				*p = old
				return (up - down) / (2 * step)
			}
			for i := range n {
				require.InDelta(t, diff(&x64[i]), dx[i], 2e-5, "dx[%d] of %d", i, n)
				require.InDelta(t, diff(&w64[i]), dw[i]-dw0[i], 2e-5, "dw[%d] of %d", i, n)
			}
			// Accumulating, and in place of dy.
			acc := slices.Clone(x)
			RMSNormBackward(acc, nil, dy, x, w, rs, true)
			for i := range n {
				require.InDelta(t, float64(x[i])+float64(dx[i]), acc[i], 4e-6)
			}
			in := slices.Clone(dy)
			RMSNormBackward(in, nil, in, x, w, rs, false)
			requireBits(t, dx, in, "dx in place of dy")
		}
	})
}

func TestSwiGLUBackwardAgainstDifferences(t *testing.T) {
	silu := func(g float64) float64 { return g / (1 + math.Exp(-g)) }
	variants(t, func(t *testing.T) {
		r := newRand(33)
		const n, step = 50, 1e-5
		dy, g, u := randFloats(r, n), randFloats(r, n), randFloats(r, n)
		dg, du := make([]float32, n), make([]float32, n)
		SwiGLUBackward(dg, du, dy, g, u)
		for i := range n {
			x := float64(g[i])
			require.InDelta(t, float64(dy[i])*float64(u[i])*(silu(x+step)-silu(x-step))/(2*step), dg[i], 1e-5)
			require.InDelta(t, float64(dy[i])*silu(x), du[i], 1e-6)
		}
	})
}

func TestRoPE(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(34)
		for _, d := range []int{2, 6, 16, 34, 64, 128} {
			h := d / 2
			const heads = 3
			cos, sin := make([]float32, h), make([]float32, h)
			for i := range h {
				s, c := math.Sincos(5 * math.Pow(10000, -2*float64(i)/float64(d)))
				cos[i], sin[i] = float32(c), float32(s)
			}
			x := randFloats(r, heads*d)
			y := slices.Clone(x)
			RoPE(y, d, cos, sin)
			for q := range heads {
				for i := range h {
					// rotate_half: y = x·cos + [−x₂, x₁]·sin.
					a, b := float64(x[q*d+i]), float64(x[q*d+h+i])
					c, s := float64(cos[i]), float64(sin[i])
					tol := roundings(3, math.Abs(a)+math.Abs(b))
					require.InDelta(t, a*c-b*s, y[q*d+i], tol)
					require.InDelta(t, b*c+a*s, y[q*d+h+i], tol)
				}
			}
			// A head alone gives the same bits, and the inverse undoes.
			one := slices.Clone(x[d : 2*d])
			RoPE(one, d, cos, sin)
			requireBits(t, y[d:2*d], one, "head alone")
			RoPEInverse(y, d, cos, sin)
			for i := range x {
				require.InDelta(t, x[i], y[i], 1e-6*(1+math.Abs(float64(x[i]))))
			}
		}
	})
}

// TestAdamWTrajectory follows many steps against float64.
func TestAdamWTrajectory(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(35)
		const n = 37
		p, m, v := randFloats(r, n), make([]float32, n), make([]float32, n)
		p64, m64, v64 := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range n {
			p64[i] = float64(p[i])
		}
		o := AdamW{LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, GradScale: 0.5}
		b1, b2, lr, wd := float64(o.Beta1), float64(o.Beta2), float64(o.LR), float64(o.WeightDecay)
		for step := 1; step <= 30; step++ {
			c1, c2 := 1-math.Pow(b1, float64(step)), 1-math.Pow(b2, float64(step))
			o.Bias1, o.Bias2 = float32(c1), float32(c2)
			g := randFloats(r, n)
			o.Update(p, g, m, v)
			for i := range n {
				gi := 0.5 * float64(g[i])
				m64[i] = b1*m64[i] + (1-b1)*gi
				v64[i] = b2*v64[i] + (1-b2)*gi*gi
				p64[i] = p64[i]*(1-lr*wd) - lr*(m64[i]/c1)/(math.Sqrt(v64[i]/c2)+1e-8)
				require.InDelta(t, p64[i], p[i], 2e-6*float64(step), "step %d, p[%d]", step, i)
			}
		}
	})
}
