//go:build cudaemu

package cli

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// withEmulatedGPU makes this machine one with the emulated driver.
func withEmulatedGPU(t *testing.T, m emu.Mode) {
	t.Helper()
	lib, err := emu.Library(emu.Options{})
	testx.Have(t, "c++", !errors.Is(err, errors.ErrUnsupported))
	require.NoError(t, err)
	t.Setenv(cuda.LibraryEnv, lib)
	t.Setenv(emu.Variable, m.String())
}

// A training picks the GPU by itself, says so, and its rollouts have the log-probs
// of its forward.
func TestEmulatedTrain(t *testing.T) {
	withEmulatedGPU(t, emu.Mode{})
	from := tinyModel(t)
	dir := filepath.Join(t.TempDir(), "run")
	r := ok(t, small(from, dir)...)
	require.Contains(t, r.stderr, "computing on the GPU")
	require.Contains(t, r.stderr, "cuda:0 (")
	metrics := untimed(t, dir)
	require.Len(t, metrics, 4)
	for _, m := range metrics {
		require.Zero(t, m["sampling/sampling_logp_difference/max"])
	}
	require.Contains(t, ok(t, "generate", "--model", filepath.Join(dir, "final"), "--raw", "--prompt", "1+1=", "--device", "cuda").out, "-- device")
	require.NotContains(t, ok(t, "generate", "--model", from, "--raw", "--prompt", "1+1=", "--device", "cpu").stderr, "GPU")
}

// The demonstration goes from its first word to its report on the GPU, on a random
// model and few problems; the log-probs of its rollouts are those of its forward.
func TestEmulatedDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("a minute")
	}
	withEmulatedGPU(t, emu.Mode{})
	dir, from := filepath.Join(t.TempDir(), "demo"), filepath.Join(t.TempDir(), "base")
	writeBase(t, from)
	r := ok(t, "demo", "--device", "cuda", "--dtype", "bfloat16", "--model", from, "--output-dir", dir, "--max-steps", "1",
		"--test-prompts", "4", "--validation-prompts", "4", "--router-prompts", "4", "--json")
	require.Contains(t, r.stderr, "cuda:0 (")
	var s struct {
		Methods []map[string]any   `json:"methods"`
		Train   map[string]float64 `json:"train"`
	}
	oneObject(t, r.out, &s)
	require.Len(t, s.Methods, 10)
	require.EqualValues(t, 1, s.Train["steps"])
	require.Zero(t, s.Train["max_logp_difference"])
	require.FileExists(t, filepath.Join(dir, reportFile))
}

// Info shows the device and the kernels that would compute on it.
func TestEmulatedInfo(t *testing.T) {
	withEmulatedGPU(t, emu.Mode{Capability: "9.0"})
	require.Regexp(t, `(?m)^GPU      cuda:0 .*, compute capability 9\.0, .* GiB, .*; sm_90a and sm_80 kernels$`, ok(t, "info").out)
	var info infoJSON
	oneObject(t, ok(t, "info", "--json").out, &info)
	require.Len(t, info.GPUs, 1)
	require.Equal(t, 9, info.GPUs[0].Major)
}

// What a user can meet on a machine with a GPU: one line each, exit code 2.
func TestEmulatedBadInput(t *testing.T) {
	from := tinyModel(t)
	for name, c := range map[string]struct {
		mode   emu.Mode
		device string
		want   []string
	}{
		"no such device":  {emu.Mode{}, "cuda:3", []string{"--device cuda:3", "there is no device 3; the only one is 0"}},
		"old driver":      {emu.Mode{Extra: "version=11080"}, "cuda", []string{"supports CUDA 11.8", "update the NVIDIA driver"}},
		"in use":          {emu.Mode{Extra: "retain=46,compute-mode=3"}, "cuda", []string{"in use by another process", "take another device"}},
		"too little":      {emu.Mode{Memory: 8 << 20}, "cuda", []string{"are free on cuda:0", "most goes to", "--device cpu"}},
		"too little auto": {emu.Mode{Memory: 8 << 20}, "auto", []string{"--device auto", "are free on cuda:0"}},
		"old device":      {emu.Mode{Capability: "7.5"}, "cuda", []string{"compute capability 7.5", "8.0 (Ampere) or later"}},
	} {
		t.Run(name, func(t *testing.T) {
			withEmulatedGPU(t, c.mode)
			r := run(t, small(from, filepath.Join(t.TempDir(), "run"), "--device", c.device)...)
			require.Equal(t, exitInput, r.code, r.stderr)
			for _, w := range c.want {
				require.Contains(t, lastLine(r.stderr), w)
			}
		})
	}
}

// Where the only GPU cannot be used, auto warns and takes the CPU.
func TestEmulatedAutoFallsBack(t *testing.T) {
	withEmulatedGPU(t, emu.Mode{Extra: "retain=46,compute-mode=3"})
	r := ok(t, "generate", "--model", tinyModel(t), "--raw", "--prompt", "1+1=")
	require.Contains(t, r.stderr, "level=WARN")
	require.Contains(t, r.stderr, "in use by another process")
	require.Contains(t, r.stderr, "computing on the CPU")
}
