package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// Values of --format and --quantize.
const (
	formatAuto        = "auto"
	formatSafetensors = "safetensors"
	formatGGUF        = "gguf"
	dtypeF16          = "float16"
	quantNone         = "none"
	quantQ8           = "q8_0"
)

// exportFlags are the settings of an export.
type exportFlags struct {
	model, output           string
	format, dtype, quantize string
	system                  string
	helpBias                float64
	temperature, topP, minP float64
	topK, maxLength         int
	shard                   string
}

func (f *exportFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.model, "model", "", modelHelp+" (alias --model-name-or-path)")
	fs.StringVar(&f.output, "output", "", "what to write: a new directory, or for GGUF a file that ends in .gguf")
	fs.Var(newChoice(&f.format, formatAuto, formatAuto, formatSafetensors, formatGGUF), "format", "safetensors (transformers, vLLM), gguf (llama.cpp, Ollama), or auto: gguf where --output ends in .gguf or --quantize is set")
	fs.Var(newChoice(&f.dtype, dtypeAuto, dtypeAuto, dtypeF32, dtypeBF16, dtypeF16), "dtype", "type of the weights: float32, bfloat16, float16, or auto: what config.json says that they are")
	fs.Var(newChoice(&f.quantize, quantNone, quantNone, quantQ8), "quantize", "GGUF: q8_0 stores matrices in 8 bits, in blocks of 32 with a scale")
	fs.StringVar(&f.shard, "max-shard-size", "5GB", "safetensors: split weights into files of at most this size, such as 500MB")
	fs.StringVar(&f.system, "system-prompt", "", "the chat template's default system message; default: the run's help instruction, if it has one; none: no message")
	fs.Float64Var(&f.helpBias, "help-bias", 0, "the bias to note in updraft.json, in nats")
	fs.Float64Var(&f.temperature, "temperature", 0, "sampling temperature to note; 0: the likeliest token, as in eval and generate")
	fs.Float64Var(&f.topP, "top-p", 1, "nucleus sampling to note; 1: off")
	fs.IntVar(&f.topK, "top-k", 0, "top-k to note; 0: off")
	fs.Float64Var(&f.minP, "min-p", 0, "min-p to note; 0: off")
	fs.IntVar(&f.maxLength, "max-completion-length", 0, "tokens of a response to note; 0: the run's, if it has them")
}

func (a *app) export() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a model for other programs: safetensors or GGUF",
		Long: `Export writes a model as transformers and vLLM read it (a directory with
safetensors weights) or as llama.cpp and Ollama do (a GGUF file). Tokenizer, chat
template, special tokens, generation settings and the keys of config.json that
Updraft does not know go with it.

The instruction to ask for help becomes the chat template's default system message:
conversations that bring a system message of their own keep theirs. Beside the
model lie updraft.json (the marker by which it asks, the prompt, the help bias, how
to decode) and a Modelfile for Ollama.

Other programs do not apply the help bias or a hard cloud budget: under them the
model asks as often as it has learnt to, by ending its response in the marker.`,
		Example: `  updraft export --model runs/gapg --output exported --dtype bfloat16
  updraft export --model runs/gapg --output gapg.gguf --quantize q8_0
  updraft export --model HuggingFaceTB/SmolLM2-135M-Instruct --output smol.gguf --dtype float16
  updraft export --model smol.gguf --output smol --format safetensors`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runExport(cmd, &f) },
	}
	f.register(cmd.Flags())
	return cmd
}

// exported is what updraft export --json prints.
type exported struct {
	Output       string   `json:"output"`
	Format       string   `json:"format"`
	DType        string   `json:"dtype"`
	Parameters   int64    `json:"parameters"`
	Files        []string `json:"files"`
	SystemPrompt string   `json:"system_prompt,omitempty"`
	Note         string   `json:"note"`
}

const exportNote = "a help bias and a hard cloud budget need Updraft: under other programs the model asks as often as it has learnt to"

// resolve checks the flags and settles what auto stands for.
func (f *exportFlags) resolve() error {
	toFile := isGGUF(f.output)
	if f.format == formatAuto {
		if f.format = formatSafetensors; toFile || f.quantize != quantNone {
			f.format = formatGGUF
		}
	}
	switch {
	case f.output == "":
		return inputf("--output is not set; name a new directory, or a file that ends in .gguf")
	case f.format == formatSafetensors && toFile:
		return inputf("--output %s: safetensors are written into a directory; name one, or set --format gguf", f.output)
	case f.format == formatSafetensors && f.quantize != quantNone:
		return inputf("--quantize %s: is GGUF's; set --format gguf", f.quantize)
	case f.quantize != quantNone && f.dtype != dtypeAuto:
		return inputf("--quantize %s and --dtype %s: give one of the two", f.quantize, f.dtype)
	case !(f.temperature >= 0) || !(f.topP > 0 && f.topP <= 1) || f.topK < 0 || !(f.minP >= 0 && f.minP < 1) || f.maxLength < 0:
		return inputf("--temperature, --top-k and --max-completion-length must not be negative, --top-p must be in (0, 1], --min-p in [0, 1)")
	case f.helpBias != f.helpBias:
		return inputf("--help-bias: not a number")
	}
	if toFile {
		if st, err := os.Stat(f.output); err == nil && st.IsDir() {
			return inputf("--output %s: is a directory; name a file", f.output)
		}
		return nil
	}
	// A directory is replaced as a whole: it must be new, empty or an export.
	entries, err := os.ReadDir(f.output)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return inputf("--output %s: cannot write there (%w); name a new directory", f.output, cause(err))
	}
	for _, e := range entries {
		if e.Name() == noteFile {
			return nil
		}
	}
	if len(entries) > 0 {
		return inputf("--output %s: holds other files; name a new directory, or an earlier export to replace", f.output)
	}
	return nil
}

// weightType returns what is asked for, in the terms of package checkpoint.
func (f *exportFlags) weightType(cfg model.Config) string {
	if f.quantize == quantQ8 {
		return "Q8_0"
	}
	if f.dtype == dtypeAuto {
		if f.dtype = cfg.DType; f.dtype != dtypeBF16 && f.dtype != dtypeF16 {
			f.dtype = dtypeF32
		}
	}
	return map[string]string{dtypeF32: "F32", dtypeBF16: "BF16", dtypeF16: "F16"}[f.dtype]
}

func (a *app) runExport(cmd *cobra.Command, f *exportFlags) error {
	ctx := cmd.Context()
	if err := f.resolve(); err != nil {
		return err
	}
	shard, err := parseBytes(f.shard)
	if err != nil {
		return inputf("--max-shard-size %q: %w", f.shard, err)
	}
	src, err := a.openSource(ctx, "model", f.model)
	if err != nil {
		return err
	}
	n, err := f.note(cmd, src)
	if err != nil {
		return err
	}
	template := ""
	if src.chat != nil {
		template = chat.WithSystem(src.chat.Source(), n.SystemPrompt)
	} else if n.SystemPrompt != "" {
		return inputf("--system-prompt: %s has no chat template to carry it in; set --system-prompt none", src.dir)
	}
	c, done, err := openWritable(ctx, src)
	if err != nil {
		return input(err)
	}
	defer done()
	e := exported{Output: f.output, Format: f.format, DType: f.weightType(src.cfg), Parameters: src.cfg.NumParameters(), SystemPrompt: n.SystemPrompt, Note: exportNote}
	x := &exporter{f: f, src: src, c: c, note: n, template: template, dtype: e.DType, shard: shard}
	if isGGUF(f.output) {
		err = x.file(ctx, f.output)
		for _, suffix := range []string{".gguf", "." + noteFile, "." + modelfile} {
			e.Files = append(e.Files, strings.TrimSuffix(filepath.Base(f.output), filepath.Ext(f.output))+suffix)
		}
	} else if err = checkpoint.WriteDir(f.output, func(tmp string) error { return x.directory(ctx, tmp) }); err == nil {
		entries, _ := os.ReadDir(f.output) // it was written a moment ago
		for _, entry := range entries {
			e.Files = append(e.Files, entry.Name())
		}
	}
	if err != nil {
		return input(err)
	}
	if a.json {
		return printJSON(cmd.OutOrStdout(), e)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %s, %d parameters\nfiles: %s\n%s\n", e.Output, e.Format, e.DType, e.Parameters, strings.Join(e.Files, ", "), e.Note)
	return err
}

// savable is a model on the disk, or one in memory.
type savable interface {
	SaveAs(ctx context.Context, dir string, o model.SaveOptions) error
	SaveGGUF(ctx context.Context, path, dtype string, extra []checkpoint.GGUFValue) error
}

// openWritable opens a model to be written. An adapter is merged into its base
// model, which takes a device; the rest is copied tensor by tensor.
func openWritable(ctx context.Context, src *source) (w savable, done func(), err error) {
	if !model.IsAdapter(src.dir) {
		c, err := model.OpenCheckpoint(src.dir)
		if err != nil {
			return nil, nil, err
		}
		return c, func() { c.Close() }, nil
	}
	be, err := cpu.New(cpu.Options{})
	if err != nil {
		return nil, nil, err
	}
	m, err := src.load(ctx, be, model.Options{})
	if err != nil {
		be.Close()
		return nil, nil, err
	}
	return m, func() { m.Close(); be.Close() }, nil
}

// exporter writes the files.
type exporter struct {
	f        *exportFlags
	src      *source
	c        savable
	note     note
	template string
	dtype    string
	shard    int64
}

// directory writes an export into an empty directory.
func (x *exporter) directory(ctx context.Context, dir string) error {
	weights := "."
	if x.f.format == formatGGUF {
		weights = "model.gguf"
		if err := x.gguf(ctx, filepath.Join(dir, weights)); err != nil {
			return err
		}
	} else {
		if err := x.c.SaveAs(ctx, dir, model.SaveOptions{DType: x.dtype, MaxShardBytes: x.shard}); err != nil {
			return err
		}
		if err := x.src.tok.Save(filepath.Join(dir, tokenizer.File)); err != nil {
			return err
		}
		if err := setTemplate(dir, x.template); err != nil {
			return err
		}
	}
	return x.beside(dir, "", weights)
}

// file writes a GGUF file, and what goes with it beside it under its name.
func (x *exporter) file(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := x.gguf(ctx, path); err != nil {
		return err
	}
	return x.beside(filepath.Dir(path), strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))+".", filepath.Base(path))
}

func (x *exporter) gguf(ctx context.Context, path string) error {
	values, err := ggufValues(x.src.tok, x.src.cfg, x.template)
	if err != nil {
		return err
	}
	return x.c.SaveGGUF(ctx, path, x.dtype, values)
}

// beside writes updraft.json and the Modelfile.
func (x *exporter) beside(dir, prefix, weights string) error {
	if err := x.note.write(filepath.Join(dir, prefix+noteFile)); err != nil {
		return err
	}
	text, err := ollamaModelfile(weights, x.template, x.note)
	if err != nil {
		return err
	}
	return writeText(filepath.Join(dir, prefix+modelfile), text)
}

// note collects what updraft.json says: what an earlier export or the run noted,
// and the flags.
func (f *exportFlags) note(cmd *cobra.Command, src *source) (note, error) {
	n, err := readNote(src.dir, f.model)
	if err != nil {
		return n, err
	}
	n.Format, n.Marker = noteFormat, gapg.Marker
	set := cmd.Flags().Changed
	if set("system-prompt") {
		if n.SystemPrompt = f.system; f.system == "none" {
			n.SystemPrompt = ""
		}
	}
	if set("help-bias") {
		n.HelpBias = f.helpBias
	}
	d := &n.Decoding
	if set("temperature") {
		d.Temperature = f.temperature
	}
	if set("top-p") {
		d.TopP = f.topP
	}
	if set("top-k") {
		d.TopK = f.topK
	}
	if set("min-p") {
		d.MinP = f.minP
	}
	if set("max-completion-length") {
		d.MaxLength = f.maxLength
	}
	n.EndTokens = nil
	ids := append([]int32{src.tok.Special().EOS}, src.cfg.EOSTokenID...)
	seen := map[string]bool{}
	for _, id := range ids {
		if token, ok := src.tok.Token(id); ok && !seen[token] {
			seen[token] = true
			n.EndTokens = append(n.EndTokens, token)
		}
	}
	return n, nil
}
