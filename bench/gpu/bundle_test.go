package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// bundleVariable names a directory that make gpu-bundle made.
const bundleVariable = "UPDRAFT_BUNDLE"

func bundle(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(bundleVariable)
	testx.Have(t, "bundle", dir != "")
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	return dir
}

// script runs the bundle's script, and returns its exit status, its output and
// what it checked.
func script(t *testing.T, dir, out string, args ...string) (int, string, string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "run.sh"), args...)
	cmd.Env = append(os.Environ(), "OUT="+out, "QUICK=1", "PYTHON=/nowhere/python3")
	said, err := cmd.CombinedOutput()
	if err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	checks, err := os.ReadFile(filepath.Join(out, "checks.txt"))
	require.NoError(t, err)
	return cmd.ProcessState.ExitCode(), string(said), string(checks)
}

// The bundle runs on a machine with a driver: here the emulated one, as a Hopper.
// Checks run with both families of kernels, then everything is timed.
func TestBundleRuns(t *testing.T) {
	dir, out := bundle(t), t.TempDir()
	emulated(t, emu.Mode{Capability: "9.0"})
	code, said, checks := script(t, dir, out)
	require.Zero(t, code, "%s", said)
	for _, want := range []string{"driver: passed", "suite: passed", "suite-sm80: passed", "training-f32: passed", "has no PyTorch with CUDA"} {
		require.Contains(t, checks, want)
	}
	all, err := readResults(out)
	require.NoError(t, err)
	timed := map[string]bool{}
	for _, r := range all {
		require.Empty(t, r.Error)
		timed[r.Group+"/"+r.Name] = true
	}
	for _, x := range workloads(true) {
		require.True(t, timed[x.group+"/"+x.name], x.name)
	}
	require.FileExists(t, filepath.Join(out, "results.json"))
	require.FileExists(t, filepath.Join(out, "results.md"))
}

// The same binaries start where there is no driver, and say so; the script stops.
func TestBundleWithoutDriver(t *testing.T) {
	dir, out := bundle(t), t.TempDir()
	t.Setenv(cuda.LibraryEnv, "/nowhere/libcuda.so.1")
	code, said, checks := script(t, dir, out)
	require.Equal(t, 1, code, "%s", said)
	require.Contains(t, checks, "driver: FAILED")
	require.NotContains(t, said, "== time")
	info, err := exec.Command(filepath.Join(dir, "updraft"), "info").CombinedOutput()
	require.NoError(t, err, "%s", info)
	require.Contains(t, string(info), "GPU      none: cuda: no GPU can be used")
}

// A failure of a check stops the script before anything is timed, and the report
// says it.
func TestBundleStopsAtFailures(t *testing.T) {
	dir, out := bundle(t), t.TempDir()
	emulated(t, emu.Mode{Extra: "fail-launch=3"})
	code, said, checks := script(t, dir, out)
	require.Equal(t, 1, code, "%s", said)
	require.Contains(t, checks, "suite: FAILED")
	require.Contains(t, said, "Nothing is timed")
	require.NotContains(t, said, "== time")
	md, err := os.ReadFile(filepath.Join(out, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(md), "suite: FAILED")
}

// No binary of the bundle is linked with the driver.
func TestBundleIsNotLinkedWithTheDriver(t *testing.T) {
	dir := bundle(t)
	for _, name := range []string{"updraft", "gpubench", "tests/gpu.test", "tests/cuda.test"} {
		f, err := elf.Open(filepath.Join(dir, name))
		require.NoError(t, err)
		libraries, err := f.ImportedLibraries()
		require.NoError(t, f.Close())
		require.NoError(t, err)
		for _, l := range libraries {
			require.Contains(t, []string{"libc.so.6", "libpthread.so.0", "libdl.so.2", "libresolv.so.2", "librt.so.1", "ld-linux-x86-64.so.2", "libm.so.6"}, l, name)
		}
	}
}
