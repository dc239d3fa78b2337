package cpu_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// The suite on one thread and on several: some of its cases touch what the pool
// alone can break.
func TestConformance(t *testing.T) {
	for _, threads := range []int{1, 3} {
		t.Run(fmt.Sprintf("threads=%d", threads), func(t *testing.T) {
			enginetest.Run(t, func(t testing.TB) engine.Backend {
				b, err := cpu.New(cpu.Options{Threads: threads})
				require.NoError(t, err)
				return b
			})
		})
	}
}
