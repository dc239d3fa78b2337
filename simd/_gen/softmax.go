package main

import (
	"math"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const softmaxHeader = `
Name: kernels of attention over one split of 32 keys: softmaxRows, its gradient
softmaxGradRows, and the merge of splits, softmaxMerge and mergeRows.

Computes: the equation in each function's comment, stated in full at the
exported function or at the generic twin of the same name.

Shapes: s, p, ds: rows of 32 floats without gaps; o, part: rows of d floats
without gaps; the rest one float for each row. Row r has min(seen + r·step, 32)
keys.

Requires: rows ≥ 1, seen ≥ 1, step ≥ 0, d ≥ 1; no alignment.

Registers: a row of 32 is four YMM or two ZMM registers; the constants of the
exponential are memory operands.

Numerics: the exponential of exp_avx2_amd64.s, where AVX-512 scales by 2ⁿ in one
instruction that rounds once, and the sum in the order of laneSum32, so that a
row has the bits of scale, max and expSub one after the other. softmaxMerge computes its exponential in float64 (Taylor's series to the
twelfth power after reduction by ln 2, below 2⁻⁵⁰ of relative error) and rounds
it once. AVX2 and AVX-512 give the same bits.

Checked by TestSoftmax*, TestMergeRows. Measured by BenchmarkSoftmaxRows.
`

// softmaxFile makes the kernels of an instruction set.
func softmaxFile(s isa) func(*gen) {
	return func(g *gen) {
		g.softmaxRows(s)
		g.softmaxGradRows(s)
		g.mergeRows(s)
		if s == avx2 {
			g.softmaxMerge()
		}
	}
}

// rows32 is the state of a loop over rows of 32 keys.
type rows32 struct {
	isa
	*gen
	vectors int
	n, step reg.VecVirtual // keys seen by the row, in each lane
	iota    []operand.Op   // the lanes' indices
}

// rows32 starts a kernel: it loads seen, step and constants.
func (g *gen) rows32(s isa) *rows32 {
	r := &rows32{isa: s, gen: g, vectors: 128 / s.bytes, n: s.vector(g), step: s.vector(g)}
	for _, p := range []struct {
		name string
		v    reg.VecVirtual
	}{{"seen", r.n}, {"step", r.step}} {
		x := g.XMM()
		n := g.load(p.name)
		g.VMOVD(n.(reg.GPVirtual).As32(), x)
		g.VPBROADCASTD(x, p.v)
	}
	lanes := make([]uint32, 32)
	for i := range lanes {
		lanes[i] = uint32(i)
	}
	table := g.words("lanes", lanes...)
	for q := range r.vectors {
		r.iota = append(r.iota, table.Offset(q*s.bytes))
	}
	return r
}

// seen returns the mask of the seen lanes of vector q: a K register or, with
// AVX2, a vector.
func (r *rows32) seen(q int) reg.Register {
	if r.isa == avx512 {
		k := r.K()
		r.VPCMPGTD(r.iota[q], r.n, k)
		return k
	}
	m := r.YMM()
	r.VPCMPGTD(r.iota[q], r.n, m)
	return m
}

// max returns the largest lane of the vectors in lane 0.
func (r *rows32) max(v []reg.VecVirtual) reg.Register {
	top := r.vector(r.gen)
	r.VMAXPS(v[1], v[0], top)
	for _, x := range v[2:] {
		r.VMAXPS(x, top, top)
	}
	if r.isa == avx512 {
		y := r.YMM()
		r.VEXTRACTF64X4(operand.Imm(1), top, y)
		r.VMAXPS(y, top.AsY(), y)
		top = y
	}
	return r.fold(r.isa, top, func(a, b, dst operand.Op) { r.VMAXPS(a, b, dst) })
}

func (g *gen) softmaxRows(s isa) {
	name := "softmaxRows" + s.suffix
	g.kernel(name, "func(s *float32, rows int, scale float32, seen, step int, m, sum *float32)",
		name+" turns rows of scores into weights exp(scale·s − m) with their maximum m and",
		"sum; the weights of keys that a row does not see are 0.")
	r := g.rows32(s)
	p, rows, mp, sp := g.load("s"), g.load("rows"), g.load("m"), g.load("sum")
	scale := g.broadcast(s, "scale")
	ninf := s.vector(g)
	g.VBROADCASTSS(g.words("ninf", 0xff800000), ninf)
	g.Label("row")
	v := make([]reg.VecVirtual, r.vectors)
	for q := range v {
		mask := r.seen(q)
		v[q] = s.vector(g)
		if s == avx512 {
			g.VMOVAPS(ninf, v[q])
			g.VMULPS(ptr(p, s.bytes*q), scale, mask, v[q])
		} else {
			g.VMULPS(ptr(p, s.bytes*q), scale, v[q])
			g.VBLENDVPS(mask, v[q], ninf, v[q])
		}
	}
	// The maximum; all ones, a NaN, if there is a NaN.
	x := r.max(v)
	r.ifNaN(v, func() { g.VBROADCASTSS(g.words("nan", 0xffffffff), x) })
	g.VMOVSS(x, ptr(mp, 0))
	m := s.vector(g)
	g.VBROADCASTSS(x, m)
	for q := range v {
		// What is not seen passes through the exponential as 0: as −Inf it would
		// underflow there, which costs a microcode assist.
		mask := r.seen(q)
		g.VSUBPS(m, v[q], v[q])
		g.keep(s, mask, v[q])
		v[q] = g.exp(s, v[q])
		g.keep(s, mask, v[q])
		g.VMOVUPS(v[q], ptr(p, s.bytes*q))
	}
	g.VMOVSS(g.laneSum32(s, v), ptr(sp, 0))
	g.VPADDD(r.step, r.n, r.n)
	g.ADDQ(operand.Imm(128), p)
	g.ADDQ(operand.Imm(4), mp)
	g.ADDQ(operand.Imm(4), sp)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	g.finish()
}

// ifNaN emits then for the case that a lane of v is a NaN.
func (r *rows32) ifNaN(v []reg.VecVirtual, then func()) {
	if r.isa == avx512 {
		a, b := r.K(), r.K()
		r.VCMPPS(operand.Imm(3), v[0], v[0], a)
		r.VCMPPS(operand.Imm(3), v[1], v[1], b)
		r.KORTESTW(a, b)
	} else {
		nan := r.YMM()
		r.VCMPPS(operand.Imm(3), v[0], v[0], nan)
		for _, x := range v[1:] {
			u := r.YMM()
			r.VCMPPS(operand.Imm(3), x, x, u)
			r.VORPS(u, nan, nan)
		}
		bits := r.GP32()
		r.VMOVMSKPS(nan, bits)
		r.TESTL(bits, bits)
	}
	r.JZ(operand.LabelRef("ordered"))
	then()
	r.Label("ordered")
}

func (g *gen) softmaxGradRows(s isa) {
	name := "softmaxGradRows" + s.suffix
	g.kernel(name, "func(p, ds *float32, rows int, scale float32, seen, step int, lse, delta *float32)",
		name+" turns rows of scores p into probabilities exp(scale·p − lse), and rows of",
		"their gradients ds into scale·p·(ds − delta); both are 0 for keys that a row does",
		"not see.")
	r := g.rows32(s)
	p, ds, rows, lse, delta := g.load("p"), g.load("ds"), g.load("rows"), g.load("lse"), g.load("delta")
	scale := g.broadcast(s, "scale")
	g.Label("row")
	l, c := s.vector(g), s.vector(g)
	g.VBROADCASTSS(ptr(lse, 0), l)
	g.VBROADCASTSS(ptr(delta, 0), c)
	for q := range r.vectors {
		mask := r.seen(q)
		v := s.vector(g)
		g.VMULPS(ptr(p, s.bytes*q), scale, v)
		g.VSUBPS(l, v, v)
		e := g.exp(s, v)
		g.keep(s, mask, e)
		g.VMOVUPS(e, ptr(p, s.bytes*q))
		d := s.vector(g)
		g.VMOVUPS(ptr(ds, s.bytes*q), d)
		g.VSUBPS(c, d, d)
		g.VMULPS(scale, e, e)
		g.VMULPS(d, e, e)
		g.keep(s, mask, e)
		g.VMOVUPS(e, ptr(ds, s.bytes*q))
	}
	g.VPADDD(r.step, r.n, r.n)
	for _, x := range []reg.Register{p, ds} {
		g.ADDQ(operand.Imm(128), x)
	}
	for _, x := range []reg.Register{lse, delta} {
		g.ADDQ(operand.Imm(4), x)
	}
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	g.finish()
}

func (g *gen) mergeRows(s isa) {
	name := "mergeRows" + s.suffix
	g.kernel(name, "func(o, part *float32, rows, d int, a, b *float32)",
		name+" computes o[r,i] = b[r]·part[r,i] + (a[r]·o[r,i]), the product with a rounded.")
	o, part, rows, d, ap, bp := g.load("o"), g.load("part"), g.load("rows"), g.load("d"), g.load("a"), g.load("b")
	lanes := s.bytes / 4
	whole, rest := g.GP64(), g.GP64()
	g.MOVQ(d, whole)
	g.ANDQ(operand.I8(int8(-lanes)), whole)
	g.MOVQ(d, rest)
	g.SUBQ(whole, rest)
	left := g.GP64()
	g.MOVQ(rest, left)
	mask := g.mask(s, left)
	g.Label("row")
	a, b := s.vector(g), s.vector(g)
	g.VBROADCASTSS(ptr(ap, 0), a)
	g.VBROADCASTSS(ptr(bp, 0), b)
	i := g.GP64()
	g.XORQ(i, i)
	g.TESTQ(whole, whole)
	g.JZ(operand.LabelRef("tail"))
	g.Label("vector")
	x := s.vector(g)
	g.VMULPS(at(o, i, 0), a, x)
	g.VFMADD231PS(at(part, i, 0), b, x)
	g.VMOVUPS(x, at(o, i, 0))
	g.ADDQ(operand.Imm(uint64(lanes)), i)
	g.CMPQ(i, whole)
	g.JLT(operand.LabelRef("vector"))
	g.Label("tail")
	g.TESTQ(rest, rest)
	g.JZ(operand.LabelRef("next"))
	y, z := g.fetch(s, at(o, i, 0), mask), g.fetch(s, at(part, i, 0), mask)
	g.VMULPS(y, a, y)
	g.VFMADD231PS(z, b, y)
	g.store(s, y, at(o, i, 0), mask)
	g.Label("next")
	g.LEAQ(at(o, d, 0), o)
	g.LEAQ(at(part, d, 0), part)
	g.ADDQ(operand.Imm(4), ap)
	g.ADDQ(operand.Imm(4), bp)
	g.DECQ(rows)
	g.JNZ(operand.LabelRef("row"))
	g.finish()
}

// double returns read-only memory with four copies of a float64.
func (g *gen) double(name string, f float64) operand.Mem {
	w := math.Float64bits(f)
	lo, hi := uint32(w), uint32(w>>32)
	return g.words(name, lo, hi, lo, hi, lo, hi, lo, hi)
}

func (g *gen) softmaxMerge() {
	g.kernel("softmaxMergeAVX2", "func(m, sum, ms, sums *float32, n int, a, b *float32)",
		"softmaxMergeAVX2 merges the maximum ms and sum sums of a further split into m and",
		"sum, and returns in a and b what the outputs of before and of the split are to be",
		"multiplied by.")
	m, sum, ms, sums, n, ap, bp := g.load("m"), g.load("sum"), g.load("ms"), g.load("sums"), g.load("n"), g.load("a"), g.load("b")
	one := g.XMM()
	g.VBROADCASTSS(g.words("one", math.Float32bits(1)), one)
	i, four := g.GP64(), g.GP64()
	g.XORQ(i, i)
	g.MOVQ(operand.U32(4), four)
	g.Label("rows")
	left := g.GP64()
	g.MOVQ(n, left)
	g.CMPQ(left, four)
	g.CMOVQGT(four, left)
	k := g.mask(avx2, left).(reg.VecVirtual).AsX()
	load := func(p reg.Register) reg.VecVirtual {
		v := g.XMM()
		g.VMASKMOVPS(at(p, i, 0), k, v)
		return v
	}
	old, add := load(m), load(ms)
	// ge: the maximum stays. hi and lo: the larger and the smaller, or with a NaN
	// the split's and the old one.
	ge, hi, lo, d := g.XMM(), g.XMM(), g.XMM(), g.XMM()
	g.VCMPPS(operand.Imm(13), add, old, ge)
	g.VBLENDVPS(ge, old, add, hi)
	g.VBLENDVPS(ge, add, old, lo)
	g.VSUBPS(hi, lo, d)
	e := g.exp64(d)
	s, t := load(sum), load(sums)
	big, small, keep, new := g.XMM(), g.XMM(), g.XMM(), g.XMM()
	g.VBLENDVPS(ge, s, t, big)
	g.VBLENDVPS(ge, t, s, small)
	g.VMULPS(e, small, small)
	g.VADDPS(small, big, big)
	g.VBLENDVPS(ge, one, e, keep)
	g.VBLENDVPS(ge, e, one, new)
	g.VMASKMOVPS(hi, k, at(m, i, 0))
	g.VMASKMOVPS(big, k, at(sum, i, 0))
	g.VMASKMOVPS(keep, k, at(ap, i, 0))
	g.VMASKMOVPS(new, k, at(bp, i, 0))
	g.ADDQ(four, i)
	g.SUBQ(four, n)
	g.JG(operand.LabelRef("rows"))
	g.finish()
}

// exp64 emits the exponential of four float32s d ≤ 0 or NaN, computed in float64
// and rounded once.
func (g *gen) exp64(d reg.VecVirtual) reg.VecVirtual {
	x, t, f, p := g.YMM(), g.YMM(), g.YMM(), g.YMM()
	g.VCVTPS2PD(d, x)
	// Below −200 the result is 0 as at −200; with x as the second source a NaN
	// survives.
	g.VMOVUPD(g.double("floor", -200), t)
	g.VMAXPD(x, t, x)
	g.VMOVUPD(g.double("log2e64", math.Log2E), t)
	g.VFMADD213PD(g.double("magic64", 3<<51), x, t)
	g.VSUBPD(g.double("magic64", 3<<51), t, f)
	g.VFNMADD231PD(g.double("ln2hi64", ln2Hi64), f, x)
	g.VFNMADD231PD(g.double("ln2lo64", ln2Lo64), f, x)
	g.VMOVUPD(g.double("inv12", 1.0/479001600), p)
	fact := 39916800.0
	for i := 11; i >= 0; i-- {
		g.VFMADD213PD(g.double("inv"+string(rune('a'+i)), 1/fact), x, p)
		fact /= float64(max(i, 1))
	}
	// The integer in t's low bits, shifted to the exponent's place.
	g.VPSLLQ(operand.Imm(52), t, t)
	g.VPADDQ(t, p, p)
	e := g.XMM()
	g.VCVTPD2PSY(p, e)
	return e
}

// ln 2 in two parts, the first with its last 21 bits zero (fdlibm's e_exp.c).
const (
	ln2Hi64 = 6.93147180369123816490e-01
	ln2Lo64 = 1.90821492927058770002e-10
)
