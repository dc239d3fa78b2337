package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const gemmHeader = `
Name: micro-kernels of the float32 matrix product, gemm<R>x<C>AVX2, for a tile
of R rows and C columns.

Computes: c[i,j] = init[i,j] + Σ_p a[i,p]·b[p,j], p = 0 … k−1 in rising order.

Shapes: strides in bytes. a[i,p] at a + i·rsa + p·csa. b in panels of 16
columns: b[p, 16q+l] at b + q·bps + p·ldb + 4l. c[i,j] at c + i·ldc + 4j.
init[i,j] at init + i·ldi + 4j: zeros or a bias with ldi = 0, or c itself to
continue chains.

Requires: k ≥ 0; no alignment; whole tiles: the caller goes through a scratch
tile at the right edge. init may be c; c overlaps neither a nor b.

Prefetches, where a step of b fills at most two vectors: of each panel, from ahead
bytes beyond b on and pace bytes further with each step, into the second level.

Registers: R·C/8 YMM accumulators for the whole call. For one panel both vectors
of b stay in registers and the elements of a are broadcast in turn (6×16: 12
accumulators, 2 of b, 2 of a). For several panels the elements of a stay and b
comes in turn. R = 1 … 3 take several panels, to have at least eight independent
chains in flight: two FMA units of latency four.

Numerics: one fused multiply-add per p and element, in order: see simd/doc.go.

Source: outer-product formulation of Goto and van de Geijn (2008).

Beside them, copyPanelAVX2, copyTiles<R>AVX2 and transpose8AVX2 move operands
into panels and tiles.

Checked by TestGemm*, TestPackNT, TestTranspose, FuzzGemm. Measured by
BenchmarkGemm and BenchmarkPack: EPYC 9004 (Zen 4), one core: 82 to 95 % of the
FMA peak over packed panels for 256 rows and more.
`

// How far ahead operands are asked for.
const (
	prefetchPairs   = 32 // pairs of steps, of several panels of BF16
	prefetchNear    = 16 // steps of k, of b, by AVX-512 tiles of nearRows or more, which leave the load units time for it
	nearRows        = 8
	prefetchColumns = 16  // columns of a transposed A that is copied: 100 ns, some ten cycles each
	prefetchMinK    = 128 // fewer steps leave no time to wait for c in
)

// gemmShapes are the tiles: rows, panels.
var gemmShapes = [][2]int{{1, 4}, {1, 2}, {1, 1}, {2, 2}, {2, 1}, {3, 2}, {3, 1}, {4, 1}, {5, 1}, {6, 1}}

func gemmFile(g *gen) {
	for _, s := range gemmShapes {
		gemmTile(g, avx2, s[0], s[1], false)
	}
	copyPanel(g)
	for rows := 4; rows <= 6; rows++ {
		copyTiles(g, rows)
	}
	transpose8(g)
}

// copyPanel makes the kernel that packs a slice of one panel.
func copyPanel(g *gen) {
	g.kernel("copyPanelAVX2", "func(dst, b *float32, ldb uintptr, k int)",
		"copyPanelAVX2 copies k rows of 16 floats, ldb bytes apart, to dst; k ≥ 1. It",
		"prefetches the line after each row, where the next panel lies.")
	dst, b, ldb, k := g.load("dst"), g.load("b"), g.load("ldb"), g.load("k")
	g.Label("row")
	lo, hi := g.YMM(), g.YMM()
	g.VMOVUPS(ptr(b, 0), lo)
	g.VMOVUPS(ptr(b, 32), hi)
	g.PREFETCHT1(ptr(b, 64))
	g.VMOVUPS(lo, ptr(dst, 0))
	g.VMOVUPS(hi, ptr(dst, 32))
	g.ADDQ(ldb, b)
	g.ADDQ(operand.Imm(64), dst)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("row"))
	g.finish()
}

// copyTiles makes the kernel that packs tiles of 4, 5 or 6 rows of a transposed A.
func copyTiles(g *gen, rows int) {
	name := fmt.Sprintf("copyTiles%dAVX2", rows)
	g.kernel(name, "func(dst, a *float32, csa uintptr, k, tiles int)",
		fmt.Sprintf("%s packs tiles of %d rows of a matrix whose columns are contiguous and", name, rows),
		fmt.Sprintf("csa bytes apart: dst[(t·k + p)·%d + i] = a[p·csa + %d·t + i]; k ≥ 1, tiles ≥ 1.", rows, rows))
	dst, a, csa, k, tiles := g.load("dst"), g.load("a"), g.load("csa"), g.load("k"), g.load("tiles")
	step := g.GP64() // bytes from tile to tile
	g.IMUL3Q(operand.U32(uint32(4*rows)), k, step)
	from, to, t, ahead := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.IMUL3Q(operand.U32(prefetchColumns), csa, ahead)
	g.Label("column")
	g.MOVQ(a, from)
	g.MOVQ(dst, to)
	g.MOVQ(tiles, t)
	g.Label("tile")
	g.PREFETCHT0(operand.Mem{Base: from, Index: ahead, Scale: 1})
	lo, hi := g.XMM(), g.XMM()
	g.VMOVUPS(ptr(from, 0), lo)
	g.VMOVUPS(lo, ptr(to, 0))
	switch rows {
	case 5:
		g.VMOVSS(ptr(from, 16), hi)
		g.VMOVSS(hi, ptr(to, 16))
	case 6:
		g.VMOVSD(ptr(from, 16), hi)
		g.VMOVSD(hi, ptr(to, 16))
	}
	g.ADDQ(operand.Imm(uint64(4*rows)), from)
	g.ADDQ(step, to)
	g.DECQ(t)
	g.JNZ(operand.LabelRef("tile"))
	g.ADDQ(csa, a)
	g.ADDQ(operand.Imm(uint64(4*rows)), dst)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("column"))
	g.finish()
}

// transpose8 makes the kernel that transposes a strip of 8×8 blocks.
func transpose8(g *gen) {
	g.kernel("transpose8AVX2", "func(dst *float32, ldd uintptr, src *float32, lds uintptr, blocks int)",
		"transpose8AVX2 writes eight columns of dst from eight rows of src, in blocks ≥ 1",
		"of 8×8: dst[i,j] = src[j,i] for i < 8·blocks, j < 8. Strides in bytes.")
	dst, ldd, src, lds, blocks := g.load("dst"), g.load("ldd"), g.load("src"), g.load("lds"), g.load("blocks")
	eight := func(p, ld reg.Register) (rows []operand.Mem) {
		ld3, p4 := g.GP64(), g.GP64()
		g.LEAQ(operand.Mem{Base: ld, Index: ld, Scale: 2}, ld3)
		g.LEAQ(operand.Mem{Base: p, Index: ld, Scale: 4}, p4)
		for _, b := range []reg.Register{p, p4} {
			rows = append(rows, ptr(b, 0), operand.Mem{Base: b, Index: ld, Scale: 1},
				operand.Mem{Base: b, Index: ld, Scale: 2}, operand.Mem{Base: b, Index: ld3, Scale: 1})
		}
		return rows
	}
	g.Label("block")
	from, to := eight(src, lds), eight(dst, ldd)
	// Halves of rows j and j+4 side by side, then 4×4 transposes in each half.
	for h := range 2 {
		var r [4]reg.VecVirtual
		for j := range r {
			r[j] = g.YMM()
			lo, hi := from[j], from[j+4]
			lo.Disp += 16 * h
			hi.Disp += 16 * h
			g.VMOVUPS(lo, r[j].AsX())
			g.VINSERTF128(operand.Imm(1), hi, r[j], r[j])
		}
		a, b, c, d := g.YMM(), g.YMM(), g.YMM(), g.YMM()
		g.VUNPCKLPS(r[1], r[0], a) // 00 10 01 11
		g.VUNPCKHPS(r[1], r[0], b) // 02 12 03 13
		g.VUNPCKLPS(r[3], r[2], c)
		g.VUNPCKHPS(r[3], r[2], d)
		for q, pair := range [][2]reg.VecVirtual{{a, c}, {b, d}} {
			v := g.YMM()
			g.VUNPCKLPD(pair[1], pair[0], v)
			g.VMOVUPS(v, to[4*h+2*q])
			w := g.YMM()
			g.VUNPCKHPD(pair[1], pair[0], w)
			g.VMOVUPS(w, to[4*h+2*q+1])
		}
	}
	g.ADDQ(operand.Imm(32), src)
	g.LEAQ(operand.Mem{Base: dst, Index: ldd, Scale: 8}, dst)
	g.DECQ(blocks)
	g.JNZ(operand.LabelRef("block"))
	g.finish()
}

// gemmTile makes a micro-kernel over panels of float32, or of pairs of BF16. Up to
// two vectors of b stay in registers for a step, with the elements of a broadcast
// in turn; where a step has more, the elements of a stay and b comes in turn.
func gemmTile(g *gen, s isa, rows, panels int, bf16 bool) {
	perPanel := 64 / s.bytes
	vectors := perPanel * panels
	name, what := fmt.Sprintf("gemm%dx%d%s", rows, 16*panels, s.suffix), "*float32, ldb, bps"
	if bf16 {
		name, what = fmt.Sprintf("gemm%dx%dBF16%s", rows, 16*panels, s.suffix), "*uint16, bps"
	}
	g.kernel(name,
		fmt.Sprintf("func(k int, a *float32, rsa, csa uintptr, b %s uintptr, c *float32, ldc uintptr, init *float32, ldi, ahead, pace uintptr)", what),
		fmt.Sprintf("%s computes a tile of %d rows and %d columns.", name, rows, 16*panels))

	// Prologue: accumulators from init.
	acc := make([][]reg.VecVirtual, rows)
	{
		init, ldi := g.load("init"), g.load("ldi")
		for i := range acc {
			for v := range vectors {
				acc[i] = append(acc[i], s.vector(g))
				g.VMOVUPS(ptr(init, s.bytes*v), acc[i][v])
			}
			if i+1 < rows {
				g.ADDQ(ldi, init)
			}
		}
	}

	k := g.load("k")
	if rows >= 4 {
		g.CMPQ(k, operand.Imm(prefetchMinK))
		g.JL(operand.LabelRef("start"))
		prefetchC(g, rows, panels)
		g.Label("start")
	}
	csa := g.load("csa")
	b := g.load("b")
	var ldb reg.Register
	if !bf16 {
		ldb = g.load("ldb")
	}
	// Rows 0, 1, 2 are addressed from a, and so on by threes.
	bases := []reg.Register{g.load("a")}
	var rsa reg.Register
	if rows > 1 {
		rsa = g.load("rsa")
	}
	for i := 3; i < rows; i += 3 {
		next := g.GP64()
		g.LEAQ(operand.Mem{Base: rsa, Index: rsa, Scale: 2}, next)
		g.ADDQ(bases[len(bases)-1], next)
		bases = append(bases, next)
	}
	rowA := func(i int) operand.Mem {
		if i%3 == 0 {
			return ptr(bases[i/3], 0)
		}
		return operand.Mem{Base: bases[i/3], Index: rsa, Scale: uint8(i % 3)}
	}
	var bps, bps3 reg.Register
	if panels > 1 {
		bps = g.load("bps")
	}
	if panels > 3 {
		bps3 = g.GP64()
		g.LEAQ(operand.Mem{Base: bps, Index: bps, Scale: 2}, bps3)
	}
	vecB := func(v int) operand.Mem {
		switch q, off := v/perPanel, v%perPanel*s.bytes; q {
		case 0:
			return ptr(b, off)
		case 3:
			return operand.Mem{Base: b, Index: bps3, Scale: 1, Disp: off}
		default:
			return operand.Mem{Base: b, Index: bps, Scale: uint8(q), Disp: off}
		}
	}

	// What stays in registers is prefetched, since it is few streams: the rows just
	// before they are needed, and at the caller's pace others that will be.
	var near []reg.Register
	var soon, pace reg.Register
	if vectors <= 2 {
		soon, pace = g.load("ahead"), g.load("pace")
		g.ADDQ(b, soon)
		for q := range panels {
			if s != avx512 || rows < nearRows {
				break
			}
			r := g.GP64()
			if bf16 {
				g.MOVQ(operand.I32(64*prefetchNear), r)
			} else {
				g.IMUL3Q(operand.U32(prefetchNear), ldb, r)
			}
			if q == 1 {
				g.ADDQ(bps, r)
			}
			near = append(near, r)
		}
	}

	// step adds one step of k, for which load puts vector v of b into a register.
	step := func(load func(v int) reg.VecVirtual) {
		if vectors <= 2 {
			var bv []reg.VecVirtual
			for v := range vectors {
				bv = append(bv, load(v))
			}
			for i := range rows {
				t := s.vector(g)
				g.VBROADCASTSS(rowA(i), t)
				for v := range vectors {
					g.VFMADD231PS(bv[v], t, acc[i][v])
				}
			}
		} else {
			t := make([]reg.VecVirtual, rows)
			for i := range t {
				t[i] = s.vector(g)
				g.VBROADCASTSS(rowA(i), t[i])
			}
			for v := range vectors {
				if rows == 1 && !bf16 {
					g.VFMADD231PS(vecB(v), t[0], acc[0][v])
					continue
				}
				bv := load(v)
				for i := range rows {
					g.VFMADD231PS(bv, t[i], acc[i][v])
				}
			}
		}
		for _, a := range bases {
			g.ADDQ(csa, a)
		}
	}
	prefetchB := func() {
		if bf16 && vectors > 2 { // one or two rows take half the bytes as fast as they come
			for q := range panels {
				m := vecB(q * perPanel)
				m.Disp += 64 * prefetchPairs
				g.PREFETCHT0(m)
			}
		}
		for _, r := range near {
			g.PREFETCHT0(operand.Mem{Base: b, Index: r, Scale: 1})
		}
		if vectors > 2 {
			return
		}
		g.PREFETCHT1(ptr(soon, 0))
		if panels == 2 {
			g.PREFETCHT1(operand.Mem{Base: soon, Index: bps, Scale: 1})
		}
		g.ADDQ(pace, soon)
	}
	if bf16 {
		first, second := widener(g, s, vecB)
		g.SHRQ(operand.Imm(1), k)
		g.JZ(operand.LabelRef("odd"))
		g.Label("pair")
		prefetchB()
		step(first)
		step(second)
		g.ADDQ(operand.Imm(64), b)
		g.DECQ(k)
		g.JNZ(operand.LabelRef("pair"))
		g.Label("odd")
		last := g.load("k")
		g.TESTQ(operand.U32(1), last)
		g.JZ(operand.LabelRef("store"))
		step(first)
	} else {
		g.TESTQ(k, k)
		g.JZ(operand.LabelRef("store"))
		g.Label("step")
		prefetchB()
		step(func(v int) reg.VecVirtual { return g.fetch(s, vecB(v), nil) })
		g.ADDQ(ldb, b)
		g.DECQ(k)
		g.JNZ(operand.LabelRef("step"))
	}

	g.Label("store")
	c, ldc := g.load("c"), g.load("ldc")
	for i := range acc {
		for v, r := range acc[i] {
			g.VMOVUPS(r, ptr(c, s.bytes*v))
		}
		if i+1 < rows {
			g.ADDQ(ldc, c)
		}
	}
	g.finish()
}

// prefetchC asks for the tile of c that the kernel will store, and for the one
// below it, with which the next tile may start.
func prefetchC(g *gen, rows, panels int) {
	c, ldc := g.load("c"), g.load("ldc")
	for i := range 2 * rows {
		for q := range panels {
			g.PREFETCHT0(ptr(c, 64*q))
		}
		if i+1 < 2*rows {
			g.ADDQ(ldc, c)
		}
	}
}
