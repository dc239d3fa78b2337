//go:build !noasm

package simd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

var allVariants = []variant{
	{name: "generic", enable: func() func() { return setFeatures(features{}) }},
	{name: "avx2", need: "avx2", enable: func() func() { return setFeatures(features{avx2: true}) }},
}

func setFeatures(f features) (restore func()) {
	old := use
	use = f
	return func() { use = old }
}

// TestDispatch: a machine with the features uses them, so that a test of the
// default is not one of the generic kernels.
func TestDispatch(t *testing.T) {
	testx.Need(t, "avx2")
	require.True(t, use.avx2)
}
