package simd

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/updraft-ml/updraft/internal/testx"
)

// floatsFrom reads n floats from data, repeating it with growing perturbation.
func floatsFrom(data []byte, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		var w [4]byte
		for j := range w {
			if len(data) > 0 {
				w[j] = data[(4*i+j)%len(data)]
			}
		}
		x[i] = math.Float32frombits(binary.LittleEndian.Uint32(w[:]) + uint32(4*i/max(1, len(data)))*0x9e3779)
	}
	return x
}

// FuzzGemm checks arbitrary shapes, strides and bits: every form of the product
// in each variant, the padding of C, and rows on their own.
func FuzzGemm(f *testing.F) {
	f.Add(uint8(3), uint8(20), uint8(7), uint8(0), uint64(1))
	f.Add(uint8(60), uint8(33), uint8(200), uint8(0x55), uint64(2))
	f.Add(uint8('Q'), uint8('#'), uint8(0), uint8(0x16), uint64(47))
	f.Fuzz(func(t *testing.T, m, n, k, flags uint8, seed uint64) {
		variants(t, func(t *testing.T) {
			trans, pad := flags&1 != 0, int(flags>>2&3)
			side := testx.Side(flags >> 1 & 1)
			newProduct(t, newRand(seed), int(m), int(n), int(k), trans, pad, int(flags>>4&3), int(flags>>6), side).check(t)
			if m > 0 {
				rowInvariance(t, newRand(seed), int(m), int(n), int(k), trans)
			}
		})
	})
}

// FuzzVec compares each variant with the generic kernels on arbitrary bits: both NaN, or within the
// tolerance of the operands.
func FuzzVec(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 192, 127}, uint8(9), uint8(0))
	f.Add([]byte("some words of a sentence"), uint8(77), uint8(8))
	f.Add([]byte("0"), uint8(9), uint8('c'))
	f.Fuzz(func(t *testing.T, data []byte, n, which uint8) {
		k := vecKernels[int(which)%len(vecKernels)]
		in := make([][]float32, k.ins)
		for i := range in {
			in[i] = floatsFrom(data[min(i, len(data)):], int(n))
		}
		restore := allVariants[0].enable()
		generic := k.call(in)
		restore()
		variants(t, func(t *testing.T) {
			got := k.call(in)
			for i := range int(n) {
				x := make([]float64, k.ins)
				ordinary := true
				for j := range in {
					x[j] = float64(in[j][i])
					// Products of three such values stay finite and normal.
					a := math.Abs(x[j])
					ordinary = ordinary && (a == 0 || a > 1e-6 && a < 1e6)
				}
				want, tol := k.ref(x)
				for o := range k.outs {
					g, a := float64(generic[o][i]), float64(got[o][i])
					if !ordinary || math.Abs(want[o]) > math.MaxFloat32/2 {
						continue // a rounding may decide on overflow; lane invariance covers these
					}
					if !(math.Abs(g-a) <= 2*tol[o]) {
						t.Fatalf("%s%v: generic %g, got %g", k.name, x, g, a)
					}
				}
			}
		})
	})
}
