package answer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// token is a lexical part of an answer.
type token struct {
	kind   tokenKind
	text   string
	spaced bool // white space stands before it
}

type tokenKind uint8

const (
	tokEnd     tokenKind = iota
	tokNumber            // digits with an optional point
	tokLetter            // one letter
	tokWord              // a run of letters, or the argument of \text
	tokCommand           // \name, without the backslash
	tokPunct             // one character; \{ and \} are "\\{" and "\\}", \% is "%"
)

// lex cuts s into tokens. depth-0 commas between groups of three digits belong
// to the number.
func lex(s string) []token {
	var out []token
	spaced, depth := false, 0
	add := func(k tokenKind, text string) {
		out = append(out, token{k, text, spaced})
		spaced = false
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			spaced = true
			i++
		case isDigit(c) || c == '.' && i+1 < len(s) && isDigit(s[i+1]):
			n := numberEnd(s[i:], depth == 0)
			if rest := s[i+n:]; strings.HasPrefix(rest, `.\overline`) || strings.HasPrefix(rest, `.\bar`) {
				n++ // 0.\overline{3}
			}
			add(tokNumber, strings.ReplaceAll(s[i:i+n], ",", ""))
			i += n
		case isLetter(c):
			n := 1
			for i+n < len(s) && isLetter(s[i+n]) {
				n++
			}
			if n == 1 {
				add(tokLetter, s[i:i+1])
			} else {
				add(tokWord, s[i:i+n])
			}
			i += n
		case c == '\\':
			n := 1
			for i+n < len(s) && isLetter(s[i+n]) {
				n++
			}
			if n == 1 { // \{ and the like
				if i+1 >= len(s) {
					return out
				}
				switch s[i+1] {
				case '{', '}', '\\', '|':
					if s[i+1] == '{' {
						depth++
					} else if s[i+1] == '}' {
						depth--
					}
					add(tokPunct, s[i:i+2])
				case '%', '#', '&', '_', '$':
					add(tokPunct, s[i+1:i+2])
				}
				i += 2
				break
			}
			name := s[i+1 : i+n]
			i += n
			if words, used, ok := textArgument(name, s[i:]); ok {
				i += used
				if len(words) == 1 && isLetter(words[0]) && name != "text" && name != "mbox" {
					add(tokLetter, words)
				} else if strings.IndexFunc(words, unicode.IsLetter) < 0 { // \text{13}
					out = append(out, lex(words)...)
				} else {
					add(tokWord, words)
				}
				break
			}
			add(tokCommand, name)
		case c < utf8.RuneSelf:
			if c == '(' || c == '[' {
				depth++
			} else if c == ')' || c == ']' {
				depth--
			}
			add(tokPunct, s[i:i+1])
			i++
		default:
			_, n := utf8.DecodeRuneInString(s[i:])
			add(tokWord, s[i:i+n])
			i += n
		}
	}
	return out
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// numberEnd returns the length of the number that s begins with.
func numberEnd(s string, thousands bool) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	if thousands && n >= 1 && n <= 3 && s[0] != '0' {
		m := n
		for m+3 < len(s) && s[m] == ',' && isDigit(s[m+1]) && isDigit(s[m+2]) && isDigit(s[m+3]) && !(m+4 < len(s) && isDigit(s[m+4])) {
			m += 4
		}
		n = m
	}
	if n+1 < len(s) && s[n] == '.' && isDigit(s[n+1]) {
		n++
		for n < len(s) && isDigit(s[n]) {
			n++
		}
	}
	return n
}

// textArgument reads the argument of a command that sets words.
func textArgument(name, s string) (words string, used int, ok bool) {
	for _, c := range textCommands {
		if c != name {
			continue
		}
		t := strings.TrimLeft(s, " ")
		if !strings.HasPrefix(t, "{") {
			return "", 0, true // \rm and \bf stand alone
		}
		end := closing(t, '{', '}')
		if end < 0 {
			return "", 0, false
		}
		return strings.Join(strings.Fields(t[1:end]), " "), len(s) - len(t) + end + 1, true
	}
	return "", 0, false
}
