package gpu

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// noSM90aEnv names the environment variable that, if set, has the tests do without
// the kernels that only a Hopper GPU runs.
const noSM90aEnv = "UPDRAFT_TEST_NO_SM90A"

// open starts a backend on a driver that traces leaks. The test fails if closing
// it, at its end, leaves anything behind.
func open(t testing.TB, o Options) *Backend {
	t.Helper()
	o.NoSM90a = o.NoSM90a || os.Getenv(noSM90aEnv) != ""
	o.Driver = openDriver(t, cuda.WithLeakTracing(), cuda.WithCallCounts())
	b, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, b.Close())
		require.NoError(t, b.Close(), "a second Close does nothing")
		require.Empty(t, o.Driver.Leaks())
	})
	return b
}

func TestConformance(t *testing.T) {
	enginetest.Run(t, func(t testing.TB) engine.Backend { return open(t, Options{}) }, suiteOptions()...)
}

// A timer gives time that grows with the work, and the work's failure.
func TestTimer(t *testing.T) {
	b := open(t, Options{})
	timer, err := b.NewTimer()
	require.NoError(t, err)
	defer func() { require.NoError(t, timer.Close()) }()
	x := alloc(t, b, engine.F32, 1<<16)
	d, err := timer.Time(func() { b.Fill(x, 1) })
	require.NoError(t, err)
	require.GreaterOrEqual(t, d, time.Duration(0))
	_, err = timer.Time(func() { b.fail("Fill", cuda.LaunchFailed) })
	require.ErrorIs(t, err, cuda.LaunchFailed)
	got := make([]float32, x.Len())
	require.NoError(t, b.Wait(b.DownloadF32(got, x)))
	require.EqualValues(t, 1, got[len(got)-1])
}
