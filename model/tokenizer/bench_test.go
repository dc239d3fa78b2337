package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// prose is the repository's pages: English with code, tables and figures.
func prose(b *testing.B) string {
	pages, err := filepath.Glob("../../docs/*.md")
	require.NoError(b, err)
	var s strings.Builder
	for _, page := range append(pages, "../../README.md", "../../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		require.NoError(b, err)
		s.Write(text)
	}
	return s.String()
}

func benchmarkEncode(b *testing.B, tok *Tokenizer, text string) {
	ids, err := tok.Encode(text)
	require.NoError(b, err)
	require.Equal(b, tok.kept(text), tok.Decode(ids))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tok.Encode(text); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodeReal measures one core on the questions and answers of
// UPDRAFT_DATA, on the repository's pages, and on what the cache of words is no
// help for.
func BenchmarkEncodeReal(b *testing.B) {
	dir := realDir(b)
	var questions strings.Builder
	eachText(b, dir, "smollm2", "data", func(text string, _ []int32) {
		if questions.Len() < 4<<20 {
			questions.WriteString(text)
			questions.WriteByte('\n')
		}
	})
	var mixed strings.Builder
	eachText(b, dir, "smollm2", "fuzz", func(text string, _ []int32) { mixed.WriteString(text) })
	for _, family := range families {
		tok, err := Load(filepath.Join(dir, family))
		require.NoError(b, err)
		for _, c := range []struct{ name, text string }{
			{"questions", questions.String()}, {"pages", prose(b)}, {"mixed", mixed.String()}, {"run", strings.Repeat("ab", 1<<19)},
		} {
			b.Run(family+"/"+c.name, func(b *testing.B) { benchmarkEncode(b, tok, c.text) })
		}
		b.Run(family+"/load", func(b *testing.B) {
			for b.Loop() {
				if _, err := Load(filepath.Join(dir, family)); err != nil {
					b.Fatal(err)
				}
			}
		})
		ids, err := tok.Encode(questions.String())
		require.NoError(b, err)
		b.Run(family+"/decode", func(b *testing.B) {
			b.SetBytes(int64(questions.Len()))
			for b.Loop() {
				tok.Decode(ids)
			}
		})
	}
}
