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

Registers: R·C/8 YMM accumulators for the whole call. For one panel both vectors
of b stay in registers and the elements of a are broadcast in turn (6×16: 12
accumulators, 2 of b, 2 of a). For several panels the elements of a stay and b
comes in turn. R = 1 … 3 take several panels, to have at least eight independent
chains in flight: two FMA units of latency four.

Numerics: one fused multiply-add per p and element, in order: see simd/doc.go.

Source: outer-product formulation of Goto and van de Geijn (2008).

Checked by TestGemm*, FuzzGemm. Measured by BenchmarkGemm.
`

// gemmShapes are the tiles: rows, panels.
var gemmShapes = [][2]int{{1, 4}, {1, 2}, {1, 1}, {2, 2}, {2, 1}, {3, 2}, {3, 1}, {4, 1}, {5, 1}, {6, 1}}

func gemmFile(g *gen) {
	for _, s := range gemmShapes {
		gemmTile(g, s[0], s[1])
	}
}

func gemmTile(g *gen, rows, panels int) {
	name := fmt.Sprintf("gemm%dx%dAVX2", rows, 16*panels)
	g.kernel(name,
		"func(k int, a *float32, rsa, csa uintptr, b *float32, ldb, bps uintptr, c *float32, ldc uintptr, init *float32, ldi uintptr)",
		fmt.Sprintf("%s computes a tile of %d rows and %d columns.", name, rows, 16*panels))

	// Prologue: accumulators from init.
	acc := make([][]reg.VecVirtual, rows)
	{
		init, ldi := g.load("init"), g.load("ldi")
		for i := range acc {
			for v := range 2 * panels {
				acc[i] = append(acc[i], g.YMM())
				g.VMOVUPS(ptr(init, 32*v), acc[i][v])
			}
			if i+1 < rows {
				g.ADDQ(ldi, init)
			}
		}
	}

	k, a, csa := g.load("k"), g.load("a"), g.load("csa")
	b, ldb := g.load("b"), g.load("ldb")
	// Rows 0, 1, 2 are addressed from a, rows 3, 4, 5 from a3.
	var rsa, a3 reg.Register
	if rows > 1 {
		rsa = g.load("rsa")
	}
	if rows > 3 {
		a3 = g.GP64()
		g.LEAQ(operand.Mem{Base: rsa, Index: rsa, Scale: 2}, a3)
		g.ADDQ(a, a3)
	}
	rowA := func(i int) operand.Mem {
		base := a
		if i >= 3 {
			base, i = a3, i-3
		}
		if i == 0 {
			return ptr(base, 0)
		}
		return operand.Mem{Base: base, Index: rsa, Scale: uint8(i)}
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
		switch q, off := v/2, v%2*32; q {
		case 0:
			return ptr(b, off)
		case 3:
			return operand.Mem{Base: b, Index: bps3, Scale: 1, Disp: off}
		default:
			return operand.Mem{Base: b, Index: bps, Scale: uint8(q), Disp: off}
		}
	}

	g.TESTQ(k, k)
	g.JZ(operand.LabelRef("store"))
	g.Label("step")
	if panels == 1 {
		b0, b1 := g.YMM(), g.YMM()
		g.VMOVUPS(vecB(0), b0)
		g.VMOVUPS(vecB(1), b1)
		for i := range rows {
			t := g.YMM()
			g.VBROADCASTSS(rowA(i), t)
			g.VFMADD231PS(b0, t, acc[i][0])
			g.VFMADD231PS(b1, t, acc[i][1])
		}
	} else {
		t := make([]reg.VecVirtual, rows)
		for i := range t {
			t[i] = g.YMM()
			g.VBROADCASTSS(rowA(i), t[i])
		}
		for v := range 2 * panels {
			if rows == 1 {
				g.VFMADD231PS(vecB(v), t[0], acc[0][v])
				continue
			}
			bv := g.YMM()
			g.VMOVUPS(vecB(v), bv)
			for i := range rows {
				g.VFMADD231PS(bv, t[i], acc[i][v])
			}
		}
	}
	g.ADDQ(csa, a)
	if rows > 3 {
		g.ADDQ(csa, a3)
	}
	g.ADDQ(ldb, b)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("step"))

	g.Label("store")
	c, ldc := g.load("c"), g.load("ldc")
	for i := range acc {
		for v, r := range acc[i] {
			g.VMOVUPS(r, ptr(c, 32*v))
		}
		if i+1 < rows {
			g.ADDQ(ldc, c)
		}
	}
	g.finish()
}
