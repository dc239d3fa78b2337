package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// FileExamples are demonstrations read from a file: a gapg.Examples that walks
// through them in order, over and over.
type FileExamples struct{ examples []gapg.Example }

var _ gapg.Examples = (*FileExamples)(nil)

// Len returns the number of demonstrations in the file.
func (e *FileExamples) Len() int { return len(e.examples) }

// Example implements gapg.Examples.
func (e *FileExamples) Example(i int) (gapg.Example, error) {
	return e.examples[i%len(e.examples)], nil
}

// ReadDemonstrations reads one demonstration per line of a JSONL file,
//
//	{"prompt": "…", "completion": "…"}
//	{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
//
// as tokens, end appended. A conversation, with a system message first or
// without, is a demonstration for each turn of its assistant: what stands before
// it is the prompt, as the model meets it when it answers, and the turn alone is
// trained on. render makes of a conversation what the model reads, such as a chat
// template's text; nil: its messages, blank lines between them. context is the
// longest sequence. A fault of a line is a *LineError.
func ReadDemonstrations(path string, tok *tokenizer.Tokenizer, render func(turns []Turn) (string, error), end int32, context int) (*FileExamples, error) {
	if render == nil {
		render = func(turns []Turn) (string, error) { return plain(turns), nil }
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := &FileExamples{}
	br := bufio.NewReaderSize(f, 64<<10)
	const most = 16 << 20
	for n := 1; ; n++ {
		line, err := readLine(br, most)
		if err != nil && err != io.EOF {
			return nil, &LineError{path, n, "", err.Error()}
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			some, lerr := parseDemonstrations(line, tok, render, end, context)
			if lerr != nil {
				lerr.File, lerr.Line = path, n
				return nil, lerr
			}
			out.examples = append(out.examples, some...)
		}
		if err == io.EOF {
			break
		}
	}
	if len(out.examples) == 0 {
		return nil, fmt.Errorf("%s: the file holds no demonstration: each line must be an object like {\"prompt\": \"…\", \"completion\": \"…\"}", path)
	}
	return out, nil
}

func parseDemonstrations(line []byte, tok *tokenizer.Tokenizer, render func([]Turn) (string, error), end int32, context int) ([]gapg.Example, *LineError) {
	fail := func(field, format string, args ...any) ([]gapg.Example, *LineError) {
		return nil, &LineError{Field: field, Msg: fmt.Sprintf(format, args...)}
	}
	var d struct {
		Prompt     *string         `json:"prompt"`
		Completion *string         `json:"completion"`
		Messages   json.RawMessage `json:"messages"`
	}
	if err := json.Unmarshal(line, &d); err != nil {
		return fail("", "malformed JSON: %v", err)
	}
	var said []Turn
	field := "messages"
	switch {
	case d.Messages != nil:
		var err error
		if said, err = turns(d.Messages); err != nil {
			return fail(field, "%v", err)
		}
	case d.Prompt == nil:
		return fail("prompt", "missing: give prompt and completion, or messages")
	case d.Completion == nil:
		return fail("completion", "missing: it must be the text to learn")
	default:
		field = "prompt"
		said = []Turn{{"user", *d.Prompt}, {"assistant", *d.Completion}}
	}
	var out []gapg.Example
	for k, turn := range said {
		if turn.Role != "assistant" {
			continue
		}
		if k == 0 || said[k-1].Role != "user" {
			return fail(field, "message %d: an assistant's turn must follow a user's", k+1)
		}
		ex, err := demonstration(said[:k], turn.Content, tok, render, end)
		if err != nil {
			return fail(field, "%v", err)
		}
		if n := len(ex.Prompt) + len(ex.Response); n > context {
			return fail("", "%d tokens exceed the model's context of %d: shorten or remove the line", n, context)
		}
		out = append(out, ex)
	}
	if len(out) == 0 {
		return fail(field, "no turn of an assistant to learn from")
	}
	return out, nil
}

// demonstration is one turn to learn, in tokens.
func demonstration(before []Turn, text string, tok *tokenizer.Tokenizer, render func([]Turn) (string, error), end int32) (ex gapg.Example, err error) {
	prompt, err := render(before)
	if err != nil {
		return ex, err
	}
	if ex.Prompt, err = gapg.EncodePrompt(tok, prompt); err != nil {
		return ex, err
	}
	if len(ex.Prompt) == 0 {
		return ex, errors.New("empty")
	}
	if ex.Response, err = tok.Encode(text); err != nil {
		return ex, fmt.Errorf("completion: %w", err)
	}
	ex.Response = append(ex.Response, end)
	ex.Weights = slices.Repeat([]float32{1}, len(ex.Response))
	return ex, nil
}
