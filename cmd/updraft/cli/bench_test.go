package cli

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/bench"
)

func TestBench(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	args := []string{"bench", "--miniature", "--group", "prefill,train", "--shape", "tiny", "--pairs", "2", "--threads", "1", "--output-dir", dir,
		"--peers", "all", "--peers-dir", t.TempDir()}
	var res bench.Results
	oneObject(t, ok(t, append(args, "--json")...).out, &res)
	require.Len(t, res.Results, 2)
	require.Len(t, res.Results[0].Rows[0].Samples, 2)
	require.Regexp(t, "^updraft bench --group prefill,train --shape tiny --pairs 2 .*--miniature=true", res.Command)
	for _, name := range []string{bench.ResultsFile, bench.MarkdownFile, bench.HTMLFile} {
		require.FileExists(t, filepath.Join(dir, name))
	}

	r := run(t, args...)
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "holds results already")
	r = ok(t, append(args, "--resume")...)
	require.Contains(t, r.out, "TRAIN")
	require.Contains(t, r.out, "pytorch is missing, not beaten")
	require.NotContains(t, r.stderr, "done=", "nothing was measured again")
}

func TestBenchRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		`group "decoding": there are kernels`: {"--group", "decoding"},
		`shape "llama": there are tiny`:       {"--shape", "llama"},
		`peer "mkl": there are openblas`:      {"--peers", "mkl"},
		"pairs -3: must be 1 or more":         {"--pairs", "-3"},
		"threads: -1 is not in":               {"--threads", "-1"},
		"must be float32 or bfloat16":         {"--dtype", "float16"},
		"resume: name the output directory":   {"--resume"},
		"/dev/null/x: cannot make":            {"--output-dir", "/dev/null/x"},
	} {
		r := run(t, append([]string{"bench", "--miniature"}, args...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
		require.Empty(t, r.out)
	}
}
