package enginetest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

func openCPU(t testing.TB) engine.Backend {
	b, err := cpu.New(cpu.Options{Threads: 2})
	require.NoError(t, err)
	return b
}

// The reference passes its own suite: what the suite expects and what the
// contract's plainest implementation does agree.
func TestReferenceConforms(t *testing.T) {
	enginetest.Run(t, func(testing.TB) engine.Backend { return enginetest.NewRounding() })
}

func TestReferenceConformsThinly(t *testing.T) {
	if testing.Short() {
		t.Skip("some ten seconds")
	}
	enginetest.Run(t, func(testing.TB) engine.Backend { return enginetest.NewRounding() }, enginetest.Thin())
}

// The deferred backend keeps the contract of the one inside, bits included.
func TestDeferredConforms(t *testing.T) {
	enginetest.Run(t, func(t testing.TB) engine.Backend { return enginetest.NewDeferred(openCPU(t)) })
}
