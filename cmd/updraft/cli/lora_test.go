package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model"
)

// A run that trains adapters keeps them in PEFT's layout, resumes to the same bits
// with a KL to the frozen weights, and every command takes its checkpoints.
func TestTrainAdapters(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
	for _, d := range []string{whole, parts} {
		ok(t, small(from, d, "--save-steps", "2", "--use-peft", "--lora_r", "4", "--lora-target-modules", "all-linear", "--beta", "0.1")...)
	}
	config := read(t, parts, configFile)
	require.Contains(t, config, "use-peft: true\nlora-r: 4\nlora-alpha: 32\nlora-target-modules:\n    - all-linear\n")
	checkpoint := filepath.Join(parts, "checkpoint-4")
	require.NoFileExists(t, filepath.Join(checkpoint, "model.safetensors"))
	require.FileExists(t, filepath.Join(checkpoint, model.AdapterWeightsFile))
	require.Contains(t, read(t, checkpoint, model.AdapterConfigFile), `"base_model_name_or_path": "`+from+`"`)
	require.NotEqual(t, read(t, from, "model.safetensors"), read(t, parts, "final/model.safetensors"))

	require.NoError(t, os.RemoveAll(checkpoint))
	require.NoError(t, os.RemoveAll(filepath.Join(parts, "final")))
	r := run(t, "train", "--output-dir", parts, "--resume-from-checkpoint", "--lora-r", "5")
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "--lora-r 5: the run in "+parts+" has 4")
	ok(t, "train", "--output-dir", parts, "--resume-from-checkpoint")
	for _, name := range []string{"final/model.safetensors", "checkpoint-4/optimizer.safetensors", "checkpoint-4/" + model.AdapterWeightsFile} {
		require.Equal(t, read(t, whole, name), read(t, parts, name), name)
	}

	say := func(m string) string {
		return ok(t, "generate", "--model", m, "--raw", "--prompt", "1+1=", "--max-completion-length", "8", "--temperature", "0", "--json").out
	}
	require.Equal(t, strings.ReplaceAll(say(filepath.Join(parts, "final")), "/final", ""), strings.ReplaceAll(say(checkpoint), "/checkpoint-4", ""))
	ok(t, "info", "--model", parts)
	ok(t, "export", "--model", checkpoint, "--output", filepath.Join(dir, "exported"), "--system-prompt", "none")
	require.FileExists(t, filepath.Join(dir, "exported", "model.safetensors"))
	// New adapters over what the first have made.
	ok(t, small(checkpoint, filepath.Join(dir, "second"), "--use-peft")...)
	say(filepath.Join(dir, "second", "checkpoint-4"))

	data := filepath.Join(dir, "demonstrations.jsonl")
	require.NoError(t, os.WriteFile(data, []byte(`{"prompt": "1+1=", "completion": "2"}`+"\n"), 0o644))
	warm := filepath.Join(dir, "warm")
	ok(t, "sft", "--model", from, "--task", "parity", "--dataset", data, "--output-dir", warm, "--max-steps", "2", "--warmup-steps", "1", "--use-peft")
	require.FileExists(t, filepath.Join(warm, "checkpoint-2", model.AdapterWeightsFile))
}

func TestAdapterFlags(t *testing.T) {
	from := tinyModel(t)
	for want, flags := range map[string][]string{
		"--lora-r without --use-peft":     {"--lora-r", "8"},
		"--lora-r 0: must be at least 1":  {"--use-peft", "--lora-r", "0"},
		"--lora-alpha -1: must be above":  {"--use-peft", "--lora-alpha", "-1"},
		`target module "lm_head" is unkn`: {"--use-peft", "--lora-target-modules", "q_proj,lm_head"},
	} {
		r := run(t, small(from, filepath.Join(t.TempDir(), "run"), append(flags, "--dry-run")...)...)
		require.Equal(t, exitInput, r.code, want)
		require.Contains(t, r.stderr, want)
	}
	r := run(t, "sft", "--use-peft", "--dry-run", "--output-dir", filepath.Join(t.TempDir(), "run"))
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "--use-peft needs --model")
}
