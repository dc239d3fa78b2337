package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task/answer"
)

// Verifier says when an answer is right.
type Verifier string

// The verifiers: see package answer.
const (
	VerifyExact   Verifier = "exact"   // the same words
	VerifyNumeric Verifier = "numeric" // the same number
	VerifyMath    Verifier = "math"    // the same mathematics, in LaTeX or plain
	VerifyChoice  Verifier = "choice"  // the same letter of a multiple choice
)

// Verifiers lists them.
func Verifiers() []Verifier {
	return []Verifier{VerifyNumeric, VerifyMath, VerifyExact, VerifyChoice}
}

// Same reports whether an answer is the gold one.
func (v Verifier) Same(got, gold string) bool {
	switch v {
	case VerifyExact:
		return answer.Exact(got, gold)
	case VerifyNumeric:
		return answer.Numeric(got, gold)
	case VerifyMath:
		return answer.Math(got, gold)
	case VerifyChoice:
		return answer.Choice(got, gold)
	}
	return false
}

// Instruction tells a model to write its answer where Answer finds it.
func (v Verifier) Instruction() string {
	switch v {
	case VerifyExact:
		return `End with the final answer alone in <answer></answer>.`
	case VerifyNumeric:
		return `Reason step by step, and end with the final number in \boxed{}.`
	case VerifyChoice:
		return `Reason step by step, and end with the letter of the right choice in \boxed{}.`
	}
	return `Reason step by step, and end with the final answer in \boxed{}.`
}

// HelpInstruction tells the device's model that it may ask for help. No cloud
// reads it.
const HelpInstruction = "If you cannot solve the problem, end your response with " + Marker + " instead of an answer."

// Answer finds the answer in a response, a device's or a cloud's. It is what
// the last mark in the text holds: \boxed{…} (or \fbox), <answer>…</answer>, or
// "#### " up to the end of its line. In a text without a mark it is the last
// number where the verifier is numeric, and the last line that is not blank where
// it is another; marked is then false.
func (v Verifier) Answer(response string) (text string, marked bool) {
	// A mark's place is where it begins.
	place := -1
	if boxed, ok := LastBoxed(response); ok {
		text, place = boxed, max(strings.LastIndex(response, `\boxed`), strings.LastIndex(response, `\fbox`))
	}
	if inside, ok := LastAnswer(response); ok {
		end := strings.LastIndex(response, AnswerClose)
		if at := strings.LastIndex(response[:end], AnswerOpen); at > place {
			text, place = inside, at
		}
	}
	if at := strings.LastIndex(response, "####"); at > place {
		line, _, _ := strings.Cut(response[at+4:], "\n")
		if line = strings.TrimSpace(strings.TrimLeft(line, "#")); line != "" {
			text, place = line, at
		}
	}
	if place >= 0 {
		return text, true
	}
	if v == VerifyNumeric {
		if n, ok := answer.Number(response); ok {
			return n.RatString(), false
		}
		return "", false
	}
	response = strings.TrimSpace(response)
	return strings.TrimSpace(response[strings.LastIndexByte(response, '\n')+1:]), false
}

// Turn is a message of a conversation.
type Turn struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Question is the Gold of a prompt of Questions.
type Question struct {
	Turns    []Turn // what the data set asks: the last turn is a user's
	Answer   string // the gold answer; "" where a question was typed and none is known
	Verifier Verifier
	// Solution is the worked solution that ends in Answer, without GSM8K's
	// calculator notes (<<6*7=42>>); "" where the data set has the answer alone.
	Solution string
}

// Reference is the gold answer, for rewards by a scorer.
func (q Question) Reference() string { return q.Answer }

// Questions is a data set of questions with answers as a gapg.Task.
type Questions struct {
	Verifier Verifier
	// Columns of the data set; "" finds the usual names: see ReadQuestions.
	PromptColumn, AnswerColumn string
	// Template makes a question of a line's columns, as in "{Body} {Question}"; ""
	// takes the prompt column as it is.
	Template string
	// Instruction is added to each question, for the device's model alone; the
	// cloud always reads the verifier's own.
	Instruction string
	// Help is added to the system message, for the device's model alone.
	Help string
}

var _ gapg.Task = Questions{}

// Name returns "questions" with the verifier.
func (t Questions) Name() string { return "questions (" + string(t.Verifier) + ")" }

// Prompt makes the prompt of a question. Its ID is a hash of what is asked, so
// that the same question is the same prompt in any file. Text is the whole
// conversation in plain text, for models without a chat template: see Turns.
func (t Questions) Prompt(q Question) gapg.Prompt {
	q.Verifier = t.Verifier
	asked, _ := json.Marshal(q.Turns) // strings always have a JSON form
	sum := sha256.Sum256(asked)
	p := gapg.Prompt{ID: hex.EncodeToString(sum[:12]), Gold: q}
	p.Text = plain(t.Turns(p)) + "\n"
	p.CloudText = plain(withInstruction(q.Turns, t.Verifier.Instruction()))
	return p
}

// Turns is the conversation that the device's model reads: the data set's own,
// with Help in its system message, which is made where there is none, and
// Instruction behind the question.
func (t Questions) Turns(p gapg.Prompt) []Turn {
	q, ok := p.Gold.(Question)
	if !ok {
		return []Turn{{Role: "user", Content: p.Text}}
	}
	out := withInstruction(q.Turns, t.Instruction)
	switch {
	case t.Help == "":
	case out[0].Role == "system":
		out[0].Content += "\n\n" + t.Help
	default:
		out = append([]Turn{{Role: "system", Content: t.Help}}, out...)
	}
	return out
}

// withInstruction is a copy of turns with s behind the last one.
func withInstruction(turns []Turn, s string) []Turn {
	out := append([]Turn(nil), turns...)
	if s != "" {
		out[len(out)-1].Content += "\n\n" + s
	}
	return out
}

// plain is a conversation as text: its messages, blank lines between them.
func plain(turns []Turn) string {
	var parts []string
	for _, m := range turns {
		parts = append(parts, m.Content)
	}
	return strings.Join(parts, "\n\n")
}

// Judge implements gapg.Task. The format is kept where the answer is marked.
func (t Questions) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	q, err := questionOf(p)
	if err != nil {
		return gapg.Verdict{}, err
	}
	if AsksForHelp(response) {
		return gapg.Verdict{Help: true}, nil
	}
	text, marked := q.Verifier.Answer(response)
	return gapg.Verdict{Correct: q.Answer != "" && q.Verifier.Same(text, q.Answer), Format: marked, Answer: text}, nil
}

// JudgeCloud implements gapg.Task: the cloud's answer is found as a device's is.
func (t Questions) JudgeCloud(_ context.Context, p gapg.Prompt, reply string) (bool, error) {
	q, err := questionOf(p)
	if err != nil || AsksForHelp(reply) {
		return false, err
	}
	text, _ := q.Verifier.Answer(reply)
	return q.Answer != "" && q.Verifier.Same(text, q.Answer), nil
}

func questionOf(p gapg.Prompt) (Question, error) {
	q, ok := p.Gold.(Question)
	if !ok {
		return q, fmt.Errorf("questions: the prompt's gold is a %T, not a task.Question", p.Gold)
	}
	return q, nil
}
