package answer

import (
	"math/big"
	"strings"
	"unicode"
)

// Exact reports whether two answers have the same words: case, white space and
// a final period do not count.
func Exact(got, want string) bool {
	a, b := words(got), words(want)
	return a != "" && a == b
}

func words(s string) string {
	return strings.TrimRight(strings.ToLower(strings.Join(strings.Fields(s), " ")), ".")
}

// Choice reports whether two answers name the same letter of a multiple choice,
// as in "B", "(B)", "b.", "Answer: B" or "B) seven".
func Choice(got, want string) bool {
	a, b := letter(got), letter(want)
	return a != 0 && a == b
}

// letter returns the choice that s names, 0 where it names none.
func letter(s string) rune {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, ':'); i >= 0 && len(strings.TrimSpace(s[i+1:])) > 0 {
		s = strings.TrimSpace(s[i+1:])
	}
	s = strings.TrimLeft(s, "([{$*\"' ")
	s = strings.TrimPrefix(strings.TrimPrefix(s, `\text{`), `(`)
	for i, r := range s {
		if i > 0 && unicode.IsLetter(r) {
			return 0 // a word
		}
		if i > 0 {
			break
		}
		if !unicode.IsLetter(r) || r > unicode.MaxASCII {
			return 0
		}
	}
	if s == "" {
		return 0
	}
	return unicode.ToUpper(rune(s[0]))
}

// Number reads the number that an answer gives: the last one in it, with sign,
// decimals, fraction and thousands separators, such as "$1,250.50", "3/4",
// "-7" or "the total is 12 apples".
func Number(s string) (*big.Rat, bool) {
	s = strings.NewReplacer("−", "-", "–", "-", `\$`, "$", `{,}`, ",").Replace(s)
	end := len(s)
	for end > 0 && !isDigit(s[end-1]) {
		end--
	}
	start := end
	part := func(c byte) bool { return isDigit(c) || c == '.' || c == ',' || c == '/' }
	for start > 0 && part(s[start-1]) {
		start--
	}
	text := strings.TrimLeft(s[start:end], ",/")
	for strings.HasPrefix(text, "..") {
		text = text[1:]
	}
	start = end - len(text)
	if i := strings.LastIndexByte(text, '/'); i >= 0 && strings.ContainsRune(text[:i], '/') {
		return nil, false // a date
	}
	num, den, fraction := strings.Cut(text, "/")
	a, ok := decimal(num)
	if !ok {
		return nil, false
	}
	if fraction {
		b, ok := decimal(den)
		if !ok || b.Sign() == 0 {
			return nil, false
		}
		a.Quo(a, b)
	}
	// A sign, unless it is the minus of "5-3" or a hyphen.
	before := strings.TrimRight(s[:start], "$ ")
	if strings.HasSuffix(before, "-") {
		if rest := strings.TrimSuffix(before, "-"); rest == "" || !isWord(rest[len(rest)-1]) {
			a.Neg(a)
		}
	}
	return a, true
}

// decimal reads digits with an optional point and commas between groups of
// three.
func decimal(s string) (*big.Rat, bool) {
	whole, frac, _ := strings.Cut(s, ".")
	if strings.ContainsAny(frac, ".,") {
		return nil, false
	}
	if strings.ContainsRune(whole, ',') {
		groups := strings.Split(whole, ",")
		for i, g := range groups {
			if i > 0 && len(g) != 3 || i == 0 && (len(g) < 1 || len(g) > 3) {
				return nil, false
			}
		}
		whole = strings.Join(groups, "")
	}
	if len(whole)+len(frac) == 0 || len(whole)+len(frac) > 1000 {
		return nil, false
	}
	if whole == "" {
		whole = "0"
	}
	if frac != "" {
		whole += "." + frac
	}
	return new(big.Rat).SetString(whole)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isWord(c byte) bool  { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z' || c == ')' }

// Numeric reports whether two answers give the same number.
func Numeric(got, want string) bool {
	a, ok := Number(got)
	if !ok {
		return false
	}
	b, ok := Number(want)
	return ok && a.Cmp(b) == 0
}

// GSM8K returns the gold answer of a solution in GSM8K's form: what stands
// after the last "####".
func GSM8K(solution string) (string, bool) {
	i := strings.LastIndex(solution, "####")
	if i < 0 {
		return "", false
	}
	return strings.TrimSpace(solution[i+4:]), true
}

// Boxed returns the contents of the last \boxed or \fbox of a LaTeX text, whose
// braces match; \boxed 5, without braces, gives the next word.
func Boxed(s string) (string, bool) {
	i := max(strings.LastIndex(s, `\boxed`), strings.LastIndex(s, `\fbox`))
	if i < 0 {
		return "", false
	}
	rest := s[i+1:]
	rest = strings.TrimLeft(rest[strings.IndexFunc(rest+" ", func(r rune) bool { return !unicode.IsLetter(r) }):], " ")
	if !strings.HasPrefix(rest, "{") {
		word, _, _ := strings.Cut(rest, "$")
		if f := strings.Fields(word); len(f) > 0 {
			return f[0], true
		}
		return "", false
	}
	end := closing(rest, '{', '}')
	if end < 0 {
		return "", false
	}
	return strings.TrimSpace(rest[1:end]), true
}

// closing returns the place of the bracket that closes the one that s begins
// with, -1 where there is none. Escaped brackets do not count.
func closing(s string, open, end byte) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case open:
			depth++
		case end:
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
