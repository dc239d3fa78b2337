package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const rowProductsHeader = `
Name: rowProducts, products of several single rows, each with a matrix of its
own, for 32 columns.

Computes: c_u[j] = Σ_p a_u[p]·b_u[p,j], p = 0 … k−1 in rising order, j < 32, for
each unit u.

Shapes: a_u at a + aAt[u], b_u[p,j] at b + bAt[u] + p·ldb + 4j, c_u at c + cAt[u];
offsets and ldb in bytes. There are two units with AVX2 and four with AVX-512.

Requires: k ≥ 1; no alignment. Units may be the same, with one c.

Registers: eight accumulators, so that two FMA units of latency four never wait;
the elements of a are broadcast, b comes from memory.

Numerics: one fused multiply-add per p and element, in order, from zero: the bits
of gemm_avx2_amd64.s.

Checked by TestRowProducts. Measured by BenchmarkRowProducts.
`

// rowProductsFile makes the kernel of an instruction set.
func rowProductsFile(s isa) func(*gen) {
	return func(g *gen) {
		vectors := 128 / s.bytes
		units := 8 / vectors
		name := "rowProducts" + s.suffix
		g.kernel(name, "func(k int, a *float32, aAt *uintptr, b *float32, bAt *uintptr, ldb uintptr, c *float32, cAt *uintptr)",
			fmt.Sprintf("%s multiplies %d rows with matrices of 32 columns.", name, units))
		k, ldb := g.load("k"), g.load("ldb")
		each := func(base, offsets string) []reg.Register {
			p, at := g.load(base), g.load(offsets)
			r := make([]reg.Register, units)
			for u := range r {
				r[u] = g.GP64()
				g.MOVQ(ptr(at, 8*u), r[u])
				g.ADDQ(p, r[u])
			}
			return r
		}
		a, b := each("a", "aAt"), each("b", "bAt")
		acc := make([]reg.VecVirtual, 8)
		for i := range acc {
			acc[i] = g.zero(s)
		}
		p := g.GP64()
		g.XORQ(p, p)
		g.Label("step")
		for u := range units {
			x := s.vector(g)
			g.VBROADCASTSS(at(a[u], p, 0), x)
			for q := range vectors {
				g.VFMADD231PS(ptr(b[u], s.bytes*q), x, acc[u*vectors+q])
			}
			g.ADDQ(ldb, b[u])
		}
		g.INCQ(p)
		g.CMPQ(p, k)
		g.JLT(operand.LabelRef("step"))
		for u, c := range each("c", "cAt") {
			for q := range vectors {
				g.VMOVUPS(acc[u*vectors+q], ptr(c, s.bytes*q))
			}
		}
		g.finish()
	}
}
