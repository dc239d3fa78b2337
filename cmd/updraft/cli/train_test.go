package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg"

	"github.com/updraft-ml/updraft/gapg/report"
)

func read(t testing.TB, parts ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return string(data)
}

// A whole training: files, summary, and standard output that holds results
// alone.
func TestTrain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	r := ok(t, small(tinyModel(t), dir, "--eval-steps", "2", "--eval-on-start", "--eval-prompts", "20", "--save-steps", "1", "--load-best-model-at-end", "--json")...)
	var s trainSummary
	oneObject(t, r.out, &s)
	require.Equal(t, 4, s.Steps)
	require.Equal(t, 0.3, s.Budget)
	require.InDelta(t, 3.0/7, s.Rho, 1e-12)
	require.Zero(t, s.MaxLogpDifference, "rollout and training log-probs are the same bits")
	require.Positive(t, s.NumTokens)
	require.Contains(t, s.Evaluation, "accuracy/overall_at_budget")
	require.Contains(t, []int{2, 4}, s.BestStep)
	require.Contains(t, r.stderr, "budget=0.3 rho=0.4286", "the first line says what the budget means")
	require.Contains(t, r.stderr, "memory=")

	m, err := report.ReadMetrics(filepath.Join(dir, report.MetricsFile))
	require.NoError(t, err)
	require.EqualValues(t, 4, m.LastStep())
	for _, key := range []string{"reward", "eval/accuracy/overall", "eval/accuracy/solo", "eval/cloud/ratio", "eval/help/precision", "cloud/ratio"} {
		_, values := m.Column(key)
		require.NotEmpty(t, values, key)
	}
	steps, _ := m.Column("eval/accuracy/overall")
	require.Equal(t, []float64{0, 2, 4}, steps)
	checkpoints, err := filepath.Glob(filepath.Join(dir, "checkpoint-*"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(checkpoints), 3, "two and the best one")
	require.Equal(t, read(t, dir, "final", "model.safetensors"), read(t, dir, "checkpoint-"+strconv.Itoa(s.BestStep), "model.safetensors"),
		"the best checkpoint's model is the final one")
	require.Contains(t, read(t, dir, reportFile), "<svg")
	require.FileExists(t, filepath.Join(dir, ledgerFile))
	require.Contains(t, read(t, dir, configFile), "max-steps: 4\n")

	// The words of a human reader.
	dir2 := filepath.Join(t.TempDir(), "run")
	r = ok(t, small(tinyModel(t), dir2)...)
	require.Contains(t, r.out, "budget 30.0 % of prompts (ρ = 0.4286)")
	require.Contains(t, r.out, filepath.Join(dir2, "final"))
}

// Every algorithm and ablation runs, the added one included.
func TestAlgorithms(t *testing.T) {
	dir := tinyModel(t)
	for _, more := range [][]string{
		{"--algorithm", "gapg", "--no-filter"}, {"--algorithm", "gapg", "--filter=false", "--scale-rewards"}, {"--algorithm", "gapg", "--normalize-before-filter"},
		{"--algorithm", "da-grpo", "--lambda", "0.1"}, {"--algorithm", "grpo", "--num-iterations", "2", "--epsilon", "0.1"}, {"--algorithm", "dr-grpo"},
		{"--algorithm", "rloo", "--beta", "0.1", "--kl-estimator", "k2"}, {"--algorithm", "dapo", "--epsilon-high", "0.28"}, {"--algorithm", "renamed-rloo"},
		{"--reward", "accuracy-only"}, {"--cloud", "none"}, {"--query-cloud", "all-fail", "--cloud", "simulated:0.5"},
		{"--lr-scheduler-type", "cosine", "--warmup-steps", "1", "--temperature", "0.7", "--top-p", "0.9", "--top-k", "9", "--min-p", "0.01", "--max-grad-norm", "0"},
	} {
		ok(t, small(dir, filepath.Join(t.TempDir(), "run"), append(more, "--max-steps", "2")...)...)
	}
}

// A run that stopped goes on to the bits of one that did not, and refuses to go
// on with another configuration.
func TestResume(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
	ok(t, small(from, whole, "--save-steps", "2")...)
	// An earlier checkpoint of the same run is a run that was killed after it.
	ok(t, small(from, parts, "--save-steps", "2", "--save-total-limit", "2")...)
	require.NoError(t, os.RemoveAll(filepath.Join(parts, "checkpoint-4")))
	require.NoError(t, os.RemoveAll(filepath.Join(parts, "final")))

	for _, c := range []struct {
		more []string
		want string
	}{
		{[]string{"--seed", "5"}, "--seed 5: the run in " + parts + " has 42"},
		{[]string{"--learning-rate", "1"}, "--learning-rate 1: the run in"},
	} {
		r := run(t, append([]string{"train", "--output-dir", parts, "--resume-from-checkpoint"}, c.more...)...)
		require.Equal(t, exitInput, r.code)
		require.Contains(t, r.stderr, c.want)
	}
	r := run(t, "train", "--output-dir", parts, "--resume-from-checkpoint="+filepath.Join(parts, "checkpoint-9"))
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "not the newest checkpoint")

	// The directory's own configuration is enough; what decides nothing may change.
	ok(t, "train", "--output-dir", parts, "--resume-from-checkpoint="+filepath.Join(parts, "checkpoint-2"), "--threads", "2")
	for _, name := range []string{"final/model.safetensors", "checkpoint-4/model.safetensors", "checkpoint-4/optimizer.safetensors"} {
		require.Equal(t, read(t, whole, name), read(t, parts, name), name)
	}
	require.Equal(t, untimed(t, whole), untimed(t, parts))
}

// A run with 8-bit moments resumes to the bits of one that did not stop, and not
// with moments of another kind.
func TestResume8Bit(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
	for _, d := range []string{whole, parts} {
		ok(t, small(from, d, "--save-steps", "2", "--optim", "adamw_8bit", "--device", "cpu")...)
	}
	require.Contains(t, read(t, parts, configFile), "optim: adamw-8bit\n")
	require.Contains(t, read(t, parts, configFile), "dtype: float32\n")
	require.NoError(t, os.RemoveAll(filepath.Join(parts, "checkpoint-4")))
	require.NoError(t, os.RemoveAll(filepath.Join(parts, "final")))
	r := run(t, "train", "--output-dir", parts, "--resume-from-checkpoint", "--optim", "adamw")
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "--optim adamw: the run in "+parts+" has adamw-8bit")
	ok(t, "train", "--output-dir", parts, "--resume-from-checkpoint")
	for _, name := range []string{"final/model.safetensors", "checkpoint-4/optimizer.safetensors"} {
		require.Equal(t, read(t, whole, name), read(t, parts, name), name)
	}
}

// A loss that is not finite ends the run with the reason; what was saved stays.
func TestNonFiniteLoss(t *testing.T) {
	from, dir := tinyModel(t), filepath.Join(t.TempDir(), "run")
	ok(t, small(from, dir, "--algorithm", "rloo", "--save-steps", "1", "--max-steps", "2")...)
	before := read(t, dir, "checkpoint-2", "model.safetensors")
	r := run(t, small(from, filepath.Join(t.TempDir(), "other"), "--algorithm", "rloo", "--reward", "not-a-number")...)
	require.Equal(t, exitInput, r.code, r.stderr)
	require.Contains(t, lastLine(r.stderr), "not finite")
	require.Contains(t, lastLine(r.stderr), "weights are unchanged")

	// The same in the midst of a run: a learning rate that blows up.
	dir2 := filepath.Join(t.TempDir(), "run")
	r = run(t, small(from, dir2, "--algorithm", "rloo", "--save-steps", "1", "--max-steps", "20", "--learning-rate", "1e36", "--warmup-steps", "1")...)
	require.Equal(t, exitInput, r.code, r.stderr)
	newest, err := gapg.NewestCheckpoint(dir2)
	require.NoError(t, err)
	ok(t, "generate", "--task", "parity", "--model", from, "--prompt", "1+1=", "--cloud", "none")
	require.FileExists(t, filepath.Join(newest, "optimizer.safetensors"))
	require.Equal(t, before, read(t, dir, "checkpoint-2", "model.safetensors"))
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// A data set from elsewhere, with a held-out part of its own.
func TestTrainOnDataset(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	data := filepath.Join(dir, "problems.jsonl")
	text := ""
	for a := 2; a < 22; a++ {
		text += `{"nums": [` + strconv.Itoa(a) + `, 3, 2], "target": ` + strconv.Itoa(a+5) + `, "other": "field"}` + "\n"
	}
	require.NoError(t, os.WriteFile(data, []byte(text), 0o644))
	args := []string{"train", "--task", "countdown", "--model", from, "--dataset", data, "--threads", "1", "--preflight-prompts", "0", "--max-completion-length", "12", "--num-generations", "2",
		"--prompts-per-step", "4", "--per-device-train-batch-size", "8", "--max-steps", "1", "--eval-steps", "1", "--eval-split", "0.3", "--json"}
	var s trainSummary
	oneObject(t, ok(t, append(args, "--output-dir", filepath.Join(dir, "run"))...).out, &s)
	held := int(s.Evaluation["prompts"])
	require.Greater(t, held, 1)
	require.Less(t, held, 15)
	oneObject(t, ok(t, append(args, "--output-dir", filepath.Join(dir, "run2"), "--eval-dataset", data)...).out, &s)
	require.Equal(t, 20.0, s.Evaluation["prompts"])
}
