//go:build cudaemu

package gpu

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/model"
)

// A model's log-probs, gradients and rollouts have the same bits in whatever order
// threads run and copies land, and on whatever number of multiprocessors.
func TestOrderOfThreadsDoesNotMatter(t *testing.T) {
	var first []float64
	var firstP []float32
	modes := []emu.Mode{{Landing: emu.Late}, {Landing: emu.AtOnce, Seed: 1}, {Landing: emu.Randomly, Seed: 2, Resident: 3},
		{Extra: "multiprocessors=1"}, {Extra: "streams=at-once"}}
	if testing.Short() {
		modes = modes[:3]
	}
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Setenv(emu.Variable, mode.String())
			b := open(t, Options{})
			got := passes(t, b, "qwen3", engine.BF16, false)
			m := newModel(t, b, "qwen3", model.Options{MaxRows: 200, Weights: engine.BF16})
			defer m.Close()
			_, p, _ := rollout(t, m)
			if first == nil {
				first, firstP = got, p
				return
			}
			require.Zero(t, distance(first, got), "gradients")
			require.Zero(t, bitDiffs(firstP, p), "rollouts")
		})
	}
}

// On tensor cores that cut sums off instead of rounding them a rollout still has
// the log-probs of the forward: what they are does not matter, that both are does.
func TestCutSums(t *testing.T) {
	t.Setenv(emu.Variable, emu.Mode{CutSums: true}.String())
	b := open(t, Options{})
	m := newModel(t, b, "qwen2", model.Options{MaxRows: 700, Weights: engine.BF16})
	defer m.Close()
	batch, logp, entropy := rollout(t, m)
	p, e := forward(t, m, &batch)
	require.Zero(t, bitDiffs(logp, p), "log-probs")
	require.Zero(t, bitDiffs(entropy, e), "entropies")
}

// A kernel that fails, an allocation that fails: the next wait says what and where,
// and closing gives back all that the driver lets go of.
func TestDeviceFailures(t *testing.T) {
	t.Setenv(emu.Variable, "fail-launch=2")
	drv := openDriver(t, cuda.WithLeakTracing())
	b, err := New(Options{Driver: drv})
	require.NoError(t, err)
	x := engine.Matrix(alloc(t, b, engine.F32, 12).Buf, 0, 2, 6)
	b.Fill(x.ColRange(0, 3), 1) // a kernel, as there are gaps between the rows
	b.Fill(x.ColRange(0, 3), 2)
	got := make([]float32, 12)
	err = b.Wait(b.DownloadF32(got, engine.Vector(x.Buf, 0, 12)))
	require.ErrorIs(t, err, cuda.LaunchFailed)
	require.ErrorContains(t, err, "gpu: in Download or an operation before it")
	require.ErrorContains(t, err, "fill_b32", "the emulated driver knows which kernel")
	require.ErrorIs(t, b.Close(), cuda.LaunchFailed)
	require.Empty(t, drv.Leaks())

	t.Setenv(emu.Variable, "fail-allocation=2")
	b = open(t, Options{})
	alloc(t, b, engine.F32, 100)
	_, err = b.Alloc(engine.F32, 200)
	require.ErrorIs(t, err, cuda.OutOfMemory)
	require.ErrorContains(t, err, "cannot allocate 800 bytes")
	require.NoError(t, b.Sync())
}
