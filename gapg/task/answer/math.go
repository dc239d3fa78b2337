package answer

import (
	"slices"
	"strings"
)

// longest bounds the answers that are read as mathematics, in bytes. Anything
// longer is compared as text.
const longest = 1000

// Math reports whether two answers denote the same. See the package's comment
// for what that means. Neither panics on any input.
func Math(got, want string) bool {
	g, w := clean(got), clean(want)
	if g == "" || w == "" {
		return false
	}
	if squeeze(g) == squeeze(w) {
		return true
	}
	if len(g) > longest || len(w) > longest {
		return false
	}
	a, okA := parse(g)
	b, okB := parse(w)
	if okA && okB && same(a, b) {
		return true
	}
	if okA && okB && !(hasWord(g) && hasWord(w)) {
		return false
	}
	return plainWords(g) != "" && plainWords(g) == plainWords(w)
}

// drop is LaTeX that has no meaning for us.
var drop = strings.NewReplacer(
	`\\`, `\\`, // a row's end, whose second half is no "\ "
	`\bigcup`, `\cup `, `\bigcap`, `\cap `, `\left.`, "", `\right.`, "", `\left`, "", `\right`, "", `\bigl`, "", `\bigr`, "", `\Bigl`, "", `\Bigr`, "", `\big`, "", `\Big`, "",
	`\displaystyle`, "", `\textstyle`, "", `\limits`, "", `\!`, "", `\,`, " ", `\;`, " ", `\:`, " ", `\ `, " ", `\quad`, " ", `\qquad`, " ", `~`, " ",
	`\dfrac`, `\frac`, `\tfrac`, `\frac`, `\cfrac`, `\frac`, `\dbinom`, `\binom`, `\tbinom`, `\binom`,
	`\$`, `\$`, "$", "", "**", "^", "²", "^2", "³", "^3", "…", `\ldots `, "...", `\ldots `, "−", "-", "–", "-", "×", `\times `, "·", `\cdot `, "÷", `\div `, "√", `\sqrt `, "π", `\pi `, "∞", `\infty `, "°", `^\circ `,
	"≤", `\le `, "≥", `\ge `, "≠", `\ne `, "∪", `\cup `, "±", `\pm `, "θ", `\theta `,
	`\leqslant`, `\le`, `\geqslant`, `\ge`, `\leq`, `\le`, `\geq`, `\ge`, `\lt`, "<", `\gt`, ">", `\colon`, ":", `\lbrace`, `\{`, `\rbrace`, `\}`, `\dots`, `\ldots`, `\cdots`, `\ldots`,
	`{,}`, ",", "\u00a0", " ", `\[`, "", `\]`, "", `\(`, "", `\)`, "",
)

// clean removes what frames an answer.
func clean(s string) string {
	s = strings.TrimSpace(s)
	if inner, ok := Boxed(s); ok && strings.HasPrefix(s, `\`) {
		s = inner
	}
	s = joinThousands(strings.TrimSpace(drop.Replace(s)))
	for {
		t := strings.TrimSpace(strings.TrimRight(s, "."))
		if strings.HasSuffix(t, `\`) {
			t = strings.TrimSuffix(t, `\`) // a line's end
		}
		t = textAlone(t)
		if t == s {
			return s
		}
		s = t
	}
}

// textAlone is what stands inside a \text{…} that is the whole of s, else s.
func textAlone(s string) string {
	name, rest, ok := strings.Cut(s, "{")
	if !ok || !strings.HasPrefix(name, `\`) || !slices.Contains(textCommands, strings.TrimSpace(name[1:])) {
		return s
	}
	if closing("{"+rest, '{', '}') != len(rest) {
		return s
	}
	return strings.TrimSpace(rest[:len(rest)-1])
}

// joinThousands removes the spaces of 10 000 000, but not those of 3 125/1000
// or of x^2 100.
func joinThousands(s string) string {
	digits := func(i int) int {
		n := 0
		for i+n < len(s) && isDigit(s[i+n]) {
			n++
		}
		return n
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		n := digits(i)
		if n == 0 {
			b.WriteByte(s[i])
			i++
			continue
		}
		end := i + n
		if n <= 3 && s[i] != '0' && (i == 0 || !strings.ContainsRune("^_.", rune(s[i-1]))) {
			for end < len(s) && s[end] == ' ' && digits(end+1) == 3 {
				end += 4
			}
			if end < len(s) && s[end] == '/' {
				end = i + n
			}
		}
		b.WriteString(strings.ReplaceAll(s[i:end], " ", ""))
		i = end
	}
	return b.String()
}

// squeeze removes white space that parts nothing, and braces around indices and
// powers of one character, so that x^{2} and x^2 are one text.
func squeeze(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			rest := strings.TrimLeft(s[i:], " \t\r\n")
			if i > 0 && isDigit(s[i-1]) && rest != "" && isDigit(rest[0]) {
				b.WriteByte(' ') // 3 1/2 is not 31/2
			}
		case c == '{' && i+2 < len(s) && s[i+2] == '}' && isWord(s[i+1]) && i > 0 && (s[i-1] == '^' || s[i-1] == '_'):
			b.WriteByte(s[i+1])
			i += 2
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// plainWords is an answer in words: its letters and digits in lower case, the
// commands that set text removed. "" where there are no letters.
func plainWords(s string) string {
	for _, c := range textCommands {
		s = strings.ReplaceAll(s, `\`+c+"{", "{")
	}
	var b strings.Builder
	letters, last, gap := false, rune(0), false
	for _, r := range strings.ToLower(s) {
		if digit := r >= '0' && r <= '9'; gap && digit && last >= '0' && last <= '9' {
			b.WriteByte(' ') // 20, 15 is not 2015
		}
		before := b.Len()
		switch {
		case r >= 'a' && r <= 'z':
			letters = true
			b.WriteRune(r)
		case r >= '0' && r <= '9', r > 127, strings.ContainsRune(`\+-*/^_=<>()[]`, r):
			b.WriteRune(r)
		}
		if gap = b.Len() == before; !gap {
			last = r
		}
	}
	if !letters {
		return ""
	}
	return b.String()
}

// hasWord reports whether s holds a word in the sense of allWords, so that it
// may be compared as words.
func hasWord(s string) bool {
	for _, t := range lex(s) {
		if _, constant := constants[t.text]; t.kind == tokWord && len(t.text) > 2 && functions[t.text] == 0 && !greek[t.text] && !constant {
			return true
		}
	}
	return false
}

// textCommands are the LaTeX commands whose argument is words.
var textCommands = []string{"text", "textbf", "textit", "textrm", "mbox", "hbox", "mathrm", "mathbf", "mathit", "mathsf", "operatorname", "rm", "bf"}
