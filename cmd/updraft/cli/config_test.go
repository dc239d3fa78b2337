package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

// dry returns the effective configuration of a training.
func dry(t *testing.T, args ...string) map[string]any {
	t.Helper()
	var out struct {
		Config map[string]any `json:"config"`
		Memory int64          `json:"memory_bytes"`
	}
	oneObject(t, ok(t, append([]string{"train", "--dry-run", "--json", "--task", "parity", "--max-completion-length", "8"}, args...)...).out, &out)
	require.Positive(t, out.Memory)
	return out.Config
}

func TestConfigFile(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	path := filepath.Join(dir, "run.yaml")
	require.NoError(t, os.WriteFile(path, []byte("# a comment\nlearning_rate: 3e-4\nmax-steps: 7\nno-filter: true\nmodel_name_or_path: "+from+"\ncloud-budget: 0.05\nmetric-for-best-model: accuracy/solo\n"), 0o644))
	c := dry(t, "--config", path, "--max-steps", "9")
	require.Equal(t, 3e-4, c["learning-rate"])
	require.Equal(t, 9.0, c["max-steps"], "a flag overrides the file")
	require.Equal(t, true, c["no-filter"])
	require.Equal(t, from, c["model"])
	require.Equal(t, "0.05", c["cloud-budget"])
	require.Equal(t, 8.0, c["num-generations"], "TRL's default")
	require.NotContains(t, c, "json")
	require.NotContains(t, c, "dry-run")

	// The effective configuration is a configuration file, and says the same.
	r := ok(t, "train", "--dry-run", "--config", path, "--task", "parity", "--max-completion-length", "8")
	again := filepath.Join(dir, "again.yaml")
	require.NoError(t, os.WriteFile(again, []byte(r.out), 0o644))
	delete(c, "max-steps")
	round := dry(t, "--config", again)
	delete(round, "max-steps")
	require.Equal(t, c, round)
	require.Contains(t, r.out, "# memory plan")

	// So it is with prompts per step, which another flag says too.
	r = ok(t, "train", "--dry-run", "--model", from, "--task", "parity", "--max-completion-length", "8", "--prompts-per-step", "5", "--no-filter")
	require.NoError(t, os.WriteFile(again, []byte(r.out), 0o644))
	c = dry(t, "--config", again)
	require.Equal(t, 40.0, c["per-device-train-batch-size"])
	require.Equal(t, false, c["filter"])

	for text, want := range map[string]string{
		"max-steps: 3\nlearing-rate: 1\n":  `:2: unknown key "learing-rate"; did you mean "learning-rate"?`,
		"max-steps: many\n":                `:1: max-steps "many": not a whole number`,
		"\nalgorithm: gpag\n":              `:2: algorithm "gpag": must be gapg,`,
		"max-steps: 3\nmax_steps: 4\n":     `:2: key "max-steps" stands in line 1 already`,
		"- a\n- b\n":                       `:1: must be lines of the form key: value`,
		"a: [\n":                           `not YAML`,
		"model: {a: b}\n":                  `:1: model: must be a plain value`,
		"max-steps: [1, 2]\n":              `:1: max-steps takes one value, not a list`,
		"json: true\n":                     `unknown key "json"`,
		"resume-from-checkpoint: true\n":   `unknown key "resume-from-checkpoint"`,
		"completely_different_thing: 12\n": `unknown key "completely-different-thing"` + "\n",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		r := run(t, "train", "--config", path)
		require.Equal(t, exitInput, r.code, text)
		require.Contains(t, r.stderr, "run.yaml", text)
		require.Contains(t, r.stderr, want, text)
		require.Equal(t, 1, strings.Count(r.stderr, "\n"), r.stderr)
	}
	r = run(t, "train", "--config", filepath.Join(dir, "none.yaml"))
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "none.yaml: no such file")
}

// Spellings of other projects are accepted.
func TestAliases(t *testing.T) {
	from := tinyModel(t)
	c := dry(t, "--model_name_or_path", from, "--num_generations", "4", "--per_device_train_batch_size=12", "--lr_scheduler_type", "cosine", "--budget", "0.1")
	require.Equal(t, from, c["model"])
	require.Equal(t, 4.0, c["num-generations"])
	require.Equal(t, "cosine", c["lr-scheduler-type"])
	require.Equal(t, "0.1", c["cloud-budget"])
}

// TRL's bf16 and transformers' names of optimizers are other spellings of --dtype
// and --optim, in configurations too; what auto stands for is written down.
func TestTypes(t *testing.T) {
	from := tinyModel(t)
	c := dry(t, "--model", from, "--device", "cpu")
	require.Equal(t, "float32", c["dtype"])
	require.Equal(t, "adamw", c["optim"])
	require.NotContains(t, c, "bf16")
	for name, want := range map[string]string{"adamw_8bit": "adamw-8bit", "adamw_bnb_8bit": "adamw-8bit", "adamw-8bit": "adamw-8bit", "adamw_torch_fused": "adamw"} {
		require.Equal(t, want, dry(t, "--model", from, "--device", "cpu", "--optim", name)["optim"])
	}
	path := filepath.Join(t.TempDir(), "run.yaml")
	for text, want := range map[string]string{"bf16: true\n": "bfloat16", "dtype: bfloat16\n": "bfloat16"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		require.Equal(t, want, dry(t, "--model", from, "--device", "cpu", "--config", path)["dtype"])
	}
	require.NoError(t, os.WriteFile(path, []byte("bf16: false\n"), 0o644))
	require.Equal(t, "float32", dry(t, "--model", from, "--device", "cpu", "--config", path)["dtype"])
	for _, args := range [][]string{{"--bf16"}, {"--bf16=true"}, {"--dtype", "bfloat16"}} {
		ok(t, append([]string{"generate", "--model", from, "--raw", "--prompt", "1", "--device", "cpu", "--max-completion-length", "4"}, args...)...)
	}
	require.Contains(t, run(t, "generate", "--dtype", "half").stderr, "must be auto, float32 or bfloat16")
}

// Defaults are TRL's where it has the setting and the paper does not differ.
func TestDefaults(t *testing.T) {
	c := dry(t, "--model", tinyModel(t))
	for key, want := range map[string]any{
		"learning-rate": 1e-6, "num-generations": 8.0, "temperature": 1.0, "top-p": 1.0, "top-k": 0.0, "beta": 0.0, "epsilon": 0.2,
		"max-grad-norm": 1.0, "seed": 42.0, "alpha-a": 2.0, "alpha-c": 0.5, "alpha-f": 0.2, "cloud-budget": "0.30", "save-total-limit": 2.0,
		"query-cloud": "help", "algorithm": "gapg", "filter": true, "metric-for-best-model": "accuracy/overall_at_budget",
	} {
		require.Equal(t, want, c[key], key)
	}
}

func TestDryRunTouchesNothing(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	ok(t, small(from, filepath.Join(dir, "run"), "--dry-run")...)
	ok(t, "sft", "--dry-run", "--output-dir", filepath.Join(dir, "run"))
	ok(t, "eval", "--task", "parity", "--model", from, "--dry-run", "--output-dir", filepath.Join(dir, "run"), "--test-prompts", "5", "--validation-prompts", "5", "--max-completion-length", "9")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// Every command explains itself, and its examples parse.
func TestHelp(t *testing.T) {
	root := New(testOptions())
	r := ok(t, "--help")
	require.Contains(t, r.out, "updraft demo")
	require.Contains(t, ok(t).out, "Available Commands")
	names := map[string]bool{}
	for _, cmd := range root.Commands() {
		names[cmd.Name()] = true
		if cmd.Hidden || cmd.Name() == "help" {
			continue
		}
		require.NotEmpty(t, cmd.Short, cmd.Name())
		require.NotEmpty(t, cmd.Long, cmd.Name())
		require.NotEmpty(t, cmd.Example, cmd.Name())
		require.Contains(t, ok(t, cmd.Name(), "--help").out, strings.Split(cmd.Long, "\n")[0])
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			require.NotEmpty(t, f.Usage, "%s --%s", cmd.Name(), f.Name)
			require.Equal(t, strings.ToLower(f.Name), f.Name)
			require.NotContains(t, f.Name, "_")
		})
		for _, line := range strings.Split(strings.ReplaceAll(cmd.Example, "\\\n", " "), "\n") {
			words := strings.Fields(strings.ReplaceAll(line, `"17 16 5=69"`, "question"))
			require.Equal(t, []string{"updraft", cmd.Name()}, words[:2], line)
			found, rest, err := New(testOptions()).Find(words[1:])
			require.NoError(t, err)
			require.NoError(t, found.ParseFlags(rest), line)
		}
	}
	for _, name := range []string{"demo", "sft", "train", "eval", "generate", "info", "report"} {
		require.True(t, names[name], name)
	}
}

// What a program adds is in the choices and in the help.
func TestAddedChoices(t *testing.T) {
	r := ok(t, "train", "--help")
	require.Contains(t, r.out, "renamed-rloo")
	require.Contains(t, r.out, "parity")
	require.Contains(t, r.out, "not-a-number")
	var plain *cobra.Command = New(Options{})
	flag, _, err := plain.Find([]string{"train"})
	require.NoError(t, err)
	require.NotContains(t, flag.Flags().Lookup("algorithm").Usage, "renamed-rloo")
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"learing-rate", "learning-rate"}, {"xyzzy", ""}, {"bta", "beta"}, {"max-step", "max-steps"}} {
		require.Equal(t, c.want, nearest(c.in, []string{"learning-rate", "beta", "max-steps"}), c.in)
	}
	require.Equal(t, 3, distance("kitten", "sitting"))
	require.Equal(t, 4, distance("", "four"))
}
