package task

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConversations(t *testing.T) {
	tok, err := NewDemoTokenizer()
	require.NoError(t, err)
	end := tok.Special().EOS
	read := func(line string, render func([]Turn) (string, error)) (*FileExamples, error) {
		path := filepath.Join(t.TempDir(), "d.jsonl")
		require.NoError(t, os.WriteFile(path, []byte(line+"\n"), 0o644))
		return ReadDemonstrations(path, tok, render, end, 40)
	}
	// Each turn of the assistant is learnt after all that stands before it.
	const three = `{"messages": [{"role": "system", "content": "1 "}, {"role": "user", "content": "2 "}, {"role": "assistant", "content": "3 "},
		{"role": "user", "content": "4 "}, {"role": "assistant", "content": "5 "}]}`
	e, err := read(strings.ReplaceAll(three, "\n", ""), func(turns []Turn) (string, error) {
		s := ""
		for _, m := range turns {
			s += m.Content + map[string]string{"system": ";", "user": "?", "assistant": "!"}[m.Role]
		}
		return s + "=", nil
	})
	require.NoError(t, err)
	require.Equal(t, 2, e.Len())
	for i, want := range []struct{ prompt, response string }{{"1 ;2 ?=", "3 "}, {"1 ;2 ?3 !4 ?=", "5 "}} {
		ex, err := e.Example(i)
		require.NoError(t, err)
		require.Equal(t, want.prompt, strings.TrimPrefix(tok.Decode(ex.Prompt), "<bos>"))
		require.Equal(t, want.response, tok.Decode(ex.Response[:len(ex.Response)-1]))
		require.Equal(t, end, ex.Response[len(ex.Response)-1])
		require.Len(t, ex.Weights, len(ex.Response))
		require.NotContains(t, ex.Weights, float32(0))
	}
	for line, want := range map[string]string{
		`{"messages": [{"role": "user", "content": "1"}]}`:                                     "no turn of an assistant to learn from",
		`{"messages": [{"role": "assistant", "content": "1"}]}`:                                "message 1: an assistant's turn must follow a user's",
		`{"messages": [{"role": "user", "content": "1"}, {"role": "system", "content": "1"}]}`: "message 2: a system message must be the first",
		`{"messages": []}`:    "must be text or a list of messages",
		`{"prompt": "1"}`:     "missing: it must be the text to learn",
		`{"completion": "1"}`: "missing: give prompt and completion, or messages",
		`{"prompt": "` + strings.Repeat("1", 50) + `", "completion": "2"}`: "exceed the model's context of 40",
	} {
		_, err := read(line, nil)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "d.jsonl:1: ")
	}
}
