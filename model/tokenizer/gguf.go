package tokenizer

import (
	"fmt"
	"slices"
	"strings"
)

// GGUF is what a GGUF file says of its tokenizer, under tokenizer.ggml: the
// keys model, pre, tokens, token_type, merges, bos_token_id, eos_token_id,
// padding_token_id, add_bos_token and add_eos_token.
type GGUF struct {
	Model  string   // "gpt2" for byte-level BPE
	Pre    string   // names the split pattern
	Tokens []string // by id
	Types  []int32  // by id, or empty: all ordinary
	Merges []string // "a b", by rank
	BOS    int32    // -1 where the key is absent
	EOS    int32
	PAD    int32
	AddBOS *bool // nil where the key is absent
	AddEOS *bool
}

// The types of tokens that GGUF files have.
const (
	ggufNormal  = 1
	ggufControl = 3
	ggufUser    = 4
	ggufUnused  = 5
)

// preset is a pre-tokenizer that GGUF files name.
type preset struct {
	names        []string // the first is the one that is written
	steps        []splitStep
	nfc          bool
	ignoreMerges bool
	addBOS       bool // where the file does not say
}

// presets are the pre-tokenizers by the names of llama.cpp. It does not bring
// Qwen's text to NFC; Hugging Face's library does, and so does Updraft.
func presets() []preset {
	return []preset{
		{names: []string{"gpt-2", "gpt2"}, steps: []splitStep{{pattern: gpt2Pattern}}},
		{names: []string{"smollm"}, steps: []splitStep{{digits: singleDigits}, {pattern: gpt2Pattern}}},
		{names: []string{"llama-bpe", "llama3", "llama-v3"}, steps: []splitStep{{pattern: llama3Pattern}}, ignoreMerges: true, addBOS: true},
		{names: []string{"qwen2", "deepseek-r1-qwen"}, steps: []splitStep{{pattern: qwenPattern}}, nfc: true},
	}
}

// FromGGUF returns the tokenizer that a GGUF file's metadata describes.
func FromGGUF(g GGUF) (*Tokenizer, error) {
	if g.Model != "gpt2" {
		return nil, fmt.Errorf("tokenizer: tokenizer.ggml.model: %q is not supported; Updraft reads byte-level BPE, \"gpt2\"", clip(g.Model))
	}
	var p *preset
	var known []string
	for _, q := range presets() {
		known = append(known, q.names...)
		if slices.Contains(q.names, g.Pre) {
			p = &q
		}
	}
	if p == nil {
		return nil, fmt.Errorf("tokenizer: tokenizer.ggml.pre: %q is not supported; Updraft knows %s", clip(g.Pre), strings.Join(known, ", "))
	}
	if len(g.Types) != 0 && len(g.Types) != len(g.Tokens) {
		return nil, fmt.Errorf("tokenizer: tokenizer.ggml.token_type: %d types for %d tokens; the file is damaged, fetch it again", len(g.Types), len(g.Tokens))
	}
	vocab := make(map[string]int32, len(g.Tokens))
	var added []addedToken
	for id, token := range g.Tokens {
		kind := int32(ggufNormal)
		if len(g.Types) != 0 {
			kind = g.Types[id]
		}
		if kind == ggufControl || kind == ggufUser {
			added = append(added, addedToken{id: int32(id), content: token, special: kind == ggufControl})
		}
		if old, twice := vocab[token]; twice {
			return nil, fmt.Errorf("tokenizer: tokenizer.ggml.tokens: %q is there twice, with the ids %d and %d; the file is damaged, fetch it again", clip(token), old, id)
		}
		vocab[token] = int32(id)
	}
	t, err := build(vocab, added)
	if err != nil {
		return nil, err
	}
	merges := make([][2]string, len(g.Merges))
	for i, m := range g.Merges {
		a, b, ok := strings.Cut(m, " ")
		if !ok || strings.Contains(b, " ") {
			return nil, fmt.Errorf("tokenizer: tokenizer.ggml.merges[%d]: %q is not two tokens with a space between", i, clip(m))
		}
		merges[i] = [2]string{a, b}
	}
	t.nfc = p.nfc
	if err := t.setBPE(vocab, merges, p.steps, p.ignoreMerges); err != nil {
		return nil, err
	}
	if err := t.setGGUFSpecial(g, p.addBOS); err != nil {
		return nil, err
	}
	return t, nil
}

// setGGUFSpecial sets the special tokens, which need not be added tokens.
func (t *Tokenizer) setGGUFSpecial(g GGUF, addBOS bool) error {
	t.special = Special{g.BOS, g.EOS, g.PAD}
	for _, x := range []struct {
		key string
		id  int32
	}{{"bos_token_id", g.BOS}, {"eos_token_id", g.EOS}, {"padding_token_id", g.PAD}} {
		if _, ok := t.Token(x.id); !ok && x.id != -1 {
			return fmt.Errorf("tokenizer: tokenizer.ggml.%s: there is no token %d; the vocabulary has %d", x.key, x.id, len(t.tokens))
		}
	}
	if g.AddBOS != nil {
		addBOS = *g.AddBOS
	}
	if addBOS && g.BOS >= 0 {
		t.before = []int32{g.BOS}
	}
	if g.AddEOS != nil && *g.AddEOS && g.EOS >= 0 {
		t.after = []int32{g.EOS}
	}
	return nil
}

// GGUF returns the metadata that describes t. A tokenizer that GGUF has no
// words for, such as a character vocabulary, is an error.
func (t *Tokenizer) GGUF() (GGUF, error) {
	g := GGUF{Model: "gpt2", BOS: t.special.BOS, EOS: t.special.EOS, PAD: t.special.PAD}
	if t.bpe == nil {
		return g, fmt.Errorf("tokenizer: a character vocabulary cannot be written to GGUF; export safetensors")
	}
	for _, p := range presets() {
		if slices.Equal(p.steps, t.bpe.steps) && p.nfc == t.nfc && p.ignoreMerges == (t.bpe.whole != nil) {
			g.Pre = p.names[0]
		}
	}
	if g.Pre == "" {
		return g, fmt.Errorf("tokenizer: GGUF has no name for this pre_tokenizer and normalizer; export safetensors")
	}
	g.Tokens, g.Types = slices.Clone(t.tokens), make([]int32, len(t.tokens))
	for id := range g.Types {
		g.Types[id] = ggufNormal
		if g.Tokens[id] == "" {
			g.Tokens[id], g.Types[id] = fmt.Sprintf("[PAD%d]", id), ggufUnused
		}
	}
	for _, a := range t.added {
		if g.Types[a.id] = ggufUser; a.special {
			g.Types[a.id] = ggufControl
		}
	}
	for _, p := range t.bpe.pairs() {
		a, b := p.ids()
		g.Merges = append(g.Merges, t.tokens[a]+" "+t.tokens[b])
	}
	bos := g.BOS >= 0 && slices.Equal(t.before, []int32{g.BOS})
	eos := g.EOS >= 0 && slices.Equal(t.after, []int32{g.EOS})
	if !bos && len(t.before) > 0 || !eos && len(t.after) > 0 {
		return g, fmt.Errorf("tokenizer: GGUF has no words for this post_processor; export safetensors")
	}
	g.AddBOS, g.AddEOS = &bos, &eos
	return g, nil
}
