package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// A warm start from the task's demonstrations learns, stops and goes on to the
// same bits, and what it makes is a model.
func TestSFT(t *testing.T) {
	dir := t.TempDir()
	args := func(out string, more ...string) []string {
		return append([]string{"sft", "--output-dir", filepath.Join(dir, out), "--hidden-size", "32", "--num-hidden-layers", "1", "--num-attention-heads", "2",
			"--num-key-value-heads", "1", "--head-dim", "16", "--intermediate-size", "48", "--max-position-embeddings", "128", "--max-steps", "80",
			"--warmup-steps", "5", "--per-device-train-batch-size", "8", "--save-steps", "40", "--threads", "1", "--json"}, more...)
	}
	var s struct {
		Steps      int
		Loss       float64
		Model      string
		Parameters int64
	}
	oneObject(t, ok(t, args("run")...).out, &s)
	require.Equal(t, 80, s.Steps)
	require.Less(t, s.Loss, 2.8, "from log 30 = 3.4 nats at random")
	m, err := report.ReadMetrics(filepath.Join(dir, "run", report.MetricsFile))
	require.NoError(t, err)
	_, losses := m.Column("loss")
	require.Len(t, losses, 80)
	require.Less(t, losses[79], losses[0]-0.5)

	ok(t, args("again")...)
	require.Equal(t, read(t, s.Model, "model.safetensors"), read(t, dir, "again", "final", "model.safetensors"), "a seed means a model")
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "again", "checkpoint-80")))
	ok(t, "sft", "--output-dir", filepath.Join(dir, "again"), "--resume-from-checkpoint")
	require.Equal(t, read(t, s.Model, "model.safetensors"), read(t, dir, "again", "final", "model.safetensors"))
	require.Equal(t, untimed(t, filepath.Join(dir, "run")), untimed(t, filepath.Join(dir, "again")))

	// The run's directory is a model, for a training, for text, for more of the same.
	require.Contains(t, ok(t, "generate", "--model", filepath.Join(dir, "run"), "--prompt", "17 16 5=69").out, "\n-- ")
	data := file(t, "demonstrations.jsonl", `{"prompt": "1 2=3", "completion": "<answer>1+2</answer>"}
{"messages": [{"role": "user", "content": "4 2=8"}, {"role": "assistant", "content": "<answer>4*2</answer>"}]}
`)
	oneObject(t, ok(t, "sft", "--model", filepath.Join(dir, "run"), "--dataset", data, "--max-steps", "60", "--per-device-train-batch-size", "2", "--threads", "1",
		"--learning-rate", "1e-2", "--output-dir", filepath.Join(dir, "more"), "--json").out, &s)
	require.Less(t, s.Loss, 0.1, "two lines are learnt by heart")
	require.Contains(t, ok(t, "generate", "--model", filepath.Join(dir, "more"), "--prompt", "4 2=8").out, "<answer>4*2</answer>\n-- device, 6 tokens, answers 4*2: right")
}

func TestEval(t *testing.T) {
	dir := t.TempDir()
	gapgModel, other := tinyModel(t), filepath.Join(dir, "other")
	writeTiny(t, other, 8)
	args := func(more ...string) []string {
		return append([]string{"eval", "--task", "parity", "--model", gapgModel, "--max-completion-length", "12", "--test-prompts", "40", "--validation-prompts", "30",
			"--bootstrap-resamples", "100", "--threads", "1"}, more...)
	}
	out := filepath.Join(dir, "eval")
	var s evalSummary
	oneObject(t, ok(t, args("--base", other, "--task-tuned", other, "--collaboration-aware", other, "--da-grpo", other, "--output-dir", out, "--json")...).out, &s)
	var names []string
	for _, m := range s.Methods {
		names = append(names, m.Name)
		require.True(t, m.OverallAccuracy >= 0 && m.OverallAccuracy <= 1)
	}
	require.Equal(t, []string{"base", "base-help-bias", "task-tuning", "naive-offloading", "router", "confidence", "collaboration-aware", "gapg", "da-grpo", "cloud", "oracle"}, names,
		"every baseline that the models allow; the task has no self-check")
	require.Equal(t, 40, s.TestPrompts)
	require.NotEmpty(t, s.Comparisons)
	require.Len(t, s.Curves["gapg"], 41)
	require.Equal(t, 11*40, lineCount(filepath.Join(out, predictionsFile)))
	require.Contains(t, read(t, out, reportFile), "naive-offloading")

	// Without the others: the model alone. The table for people.
	r := ok(t, args()...)
	require.Contains(t, r.out, "gapg *")
	require.Contains(t, r.out, "cloud")
	require.NotContains(t, r.out, "router")

	// The same run again is the same.
	var again evalSummary
	oneObject(t, ok(t, args("--base", other, "--task-tuned", other, "--collaboration-aware", other, "--da-grpo", other, "--output-dir", filepath.Join(dir, "again"), "--json")...).out, &again)
	s.Seconds, again.Seconds = 0, 0
	require.Equal(t, s, again)
	require.Equal(t, read(t, out, predictionsFile), read(t, dir, "again", predictionsFile))

	// Its own directory is not overwritten.
	require.Equal(t, exitInput, run(t, args("--output-dir", out)...).code)

	// Two evaluations over one another.
	page := filepath.Join(dir, "overlay.html")
	r = ok(t, "report", out, filepath.Join(dir, "again"), "--method", "gapg,router", "--output", page)
	require.Contains(t, r.out, "eval − again, gapg: +0.0 points [+0.0, +0.0] over 40 common prompts")
	require.Contains(t, r.out, "eval − again, router:")
	require.Contains(t, read(t, page), "eval")
}

func TestReportOfTrainings(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	a, b := filepath.Join(dir, "a", "run"), filepath.Join(dir, "b", "run")
	ok(t, small(from, a, "--max-steps", "2")...)
	ok(t, small(from, b, "--max-steps", "2", "--seed", "9")...)
	var out struct {
		Runs        []string
		Comparisons []comparisonJSON
		Report      string
	}
	oneObject(t, ok(t, "report", a, b, "--output", filepath.Join(dir, "o.html"), "--json").out, &out)
	require.Equal(t, []string{"run", filepath.ToSlash(b)}, out.Runs, "runs of one name are told apart")
	require.Empty(t, out.Comparisons)
	require.Contains(t, read(t, out.Report), "<svg")
}

func TestGenerate(t *testing.T) {
	from := tinyModel(t)
	var out struct {
		Prompt  string
		Replies []reply
	}
	args := []string{"generate", "--model", from, "--prompt", "17 16 5=69", "--n", "3", "--temperature", "1", "--seed", "3", "--threads", "1", "--max-completion-length", "20", "--json"}
	oneObject(t, ok(t, args...).out, &out)
	require.Equal(t, "17 16 5=69", out.Prompt)
	require.Len(t, out.Replies, 3)
	require.NotEqual(t, out.Replies[0].Text, out.Replies[1].Text)
	first := out.Replies
	out.Replies = nil
	oneObject(t, ok(t, args...).out, &out)
	require.Equal(t, first, out.Replies, "a seed means a text")

	// With a large bias the model asks at once, and the cloud's answer is shown.
	ask := []string{"generate", "--model", from, "--task", "parity", "--prompt", "1", "--help-bias", "100"}
	oneObject(t, ok(t, append(ask, "--json")...).out, &out)
	require.Equal(t, "cloud", out.Replies[0].Source, "%+v", out.Replies[0])
	require.Contains(t, []string{"right", "wrong"}, out.Replies[0].Answer)
	require.Equal(t, out.Replies[0].Answer == "right", *out.Replies[0].Correct)
	require.Positive(t, *out.Replies[0].CloudCostUSD)
	require.Contains(t, ok(t, ask...).out, gapg.Marker+"\n-- asks the cloud after")
	require.Contains(t, ok(t, append(ask, "--cloud", "none")...).out, "there is none")
	require.Contains(t, ok(t, "generate", "--model", from, "--raw", "--prompt", "1+1=").out, "-- device")
}

func TestInfo(t *testing.T) {
	var out infoJSON
	oneObject(t, ok(t, "info", "--model", tinyModel(t), "--json").out, &out)
	require.Contains(t, out.CPU.Backend, "cpu (")
	require.Positive(t, out.CPU.Threads)
	require.True(t, len(out.GPUs) > 0 || out.WhyNoGPU != "", "a GPU, or why there is none")
	require.Positive(t, out.MemorySum)
	require.Positive(t, out.Memory["optimizer"])
	var alone infoJSON
	oneObject(t, ok(t, "info", "--model", tinyModel(t), "--train=false", "--json").out, &alone)
	require.Zero(t, alone.Memory["optimizer"])
	require.Less(t, alone.MemorySum, out.MemorySum)
	// A GPU's plan needs none: activations in BF16 too, and no word of this machine's memory.
	var gpu, cpu infoJSON
	oneObject(t, ok(t, "info", "--model", tinyModel(t), "--device", "cuda", "--dtype", "bfloat16", "--json").out, &gpu)
	oneObject(t, ok(t, "info", "--model", tinyModel(t), "--device", "cpu", "--dtype", "bfloat16", "--json").out, &cpu)
	require.Less(t, gpu.Memory["activations"], cpu.Memory["activations"])
	require.Equal(t, len(gpu.GPUs) > 0, gpu.Advice != "")
	r := ok(t, "info")
	for _, word := range []string{"updraft", "CPU", "kernels", "GPU"} {
		require.Contains(t, r.out, word)
	}
}

// The whole demonstration on a random model and few problems: the one JSON
// object that it promises, and its files.
func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "demo")
	from := filepath.Join(t.TempDir(), "base")
	writeBase(t, from)
	args := []string{"demo", "--model", from, "--output-dir", dir, "--max-steps", "1", "--test-prompts", "20", "--validation-prompts", "20", "--seed", "3", "--json"}
	r := ok(t, args...)
	var s struct {
		Task        string           `json:"task"`
		Seed        uint64           `json:"seed"`
		Budget      float64          `json:"budget"`
		TestPrompts int              `json:"test_prompts"`
		Seconds     float64          `json:"seconds"`
		Methods     []map[string]any `json:"methods"`
		Train       map[string]any   `json:"train"`
	}
	oneObject(t, r.out, &s)
	require.Equal(t, "countdown", s.Task)
	require.EqualValues(t, 3, s.Seed)
	require.Equal(t, 0.3, s.Budget)
	require.Equal(t, 20, s.TestPrompts)
	require.Positive(t, s.Seconds)
	var names []string
	for _, m := range s.Methods {
		names = append(names, m["name"].(string))
		for _, key := range []string{"overall_accuracy", "device_accuracy", "solo_accuracy", "cloud_ratio", "pgr", "apgr", "help_precision", "help_recall", "ci95"} {
			require.Contains(t, m, key, m["name"])
		}
	}
	require.Equal(t, []string{"base", "base-help-bias", "task-tuning", "naive-offloading", "router", "confidence", "self-check", "gapg", "cloud", "oracle"}, names)
	for _, key := range []string{"steps", "training_cloud_calls", "max_logp_difference", "rollout_tokens_per_second", "train_tokens_per_second"} {
		require.Contains(t, s.Train, key)
	}
	require.Zero(t, s.Train["max_logp_difference"])
	for _, name := range []string{reportFile, predictionsFile, configFile, ledgerFile, "metrics/gapg/metrics.jsonl", "metrics/task-tuning/metrics.jsonl"} {
		require.FileExists(t, filepath.Join(dir, name))
	}

	if testing.Short() {
		return // the race detector makes each run of it a minute
	}
	// Again in the same place: the earlier demonstration is replaced, the figures
	// are the same. The table for people.
	kept := filepath.Join(dir, "notes.txt")
	require.NoError(t, os.WriteFile(kept, nil, 0o644))
	var again map[string]any
	oneObject(t, ok(t, args...).out, &again)
	var first map[string]any
	require.NoError(t, json.Unmarshal([]byte(r.out), &first))
	require.Equal(t, first["methods"], again["methods"])
	require.FileExists(t, kept, "what is not the demonstration's stays")
	out := ok(t, args[:len(args)-1]...).out
	require.Contains(t, out, "gapg *")
	require.True(t, strings.HasSuffix(out, "report: "+filepath.Join(dir, reportFile)+"\n"), out)
}

// A checkpoint's chat template writes the prompts of every command; --raw goes
// around it, and the cloud is asked the question itself.
func TestChatTemplate(t *testing.T) {
	from := filepath.Join(t.TempDir(), "chat")
	require.NoError(t, os.CopyFS(from, os.DirFS(tinyModel(t))))
	require.NoError(t, os.WriteFile(filepath.Join(from, chat.File), []byte("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}={% endif %}\n"), 0o644))
	var out struct{ Prompt string }
	args := []string{"generate", "--model", from, "--prompt", "17 16 5=69", "--max-completion-length", "4", "--json"}
	oneObject(t, ok(t, args...).out, &out)
	require.Equal(t, "17 16 5=69=", out.Prompt)
	oneObject(t, ok(t, append(args, "--raw")...).out, &out)
	require.Equal(t, "17 16 5=69", out.Prompt)

	// A run keeps the template, and what follows it uses it.
	data := filepath.Join(t.TempDir(), "data.jsonl")
	require.NoError(t, os.WriteFile(data, []byte(`{"prompt":"1 2=3","completion":"1+2"}`+"\n"), 0o644))
	tuned := filepath.Join(t.TempDir(), "run")
	ok(t, "sft", "--model", from, "--dataset", data, "--max-steps", "1", "--output-dir", tuned)
	args[2] = tuned
	oneObject(t, ok(t, args...).out, &out)
	require.Equal(t, "17 16 5=69=", out.Prompt)

	require.NoError(t, os.WriteFile(filepath.Join(from, chat.File), []byte("{{ raise_exception('no users') }}"), 0o644))
	refused := func(want string, args ...string) {
		t.Helper()
		r := run(t, args...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, lastLine(r.stderr), want)
	}
	refused("no users", "generate", "--model", from, "--prompt", "17 16 5=69")
	refused("no users", "train", "--model", from, "--output-dir", filepath.Join(t.TempDir(), "new"), "--dry-run")
	refused("no users", "sft", "--model", from, "--dataset", data, "--output-dir", filepath.Join(t.TempDir(), "new"), "--dry-run")
	require.NoError(t, os.WriteFile(filepath.Join(from, chat.File), []byte("{{"), 0o644))
	refused("remove it", "generate", "--model", from, "--prompt", "17 16 5=69")
}

// A GGUF file is a model like a directory: it generates the same.
func TestGGUFModel(t *testing.T) {
	tok, err := tokenizer.Load(filepath.Join("..", "..", "..", "model", "tokenizer", "testdata", "smollm2.json"))
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "m")
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	eos := tok.Special().EOS
	m, err := model.New(be, model.Config{ModelType: "llama", HiddenAct: "silu", HiddenSize: 32, IntermediateSize: 32, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1, HeadDim: 16, VocabSize: tok.Size() + 3, MaxPositionEmbeddings: 64, TieWordEmbeddings: true, RMSNormEps: 1e-5, RopeTheta: 10000,
		InitializerRange: 0.4, EOSTokenID: model.TokenIDs{max(eos, 0)}}, 5, model.Options{})
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, saveModel(t.Context(), m, tok, dir))
	template := "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} ={% endif %}"
	require.NoError(t, os.WriteFile(filepath.Join(dir, chat.File), []byte(template), 0o644))
	values, err := ggufValues(tok, m.Config(), template)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "m.gguf")
	require.NoError(t, m.SaveGGUF(t.Context(), file, "F32", values))

	args := func(from string) []string {
		return []string{"generate", "--model", from, "--task", "parity", "--prompt", "two and two", "--cloud", "none", "--max-completion-length", "12", "--threads", "1", "--json"}
	}
	require.Equal(t, ok(t, args(dir)...).out, ok(t, args(file)...).out)
	r := run(t, "generate", "--model", filepath.Join(dir, "none.gguf"), "--prompt", "1")
	require.Equal(t, exitInput, r.code)
	require.NoError(t, os.Truncate(file, 5000))
	r = run(t, args(file)...)
	require.Equal(t, exitInput, r.code)
	require.Contains(t, r.stderr, "truncated")
}
