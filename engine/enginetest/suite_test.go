package enginetest_test

import (
	"testing"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// The reference passes its own suite: what the suite expects and what the
// contract's plainest implementation does agree.
func TestReferenceConforms(t *testing.T) {
	enginetest.Run(t, func(testing.TB) engine.Backend { return enginetest.NewReference() })
}
