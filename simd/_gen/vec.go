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
	g.elementwise("addAVX2", []string{"dst"}, []string{"a", "b"}, nil, "dst[i] = a[i] + b[i]",
		func(in, _ vv) vv { g.VADDPS(in[1], in[0], in[0]); return in[:1] })
	g.elementwise("mulAVX2", []string{"dst"}, []string{"a", "b"}, nil, "dst[i] = a[i]·b[i]",
		func(in, _ vv) vv { g.VMULPS(in[1], in[0], in[0]); return in[:1] })
	g.elementwise("scaleAVX2", []string{"dst"}, []string{"x"}, []string{"alpha"}, "dst[i] = alpha·x[i]",
		func(in, s vv) vv { g.VMULPS(in[0], s[0], in[0]); return in[:1] })
	g.elementwise("axpyAVX2", []string{"dst"}, []string{"dst", "x"}, []string{"alpha"}, "dst[i] += alpha·x[i]",
		func(in, s vv) vv { g.VFMADD231PS(in[1], s[0], in[0]); return in[:1] })
	g.elementwise("scaleMulAVX2", []string{"dst"}, []string{"x", "w"}, []string{"alpha"}, "dst[i] = (alpha·x[i])·w[i]",
		func(in, s vv) vv {
			g.VMULPS(in[0], s[0], in[0])
			g.VMULPS(in[1], in[0], in[0])
			return in[:1]
		})
	g.elementwise("mulAxpyAVX2", []string{"dst"}, []string{"dst", "a", "b"}, []string{"alpha"}, "dst[i] += (alpha·a[i])·b[i]",
		func(in, s vv) vv {
			g.VMULPS(in[1], s[0], in[1])
			g.VFMADD231PS(in[2], in[1], in[0])
			return in[:1]
		})
	g.elementwise("softmaxBackwardAVX2", []string{"ds"}, []string{"p", "dp"}, []string{"alpha", "c"}, "ds[i] = (alpha·p[i])·(dp[i] − c)",
		func(in, s vv) vv {
			g.VSUBPS(s[1], in[1], in[1])
			g.VMULPS(s[0], in[0], in[0])
			g.VMULPS(in[1], in[0], in[0])
			return in[:1]
		})
	dx := func(in, s vv) reg.VecVirtual { // dy, x, w; rstd, c
		g.VMULPS(in[2], in[0], in[0])
		g.VFNMADD231PS(in[1], s[1], in[0])
		return in[0]
	}
	g.elementwise("rmsNormDXAVX2", []string{"dx"}, []string{"dy", "x", "w"}, []string{"rstd", "c"},
		"dx[i] = rstd·(dy[i]·w[i] − c·x[i])",
		func(in, s vv) vv {
			t := dx(in, s)
			g.VMULPS(t, s[0], t)
			return vv{t}
		})
	g.elementwise("rmsNormDXAccAVX2", []string{"dx"}, []string{"dy", "x", "w", "dx"}, []string{"rstd", "c"},
		"dx[i] += rstd·(dy[i]·w[i] − c·x[i])",
		func(in, s vv) vv {
			t := dx(in, s)
			g.VFMADD231PS(t, s[0], in[3])
			return in[3:]
		})
	g.elementwise("rotateAVX2", []string{"x", "y"}, []string{"x", "y", "cos", "sin"}, []string{"sign"},
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
	adamw(g)
	g.dot()
	g.sum64("sumAVX2", []string{"x"}, "returns Σ x[i] in float64")
	g.sum64("sumSqAVX2", []string{"x", "x"}, "returns Σ x[i]² in float64")
	g.sum64("dot3AVX2", []string{"a", "b", "c"}, "returns Σ (a[i]·b[i])·c[i] in float64")
	g.maxOf()
}

// elementwise makes a kernel that calls body on vectors of eight elements.
// Inputs with an output's name are that output's old value.
func (g *gen) elementwise(name string, outs, ins, scalars []string, doc string, body func(in, s []reg.VecVirtual) []reg.VecVirtual) {
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
	var s []reg.VecVirtual
	for _, p := range scalars {
		s = append(s, g.broadcast(p))
	}
	g.each(n, func(i reg.Register, mask reg.VecVirtual) {
		var in []reg.VecVirtual
		for _, p := range ins {
			v := g.YMM()
			if mask == nil {
				g.VMOVUPS(at(ptrs[p], i, 0), v)
			} else {
				g.VMASKMOVPS(at(ptrs[p], i, 0), mask, v)
			}
			in = append(in, v)
		}
		for k, v := range body(in, s) {
			if mask == nil {
				g.VMOVUPS(v, at(ptrs[outs[k]], i, 0))
			} else {
				g.VMASKMOVPS(v, mask, at(ptrs[outs[k]], i, 0))
			}
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
func (g *gen) each(n reg.Register, body func(i reg.Register, mask reg.VecVirtual)) {
	i, whole := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(n, whole)
	g.ANDQ(operand.I8(-8), whole)
	g.JZ(operand.LabelRef("tail"))
	g.Label("loop")
	body(i, nil)
	g.ADDQ(operand.Imm(8), i)
	g.CMPQ(i, whole)
	g.JLT(operand.LabelRef("loop"))
	g.Label("tail")
	g.SUBQ(i, n)
	g.JZ(operand.LabelRef("done"))
	mask := g.YMM()
	g.mask(n, mask)
	body(i, mask)
	g.Label("done")
}

// lanes emits a reduction: body is called with the index, the number of the
// accumulator, a displacement in bytes and a mask or nil. A step holds four
// vectors of width elements; the rest of a step goes through masks, so that an
// element's accumulator depends on its index alone.
func (g *gen) lanes(n reg.Register, width int, body func(i reg.Register, q, disp int, mask reg.VecVirtual)) {
	i, whole := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(n, whole)
	g.ANDQ(operand.I8(int8(-4*width)), whole)
	g.JZ(operand.LabelRef("tail"))
	g.Label("loop")
	for q := range 4 {
		body(i, q, 4*width*q, nil)
	}
	g.ADDQ(operand.Imm(uint64(4*width)), i)
	g.CMPQ(i, whole)
	g.JLT(operand.LabelRef("loop"))
	g.Label("tail")
	g.SUBQ(i, n)
	limit := g.GP64()
	g.MOVQ(operand.U32(uint32(width)), limit)
	for q := range 4 {
		g.TESTQ(n, n)
		g.JLE(operand.LabelRef("combine"))
		left := g.GP64()
		g.MOVQ(n, left)
		g.CMPQ(left, limit)
		g.CMOVQGT(limit, left)
		mask := g.YMM()
		g.mask(left, mask)
		body(i, q, 4*width*q, mask)
		if q < 3 {
			g.SUBQ(operand.Imm(uint64(width)), n)
		}
	}
	g.Label("combine")
}

// laneSum32 adds four accumulators of eight lanes into element 0 of the first,
// in the order of the Go function of that name.
func (g *gen) laneSum32(acc []reg.VecVirtual) reg.Register {
	g.VADDPS(acc[1], acc[0], acc[0])
	g.VADDPS(acc[3], acc[2], acc[2])
	g.VADDPS(acc[2], acc[0], acc[0])
	x, y := acc[0].AsX(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), acc[0], y)
	g.VADDPS(y, x, x)
	g.VMOVHLPS(x, x, y)
	g.VADDPS(y, x, x)
	g.VMOVSHDUP(x, y)
	g.VADDSS(y, x, x)
	return x
}

func (g *gen) dot() {
	g.kernel("dotAVX2", "func(a, b *float32, n int) float32", "dotAVX2 returns Σ a[i]·b[i].")
	a, b, n := g.load("a"), g.load("b"), g.load("n")
	acc := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.lanes(n, 8, func(i reg.Register, q, disp int, mask reg.VecVirtual) {
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
	g.Store(g.laneSum32(acc), g.ReturnIndex(0))
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
	acc := []reg.VecVirtual{g.zero(), g.zero(), g.zero(), g.zero()}
	g.lanes(n, 4, func(i reg.Register, q, disp int, mask reg.VecVirtual) {
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
					g.VMASKMOVPS(at(ptrs[a], i, disp), mask.AsX(), x)
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
	g.VADDPD(acc[1], acc[0], acc[0])
	g.VADDPD(acc[3], acc[2], acc[2])
	g.VADDPD(acc[2], acc[0], acc[0])
	x, y := acc[0].AsX(), g.XMM()
	g.VEXTRACTF128(operand.Imm(1), acc[0], y)
	g.VADDPD(y, x, x)
	g.VUNPCKHPD(x, x, y)
	g.VADDSD(y, x, x)
	g.Store(x, g.ReturnIndex(0))
	g.finish()
}

func (g *gen) maxOf() {
	g.kernel("maxAVX2", "func(x *float32, n int) float32", "maxAVX2 returns the largest x[i], NaN if there is a NaN, −Inf if n is 0.")
	x, n := g.load("x"), g.load("n")
	ninf := g.YMM()
	g.VMOVUPS(g.eight("ninf", 0xff800000), ninf)
	acc := []reg.VecVirtual{g.YMM(), g.YMM(), g.YMM(), g.YMM()}
	for _, a := range acc {
		g.VMOVAPS(ninf, a)
	}
	nan := g.zero() // ones in lanes that saw a NaN
	g.lanes(n, 8, func(i reg.Register, q, disp int, mask reg.VecVirtual) {
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
	g.each(n, func(i reg.Register, mask reg.VecVirtual) {
		load := func(p reg.Register) reg.VecVirtual {
			r := g.YMM()
			if mask == nil {
				g.VMOVUPS(at(p, i, 0), r)
			} else {
				g.VMASKMOVPS(at(p, i, 0), mask, r)
			}
			return r
		}
		store := func(r reg.VecVirtual, p reg.Register) {
			if mask == nil {
				g.VMOVUPS(r, at(p, i, 0))
			} else {
				g.VMASKMOVPS(r, mask, at(p, i, 0))
			}
		}
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
