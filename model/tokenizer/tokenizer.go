package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tokenizer maps text to token ids. It does not change after it is made, but
// for SetSpecial, and is safe for concurrent use.
type Tokenizer struct {
	tokens  []string // by id, as the file spells them; "" where no token has the id
	text    []string // by id, what they decode to
	ids     map[string]int32
	added   []addedToken
	early   matcher // added tokens found in the text as it came
	late    matcher // added tokens found after normalization
	nfc     bool
	chars   map[rune]int32 // a character vocabulary
	bpe     *bpe           // byte-level BPE; nil for a character vocabulary
	before  []int32        // what EncodeSpecial puts before a text
	after   []int32        // and after it
	special Special
	source  files
}

// Special names the ids of the tokens that begin, end and pad a text; -1 where
// there is none.
type Special struct{ BOS, EOS, PAD int32 }

// NewCharacter returns a tokenizer for a vocabulary of single characters, in
// the order of chars, followed by added tokens that are matched before them.
func NewCharacter(chars string, added []string) (*Tokenizer, error) {
	vocab := make(map[string]int32)
	if !utf8.ValidString(chars) {
		return nil, errors.New("tokenizer: the characters are not valid UTF-8")
	}
	for _, r := range chars {
		if _, twice := vocab[string(r)]; twice {
			return nil, fmt.Errorf("tokenizer: character %q is listed twice", r)
		}
		vocab[string(r)] = int32(len(vocab))
	}
	list := make([]addedToken, len(added))
	for i, s := range added {
		list[i] = addedToken{id: int32(len(vocab) + i), content: s}
	}
	t, err := build(vocab, list)
	if err != nil {
		return nil, err
	}
	return t, t.setCharacters(vocab)
}

// build checks a vocabulary and indexes it.
func build(vocab map[string]int32, added []addedToken) (*Tokenizer, error) {
	n := len(vocab) + len(added)
	t := &Tokenizer{ids: make(map[string]int32, n), added: added, special: Special{-1, -1, -1}}
	if n == 0 {
		return nil, errors.New("tokenizer: the vocabulary is empty")
	}
	size := 0
	for _, id := range vocab {
		size = max(size, int(id)+1)
	}
	for _, a := range added {
		size = max(size, int(a.id)+1)
	}
	if size > 2*n+1024 {
		return nil, fmt.Errorf("tokenizer: id %d is far beyond the number of tokens, %d", size-1, n)
	}
	t.tokens = make([]string, size)
	put := func(id int32, s string) error {
		switch {
		case id < 0:
			return fmt.Errorf("tokenizer: token %q has the id %d", s, id)
		case s == "":
			return fmt.Errorf("tokenizer: token %d is empty", id)
		case t.tokens[id] != "" && t.tokens[id] != s:
			return fmt.Errorf("tokenizer: tokens %q and %q share the id %d", min(s, t.tokens[id]), max(s, t.tokens[id]), id)
		}
		if old, twice := t.ids[s]; twice && old != id {
			return fmt.Errorf("tokenizer: token %q has the ids %d and %d", s, min(id, old), max(id, old))
		}
		t.tokens[id], t.ids[s] = s, id
		return nil
	}
	for _, s := range sortedKeys(vocab) {
		if err := put(vocab[s], s); err != nil {
			return nil, err
		}
	}
	seen := make(map[string]bool, len(added))
	for _, a := range added {
		if err := put(a.id, a.content); err != nil {
			return nil, err
		}
		if seen[a.content] {
			return nil, fmt.Errorf("tokenizer: added token %q is listed twice", a.content)
		}
		seen[a.content] = true
	}
	t.text = t.tokens
	return t, nil
}

// index prepares the search for added tokens. Call it once nfc is known: the
// library looks for the normalized form of tokens that ask for it.
func (t *Tokenizer) index() {
	for i, a := range t.added {
		switch {
		case !a.normalized:
			t.early.add(a.content, i)
		case t.nfc:
			t.late.add(nfc(a.content), i)
		default:
			t.late.add(a.content, i)
		}
	}
}

// setCharacters makes t a tokenizer of single characters.
func (t *Tokenizer) setCharacters(vocab map[string]int32) error {
	t.index()
	t.chars = make(map[rune]int32, len(vocab))
	for s, id := range vocab {
		r, n := utf8.DecodeRuneInString(s)
		if n == len(s) && !(r == utf8.RuneError && n == 1) {
			t.chars[r] = id
		} else if !slices.ContainsFunc(t.added, func(a addedToken) bool { return a.content == s }) {
			return fmt.Errorf("tokenizer: model.vocab: entry %q is more than one character, and there is no ByteLevel pre_tokenizer; Updraft reads byte-level BPE and character vocabularies", s)
		}
	}
	return nil
}

func sortedKeys(m map[string]int32) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Encode returns the ids of text without anything put around it. Added tokens
// in the text are found, special ones too: text that came from a user may hold
// them; EncodePlain does not look for special ones.
//
// A character outside a character vocabulary is an error that names it.
// Byte-level BPE takes any text, UTF-8 or not.
func (t *Tokenizer) Encode(text string) ([]int32, error) { return t.encode(nil, text, false) }

// EncodePlain is Encode for text in which special tokens mean nothing: they are
// encoded like other words. Added tokens that are not special are found still.
func (t *Tokenizer) EncodePlain(text string) ([]int32, error) { return t.encode(nil, text, true) }

// EncodeSpecial is Encode with the special tokens around it that the file's
// post-processor puts there (Hugging Face's add_special_tokens=True): the begin
// token for Llama 3, nothing for SmolLM2 and Qwen; the begin token, if one is
// set, for a character vocabulary.
func (t *Tokenizer) EncodeSpecial(text string) ([]int32, error) {
	ids, err := t.encode(slices.Clone(t.before), text, false)
	if err != nil {
		return nil, err
	}
	return append(ids, t.after...), nil
}

// encode appends the ids of text.
func (t *Tokenizer) encode(out []int32, text string, plain bool) ([]int32, error) {
	if out == nil {
		out = make([]int32, 0, len(text)/3+1)
	}
	var s *scratch
	if t.bpe != nil {
		s = t.bpe.borrow()
		defer t.bpe.giveBack(s)
	}
	var err error
	words := func(from int, piece string) {
		if s != nil {
			out = t.bpe.encode(out, piece, s)
		} else if err == nil {
			out, err = t.encodeCharacters(out, from, piece)
		}
	}
	token := func(a *addedToken) { out = append(out, a.id) }
	t.cut(&t.early, text, plain, token, func(from int, piece string) {
		if t.nfc {
			piece = nfc(piece)
		}
		t.cut(&t.late, piece, plain, token, func(at int, piece string) { words(from+at, piece) })
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// encodeCharacters appends the ids of a text's characters; from is its place
// in the whole text.
func (t *Tokenizer) encodeCharacters(out []int32, from int, text string) ([]int32, error) {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return nil, fmt.Errorf("tokenizer: byte %#02x at %d is not valid UTF-8", text[i], from+i)
		}
		id, ok := t.chars[r]
		if !ok {
			return nil, fmt.Errorf("tokenizer: character %q at byte %d is not in the vocabulary", r, from+i)
		}
		out = append(out, id)
		i += n
	}
	return out, nil
}

// Decode returns the text of ids, special tokens included. Ids without a token
// are left out. Ids that end in the midst of a character give its first bytes.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(t.piece(id))
	}
	return b.String()
}

// piece returns the bytes that an id stands for, "" for none.
func (t *Tokenizer) piece(id int32) string {
	if id < 0 || int(id) >= len(t.text) {
		return ""
	}
	return t.text[id]
}

// ID returns a token's id, given the token as the file spells it: byte-level
// BPE writes " the" as "Ġthe". Added tokens are spelt as they are.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Token returns an id's token as the file spells it.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(t.tokens) || t.tokens[id] == "" {
		return "", false
	}
	return t.tokens[id], true
}

// Size returns one more than the largest id: the least vocab_size of a model.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// Special returns the ids of the special tokens.
func (t *Tokenizer) Special() Special { return t.special }

// SetSpecial names the tokens that begin, end and pad a text, "" for none.
// They must be added tokens. Call it before the tokenizer is shared.
func (t *Tokenizer) SetSpecial(bos, eos, pad string) error {
	s := Special{-1, -1, -1}
	for _, x := range []struct {
		token string
		id    *int32
	}{{bos, &s.BOS}, {eos, &s.EOS}, {pad, &s.PAD}} {
		if x.token == "" {
			continue
		}
		i := slices.IndexFunc(t.added, func(a addedToken) bool { return a.content == x.token })
		if i < 0 {
			return fmt.Errorf("tokenizer: special token %q is not among the added tokens", x.token)
		}
		t.added[i].special = true
		*x.id = t.added[i].id
	}
	t.special = s
	if t.bpe == nil {
		if t.before = nil; s.BOS >= 0 {
			t.before = []int32{s.BOS}
		}
	}
	t.source = nil
	return nil
}
