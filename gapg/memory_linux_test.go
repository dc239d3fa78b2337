package gapg

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// What is allocated and written to is resident.
func TestResidentMemory(t *testing.T) {
	const n = 64 << 20
	before := residentMemory()
	require.Positive(t, before)
	b := make([]byte, n)
	for i := range b {
		b[i] = 1
	}
	after := residentMemory()
	runtime.KeepAlive(b)
	require.Greater(t, after-before, int64(n/2), "%d before, %d after", before, after)
	m := (&StepStats{RolloutMemory: 1, ForwardMemory: 2, BackwardMemory: 3, OptimizerMemory: 4}).Timings()
	for i, phase := range []string{"rollout", "forward", "backward", "optimizer"} {
		require.Equal(t, float64(i+1), m["memory/"+phase])
	}
}
