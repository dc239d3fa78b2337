package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

const chatMLTemplate = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

// chatModel writes a random model with a byte-level vocabulary and a chat
// template, as a run's final checkpoint.
func chatModel(t *testing.T, run string) string {
	t.Helper()
	tok, err := tokenizer.Load(filepath.Join("..", "..", "..", "model", "tokenizer", "testdata", "smollm2.json"))
	require.NoError(t, err)
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	m, err := model.New(be, model.Config{ModelType: "llama", HiddenAct: "silu", HiddenSize: 32, IntermediateSize: 32, NumHiddenLayers: 1, NumAttentionHeads: 2,
		NumKeyValueHeads: 1, HeadDim: 16, VocabSize: tok.Size(), MaxPositionEmbeddings: 512, TieWordEmbeddings: true, RMSNormEps: 1e-5, RopeTheta: 10000,
		InitializerRange: 0.4, EOSTokenID: model.TokenIDs{2}}, 5, model.Options{})
	require.NoError(t, err)
	defer m.Close()
	dir := filepath.Join(run, "final")
	require.NoError(t, saveModel(t.Context(), m, tok, dir))
	config, err := json.Marshal(map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chatMLTemplate, "model_max_length": 512})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, tokenizer.ConfigFile), config, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, model.GenerationFile), []byte(`{"max_length": 512}`), 0o644))
	return dir
}

// Each format reads back as the same model, prompt and all, and an export of an
// export is the export.
func TestExport(t *testing.T) {
	root := t.TempDir()
	from := chatModel(t, filepath.Join(root, "run"))
	generated := func(dir string) string {
		return ok(t, "generate", "--model", dir, "--task", "parity", "--prompt", "two and two", "--cloud", "none", "--max-completion-length", "12", "--threads", "1", "--json").out
	}
	want := generated(from)
	weights := read(t, from, "model.safetensors")
	out := func(name string) string { return filepath.Join(root, name) }

	var e exported
	oneObject(t, ok(t, "export", "--model", from, "--output", out("st"), "--json").out, &e)
	require.Equal(t, []string{"Modelfile", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "updraft.json"}, e.Files)
	require.Equal(t, "F32", e.DType)
	require.Contains(t, e.Note, "need Updraft")
	require.Equal(t, weights, read(t, out("st"), "model.safetensors"))
	require.Equal(t, want, generated(out("st")))
	require.NotContains(t, read(t, out("st"), "tokenizer_config.json"), "chat_template", "one place for the template")
	require.Equal(t, `{"max_length": 512}`, read(t, out("st"), "generation_config.json"))

	ok(t, "export", "--model", out("st"), "--output", out("m.gguf"))
	require.Equal(t, want, generated(out("m.gguf")))
	require.FileExists(t, out("m.updraft.json"))
	require.Contains(t, read(t, root, "m.Modelfile"), "FROM ./m.gguf\n")
	ok(t, "export", "--model", out("m.gguf"), "--output", out("back"), "--format", "safetensors")
	require.Equal(t, weights, read(t, out("back"), "model.safetensors"))
	require.Equal(t, want, generated(out("back")))
	ok(t, "export", "--model", from, "--output", out("st"), "--max-shard-size", "20KB") // takes the earlier one's place
	require.NoFileExists(t, filepath.Join(out("st"), "model.safetensors"))
	require.Equal(t, want, generated(out("st")))
	for _, dtype := range []string{"bfloat16", "float16"} {
		r := ok(t, "export", "--model", from, "--output", out(dtype), "--dtype", dtype)
		require.Contains(t, r.out, exportNote)
		var keys map[string]any
		require.NoError(t, json.Unmarshal([]byte(read(t, out(dtype), "config.json")), &keys))
		require.Equal(t, dtype, keys["torch_dtype"])
		generated(out(dtype))
		// auto keeps the type: nothing is lost on the way through GGUF either.
		ok(t, "export", "--model", out(dtype), "--output", out(dtype+".gguf"))
		ok(t, "export", "--model", out(dtype+".gguf"), "--output", out(dtype+"-back"), "--dtype", dtype)
		require.Equal(t, read(t, out(dtype), "model.safetensors"), read(t, out(dtype+"-back"), "model.safetensors"))
	}
	oneObject(t, ok(t, "export", "--model", from, "--output", out("q"), "--quantize", "q8_0", "--json").out, &e)
	require.Equal(t, []string{"Modelfile", "model.gguf", "updraft.json"}, e.Files)
	require.Equal(t, "Q8_0", e.DType)
	generated(filepath.Join(out("q"), "model.gguf"))
}

// An adapter is exported as the model that it makes of its base.
func TestExportedAdapter(t *testing.T) {
	from, dir := tinyModel(t), t.TempDir()
	ok(t, small(from, filepath.Join(dir, "run"), "--save-steps", "2", "--use-peft")...)
	require.True(t, model.IsAdapter(filepath.Join(dir, "run", "checkpoint-4")))
	ok(t, "export", "--model", filepath.Join(dir, "run"), "--output", filepath.Join(dir, "out"))
	generated := func(dir string) string {
		return ok(t, "generate", "--model", dir, "--task", "parity", "--prompt", "1+1=", "--cloud", "none", "--max-completion-length", "12", "--threads", "1", "--json").out
	}
	require.Equal(t, generated(filepath.Join(dir, "run")), generated(filepath.Join(dir, "out")))
	require.NotEqual(t, read(t, from, "model.safetensors"), read(t, filepath.Join(dir, "out"), "model.safetensors"))
}

// A run's help instruction is the default system message of what is exported of
// it, until a flag says otherwise.
func TestExportedPrompt(t *testing.T) {
	root := t.TempDir()
	run := filepath.Join(root, "run")
	from := chatModel(t, run)
	require.NoError(t, os.WriteFile(filepath.Join(run, configFile), []byte("task: questions\nhelp-instruction: default\nmax-completion-length: 99\n"), 0o644))
	out := filepath.Join(root, "out")
	check := func(from, prompt string, more ...string) {
		t.Helper()
		ok(t, append([]string{"export", "--model", from, "--output", out}, more...)...)
		var n note
		require.NoError(t, json.Unmarshal([]byte(read(t, out, noteFile)), &n))
		require.Equal(t, prompt, n.SystemPrompt)
		require.Equal(t, gapg.Marker, n.Marker)
		require.Equal(t, 99, n.Decoding.MaxLength)
		c, err := chat.Load(out)
		require.NoError(t, err)
		text, err := c.Render(chat.Conversation{Messages: []chat.Message{{Role: "user", Content: "hi"}}, AddGenerationPrompt: true})
		require.NoError(t, err)
		want := "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
		if prompt != "" {
			want = "<|im_start|>system\n" + prompt + "<|im_end|>\n" + want
			require.Contains(t, read(t, out, modelfile), "SYSTEM \"\"\""+prompt+"\"\"\"\n")
		}
		require.Equal(t, want, text)
	}
	check(from, task.HelpInstruction)
	check(from, "Be brief.", "--system-prompt", "Be brief.", "--help-bias", "-0.5", "--temperature", "0.7")
	require.NoError(t, os.Rename(out, filepath.Join(root, "first")))
	check(filepath.Join(root, "first"), "Be brief.")
	var n note
	require.NoError(t, json.Unmarshal([]byte(read(t, out, noteFile)), &n))
	require.Equal(t, -0.5, n.HelpBias)
	require.Equal(t, 0.7, n.Decoding.Temperature)
	check(filepath.Join(root, "first"), "", "--system-prompt", "none")
}

// Ollama's templates write what the families' own do.
func TestOllamaTemplates(t *testing.T) {
	type message struct{ Role, Content string }
	for ollama, own := range map[string]string{
		ollamaChatML: chatMLTemplate,
		ollamaLlama3: "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
	} {
		file, err := ollamaModelfile("m.gguf", own, note{})
		require.NoError(t, err)
		require.Contains(t, file, ollama)
		c, err := chat.Parse(own, nil)
		require.NoError(t, err)
		want, err := c.Render(chat.Conversation{Messages: []chat.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "u\n"}, {Role: "assistant", Content: "a"}, {Role: "user", Content: "v"}}, AddGenerationPrompt: true})
		require.NoError(t, err)
		var b strings.Builder
		require.NoError(t, template.Must(template.New("").Parse(ollama)).Execute(&b, map[string]any{"Messages": []message{{"system", "s"}, {"user", "u\n"}, {"assistant", "a"}, {"user", "v"}}}))
		require.Equal(t, want, b.String())
	}
}

func TestExportRefusals(t *testing.T) {
	plain := tinyModel(t)
	root := t.TempDir()
	busy := filepath.Join(root, "busy")
	require.NoError(t, os.MkdirAll(busy, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(busy, "thesis.tex"), nil, 0o644))
	fresh := filepath.Join(root, "new")
	refused := func(want string, args ...string) {
		t.Helper()
		r := run(t, append([]string{"export"}, args...)...)
		require.Equal(t, exitInput, r.code, r.stderr)
		require.Contains(t, lastLine(r.stderr), want)
		require.NoDirExists(t, fresh)
	}
	refused("--output is not set", "--model", plain)
	refused("--model is not set", "--output", fresh)
	refused("holds other files", "--model", plain, "--output", busy)
	refused("is GGUF's", "--model", plain, "--output", fresh, "--format", "safetensors", "--quantize", "q8_0")
	refused("written into a directory", "--model", plain, "--output", fresh+".gguf", "--format", "safetensors")
	refused("give one of the two", "--model", plain, "--output", fresh, "--quantize", "q8_0", "--dtype", "float16")
	refused("no chat template to carry it in", "--model", plain, "--output", fresh, "--system-prompt", "x")
	refused("not a size", "--model", plain, "--output", fresh, "--max-shard-size", "big")
	refused("must be finite", "--model", plain, "--output", fresh, "--help-bias", "-inf")
	require.FileExists(t, filepath.Join(busy, "thesis.tex"))
	for text, want := range map[string]int64{"5GB": 5e9, "500 mb": 5e8, "1GiB": 1 << 30, "12": 12, "0.5KiB": 512} {
		n, err := parseBytes(text)
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
}
