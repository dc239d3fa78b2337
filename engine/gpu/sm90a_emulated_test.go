//go:build cudaemu

package gpu

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/model"
)

// What has products in it, on a device of compute capability 9.0, where those of bf16
// are wgmma's. All else is computed by the same kernels as elsewhere.
func TestConformanceSM90a(t *testing.T) {
	t.Setenv(emu.Variable, emu.Mode{Capability: "9.0"}.String())
	require.Contains(t, open(t, Options{}).Name(), "sm_90a")
	only := enginetest.Only("Linear", "LinearBackwardInput", "LinearBackwardWeight", "LogProb", "LogProbBackward", "LogProbBits",
		"BatchInvariance", "Determinism", "Isolation", "Program")
	enginetest.Run(t, func(t testing.TB) engine.Backend { return open(t, Options{}) }, append(suiteOptions(), only)...)
}

// On such a device too a rollout has the log-probs of the training forward bit for
// bit, and a training those of its forward: decoding and training use one family.
func TestModelSM90a(t *testing.T) {
	t.Setenv(emu.Variable, emu.Mode{Capability: "9.0"}.String())
	b := open(t, Options{})
	m := newModel(t, b, "qwen3", model.Options{MaxRows: 700, Weights: engine.BF16})
	defer m.Close()
	batch, logp, entropy := rollout(t, m)
	p, e := forward(t, m, &batch)
	require.Zero(t, bitDiffs(logp, p), "log-probs")
	require.Zero(t, bitDiffs(entropy, e), "entropies")
	for i, st := range train(t, b, 3, model.Options{Weights: engine.BF16}) {
		require.Zero(t, st.MaxLogpDifference, "step %d", i)
	}
}

// sm_90a can be switched off: the same device then computes as all others do.
func TestNoSM90a(t *testing.T) {
	t.Setenv(emu.Variable, emu.Mode{Capability: "9.0"}.String())
	require.NotContains(t, open(t, Options{NoSM90a: true}).Name(), "sm_90a")
}
