package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// vecKernel describes an element-wise kernel to the shared tests.
type vecKernel struct {
	name string
	outs int // the first arguments are outputs
	ins  int // old values of outputs that are read come first among them
	// inout says how many outputs are read too.
	inout int
	run   func(out, in [][]float32)
	// ref returns the outputs in float64 and the tolerance of each.
	ref func(in []float64) (want, tol []float64)
}

const (
	testAlpha = float32(0.37)
	testRstd  = float32(1.7)
	testC     = float32(-0.3)
)

var testAdamW = AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.99, Eps: 1e-6, WeightDecay: 0.1, Bias1: 0.5, Bias2: 0.25, GradScale: 0.7}

// roundings is the tolerance of n float32 roundings of terms of the given
// magnitude, with room for subnormal steps.
func roundings(n int, magnitude float64) float64 {
	return float64(n)*eps32*magnitude*1.0001 + float64(n)*math.SmallestNonzeroFloat32
}

var vecKernels = []vecKernel{
	{"Add", 1, 2, 0, func(o, x [][]float32) { Add(o[0], x[0], x[1]) }, func(x []float64) ([]float64, []float64) {
		w := x[0] + x[1]
		return []float64{w}, []float64{roundings(1, math.Abs(w))}
	}},
	{"Mul", 1, 2, 0, func(o, x [][]float32) { Mul(o[0], x[0], x[1]) }, func(x []float64) ([]float64, []float64) {
		w := x[0] * x[1]
		return []float64{w}, []float64{roundings(1, math.Abs(w))}
	}},
	{"Scale", 1, 1, 0, func(o, x [][]float32) { Scale(o[0], testAlpha, x[0]) }, func(x []float64) ([]float64, []float64) {
		w := float64(testAlpha) * x[0]
		return []float64{w}, []float64{roundings(1, math.Abs(w))}
	}},
	{"Axpy", 1, 2, 1, func(o, x [][]float32) { Axpy(o[0], testAlpha, x[1]) }, func(x []float64) ([]float64, []float64) {
		p := float64(testAlpha) * x[1]
		return []float64{x[0] + p}, []float64{roundings(2, math.Abs(x[0])+math.Abs(p))}
	}},
	{"ScaleMul", 1, 2, 0, func(o, x [][]float32) { ScaleMul(o[0], testAlpha, x[0], x[1]) }, func(x []float64) ([]float64, []float64) {
		w := float64(testAlpha) * x[0] * x[1]
		return []float64{w}, []float64{roundings(2, math.Abs(w)) + math.SmallestNonzeroFloat32*math.Abs(x[1])}
	}},
	{"mulAxpy", 1, 3, 1, func(o, x [][]float32) { mulAxpy(o[0], testAlpha, x[1], x[2]) }, func(x []float64) ([]float64, []float64) {
		p := float64(testAlpha) * x[1] * x[2]
		return []float64{x[0] + p}, []float64{roundings(3, math.Abs(x[0])+math.Abs(p)) + math.SmallestNonzeroFloat32*math.Abs(x[2])}
	}},
	{"rmsNormDX", 1, 3, 0, func(o, x [][]float32) { rmsNormDX(o[0], x[0], x[1], x[2], testRstd, testC) }, func(x []float64) ([]float64, []float64) {
		a, b := float64(testRstd)*x[0]*x[2], float64(testRstd)*float64(testC)*x[1]
		return []float64{a - b}, []float64{roundings(4, math.Abs(a)+math.Abs(b))}
	}},
	{"rmsNormDXAcc", 1, 4, 1, func(o, x [][]float32) { rmsNormDXAcc(o[0], x[1], x[2], x[3], testRstd, testC) }, func(x []float64) ([]float64, []float64) {
		a, b := float64(testRstd)*x[1]*x[3], float64(testRstd)*float64(testC)*x[2]
		return []float64{x[0] + a - b}, []float64{roundings(5, math.Abs(x[0])+math.Abs(a)+math.Abs(b))}
	}},
	{"Exp", 1, 1, 0, func(o, x [][]float32) { Exp(o[0], x[0]) }, func(x []float64) ([]float64, []float64) {
		w := math.Exp(x[0])
		return []float64{w}, []float64{roundings(3, w)}
	}},
	{"Sigmoid", 1, 1, 0, func(o, x [][]float32) { Sigmoid(o[0], x[0]) }, func(x []float64) ([]float64, []float64) {
		w := 1 / (1 + math.Exp(-x[0]))
		return []float64{w}, []float64{roundings(6, w) + 3e-39}
	}},
	{"SwiGLU", 1, 2, 0, func(o, x [][]float32) { SwiGLU(o[0], x[0], x[1]) }, func(x []float64) ([]float64, []float64) {
		w := x[0] / (1 + math.Exp(-x[0])) * x[1]
		return []float64{w}, []float64{roundings(8, math.Abs(w)) + 3e-37*(1+math.Abs(x[1]))}
	}},
	{"SwiGLUBackward", 2, 3, 0, func(o, x [][]float32) { SwiGLUBackward(o[0], o[1], x[0], x[1], x[2]) }, func(x []float64) ([]float64, []float64) {
		dy, g, u := x[0], x[1], x[2]
		s := 1 / (1 + math.Exp(-g))
		dg, du := dy*u*s*(1+g*(1-s)), dy*s*g
		// 1−s and 1+g(1−s) cancel: their errors scale with 1 and 1+|g|.
		m := math.Abs(dy*u) * s * (1 + math.Abs(g))
		return []float64{dg, du}, []float64{roundings(14, m) + 3e-37*(1+math.Abs(dy*u)), roundings(9, math.Abs(du)) + 3e-37*(1+math.Abs(dy))}
	}},
	{"rotate", 2, 4, 2, func(o, x [][]float32) { rotate(o[0], o[1], x[2], x[3], -1) }, func(x []float64) ([]float64, []float64) {
		a, b, c, s := x[0], x[1], x[2], -x[3]
		return []float64{a*c - b*s, b*c + a*s}, []float64{
			roundings(3, math.Abs(a*c)+math.Abs(b*s)), roundings(3, math.Abs(b*c)+math.Abs(a*s))}
	}},
	{"AdamW", 3, 4, 3, func(o, x [][]float32) {
		// v must not be negative.
		for i, v := range o[2] {
			o[2][i] = float32(math.Abs(float64(v)))
		}
		testAdamW.Update(o[0], x[3], o[1], o[2])
	}, func(x []float64) ([]float64, []float64) {
		o := testAdamW
		p, m, v, g := x[0], x[1], math.Abs(x[2]), float64(o.GradScale)*x[3]
		b1, b2 := float64(o.Beta1), float64(o.Beta2)
		magM := b1*math.Abs(m) + (1-b1)*math.Abs(g)
		m = b1*m + (1-b1)*g
		v = b2*v + (1-b2)*g*g
		den := math.Sqrt(v)/math.Sqrt(float64(o.Bias2)) + float64(o.Eps)
		step := float64(o.LR) / float64(o.Bias1)
		np := p*(1-float64(o.LR)*float64(o.WeightDecay)) - step*m/den
		return []float64{np, m, v}, []float64{
			roundings(4, math.Abs(p)) + roundings(16, step*magM/den), roundings(5, magM), roundings(7, v)}
	}},
}

// call runs the kernel on private copies and returns the outputs.
func (k *vecKernel) call(in [][]float32) [][]float32 {
	var out [][]float32
	for i := range k.outs {
		if i < k.inout {
			out = append(out, slices.Clone(in[i]))
		} else {
			out = append(out, make([]float32, len(in[0])))
		}
	}
	k.run(out, in)
	return out
}

func (k *vecKernel) inputs(r *rand.Rand, n int) [][]float32 {
	var in [][]float32
	for range k.ins {
		in = append(in, randFloats(r, n))
	}
	return in
}

// TestVecAgainstFloat64 checks every kernel at every length with both ends of
// the operands against protected pages.
func TestVecAgainstFloat64(t *testing.T) {
	variants(t, func(t *testing.T) {
		for _, k := range vecKernels {
			t.Run(k.name, func(t *testing.T) {
				r := newRand(11)
				for n := range 258 {
					in := k.inputs(r, n)
					side := testx.Side(n % 2)
					guarded := make([][]float32, len(in))
					for i := range in {
						guarded[i] = testx.GuardCopy(t, in[i], side)
					}
					out := make([][]float32, k.outs)
					for i := range out {
						if i < k.inout {
							out[i] = guarded[i]
						} else {
							out[i] = testx.Guard(t, n, side)
						}
					}
					k.run(out, guarded)
					for i := range n {
						x := make([]float64, len(in))
						for j := range in {
							x[j] = float64(in[j][i])
						}
						want, tol := k.ref(x)
						for o := range out {
							if got := float64(out[o][i]); !(math.Abs(got-want[o]) <= tol[o]) {
								t.Fatalf("n=%d: out %d[%d] = %g, want %g ± %g of %v", n, o, i, got, want[o], tol[o], x)
							}
						}
					}
					for i := k.inout; i < len(in); i++ {
						requireBits(t, in[i], guarded[i], "input %d written", i)
					}
				}
			})
		}
	})
}

// TestVecLaneInvariance: a value gives the same bits in every lane, at every
// offset and length, special values among them.
func TestVecLaneInvariance(t *testing.T) {
	variants(t, func(t *testing.T) {
		for _, k := range vecKernels {
			t.Run(k.name, func(t *testing.T) {
				r := newRand(12)
				const n = 300
				in := k.inputs(r, n)
				for i := range in {
					for j := range in[i] {
						switch r.IntN(6) {
						case 0:
							in[i][j] = specials[r.IntN(len(specials))]
						case 1:
							in[i][j] *= 60
						}
					}
				}
				whole := k.call(in)
				for n := range 80 {
					off := r.IntN(200)
					part := make([][]float32, len(in))
					for i := range in {
						part[i] = in[i][off:][:n]
					}
					for o, got := range k.call(part) {
						requireSameValues(t, whole[o][off:][:n], got, fmt.Sprintf("output %d, offset %d, length %d", o, off, n))
					}
				}
			})
		}
	})
}

var specials = []float32{
	0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()),
	math.SmallestNonzeroFloat32, 1e-40, -1e-40, math.MaxFloat32, -math.MaxFloat32, 1, -1, 88.7, -87.4, -103.9,
}

// requireSameValues demands equal bits, any NaN being equal to any other.
func requireSameValues(t *testing.T, want, got []float32, msg string) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	for i := range want {
		if want[i] != want[i] && got[i] != got[i] {
			continue
		}
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%s: element %d: want %g, got %g", msg, i, want[i], got[i])
		}
	}
}

// TestVecSpecialValues: NaN and infinities come out where the float64 formula
// has them, for the kernels without an intermediate that could round to zero
// and then meet an infinity.
func TestVecSpecialValues(t *testing.T) {
	variants(t, func(t *testing.T) {
		for _, k := range vecKernels {
			switch k.name {
			case "Add", "Mul", "Scale", "Axpy", "Exp", "Sigmoid":
			default:
				continue
			}
			in := make([][]float32, k.ins)
			for _, a := range specials {
				for _, b := range specials {
					for i := range in {
						in[i] = append(in[i], []float32{a, b}[i%2])
					}
				}
			}
			for i, got := range k.call(in)[0] {
				x := make([]float64, k.ins)
				for j := range in {
					x[j] = float64(in[j][i])
				}
				want, _ := k.ref(x)
				w := float32(want[0])
				switch {
				case w != w:
					require.True(t, got != got, "%s%v = %g, want NaN", k.name, x, got)
				case math.IsInf(float64(w), 0) || math.Abs(float64(w)) > math.MaxFloat32/2:
					require.True(t, math.Abs(float64(got)) > math.MaxFloat32/4, "%s%v = %g, want %g", k.name, x, got, w)
				default:
					require.False(t, got != got || math.IsInf(float64(got), 0), "%s%v = %g, want %g", k.name, x, got, w)
				}
			}
		}
	})
}

// TestVecInPlace: an output may be the same slice as an input.
func TestVecInPlace(t *testing.T) {
	variants(t, func(t *testing.T) {
		for _, k := range vecKernels {
			if k.inout > 0 {
				continue
			}
			in := k.inputs(newRand(13), 77)
			want := k.call(in)
			for a := range in {
				args := make([][]float32, len(in))
				for i := range in {
					args[i] = slices.Clone(in[i])
				}
				out := [][]float32{args[a]}
				if k.outs == 2 {
					out = append(out, args[(a+1)%len(args)])
				}
				k.run(out, args)
				for o := range out {
					requireBits(t, want[o], out[o], "%s with output %d in place of input %d", k.name, o, a)
				}
			}
		}
	})
}

func TestVecDoesNotAllocate(t *testing.T) {
	variants(t, func(t *testing.T) {
		for _, k := range vecKernels {
			in := k.inputs(newRand(15), 50)
			out := in[:k.outs]
			require.Zero(t, testing.AllocsPerRun(5, func() { k.run(out, in) }), k.name)
		}
		x, y := make([]float32, 70), make([]float32, 70)
		require.Zero(t, testing.AllocsPerRun(5, func() {
			Sum(x)
			SumSq(x)
			Dot(x, y)
			ArgMax(x)
			SumExp(x, 1)
			RMSNormBackward(y, y, x, x, x, RMSNorm(y, x, x, 1), true)
			RoPE(x, 10, y, y)
		}))
	})
}

func TestVecLengthPanics(t *testing.T) {
	a, b := make([]float32, 3), make([]float32, 4)
	for name, f := range map[string]func(){
		"Add": func() { Add(a, a, b) }, "Mul": func() { Mul(a, b, a) }, "Scale": func() { Scale(a, 1, b) },
		"Axpy": func() { Axpy(a, 1, b) }, "ScaleMul": func() { ScaleMul(a, 1, a, b) }, "Dot": func() { Dot(a, b) },
		"Exp": func() { Exp(a, b) }, "ExpSub": func() { ExpSub(a, b, 0) }, "Sigmoid": func() { Sigmoid(a, b) },
		"SwiGLU": func() { SwiGLU(a, a, b) }, "SwiGLUBackward": func() { SwiGLUBackward(a, a, a, a, b) },
		"RMSNorm": func() { RMSNorm(a, a, b, 0) }, "AddRMSNorm": func() { AddRMSNorm(a, a, a, b, a, 0) },
		"RMSNormBackward":    func() { RMSNormBackward(a, nil, a, a, b, 1, false) },
		"RMSNormBackward dw": func() { RMSNormBackward(a, b, a, a, a, 1, false) },
		"AdamW":              func() { new(AdamW).Update(a, a, a, b) },
	} {
		require.PanicsWithValue(t, errLen, f, name)
	}
	require.Panics(t, func() { RoPE(a, 3, a, a) })
	require.Panics(t, func() { RoPE(b, 4, a[:1], a) })
	require.Panics(t, func() { Transpose(2, 2, a, 2, b, 2) })
}

// TestReductions: tolerance against float64, the stated order, and bits that do
// not depend on alignment.
func TestReductions(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(14)
		for n := range 258 {
			x, y, z := randFloats(r, n), randFloats(r, n), randFloats(r, n)
			side := testx.Side(n % 2)
			gx, gy, gz := testx.GuardCopy(t, x, side), testx.GuardCopy(t, y, side), testx.GuardCopy(t, z, side)

			// The float64 sums follow one order in all variants: equal bits.
			require.Equal(t, sumGeneric(x), Sum(gx), "n=%d", n)
			require.Equal(t, sumSqGeneric(x), SumSq(gx), "n=%d", n)
			require.Equal(t, dot3Generic(x, y, z), dot3(gx, gy, gz), "n=%d", n)
			var s, sq, d, abs float64
			m := math.Inf(-1)
			for i := range n {
				a, b := float64(x[i]), float64(y[i])
				s, sq, d, abs, m = s+a, sq+a*a, d+a*b, abs+math.Abs(a*b), max(m, a)
			}
			require.InDelta(t, s, Sum(gx), 1e-13*float64(n+1))
			require.InDelta(t, sq, SumSq(gx), 1e-13*float64(n+1))
			// n/32 chained steps and five levels of pairs.
			if got := float64(Dot(gx, gy)); !(math.Abs(got-d) <= 2*float64(n/32+7)*eps32*abs) {
				t.Fatalf("n=%d: dot %g, want %g", n, got, d)
			}
			require.Equal(t, float32(m), Max(gx), "n=%d", n)
			require.Equal(t, slices.Index(x, float32(m)), ArgMax(gx))

			off := make([]float32, n+9)
			for o := range 9 {
				copy(off[o:], x)
				require.Equal(t, Dot(gx, gy), Dot(off[o:][:n], y), "n=%d offset %d", n, o)
				require.Equal(t, Sum(gx), Sum(off[o:][:n]))
			}
			requireBits(t, x, gx, "input written")
		}
	})
}

func TestMaxSpecial(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	variants(t, func(t *testing.T) {
		require.Equal(t, -inf, Max(nil))
		require.Equal(t, -1, ArgMax(nil))
		for n := 1; n < 70; n++ {
			for i := range n {
				x := make([]float32, n)
				for j := range x {
					x[j] = -5
				}
				x[i] = -3
				require.Equal(t, float32(-3), Max(x))
				require.Equal(t, i, ArgMax(x))
				x[i] = nan
				require.True(t, Max(x) != Max(x), "n=%d i=%d", n, i)
				require.Equal(t, i, ArgMax(x))
				x[i] = inf
				require.Equal(t, inf, Max(x))
				for j := range x {
					x[j] = -inf
				}
				require.Equal(t, -inf, Max(x))
				require.Equal(t, 0, ArgMax(x))
			}
		}
	})
}
