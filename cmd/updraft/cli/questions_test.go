package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

const chatML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// englishModel writes a random model over a small byte-level vocabulary, with a
// chat template unless that is "".
func englishModel(t testing.TB, template string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "english")
	from := "../../../model/tokenizer/testdata/smollm2.json"
	require.NoError(t, os.MkdirAll(dir, 0o755))
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer.json"), data, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(`{"eos_token": "<|im_end|>"}`), 0o644))
	tok, err := tokenizer.Load(dir)
	require.NoError(t, err)
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	m, err := model.New(be, model.Config{ModelType: "llama", HiddenAct: "silu", HiddenSize: 16, IntermediateSize: 24, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1, HeadDim: 8, VocabSize: tok.Size(), MaxPositionEmbeddings: 512, TieWordEmbeddings: true, RMSNormEps: 1e-5, RopeTheta: 10000,
		InitializerRange: 0.4}, 7, model.Options{})
	require.NoError(t, err)
	defer m.Close()
	out := filepath.Join(t.TempDir(), "model")
	require.NoError(t, saveModel(t.Context(), m, tok, out))
	if template != "" {
		require.NoError(t, os.WriteFile(filepath.Join(out, chat.File), []byte(template), 0o644))
	}
	return out
}

// questionFile writes n sums, the first of them twice.
func questionFile(t testing.TB, n int) string {
	t.Helper()
	var b strings.Builder
	for i := range n + 1 {
		k := i % n
		line, err := json.Marshal(map[string]any{"Body": "There are some.", "Question": strings.Repeat("1+", k) + "1?", "Answer": k + 1})
		require.NoError(t, err)
		b.Write(append(line, '\n'))
	}
	path := filepath.Join(t.TempDir(), "train.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(b.String()), 0o644))
	return path
}

// A data set of one's own trains and is evaluated; the flags of the task choose
// it, and the report of the run says what was there twice.
func TestQuestions(t *testing.T) {
	dir, data := englishModel(t, chatML), questionFile(t, 40)
	run1 := filepath.Join(t.TempDir(), "run")
	args := []string{"train", "--model", dir, "--dataset", data, "--prompt-template", "{Body} {Question}", "--output-dir", run1, "--threads", "1",
		"--max-completion-length", "12", "--num-generations", "4", "--per-device-train-batch-size", "16", "--max-steps", "2", "--query-cloud", "all-fail",
		"--eval-steps", "2", "--eval-split", "0.3", "--preflight-prompts", "0"}
	r := ok(t, args...)
	require.Contains(t, r.stderr, "prompts=41 repeated=1")
	require.Contains(t, read(t, run1, configFile), "task: questions\n")
	require.Contains(t, r.out, "simulated:0.938", "a simulated cloud is named as one")
	require.Contains(t, read(t, run1, reportFile), "simulated")

	var e map[string]any
	r = ok(t, "eval", "--model", run1, "--dataset", data, "--prompt-template", "{Body} {Question}", "--validation-split", "0.5", "--max-completion-length", "8", "--json")
	oneObject(t, r.out, &e)
	require.Contains(t, r.out, "simulated:0.938")

	for want, more := range map[string][]string{
		`train.jsonl:1: no column "question"; the line has Answer, Body, Question; set --prompt-column or --prompt-template`: {"--answer-column", "Answer", "--prompt-column", "question"},
		`train.jsonl:1: no column "gold"; the line has Answer, Body, Question; set --answer-column`:                          {"--answer-column", "gold", "--prompt-column", "Body"},
		`--verifier: the task countdown has a format and a verifier of its own; set --task questions`:                        {"--verifier", "math", "--task", "countdown"},
		`--verifier "maths": must be numeric, math, exact or choice; did you mean "math"?`:                                   {"--verifier", "maths"},
		`--prompt-template "x": names no column; write one as {column}`:                                                      {"--prompt-template", "x"},
		`--prompt-template and --prompt-column: give one of the two`:                                                         {"--prompt-template", "{Body}", "--prompt-column", "Body"},
	} {
		r := run(t, append([]string{"train", "--model", dir, "--dataset", data, "--output-dir", t.TempDir() + "/x"}, more...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
	}
	r = run(t, "train", "--model", dir, "--task", "questions", "--output-dir", t.TempDir()+"/x")
	require.Contains(t, r.stderr, "the task questions has no problems of its own; give a file")
}

// A share that train holds out is what eval measures, all of it and nothing else.
func TestEvalSplit(t *testing.T) {
	dir, data := englishModel(t, chatML), questionFile(t, 100)
	args := []string{"eval", "--model", dir, "--task-tuned", dir, "--dataset", data, "--prompt-template", "{Body} {Question}", "--eval-split", "0.5", "--validation-split", "0.25",
		"--split-seed", "7", "--max-completion-length", "4", "--threads", "1"}
	prompts, err := task.Questions{Verifier: task.VerifyNumeric, Template: "{Body} {Question}"}.ReadFile(data)
	require.NoError(t, err)
	train, held := gapg.HoldOut(prompts, 0.5, 7)
	test, validation := gapg.HoldOut(held, 0.125, 7)
	require.Len(t, append(append(train, test...), validation...), 101)
	require.Contains(t, ok(t, append(args, "--dry-run")...).out, fmt.Sprintf("%d test, %d validation, %d router prompts", len(test), len(validation), len(train)))

	// Train holds them out even where it does not evaluate.
	learn := []string{"train", "--model", dir, "--dataset", data, "--prompt-template", "{Body} {Question}", "--seed", "7", "--output-dir", t.TempDir() + "/x", "--threads", "1", "--max-completion-length", "8", "--dry-run"}
	require.Contains(t, ok(t, append(learn, "--eval-split", "0.5")...).out, fmt.Sprintf("# %d training prompts, 0 evaluation prompts", len(train)))
	require.Contains(t, ok(t, append(learn, "--eval-split", "0.5", "--eval-steps", "5")...).out, fmt.Sprintf("# %d training prompts, %d evaluation prompts", len(train), len(held)))
	require.Contains(t, ok(t, append(learn, "--eval-split", "0")...).out, "# 101 training prompts, 0 evaluation prompts")

	// Numbers of prompts are those that are left then.
	r := ok(t, append(learn, "--eval-split", "0.5", "--train-prompts", "10", "--eval-steps", "5", "--eval-prompts", "9")...)
	require.Contains(t, r.out, "# 10 training prompts, 9 evaluation prompts")
	require.Contains(t, ok(t, append(args, "--dry-run", "--test-prompts", "8", "--validation-prompts", "3")...).out, "# 8 test, 3 validation")

	out := filepath.Join(t.TempDir(), "eval")
	ok(t, append(args, "--output-dir", out)...)
	never := map[string]bool{}
	for _, p := range train {
		never[p.ID] = true
	}
	for _, line := range strings.Split(strings.TrimSpace(read(t, out, predictionsFile)), "\n") {
		var p struct{ ID string }
		require.NoError(t, json.Unmarshal([]byte(line), &p))
		require.NotEmpty(t, p.ID)
		require.False(t, never[p.ID], "a prompt that was trained on is measured")
	}
	for want, more := range map[string][]string{
		"--eval-split 1: must be at least 0 and below 1":                 {"--eval-split", "1"},
		"--eval-split 0.5: is a share of --dataset, which is not set":    {"--dataset", ""},
		"--eval-split and --train-dataset: the router learns from one":   {"--train-dataset", data},
		"--dataset " + data + ": too few prompts to hold out a share of": {"--eval-split", "1e-9"},
	} {
		r := run(t, append(args, more...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, r.stderr, want)
	}
}

// What the model reads: the template's text, with the help instruction in the
// system message; and what it reads under templates that know none.
func TestQuestionsAreWritten(t *testing.T) {
	var out struct{ Prompt string }
	ask := func(template string, more ...string) string {
		dir := englishModel(t, template)
		oneObject(t, ok(t, append([]string{"generate", "--task", "questions", "--model", dir, "--prompt", "1+1?", "--max-completion-length", "2", "--cloud", "none", "--json"}, more...)...).out, &out)
		return out.Prompt
	}
	instruction := task.VerifyNumeric.Instruction()
	require.Equal(t, "<|im_start|>system\n"+task.HelpInstruction+"<|im_end|>\n<|im_start|>user\n1+1?\n\n"+instruction+"<|im_end|>\n<|im_start|>assistant\n", ask(chatML))
	require.Equal(t, "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n", ask(chatML, "--instruction", "none", "--help-instruction", "none"))
	require.Equal(t, "<|im_start|>user\n"+task.HelpInstruction+"\n\n1+1?\n\nBox it.<|im_end|>\n<|im_start|>assistant\n",
		ask("{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"+chatML, "--instruction", "Box it."))
	require.Equal(t, task.HelpInstruction+"\n\n1+1?\n\n"+instruction+"\n", ask(""))
}
