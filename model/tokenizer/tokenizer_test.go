package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const (
	testChars = "0123456789+-*/()= \nabcé世,"
	marker    = "<unknown> I need external assistance </unknown>"
)

func newTest(t testing.TB) *Tokenizer {
	tok, err := NewCharacter(testChars, []string{"<s>", "</s>", "<think>", "</think>", "<answer>", "</answer>", "<unknown>", marker})
	require.NoError(t, err)
	require.NoError(t, tok.SetSpecial("<s>", "</s>", ""))
	return tok
}

func TestEncode(t *testing.T) {
	tok := newTest(t)
	ids, err := tok.Encode("<think>1+2</think>" + marker + "<unknown>é世")
	require.NoError(t, err)
	var names []string
	for _, id := range ids {
		s, ok := tok.Token(id)
		require.True(t, ok)
		names = append(names, s)
	}
	require.Equal(t, []string{"<think>", "1", "+", "2", "</think>", marker, "<unknown>", "é", "世"}, names, "the longest added token wins")
	require.Equal(t, "<think>1+2</think>"+marker+"<unknown>é世", tok.Decode(ids))

	id, ok := tok.ID(marker)
	require.True(t, ok)
	require.EqualValues(t, tok.Size()-1, id)
	require.Equal(t, Special{BOS: 25, EOS: 26, PAD: -1}, tok.Special())

	_, err = tok.Encode("1+x")
	require.EqualError(t, err, "tokenizer: character 'x' at byte 2 is not in the vocabulary")
	_, err = tok.Encode("1\xff")
	require.EqualError(t, err, "tokenizer: byte 0xff at 1 is not valid UTF-8")
	_, err = tok.Encode("<")
	require.ErrorContains(t, err, "'<'", "a piece of an added token is no token")
	_, ok = tok.Token(-1)
	require.False(t, ok)
	_, ok = tok.Token(int32(tok.Size()))
	require.False(t, ok)
}

func TestRoundTrip(t *testing.T) {
	tok := newTest(t)
	path := filepath.Join(t.TempDir(), File)
	require.NoError(t, tok.Save(path))
	again, err := Load(filepath.Dir(path))
	require.NoError(t, err)
	require.Equal(t, tok.Special(), again.Special())
	runes := []rune(testChars)
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.OneOf(
			rapid.StringOf(rapid.SampledFrom(runes)),
			rapid.SampledFrom([]string{"<s>", "</s>", "<think>", "</answer>", "<unknown>", marker}),
		)).Draw(t, "parts")
		text := strings.Join(parts, "")
		ids, err := tok.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		ids2, err := again.Encode(text)
		if err != nil {
			t.Fatal(err)
		}
		require.Equal(t, ids, ids2)
		require.Equal(t, text, again.Decode(ids))
		s, b := tok.Stream(), strings.Builder{}
		for _, id := range ids {
			b.WriteString(s.Push(id))
		}
		require.Equal(t, text, b.String())
		require.Empty(t, s.Flush())
	})
}

// A stream holds a character back until its last byte has come.
func TestStreamSplitCharacters(t *testing.T) {
	tok := &Tokenizer{tokens: []string{"a\xe4", "\xb8", "\x96b", "\xff", "\xc3"}}
	s := tok.Stream()
	require.Equal(t, "a", s.Push(0))
	require.Equal(t, "", s.Push(1))
	require.Equal(t, "世b", s.Push(2))
	require.Equal(t, "\xff", s.Push(3), "what can never be a character is not held back")
	require.Equal(t, "", s.Push(4))
	require.Equal(t, "\xc3", s.Flush())
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"json":       {`{"model":`, "not valid JSON"},
		"unigram":    {`{"model":{"type":"Unigram","vocab":{"a":0}}}`, `model type "Unigram"`},
		"merges":     {`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}}`, "BPE with 1 merges"},
		"normalizer": {`{"normalizer":{"type":"NFC"},"model":{"type":"BPE","vocab":{"a":0}}}`, "normalizer NFC"},
		"pre":        {`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0}}}`, "pre_tokenizer ByteLevel"},
		"post":       {`{"post_processor":{"type":"TemplateProcessing"},"model":{"type":"BPE","vocab":{"a":0}}}`, "post_processor TemplateProcessing"},
		"decoder":    {`{"decoder":{"type":"WordPiece"},"model":{"type":"BPE","vocab":{"a":0}}}`, "decoder WordPiece"},
		"fallback":   {`{"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0}}}`, "byte_fallback"},
		"unk":        {`{"model":{"type":"BPE","unk_token":"a","vocab":{"a":0}}}`, "unk_token"},
		"long":       {`{"model":{"type":"BPE","vocab":{"ab":0}}}`, `"ab" is more than one character`},
		"empty":      {`{"model":{"type":"BPE"}}`, "the vocabulary is empty"},
		"lstrip":     {`{"added_tokens":[{"id":1,"content":"<s>","lstrip":true}],"model":{"type":"BPE","vocab":{"a":0}}}`, "lstrip"},
		"shared":     {`{"added_tokens":[{"id":0,"content":"<s>"}],"model":{"type":"BPE","vocab":{"a":0}}}`, "share the id 0"},
		"two":        {`{"added_tokens":[{"id":1,"content":"a"}],"model":{"type":"BPE","vocab":{"a":0}}}`, "has the ids 0 and 1"},
		"negative":   {`{"model":{"type":"BPE","vocab":{"a":-1}}}`, "has the id -1"},
		"huge":       {`{"model":{"type":"BPE","vocab":{"a":2000000000}}}`, "far beyond"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), File)
			require.NoError(t, os.WriteFile(path, []byte(c.file), 0o644))
			_, err := Load(path)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := Load(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = NewCharacter("aa", nil)
	require.ErrorContains(t, err, "twice")
	_, err = NewCharacter("a", []string{"<s>", "<s>"})
	require.Error(t, err)
	_, err = NewCharacter("a", []string{""})
	require.Error(t, err)
	tok := newTest(t)
	require.ErrorContains(t, tok.SetSpecial("", "<eos>", ""), "<eos>")
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"added_tokens":[{"id":1,"content":"<s>"}],"model":{"type":"BPE","vocab":{"a":0}}}`), "a<s>a")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		tok, err := parse(file)
		if err != nil {
			return
		}
		if ids, err := tok.Encode(text); err == nil && tok.Decode(ids) != text {
			t.Fatalf("%q does not survive", text)
		}
	})
}
