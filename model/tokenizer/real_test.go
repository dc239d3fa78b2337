package tokenizer

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// realEnv names the directory that testdata/fetch.py fills.
const realEnv = "UPDRAFT_TOKENIZERS"

var families = []string{"smollm2", "llama3.1", "llama3.2", "qwen2.5", "qwen3"}

func realDir(t testing.TB) string {
	dir := os.Getenv(realEnv)
	testx.Have(t, "tokenizers", dir != "")
	return dir
}

// eachText calls f with the texts of a set and their ids in a family.
func eachText(t testing.TB, dir, family, set string, f func(text string, want []int32)) {
	texts, err := os.Open(filepath.Join(dir, "texts", set+".jsonl"))
	require.NoError(t, err)
	defer texts.Close()
	ids, err := os.Open(filepath.Join(dir, "ids", family, set+".bin"))
	require.NoError(t, err)
	defer ids.Close()
	lines, numbers := bufio.NewReader(texts), bufio.NewReaderSize(ids, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var text string
		require.NoError(t, json.Unmarshal(line, &text))
		var n [1]uint32
		require.NoError(t, binary.Read(numbers, binary.LittleEndian, n[:]))
		want := make([]int32, n[0])
		require.NoError(t, binary.Read(numbers, binary.LittleEndian, want))
		f(text, want)
	}
	_, err = numbers.ReadByte()
	require.Error(t, err, "ids are left over")
}

// The ids equal those of Hugging Face's tokenizers, and decode to the text.
func TestRealTokenizers(t *testing.T) {
	dir := realDir(t)
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			tok, err := Load(filepath.Join(dir, family))
			require.NoError(t, err)
			for _, set := range []string{"mixed", "fuzz", "points", "data"} {
				if _, err := os.Stat(filepath.Join(dir, "ids", family, set+".bin")); set == "data" && err != nil {
					continue // made without UPDRAFT_DATA
				}
				texts, size, wrong, lost := 0, 0, 0, 0
				eachText(t, dir, family, set, func(text string, want []int32) {
					texts, size = texts+1, size+len(text)
					got, err := tok.Encode(text)
					require.NoError(t, err)
					if !equal(got, want) {
						if wrong++; wrong <= 3 {
							t.Errorf("%s: %.200q\n got %v\nwant %v", set, text, head(tok, got), head(tok, want))
						}
					}
					if back := tok.Decode(got); back != tok.kept(text) {
						if lost++; lost <= 3 {
							t.Errorf("%s: %.200q comes back as %.200q", set, text, back)
						}
					}
				})
				t.Logf("%s: %d texts, %d bytes, %d with other ids, %d not decoded", set, texts, size, wrong, lost)
			}
		})
	}
}

// kept is what encoding keeps of a text: all of it, in NFC where the file asks
// for that, without bytes that have no token.
func (t *Tokenizer) kept(text string) string {
	if t.nfc {
		text = nfc(text)
	}
	var b strings.Builder
	for i := range len(text) {
		if t.bpe.bytes[text[i]] >= 0 {
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

func equal(a, b []int32) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func head(t *Tokenizer, ids []int32) (out []string) {
	for _, id := range ids[:min(30, len(ids))] {
		s, _ := t.Token(id)
		out = append(out, s)
	}
	return out
}

// SmolLM2's tokenizer from the metadata of its GGUF file, and each of the
// others from metadata that GGUF makes of it.
func TestRealGGUF(t *testing.T) {
	dir := realDir(t)
	for _, family := range families {
		t.Run(family, func(t *testing.T) {
			var g GGUF
			if family == "smollm2" {
				b, err := os.ReadFile(filepath.Join(dir, family, "gguf.json"))
				require.NoError(t, err)
				var meta struct {
					Model  string   `json:"tokenizer.ggml.model"`
					Pre    string   `json:"tokenizer.ggml.pre"`
					Tokens []string `json:"tokenizer.ggml.tokens"`
					Types  []int32  `json:"tokenizer.ggml.token_type"`
					Merges []string `json:"tokenizer.ggml.merges"`
					BOS    int32    `json:"tokenizer.ggml.bos_token_id"`
					EOS    int32    `json:"tokenizer.ggml.eos_token_id"`
					PAD    int32    `json:"tokenizer.ggml.padding_token_id"`
					AddBOS *bool    `json:"tokenizer.ggml.add_bos_token"`
				}
				require.NoError(t, json.Unmarshal(b, &meta))
				g = GGUF{meta.Model, meta.Pre, meta.Tokens, meta.Types, meta.Merges, meta.BOS, meta.EOS, meta.PAD, meta.AddBOS, nil}
			} else {
				file, err := Load(filepath.Join(dir, family))
				require.NoError(t, err)
				g, err = file.GGUF()
				require.NoError(t, err)
			}
			tok, err := FromGGUF(g)
			require.NoError(t, err)
			for _, set := range []string{"mixed", "fuzz"} {
				wrong := 0
				eachText(t, dir, family, set, func(text string, want []int32) {
					if got, err := tok.Encode(text); err != nil || !equal(got, want) {
						wrong++
					}
				})
				require.Zero(t, wrong, "%s: texts with other ids", set)
			}
		})
	}
}
