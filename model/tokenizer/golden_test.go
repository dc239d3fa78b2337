package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
)

// golden is testdata/golden.json, which testdata/golden.py makes with Hugging
// Face's tokenizers.
type golden struct {
	Texts  []string
	NFC    []*string          // nil: as the text is
	Pieces map[string][][]int // lengths in bytes of what a text is split into
	IDs    map[string][]struct{ IDs, Plain, Around []int32 }
}

func readGolden(t testing.TB) golden {
	b, err := os.ReadFile("testdata/golden.json")
	require.NoError(t, err)
	var g golden
	require.NoError(t, json.Unmarshal(b, &g))
	require.NotEmpty(t, g.Texts)
	return g
}

func loadGolden(t testing.TB, name string) *Tokenizer {
	tok, err := Load(filepath.Join("testdata", name+".json"))
	require.NoError(t, err)
	return tok
}

// Small tokenizers under the components of each family's files give the ids of
// Hugging Face's library, and so do what Save makes of them and, where GGUF has
// words for it, what FromGGUF does.
func TestGolden(t *testing.T) {
	g := readGolden(t)
	for name, rows := range g.IDs {
		t.Run(name, func(t *testing.T) {
			tok := loadGolden(t, name)
			require.Len(t, rows, len(g.Texts))
			variants := map[string]*Tokenizer{"loaded": tok}
			tok.source = nil // write it anew
			path := filepath.Join(t.TempDir(), File)
			require.NoError(t, tok.Save(path))
			var err error
			variants["saved"], err = Load(path)
			require.NoError(t, err)
			if name != "flags" {
				if name == "llama3" {
					require.NoError(t, tok.SetSpecial("<|begin_of_text|>", "<|im_end|>", ""))
				}
				meta, err := tok.GGUF()
				require.NoError(t, err)
				variants["GGUF"], err = FromGGUF(meta)
				require.NoError(t, err)
				require.Equal(t, tok.Special(), variants["GGUF"].Special())
			}
			for variant, tok := range variants {
				around := 0
				for i, row := range rows {
					text := g.Texts[i]
					if row.Plain == nil {
						row.Plain = row.IDs
					}
					ids, err := tok.Encode(text)
					require.NoError(t, err)
					require.Equal(t, row.IDs, ids, "%s: text %d: %q: %q", variant, i, text, head(tok, ids))
					plain, err := tok.EncodePlain(text)
					require.NoError(t, err)
					require.Equal(t, row.Plain, plain, "%s, plain: text %d: %q", variant, i, text)
					if row.Around != nil {
						around++
						ids, err := tok.EncodeSpecial(text)
						require.NoError(t, err)
						require.Equal(t, row.Around, ids, "%s, with special tokens: text %d: %q", variant, i, text)
					}
					if name != "flags" { // whose tokens swallow white space
						require.Equal(t, tok.kept(text), tok.Decode(ids), "%s: text %d", variant, i)
					}
				}
				require.Equal(t, name == "llama3" || name == "flags", around > 0)
			}
		})
	}
}

// Texts are split as Hugging Face's library splits them. Ids alone would not
// show it: a small vocabulary has few words that reach over an edge.
func TestGoldenPieces(t *testing.T) {
	g := readGolden(t)
	for name, rows := range g.Pieces {
		tok := loadGolden(t, name)
		for i, want := range rows {
			got := []int{}
			tok.bpe.classes.split(g.Texts[i], tok.bpe.steps, func(piece string) { got = append(got, len(piece)) })
			require.Equal(t, want, got, "%s: text %d: %q", name, i, g.Texts[i])
		}
	}
	require.Len(t, g.Pieces, 4)
}

func TestGGUFSpecial(t *testing.T) {
	g, err := loadGolden(t, "qwen").GGUF()
	require.NoError(t, err)
	yes, no := true, false
	for _, c := range []struct {
		pre            string
		addBOS, addEOS *bool
		want           []int32
	}{
		{"qwen2", nil, nil, []int32{5}},
		{"llama-bpe", nil, nil, []int32{3, 5}},
		{"llama-bpe", &no, &yes, []int32{5, 4}},
		{"gpt-2", &yes, &no, []int32{3, 5}},
	} {
		g.Pre, g.BOS, g.EOS, g.AddBOS, g.AddEOS = c.pre, 3, 4, c.addBOS, c.addEOS
		tok, err := FromGGUF(g)
		require.NoError(t, err)
		ids, err := tok.EncodeSpecial(tok.Decode([]int32{5}))
		require.NoError(t, err)
		require.Equal(t, c.want, ids)
	}
}

func TestGGUFRefusals(t *testing.T) {
	good, err := loadGolden(t, "qwen").GGUF()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(*GGUF)
		want   string
	}{
		"model":       {func(g *GGUF) { g.Model = "llama" }, `tokenizer.ggml.model: "llama"`},
		"pre":         {func(g *GGUF) { g.Pre = "tekken" }, `tokenizer.ggml.pre: "tekken"`},
		"types":       {func(g *GGUF) { g.Types = g.Types[1:] }, "tokenizer.ggml.token_type: "},
		"twice":       {func(g *GGUF) { g.Tokens[7] = g.Tokens[8] }, "tokenizer.ggml.tokens: "},
		"empty token": {func(g *GGUF) { g.Tokens[7] = "" }, "token 7 is empty"},
		"no tokens":   {func(g *GGUF) { g.Tokens, g.Types = nil, nil }, "the vocabulary is empty"},
		"merge":       {func(g *GGUF) { g.Merges[3] = "ab" }, "tokenizer.ggml.merges[3]"},
		"merge of":    {func(g *GGUF) { g.Merges[3] = "qq zz" }, "merges[3]"},
		"eos":         {func(g *GGUF) { g.EOS = 1 << 20 }, "tokenizer.ggml.eos_token_id"},
		"bos":         {func(g *GGUF) { g.BOS = -2 }, "tokenizer.ggml.bos_token_id"},
	} {
		t.Run(name, func(t *testing.T) {
			g := good
			g.Tokens, g.Types, g.Merges = slices.Clone(g.Tokens), slices.Clone(g.Types), slices.Clone(g.Merges)
			c.change(&g)
			_, err := FromGGUF(g)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err = loadGolden(t, "flags").GGUF()
	require.ErrorContains(t, err, "export safetensors")
	_, err = newTest(t).GGUF()
	require.ErrorContains(t, err, "character vocabulary")
}

// Go's own tables are of Unicode 15. Should they move on, compare again with
// testdata/fetch.py and correct the lists of what they lack.
func TestUnicodeTables(t *testing.T) {
	require.Equal(t, "15.0.0", unicode.Version, "classes.go lists what these tables lack")
	require.Equal(t, "15.0.0", norm.Version, "nfc.go lists what these tables have too many")
	c := newClasses()
	counts := map[class]int{}
	for r := rune(0); r <= utf8.MaxRune; r++ {
		for k := letter; k <= digit; k <<= 1 {
			if c.of(r)&k != 0 {
				counts[k]++
			}
		}
	}
	require.Equal(t, map[class]int{letter: 141028, number: 1911, space: 25, newline: 2, digit: 1924}, counts, "as counted in tokenizers 0.23.3")
	require.True(t, slices.IsSortedFunc(newerMarks, func(a, b [2]rune) int { return int(a[0] - b[0]) }))
}

// Runs of marks are no longer than the library leaves them, and no joiner comes
// in between.
func TestNFC(t *testing.T) {
	g := readGolden(t)
	for i, text := range g.Texts {
		want := text
		if g.NFC[i] != nil {
			want = *g.NFC[i]
		}
		require.Equal(t, want, nfc(text), "%+q", text)
	}
	require.Equal(t, "\u1ea1"+strings.Repeat("\u0323", 39)+strings.Repeat("\u0301", 40), nfc("a"+strings.Repeat("\u0301\u0323", 40)))
	require.Equal(t, "각", nfc("\u1100\u1161\u11a8"))
	require.Equal(t, "\xff\u00e9\xfe\u0301", nfc("\xffe\u0301\xfe\u0301"))
	require.Equal(t, "\U00011935\U00011930\u00e9", nfc("\U00011935\U00011930e\u0301"))
	require.Equal(t, "a\u0345\u1df8\u00e9", nfc("a\u0345\u1df8e\u0301"), "U+1DF8 came with Unicode 10")
	for _, s := range []string{"Å\u0301", "a\u0308\u0301\u0323", "\u0344", "\u1fbf", "x\u0338\u0307", "a\u0305\u0301e\u0301", "ㅎ\u1173\u11ab", "\u0958", "가\u11a7", "가\u11a8\u11a8"} {
		require.Equal(t, norm.NFC.String(s), nfc(s), "%+q", s)
	}
}
