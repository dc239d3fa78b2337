package main

import (
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const gemmBF16Header = `
Name: micro-kernels of the product of float32 rows with BF16 columns,
gemm<R>x<C>BF16<instruction set>, and the widening of such columns into float32.

Computes: c[i,j] = init[i,j] + Σ_p a[i,p]·b[p,j], p = 0 … k−1 in rising order, b
widened to float32.

Shapes: as gemm_avx2_amd64.s, but b lies in panels of pairs: b[2q+h, 16r+l] is the
h-th half of the word at b + r·bps + 64q + 4l. Of an odd k the last pair's second
halves are not used.

Requires: as gemm_avx2_amd64.s. b starts at an even step.

Registers: as the kernels of float32. One step of a pair takes the words shifted
left, the other one masked, so that widening is one instruction per vector.

Numerics: one fused multiply-add per p and element, in order: the bits are those
of the float32 kernels over widened panels.

Source: outer-product formulation of Goto and van de Geijn (2008).

Checked by TestGemmBF16*, FuzzGemmBF16. Measured by BenchmarkGemmBF16.
`

func gemmBF16File(s isa, shapes [][2]int) func(*gen) {
	return func(g *gen) {
		for _, shape := range shapes {
			gemmTile(g, s, shape[0], shape[1], true)
		}
		widenPairs(g, s)
		if s == avx2 {
			widenRows(g)
		}
	}
}

// widener returns what widens the first and the second halves of a vector of
// pairs in memory.
func widener(g *gen, s isa, from func(v int) operand.Mem) (first, second func(v int) reg.VecVirtual) {
	mask := g.copies(s, "upper"+s.suffix, 0xffff0000)
	if s == avx512 {
		upper := g.ZMM()
		g.VMOVUPS(mask, upper)
		return func(v int) reg.VecVirtual {
				to := g.ZMM()
				g.VPSLLD(operand.Imm(16), from(v), to)
				return to
			}, func(v int) reg.VecVirtual {
				to := g.ZMM()
				g.VPANDD(from(v), upper, to)
				return to
			}
	}
	return func(v int) reg.VecVirtual {
			to := g.YMM()
			g.VMOVDQU(from(v), to)
			g.VPSLLD(operand.Imm(16), to, to)
			return to
		}, func(v int) reg.VecVirtual {
			to := g.YMM()
			g.VMOVDQU(from(v), to)
			g.VPAND(mask, to, to)
			return to
		}
}

// widenPairs makes the kernel that widens a slice of one panel.
func widenPairs(g *gen, s isa) {
	g.kernel("widenPairs"+s.suffix, "func(dst *float32, b *uint16, pairs int)",
		"widenPairs"+s.suffix+" widens pairs ≥ 1 pairs of rows of a panel: dst[2p+h, l] is the h-th half",
		"of word l of pair p. It prefetches ahead.")
	dst, b, pairs := g.load("dst"), g.load("b"), g.load("pairs")
	first, second := widener(g, s, func(v int) operand.Mem { return ptr(b, s.bytes*v) })
	g.Label("pair")
	g.PREFETCHT0(ptr(b, 64*prefetchNear))
	for v := range 64 / s.bytes {
		g.VMOVUPS(first(v), ptr(dst, s.bytes*v))
		g.VMOVUPS(second(v), ptr(dst, 64+s.bytes*v))
	}
	g.ADDQ(operand.Imm(64), b)
	g.ADDQ(operand.Imm(128), dst)
	g.DECQ(pairs)
	g.JNZ(operand.LabelRef("pair"))
	g.finish()
}

// widenRows makes the kernel that widens rows of a matrix into a panel.
func widenRows(g *gen) {
	g.kernel("widenRowsAVX2", "func(dst *float32, b *uint16, ldb uintptr, k int)",
		"widenRowsAVX2 widens k ≥ 1 rows of 16 elements, ldb bytes apart. It prefetches the",
		"line after each row, where the next panel lies.")
	dst, b, ldb, k := g.load("dst"), g.load("b"), g.load("ldb"), g.load("k")
	g.Label("row")
	lo, hi := g.YMM(), g.YMM()
	g.VPMOVZXWD(ptr(b, 0), lo)
	g.VPMOVZXWD(ptr(b, 16), hi)
	g.PREFETCHT1(ptr(b, 64))
	g.VPSLLD(operand.Imm(16), lo, lo)
	g.VPSLLD(operand.Imm(16), hi, hi)
	g.VMOVUPS(lo, ptr(dst, 0))
	g.VMOVUPS(hi, ptr(dst, 32))
	g.ADDQ(ldb, b)
	g.ADDQ(operand.Imm(64), dst)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("row"))
	g.finish()
}
