package roofline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every loop of this processor reaches rates that a processor can have, and twice
// the rounds take about twice the time: nothing was optimised away.
func TestLoops(t *testing.T) {
	for _, l := range append(loops(), extra()...) {
		t.Run(l.name, func(t *testing.T) {
			m := Machine{threads: 1, loop: l}
			peak, read := m.Peak(trial), m.Bandwidth(1<<20, trial)
			require.Greater(t, peak, 1e6)
			require.Less(t, peak, 1e12, "on one thread")
			require.Greater(t, read, 1e6)
			require.Less(t, read, 2e12)
			require.Zero(t, len(m.data)%l.block)
			require.GreaterOrEqual(t, len(m.data), 1<<18-l.block)

			least := func(n int) (d time.Duration) {
				for i := range 5 {
					begun := time.Now()
					l.fma(n)
					if x := time.Since(begun); i == 0 || x < d {
						d = x
					}
				}
				return d
			}
			one, four := least(1<<14), least(1<<16)
			require.Greater(t, four, 2*one, "four times the rounds")
		})
	}
}

func TestMachine(t *testing.T) {
	m := New(2)
	require.NotEmpty(t, m.Name())
	require.Positive(t, m.Peak(trial))
	require.Positive(t, m.Bandwidth(1, trial), "a working set smaller than a block")
	require.Positive(t, m.Bandwidth(3<<20+5, trial))
}
