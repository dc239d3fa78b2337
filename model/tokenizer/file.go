package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/updraft-ml/updraft/model/checkpoint"
)

// File names in a checkpoint directory.
const (
	File       = "tokenizer.json"
	ConfigFile = "tokenizer_config.json"
)

// jsonFile is tokenizer.json, as far as it is understood.
type jsonFile struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []jsonAdded     `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         jsonModel       `json:"model"`
}

type jsonAdded struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

type jsonModel struct {
	Type                    string            `json:"type"`
	Dropout                 *float64          `json:"dropout"`
	UnkToken                *string           `json:"unk_token"`
	ContinuingSubwordPrefix *string           `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string           `json:"end_of_word_suffix"`
	FuseUnk                 bool              `json:"fuse_unk"`
	ByteFallback            bool              `json:"byte_fallback"`
	IgnoreMerges            bool              `json:"ignore_merges"`
	Vocab                   map[string]int32  `json:"vocab"`
	Merges                  []json.RawMessage `json:"merges"`
}

// jsonConfig is tokenizer_config.json, as far as it is understood.
type jsonConfig struct {
	Class     string          `json:"tokenizer_class"`
	BOS       json.RawMessage `json:"bos_token"`
	EOS       json.RawMessage `json:"eos_token"`
	PAD       json.RawMessage `json:"pad_token"`
	CleanUp   bool            `json:"clean_up_tokenization_spaces"`
	MaxLength *int            `json:"model_max_length,omitempty"`
}

// Load reads a tokenizer.json, given its path or its directory's, and the
// special tokens from a tokenizer_config.json beside it, if there is one.
func Load(path string) (*Tokenizer, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, File)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	t, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	config := filepath.Join(filepath.Dir(path), ConfigFile)
	b, err = os.ReadFile(config)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	var c jsonConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("%s: not valid JSON: %w", config, err)
	}
	if err := t.SetSpecial(tokenName(c.BOS), tokenName(c.EOS), tokenName(c.PAD)); err != nil {
		return nil, fmt.Errorf("%s: %w", config, err)
	}
	return t, nil
}

// tokenName reads a token given as a string or as an object with content.
func tokenName(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var o struct {
		Content string `json:"content"`
	}
	if json.Unmarshal(raw, &o) == nil {
		return o.Content
	}
	return ""
}

// kind returns the type of an optional component, "" where it is null.
func kind(raw json.RawMessage) string {
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var o struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &o) != nil || o.Type == "" {
		return "of unknown type"
	}
	return o.Type
}

func parse(b []byte) (*Tokenizer, error) {
	var f jsonFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("tokenizer: not valid JSON: %w", err)
	}
	m := &f.Model
	refuse := func(what string) (*Tokenizer, error) {
		return nil, fmt.Errorf("tokenizer: %s is not supported: Updraft reads character vocabularies (BPE without merges) and added tokens", what)
	}
	switch {
	case m.Type != "BPE":
		return refuse(fmt.Sprintf("model type %q", m.Type))
	case len(m.Merges) > 0:
		return refuse(fmt.Sprintf("BPE with %d merges", len(m.Merges)))
	case m.ByteFallback:
		return refuse("byte_fallback")
	case m.UnkToken != nil:
		return refuse("unk_token")
	case m.Dropout != nil && *m.Dropout != 0:
		return refuse("dropout")
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return refuse("continuing_subword_prefix")
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return refuse("end_of_word_suffix")
	case len(m.Vocab)+len(f.AddedTokens) == 0:
		return nil, errors.New("tokenizer: the vocabulary is empty")
	}
	for _, c := range []struct {
		name string
		raw  json.RawMessage
	}{{"normalizer", f.Normalizer}, {"pre_tokenizer", f.PreTokenizer}, {"post_processor", f.PostProcessor}} {
		if k := kind(c.raw); k != "" {
			return refuse(c.name + " " + k)
		}
	}
	if k := kind(f.Decoder); k != "" && k != "Fuse" {
		return refuse("decoder " + k)
	}
	added := make([]addedToken, len(f.AddedTokens))
	for i, a := range f.AddedTokens {
		if a.SingleWord || a.LStrip || a.RStrip {
			return refuse(fmt.Sprintf("added token %q with single_word, lstrip or rstrip", a.Content))
		}
		added[i] = addedToken{a.ID, a.Content, a.Special}
	}
	return build(m.Vocab, added)
}

// Save writes the tokenizer.json at path, atomically, and where there are
// special tokens a tokenizer_config.json beside it.
func (t *Tokenizer) Save(path string) error {
	f := jsonFile{
		Version: "1.0", AddedTokens: []jsonAdded{}, Decoder: json.RawMessage(`{"type":"Fuse"}`),
		Model: jsonModel{Type: "BPE", Vocab: make(map[string]int32), Merges: []json.RawMessage{}},
	}
	for r, id := range t.chars {
		f.Model.Vocab[string(r)] = id
	}
	for _, a := range t.added {
		f.AddedTokens = append(f.AddedTokens, jsonAdded{ID: a.id, Content: a.content, Special: a.special})
	}
	if err := writeJSON(path, f); err != nil {
		return err
	}
	if t.special == (Special{-1, -1, -1}) {
		return nil
	}
	name := func(id int32) json.RawMessage {
		s, ok := t.Token(id)
		if !ok {
			return json.RawMessage("null")
		}
		b, _ := json.Marshal(s) // a string always marshals
		return b
	}
	return writeJSON(filepath.Join(filepath.Dir(path), ConfigFile), jsonConfig{
		Class: "PreTrainedTokenizerFast", BOS: name(t.special.BOS), EOS: name(t.special.EOS), PAD: name(t.special.PAD),
	})
}

func writeJSON(path string, v any) error {
	return checkpoint.WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	})
}
