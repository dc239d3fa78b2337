package engine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Both maps ascend, have no value twice, hold 0 and 1, and reach down to half a
// part of the lowest decade.
func TestMomentMaps(t *testing.T) {
	for _, c := range []struct {
		values         [256]float32
		least, highest float32 // the least positive value, the highest below one
		zero           int
	}{
		// The lowest decade whole: (0.1+1)/2·1e-6; the highest in 64 parts.
		{SignedMomentMap(), 0.55e-6, 1 - 0.9/64/2, 127},
		// In two: 0.1+0.9/4; in 128.
		{UnsignedMomentMap(), 0.325e-6, 1 - 0.9/128/2, 0},
	} {
		for i := 1; i < 256; i++ {
			require.Greater(t, c.values[i], c.values[i-1])
		}
		require.Zero(t, c.values[c.zero])
		require.Equal(t, float32(1), c.values[255])
		require.InEpsilon(t, c.least, c.values[c.zero+1], 1e-6)
		require.InEpsilon(t, c.highest, c.values[254], 1e-6)
	}
	m := SignedMomentMap()
	for i := range 127 {
		require.Equal(t, -m[i], m[254-i], "but for 1, the signed map is symmetrical")
	}
}
