package enginetest

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// The erring backend passes the checks that have a tolerance, and uses it up: what
// scatters no further than its results do is what a device that passes may give.
func TestErringUsesTolerances(t *testing.T) {
	ops := []string{"ScatterAdd", "RMSNorm", "RMSNormBackward", "Linear", "LinearBackwardInput", "LinearBackwardWeight", "RoPE",
		"SwiGLU", "SwiGLUBackward", "Attention", "AttentionBackward", "DecodeAttention", "LogProb", "LogProbBackward", "SumSquares", "AdamW"}
	bits := []string{"in ascending order", "one chain in ascending K", "the chain is fused", "sharing a prompt gives the same gradients"}
	used := map[string]float64{}
	for _, c := range thinned(Checks()) {
		erring := slices.Contains(ops, c.Op) || c.Op == "Sample"
		if !erring || c.Weights != engine.F32 || slices.Contains(bits, c.kind) || strings.HasPrefix(c.kind, "8-bit moments") {
			continue
		}
		be := NewErring(1)
		b, err := c.execute(be, true)
		require.NoError(t, be.Close())
		require.NoError(t, err, "%s %s", c.Op, c.Name)
		used[c.Op] = max(used[c.Op], b.percent)
	}
	for _, op := range ops {
		require.Greater(t, used[op], 60.0, op)
	}
}
