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
	"strings"

	"github.com/updraft-ml/updraft/model/checkpoint"
)

// File names in a checkpoint directory.
const (
	File       = "tokenizer.json"
	ConfigFile = "tokenizer_config.json"
	// TemplateFile is carried from Load to Save; package model/chat reads it.
	TemplateFile = "chat_template.jinja"
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
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  mergeList        `json:"merges"`
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

// files are what a tokenizer was read from, by name, so that Save writes what
// other programs read from it and Updraft does not.
type files map[string][]byte

// carried lists what Load keeps for Save beside tokenizer.json: the special
// tokens, and the vocabulary in the form that transformers' slow tokenizers read.
func carried() []string {
	return []string{ConfigFile, TemplateFile, "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"}
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
	source := files{File: b}
	for _, name := range carried() {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("tokenizer: %w", err)
		}
		source[name] = b
	}
	if b, ok := source[ConfigFile]; ok {
		config := filepath.Join(filepath.Dir(path), ConfigFile)
		// The length that models without a limit have, 1e30, is no int.
		var c struct {
			BOS json.RawMessage `json:"bos_token"`
			EOS json.RawMessage `json:"eos_token"`
			PAD json.RawMessage `json:"pad_token"`
		}
		if err := json.Unmarshal(b, &c); err != nil {
			return nil, fmt.Errorf("%s: not valid JSON: %w", config, err)
		}
		if err := t.SetSpecial(tokenName(c.BOS), tokenName(c.EOS), tokenName(c.PAD)); err != nil {
			return nil, fmt.Errorf("%s: %w of %s; correct the name, or add the token there", config, err, File)
		}
	}
	t.source = source
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

// unsupported is the error of a file that asks for what Updraft does not do.
func unsupported(field, what string) error {
	return fmt.Errorf("tokenizer: %s: %s is not supported; Updraft reads byte-level BPE as in GPT-2, SmolLM2, Llama 3, Qwen2 and Qwen3, and character vocabularies", field, what)
}

func parse(b []byte) (*Tokenizer, error) {
	var f jsonFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, jsonError(err)
	}
	m := &f.Model
	switch {
	case m.Type != "BPE":
		return nil, unsupported("model.type", fmt.Sprintf("%q", clip(m.Type)))
	case m.ByteFallback:
		return nil, unsupported("model.byte_fallback", "true")
	case m.UnkToken != nil:
		return nil, unsupported("model.unk_token", fmt.Sprintf("%q", clip(*m.UnkToken)))
	case m.Dropout != nil && *m.Dropout != 0:
		return nil, unsupported("model.dropout", fmt.Sprint(*m.Dropout))
	case m.ContinuingSubwordPrefix != nil && *m.ContinuingSubwordPrefix != "":
		return nil, unsupported("model.continuing_subword_prefix", fmt.Sprintf("%q", clip(*m.ContinuingSubwordPrefix)))
	case m.EndOfWordSuffix != nil && *m.EndOfWordSuffix != "":
		return nil, unsupported("model.end_of_word_suffix", fmt.Sprintf("%q", clip(*m.EndOfWordSuffix)))
	}
	pre, err := readPreTokenizer("pre_tokenizer", f.PreTokenizer)
	if err != nil {
		return nil, err
	}
	nfc, err := readNormalizer("normalizer", f.Normalizer)
	if err != nil {
		return nil, err
	}
	added := make([]addedToken, len(f.AddedTokens))
	for i, a := range f.AddedTokens {
		added[i] = addedToken{a.ID, a.Content, a.Special, a.SingleWord, a.LStrip, a.RStrip, a.Normalized}
	}
	t, err := build(m.Vocab, added)
	if err != nil {
		return nil, err
	}
	t.nfc = nfc
	decoder := kind(f.Decoder)
	if !pre.byteLevel {
		switch {
		case len(pre.steps) > 0:
			return nil, unsupported("pre_tokenizer", "one without ByteLevel")
		case len(m.Merges) > 0:
			return nil, unsupported("model.merges", fmt.Sprintf("BPE with %d merges and no ByteLevel pre_tokenizer", len(m.Merges)))
		case decoder != "" && decoder != "Fuse":
			return nil, unsupported("decoder", decoder)
		}
		if err := t.setCharacters(m.Vocab); err != nil {
			return nil, err
		}
	} else {
		if decoder != "ByteLevel" {
			return nil, unsupported("decoder", fmt.Sprintf("%q beside a ByteLevel pre_tokenizer", decoder))
		}
		if err := t.setBPE(m.Vocab, m.Merges, pre.steps, m.IgnoreMerges); err != nil {
			return nil, err
		}
	}
	t.before, t.after, err = readPostProcessor("post_processor", f.PostProcessor, len(t.tokens))
	return t, err
}

// jsonError says where a file is not what is expected, on one line.
func jsonError(err error) error {
	var field *fieldError
	if errors.As(err, &field) {
		return fmt.Errorf("tokenizer: %s; the file is damaged, fetch it again", field.text)
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Errorf("tokenizer: %s: is a JSON %s, which does not fit there; the file is damaged or not a tokenizer.json", clip(wrong.Field), clip(wrong.Value))
	}
	return fmt.Errorf("tokenizer: not valid JSON: %w; fetch the file again", err)
}

// fieldError is an error of a field that reads itself.
type fieldError struct{ text string }

func (e *fieldError) Error() string { return e.text }

// clip shortens what a file says, for messages.
func clip(s string) string {
	const most = 120
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// mergeList reads merges, each "a b" or ["a", "b"].
type mergeList [][2]string

func (l *mergeList) UnmarshalJSON(b []byte) error {
	first := bytes.TrimLeft(b, "[ \t\r\n")
	if len(first) == 0 || first[0] != '"' || bytes.HasPrefix(bytes.TrimLeft(b[1:], " \t\r\n"), []byte("[")) {
		return l.unmarshalPairs(b)
	}
	var joined []string
	if err := json.Unmarshal(b, &joined); err != nil {
		return &fieldError{"model.merges: not a list of pairs of tokens"}
	}
	*l = make(mergeList, len(joined))
	for i, s := range joined {
		x, y, ok := strings.Cut(s, " ")
		if !ok || x == "" || y == "" || strings.Contains(y, " ") {
			return &fieldError{fmt.Sprintf("model.merges[%d]: %q is not two tokens with a space between", i, clip(s))}
		}
		(*l)[i] = [2]string{x, y}
	}
	return nil
}

func (l *mergeList) unmarshalPairs(b []byte) error {
	var pairs [][]string
	if err := json.Unmarshal(b, &pairs); err != nil {
		return &fieldError{"model.merges: not a list of pairs of tokens"}
	}
	*l = make(mergeList, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return &fieldError{fmt.Sprintf("model.merges[%d]: %d tokens in place of 2", i, len(p))}
		}
		(*l)[i] = [2]string{p[0], p[1]}
	}
	return nil
}

// Save writes the tokenizer.json at path, atomically, and where there are
// special tokens or was one at the start, a tokenizer_config.json beside it. A
// tokenizer that Load read is written as the files were, the chat template and
// further files with it.
func (t *Tokenizer) Save(path string) error {
	config := filepath.Join(filepath.Dir(path), ConfigFile)
	if t.source != nil {
		for name, b := range t.source {
			to := filepath.Join(filepath.Dir(path), name)
			if name == File {
				to = path
			}
			if err := writeBytes(to, b); err != nil {
				return err
			}
		}
		return nil
	}
	if err := writeJSON(path, t.file()); err != nil {
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
	return writeJSON(config, jsonConfig{
		Class: "PreTrainedTokenizerFast", BOS: name(t.special.BOS), EOS: name(t.special.EOS), PAD: name(t.special.PAD),
	})
}

// file describes t in the format's terms.
func (t *Tokenizer) file() jsonFile {
	f := jsonFile{
		Version: "1.0", AddedTokens: []jsonAdded{}, Decoder: json.RawMessage(`{"type":"Fuse"}`),
		Model: jsonModel{Type: "BPE", Vocab: make(map[string]int32), Merges: mergeList{}},
	}
	for _, a := range t.added {
		f.AddedTokens = append(f.AddedTokens, jsonAdded{a.id, a.content, a.singleWord, a.lstrip, a.rstrip, a.normalized, a.special})
	}
	if t.bpe == nil {
		for r, id := range t.chars {
			f.Model.Vocab[string(r)] = id
		}
		return f
	}
	for id, token := range t.tokens {
		if token != "" {
			f.Model.Vocab[token] = int32(id)
		}
	}
	for _, p := range t.bpe.pairs() {
		a, b := p.ids()
		f.Model.Merges = append(f.Model.Merges, [2]string{t.tokens[a], t.tokens[b]})
	}
	f.Model.IgnoreMerges = t.bpe.whole != nil
	if t.nfc {
		f.Normalizer = json.RawMessage(`{"type":"NFC"}`)
	}
	f.PreTokenizer = preTokenizerJSON(t.bpe.steps)
	f.Decoder = json.RawMessage(byteLevelJSON)
	f.PostProcessor = postProcessorJSON(t.before, t.after, t.tokens)
	return f
}

func writeBytes(path string, b []byte) error {
	return checkpoint.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
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
