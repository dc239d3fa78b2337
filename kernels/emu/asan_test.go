//go:build asan

package emu_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// AddressSanitizer, whose report ends the process, sees what a kernel does wrong: the
// test runs itself as the one that is to be ended.
func TestAddressSanitizerSees(t *testing.T) {
	for _, d := range []struct{ probe, old, new, says string }{
		{"vectors", "if (i < n)", "if (i <= n)", "use-after-poison"},
		{"product", "float d[4] = {};", "float d[4] = {}; volatile float e[4]; (&e[0])[l + 4] = 1;", "stack-buffer-overflow"},
	} {
		if os.Getenv("UPDRAFT_VICTIM") == d.probe {
			library := probeLibrary(t, func(s string) string { return strings.Replace(s, d.old, d.new, 1) })
			require.NoError(t, checks[d.probe](kerneltest.Open(t, library, emu.Mode{})))
			return
		}
		if os.Getenv("UPDRAFT_VICTIM") != "" {
			continue
		}
		victim := exec.Command(os.Args[0], "-test.run=TestAddressSanitizerSees")
		victim.Env = append(os.Environ(), "UPDRAFT_VICTIM="+d.probe)
		out, err := victim.CombinedOutput()
		require.Error(t, err, "%s", out)
		require.Contains(t, string(out), "AddressSanitizer: "+d.says)
	}
}
