package kernels

import (
	"os/exec"
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
