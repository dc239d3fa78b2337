package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Worked solutions are learnt behind the prompts of training, without those that
// are longer than a response may be and those of the prompts held out.
func TestSFTFromSolutions(t *testing.T) {
	dir, data := englishModel(t, chatML), filepath.Join(t.TempDir(), "solved.jsonl")
	var lines []string
	for i := range 40 {
		lines = append(lines, fmt.Sprintf(`{"question": "%d+1?", "answer": "%d+1=<<%d+1=%d>>%d\n#### %d"}`, i, i, i, i+1, i+1, i+1))
	}
	lines = append(lines, `{"question": "Long?", "answer": "`+strings.Repeat("One more. ", 40)+`\n#### 1"}`, `{"question": "Without?", "answer": "7"}`)
	require.NoError(t, os.WriteFile(data, []byte(strings.Join(lines, "\n")), 0o644))
	out := filepath.Join(t.TempDir(), "run")
	args := []string{"sft", "--model", dir, "--from-solutions", "--task", "questions", "--dataset", data, "--threads", "1", "--max-completion-length", "60",
		"--eval-split", "0", "--per-device-train-batch-size", "8"}
	r := ok(t, append(args, "--output-dir", out)...)
	require.Contains(t, r.stderr, "prompts=42 solutions=40 without=1 too_long=1")
	require.Contains(t, r.out, "10 steps, ", "two passes of 40 by 8")
	require.Contains(t, read(t, out, configFile), "learning-rate: 1e-05\n")

	r = ok(t, append(args, "--eval-split", "0.5", "--split-seed", "7", "--dry-run", "--output-dir", out+"-half")...)
	require.NotContains(t, r.stderr, "prompts=42")
	r = ok(t, append(args, "--eval-split", "0.5", "--train-prompts", "11", "--dry-run", "--output-dir", out+"-half")...)
	require.Contains(t, r.stderr, "prompts=11 ")

	alone := questionFile(t, 4)
	for want, more := range map[string][]string{
		"all 41 solutions of --dataset": {"--max-completion-length", "2"},
		"no answer of --dataset " + alone + ` is a worked solution, in which #### or \boxed{} marks the result`: {"--dataset", alone, "--prompt-column", "Question"},
		"--dataset is not set: --from-solutions reads questions":                                                {"--dataset", ""},
	} {
		r := run(t, append(append([]string{}, args...), append(more, "--output-dir", filepath.Join(t.TempDir(), "x"))...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
	}
}

// What generates is planned for the sequences that there are, and not for the
// model's whole context, which may be a hundred times as long.
func TestPlansHeedTheSequences(t *testing.T) {
	short := englishModel(t, chatML)
	long := filepath.Join(t.TempDir(), "long")
	require.NoError(t, os.CopyFS(long, os.DirFS(short)))
	config := strings.Replace(read(t, short, "config.json"), `"max_position_embeddings": 512`, `"max_position_embeddings": 51200`, 1)
	require.NotEqual(t, read(t, short, "config.json"), config)
	require.NoError(t, os.WriteFile(filepath.Join(long, "config.json"), []byte(config), 0o644))
	data := questionFile(t, 40)
	for _, command := range [][]string{{"eval"}, {"train", "--eval-steps", "1"}, {"sft", "--from-rollouts"}} {
		plan := func(dir string) (lines []string) {
			args := append(command, "--model", dir, "--dataset", data, "--prompt-template", "{Body} {Question}", "--max-completion-length", "8",
				"--dry-run", "--threads", "1", "--output-dir", filepath.Join(t.TempDir(), "x"))
			for _, l := range strings.Split(ok(t, args...).out, "\n") {
				if strings.HasPrefix(l, "#   ") && !strings.Contains(l, "rotary tables") && !strings.Contains(l, "total") {
					lines = append(lines, l)
				}
			}
			return lines
		}
		require.NotEmpty(t, plan(short))
		require.Equal(t, plan(short), plan(long), command)
	}
}
