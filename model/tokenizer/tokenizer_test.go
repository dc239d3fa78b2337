package tokenizer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/updraft-ml/updraft/internal/testx"
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
	tok := &Tokenizer{text: []string{"a\xe4", "\xb8", "\x96b", "\xff", "\xc3"}}
	s := tok.Stream()
	require.Equal(t, "a", s.Push(0))
	require.Equal(t, "", s.Push(1))
	require.Equal(t, "世b", s.Push(2))
	require.Equal(t, "\xff", s.Push(3), "what can never be a character is not held back")
	require.Equal(t, "", s.Push(4))
	require.Equal(t, "\xc3", s.Flush())
}

func TestRefusals(t *testing.T) {
	level := `"pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"}`
	bpe := level + `,"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2}`
	for name, c := range map[string]struct{ file, want string }{
		"json":        {`{"model":`, "not valid JSON"},
		"type":        {`{"model":{"type":"BPE","vocab":[1]}}`, "model.vocab"},
		"unigram":     {`{"model":{"type":"Unigram","vocab":{"a":0}}}`, `model.type: "Unigram"`},
		"merges":      {`{"model":{"type":"BPE","vocab":{"a":0},"merges":["a a"]}}`, "BPE with 1 merges"},
		"normalizer":  {`{"normalizer":{"type":"NFKC"},"model":{"type":"BPE","vocab":{"a":0}}}`, "normalizer: NFKC"},
		"pre":         {`{"pre_tokenizer":{"type":"Whitespace"},"model":{"type":"BPE","vocab":{"a":0}}}`, "pre_tokenizer: Whitespace"},
		"digits only": {`{"pre_tokenizer":{"type":"Digits"},"model":{"type":"BPE","vocab":{"a":0}}}`, "pre_tokenizer: one without ByteLevel"},
		"pattern": {`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\w+"},"behavior":"Isolated"}]},"model":{"type":"BPE"}}`,
			`pre_tokenizer.pretokenizers[0].pattern: the split pattern "\\w+"`},
		"behavior":  {`{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},"behavior":"Removed"},"model":{"type":"BPE"}}`, `pre_tokenizer.behavior: "Removed"`},
		"deep":      {`{"pre_tokenizer":` + strings.Repeat(`{"type":"Sequence","pretokenizers":[`, 99) + strings.Repeat(`]}`, 99) + `,"model":{"type":"BPE"}}`, "nested"},
		"post":      {`{"post_processor":{"type":"BertProcessing"},"model":{"type":"BPE","vocab":{"a":0}}}`, "post_processor: BertProcessing"},
		"template":  {`{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]},"model":{"type":"BPE","vocab":{"a":0}}}`, `post_processor.single[0]: token "x"`},
		"outside":   {`{"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}],"special_tokens":{"x":{"ids":[7]}}},"model":{"type":"BPE","vocab":{"a":0}}}`, "id 7"},
		"textless":  {`{"post_processor":{"type":"TemplateProcessing","single":[]},"model":{"type":"BPE","vocab":{"a":0}}}`, "no Sequence A"},
		"decoder":   {`{"decoder":{"type":"WordPiece"},"model":{"type":"BPE","vocab":{"a":0}}}`, "decoder: WordPiece"},
		"undecoded": {`{"pre_tokenizer":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0}}}`, `decoder: ""`},
		"fallback":  {`{"model":{"type":"BPE","byte_fallback":true,"vocab":{"a":0}}}`, "byte_fallback"},
		"unk":       {`{"model":{"type":"BPE","unk_token":"a","vocab":{"a":0}}}`, "unk_token"},
		"long":      {`{"model":{"type":"BPE","vocab":{"ab":0}}}`, `"ab" is more than one character`},
		"empty":     {`{"model":{"type":"BPE"}}`, "the vocabulary is empty"},
		"shared":    {`{"added_tokens":[{"id":0,"content":"<s>"}],"model":{"type":"BPE","vocab":{"a":0}}}`, "share the id 0"},
		"two":       {`{"added_tokens":[{"id":1,"content":"a"}],"model":{"type":"BPE","vocab":{"a":0}}}`, "has the ids 0 and 1"},
		"negative":  {`{"model":{"type":"BPE","vocab":{"a":-1}}}`, "has the id -1"},
		"huge":      {`{"model":{"type":"BPE","vocab":{"a":2000000000}}}`, "far beyond"},
		"one part":  {`{` + bpe + `,"merges":["ab"]}}`, `model.merges[0]: "ab" is not two tokens`},
		"three":     {`{` + bpe + `,"merges":[["a","b","a"]]}}`, "model.merges[0]: 3 tokens in place of 2"},
		"unknown":   {`{` + bpe + `,"merges":["a b","b a"]}}`, `model.merges[1]: "b" and "a"`},
		"no pairs":  {`{` + bpe + `,"merges":{"a":1}}}`, "model.merges: not a list"},
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

// A special token of the configuration that the tokenizer lacks is named with
// its file.
func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/qwen.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, File), b, 0o644))
	config := filepath.Join(dir, ConfigFile)
	text := []byte(`{"bos_token":null,"eos_token":{"content":"<|im_end|>"},"pad_token":"<|endoftext|>","model_max_length":1000000000000000019884624838656,"chat_template":"{{ x }}"}`)
	require.NoError(t, os.WriteFile(config, text, 0o644))
	tok, err := Load(dir)
	require.NoError(t, err)
	eos, _ := tok.Token(tok.Special().EOS)
	pad, _ := tok.Token(tok.Special().PAD)
	require.Equal(t, []string{"<|im_end|>", "<|endoftext|>"}, []string{eos, pad})
	require.EqualValues(t, -1, tok.Special().BOS)

	template := []byte("{{ messages }}\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, TemplateFile), template, 0o644))
	tok, err = Load(dir)
	require.NoError(t, err)
	out := t.TempDir()
	require.NoError(t, tok.Save(filepath.Join(out, File)))
	for name, want := range map[string][]byte{File: b, ConfigFile: text, TemplateFile: template} {
		got, err := os.ReadFile(filepath.Join(out, name))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "Save writes what Load read")
	}

	require.NoError(t, os.WriteFile(config, []byte(`{"eos_token":"<gone>"}`), 0o644))
	_, err = Load(dir)
	require.ErrorContains(t, err, config)
	require.ErrorContains(t, err, `"<gone>"`)
	require.NoError(t, os.WriteFile(config, []byte(`{`), 0o644))
	_, err = Load(dir)
	require.ErrorContains(t, err, config)
}

// The special tokens around a text: those of the post-processor, or the begin
// token of a character vocabulary.
func TestEncodeSpecial(t *testing.T) {
	ids, err := newTest(t).EncodeSpecial("1+2")
	require.NoError(t, err)
	require.Equal(t, "<s>1+2", newTest(t).Decode(ids))
	plain, err := NewCharacter("12", nil)
	require.NoError(t, err)
	ids, err = plain.EncodeSpecial("1")
	require.NoError(t, err)
	require.Equal(t, []int32{0}, ids)
}

// Both ways of merging agree, on words around the length that decides between
// them and on long ones.
func TestMergesAgree(t *testing.T) {
	tok := loadGolden(t, "qwen")
	s := tok.bpe.borrow()
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.StringMatching(`[a-e ]{1,6}`).Draw(t, "unit")
		word := strings.Repeat(unit, rapid.IntRange(1, 60).Draw(t, "times")) + rapid.StringMatching(`[a-z0-9 ]{0,80}`).Draw(t, "tail")
		var ids []int32
		for i := range len(word) {
			ids = append(ids, tok.bpe.bytes[word[i]])
		}
		plain := append([]int32{}, tok.bpe.mergePlain(append([]int32{}, ids...), s)...)
		require.Equal(t, plain, tok.bpe.mergeLong([]int32{}, ids, s))
	})
}

// Any bytes come back, and a stream never hands out half a character.
func TestAnyBytes(t *testing.T) {
	for _, name := range []string{"llama3", "qwen"} {
		tok := loadGolden(t, name)
		rapid.Check(t, func(t *rapid.T) {
			text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
			ids, err := tok.Encode(text)
			require.NoError(t, err)
			require.Equal(t, tok.kept(text), tok.Decode(ids))
			valid := utf8.ValidString(text)
			s, b := tok.Stream(), strings.Builder{}
			for _, id := range ids {
				part := s.Push(id)
				require.True(t, !valid || utf8.ValidString(part), "%q", part)
				b.WriteString(part)
			}
			b.WriteString(s.Flush())
			require.Equal(t, tok.Decode(ids), b.String())
		})
	}
}

// A tokenizer is used by many goroutines at once.
func TestConcurrentUse(t *testing.T) {
	g, tok := readGolden(t), loadGolden(t, "llama3")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for i, text := range g.Texts {
				if ids, err := tok.Encode(text); err != nil || !equal(ids, g.IDs["llama3"][i].IDs) {
					t.Errorf("text %d: %v, %v", i, ids, err)
				}
			}
		})
	}
	wait.Wait()
}

// Words of many bytes take time in proportion to their length: a megabyte of
// one letter would take hours in a square.
func TestLongRuns(t *testing.T) {
	for _, name := range []string{"smollm2", "llama3", "qwen"} {
		tok := loadGolden(t, name)
		for _, unit := range []string{"a", " ", "\n", "1", "=", "\u0301", "<|im_", " \n"} {
			text := strings.Repeat(unit, 1<<18/len(unit))
			ids, err := tok.Encode(text)
			require.NoError(t, err)
			require.Equal(t, len(text), len(tok.Decode(ids)))
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"added_tokens":[{"id":1,"content":"<s>"}],"model":{"type":"BPE","vocab":{"a":0}}}`), "a<s>a")
	split := `{"type":"Split","pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false}`
	f.Add([]byte(`{"added_tokens":[{"id":3,"content":"<s>","special":true,"lstrip":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[`+split+
		`,{"type":"ByteLevel","use_regex":false}]},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[3]}}},`+
		`"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","ignore_merges":true,"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}`), "ab <s> 12")
	f.Add([]byte(`{"added_tokens":[{"id":3,"content":"é","normalized":true,"single_word":true,"rstrip":true}],"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"ByteLevel"}]},`+
		`"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0,"Ġ":1,"Ġa":2},"merges":["Ġ a"]}}`), "a é 1")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		var tok *Tokenizer
		var err error
		testx.AllocatesWithin(t, len(file), 4<<20, 256, func() { tok, err = parse(file) })
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		ids, err := tok.Encode(text)
		if err != nil {
			return
		}
		back := tok.Decode(ids)
		swallows := slices.ContainsFunc(tok.added, func(a addedToken) bool { return a.lstrip || a.rstrip })
		if tok.bpe == nil && !tok.nfc && !swallows {
			require.Equal(t, text, back)
		}
		again, err := tok.EncodeSpecial(text)
		require.NoError(t, err)
		require.Equal(t, len(tok.before)+len(ids)+len(tok.after), len(again))
	})
}

// FuzzEncode holds every text against what must hold of any.
func FuzzEncode(f *testing.F) {
	var toks []*Tokenizer
	for _, name := range []string{"smollm2", "llama3", "qwen"} {
		toks = append(toks, loadGolden(f, name))
	}
	for _, text := range readGolden(f).Texts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, tok := range toks {
			for _, encode := range []func(string) ([]int32, error){tok.Encode, tok.EncodePlain} {
				ids, err := encode(text)
				require.NoError(t, err)
				require.Equal(t, tok.kept(text), tok.Decode(ids))
			}
		}
	})
}
