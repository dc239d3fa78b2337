package answer

import "strings"

// parse reads an answer. ok is false where it is not mathematics that this
// package knows.
func parse(s string) (n *node, ok bool) {
	if w := allWords(s); w != "" {
		return &node{kind: wordy, text: w}, true
	}
	if n := inBase(s); n != nil {
		return n, true
	}
	p := &parser{toks: lex(s)}
	defer func() {
		if r := recover(); r != nil {
			if _, mine := r.(syntaxError); !mine {
				panic(r)
			}
			n, ok = nil, false
		}
	}()
	n = p.answer()
	if p.peek().kind != tokEnd {
		return nil, false
	}
	return n, true
}

// allWords returns an answer that is words alone: "even", "\text{Monday}".
// A word has three letters at least; shorter runs are products of variables.
func allWords(s string) string {
	long, letters := false, false
	for _, t := range lex(s) {
		switch t.kind {
		case tokWord:
			if _, known := functions[t.text]; known || greek[t.text] {
				return ""
			}
			letters = true
			long = long || len(t.text) > 2
		case tokLetter:
			letters = true
		default:
			if t.kind != tokPunct || !strings.Contains("()'\"!?,-", t.text) {
				return ""
			}
		}
	}
	if !letters || !long {
		return ""
	}
	return plainWords(s)
}

type syntaxError struct{}

type parser struct {
	toks  []token
	at    int
	depth int
	bars  int // open |
}

func (p *parser) fail() { panic(syntaxError{}) }

func (p *parser) peek() token { return p.peekAt(0) }

func (p *parser) peekAt(n int) token {
	if p.at+n < len(p.toks) {
		return p.toks[p.at+n]
	}
	return token{}
}

func (p *parser) next() token {
	t := p.peek()
	p.at++
	return t
}

// is reports whether the next token is the punctuation or command s.
func (p *parser) is(s string) bool {
	t := p.peek()
	return (t.kind == tokPunct || t.kind == tokCommand) && t.text == s
}

func (p *parser) take(s string) bool {
	if p.is(s) {
		p.at++
		return true
	}
	return false
}

// takeWord is take for a word.
func (p *parser) takeWord(s string) bool {
	if t := p.peek(); t.kind == tokWord && t.text == s {
		p.at++
		return true
	}
	return false
}

func (p *parser) need(s string) {
	if !p.take(s) {
		p.fail()
	}
}

// separator takes what stands between the items of a list.
func (p *parser) separator() bool {
	any := false
	for {
		switch {
		case p.take(","), p.take(";"):
		case p.takeWord("and"), p.takeWord("or"):
		default:
			return any
		}
		any = true
	}
}

// answer is a list of items, or one.
func (p *parser) answer() *node {
	items := []*node{p.item()}
	for p.separator() {
		items = append(items, p.item())
	}
	if len(items) == 1 {
		return items[0]
	}
	return &node{kind: list, args: items}
}

var relations = map[string]string{"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "neq": "!=", "approx": "=", "equiv": "="}

func (p *parser) relation() (string, bool) {
	t := p.peek()
	if t.kind != tokPunct && t.kind != tokCommand {
		return "", false
	}
	r, ok := relations[t.text]
	if ok {
		p.at++
		if (r == "<" || r == ">") && p.take("=") {
			r += "="
		}
	}
	return r, ok
}

// item is an expression, a set, or a relation between expressions.
func (p *parser) item() *node {
	first := p.sets()
	if p.take("in") { // x ∈ S says what S says
		return p.sets()
	}
	op, ok := p.relation()
	if !ok {
		return first
	}
	second := p.sets()
	op2, ok := p.relation()
	if !ok {
		return relate(op, first, second)
	}
	third := p.sets()
	if op == "=" && op2 == "=" { // x = 1/2 = 0.5
		return relate("=", first, third)
	}
	if strings.HasPrefix(op, ">") && strings.HasPrefix(op2, ">") {
		first, third, op, op2 = third, first, turn(op2), turn(op)
	}
	if !strings.HasPrefix(op, "<") || !strings.HasPrefix(op2, "<") {
		p.fail()
	}
	return &node{kind: chain, text: op + " " + op2, args: []*node{first, second, third}}
}

func turn(op string) string { return strings.Replace(op, ">", "<", 1) }

func relate(op string, a, b *node) *node {
	if op[0] == '>' {
		op, a, b = turn(op), b, a
	}
	return &node{kind: relation, text: op, args: []*node{a, b}}
}

// sets is an expression, a ratio or a union of sets.
func (p *parser) sets() *node {
	n := p.expr()
	ratio := []*node{n}
	for p.take(":") || p.takeWord("to") {
		ratio = append(ratio, p.expr())
	}
	if len(ratio) == 2 {
		return &node{kind: quotient, args: ratio}
	}
	if len(ratio) > 2 {
		return &node{kind: tuple, text: ":", args: ratio}
	}
	if !p.is("cup") {
		return n
	}
	u := &node{kind: union, args: []*node{n}}
	for p.take("cup") {
		u.args = append(u.args, p.expr())
	}
	return u
}

func (p *parser) expr() *node {
	if p.depth++; p.depth > 60 {
		p.fail()
	}
	defer func() { p.depth-- }()
	var n *node
	if p.is("pm") || p.is("mp") {
		sign := p.next().text
		n = &node{kind: plusMinus, text: sign, args: []*node{p.term()}}
	} else {
		n = p.term()
	}
	for {
		switch {
		case p.take("+"):
			n = join(sum, n, p.term())
		case p.take("-"):
			n = join(sum, n, &node{kind: negative, args: []*node{p.term()}})
		case p.is("pm") || p.is("mp"):
			sign := p.next().text
			n = &node{kind: plusMinus, text: sign, args: []*node{n, p.term()}}
		default:
			return n
		}
	}
}

func join(k kind, a, b *node) *node {
	if a.kind == k {
		a.args = append(a.args, b)
		return a
	}
	return &node{kind: k, args: []*node{a, b}}
}

func (p *parser) term() *node {
	n := p.factor()
	for {
		switch {
		case p.take("*"), p.take("cdot"), p.take("times"):
			n = join(product, n, p.factor())
		case p.take("/"), p.take("div"):
			n = &node{kind: quotient, args: []*node{n, p.factor()}}
		case p.take("over"):
			n = &node{kind: quotient, args: []*node{n, p.term()}}
		case p.take("choose"):
			n = fn("binom", n, p.term())
		case n.kind != wordy && p.takeWord("percent"):
			n = &node{kind: percent, args: []*node{n}}
		case p.peek().kind == tokWord && n.kind != wordy && p.unit(n):
		case p.startsFactor(n):
			if m := p.mixed(n); m != nil {
				n = m
				continue
			}
			n = join(product, n, p.factor())
		default:
			return n
		}
	}
}

// unit takes words behind a number as its unit.
func (p *parser) unit(n *node) bool {
	t := p.peek()
	if joining[t.text] || functions[t.text] != 0 || greek[t.text] {
		return false
	}
	set := map[string]bool{}
	n.symbols(set)
	if len(set) > 0 && len(t.text) < 4 && !units[t.text] {
		return false // x·ab is a product
	}
	if len(set) == 0 && len(t.text) < 4 && !units[t.text] {
		return false // 2ab too
	}
	for p.peek().kind == tokWord && !joining[p.peek().text] {
		n.unit = strings.TrimSpace(n.unit + " " + strings.ToLower(p.next().text))
		if p.is("^") { // cm², in a power's place
			p.at++
			n.unit += "^" + p.next().text
			if strings.HasSuffix(n.unit, "{") {
				n.unit = strings.TrimSuffix(n.unit, "{") + p.next().text
				p.need("}")
			}
		}
		if p.is("/") && p.peekAt(1).kind == tokWord {
			p.at++
			n.unit += " per"
		}
	}
	return true
}

// joining words stand between answers, or the parts of a ratio.
var joining = map[string]bool{"and": true, "or": true, "to": true}

// mixed reads 3\frac{1}{2} and 3 1/2 behind the 3, with what binds less than
// the two: a sign, or percent.
func (p *parser) mixed(n *node) *node {
	if n.kind == negative {
		if m := p.mixed(n.args[0]); m != nil {
			return &node{kind: negative, args: []*node{m}}
		}
		return nil
	}
	if n.kind != number || strings.Contains(n.text, ".") {
		return nil
	}
	at := p.at
	var f *node
	if p.is("frac") {
		f = p.factor()
	} else if p.peek().kind == tokNumber && p.peek().spaced && p.peekAt(1).text == "/" && p.peekAt(2).kind == tokNumber {
		a := num(p.next().text)
		p.at++
		f = &node{kind: quotient, args: []*node{a, num(p.next().text)}}
	}
	if f != nil && f.kind == percent && simpleFraction(f.args[0]) {
		return &node{kind: percent, args: []*node{{kind: sum, args: []*node{n, f.args[0]}}}}
	}
	if f != nil && simpleFraction(f) {
		return &node{kind: sum, args: []*node{n, f}, unit: f.unit}
	}
	p.at = at
	return nil
}

func simpleFraction(f *node) bool {
	return f.kind == quotient && f.args[0].kind == number && f.args[1].kind == number
}

// startsFactor reports whether a factor follows without a sign of multiplication.
func (p *parser) startsFactor(before *node) bool {
	t := p.peek()
	switch t.kind {
	case tokNumber:
		if before.kind == number {
			return t.spaced && p.peekAt(1).text == "/"
		}
		return before.kind != symbol || t.spaced
	case tokLetter:
		return true
	case tokWord:
		return !joining[t.text]
	case tokCommand:
		_, constant := constants[t.text]
		return constant || greek[t.text] || functions[t.text] != 0 || t.text == "frac" || t.text == "sqrt" || t.text == "binom" ||
			t.text == "lfloor" || t.text == "bar" || t.text == "lceil" || t.text == "overline" || t.text == "begin"
	case tokPunct:
		return t.text == "(" || t.text == "{" || t.text == "[" || t.text == "|" && p.bars == 0 || t.text == `\{`
	}
	return false
}

func (p *parser) factor() *node {
	if p.depth++; p.depth > 60 {
		p.fail()
	}
	defer func() { p.depth-- }()
	switch {
	case p.take("-"):
		return &node{kind: negative, args: []*node{p.factor()}}
	case p.take("+"):
		return p.factor()
	case p.take("$"):
		n := p.factor()
		n.unit = "dollar"
		return n
	}
	return p.postfix(p.atom())
}

// postfix applies powers, factorials, bases and the like.
func (p *parser) postfix(n *node) *node {
	for {
		switch {
		case p.take("^"):
			if p.take("circ") || p.degrees() {
				n.unit = "degrees"
				continue
			}
			if p.is("{") || p.is("-") || p.peek().kind != tokEnd {
				n = &node{kind: power, args: []*node{n, p.argument()}}
			}
		case p.take("!"):
			n = fn("factorial", n)
		case p.take("%"):
			n = &node{kind: percent, args: []*node{n}}
		case p.take("'"), p.take("prime"):
			n = &node{kind: symbol, text: p.name(n) + "'"}
		case p.take("_"):
			sub := p.argument()
			switch {
			case n.kind == number && sub.kind == number:
				n = &node{kind: based, text: n.text, args: []*node{sub}}
			case n.kind == symbol:
				n = &node{kind: symbol, text: n.text + "_" + sub.key()}
			default:
				p.fail()
			}
		default:
			return n
		}
	}
}

func (p *parser) name(n *node) string {
	if n.kind != symbol {
		p.fail()
	}
	return n.text
}

// degrees takes {\circ}.
func (p *parser) degrees() bool {
	if p.is("{") && p.peekAt(1).text == "circ" && p.peekAt(2).text == "}" {
		p.at += 3
		return true
	}
	return false
}

// argument is what LaTeX takes as one: a group, or a single digit, letter or
// command; a run of digits where people write x^10.
func (p *parser) argument() *node {
	if p.take("{") {
		n := p.answer()
		p.need("}")
		return n
	}
	if p.take("-") {
		return &node{kind: negative, args: []*node{p.argument()}}
	}
	return p.atom()
}

// digit is argument for commands whose arguments are often written without
// braces, as in \frac12.
func (p *parser) digit() *node {
	t := p.peek()
	if t.kind == tokNumber && len(t.text) > 1 && !strings.Contains(t.text, ".") {
		p.toks[p.at] = token{tokNumber, t.text[1:], false}
		return num(t.text[:1])
	}
	return p.argument()
}
