package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// modelHelp says what --model takes.
const modelHelp = "checkpoint directory, .gguf file, run of sft or train, or org/name[@revision] on the Hugging Face Hub"

// modelDir resolves --model: a checkpoint directory, a GGUF file, a run directory,
// whose newest checkpoint is meant, or a model of the Hub.
func (a *app) modelDir(ctx context.Context, flag, dir string) (string, error) {
	if dir == "" {
		return "", inputf("--%s is not set; name a checkpoint directory (config.json, model.safetensors, tokenizer.json), a .gguf file or a model of the Hub (org/name)", flag)
	}
	if st, err := os.Stat(dir); err != nil {
		if n, ok := hubName(dir); ok && errors.Is(err, fs.ErrNotExist) {
			return a.fetch(ctx, flag, n)
		}
		return "", missing(flag, dir, err)
	} else if !st.IsDir() {
		if isGGUF(dir) {
			return dir, nil
		}
		return "", inputf("--%s %s: is a file; name a .gguf file, or the directory that holds config.json and model.safetensors", flag, dir)
	}
	if _, err := os.Stat(filepath.Join(dir, model.ConfigFile)); err == nil || model.IsAdapter(dir) {
		return dir, nil
	}
	newest, err := gapg.NewestCheckpoint(dir)
	if err != nil {
		return "", inputf("--%s %s: holds neither %s nor a checkpoint-N directory; name a checkpoint or a run", flag, dir, model.ConfigFile)
	}
	return newest, nil
}

// source is a checkpoint directory or a GGUF file with its configuration,
// vocabulary and chat template read, and no weights yet.
type source struct {
	dir  string // or the GGUF file
	cfg  model.Config
	tok  *tokenizer.Tokenizer
	chat *chat.Template // nil where there is none
}

func (a *app) openSource(ctx context.Context, flag, dir string) (*source, error) {
	dir, err := a.modelDir(ctx, flag, dir)
	if err != nil {
		return nil, err
	}
	if isGGUF(dir) {
		return openGGUF(flag, dir)
	}
	s := &source{dir: dir}
	if s.cfg, err = model.ConfigAt(dir); err != nil {
		return nil, input(err)
	}
	if s.tok, err = tokenizer.Load(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, inputf("--%s %s: no %s; copy it beside the weights", flag, dir, tokenizer.File)
		}
		return nil, input(err)
	}
	if s.tok.Size() > s.cfg.VocabSize {
		return nil, inputf("--%s %s: the tokenizer has %d tokens and the model's vocab_size is %d; they do not belong together", flag, dir, s.tok.Size(), s.cfg.VocabSize)
	}
	if s.chat, err = chat.Load(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, inputf("%w; correct the template, or remove it to train and ask without one", err)
	}
	return s, nil
}

func (s *source) load(ctx context.Context, be engine.Backend, o model.Options) (*model.Model, error) {
	from := model.Load
	if isGGUF(s.dir) {
		from = model.LoadGGUF
	}
	m, err := from(ctx, be, s.dir, o)
	return m, input(err)
}

// rows returns the packed rows of a forward: enough for one sequence, and no
// more than the whole batch needs.
func rows(micro, context, whole int) int { return max(context, min(micro, whole)) }

// planLines shows a memory plan.
func planLines(p model.Plan) []string {
	items := append(slices.Clone(p.Items), model.PlanItem{Name: "total", Bytes: p.Bytes()})
	width := 0
	for _, it := range items {
		width = max(width, len(it.Name))
	}
	var out []string
	for _, it := range items {
		out = append(out, fmt.Sprintf("%-*s  %s", width, it.Name, bytesText(it.Bytes)))
	}
	return out
}

func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
}
