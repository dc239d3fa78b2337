package kernels

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels/internal/manifest"
)

// needTool returns the path of a program, or skips the test.
func needTool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	testx.Have(t, name, err == nil)
	return p
}

// TestPTXRebuilds compiles every kernel again and compares with what is committed.
func TestPTXRebuilds(t *testing.T) {
	clang := needTool(t, "clang-19")
	out := t.TempDir()
	cmd := exec.Command("go", "run", "./mkptx", "-clang", clang, "-kernels", ".", "-out", out)
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", msg)
	committed, err := manifest.Read(".")
	require.NoError(t, err)
	rebuilt, err := manifest.Read(out)
	require.NoError(t, err)
	if committed.Compiler != rebuilt.Compiler {
		testx.Have(t, committed.Compiler, false)
	}
	require.Equal(t, committed, rebuilt, "run `make ptx`")
}

// TestPTXAssembles has NVIDIA's assembler accept every module for every kind of
// chip that runs it, without spills. (It comes in PyPI's nvidia-cuda-nvcc-cu12.)
func TestPTXAssembles(t *testing.T) {
	ptxas := needTool(t, "ptxas")
	files, err := filepath.Glob("*.ptx")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	used := regexp.MustCompile(`Compiling entry function '(\w+)'|(\d+) bytes spill stores, (\d+) bytes spill loads|Used (\d+) registers`)
	for _, arch := range []string{"sm_80", "sm_86", "sm_89", "sm_90", "sm_90a"} {
		for _, f := range files {
			if (arch == "sm_90a") != strings.HasSuffix(f, "_sm90a.ptx") {
				continue
			}
			msg, err := exec.Command(ptxas, "-v", "-arch="+arch, "-o", os.DevNull, f).CombinedOutput()
			require.NoError(t, err, "%s for %s: %s", f, arch, msg)
			// What ptxas does when it finds accumulators in the way, or no cap for setmaxnreg,
			// and tells nobody who does not read.
			require.NotContains(t, string(msg), "Potential Performance Loss")
			require.NotContains(t, string(msg), "warning")
			entry, entries := "", 0
			for _, m := range used.FindAllStringSubmatch(string(msg), -1) {
				switch {
				case m[1] != "":
					entry = m[1]
				case m[4] != "":
					n, _ := strconv.Atoi(m[4])
					t.Logf("%s %s: %d registers", arch, entry, n)
					// Two blocks of 128 threads on an SM's 65,536 registers.
					require.LessOrEqual(t, n, 256, "%s %s", arch, entry)
					entries++
				default:
					require.Equal(t, "0 0", m[2]+" "+m[3], "%s %s spills", arch, entry)
				}
			}
			require.NotZero(t, entries, "%s: nothing read from ptxas: %s", f, msg)
		}
	}
}
