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
