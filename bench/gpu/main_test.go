package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// build makes the program.
func build(t *testing.T) string {
	t.Helper()
	_, ccErr := exec.LookPath("cc")
	goTool, err := exec.LookPath("go")
	testx.Have(t, "cc", ccErr == nil && err == nil && runtime.GOOS == "linux")
	program := filepath.Join(t.TempDir(), "gpubench")
	cmd := exec.Command(goTool, "build", "-o", program, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", msg)
	return program
}

// fake makes a directory in which the loader finds the fake driver library of
// package cuda, its text changed by edit.
func fake(t *testing.T, edit func(string) string, defines ...string) string {
	t.Helper()
	dir := t.TempDir()
	src, err := os.ReadFile("../../cuda/testdata/fakecuda.c")
	require.NoError(t, err)
	file := filepath.Join(dir, "fake.c")
	require.NoError(t, os.WriteFile(file, []byte(edit(string(src))), 0o644))
	args := append([]string{"-shared", "-fPIC", "-O1", "-o", filepath.Join(dir, "libcuda.so.1"), file}, defines...)
	msg, err := exec.Command("cc", args...).CombinedOutput()
	require.NoError(t, err, "%s", msg)
	return dir
}

func unchanged(s string) string { return s }

// start runs the program and returns its exit status and output.
func start(t *testing.T, program, libs string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libs)
	out, err := cmd.CombinedOutput()
	if err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// The whole program on the fake driver: checks pass, times are taken, the peer's
// are merged, and both files are written.
func TestRunOnFakeDriver(t *testing.T) {
	program, libs := build(t), fake(t, unchanged)
	dir := t.TempDir()
	peer := filepath.Join(dir, "peer.json")
	require.NoError(t, os.WriteFile(peer, []byte(`{"peer": "PyTorch 9", "microseconds": {"quick": 500}}`), 0o644))
	code, out := start(t, program, libs, "-quick", "-out", dir, "-peer", peer)
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "cuda:0 Fake GPU 0")

	var r report
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &r))
	require.Len(t, r.Checks, 2*len(checkShapes(true)))
	for _, c := range r.Checks {
		require.Empty(t, c.Error)
		require.Equal(t, c.M*c.N, c.Compared)
	}
	require.Len(t, r.Timings, 2)
	// The fake's clock ticks a millisecond for each piece of work.
	require.InDelta(t, 1000, r.Timings[0].Microseconds, 100)
	require.Zero(t, r.Timings[0].Ratio, "the peer's result is bf16")
	require.InDelta(t, 0.5, r.Timings[1].Ratio, 0.05)
	md, err := os.ReadFile(filepath.Join(dir, "results.md"))
	require.NoError(t, err)
	require.Contains(t, string(md), "Peer: PyTorch 9")
	require.Contains(t, string(md), "| gemm_bf16_bf16 | quick | 64 × 64 × 64 |")
}

// A device that computes wrongly, writes elsewhere, or differs from run to run
// must be found out, and nothing may be timed then.
func TestWrongDevicesAreFound(t *testing.T) {
	program := build(t)
	for name, c := range map[string]struct{ old, new, says string }{
		"sum short of one":    {"k < v[2]", "k < v[2] - 1", "want"},
		"reads beyond K":      {"k < v[2]", "k < v[4]", "NaN"},
		"writes beyond N":     {"n < v[1]", "n < v[3]", "beyond N"},
		"writes beyond M":     {"m < v[0]", "m < v[0] + 1", "memory beside C was written"},
		"not deterministic":   {"float sum = 0;", "float sum = v[2] > 32 ? 2e-7f * (ticks >> 2 & 1) : 0;", "other bits"},
		"not batch invariant": {"float sum = 0;", "float sum = v[0] > 1 && v[2] > 32 ? 2e-7f : 0;", "computed alone has other bits"},
	} {
		t.Run(name, func(t *testing.T) {
			libs := fake(t, func(s string) string {
				require.Equal(t, 1, strings.Count(s, c.old))
				return strings.Replace(s, c.old, c.new, 1)
			})
			dir := t.TempDir()
			code, out := start(t, program, libs, "-quick", "-out", dir)
			require.Equal(t, 1, code, out)
			require.Contains(t, out, c.says)
			require.NotContains(t, out, "time ")
		})
	}
}

func TestNoDevice(t *testing.T) {
	program, libs := build(t), fake(t, unchanged, "-DFAKE_DEVICES=0")
	code, out := start(t, program, libs, "-quick")
	require.Equal(t, 2, code)
	require.Equal(t, 1, strings.Count(out, "\n"), out)
	require.Contains(t, out, "finds no device")
}

func TestPrintShapes(t *testing.T) {
	var s strings.Builder
	require.NoError(t, run(options{printShapes: true}, &s))
	var shapes []shape
	require.NoError(t, json.Unmarshal([]byte(s.String()), &shapes))
	require.Equal(t, timedShapes(false), shapes)
	for _, x := range shapes {
		require.Zero(t, x.K%8, "packed operands need K in multiples of 8")
	}
}

func TestBadPeerFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "peer.json")
	require.ErrorContains(t, run(options{peer: name}, &strings.Builder{}), name)
	require.NoError(t, os.WriteFile(name, []byte("{"), 0o644))
	require.ErrorContains(t, run(options{peer: name}, &strings.Builder{}), name)
}
