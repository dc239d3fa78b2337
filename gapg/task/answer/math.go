package answer

import "strings"

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
	if !okA || !okB {
		return plainWords(g) != "" && plainWords(g) == plainWords(w)
	}
	return same(a, b)
}

// drop is LaTeX that has no meaning for us.
var drop = strings.NewReplacer(
	`\\`, `\\`, // a row's end, whose second half is no "\ "
	`\left.`, "", `\right.`, "", `\left`, "", `\right`, "", `\bigl`, "", `\bigr`, "", `\Bigl`, "", `\Bigr`, "", `\big`, "", `\Big`, "",
	`\displaystyle`, "", `\textstyle`, "", `\limits`, "", `\!`, "", `\,`, " ", `\;`, " ", `\:`, " ", `\ `, " ", `\quad`, " ", `\qquad`, " ", `~`, " ",
	`\dfrac`, `\frac`, `\tfrac`, `\frac`, `\cfrac`, `\frac`, `\dbinom`, `\binom`, `\tbinom`, `\binom`,
	`\$`, "", "$", "", "−", "-", "–", "-", "×", `\times `, "·", `\cdot `, "÷", `\div `, "√", `\sqrt `, "π", `\pi `, "∞", `\infty `, "°", `^\circ `,
	"≤", `\le `, "≥", `\ge `, "≠", `\ne `, "∪", `\cup `, "±", `\pm `, "θ", `\theta `,
	`\leq`, `\le`, `\geq`, `\ge`, `\lt`, "<", `\gt`, ">", `\colon`, ":", `\lbrace`, `\{`, `\rbrace`, `\}`, `\dots`, `\ldots`, `\cdots`, `\ldots`,
	`{,}`, ",", "\u00a0", " ", `\[`, "", `\]`, "", `\(`, "", `\)`, "",
)

// clean removes what frames an answer.
func clean(s string) string {
	s = strings.TrimSpace(s)
	if inner, ok := Boxed(s); ok && strings.HasPrefix(s, `\`) {
		s = inner
	}
	s = strings.TrimSpace(drop.Replace(s))
	for {
		t := strings.TrimSpace(strings.TrimRight(s, "."))
		if strings.HasSuffix(t, `\`) {
			t = strings.TrimSuffix(t, `\`) // a line's end
		}
		if t == s {
			return s
		}
		s = t
	}
}

// squeeze removes white space and braces around single characters, so that
// x^{2} and x^2 are one text.
func squeeze(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		case c == '{' && i+2 < len(s) && s[i+2] == '}' && isWord(s[i+1]) && (i == 0 || s[i-1] != '\\'):
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
	letters := false
	for _, r := range strings.ToLower(s) {
		switch {
		case r >= 'a' && r <= 'z':
			letters = true
			b.WriteRune(r)
		case r >= '0' && r <= '9', r > 127, strings.ContainsRune(`\+-*/^_=<>()[]`, r):
			b.WriteRune(r)
		}
	}
	if !letters {
		return ""
	}
	return b.String()
}

// textCommands are the LaTeX commands whose argument is words.
var textCommands = []string{"text", "textbf", "textit", "textrm", "mbox", "hbox", "mathrm", "mathbf", "mathit", "mathsf", "operatorname", "rm", "bf"}
