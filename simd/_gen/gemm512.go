package main

import "github.com/mmcloughlin/avo/operand"

const gemm512Header = `
Name: micro-kernels of the float32 matrix product, gemm<R>x<C>AVX512, for a tile
of R rows and C columns, and copyTilesAVX512, which packs such tiles' rows.

Computes, shapes, requires: as gemm_avx2_amd64.s, of which these are the wide
twins: one ZMM register holds a row of a panel of 16 columns.

Registers: R·C/16 ZMM accumulators for the whole call, at most 24 of the 32. Of
one or two panels the row of b stays in registers and the elements of a are
broadcast in turn (12×32: 24 accumulators, 2 of b, the rest for a); of four
panels, for one or two rows, the elements of a stay and b comes in turn.

Numerics: one fused multiply-add per p and element, in order: the bits are those
of the AVX2 kernels.

Source: outer-product formulation of Goto and van de Geijn (2008).

Checked by TestGemm*, TestGemmVariantsAgree, FuzzGemm. Measured by BenchmarkGemm
against the AVX2 kernels.
`

// tileRows512 is the most rows of a tile: 24 accumulators of two panels.
const tileRows512 = 12

// gemmShapes512 are the tiles: rows, panels.
func gemmShapes512() (shapes [][2]int) {
	shapes = append(shapes, [2]int{1, 4}, [2]int{2, 4})
	for panels := 2; panels >= 1; panels-- {
		for rows := 1; rows <= tileRows512; rows++ {
			shapes = append(shapes, [2]int{rows, panels})
		}
	}
	return shapes
}

func gemm512File(g *gen) {
	for _, s := range gemmShapes512() {
		gemmTile(g, avx512, s[0], s[1], false)
	}
	copyTiles512(g)
}

// copyTiles512 makes the kernel that packs tiles of up to 16 rows of a
// transposed A.
func copyTiles512(g *gen) {
	g.kernel("copyTilesAVX512", "func(dst, a *float32, csa uintptr, k, tiles, rows int)",
		"copyTilesAVX512 packs tiles of rows ≤ 16 rows of a matrix whose columns are",
		"contiguous and csa bytes apart: dst[(t·k + p)·rows + i] = a[p·csa + rows·t + i];",
		"k ≥ 1, tiles ≥ 1. It prefetches columns ahead, each in a page of its own perhaps.")
	dst, a, csa, k, tiles, rows := g.load("dst"), g.load("a"), g.load("csa"), g.load("k"), g.load("tiles"), g.load("rows")
	mask := g.mask(avx512, rows)
	g.SHLQ(operand.Imm(2), rows) // now in bytes
	step := g.GP64()             // bytes from tile to tile
	g.MOVQ(rows, step)
	g.IMULQ(k, step)
	from, to, t, ahead := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.IMUL3Q(operand.U32(prefetchColumns), csa, ahead)
	g.Label("column")
	g.MOVQ(a, from)
	g.MOVQ(dst, to)
	g.MOVQ(tiles, t)
	g.Label("tile")
	g.PREFETCHT0(operand.Mem{Base: from, Index: ahead, Scale: 1})
	g.store(avx512, g.fetch(avx512, ptr(from, 0), mask), ptr(to, 0), mask)
	g.ADDQ(rows, from)
	g.ADDQ(step, to)
	g.DECQ(t)
	g.JNZ(operand.LabelRef("tile"))
	g.ADDQ(csa, a)
	g.ADDQ(rows, dst)
	g.DECQ(k)
	g.JNZ(operand.LabelRef("column"))
	g.finish()
}
