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
applied as two factors, or by AVX-512 in one instruction, so that subnormal
results are rounded once: both give the same bits. Sums: element
i to lane i mod 32, then the order of laneSum32.

Source: S. Moshier, Cephes mathematical library, expf: reduction and
coefficients; the vector form, the range to subnormals and the treatment of NaN
and infinities are ours.

Checked by TestExp*, TestVec*, FuzzVec. Measured by BenchmarkVec.
`

// expFile makes the kernels of an instruction set.
func expFile(s isa) func(*gen) { return func(g *gen) { g.expKernels(s) } }

func (g *gen) expKernels(s isa) {
	type vv = []reg.VecVirtual
	g.elementwise(s, "exp", []string{"dst"}, []string{"x"}, nil, "dst[i] = exp(x[i])",
		func(in, _ vv) vv { return vv{g.exp(s, in[0])} })
	// onePlus returns 1 + exp(−x).
	onePlus := func(x reg.VecVirtual) reg.VecVirtual {
		t := s.vector(g)
		g.VXORPS(g.copies(s, "signbit", 1<<31), x, t)
		e := g.exp(s, t)
		g.VADDPS(g.float(s, "one", 1), e, e)
		return e
	}
	one := func() reg.VecVirtual {
		v := s.vector(g)
		g.VMOVUPS(g.float(s, "one", 1), v)
		return v
	}
	g.elementwise(s, "sigmoid", []string{"dst"}, []string{"x"}, nil, "dst[i] = 1/(1 + exp(−x[i]))",
		func(in, _ vv) vv {
			s := one()
			g.VDIVPS(onePlus(in[0]), s, s)
			return vv{s}
		})
	g.elementwise(s, "swiGLU", []string{"dst"}, []string{"gate", "u"}, nil, "dst[i] = gate[i]/(1 + exp(−gate[i]))·u[i]",
		func(in, _ vv) vv {
			g.VDIVPS(onePlus(in[0]), in[0], in[0])
			g.VMULPS(in[1], in[0], in[0])
			return in[:1]
		})
	g.elementwise(s, "swiGLUBackward", []string{"dg", "du"}, []string{"dy", "gate", "u"}, nil,
		"dg[i] = dy·u·s·(1 + gate·(1 − s)) and du[i] = dy·s·gate with s = 1/(1 + exp(−gate))",
		func(in, _ vv) vv {
			dy, x, u := in[0], in[1], in[2]
			sig, h := one(), one()
			g.VDIVPS(onePlus(x), sig, sig)
			g.VSUBPS(sig, h, h)
			g.VFMADD213PS(g.float(s, "one", 1), x, h)
			g.VMULPS(sig, dy, dy)
			g.VMULPS(u, dy, u)
			g.VMULPS(h, u, u)
			g.VMULPS(x, dy, dy)
			return vv{u, dy}
		})
	g.expSub(s)
	g.sumExp(s)
}

// float returns memory with a vector of copies of f.
func (g *gen) float(s isa, name string, f float32) operand.Mem {
	return g.copies(s, name, math.Float32bits(f))
}

// exp emits the exponential of x, which it destroys, and returns its register.
func (g *gen) exp(s isa, x reg.VecVirtual) reg.VecVirtual {
	t := s.vector(g)
	// Clamp; with x as the second source a NaN in it survives.
	g.VMOVUPS(g.float(s, "expmax", 89), t)
	g.VMINPS(x, t, x)
	g.VMOVUPS(g.float(s, "expmin", -104), t)
	g.VMAXPS(x, t, x)
	// n in the low bits of t, as a float in f.
	f := s.vector(g)
	g.VMOVUPS(g.float(s, "log2e", 1.44269504088896341), t)
	g.VFMADD213PS(g.float(s, "magic", 3<<22), x, t)
	g.VSUBPS(g.float(s, "magic", 3<<22), t, f)
	g.VFNMADD231PS(g.float(s, "ln2hi", 0.693359375), f, x)
	g.VFNMADD231PS(g.float(s, "ln2lo", -2.12194440e-4), f, x)
	// Polynomial.
	p, xx := s.vector(g), s.vector(g)
	g.VMOVUPS(g.float(s, "p0", 1.9875691500e-4), p)
	g.VFMADD213PS(g.float(s, "p1", 1.3981999507e-3), x, p)
	g.VFMADD213PS(g.float(s, "p2", 8.3334519073e-3), x, p)
	g.VFMADD213PS(g.float(s, "p3", 4.1665795894e-2), x, p)
	g.VFMADD213PS(g.float(s, "p4", 1.6666665459e-1), x, p)
	g.VFMADD213PS(g.float(s, "p5", 5.0000001201e-1), x, p)
	g.VMULPS(x, x, xx)
	g.VFMADD213PS(x, xx, p)
	g.VADDPS(g.float(s, "one", 1), p, p)
	if s == avx512 { // rounds once, as the two halves below do
		g.VSCALEFPS(f, p, p)
		return p
	}
	// 2ⁿ in two halves.
	g.VPSUBD(g.copies(s, "magicbits", math.Float32bits(3<<22)), t, t)
	g.VPSRAD(operand.Imm(1), t, f)
	g.VPSUBD(f, t, t)
	g.VPADDD(g.copies(s, "bias", 127), f, f)
	g.VPADDD(g.copies(s, "bias", 127), t, t)
	g.VPSLLD(operand.Imm(23), f, f)
	g.VPSLLD(operand.Imm(23), t, t)
	g.VMULPS(f, p, p)
	g.VMULPS(t, p, p)
	return p
}

func (g *gen) expSub(s isa) {
	name := "expSub" + s.suffix
	g.kernel(name, "func(dst, x *float32, n int, m float32) float32",
		name+" computes dst[i] = exp(x[i] − m) and returns their sum.")
	dst, x, n := g.load("dst"), g.load("x"), g.load("n")
	m := g.broadcast(s, "m")
	acc := g.zeros(s)
	g.lanes(s, n, 32, s.bytes/4, func(i reg.Register, q, disp int, mask reg.Register) {
		v := g.fetch(s, at(x, i, disp), mask)
		g.VSUBPS(m, v, v)
		e := g.exp(s, v)
		g.store(s, e, at(dst, i, disp), mask)
		if mask != nil {
			g.keep(s, mask, e)
		}
		g.VADDPS(e, acc[q], acc[q])
	})
	g.Store(g.laneSum32(s, acc), g.ReturnIndex(0))
	g.finish()
}

// zeros returns 32 lanes of zeros.
func (g *gen) zeros(s isa) (acc []reg.VecVirtual) {
	for range 128 / s.bytes {
		acc = append(acc, g.zero(s))
	}
	return acc
}

func (g *gen) sumExp(s isa) {
	name := "sumExp" + s.suffix
	g.kernel(name, "func(x *float32, n int, m float32) (s, t float32)",
		name+" returns Σ exp(d[i]) and Σ d[i]·exp(d[i]) with d[i] = x[i] − m.")
	x, n := g.load("x"), g.load("n")
	m := g.broadcast(s, "m")
	sum, prod := g.zeros(s), g.zeros(s)
	g.lanes(s, n, 32, s.bytes/4, func(i reg.Register, q, disp int, mask reg.Register) {
		v, d := g.fetch(s, at(x, i, disp), mask), s.vector(g)
		g.VSUBPS(m, v, v)
		// The clamp keeps −Inf·0 out of t.
		g.VMOVUPS(g.float(s, "expmin", -104), d)
		g.VMAXPS(v, d, d)
		g.VMOVAPS(d, v)
		e := g.exp(s, v)
		if mask != nil {
			g.keep(s, mask, e)
			g.keep(s, mask, d)
		}
		g.VADDPS(e, sum[q], sum[q])
		g.VFMADD231PS(e, d, prod[q])
	})
	g.Store(g.laneSum32(s, sum), g.Return("s"))
	g.Store(g.laneSum32(s, prod), g.Return("t"))
	g.finish()
}
