package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// class is what the split patterns want to know of a character.
type class uint8

const (
	letter  class = 1 << iota // \p{L}
	number                    // \p{N}
	space                     // \s
	newline                   // [\r\n]
	digit                     // char::is_numeric of Rust, which the Digits pre-tokenizer asks
)

// classes holds the classes of the characters below its length, which covers
// all planes but those of rare Han characters.
type classes [0x20000]class

// Hugging Face's library goes by Unicode 16 in patterns and by Unicode 17 in
// the Digits pre-tokenizer (measured on tokenizers 0.23.3, every code point);
// Go's tables are those of Unicode 15. These are what they lack.
var (
	newLetters = [][2]rune{
		{0x1c89, 0x1c8a}, {0xa7cb, 0xa7cd}, {0xa7da, 0xa7dc}, {0x105c0, 0x105f3}, {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85},
		{0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
		{0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0}, {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c},
		{0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed}, {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d},
	}
	newNumbers = [][2]rune{
		{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9}, {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
		{0x1e5f1, 0x1e5fa},
	}
	newDigits = [][2]rune{{0x11de0, 0x11de9}, {0x16ff4, 0x16ff6}}
)

func newClasses() *classes {
	var c classes
	c.table(letter, unicode.L)
	c.table(number|digit, unicode.N)
	c.table(space, unicode.White_Space)
	c.ranges(letter, newLetters)
	c.ranges(number|digit, newNumbers)
	c.ranges(digit, newDigits)
	c['\r'] |= newline
	c['\n'] |= newline
	return &c
}

func (c *classes) table(k class, t *unicode.RangeTable) {
	for _, r := range t.R16 {
		c.mark(k, rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	for _, r := range t.R32 {
		c.mark(k, rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
}

func (c *classes) ranges(k class, list [][2]rune) {
	for _, r := range list {
		c.mark(k, r[0], r[1], 1)
	}
}

func (c *classes) mark(k class, lo, hi, stride rune) {
	for r := lo; r <= hi && int(r) < len(c); r += stride {
		c[r] |= k
	}
}

// of returns a character's class.
func (c *classes) of(r rune) class {
	if int(r) < len(c) {
		return c[r]
	}
	if unicode.IsLetter(r) || r >= 0x2ebf0 && r <= 0x2ee5d {
		return letter
	}
	return 0 // no numbers and no white space in the planes above
}

// at returns the class and the length of the character at s[i:]; (0, 0) at
// the end. A byte that is not part of valid UTF-8 is a character of no class.
func (c *classes) at(s string, i int) (class, int) {
	if i >= len(s) {
		return 0, 0
	}
	if b := s[i]; b < utf8.RuneSelf {
		return c[b], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return c.of(r), n
}

// run returns the end of the run of characters at s[i:] that have a class of
// any, or, if any is 0, of none of letter, number and space.
func (c *classes) run(s string, i int, any class) int {
	for i < len(s) {
		k, n := c.at(s, i)
		if any != 0 && k&any == 0 || any == 0 && k&(letter|number|space) != 0 {
			break
		}
		i += n
	}
	return i
}
