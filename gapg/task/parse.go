package task

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The marker that asks for help and the tags of a response, as they appear in
// text. A tokenizer may hold each as one token.
const (
	Marker      = "<unknown> I need external assistance </unknown>"
	ThinkOpen   = "<think>"
	ThinkClose  = "</think>"
	AnswerOpen  = "<answer>"
	AnswerClose = "</answer>"
)

const (
	unknownOpen  = "<unknown>"
	unknownClose = "</unknown>"
)

// markerWords are the words that must stand between the marker's tags.
var markerWords = [...]string{"i", "need", "external", "assistance"}

// Response is what a completion says, before anybody judges its answer.
type Response struct {
	// Help is true if the completion ends in the marker. A response that asks
	// for help is never graded as a device answer: HasAnswer and FormatKept are
	// then false whatever stands before the marker.
	Help bool

	// Answer is the text inside the last <answer>…</answer>, without white
	// space around it; HasAnswer is false if there is no such pair.
	Answer    string
	HasAnswer bool

	// FormatKept is true if the completion is <think>…</think>, then
	// <answer>…</answer>, and nothing else but white space.
	FormatKept bool
}

// ParseOptions say how a response was prompted. The zero value fits a prompt
// after which the model writes <think> itself.
type ParseOptions struct {
	// ThinkOpened is true if the prompt already ends in <think>, so that the
	// completion begins inside the thought.
	ThinkOpened bool
}

// Parse reads a completion. Special tokens of a model (end of text, end of
// turn) must have been taken off by the caller; a completion that was cut at
// its greatest length is passed as it is.
func Parse(completion string, opt ParseOptions) Response {
	if AsksForHelp(completion) {
		return Response{Help: true}
	}
	var r Response
	r.Answer, r.HasAnswer = LastAnswer(completion)
	r.FormatKept = r.HasAnswer && formatKept(completion, opt)
	return r
}

// AsksForHelp reports whether the completion ends in the marker. White space
// may stand between the marker's words and tags and after it, and ASCII letters
// match in either case. A marker that anything else follows, one that is not
// closed and one with other words between its tags is not a call.
func AsksForHelp(completion string) bool {
	// Read from the end, so that the cost does not depend on what is before.
	s, ok := cutSuffixFold(trimSpaceRight(completion), unknownClose)
	if !ok {
		return false
	}
	for i := len(markerWords) - 1; i >= 0; i-- {
		t, ok := cutSuffixFold(trimSpaceRight(s), markerWords[i])
		if !ok {
			return false
		}
		if i > 0 && trimSpaceRight(t) == t {
			return false // words of the marker run together
		}
		s = t
	}
	_, ok = cutSuffixFold(trimSpaceRight(s), unknownOpen)
	return ok
}

// LastAnswer returns the text inside the last <answer>…</answer> without white
// space around it. The last pair is the last <answer> that is closed after it,
// up to its first </answer>: an answer that was begun and not closed does not
// hide the one before it.
func LastAnswer(completion string) (string, bool) {
	end := strings.LastIndex(completion, AnswerClose)
	if end < 0 {
		return "", false
	}
	start := strings.LastIndex(completion[:end], AnswerOpen)
	if start < 0 {
		return "", false
	}
	body := completion[start+len(AnswerOpen):]
	body = body[:strings.Index(body, AnswerClose)]
	return strings.TrimFunc(body, isSpace), true
}

// formatKept checks the one allowed shape: each tag exactly once and in order,
// and only white space outside the two pairs. The answer must not be blank.
func formatKept(s string, opt ParseOptions) bool {
	if !opt.ThinkOpened {
		var ok bool
		if s, ok = strings.CutPrefix(strings.TrimLeftFunc(s, isSpace), ThinkOpen); !ok {
			return false
		}
	}
	thought, rest, ok := strings.Cut(s, ThinkClose)
	if !ok || hasTag(thought) {
		return false
	}
	rest, ok = strings.CutPrefix(strings.TrimLeftFunc(rest, isSpace), AnswerOpen)
	if !ok {
		return false
	}
	answer, rest, ok := strings.Cut(rest, AnswerClose)
	if !ok || hasTag(answer) || trimSpaceRight(answer) == "" {
		return false
	}
	return trimSpaceRight(rest) == ""
}

func hasTag(s string) bool {
	return strings.Contains(s, ThinkOpen) || strings.Contains(s, ThinkClose) ||
		strings.Contains(s, AnswerOpen) || strings.Contains(s, AnswerClose)
}

// LastBoxed returns the inside of the last \boxed{…} or \fbox{…} whose braces
// match, as mathematics tasks mark their answers. Escaped braces do not count.
func LastBoxed(completion string) (string, bool) {
	for end := len(completion); ; {
		i := max(strings.LastIndex(completion[:end], `\boxed`), strings.LastIndex(completion[:end], `\fbox`))
		if i < 0 {
			return "", false
		}
		rest := completion[i:]
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, `\boxed`), `\fbox`)
		if inside, ok := braced(strings.TrimLeftFunc(rest, isSpace)); ok {
			return strings.TrimFunc(inside, isSpace), true
		}
		end = i
	}
}

// braced returns what stands inside the braces that s begins with.
func braced(s string) (string, bool) {
	if s == "" || s[0] != '{' {
		return "", false
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++ // the next byte is escaped
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return s[1:i], true
			}
		}
	}
	return "", false
}

// isSpace is Unicode's white space. Invisible characters that are not white
// space (a zero-width joiner) are text.
func isSpace(r rune) bool { return unicode.IsSpace(r) }

func trimSpaceRight(s string) string {
	for len(s) > 0 {
		r, n := utf8.DecodeLastRuneInString(s)
		if !isSpace(r) {
			break
		}
		s = s[:len(s)-n]
	}
	return s
}

// cutSuffixFold is strings.CutSuffix with ASCII letters matched in either case.
// Unicode's folding is not used: it would let U+017F stand for an s. suffix is
// in lower case.
func cutSuffixFold(s, suffix string) (string, bool) {
	if len(s) < len(suffix) {
		return s, false
	}
	tail := s[len(s)-len(suffix):]
	for i := range len(suffix) {
		c := tail[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != suffix[i] {
			return s, false
		}
	}
	return s[:len(s)-len(suffix)], true
}
