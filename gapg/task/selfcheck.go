package task

import "strings"

// SelfCheck predicts from the response alone whether the device's answer is
// right: a baseline of the comparison for tasks whose traces show it. Its rule is
// what a reader with no calculator would do: the last value that the thought
// works out, the number after its last "=", is the target. A response that asks
// for help, has no answer or no such number is predicted wrong.
//
// It does not look whether the steps are right or use the right numbers. Check
// does, and needs no gold answer either: in Countdown an answer can be verified by
// anybody. Tasks where it cannot have no such rule.
func (p Countdown) SelfCheck(response string) bool {
	r := Parse(response, ParseOptions{})
	if r.Help || !r.HasAnswer {
		return false
	}
	thought := response
	if i := strings.Index(thought, ThinkClose); i >= 0 {
		thought = thought[:i]
	} else if i := strings.LastIndex(thought, AnswerOpen); i >= 0 {
		thought = thought[:i]
	}
	v, ok := lastValue(thought)
	return ok && v == p.Target
}

// lastValue returns the whole number after the last "=".
func lastValue(s string) (int, bool) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return 0, false
	}
	s = strings.TrimLeft(s[i+1:], " ")
	negative := false
	for _, sign := range []string{"-", "−"} {
		if t, ok := strings.CutPrefix(s, sign); ok {
			s, negative = strings.TrimLeft(t, " "), true
			break
		}
	}
	n, digits := 0, 0
	for digits < len(s) && '0' <= s[digits] && s[digits] <= '9' && digits < maxDigits {
		n = 10*n + int(s[digits]-'0')
		digits++
	}
	if digits == 0 {
		return 0, false
	}
	switch rest := s[digits:]; {
	case rest == "":
	case '0' <= rest[0] && rest[0] <= '9': // too long to be meant
		return 0, false
	case rest[0] == '/', rest[0] == '.' && len(rest) > 1 && '0' <= rest[1] && rest[1] <= '9':
		return 0, false // not a whole number
	}
	if negative {
		n = -n
	}
	return n, true
}
