//go:build !cudaemu

package gpu

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/internal/testx"
)

const emulated = false

// openDriver opens the machine's driver, or skips the test where there is none.
func openDriver(t testing.TB, opts ...cuda.Option) *cuda.Driver {
	t.Helper()
	d, err := cuda.Open(opts...)
	if err != nil {
		t.Log(err)
	}
	testx.Have(t, "cuda", err == nil)
	require.NoError(t, err)
	return d
}

// suiteOptions thin the conformance suite where the device is slow.
func suiteOptions() []enginetest.Option { return nil }
