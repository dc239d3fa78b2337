package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/chat"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

func isGGUF(path string) bool { return strings.HasSuffix(strings.ToLower(path), ".gguf") }

// Metadata keys of a GGUF file's tokenizer.
const (
	ggufTokenizer = "tokenizer.ggml."
	ggufTemplate  = "tokenizer.chat_template"
)

// openGGUF reads all of a GGUF file but its weights. Its tokenizer is brought
// into the files of a checkpoint directory and read from there, so that what is
// saved later has them.
func openGGUF(flag, path string) (*source, error) {
	g, err := checkpoint.OpenGGUF(path)
	if err != nil {
		return nil, input(err)
	}
	defer g.Close()
	s := &source{dir: path}
	if s.cfg, err = model.ConfigOfGGUF(g); err != nil {
		return nil, inputf("--%s %s: %w", flag, path, err)
	}
	tok, err := tokenizer.FromGGUF(tokenizerOfGGUF(g))
	if err != nil {
		return nil, inputf("--%s %s: %w", flag, path, err)
	}
	dir, err := os.MkdirTemp("", "updraft-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := tok.Save(filepath.Join(dir, tokenizer.File)); err != nil {
		return nil, err
	}
	if template, ok := g.String(ggufTemplate); ok {
		if err := checkpoint.WriteFile(filepath.Join(dir, chat.File), func(w io.Writer) error { _, err := io.WriteString(w, template); return err }); err != nil {
			return nil, err
		}
		if s.chat, err = chat.Load(dir); err != nil {
			return nil, inputf("--%s %s: %s: %w", flag, path, ggufTemplate, err)
		}
	}
	s.tok, err = tokenizer.Load(dir)
	return s, input(err)
}

// tokenizerOfGGUF collects a file's tokenizer.ggml values.
func tokenizerOfGGUF(g *checkpoint.GGUF) tokenizer.GGUF {
	var t tokenizer.GGUF
	t.Model, _ = g.String(ggufTokenizer + "model")
	t.Pre, _ = g.String(ggufTokenizer + "pre")
	t.Tokens, t.Merges = g.Strings(ggufTokenizer+"tokens"), g.Strings(ggufTokenizer+"merges")
	for _, n := range g.Ints(ggufTokenizer + "token_type") {
		t.Types = append(t.Types, int32(n))
	}
	id := func(key string) int32 {
		if n, ok := g.Int(ggufTokenizer + key); ok {
			return int32(n)
		}
		return -1
	}
	t.BOS, t.EOS, t.PAD = id("bos_token_id"), id("eos_token_id"), id("padding_token_id")
	flag := func(key string) *bool {
		if b, ok := g.Bool(ggufTokenizer + key); ok {
			return &b
		}
		return nil
	}
	t.AddBOS, t.AddEOS = flag("add_bos_token"), flag("add_eos_token")
	return t
}

// ggufValues is the metadata of a model's tokenizer, and of a chat template
// where that is not "".
func ggufValues(tok *tokenizer.Tokenizer, c model.Config, template string) ([]checkpoint.GGUFValue, error) {
	t, err := tok.GGUF()
	if err != nil {
		return nil, err
	}
	if t.EOS < 0 && len(c.EOSTokenID) > 0 {
		t.EOS = c.EOSTokenID[0]
	}
	vocab := c.VocabSize
	const unused = 5 // llama.cpp's type of tokens that fill the vocabulary up
	for id := len(t.Tokens); id < vocab; id++ {
		t.Tokens, t.Types = append(t.Tokens, fmt.Sprintf("[PAD%d]", id)), append(t.Types, unused)
	}
	out := []checkpoint.GGUFValue{
		{Key: ggufTokenizer + "model", Value: t.Model}, {Key: ggufTokenizer + "pre", Value: t.Pre}, {Key: ggufTokenizer + "tokens", Value: t.Tokens},
		{Key: ggufTokenizer + "token_type", Value: t.Types}, {Key: ggufTokenizer + "merges", Value: t.Merges},
	}
	for _, x := range []struct {
		key string
		id  int32
	}{{"bos_token_id", t.BOS}, {"eos_token_id", t.EOS}, {"padding_token_id", t.PAD}} {
		if x.id >= 0 {
			out = append(out, checkpoint.GGUFValue{Key: ggufTokenizer + x.key, Value: uint32(x.id)})
		}
	}
	for _, x := range []struct {
		key string
		on  *bool
	}{{"add_bos_token", t.AddBOS}, {"add_eos_token", t.AddEOS}} {
		if x.on != nil {
			out = append(out, checkpoint.GGUFValue{Key: ggufTokenizer + x.key, Value: *x.on})
		}
	}
	if template != "" {
		out = append(out, checkpoint.GGUFValue{Key: ggufTemplate, Value: template})
	}
	return out, nil
}
