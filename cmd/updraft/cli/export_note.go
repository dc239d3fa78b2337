package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// Files that go with an exported model.
const (
	noteFile   = "updraft.json"
	modelfile  = "Modelfile"
	noteFormat = 1
)

// note is updraft.json: what a program must know to use the model's decision.
type note struct {
	Format       int      `json:"format"`
	Marker       string   `json:"marker"` // ends a response that asks for help
	SystemPrompt string   `json:"system_prompt"`
	HelpBias     float64  `json:"help_bias"` // added to the log-odds of asking, in nats
	EndTokens    []string `json:"end_tokens"`
	Decoding     decoding `json:"decoding"`
}

type decoding struct {
	Temperature float64 `json:"temperature"`
	TopP        float64 `json:"top_p"`
	TopK        int     `json:"top_k"`
	MinP        float64 `json:"min_p"`
	MaxLength   int     `json:"max_completion_length,omitempty"`
}

// readNote returns what is known of a model's use: the updraft.json of an earlier
// export, or the configuration of the run that it belongs to.
func readNote(dir, given string) (note, error) {
	n := note{Decoding: decoding{TopP: 1}}
	path := filepath.Join(dir, noteFile)
	if isGGUF(dir) {
		path = strings.TrimSuffix(dir, filepath.Ext(dir)) + "." + noteFile
	}
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &n); err != nil || n.Format != noteFormat {
			return n, inputf("%s: not an updraft.json of this version; remove it, or export the model again", path)
		}
		return n, nil
	case !errors.Is(err, fs.ErrNotExist):
		return n, input(err)
	}
	// The run itself, or its directory checkpoint-N or final.
	for _, run := range []string{given, filepath.Dir(filepath.Clean(dir))} {
		config := filepath.Join(run, configFile)
		if st, err := os.Stat(config); err != nil || st.IsDir() {
			continue
		}
		entries, err := parseConfig(config)
		if err != nil {
			return n, err
		}
		return n, n.fromRun(config, entries)
	}
	return n, nil
}

// fromRun reads a run's configuration.
func (n *note) fromRun(path string, entries []configEntry) error {
	value := map[string]string{}
	for _, e := range entries {
		value[e.key] = strings.Join(e.values, ",")
	}
	if value["task"] == questions().Name {
		n.SystemPrompt = textOr(value["help-instruction"], task.HelpInstruction)
	}
	for _, key := range []string{"eval-max-completion-length", "max-completion-length"} {
		if value[key] == "" {
			continue
		}
		length, err := strconv.Atoi(value[key])
		if err != nil {
			return inputf("%s: %s %q: not a whole number", path, key, value[key])
		}
		if length > 0 {
			n.Decoding.MaxLength = length
			return nil
		}
	}
	return nil
}

func (n *note) write(path string) error {
	if math.IsInf(n.HelpBias, 0) {
		return inputf("--help-bias: must be finite to be noted")
	}
	return checkpoint.WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(n)
	})
}

func writeText(path, text string) error {
	return checkpoint.WriteFile(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
}

// setTemplate makes text the chat template of a directory, and the only one: a
// template in tokenizer_config.json gives way to it.
func setTemplate(dir, text string) error {
	if text == "" {
		return nil
	}
	if err := writeText(filepath.Join(dir, chat.File), text); err != nil {
		return err
	}
	path := filepath.Join(dir, tokenizer.ConfigFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, ok := keys["chat_template"]; !ok {
		return nil
	}
	delete(keys, "chat_template")
	if b, err = json.MarshalIndent(keys, "", "  "); err != nil {
		return err
	}
	return writeText(path, string(b)+"\n")
}

// Ollama's templates of the formats that the families use, in Go's own language.
const (
	ollamaChatML = `{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
`
	ollamaLlama3 = `{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>

{{ .Content }}<|eot_id|>{{ end }}<|start_header_id|>assistant<|end_header_id|>

`
)

// ollamaModelfile writes what "ollama create" reads. A chat template that it would
// not recognise stands in it as Go's.
func ollamaModelfile(weights, template string, n note) (string, error) {
	if strings.Contains(n.SystemPrompt, `"""`) {
		return "", inputf(`--system-prompt: """ cannot be written into an Ollama Modelfile`)
	}
	var b strings.Builder
	from := weights
	if from != "." {
		from = "./" + from
	}
	fmt.Fprintf(&b, "# ollama create NAME -f Modelfile\n# The model asks for help by ending in: %s\n# %s.\nFROM %s\n", n.Marker, exportNote, from)
	switch {
	case strings.Contains(template, "<|im_start|>"):
		fmt.Fprintf(&b, "TEMPLATE \"\"\"%s\"\"\"\n", ollamaChatML)
	case strings.Contains(template, "<|start_header_id|>"):
		fmt.Fprintf(&b, "TEMPLATE \"\"\"%s\"\"\"\n", ollamaLlama3)
	}
	if n.SystemPrompt != "" {
		fmt.Fprintf(&b, "SYSTEM \"\"\"%s\"\"\"\n", n.SystemPrompt)
	}
	for _, token := range n.EndTokens {
		fmt.Fprintf(&b, "PARAMETER stop %q\n", token)
	}
	d := n.Decoding
	fmt.Fprintf(&b, "PARAMETER temperature %g\nPARAMETER top_p %g\nPARAMETER min_p %g\nPARAMETER top_k %d\nPARAMETER repeat_penalty 1\n", d.Temperature, d.TopP, d.MinP, d.TopK)
	if d.MaxLength > 0 {
		fmt.Fprintf(&b, "PARAMETER num_predict %d\n", d.MaxLength)
	}
	return b.String(), nil
}

// parseBytes reads a size such as 5GB, 500MB or 1GiB.
func parseBytes(s string) (int64, error) {
	units := []struct {
		suffix string
		bytes  float64
	}{{"GIB", 1 << 30}, {"MIB", 1 << 20}, {"KIB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1}, {"", 1}}
	text := strings.ToUpper(strings.TrimSpace(s))
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		x, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !(x*u.bytes >= 1) || x*u.bytes > 1<<50 {
			break
		}
		return int64(x * u.bytes), nil
	}
	return 0, errors.New("not a size such as 5GB or 500MB")
}
