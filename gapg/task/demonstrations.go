package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"

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
// as tokens, end appended. Messages are a user's and an assistant's, and are
// read as prompt and completion. render makes of a prompt what the model reads,
// such as a chat template's text; nil: the prompt as it is. Every token of a
// completion is trained on. context is the longest sequence. A fault of a line
// is a *LineError.
func ReadDemonstrations(path string, tok *tokenizer.Tokenizer, render func(prompt string) (string, error), end int32, context int) (*FileExamples, error) {
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
			ex, lerr := parseDemonstration(line, tok, render, end, context)
			if lerr != nil {
				lerr.File, lerr.Line = path, n
				return nil, lerr
			}
			out.examples = append(out.examples, ex)
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

func parseDemonstration(line []byte, tok *tokenizer.Tokenizer, render func(string) (string, error), end int32, context int) (gapg.Example, *LineError) {
	fail := func(field, format string, args ...any) (gapg.Example, *LineError) {
		return gapg.Example{}, &LineError{Field: field, Msg: fmt.Sprintf(format, args...)}
	}
	var d struct {
		Prompt     *string `json:"prompt"`
		Completion *string `json:"completion"`
		Messages   []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.Unmarshal(line, &d); err != nil {
		return fail("", "malformed JSON: %v", err)
	}
	switch {
	case d.Messages != nil:
		if m := d.Messages; len(m) != 2 || m[0].Role != "user" || m[1].Role != "assistant" {
			return fail("messages", "must be one of a user and one of an assistant, in this order")
		}
		d.Prompt, d.Completion = &d.Messages[0].Content, &d.Messages[1].Content
	case d.Prompt == nil:
		return fail("prompt", "missing: give prompt and completion, or messages")
	case d.Completion == nil:
		return fail("completion", "missing: it must be the text to learn")
	}
	var ex gapg.Example
	var err error
	text := *d.Prompt
	if render != nil {
		if text, err = render(text); err != nil {
			return fail("prompt", "%v", err)
		}
	}
	if ex.Prompt, err = gapg.EncodePrompt(tok, text); err != nil {
		return fail("prompt", "%v", err)
	}
	if len(ex.Prompt) == 0 {
		return fail("prompt", "empty")
	}
	if ex.Response, err = tok.Encode(*d.Completion); err != nil {
		return fail("completion", "%v", err)
	}
	if ex.Response = append(ex.Response, end); len(ex.Prompt)+len(ex.Response) > context {
		return fail("", "%d tokens exceed the model's context of %d: shorten or remove the line", len(ex.Prompt)+len(ex.Response), context)
	}
	ex.Weights = make([]float32, len(ex.Response))
	for i := range ex.Weights {
		ex.Weights[i] = 1
	}
	return ex, nil
}
