package cpu

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// The suite on one thread and on two. Under the race detector, which one thread
// cannot alarm, only the latter.
func TestConformance(t *testing.T) {
	for _, threads := range []int{1, 2} {
		if raceEnabled && threads == 1 {
			continue
		}
		t.Run(fmt.Sprintf("threads=%d", threads), func(t *testing.T) {
			enginetest.Run(t, func(t testing.TB) engine.Backend {
				b, err := New(Options{Threads: threads})
				require.NoError(t, err)
				return b
			})
		})
	}
}
