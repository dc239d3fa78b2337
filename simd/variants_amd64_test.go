//go:build !noasm

package simd

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

var allVariants = []variant{
	{name: "generic", enable: func() func() { return setFeatures(features{}) }},
	{name: "avx2", need: "avx2", enable: func() func() { return setFeatures(features{avx2: true}) }},
	{name: "avx512", need: "avx512", enable: func() func() { return setFeatures(features{avx2: true, avx512: true}) }},
}

func setFeatures(f features) (restore func()) {
	old := use
	use = f
	return func() { use = old }
}

// TestVecVariantsAgree is TestGemmVariantsAgree for the kernels over slices.
func TestVecVariantsAgree(t *testing.T) {
	testx.Need(t, "avx2")
	testx.Need(t, "avx512")
	r := newRand(11)
	for n := range 130 {
		for _, k := range vecKernels {
			in := k.inputs(r, n)
			restore := setFeatures(features{avx2: true})
			want := k.call(in)
			restore()
			restore = setFeatures(features{avx2: true, avx512: true})
			got := k.call(in)
			restore()
			for o := range want {
				requireSame(t, want[o], got[o])
			}
		}
		x, bits := randFloats(r, n), [2][]float32{}
		for i := range x {
			x[i] *= 30 // some results are subnormal or 0
		}
		for v := range bits {
			restore := setFeatures(features{avx2: true, avx512: v == 1})
			dst := make([]float32, n)
			sum := ExpSub(dst, x, 30)
			s, p := SumExp(x, 30)
			restore()
			bits[v] = append(dst, sum, s, p)
		}
		requireBits(t, bits[0], bits[1], "ExpSub and SumExp of %d", n)
	}
}

// TestGemmVariantsAgree: the instruction sets give the same bits, so that a
// result does not depend on which of such machines computed it.
func TestGemmVariantsAgree(t *testing.T) {
	testx.Need(t, "avx2")
	testx.Need(t, "avx512")
	r := newRand(10)
	for m := 1; m <= 61; m++ {
		for _, nk := range [][2]int{{1, 9}, {16, 64}, {47, 21}, {80, 33}, {97, 700}} {
			p := newProduct(t, r, m, nk[0], nk[1], m%3 == 0, 1, 2, 3, testx.AtEnd)
			c0 := slices.Clone(p.c)
			p.forms(func(name string, _ start, run func([]float32)) {
				want, got := slices.Clone(c0), slices.Clone(c0)
				restore := setFeatures(features{avx2: true})
				run(want)
				restore()
				defer setFeatures(features{avx2: true, avx512: true})()
				run(got)
				requireBits(t, want, got, "%s %d×%d×%d", name, m, nk[1], nk[0])
			})
		}
	}
}

// TestDispatch: a machine with the features uses them, so that a test of the
// default is not one of the generic kernels.
func TestDispatch(t *testing.T) {
	testx.Need(t, "avx2")
	require.True(t, use.avx2)
	testx.Need(t, "avx512")
	require.True(t, use.avx512)
	require.Equal(t, "avx512", Kernels())
}
