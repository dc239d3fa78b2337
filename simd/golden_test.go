package simd

import (
	"encoding/binary"
	"hash"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// goldenBits are hashes of what the assembly computes of fixed inputs: one for
// every instruction set, so that those which never run side by side are known to
// agree.
var goldenBits = map[string]uint64{
	"AdamW":          0xb3e842fa3c949b69,
	"Add":            0x995e95d16d57394d,
	"Axpy":           0x9d3fa69e09493016,
	"Exp":            0x116796b7a58668b1,
	"Gemm":           0xb5860af0a08725b3,
	"Mul":            0x51acac11d6c6afcc,
	"RMSNorm":        0x593298e65197bba7,
	"Scale":          0x51895b39c3c16cbe,
	"ScaleMul":       0x3e2d76f7c0f7b031,
	"Sigmoid":        0x29225722eeba03eb,
	"SwiGLU":         0x373e58365063c5d5,
	"SwiGLUBackward": 0xd59c3d0223f5dfd5,
	"mulAxpy":        0x8232006a34ced443,
	"reductions":     0x6054a67c18518493,
	"rmsNormDX":      0x116ce4b1a2596878,
	"rmsNormDXAcc":   0x2fd5f81362adac5c,
	"rotate":         0xbac23c441f0afe59,
	"softmax":        0xc07445844a036e74,
}

// TestGoldenBits holds every kernel's bits against goldenBits. The generic kernels
// round in other places.
func TestGoldenBits(t *testing.T) {
	variants(t, func(t *testing.T) {
		if Kernels() == "generic" {
			return
		}
		got := map[string]uint64{}
		hashed := func(name string, f func(g *golden)) {
			g := &golden{newRand(81), fnv.New64a()}
			f(g)
			got[name] = g.hash.Sum64()
		}
		for _, k := range vecKernels {
			hashed(k.name, func(g *golden) { g.elementwise(&k) })
		}
		hashed("reductions", (*golden).reductions)
		hashed("RMSNorm", (*golden).norms)
		hashed("softmax", (*golden).softmax)
		hashed("Gemm", func(g *golden) { g.gemm(t) })
		require.Equal(t, goldenBits, got)
	})
}

type golden struct {
	*rand.Rand
	hash hash.Hash64
}

// floats are n float32s that no architecture makes in a way of its own: multiples
// of 2⁻²¹ in [−4, 4), some of them 16 times as large.
func (g *golden) floats(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(g.IntN(1<<24)-1<<23) / (1 << 21)
		if g.IntN(8) == 0 {
			x[i] *= 16
		}
	}
	return x
}

// put adds floats to the hash, every NaN as the same.
func (g *golden) put(lists ...[]float32) {
	for _, x := range lists {
		for _, v := range x {
			if v != v {
				v = float32(math.NaN())
			}
			_ = binary.Write(g.hash, binary.LittleEndian, v)
		}
	}
}

func (g *golden) put64(v ...float64) { _ = binary.Write(g.hash, binary.LittleEndian, v) }

func (g *golden) elementwise(k *vecKernel) {
	for n := range 70 {
		var in [][]float32
		for range k.ins {
			x := g.floats(n)
			for i := range x {
				if g.IntN(16) == 0 {
					x[i] = specials[g.IntN(len(specials))]
				}
			}
			in = append(in, x)
		}
		g.put(k.call(in)...)
	}
}

func (g *golden) reductions() {
	for n := range 140 {
		x, y, z, dst := g.floats(n), g.floats(n), g.floats(n), make([]float32, n)
		sum := ExpSub(dst, x, 30)
		s, t := SumExp(x, 3)
		g.put(dst, []float32{sum, s, t, Dot(x, y), Max(x)})
		above, count := SumAbove(x, 0.5)
		g.put64(Sum(x), SumSq(x), dot3(x, y, z), above, float64(count))
		ZeroBelow(dst, 0.5, x)
		g.put(dst)
	}
}

func (g *golden) norms() {
	for n := range 70 {
		x, w, dy, y := g.floats(n), g.floats(n), g.floats(n), make([]float32, n)
		rstd := RMSNorm(y, x, w, 1e-5)
		g.put(y, []float32{rstd})
		RMSNormBackward(y, w, dy, x, w, rstd, n%2 == 0)
		g.put(y, w)
	}
}

func (g *golden) softmax() {
	for rows := 1; rows < 9; rows++ {
		for seen := 1; seen <= SoftmaxWidth; seen++ {
			s, ds := g.floats(rows*SoftmaxWidth), g.floats(rows*SoftmaxWidth)
			m, sum, a, b := g.floats(rows), g.floats(rows), make([]float32, rows), make([]float32, rows)
			SoftmaxMerge(m, sum, g.floats(rows), g.floats(rows), a, b)
			g.put(m, sum, a, b)
			MergeRows(s, ds, seen, a, b)
			g.put(s)
			SoftmaxGradRows(s, ds, 0.3, seen, 1, m, sum)
			g.put(s, ds)
			SoftmaxRows(ds, 0.3, seen, 1, m, sum)
			g.put(ds, m, sum)
		}
	}
}

func (g *golden) gemm(t *testing.T) {
	for _, s := range [][3]int{{1, 100, 9}, {2, 64, 33}, {3, 37, 70}, {4, 16, 7}, {5, 20, 8}, {6, 33, 5}, {7, 70, 40}, {8, 48, 50}, {13, 31, 321}, {61, 40, 330}} {
		p := newProduct(t, newRand(0), s[0], s[1], s[2], s[0]%2 == 1, 1, 2, 3, testx.AtEnd)
		for _, x := range [][]float32{p.a, p.b, p.c, p.bias} {
			copy(x, g.floats(len(x)))
		}
		PackNN(p.packed, p.b, p.n, p.k, p.ldb)
		p.forms(func(_ string, _ start, run func([]float32)) {
			run(p.c)
			g.put(p.c)
		})
	}
}
