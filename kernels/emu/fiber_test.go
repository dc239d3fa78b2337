package emu_test

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// The switch between stacks is written for two processors; the other one is emulated.
func TestFibers(t *testing.T) {
	for _, c := range []struct {
		arch, compiler string
		run            []string
	}{
		{"amd64", "g++", nil},
		{"arm64", "aarch64-linux-gnu-g++", []string{"qemu-aarch64"}},
	} {
		t.Run(c.arch, func(t *testing.T) {
			_, err := exec.LookPath(c.compiler)
			for _, name := range c.run {
				if _, e := exec.LookPath(name); e != nil {
					err = e
				}
			}
			name := map[string]string{"amd64": "c++", "arm64": c.compiler}[c.arch]
			testx.Have(t, name, err == nil && runtime.GOOS == "linux" && runtime.GOARCH == "amd64")
			for _, optimise := range []string{"-O0", "-O2"} {
				program := filepath.Join(t.TempDir(), "fibers")
				msg, err := exec.Command(c.compiler, "-std=c++17", optimise, "-static", "-Idriver", "-o", program,
					"testdata/fibers.cc", "driver/fiber.cc").CombinedOutput()
				require.NoError(t, err, "%s", msg)
				command := append(c.run, program)
				out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
				require.NoError(t, err, "%s", out)
				require.Equal(t, "fibers switch\n", string(out))
			}
		})
	}
}
