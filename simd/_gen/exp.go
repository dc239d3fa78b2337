package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const expHeader = `
Name: exponential, softmax's inner passes, sigmoid and SwiGLU over float32
slices.

Computes: the equation in each function's comment, stated in full at the
exported function.

Shapes: n elements behind each pointer; scalars by value.

Requires: n ≥ 0; no alignment. Outputs may be an input, not overlap one partly.
Tails go through masked loads and stores and the same instructions.

Registers: pointers, an index that counts elements, three to six vectors; the
constants of the polynomial are memory operands.

Numerics: eˣ = 2ⁿ·eʳ with n = round(x·log2 e), r = x − n·ln2 in two parts, the
polynomial of Cephes' expf by Horner's rule in fused multiply-adds, and 2ⁿ
applied as two factors so that subnormal results are rounded once. Sums: element
i to lane i mod 32, then the order of laneSum32.

Source: S. Moshier, Cephes mathematical library, expf: reduction and
coefficients; the vector form, the range to subnormals and the treatment of NaN
and infinities are ours.

Checked by TestExp*, TestVec*, FuzzVec. Measured by BenchmarkVec.
`

func expFile(g *gen) {
	type vv = []reg.VecVirtual
	g.elementwise("expAVX2", []string{"dst"}, []string{"x"}, nil, "dst[i] = exp(x[i])",
		func(in, _ vv) vv { return vv{g.exp(in[0])} })
	// onePlus returns 1 + exp(−x).
	onePlus := func(x reg.VecVirtual) reg.VecVirtual {
		t := g.YMM()
		g.VXORPS(g.eight("signbit", 1<<31), x, t)
		e := g.exp(t)
		g.VADDPS(g.float("one", 1), e, e)
		return e
	}
	one := func() reg.VecVirtual {
		v := g.YMM()
		g.VMOVUPS(g.float("one", 1), v)
		return v
	}
	g.elementwise("sigmoidAVX2", []string{"dst"}, []string{"x"}, nil, "dst[i] = 1/(1 + exp(−x[i]))",
		func(in, _ vv) vv {
			s := one()
			g.VDIVPS(onePlus(in[0]), s, s)
			return vv{s}
		})
	g.elementwise("swiGLUAVX2", []string{"dst"}, []string{"gate", "u"}, nil, "dst[i] = gate[i]/(1 + exp(−gate[i]))·u[i]",
		func(in, _ vv) vv {
			g.VDIVPS(onePlus(in[0]), in[0], in[0])
			g.VMULPS(in[1], in[0], in[0])
			return in[:1]
		})
	g.elementwise("swiGLUBackwardAVX2", []string{"dg", "du"}, []string{"dy", "gate", "u"}, nil,
		"dg[i] = dy·u·s·(1 + gate·(1 − s)) and du[i] = dy·s·gate with s = 1/(1 + exp(−gate))",
		func(in, _ vv) vv {
			dy, x, u := in[0], in[1], in[2]
			s, h := one(), one()
			g.VDIVPS(onePlus(x), s, s)
			g.VSUBPS(s, h, h)
			g.VFMADD213PS(g.float("one", 1), x, h)
			g.VMULPS(s, dy, dy)
			g.VMULPS(u, dy, u)
			g.VMULPS(h, u, u)
			g.VMULPS(x, dy, dy)
			return vv{u, dy}
		})
	g.expSub()
	g.sumExp()
}

// float returns memory with eight copies of f.
func (g *gen) float(name string, f float32) operand.Mem {
	return g.eight(name, math.Float32bits(f))
}

// exp emits the exponential of x, which it destroys, and returns its register.
func (g *gen) exp(x reg.VecVirtual) reg.VecVirtual { return g.expOf(avx2, g.eightOp, x) }

func (g *gen) eightOp(name string, w uint32) operand.Op { return g.eight(name, w) }

// expConsts are the constants of expOf, as 32-bit words.
var expConsts = []struct {
	name string
	word uint32
}{
	{"expmax", math.Float32bits(89)}, {"expmin", math.Float32bits(-104)},
	{"log2e", math.Float32bits(1.44269504088896341)}, {"magic", math.Float32bits(3 << 22)},
	{"ln2hi", math.Float32bits(0.693359375)}, {"ln2lo", math.Float32bits(-2.12194440e-4)},
	{"p0", math.Float32bits(1.9875691500e-4)}, {"p1", math.Float32bits(1.3981999507e-3)},
	{"p2", math.Float32bits(8.3334519073e-3)}, {"p3", math.Float32bits(4.1665795894e-2)},
	{"p4", math.Float32bits(1.6666665459e-1)}, {"p5", math.Float32bits(5.0000001201e-1)},
	{"one", math.Float32bits(1)}, {"bias", 127},
}

// expOf is exp on an instruction set's vectors; word gives a vector of copies of
// a constant, in memory or in a register.
func (g *gen) expOf(s isa, word func(string, uint32) operand.Op, x reg.VecVirtual) reg.VecVirtual {
	c := map[string]operand.Op{}
	for _, k := range expConsts {
		c[k.name] = word(k.name, k.word)
	}
	t := s.vector(g)
	// Clamp; with x as the second source a NaN in it survives.
	g.VMOVUPS(c["expmax"], t)
	g.VMINPS(x, t, x)
	g.VMOVUPS(c["expmin"], t)
	g.VMAXPS(x, t, x)
	// n in the low bits of t, as a float in f.
	f := s.vector(g)
	g.VMOVUPS(c["log2e"], t)
	g.VFMADD213PS(c["magic"], x, t)
	g.VSUBPS(c["magic"], t, f)
	g.VFNMADD231PS(c["ln2hi"], f, x)
	g.VFNMADD231PS(c["ln2lo"], f, x)
	// Polynomial.
	p := s.vector(g)
	g.VMOVUPS(c["p0"], p)
	for _, k := range []string{"p1", "p2", "p3", "p4", "p5"} {
		g.VFMADD213PS(c[k], x, p)
	}
	xx := s.vector(g)
	g.VMULPS(x, x, xx)
	g.VFMADD213PS(x, xx, p)
	g.VADDPS(c["one"], p, p)
	if s.bytes == avx512.bytes { // rounds once, as the two halves below do
		g.VSCALEFPS(f, p, p)
		return p
	}
	// 2ⁿ in two halves.
	g.VPSUBD(c["magic"], t, t)
	g.VPSRAD(operand.Imm(1), t, f)
	g.VPSUBD(f, t, t)
	g.VPADDD(c["bias"], f, f)
	g.VPADDD(c["bias"], t, t)
	g.VPSLLD(operand.Imm(23), f, f)
	g.VPSLLD(operand.Imm(23), t, t)
	g.VMULPS(f, p, p)
	g.VMULPS(t, p, p)
	return p
}

func (g *gen) expSub() {
	g.kernel("expSubAVX2", "func(dst, x *float32, n int, m float32) float32",
		"expSubAVX2 computes dst[i] = exp(x[i] − m) and returns their sum.")
	dst, x, n := g.load("dst"), g.load("x"), g.load("n")
	m := g.broadcast("m")
	acc := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.lanes(n, 8, func(i reg.Register, q, disp int, mask reg.VecVirtual) {
		v := g.YMM()
		if mask == nil {
			g.VMOVUPS(at(x, i, disp), v)
		} else {
			g.VMASKMOVPS(at(x, i, disp), mask, v)
		}
		g.VSUBPS(m, v, v)
		e := g.exp(v)
		if mask == nil {
			g.VMOVUPS(e, at(dst, i, disp))
		} else {
			g.VMASKMOVPS(e, mask, at(dst, i, disp))
			g.VANDPS(mask, e, e)
		}
		g.VADDPS(e, acc[q], acc[q])
	})
	g.Store(g.laneSum32(acc), g.ReturnIndex(0))
	g.finish()
}

func (g *gen) sumExp() {
	g.kernel("sumExpAVX2", "func(x *float32, n int, m float32) (s, t float32)",
		"sumExpAVX2 returns Σ exp(d[i]) and Σ d[i]·exp(d[i]) with d[i] = x[i] − m.")
	x, n := g.load("x"), g.load("n")
	m := g.broadcast("m")
	s := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	t := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.lanes(n, 8, func(i reg.Register, q, disp int, mask reg.VecVirtual) {
		v, d := g.YMM(), g.YMM()
		if mask == nil {
			g.VMOVUPS(at(x, i, disp), v)
		} else {
			g.VMASKMOVPS(at(x, i, disp), mask, v)
		}
		g.VSUBPS(m, v, v)
		// The clamp keeps −Inf·0 out of t.
		g.VMOVUPS(g.float("expmin", -104), d)
		g.VMAXPS(v, d, d)
		g.VMOVAPS(d, v)
		e := g.exp(v)
		if mask != nil {
			g.VANDPS(mask, e, e)
			g.VANDPS(mask, d, d)
		}
		g.VADDPS(e, s[q], s[q])
		g.VFMADD231PS(e, d, t[q])
	})
	sum := g.laneSum32(s)
	g.Store(sum, g.Return("s"))
	g.Store(g.laneSum32(t), g.Return("t"))
	g.finish()
}
