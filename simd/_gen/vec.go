package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const vecHeader = `
Name: element-wise kernels and reductions over float32 slices that need no
exponential: sums, products, maximum, RMSNorm's passes, rotation, AdamW.

Computes: the equation in each function's comment, stated in full at the
exported function or at the generic twin of the same name.

Shapes: n elements behind each pointer; scalars by value.

Requires: n ≥ 0; no alignment. Outputs may be an input, not overlap one partly.
The tail of n mod 8 elements goes through masked loads and stores, which do not
touch memory beyond the end, and through the same instructions as the body.

Registers: AX… pointers, an index that counts elements; reductions hold four
accumulators.

Numerics: multiply-adds are fused. float32 reductions: element i to lane i mod
32; float64 ones: lane i mod 16, products of float32 being exact; then the
pairwise order of laneSum32 and laneSum64.

Checked by TestVec*, FuzzVec. Measured by BenchmarkVec: bound by memory traffic
beyond the first-level cache.
`

func vecFile(g *gen) {
	type vv = []reg.VecVirtual
	g.elementwise(avx2, "add", []string{"dst"}, []string{"a", "b"}, nil, "dst[i] = a[i] + b[i]",
		func(in, _ vv) vv { g.VADDPS(in[1], in[0], in[0]); return in[:1] })
	g.elementwise(avx2, "mul", []string{"dst"}, []string{"a", "b"}, nil, "dst[i] = a[i]·b[i]",
		func(in, _ vv) vv { g.VMULPS(in[1], in[0], in[0]); return in[:1] })
	g.elementwise(avx2, "scale", []string{"dst"}, []string{"x"}, []string{"alpha"}, "dst[i] = alpha·x[i]",
		func(in, s vv) vv { g.VMULPS(in[0], s[0], in[0]); return in[:1] })
	g.elementwise(avx2, "axpy", []string{"dst"}, []string{"dst", "x"}, []string{"alpha"}, "dst[i] += alpha·x[i]",
		func(in, s vv) vv { g.VFMADD231PS(in[1], s[0], in[0]); return in[:1] })
	g.elementwise(avx2, "scaleMul", []string{"dst"}, []string{"x", "w"}, []string{"alpha"}, "dst[i] = (alpha·x[i])·w[i]",
		func(in, s vv) vv {
			g.VMULPS(in[0], s[0], in[0])
			g.VMULPS(in[1], in[0], in[0])
			return in[:1]
		})
	g.elementwise(avx2, "mulAxpy", []string{"dst"}, []string{"dst", "a", "b"}, []string{"alpha"}, "dst[i] += (alpha·a[i])·b[i]",
		func(in, s vv) vv {
			g.VMULPS(in[1], s[0], in[1])
			g.VFMADD231PS(in[2], in[1], in[0])
			return in[:1]
		})
	dx := func(in, s vv) reg.VecVirtual { // dy, x, w; rstd, c
		g.VMULPS(in[2], in[0], in[0])
		g.VFNMADD231PS(in[1], s[1], in[0])
		return in[0]
	}
	g.elementwise(avx2, "rmsNormDX", []string{"dx"}, []string{"dy", "x", "w"}, []string{"rstd", "c"},
		"dx[i] = rstd·(dy[i]·w[i] − c·x[i])",
		func(in, s vv) vv {
			t := dx(in, s)
			g.VMULPS(t, s[0], t)
			return vv{t}
		})
	g.elementwise(avx2, "rmsNormDXAcc", []string{"dx"}, []string{"dy", "x", "w", "dx"}, []string{"rstd", "c"},
		"dx[i] += rstd·(dy[i]·w[i] − c·x[i])",
		func(in, s vv) vv {
			t := dx(in, s)
			g.VFMADD231PS(t, s[0], in[3])
			return in[3:]
		})
	g.elementwise(avx2, "rotate", []string{"x", "y"}, []string{"x", "y", "cos", "sin"}, []string{"sign"},
		"x[i], y[i] = x[i]·cos[i] − y[i]·s, y[i]·cos[i] + x[i]·s with s = sign·sin[i]",
		func(in, s vv) vv {
			x, y, c, sn := in[0], in[1], in[2], in[3]
			g.VMULPS(sn, s[0], sn)
			t, u := g.YMM(), g.YMM()
			g.VMULPS(y, sn, t)
			g.VMULPS(x, sn, u)
			g.VFMSUB213PS(t, c, x)
			g.VFMADD213PS(u, c, y)
			return vv{x, y}
		})
	g.elementwise(avx2, "zeroBelow", []string{"dst"}, []string{"x"}, []string{"t"}, "dst[i] = x[i] where x[i] ≥ t, else 0",
		func(in, s vv) vv {
			m := g.YMM()
			g.VCMPPS(operand.Imm(29), s[0], in[0], m)
			g.VANDPS(m, in[0], in[0])
			return in[:1]
		})
	adamw(g)
	g.sumAbove()
	g.dot()
	g.sum64("sumAVX2", []string{"x"}, "returns Σ x[i] in float64")
	g.sum64("sumSqAVX2", []string{"x", "x"}, "returns Σ x[i]² in float64")
	g.sum64("dot3AVX2", []string{"a", "b", "c"}, "returns Σ (a[i]·b[i])·c[i] in float64")
	g.maxOf()
}

// elementwise makes a kernel that calls body on vectors, with the instruction
// set's suffix to its name.
// Inputs with an output's name are that output's old value.
func (g *gen) elementwise(s isa, name string, outs, ins, scalars []string, doc string, body func(in, s []reg.VecVirtual) []reg.VecVirtual) {
	name += s.suffix
	var params []string
	for _, p := range append(append([]string{}, outs...), ins...) {
		if len(params) == 0 || !contains(params, p) {
			params = append(params, p)
		}
	}
	sig := "func("
	for i, p := range params {
		if i > 0 {
			sig += ", "
		}
		sig += p
	}
	sig += " *float32, n int"
	for _, s := range scalars {
		sig += ", " + s + " float32"
	}
	g.kernel(name, sig+")", name+" computes "+doc+".")

	ptrs := map[string]reg.Register{}
	for _, p := range params {
		ptrs[p] = g.load(p)
	}
	n := g.load("n")
	var sc []reg.VecVirtual
	for _, p := range scalars {
		sc = append(sc, g.broadcast(s, p))
	}
	g.each(s, n, func(i, mask reg.Register) {
		var in []reg.VecVirtual
		for _, p := range ins {
			in = append(in, g.fetch(s, at(ptrs[p], i, 0), mask))
		}
		for k, v := range body(in, sc) {
			g.store(s, v, at(ptrs[outs[k]], i, 0), mask)
		}
	})
	g.finish()
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// each emits body once in a loop over whole vectors and once, with a mask, for
// the rest.
func (g *gen) each(s isa, n reg.Register, body func(i, mask reg.Register)) {
	i, whole := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(n, whole)
	g.ANDQ(operand.I8(int8(-s.bytes/4)), whole)
	g.JZ(operand.LabelRef("tail"))
	g.Label("loop")
	body(i, nil)
	g.ADDQ(operand.Imm(uint64(s.bytes/4)), i)
	g.CMPQ(i, whole)
	g.JLT(operand.LabelRef("loop"))
	g.Label("tail")
	g.SUBQ(i, n)
	g.JZ(operand.LabelRef("done"))
	body(i, g.mask(s, n))
	g.Label("done")
}

// lanes emits a reduction over the given number of lanes, in vectors of width
// elements: body is called with the index, the number of the accumulator, a
// displacement in bytes and a mask or nil. A step takes all lanes once; the rest
// of a step goes through masks, so that an element's lane depends on its index
// alone.
func (g *gen) lanes(s isa, n reg.Register, lanes, width int, body func(i reg.Register, q, disp int, mask reg.Register)) {
	i, whole := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(n, whole)
	g.ANDQ(operand.I8(int8(-lanes)), whole)
	g.JZ(operand.LabelRef("tail"))
	g.Label("loop")
	for q := range lanes / width {
		body(i, q, 4*width*q, nil)
	}
	g.ADDQ(operand.Imm(uint64(lanes)), i)
	g.CMPQ(i, whole)
	g.JLT(operand.LabelRef("loop"))
	g.Label("tail")
	g.SUBQ(i, n)
	limit := g.GP64()
	g.MOVQ(operand.U32(uint32(width)), limit)
	for q := range lanes / width {
		g.TESTQ(n, n)
		g.JLE(operand.LabelRef("combine"))
		left := g.GP64()
		g.MOVQ(n, left)
		g.CMPQ(left, limit)
		g.CMOVQGT(limit, left)
		body(i, q, 4*width*q, g.mask(s, left))
		if q < lanes/width-1 {
			g.SUBQ(operand.Imm(uint64(width)), n)
		}
	}
	g.Label("combine")
}

// laneSum32 adds accumulators of 32 lanes in all, four of eight or two of
// sixteen, in the order of the Go function of that name; it destroys them.
func (g *gen) laneSum32(s isa, acc []reg.VecVirtual) reg.Register {
	var y []reg.VecVirtual // lanes l + (l+8), and the same of the upper half
	for i := range 2 {
		if s == avx512 {
			t := g.YMM()
			g.VEXTRACTF64X4(operand.Imm(1), acc[i], t)
			g.VADDPS(t, acc[i].AsY(), t)
			y = append(y, t)
		} else {
			g.VADDPS(acc[2*i+1], acc[2*i], acc[2*i])
			y = append(y, acc[2*i])
		}
	}
	g.VADDPS(y[1], y[0], y[0])
	return g.fold(s, y[0], func(a, b, dst operand.Op) { g.VADDPS(a, b, dst) })
}

// fold combines lane l of y with l+4, then l+2, then l+1, and returns the
// register whose lane 0 holds the result; it destroys y.
func (g *gen) fold(s isa, y reg.VecVirtual, op func(a, b, dst operand.Op)) reg.Register {
	x, h := y.AsX(), g.XMM()
	if s == avx512 { // the AVX form cannot name registers 16 to 31
		g.VEXTRACTF32X4(operand.Imm(1), y.AsY(), h)
	} else {
		g.VEXTRACTF128(operand.Imm(1), y.AsY(), h)
	}
	op(h, x, x)
	g.VMOVHLPS(x, x, h)
	op(h, x, x)
	g.VMOVSHDUP(x, h)
	op(h, x, x)
	return x
}

func (g *gen) dot() {
	g.kernel("dotAVX2", "func(a, b *float32, n int) float32", "dotAVX2 returns Σ a[i]·b[i].")
	a, b, n := g.load("a"), g.load("b"), g.load("n")
	acc := []reg.VecVirtual{g.zero(avx2), g.zero(avx2), g.zero(avx2), g.zero(avx2)}
	g.lanes(avx2, n, 32, 8, func(i reg.Register, q, disp int, mask reg.Register) {
		v := g.YMM()
		if mask == nil {
			g.VMOVUPS(at(a, i, disp), v)
			g.VFMADD231PS(at(b, i, disp), v, acc[q])
			return
		}
		w := g.YMM()
		g.VMASKMOVPS(at(a, i, disp), mask, v)
		g.VMASKMOVPS(at(b, i, disp), mask, w)
		g.VFMADD231PS(w, v, acc[q])
	})
	g.Store(g.laneSum32(avx2, acc), g.ReturnIndex(0))
	g.finish()
}

// sum64 makes a float64 sum of the product of its arguments.
func (g *gen) sum64(name string, args []string, doc string) {
	var params []string
	for _, a := range args {
		if !contains(params, a) {
			params = append(params, a)
		}
	}
	sig := "func("
	for i, p := range params {
		if i > 0 {
			sig += ", "
		}
		sig += p
	}
	g.kernel(name, sig+" *float32, n int) float64", name+" "+doc+".")
	ptrs := map[string]reg.Register{}
	for _, p := range params {
		ptrs[p] = g.load(p)
	}
	n := g.load("n")
	acc := []reg.VecVirtual{g.zero(avx2), g.zero(avx2), g.zero(avx2), g.zero(avx2)}
	g.lanes(avx2, n, 16, 4, func(i reg.Register, q, disp int, mask reg.Register) {
		loaded := map[string]reg.VecVirtual{}
		var product reg.VecVirtual
		for k, a := range args {
			v, ok := loaded[a]
			if !ok {
				v = g.YMM()
				if mask == nil {
					g.VCVTPS2PD(at(ptrs[a], i, disp), v)
				} else {
					x := g.XMM()
					g.VMASKMOVPS(at(ptrs[a], i, disp), mask.(reg.VecVirtual).AsX(), x)
					g.VCVTPS2PD(x, v)
				}
				loaded[a] = v
			}
			if k == 0 {
				product = v
				continue
			}
			p := g.YMM()
			g.VMULPD(v, product, p)
			product = p
		}
		g.VADDPD(product, acc[q], acc[q])
	})
	g.Store(g.laneSum64(acc), g.ReturnIndex(0))
	g.finish()
}

// laneSum64 adds four accumulators of four float64 lanes in the order of the Go
// function of that name; it destroys them.
func (g *gen) laneSum64(acc []reg.VecVirtual) reg.Register {
	g.VADDPD(acc[1], acc[0], acc[0])
	g.VADDPD(acc[3], acc[2], acc[2])
	g.VADDPD(acc[2], acc[0], acc[0])
	x, y := acc[0].AsX(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), acc[0], y)
	g.VADDPD(y, x, x)
	g.VUNPCKHPD(x, x, y)
	g.VADDSD(y, x, x)
	return x
}

func (g *gen) sumAbove() {
	g.kernel("sumAboveAVX2", "func(x *float32, n int, t float32) (sum float64, count int)",
		"sumAboveAVX2 returns the sum, in float64, and the number of the x[i] > t; n < 2³¹.")
	x, n := g.load("x"), g.load("n")
	t := g.broadcast(avx2, "t")
	acc := g.zeros(avx2)
	counts := g.XMM() // negative
	g.VXORPS(counts, counts, counts)
	g.lanes(avx2, n, 16, 4, func(i reg.Register, q, disp int, mask reg.Register) {
		v, above, wide := g.XMM(), g.XMM(), g.YMM()
		if mask == nil {
			g.VMOVUPS(at(x, i, disp), v)
		} else {
			g.VMASKMOVPS(at(x, i, disp), mask.(reg.VecVirtual).AsX(), v)
		}
		g.VCMPPS(operand.Imm(30), t.AsX(), v, above)
		if mask != nil {
			g.VANDPS(mask.(reg.VecVirtual).AsX(), above, above)
		}
		g.VPADDD(above, counts, counts)
		g.VANDPS(above, v, v)
		g.VCVTPS2PD(v, wide)
		g.VADDPD(wide, acc[q], acc[q])
	})
	g.Store(g.laneSum64(acc), g.Return("sum"))
	// Four counts of 32 bits.
	h := g.XMM()
	g.VPSHUFD(operand.Imm(0x4e), counts, h)
	g.VPADDD(h, counts, counts)
	g.VPSHUFD(operand.Imm(0xb1), counts, h)
	g.VPADDD(h, counts, counts)
	c := g.GP64()
	g.VMOVD(counts, c.As32())
	g.NEGL(c.As32()) // clears the upper half
	g.Store(c, g.Return("count"))
	g.finish()
}

func (g *gen) maxOf() {
	g.kernel("maxAVX2", "func(x *float32, n int) float32", "maxAVX2 returns the largest x[i], NaN if there is a NaN, −Inf if n is 0.")
	x, n := g.load("x"), g.load("n")
	ninf := g.YMM()
	g.VMOVUPS(g.copies(avx2, "ninf", 0xff800000), ninf)
	acc := []reg.VecVirtual{g.YMM(), g.YMM(), g.YMM(), g.YMM()}
	for _, a := range acc {
		g.VMOVAPS(ninf, a)
	}
	nan := g.zero(avx2) // ones in lanes that saw a NaN
	g.lanes(avx2, n, 32, 8, func(i reg.Register, q, disp int, mask reg.Register) {
		v, u := g.YMM(), g.YMM()
		if mask == nil {
			g.VMOVUPS(at(x, i, disp), v)
		} else {
			g.VMASKMOVPS(at(x, i, disp), mask, v)
			g.VBLENDVPS(mask, v, ninf, v)
		}
		g.VCMPPS(operand.Imm(3), v, v, u)
		g.VORPS(u, nan, nan)
		g.VMAXPS(v, acc[q], acc[q])
	})
	g.VMAXPS(acc[1], acc[0], acc[0])
	g.VMAXPS(acc[3], acc[2], acc[2])
	g.VMAXPS(acc[2], acc[0], acc[0])
	r, s := acc[0].AsX(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), acc[0], s)
	g.VMAXPS(s, r, r)
	g.VMOVHLPS(r, r, s)
	g.VMAXPS(s, r, r)
	g.VMOVSHDUP(r, s)
	g.VMAXSS(s, r, r)
	bits := g.GP32()
	g.VMOVMSKPS(nan, bits)
	g.TESTL(bits, bits)
	g.JZ(operand.LabelRef("store"))
	g.VPCMPEQD(r, r, r) // all ones is a NaN
	g.Label("store")
	g.Store(r, g.ReturnIndex(0))
	g.finish()
}

func adamw(g *gen) {
	const fields = 9
	g.kernel("adamwAVX2", "func(p, grad, m, v *float32, n int, c *float32)",
		"adamwAVX2 applies one step of AdamW; c points to an adamwConsts.")
	pp, gp, mp, vp, n, c := g.load("p"), g.load("grad"), g.load("m"), g.load("v"), g.load("n"), g.load("c")
	var k []reg.VecVirtual
	for i := range fields {
		r := g.YMM()
		g.VBROADCASTSS(ptr(c, 4*i), r)
		k = append(k, r)
	}
	gradScale, beta1, omBeta1, beta2, omBeta2, decay, step, rsqrtB2, eps := k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
	g.each(avx2, n, func(i, mask reg.Register) {
		load := func(p reg.Register) reg.VecVirtual { return g.fetch(avx2, at(p, i, 0), mask) }
		store := func(r reg.VecVirtual, p reg.Register) { g.store(avx2, r, at(p, i, 0), mask) }
		grad := load(gp)
		g.VMULPS(gradScale, grad, grad)
		m := load(mp)
		g.VMULPS(beta1, m, m)
		g.VFMADD231PS(grad, omBeta1, m)
		store(m, mp)
		v := load(vp)
		t := g.YMM()
		g.VMULPS(beta2, v, v)
		g.VMULPS(omBeta2, grad, t)
		g.VFMADD231PS(grad, t, v)
		store(v, vp)
		g.VSQRTPS(v, v)
		g.VFMADD213PS(eps, rsqrtB2, v)
		g.VDIVPS(v, m, m)
		p := load(pp)
		g.VMULPS(decay, p, p)
		g.VFNMADD231PS(m, step, p)
		store(p, pp)
	})
	g.finish()
}
