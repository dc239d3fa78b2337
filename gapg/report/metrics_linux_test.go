package report

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// /dev/full is Linux's: every write to it fails for want of space.
func TestMetricsFullDisk(t *testing.T) {
	l, err := CreateMetrics("/dev/full")
	require.NoError(t, err)
	err = l.Write(1, map[string]any{"x": 1})
	require.ErrorContains(t, err, "metrics log /dev/full: step 1")
	require.ErrorContains(t, err, "no space left")
	require.Equal(t, int64(0), l.size)
	l.Close()
}
