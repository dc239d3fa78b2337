package tokenizer

import "strings"

// pattern is one of the split patterns that are known.
type pattern int

const (
	noPattern pattern = iota
	gpt2Pattern
	llama3Pattern
	qwenPattern
)

// The patterns as files spell them.
var patterns = map[string]pattern{
	`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`: gpt2Pattern,

	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: llama3Pattern,

	`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`: qwenPattern,
}

// splitStep is one step of pre-tokenization: each piece of the step before it
// is split further.
type splitStep struct {
	pattern     pattern
	digits      digits
	prefixSpace bool // a piece that does not begin with a space gets one
}

// digits says what the Digits pre-tokenizer does.
type digits int

const (
	noDigits     digits = iota
	digitRuns           // runs of digits are pieces
	singleDigits        // each digit is a piece
)

// split calls word with the pieces of s under steps.
func (c *classes) split(s string, steps []splitStep, word func(string)) {
	if len(steps) == 0 {
		if s != "" {
			word(s)
		}
		return
	}
	step, rest := steps[0], steps[1:]
	if step.prefixSpace && !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	for i := 0; i < len(s); {
		end := len(s)
		switch {
		case step.digits != noDigits:
			end = c.nextDigits(step.digits, s, i)
		case step.pattern == gpt2Pattern:
			end = c.nextGPT2(s, i)
		case step.pattern == llama3Pattern:
			end = c.nextLlama3(s, i, 3)
		case step.pattern == qwenPattern:
			end = c.nextLlama3(s, i, 1)
		}
		if len(rest) == 0 {
			word(s[i:end])
		} else {
			c.split(s[i:end], rest, word)
		}
		i = end
	}
}

// nextDigits returns the end of the piece at s[i:]: a digit or a run of them,
// or what lies before the next digit.
func (c *classes) nextDigits(mode digits, s string, i int) int {
	k, n := c.at(s, i)
	i += n
	if k&digit != 0 && mode == singleDigits {
		return i
	}
	for i < len(s) {
		next, n := c.at(s, i)
		if (next^k)&digit != 0 {
			break
		}
		i += n
	}
	return i
}

// nextGPT2 returns the end of the piece at s[i:] under
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func (c *classes) nextGPT2(s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], false); n > 0 {
			return i + 1 + n
		}
	}
	j := i
	k, n := c.at(s, i)
	if s[i] == ' ' && i+1 < len(s) {
		if next, m := c.at(s, i+1); next&space == 0 {
			j, k, n = i+1, next, m
		}
	}
	switch {
	case k&letter != 0:
		return c.run(s, j+n, letter)
	case k&number != 0:
		return c.run(s, j+n, number)
	case k&space == 0:
		return c.run(s, j+n, 0)
	}
	return c.blank(s, i)
}

// nextLlama3 returns the end of the piece at s[i:] under
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//
// with {1,numbers} in place of {1,3}.
func (c *classes) nextLlama3(s string, i, numbers int) int {
	if s[i] == '\'' {
		if n := contraction(s[i+1:], true); n > 0 {
			return i + 1 + n
		}
	}
	k, n := c.at(s, i)
	if k&letter != 0 {
		return c.run(s, i+n, letter)
	}
	if k&number != 0 {
		i += n
		for range numbers - 1 {
			k, n := c.at(s, i)
			if k&number == 0 {
				break
			}
			i += n
		}
		return i
	}
	next, m := c.at(s, i+n)
	if k&newline == 0 && next&letter != 0 {
		return c.run(s, i+n+m, letter)
	}
	switch {
	case k&space == 0:
		return c.run(s, c.run(s, i+n, 0), newline)
	case s[i] == ' ' && m > 0 && next&(space|number) == 0: // a letter was met above
		return c.run(s, c.run(s, i+n+m, 0), newline)
	}
	end := c.run(s, i, space)
	if last := strings.LastIndexAny(s[i:end], "\r\n"); last >= 0 {
		return i + last + 1
	}
	return c.blank(s, i)
}

// blank returns the end of the piece of white space at s[i:] under
// \s+(?!\S)|\s+: the run to the end of the text, or all of it but the last
// character, or that one.
func (c *classes) blank(s string, i int) int {
	end, last := i, i
	for end < len(s) {
		k, n := c.at(s, end)
		if k&space == 0 {
			break
		}
		last = end
		end += n
	}
	if end == len(s) || last == i {
		return end
	}
	return last
}

// contraction returns the length of s, t, re, ve, m, ll or d at the beginning
// of s, 0 for none. Folding case, the long s (ſ) is an s.
func contraction(s string, fold bool) int {
	lower := func(i int) byte {
		if i >= len(s) {
			return 0
		}
		if b := s[i]; fold && b >= 'A' && b <= 'Z' {
			return b + 'a' - 'A'
		}
		return s[i]
	}
	switch lower(0) {
	case 's', 't', 'm', 'd':
		return 1
	case 'r', 'v':
		if lower(1) == 'e' {
			return 2
		}
	case 'l':
		if lower(1) == 'l' {
			return 2
		}
	case 0xc5:
		if fold && lower(1) == 0xbf {
			return 2
		}
	}
	return 0
}
