package task

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task/answer"
)

// Names under which data sets keep their questions and answers, in the order in
// which they are looked for.
var (
	promptColumns = []string{"prompt", "question", "problem", "input", "Question", "messages", "conversations"}
	answerColumns = []string{"answer", "target", "gold", "Answer", "solution", "label"}
)

// ReadFile reads a JSONL file of questions: see Read.
func (t Questions) ReadFile(path string) ([]gapg.Prompt, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("%s is a directory: give a JSONL file, one object per line", path)
	}
	return t.Read(f, path)
}

// Read reads one question per line, a JSON object with a prompt and an answer
// column. The prompt is text, or a list of messages {"role": …, "content": …};
// where there is no answer column the last message, an assistant's, holds the
// answer. Of an answer that is a whole solution the part behind the last "####"
// counts (GSM8K), or what the last \boxed{} holds (MATH). Columns that are not
// named are found by the first line. name stands for the file in errors; a fault
// of a line is a *LineError. A question that is there twice is returned twice,
// under one ID.
func (t Questions) Read(r io.Reader, name string) ([]gapg.Prompt, error) {
	var out []gapg.Prompt
	br := bufio.NewReaderSize(r, 64<<10)
	const most = 16 << 20
	for n := 1; ; n++ {
		line, err := readLine(br, most)
		if errors.Is(err, errLineTooLong) {
			return nil, &LineError{name, n, "", fmt.Sprintf("the line is longer than %d bytes: is this a JSONL file, one object per line?", most)}
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("%s: line %d: %w", name, n, err)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			var columns map[string]json.RawMessage
			if line[0] != '{' {
				return nil, &LineError{name, n, "", "not a JSON object: each line must be one, with the question and its answer"}
			}
			if err := json.Unmarshal(line, &columns); err != nil {
				return nil, &LineError{name, n, "", fmt.Sprintf("malformed JSON: %v", err)}
			}
			if len(out) == 0 {
				t.findColumns(columns)
			}
			q, err := t.question(columns)
			if err != nil {
				return nil, &LineError{name, n, "", err.Error()}
			}
			out = append(out, t.Prompt(q))
		}
		if err == io.EOF {
			break
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: the file holds no question: each line must be an object like {\"question\": \"…\", \"answer\": \"…\"}", name)
	}
	return out, nil
}

// findColumns names the columns that the user has not.
func (t *Questions) findColumns(columns map[string]json.RawMessage) {
	find := func(column *string, names []string) {
		for _, n := range names {
			if _, ok := columns[n]; ok && *column == "" {
				*column = n
			}
		}
	}
	if t.Template == "" {
		find(&t.PromptColumn, promptColumns)
	}
	find(&t.AnswerColumn, answerColumns)
}

// question reads one line.
func (t Questions) question(columns map[string]json.RawMessage) (Question, error) {
	var q Question
	var err error
	if t.Template != "" {
		text, err := fill(t.Template, columns)
		if err != nil {
			return q, err
		}
		q.Turns = []Turn{{Role: "user", Content: text}}
	} else {
		raw, ok := columns[t.PromptColumn]
		if !ok {
			return q, missingColumn(or(t.PromptColumn, "question"), columns, "--prompt-column or --prompt-template")
		}
		if q.Turns, err = turns(raw); err != nil {
			return q, fmt.Errorf("column %q: %w", t.PromptColumn, err)
		}
	}
	last := q.Turns[len(q.Turns)-1]
	_, hasAnswer := columns[t.AnswerColumn]
	if last.Role == "assistant" { // a demonstration: its last message is the answer
		q.Turns = q.Turns[:len(q.Turns)-1]
		if t.AnswerColumn == "" {
			q.Answer, hasAnswer = solved(last.Content, t.Verifier), true
			q.Solution = solution(last.Content, t.Verifier)
		}
	}
	if len(q.Turns) == 0 || q.Turns[len(q.Turns)-1].Role != "user" || strings.TrimSpace(q.Turns[len(q.Turns)-1].Content) == "" {
		return q, fmt.Errorf("column %q: holds no question of a user", t.PromptColumn)
	}
	if !hasAnswer {
		return q, missingColumn(or(t.AnswerColumn, "answer"), columns, "--answer-column")
	}
	if t.AnswerColumn != "" {
		raw := columns[t.AnswerColumn]
		if q.Answer, err = gold(raw, t.Verifier); err != nil {
			return q, fmt.Errorf("column %q: %w", t.AnswerColumn, err)
		}
		var text string
		if raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
			q.Solution = solution(text, t.Verifier)
		}
	}
	if !t.Verifier.Same(q.Answer, q.Answer) {
		return q, fmt.Errorf("column %q: %s is no answer that --verifier %s can judge; choose another --verifier or --answer-column", or(t.AnswerColumn, t.PromptColumn), excerpt([]byte(q.Answer)), t.Verifier)
	}
	return q, nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func missingColumn(name string, columns map[string]json.RawMessage, flag string) error {
	var have []string
	for c := range columns {
		have = append(have, c)
	}
	slices.Sort(have)
	if len(have) > 12 {
		have = append(have[:12], "…")
	}
	return fmt.Errorf("no column %q; the line has %s; set %s", name, or(strings.Join(have, ", "), "none"), flag)
}

// turns reads a prompt: text, or messages.
func turns(raw json.RawMessage) ([]Turn, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil && raw[0] == '"' {
		return []Turn{{Role: "user", Content: text}}, nil
	}
	var messages []struct {
		Role    *string `json:"role"`
		Content *string `json:"content"`
	}
	if err := json.Unmarshal(raw, &messages); err != nil || len(messages) == 0 {
		return nil, fmt.Errorf("must be text or a list of messages with role and content, is %s", excerpt(raw))
	}
	var out []Turn
	for i, m := range messages {
		if m.Role == nil || m.Content == nil {
			return nil, fmt.Errorf("message %d: must have a role and a text as content", i+1)
		}
		switch *m.Role {
		case "user", "assistant":
		case "system":
			if i > 0 {
				return nil, fmt.Errorf("message %d: a system message must be the first", i+1)
			}
		default:
			return nil, fmt.Errorf("message %d: role %q: must be system, user or assistant", i+1, *m.Role)
		}
		out = append(out, Turn{*m.Role, *m.Content})
	}
	return out, nil
}

// fill replaces {column} in a template; {{ and }} stand for braces.
func fill(template string, columns map[string]json.RawMessage) (string, error) {
	var b strings.Builder
	for i := 0; i < len(template); {
		rest := template[i:]
		switch {
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			b.WriteByte(rest[0])
			i += 2
		case rest[0] == '{':
			name, _, ok := strings.Cut(rest[1:], "}")
			if !ok {
				return "", errors.New("--prompt-template: a { is not closed; {{ stands for a brace")
			}
			raw, ok := columns[name]
			if !ok {
				return "", missingColumn(name, columns, "--prompt-template")
			}
			s, err := columnText(raw)
			if err != nil {
				return "", fmt.Errorf("column %q: %w", name, err)
			}
			b.WriteString(s)
			i += len(name) + 2
		default:
			b.WriteByte(rest[0])
			i++
		}
	}
	return b.String(), nil
}

// columnText is a column inside a question: text, a number, or a list of texts
// as lettered choices.
func columnText(raw json.RawMessage) (string, error) {
	var list []string
	if json.Unmarshal(raw, &list) == nil && len(list) > 0 && len(list) <= 26 {
		for i := range list {
			list[i] = string(rune('A'+i)) + ". " + list[i]
		}
		return strings.Join(list, "\n"), nil
	}
	return scalar(raw)
}

// scalar is text, a number as it is written, or true or false.
func scalar(raw json.RawMessage) (string, error) {
	var text string
	switch {
	case len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil:
		return text, nil
	case len(raw) > 0 && (raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9' || raw[0] == 't' || raw[0] == 'f'):
		return string(raw), nil
	}
	return "", fmt.Errorf("must be text, a number, true or false, is %s", excerpt(raw))
}

// gold is the answer that a column gives.
func gold(raw json.RawMessage, v Verifier) (string, error) {
	s, err := scalar(raw)
	if err != nil {
		return "", err
	}
	if raw[0] == '"' {
		s = solved(s, v)
		if s == "" {
			return "", errors.New("empty")
		}
		return s, nil
	}
	if v == VerifyChoice { // the index of a list of choices
		if n, ok := wholeNumber(raw); ok && n >= 0 && n < 26 {
			return string(rune('A' + n)), nil
		}
	}
	if strings.ContainsAny(s, "eE") && len(s) < 20 && raw[0] != 't' && raw[0] != 'f' {
		var n json.Number
		if err := json.Unmarshal(raw, &n); err != nil {
			return "", err
		}
		f, err := n.Float64()
		if r := new(big.Rat).SetFloat64(f); err == nil && r != nil && (f == 0 || f > 1e-30 && f < 1e30 || f < -1e-30 && f > -1e30) {
			if exact, ok := new(big.Rat).SetString(s); ok {
				r = exact
			}
			return decimalText(r), nil
		}
		return "", fmt.Errorf("%s is out of range", s)
	}
	return s, nil
}

// solved is the answer inside a solution. A JSON answer that is not a solution
// is returned as it is.
func solved(s string, v Verifier) string {
	if text, marked := v.Answer(s); marked {
		return text
	}
	if text, ok := answer.Boxed(s); ok { // \boxed 7
		return text
	}
	return strings.TrimSpace(s)
}

// calculatorNote is what GSM8K's solutions have behind each "=".
var calculatorNote = regexp.MustCompile(`<<[^<>]*>>`)

// solution is a text that marks its answer, to be learnt; "" where it does not.
func solution(s string, v Verifier) string {
	if _, marked := v.Answer(s); !marked {
		return ""
	}
	return strings.TrimSpace(calculatorNote.ReplaceAllString(s, ""))
}
