//go:build !noasm

package simd

import (
	"testing"

	"github.com/stretchr/testify/require"
)

var allVariants = []variant{
	{name: "generic", enable: func() func() { return setFeatures(features{}) }},
	{name: "neon", enable: func() func() { return setFeatures(features{neon: true}) }},
}

func setFeatures(f features) (restore func()) {
	old := use
	use = f
	return func() { use = old }
}

// TestDispatch: every arm64 uses the NEON kernels, so that a test of the default
// is not one of the generic ones.
func TestDispatch(t *testing.T) {
	require.True(t, use.neon)
	require.Equal(t, "neon", Kernels())
}
