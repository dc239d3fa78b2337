package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// file writes a file and returns its path.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// copyOf returns a copy of a model's directory that a test may spoil.
func copyOf(t testing.TB, dir string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(out, os.DirFS(dir)))
	return out
}

// Whatever is wrong with the input: exit code 2 and one line that names what is
// wrong and the fix, and nothing in the output directory.
func TestBadInput(t *testing.T) {
	from := tinyModel(t)
	out := filepath.Join(t.TempDir(), "run")
	train := func(more ...string) []string { return small(from, out, more...) }
	countdown := func(data string, more ...string) []string {
		return append([]string{"train", "--task", "countdown", "--model", from, "--output-dir", out, "--max-completion-length", "12", "--dataset", data}, more...)
	}
	truncated := copyOf(t, from)
	weights := filepath.Join(truncated, "model.safetensors")
	data, err := os.ReadFile(weights)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(weights, data[:len(data)/2], 0o644))
	noTokenizer := copyOf(t, from)
	require.NoError(t, os.Remove(filepath.Join(noTokenizer, "tokenizer.json")))
	unknown := copyOf(t, from)
	config := strings.Replace(read(t, unknown, "config.json"), `"llama"`, `"mamba"`, 1)
	require.NoError(t, os.WriteFile(filepath.Join(unknown, "config.json"), []byte(config), 0o644))
	occupied := file(t, "occupied", "a file")
	locked := filepath.Join(t.TempDir(), "locked")
	require.NoError(t, os.MkdirAll(filepath.Join(locked, "checkpoint-7"), 0o755))

	for name, c := range map[string]struct {
		args []string
		want []string
	}{
		"unknown command":           {[]string{"trian"}, []string{`unknown command "trian"`, `"train"`}},
		"unknown flag":              {train("--learing-rate", "1"), []string{"--learing-rate", `"learning-rate"`}},
		"unknown value":             {train("--algorithm", "ppo"), []string{"--algorithm", `"ppo"`, "gapg, da-grpo, grpo"}},
		"unknown task":              {[]string{"train", "--task", "chess"}, []string{"--task", "countdown, questions or parity"}},
		"unknown scheduler":         {train("--lr-scheduler-type", "step"), []string{"constant, linear or cosine"}},
		"unknown metric":            {train("--metric-for-best-model", "accuracy/overal"), []string{`did you mean "accuracy/overall"`}},
		"unknown device":            {train("--device", "tpu"), []string{"auto, cpu, cuda or cuda:N"}},
		"unknown device number":     {train("--device", "cuda:x"), []string{"auto, cpu, cuda or cuda:N"}},
		"unknown cloud":             {train("--cloud", "openai"), []string{"simulated"}},
		"cloud's accuracy":          {train("--cloud", "simulated:2"), []string{"from 0 to 1"}},
		"not a number":              {train("--max-steps", "ten"), []string{"--max-steps", `"ten"`, "whole number"}},
		"an argument too many":      {train("extra"), []string{`"extra"`}},
		"alpha-c above alpha-a":     {train("--alpha-c", "2.5"), []string{"--alpha-a, --alpha-c"}},
		"alpha-c equals alpha-a":    {train("--alpha-c", "2"), []string{"--alpha-a, --alpha-c"}},
		"alpha-f above alpha-c":     {train("--alpha-f", "0.6"), []string{"--alpha-f"}},
		"one generation":            {train("--num-generations", "1"), []string{"--num-generations 1", "at least 2"}},
		"no generation":             {train("--num-generations", "0"), []string{"--num-generations 0", "at least 2"}},
		"batch not divisible":       {train("--per-device-train-batch-size", "18"), []string{"multiple of --num-generations 4", "16"}},
		"batch and prompts":         {train("--prompts-per-step", "3"), []string{"--prompts-per-step 3", "12 completions"}},
		"budget of one":             {train("--cloud-budget", "1"), []string{"--cloud-budget", "[0, 1)"}},
		"budget negative":           {train("--cloud-budget", "-0.1"), []string{"--cloud-budget", "[0, 1)"}},
		"budget in percent":         {train("--cloud-budget", "30%"), []string{"--cloud-budget", "0.30"}},
		"budget without a cloud":    {train("--cloud", "none", "--cloud-budget", "0.2"), []string{"no cloud to ask"}},
		"temperature zero":          {train("--temperature", "0"), []string{"--temperature 0", "above 0"}},
		"learning rate zero":        {train("--learning-rate", "0"), []string{"--learning-rate 0"}},
		"learning rate NaN":         {train("--learning-rate", "NaN"), []string{"--learning-rate NaN"}},
		"seed zero":                 {train("--seed", "0"), []string{"--seed 0"}},
		"negative threads":          {train("--threads", "-1"), []string{"--threads -1"}},
		"no steps":                  {train("--max-steps", "0"), []string{"--max-steps 0"}},
		"no model":                  {[]string{"train", "--output-dir", out}, []string{"--model is not set"}},
		"no output directory":       {[]string{"train", "--task", "parity", "--model", from, "--max-completion-length", "8"}, []string{"--output-dir is not set"}},
		"model not there":           {[]string{"train", "--model", "nowhere"}, []string{"--model nowhere", "no such"}},
		"model is a file":           {[]string{"train", "--model", occupied}, []string{"is a file"}},
		"model is empty":            {[]string{"train", "--model", t.TempDir()}, []string{"config.json", "checkpoint-N"}},
		"model without vocabulary":  {[]string{"train", "--model", noTokenizer}, []string{"tokenizer.json"}},
		"truncated checkpoint":      {small(truncated, out), []string{"model.safetensors"}},
		"unknown architecture":      {small(unknown, out), []string{"config.json", "mamba", "llama"}},
		"completion too long":       {train("--max-completion-length", "60"), []string{"context of 64", "max-completion-length"}},
		"data set not there":        {countdown("nowhere.jsonl"), []string{"--dataset nowhere.jsonl", "no such file"}},
		"data set empty":            {countdown(file(t, "empty.jsonl", "\n")), []string{"empty.jsonl", "holds no problem"}},
		"task without prompts":      {train("--dataset", file(t, "none.txt", "")), []string{"no prompts"}},
		"malformed line":            {countdown(file(t, "bad.jsonl", "{\"nums\": [1, 2], \"target\": 3}\n{\"nums\": [1,\n")), []string{"bad.jsonl:2:", "malformed JSON"}},
		"a line without its field":  {countdown(file(t, "bad.jsonl", "{\"numbers\": [1, 2], \"target\": 3}\n")), []string{"bad.jsonl:1:", `"nums"`}},
		"a prompt too long":         {countdown(file(t, "long.jsonl", `{"nums": [1000000, 1000001, 1], "target": 2000002}`+"\n"), "--max-completion-length", "50"), []string{"exceed the model's context of 64"}},
		"too few to hold out":       {countdown(file(t, "one.jsonl", `{"nums": [1, 2], "target": 3}`+"\n"), "--eval-steps", "1"), []string{"too few prompts"}},
		"output is a file":          {small(from, occupied), []string{"--output-dir", "another"}},
		"output of another run":     {small(from, locked), []string{"checkpoint-7", "--resume-from-checkpoint"}},
		"nothing to resume":         {train("--resume-from-checkpoint"), []string{"--resume-from-checkpoint", "no run"}},
		"sft: shape":                {[]string{"sft", "--output-dir", out, "--head-dim", "7"}, []string{"shape", "head_dim"}},
		"sft: no demonstrations":    {[]string{"sft", "--task", "parity", "--output-dir", out}, []string{"--dataset"}},
		"sft: malformed line":       {[]string{"sft", "--output-dir", out, "--dataset", file(t, "d.jsonl", "{\"prompt\": \"1 2=3\"}\n")}, []string{"d.jsonl:1:", `"completion"`}},
		"sft: a foreign character":  {[]string{"sft", "--output-dir", out, "--dataset", file(t, "d.jsonl", "{\"prompt\": \"Ä\", \"completion\": \"1\"}\n")}, []string{"d.jsonl:1:", "Ä"}},
		"eval: no model":            {[]string{"eval"}, []string{"--model is not set"}},
		"eval: no cloud":            {[]string{"eval", "--model", from, "--cloud", "none"}, []string{"--cloud none"}},
		"eval: budget":              {[]string{"eval", "--model", from, "--cloud-budget", "2"}, []string{"[0, 1)"}},
		"eval: another vocabulary":  {[]string{"eval", "--model", from, "--task-tuned", noTokenizer, "--task", "parity", "--test-prompts", "4"}, []string{"--task-tuned", "tokenizer.json"}},
		"generate: no prompt":       {[]string{"generate", "--model", from}, []string{"--prompt is not set"}},
		"generate: not a problem":   {[]string{"generate", "--model", from, "--prompt", "what?"}, []string{"--prompt", "17 16 5=69", "--raw"}},
		"generate: prompt too long": {[]string{"generate", "--model", from, "--raw", "--prompt", strings.Repeat("1+", 40)}, []string{"--prompt", "context of 64"}},
		"generate: top-p":           {[]string{"generate", "--model", from, "--prompt", "1 2=3", "--top-p", "0"}, []string{"--top-p 0"}},
		"report: no runs":           {[]string{"report"}, []string{"at least one"}},
		"report: not there":         {[]string{"report", "nowhere"}, []string{"nowhere", "no such directory"}},
		"report: not a run":         {[]string{"report", t.TempDir()}, []string{"metrics.jsonl"}},
		"demo: budget":              {[]string{"demo", "--cloud-budget", "1.5", "--output-dir", out}, []string{"[0, 1)"}},
		"demo: another run's":       {[]string{"demo", "--model", from, "--output-dir", locked}, []string{"checkpoint-7"}},
		"demo: seed":                {[]string{"demo", "--seed", "0", "--output-dir", out}, []string{"--seed 0"}},
		"log level":                 {[]string{"info", "--log-level", "loud"}, []string{"debug, info, warn or error"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, c.args...)
			require.Equal(t, exitInput, r.code, r.stderr)
			require.Empty(t, r.out)
			last := lastLine(r.stderr)
			require.True(t, strings.HasPrefix(last, "updraft: "), r.stderr)
			for _, w := range c.want {
				require.Contains(t, last, w, r.stderr)
			}
			require.NotContains(t, r.stderr, "goroutine")
			require.NoFileExists(t, filepath.Join(out, "metrics.jsonl"))
			if name != "truncated checkpoint" && name != "negative threads" { // found when the weights are read, after the directory was tried
				require.NoDirExists(t, out)
			}
			require.NoError(t, os.RemoveAll(out))
		})
	}
}

// A directory that cannot be written, for those whom rights bind.
func TestUnwritableDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		// Rights do not bind the superuser: a path under a file cannot be made by
		// anybody.
		r := run(t, small(tinyModel(t), filepath.Join(file(t, "file", ""), "run"))...)
		require.Equal(t, exitInput, r.code)
		require.Contains(t, r.stderr, "choose another")
		return
	}
	dir := filepath.Join(t.TempDir(), "closed")
	require.NoError(t, os.Mkdir(dir, 0o555))
	r := run(t, small(tinyModel(t), dir)...)
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "cannot write there")
}

// A damaged checkpoint is named when it is resumed, and nothing is lost.
func TestResumeFromDamagedCheckpoint(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	ok(t, small(tinyModel(t), dir, "--save-steps", "2")...)
	path := filepath.Join(dir, "checkpoint-4", "optimizer.safetensors")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, data[:100], 0o644))
	metrics := read(t, dir, "metrics.jsonl")
	r := run(t, "train", "--output-dir", dir, "--resume-from-checkpoint")
	require.Equal(t, exitInput, r.code, r.stderr)
	require.Contains(t, lastLine(r.stderr), "checkpoint-4")
	require.Contains(t, lastLine(r.stderr), "resume from the checkpoint before it")
	require.Equal(t, metrics, read(t, dir, "metrics.jsonl"))

	// A corrupted ledger is named too.
	require.NoError(t, os.WriteFile(path, data, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ledgerFile), []byte("not a ledger"), 0o644))
	r = run(t, "train", "--output-dir", dir, "--resume-from-checkpoint")
	require.Equal(t, exitInput, r.code, r.stderr)
	require.Contains(t, lastLine(r.stderr), ledgerFile)
	require.Equal(t, "not a ledger", read(t, dir, ledgerFile))
}
