//go:build cudaemu

package gpu

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// emulated says that these tests run on the emulated driver.
const emulated = true

// openDriver opens the emulated driver.
func openDriver(t testing.TB, opts ...cuda.Option) *cuda.Driver {
	t.Helper()
	lib, err := emu.Library(emu.Options{})
	testx.Have(t, "c++", !errors.Is(err, errors.ErrUnsupported))
	require.NoError(t, err)
	d, err := cuda.Open(append(opts, cuda.WithLibrary(lib))...)
	require.NoError(t, err)
	return d
}

// suiteOptions thin the conformance suite where the device is slow.
func suiteOptions() []enginetest.Option { return []enginetest.Option{enginetest.Thin()} }
