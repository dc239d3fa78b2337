package cli

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
)

// withoutGPU makes this machine one without a driver.
func withoutGPU(t *testing.T) {
	t.Helper()
	t.Setenv(cuda.LibraryEnv, filepath.Join(t.TempDir(), "libcuda.so.1"))
}

// Without a driver, auto takes the CPU and says why, and cuda is an error of one
// line with the remedy, before anything is written.
func TestDeviceWithoutDriver(t *testing.T) {
	withoutGPU(t)
	dir := filepath.Join(t.TempDir(), "run")
	r := ok(t, small(tinyModel(t), dir)...)
	require.Contains(t, r.stderr, "computing on the CPU")
	require.Contains(t, r.stderr, "no GPU can be used")
	require.Contains(t, r.stderr, "cpu (")

	out := filepath.Join(t.TempDir(), "other")
	for _, device := range []string{"cuda", "cuda:1"} {
		for name, args := range map[string][]string{
			"train":    small(tinyModel(t), out, "--device", device),
			"generate": {"generate", "--model", tinyModel(t), "--raw", "--prompt", "1+", "--device", device},
			"sft":      {"sft", "--output-dir", out, "--device", device},
			"eval":     {"eval", "--model", tinyModel(t), "--task", "parity", "--test-prompts", "4", "--device", device},
			"demo":     {"demo", "--output-dir", out, "--device", device},
		} {
			t.Run(name+" "+device, func(t *testing.T) {
				r := run(t, args...)
				require.Equal(t, exitInput, r.code, r.stderr)
				last := lastLine(r.stderr)
				require.Contains(t, last, "--device "+device+": cuda: no GPU can be used: ")
				require.Contains(t, last, "; ", "the remedy")
				require.Empty(t, r.out)
			})
		}
	}
}

// Info says in one line why there is no GPU.
func TestInfoWithoutDriver(t *testing.T) {
	withoutGPU(t)
	r := ok(t, "info")
	require.Regexp(t, `(?m)^GPU      none: cuda: no GPU can be used: .*$`, r.out)
	var info infoJSON
	oneObject(t, ok(t, "info", "--json").out, &info)
	require.NotEmpty(t, info.WhyNoGPU)
	require.Empty(t, info.GPUs)
}

func TestDeviceNames(t *testing.T) {
	for name, want := range map[string]int{"cuda": 0, "cuda:0": 0, "cuda:12": 12, "cuda:": -1, "cuda:-1": -1, "cuda:01": -1, "cuda:x": -1, "gpu": -1, "cuda1": -1} {
		n, ok := cudaNumber(name)
		require.Equal(t, want >= 0, ok, name)
		if ok {
			require.Equal(t, want, n)
		}
	}
}
