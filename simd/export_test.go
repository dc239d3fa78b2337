package simd

import (
	"testing"

	"github.com/updraft-ml/updraft/internal/testx"
)

// variants runs f once per implementation that this build and machine have.
func variants(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	for _, v := range allVariants {
		t.Run(v.name, func(t *testing.T) {
			if v.need != "" {
				testx.Need(t, v.need)
			}
			defer v.enable()()
			f(t)
		})
	}
}

// variant is one set of kernels; enable switches to it and returns the way back.
type variant struct {
	name, need string
	enable     func() func()
}
