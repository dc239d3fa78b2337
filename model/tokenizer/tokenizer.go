package tokenizer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Tokenizer maps text to token ids. It does not change after it is made, but
// for SetSpecial, and is safe for concurrent use.
type Tokenizer struct {
	tokens  []string // by id; "" where no token has the id
	ids     map[string]int32
	chars   map[rune]int32
	added   []addedToken
	byFirst [256][]addedToken // added tokens by first byte, longest first
	special Special
}

type addedToken struct {
	id      int32
	content string
	special bool
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
	return build(vocab, list)
}

// build checks a vocabulary and indexes it.
func build(vocab map[string]int32, added []addedToken) (*Tokenizer, error) {
	t := &Tokenizer{ids: make(map[string]int32), chars: make(map[rune]int32), added: added, special: Special{-1, -1, -1}}
	size := 0
	for _, id := range vocab {
		size = max(size, int(id)+1)
	}
	for _, a := range added {
		size = max(size, int(a.id)+1)
	}
	if size > 2*(len(vocab)+len(added))+1024 {
		return nil, fmt.Errorf("tokenizer: id %d is far beyond the number of tokens", size-1)
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
	inAdded := make(map[string]bool)
	for _, a := range added {
		if err := put(a.id, a.content); err != nil {
			return nil, err
		}
		if inAdded[a.content] {
			return nil, fmt.Errorf("tokenizer: added token %q is listed twice", a.content)
		}
		inAdded[a.content] = true
		t.byFirst[a.content[0]] = append(t.byFirst[a.content[0]], a)
	}
	for i := range t.byFirst {
		slices.SortFunc(t.byFirst[i], func(a, b addedToken) int {
			return cmp.Or(cmp.Compare(len(b.content), len(a.content)), cmp.Compare(a.content, b.content))
		})
	}
	for s, id := range vocab {
		r, n := utf8.DecodeRuneInString(s)
		if n == len(s) && !(r == utf8.RuneError && n == 1) {
			t.chars[r] = id
		} else if !inAdded[s] {
			return nil, fmt.Errorf("tokenizer: vocabulary entry %q is more than one character: BPE with merges is not supported yet", s)
		}
	}
	return t, nil
}

func sortedKeys(m map[string]int32) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Encode returns the ids of text: at each place the longest added token that
// matches, else the character's. A character outside the vocabulary is an
// error that names it.
func (t *Tokenizer) Encode(text string) ([]int32, error) {
	out := make([]int32, 0, len(text))
next:
	for i := 0; i < len(text); {
		for _, a := range t.byFirst[text[i]] {
			if strings.HasPrefix(text[i:], a.content) {
				out = append(out, a.id)
				i += len(a.content)
				continue next
			}
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return nil, fmt.Errorf("tokenizer: byte %#02x at %d is not valid UTF-8", text[i], i)
		}
		id, ok := t.chars[r]
		if !ok {
			return nil, fmt.Errorf("tokenizer: character %q at byte %d is not in the vocabulary", r, i)
		}
		out = append(out, id)
		i += n
	}
	return out, nil
}

// Decode returns the text of ids, special tokens included. Ids without a token
// are left out.
func (t *Tokenizer) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		s, _ := t.Token(id)
		b.WriteString(s)
	}
	return b.String()
}

// ID returns a token's id.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Token returns an id's token.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if id < 0 || int(id) >= len(t.tokens) || t.tokens[id] == "" {
		return "", false
	}
	return t.tokens[id], true
}

// Size returns one more than the largest id: the vocab_size that a model needs.
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
	return nil
}

// Stream decodes token by token and never splits a character.
type Stream struct {
	t    *Tokenizer
	tail []byte
}

// Stream returns a streaming decoder.
func (t *Tokenizer) Stream() *Stream { return &Stream{t: t} }

// Push adds a token and returns the text that is complete by now.
func (s *Stream) Push(id int32) string {
	token, _ := s.t.Token(id)
	s.tail = append(s.tail, token...)
	n := len(s.tail)
	for i := 1; i <= min(utf8.UTFMax-1, n); i++ {
		if b := s.tail[n-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(s.tail[n-i:]) {
				n -= i
			}
			break
		}
	}
	text := string(s.tail[:n])
	s.tail = append(s.tail[:0], s.tail[n:]...)
	return text
}

// Flush returns what is left, be it a whole character or not.
func (s *Stream) Flush() string {
	text := string(s.tail)
	s.tail = s.tail[:0]
	return text
}
