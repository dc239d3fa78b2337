package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// nfc returns s in Unicode's normalization form C as Hugging Face's library
// brings it there, which differs from golang.org/x/text in two things: it knows
// no characters after Unicode 9 (measured on tokenizers 0.23.3, every code
// point), and it sets no limit of 30 marks in a row, after which x/text puts a
// joiner in. Text that x/text finds normalized is left alone by both.
func nfc(s string) string {
	if norm.NFC.IsNormalString(s) {
		return s
	}
	out := make([]byte, 0, len(s))
	var marked []mark // a starter and the marks after it
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			out = appendComposed(out, marked)
			out, marked = append(out, s[i]), marked[:0]
		case r < utf8.RuneSelf || newer(r):
			out = appendComposed(out, marked)
			marked = append(marked[:0], mark{r, 0})
		default:
			for _, r := range norm.NFD.String(s[i : i+n]) {
				class := norm.NFD.PropertiesString(string(r)).CCC()
				if class == 0 && !joinsBefore(r) {
					out = appendComposed(out, marked)
					marked = marked[:0]
				}
				marked = append(marked, mark{r, class})
			}
		}
		i += n
	}
	return string(appendComposed(out, marked))
}

// mark is a character with its canonical combining class.
type mark struct {
	r     rune
	class uint8
}

// joinsBefore says whether a starter may compose with what stands before it,
// as the vowels and final consonants of Hangul do.
func joinsBefore(r rune) bool { return !norm.NFC.PropertiesString(string(r)).BoundaryBefore() }

// appendComposed puts decomposed characters into canonical order (Unicode,
// section 3.11), composes them (D117) and appends them to out.
func appendComposed(out []byte, m []mark) []byte {
	for i := 0; i < len(m); {
		j := i
		for j < len(m) && m[j].class != 0 {
			j++
		}
		slices.SortStableFunc(m[i:j], func(a, b mark) int { return int(a.class) - int(b.class) })
		i = j + 1
	}
	kept := m[:0]
	starter := -1 // its place in kept
	for _, x := range m {
		if starter >= 0 {
			last := kept[len(kept)-1]
			blocked := len(kept)-1 > starter && (last.class == 0 || last.class >= x.class)
			if c, ok := compose(kept[starter].r, x.r); ok && !blocked {
				kept[starter].r = c
				continue
			}
		}
		if x.class == 0 {
			starter = len(kept)
		}
		kept = append(kept, x)
	}
	for _, x := range kept {
		out = utf8.AppendRune(out, x.r)
	}
	return out
}

// compose returns the primary composite of two characters, if there is one.
func compose(a, b rune) (rune, bool) {
	if !joinsBefore(b) {
		return 0, false
	}
	pair := string(a) + string(b)
	composed := norm.NFC.String(pair)
	r, n := utf8.DecodeRuneInString(composed)
	return r, composed != pair && n == len(composed) && !newer(r)
}

// newer says whether a character that x/text knows to be a mark or to be
// composed came after Unicode 9.
func newer(r rune) bool {
	_, found := slices.BinarySearchFunc(newerMarks, r, func(span [2]rune, r rune) int {
		switch {
		case span[1] < r:
			return -1
		case span[0] > r:
			return 1
		}
		return 0
	})
	return found
}

var newerMarks = [][2]rune{
	{0x7fd, 0x7fd}, {0x898, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c}, {0xeba, 0xeba}, {0x1715, 0x1715},
	{0x1abf, 0x1ace}, {0x1df6, 0x1dfa}, {0xa82c, 0xa82c}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
	{0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
	{0x11938, 0x11938}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34}, {0x11a47, 0x11a47},
	{0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1},
	{0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
}
