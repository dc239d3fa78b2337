package chat

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what is read. The longest templates of the Hub have 30 kB.
const (
	maxTemplate = 256 << 10
	maxBrackets = 100
)

// part is a piece of a template.
type part struct {
	kind   byte // 't' text, '{' expression, '%' statement
	text   string
	tokens []token // of a tag
}

// token is a piece of a tag: a name, a string (its value), a number or an
// operator.
type token struct {
	kind byte // 'n', 's', '0', or 'o'
	text string
}

// rewrite turns a template into one that the engine renders as Jinja renders
// the original with trim_blocks and lstrip_blocks: text has become string
// literals, with the white space that Jinja leaves; names of filters and
// methods are those of functions.go; loops start each turn with the variables
// as they were before; loops and calls are counted.
func rewrite(source string) (string, error) {
	if len(source) > maxTemplate {
		return "", fmt.Errorf("chat: the template has %d bytes; at most %d are read", len(source), maxTemplate)
	}
	if !utf8.ValidString(source) {
		return "", fmt.Errorf("chat: the template is not valid UTF-8")
	}
	parts, err := scan(source)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, p := range parts {
		switch p.kind {
		case 't':
			if p.text != "" {
				b.WriteString("{{ ")
				writeString(&b, p.text)
				fmt.Fprintf(&b, "|%s }}", fnText)
			}
		case '{':
			fmt.Fprintf(&b, "{{ (%s)|%s }}", tagText(p.tokens), fnText)
		case '%':
			writeStatement(&b, parts, i)
		}
	}
	return b.String(), nil
}

// writeStatement writes the statement at place i.
func writeStatement(b *strings.Builder, parts []part, i int) {
	tokens := parts[i].tokens
	keyword := parts[i].keyword()
	tag := "{% " + tagText(tokens) + " %}"
	switch keyword {
	case "for":
		names := setInLoop(parts, i)
		for _, name := range names {
			fmt.Fprintf(b, "{%% set outer_%d_%s = %s %%}", i, name, name)
		}
		b.WriteString(tag)
		fmt.Fprintf(b, "{{ %s() }}", fnTurn)
		for _, name := range names {
			fmt.Fprintf(b, "{%% set %s = outer_%d_%s %%}", name, i, name)
		}
	case "macro":
		fmt.Fprintf(b, "%s{{ %s() }}", tag, fnEnter)
	case "endmacro":
		fmt.Fprintf(b, "{{ %s() }}%s", fnLeave, tag)
	case "set":
		eq := 0
		for eq < len(tokens) && tokens[eq] != (token{'o', "="}) {
			eq++
		}
		if eq == len(tokens) { // {% set name %}…{% endset %}
			b.WriteString(tag)
			return
		}
		check := fnValue
		if eq > 2 { // an attribute of a namespace
			check = fnAttribute
		}
		fmt.Fprintf(b, "{%% %s = (%s)|%s %%}", tagText(tokens[:eq]), tagText(tokens[eq+1:]), check)
	default:
		b.WriteString(tag)
	}
}

func (p *part) keyword() string {
	if p.kind != '%' || len(p.tokens) == 0 {
		return ""
	}
	return p.tokens[0].text
}

// setInLoop returns the variables, other than its own, that the loop at place
// at sets in its body. Loops and macros within have variables of their own.
func setInLoop(parts []part, at int) []string {
	own := map[string]bool{}
	for _, t := range parts[at].tokens[1:] {
		if t.text == "in" {
			break
		}
		own[t.text] = true
	}
	var names []string
	depth := 0
	for i := at + 1; i < len(parts); i++ {
		switch t := parts[i].tokens; parts[i].keyword() {
		case "for", "macro", "call":
			depth++
		case "endfor", "endmacro", "endcall":
			if depth--; depth < 0 {
				return names
			}
		case "set":
			if depth == 0 && len(t) > 1 && t[1].kind == 'n' && (len(t) == 2 || t[2] == token{'o', "="}) && !own[t[1].text] {
				own[t[1].text] = true
				names = append(names, t[1].text)
			}
		}
	}
	return names
}

// Jinja's delimiters with what they strip: - all white space beside them; else
// a block takes the newline after it (trim_blocks) and the blanks before it on
// its line (lstrip_blocks), unless + says no.
var (
	rawBegin   = regexp.MustCompile(`^\{%[-+]?\s*raw\s*(-%\}\s*|%\})`)
	rawEnd     = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*(\+%\}|-%\}\s*|%\}\n?)`)
	commentEnd = regexp.MustCompile(`\+#\}|-#\}\s*|#\}\n?`)
)

var number = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?`)

// scan cuts a template into parts.
func scan(source string) ([]part, error) {
	s := strings.ReplaceAll(strings.ReplaceAll(source, "\r\n", "\n"), "\r", "\n")
	s = strings.TrimSuffix(s, "\n")
	var parts []part
	lineStart := true // whether the tag before took a newline along
	at := 0
	lineOf := func(at int) int { return 1 + strings.Count(s[:at], "\n") }
	text := func(t string, sign byte, block bool) {
		switch {
		case sign == '-':
			t = strings.TrimRightFunc(t, pythonSpace)
		case sign != '+' && block:
			line := strings.LastIndexByte(t, '\n') + 1
			if (line > 0 || lineStart) && strings.TrimLeftFunc(t[line:], pythonSpace) == "" {
				t = t[:line]
			}
		}
		parts = append(parts, part{kind: 't', text: t})
	}
	for {
		open := nextTag(s, at)
		if open < 0 {
			parts = append(parts, part{kind: 't', text: s[at:]})
			return parts, nil
		}
		kind := s[open+1]
		body := open + 2
		sign := byte(0)
		if body < len(s) && (s[body] == '-' || s[body] == '+') {
			sign = s[body]
			body++
		}
		text(s[at:open], sign, kind != '{')
		switch raw := rawBegin.FindStringIndex(s[open:]); {
		case raw != nil:
			from := open + raw[1]
			end := rawEnd.FindStringSubmatchIndex(s[from:])
			if end == nil {
				return nil, fmt.Errorf("chat: line %d: raw without endraw", lineOf(open))
			}
			lineStart = s[from-1] == '\n'
			sign := byte(0)
			if end[3] > end[2] {
				sign = s[from+end[2]]
			}
			text(s[from:from+end[0]], sign, true)
			at = from + end[1]
		case kind == '#':
			end := commentEnd.FindStringIndex(s[body:])
			if end == nil {
				return nil, fmt.Errorf("chat: line %d: a comment without #}", lineOf(open))
			}
			at = body + end[1]
		default:
			tokens, end, err := scanTag(s, body, kind)
			if err != nil {
				return nil, fmt.Errorf("chat: line %d: %w", lineOf(open), err)
			}
			if len(tokens) == 0 {
				return nil, fmt.Errorf("chat: line %d: an empty tag", lineOf(open))
			}
			parts = append(parts, part{kind: kind, tokens: tokens})
			at = end
		}
		lineStart = s[at-1] == '\n'
	}
}

// nextTag returns where the next {{, {% or {# begins, -1 for none.
func nextTag(s string, at int) int {
	for {
		i := strings.IndexByte(s[at:], '{')
		if i < 0 || at+i+1 >= len(s) {
			return -1
		}
		if c := s[at+i+1]; c == '{' || c == '%' || c == '#' {
			return at + i
		}
		at += i + 1
	}
}

// scanTag reads the tokens of a tag whose inside begins at s[at:], and returns
// where the text after it begins.
func scanTag(s string, at int, kind byte) (tokens []token, end int, err error) {
	closing := "}}"
	if kind == '%' {
		closing = "%}"
	}
	var brackets []byte
	for at < len(s) {
		c := s[at]
		rest := s[at:]
		if len(brackets) == 0 {
			switch {
			case strings.HasPrefix(rest, "-"+closing):
				at += 3
				return tokens, at + len(s[at:]) - len(strings.TrimLeftFunc(s[at:], pythonSpace)), nil
			case kind == '%' && strings.HasPrefix(rest, "+"+closing):
				return tokens, at + 3, nil
			case strings.HasPrefix(rest, closing):
				at += 2
				if kind == '%' && strings.HasPrefix(s[at:], "\n") {
					at++
				}
				return tokens, at, nil
			}
		}
		switch {
		case c == '\'' || c == '"':
			n := 1
			for n < len(rest) && rest[n] != c {
				if rest[n] == '\\' {
					n++
				}
				n++
			}
			if n >= len(rest) {
				return nil, 0, fmt.Errorf("a string without its end")
			}
			text, err := unescape(rest[1:n])
			if err != nil {
				return nil, 0, err
			}
			tokens = append(tokens, token{'s', text})
			at += n + 1
		case c >= '0' && c <= '9':
			text := number.FindString(rest)
			at += len(text)
			if strings.ContainsAny(text, ".eE") { // the engine reads exponents after a fraction alone
				f, err := strconv.ParseFloat(text, 64)
				if err != nil {
					return nil, 0, fmt.Errorf("the number %s is too large", text)
				}
				if text = strconv.FormatFloat(f, 'f', -1, 64); !strings.Contains(text, ".") {
					text += ".0"
				}
			}
			tokens = append(tokens, token{'0', text})
		case c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			n := 1
			for n < len(rest) && (rest[n] == '_' || rest[n] >= '0' && rest[n] <= '9' || rest[n] >= 'a' && rest[n] <= 'z' || rest[n] >= 'A' && rest[n] <= 'Z') {
				n++
			}
			if strings.HasPrefix(rest, reserved) {
				return nil, 0, fmt.Errorf("the name %s begins as those of Updraft's own functions do", rest[:n])
			}
			tokens = append(tokens, token{'n', rest[:n]})
			at += n
		case c == ' ' || c == '\t' || c == '\n':
			at++
		case c == '*':
			return nil, 0, fmt.Errorf("the operator * is not supported in chat templates")
		default:
			n := 1
			switch {
			case strings.IndexByte("([{", c) >= 0:
				if brackets = append(brackets, c); len(brackets) > maxBrackets {
					return nil, 0, fmt.Errorf("brackets are nested more than %d deep", maxBrackets)
				}
			case strings.IndexByte(")]}", c) >= 0:
				if len(brackets) == 0 {
					return nil, 0, fmt.Errorf("%q closes nothing", c)
				}
				brackets = brackets[:len(brackets)-1]
			case len(rest) > 1 && (strings.IndexByte("=!<>", c) >= 0 && rest[1] == '=' || c == '/' && rest[1] == '/'):
				n = 2
			case strings.IndexByte("+-/%=<>~|.,:", c) < 0:
				r, _ := utf8.DecodeRuneInString(rest)
				return nil, 0, fmt.Errorf("unexpected character %q", r)
			}
			tokens = append(tokens, token{'o', rest[:n]})
			at += n
		}
	}
	return nil, 0, fmt.Errorf("a tag without %s", closing)
}

// unescape gives a string literal's value, with Python's escapes.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[i]]
		const names, values = "abfnrtv0", "\a\b\f\n\r\t\v\x00"
		switch k := strings.IndexByte(names, s[i]); {
		case k >= 0:
			b.WriteByte(values[k])
		case s[i] == '\\' || s[i] == '\'' || s[i] == '"':
			b.WriteByte(s[i])
		case s[i] == '\n':
		case digits > 0:
			n, err := strconv.ParseUint(s[i+1:min(i+1+digits, len(s))], 16, 32)
			if err != nil || i+digits >= len(s) || n > utf8.MaxRune || n >= 0xd800 && n < 0xe000 {
				return "", fmt.Errorf("the escape %q is not a character", s[i-1:min(i+1+digits, len(s))])
			}
			b.WriteRune(rune(n))
			i += digits
		default:
			b.WriteByte('\\')
			b.WriteByte(s[i])
		}
	}
	return b.String(), nil
}

// tagText writes tokens for the engine.
func tagText(tokens []token) string {
	var b strings.Builder
	at := func(i int) string {
		if i < 0 || i >= len(tokens) || tokens[i].kind == 's' {
			return ""
		}
		return tokens[i].text
	}
	for i, t := range tokens {
		if i > 0 && at(i) != "." && at(i-1) != "." {
			b.WriteByte(' ')
		}
		switch {
		case t.kind == 's':
			writeString(&b, t.text)
		case t.kind == 'n' && at(i-1) == "|" && filters[t.text]:
			b.WriteString(reserved + t.text)
		case t.kind == 'o' && t.text == "." && at(i+2) == "(" && (methods[at(i+1)] || forbidden[at(i+1)]):
			b.WriteString("|")
		case t.kind == 'n' && at(i-1) == "." && at(i+1) == "(" && methods[t.text]:
			b.WriteString(reserved + t.text)
		case t.kind == 'n' && at(i-1) == "." && at(i+1) == "(" && forbidden[t.text]:
			b.WriteString(fnForbidden)
		case t.text == "sequence" && (at(i-1) == "is" || at(i-1) == "not" && at(i-2) == "is"):
			b.WriteString("iterable") // Jinja's sequence is a string and a mapping, too
		default:
			b.WriteString(t.text)
		}
	}
	return b.String()
}

// writeString writes a string literal that the engine reads.
func writeString(b *strings.Builder, s string) {
	b.WriteByte('"')
	b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s))
	b.WriteByte('"')
}

// pythonSpace is Python's str.isspace.
func pythonSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }
