package report

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// sample is a transcript made ready for the template.
type sample struct {
	Kind, Label string // CSS class and words
	Prompt      string
	Parts       []part
	Long        bool
	Decision    string
	Asked       bool
	Cloud       string
	Answer      string
	Correct     bool
	Verdict     string
	Forced      string
	Facts       []string
}

// part is a stretch of a response: class "think", "answer", "help" or "tag".
type part struct{ Class, Text string }

// longResponse is the number of runes above which a response is folded.
const longResponse = 900

var kindLabels = map[TranscriptKind]string{
	Solved: "solved on the device", AskedEarly: "asked early", AskedLate: "asked late", Wrong: "answered wrongly",
}

func newSample(t *Transcript) sample {
	s := sample{
		Kind: cssName(string(t.Kind)), Label: kindLabels[t.Kind], Prompt: strings.TrimSpace(t.Prompt),
		Parts: split(t.Response), Long: utf8.RuneCountInString(t.Response) > longResponse,
		Asked: t.Asked, Cloud: strings.TrimSpace(t.Cloud), Answer: t.Answer, Correct: t.Correct,
	}
	if s.Label == "" {
		s.Label = string(t.Kind)
	}
	switch {
	case t.Asked && t.Correct:
		s.Verdict = "the cloud was right"
	case t.Asked:
		s.Verdict = "the cloud was wrong"
	case t.Correct:
		s.Verdict = "the device was right"
	default:
		s.Verdict = "the device was wrong"
	}
	switch {
	case t.Asked:
		s.Decision = "asked the cloud"
	case t.Answer == "":
		s.Decision = "gave no answer"
	default:
		s.Decision = "answered on the device"
	}
	if t.ForcedCorrect != nil {
		s.Forced = "With calls disabled the device "
		if *t.ForcedCorrect {
			s.Forced += "would have been right"
		} else {
			s.Forced += "would have been wrong"
		}
		if t.Forced != "" {
			s.Forced += ": " + t.Forced
		}
		s.Forced += "."
	}
	if t.Tokens > 0 {
		unit := "tokens"
		if t.Tokens == 1 {
			unit = "token"
		}
		s.Facts = append(s.Facts, fmt.Sprintf("%s %s", groupDigits(fmt.Sprint(t.Tokens)), unit))
	}
	if t.Reward != nil {
		s.Facts = append(s.Facts, "reward "+number(*t.Reward, 3))
	}
	return s
}

// tags finds what the report sets apart in a response. It only colours text;
// what counts as a call or an answer was decided elsewhere.
var tags = regexp.MustCompile(`(?i)<unknown>\s*I need external assistance\s*</unknown>|</?(?:think|answer|unknown)>`)

// split cuts a response at its tags.
func split(text string) []part {
	var parts []part
	class := "think"
	add := func(class, text string) {
		if text != "" {
			parts = append(parts, part{class, text})
		}
	}
	at := 0
	for _, m := range tags.FindAllStringIndex(text, -1) {
		tag := strings.ToLower(text[m[0]:m[1]])
		add(class, text[at:m[0]])
		switch {
		case strings.HasPrefix(tag, "<unknown>") && strings.HasSuffix(tag, "</unknown>"):
			add("help", text[m[0]:m[1]])
		default:
			add("tag", text[m[0]:m[1]])
		}
		switch tag {
		case "<answer>":
			class = "answer"
		case "</answer>":
			class = "think"
		}
		at = m[1]
	}
	add(class, text[at:])
	return parts
}
