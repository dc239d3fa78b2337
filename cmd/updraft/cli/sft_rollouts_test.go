package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
)

// A warm start without demonstrations: what is made is kept and read again, and
// the prompts that train holds out are in none of it.
func TestSFTFromRollouts(t *testing.T) {
	dir, data := tinyModel(t), filepath.Join(t.TempDir(), "prompts")
	var lines []string
	for i := range 60 {
		lines = append(lines, strings.Repeat("1+", i%7)+"1="+strings.Repeat("2", i/7))
	}
	require.NoError(t, os.WriteFile(data, []byte(strings.Join(lines, "\n")), 0o644))
	out := filepath.Join(t.TempDir(), "warm")
	args := []string{"sft", "--task", "parity", "--model", dir, "--from-rollouts", "--dataset", data, "--output-dir", out, "--threads", "1", "--max-completion-length", "12",
		"--eval-split", "0.3", "--split-seed", "7", "--per-device-train-batch-size", "8", "--num-generations", "2", "--save-steps", "1"}
	r := ok(t, args...)
	require.Contains(t, r.stderr, "asking_demonstrations=")
	last := regexp.MustCompile(`msg=sampling step=(\d+)/(\d+) `).FindAllStringSubmatch(r.stderr, -1)
	require.NotEmpty(t, last, "the sampling shows how far it is")
	require.Equal(t, last[len(last)-1][1], last[len(last)-1][2])
	config := read(t, out, configFile)
	require.Contains(t, config, "learning-rate: 1e-05\n")
	require.NotContains(t, config, "max-steps: 4500")

	var prompts []gapg.Prompt
	testTask := testOptions().Tasks[0]
	prompts, err := testTask.Read(parity{}, data)
	require.NoError(t, err)
	_, held := gapg.HoldOut(prompts, 0.3, 7)
	require.NotEmpty(t, held)
	never := map[string]bool{}
	for _, p := range held {
		never[p.ID] = true
	}
	kinds := map[bool]int{}
	demos := strings.Split(strings.TrimSpace(read(t, out, rolloutsFile)), "\n")
	for _, line := range demos {
		var d gapg.Demonstration
		require.NoError(t, json.Unmarshal([]byte(line), &d))
		require.False(t, never[d.ID], "a held-out prompt is learnt from")
		kinds[d.Asks]++
		require.Equal(t, d.Asks, task.AsksForHelp(d.Text))
	}
	require.Positive(t, kinds[true])
	require.Positive(t, kinds[false])

	// A run that goes on reads what it has sampled.
	newest, err := gapg.NewestCheckpoint(out)
	require.NoError(t, err)
	final := read(t, out, "final", "model.safetensors")
	require.NoError(t, os.RemoveAll(newest))
	r = ok(t, "sft", "--output-dir", out, "--resume-from-checkpoint")
	require.NotContains(t, r.stderr, "sampling responses")
	require.Equal(t, final, read(t, out, "final", "model.safetensors"))

	for want, more := range map[string][]string{
		"--help-share 2: must be from 0 to 1":                       {"--help-share", "2"},
		"--temperature 0: must be above 0":                          {"--temperature", "0"},
		"--model is not set: --from-rollouts and --from-solutions":  {"--model", ""},
		"--from-rollouts and --from-solutions: give one of the two": {"--from-solutions"},
		"--from-solutions: the task parity has no worked solutions": {"--from-rollouts=false", "--from-solutions"},
		"no prompts are left beside those held out":                 {"--eval-dataset", data},
	} {
		r := run(t, append(append([]string{}, args...), append(more, "--output-dir", filepath.Join(t.TempDir(), "x"))...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
	}
	require.Contains(t, ok(t, append(args, "--dry-run", "--output-dir", filepath.Join(t.TempDir(), "x"))...).out, "to choose demonstrations from")
}
