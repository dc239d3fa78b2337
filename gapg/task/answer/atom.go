package answer

import (
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// greek are commands that stand for variables.
var greek = map[string]bool{
	"alpha": true, "beta": true, "gamma": true, "delta": true, "epsilon": true, "varepsilon": true, "zeta": true, "eta": true, "theta": true,
	"kappa": true, "lambda": true, "mu": true, "nu": true, "xi": true, "rho": true, "sigma": true, "tau": true, "phi": true, "varphi": true,
	"chi": true, "psi": true, "omega": true, "Gamma": true, "Delta": true, "Theta": true, "Lambda": true, "Sigma": true, "Phi": true, "Omega": true, "ell": true,
}

// units are short words that follow numbers; longer words are units anyway.
var units = map[string]bool{
	"cm": true, "mm": true, "km": true, "in": true, "ft": true, "yd": true, "mi": true, "kg": true, "mg": true, "lb": true, "lbs": true, "oz": true,
	"sq": true, "cu": true, "hr": true, "hrs": true, "min": true, "sec": true, "ms": true, "mph": true, "kph": true, "ml": true, "mL": true,
	"am": true, "pm": true, "rad": true, "deg": true, "km/h": true, "m/s": true, "men": true, "day": true, "way": true, "cup": true, "per": true,
}

// atom is the smallest whole part of an expression.
func (p *parser) atom() *node {
	t := p.next()
	switch t.kind {
	case tokNumber:
		return p.number(t.text)
	case tokLetter:
		return &node{kind: symbol, text: t.text}
	case tokWord:
		return p.word(t)
	case tokCommand:
		return p.command(t.text)
	case tokPunct:
		switch t.text {
		case "(", "[":
			return p.bracket(t.text)
		case `\{`:
			return p.set()
		case "{":
			n := p.answer()
			p.need("}")
			return n
		case "|":
			return p.absolute("|")
		}
	}
	p.fail()
	return nil
}

// number is digits, which may go on for ever: 0.1\overline{6}, 0.333\ldots
func (p *parser) number(text string) *node {
	_, frac, point := strings.Cut(text, ".")
	switch {
	case point && (p.is("overline") || p.is("bar")):
		at := p.at
		p.at++
		if digits := p.digit(); digits.kind == number && !strings.Contains(digits.text, ".") && len(digits.text) <= 40 {
			return repeating(text, digits.text)
		}
		p.at = at
	case point && p.take("ldots"):
		n := period(frac)
		if n == 0 {
			p.fail()
		}
		return repeating(text, frac[len(frac)-n:])
	}
	return num(text)
}

// period is the length of the digits that those of a decimal fraction end in
// again and again, three digits in all at least; 0 where they do not.
func period(frac string) int {
	for n := 1; 2*n <= len(frac); n++ {
		if last := frac[len(frac)-n:]; strings.HasSuffix(frac, last+last) && (n > 1 || strings.HasSuffix(frac, last+last+last)) {
			return n
		}
	}
	return 0
}

// repeating is head with digits behind it for ever:
// head + digits / (10^decimals · (10^len(digits) − 1)).
func repeating(head, digits string) *node {
	_, frac, _ := strings.Cut(head, ".")
	return &node{kind: sum, args: []*node{num(head), {kind: quotient, args: []*node{num(digits),
		num(strings.Repeat("9", len(digits)) + strings.Repeat("0", len(frac)))}}}}
}

// numeral is a number in a base, alone: 2516_8, \text{1A}_{16}, 101_{\text{two}}.
var numeral = regexp.MustCompile(`^(?:\\(?:text|mathrm|mbox)\{)?([0-9]+[0-9A-F]*|[A-F]+[0-9][0-9A-F]*)\}?_\{?(?:\\(?:text|mathrm|mbox)\{)?([0-9]+|[a-z]+)\}?\}?$`)

var baseNames = map[string]string{"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10", "twelve": "12", "sixteen": "16"}

// inBase reads a number in a base, nil where s is none.
func inBase(s string) *node {
	m := numeral.FindStringSubmatch(strings.ReplaceAll(s, " ", ""))
	if m == nil {
		return nil
	}
	base := m[2]
	if named, ok := baseNames[base]; ok {
		base = named
	}
	b, err := strconv.Atoi(base)
	if err != nil || b < 2 || b > 36 {
		return nil
	}
	if _, ok := new(big.Int).SetString(m[1], b); !ok {
		return nil
	}
	return &node{kind: based, text: m[1], args: []*node{num(strconv.Itoa(b))}}
}

// word is a function's name, a product of single letters, or words.
func (p *parser) word(t token) *node {
	if functions[t.text] != 0 {
		return p.function(t.text)
	}
	if _, ok := constants[t.text]; ok || greek[t.text] {
		return &node{kind: symbol, text: t.text}
	}
	if len(t.text) > 3 || strings.ContainsAny(t.text, " ") {
		return &node{kind: wordy, text: plainWords(t.text)}
	}
	n := &node{kind: product}
	for _, r := range t.text {
		n.args = append(n.args, &node{kind: symbol, text: string(r)})
	}
	// A power or an index belongs to the last letter alone.
	last := len(n.args) - 1
	n.args[last] = p.postfix(n.args[last])
	return n
}

func (p *parser) command(name string) *node {
	switch name {
	case "frac":
		a := p.digit()
		return &node{kind: quotient, args: []*node{a, p.digit()}}
	case "binom":
		a := p.digit()
		return fn("binom", a, p.digit())
	case "sqrt":
		if p.take("[") {
			index := p.expr()
			p.need("]")
			return fn("root", p.digit(), index)
		}
		return fn("sqrt", p.radicand())
	case "lfloor":
		n := p.expr()
		p.need("rfloor")
		return fn("floor", n)
	case "lceil":
		n := p.expr()
		p.need("rceil")
		return fn("ceil", n)
	case "lvert", "vert":
		return p.absolute("rvert")
	case "overline", "bar":
		return fn("overline", p.digit())
	case "begin":
		return p.matrix()
	case "emptyset", "varnothing":
		return &node{kind: list}
	case "ldots":
		return &node{kind: wordy, text: "ldots"}
	case "mathbb":
		set := p.digit().key()
		if set == "R" {
			inf := &node{kind: symbol, text: "infty"}
			return &node{kind: tuple, text: "()", args: []*node{{kind: negative, args: []*node{inf}}, inf}}
		}
		return &node{kind: symbol, text: "mathbb " + set}
	}
	if functions[name] != 0 {
		return p.function(name)
	}
	if _, ok := constants[name]; ok || greek[name] {
		return &node{kind: symbol, text: name}
	}
	p.fail()
	return nil
}

// radicand is the argument of \sqrt: a group, or what people write plainly as
// sqrt(2) or √2.
func (p *parser) radicand() *node {
	if p.peek().kind == tokNumber {
		return num(p.next().text)
	}
	return p.digit()
}

// function reads sin x, \sin^2 x, log_2(8), sqrt(2).
func (p *parser) function(name string) *node {
	if name == "sqrt" {
		return fn("sqrt", p.radicand())
	}
	var base, exponent *node
	for {
		if p.take("_") {
			base = p.argument()
		} else if p.take("^") {
			exponent = p.argument()
		} else {
			break
		}
	}
	args := []*node{}
	if p.take("(") {
		in := p.answer()
		p.need(")")
		args = append(args, in)
		if in.kind == list {
			args = in.args
		}
	} else {
		arg := p.factor()
		for p.startsFactor(arg) && p.peek().kind != tokWord && functions[p.peek().text] == 0 { // sin 2x
			arg = join(product, arg, p.factor())
		}
		args = append(args, arg)
	}
	if trigonometric[name] && args[0].unit == "degrees" {
		arg := *args[0]
		arg.unit = ""
		args[0] = &node{kind: quotient, args: []*node{{kind: product, args: []*node{&arg, {kind: symbol, text: "pi"}}}, num("180")}}
	}
	if base != nil {
		args = append(args, base)
	}
	if len(args) > functions[name] && name != "max" && name != "min" && !(name == "log" && len(args) == 2) {
		p.fail()
	}
	n := fn(name, args...)
	if exponent == nil {
		return n
	}
	if exponent.kind == negative && exponent.args[0].text == "1" { // sin⁻¹
		n.text = "arc" + name
		if functions[n.text] == 0 {
			p.fail()
		}
		return n
	}
	return &node{kind: power, args: []*node{n, exponent}}
}

// bracket is a group, or a tuple or an interval where there are commas.
func (p *parser) bracket(open string) *node {
	items := []*node{p.item()}
	for p.separator() {
		items = append(items, p.item())
	}
	t := p.next()
	if t.kind != tokPunct || t.text != ")" && t.text != "]" {
		p.fail()
	}
	if len(items) == 1 {
		if (open == "(") != (t.text == ")") {
			p.fail()
		}
		return items[0]
	}
	return &node{kind: tuple, text: open + t.text, args: items}
}

// set is \{ … \}, without what follows a bar or a colon.
func (p *parser) set() *node {
	if p.take(`\}`) {
		return &node{kind: list}
	}
	n := p.answer()
	p.need(`\}`)
	if n.kind != list {
		n = &node{kind: list, args: []*node{n}}
	}
	n.text = "{}"
	return n
}

func (p *parser) absolute(end string) *node {
	p.bars++
	n := p.expr()
	p.bars--
	p.need(end)
	return fn("abs", n)
}

// matrix reads \begin{pmatrix} … \end{pmatrix} and its kin behind \begin.
func (p *parser) matrix() *node {
	name := p.environment()
	if name != "pmatrix" && name != "bmatrix" && name != "matrix" && name != "vmatrix" && name != "array" {
		p.fail()
	}
	if name == "array" && p.take("{") {
		for !p.take("}") {
			if p.next().kind == tokEnd {
				p.fail()
			}
		}
	}
	m := &node{kind: matrix}
	row := &node{kind: tuple}
	for {
		if !p.is("end") && !p.is("&") && !p.is(`\\`) {
			row.args = append(row.args, p.expr())
		}
		switch {
		case p.take("&"):
		case p.take(`\\`):
			m.args = append(m.args, row)
			row = &node{kind: tuple}
		case p.take("end"):
			if p.environment() != name {
				p.fail()
			}
			if len(row.args) > 0 {
				m.args = append(m.args, row)
			}
			if name == "vmatrix" {
				return p.determinant(m.args)
			}
			return m
		default:
			p.fail()
		}
	}
}

// determinant expands along the first row.
func (p *parser) determinant(rows []*node) *node {
	if len(rows) == 0 || len(rows) > 5 || len(rows[0].args) != len(rows) {
		p.fail()
	}
	if len(rows) == 1 {
		return rows[0].args[0]
	}
	det := &node{kind: sum}
	for column, x := range rows[0].args {
		var minor []*node
		for _, row := range rows[1:] {
			if len(row.args) != len(rows[0].args) {
				p.fail()
			}
			minor = append(minor, &node{kind: tuple, args: slices.Delete(slices.Clone(row.args), column, column+1)})
		}
		term := &node{kind: product, args: []*node{x, p.determinant(minor)}}
		if column%2 == 1 {
			term = &node{kind: negative, args: []*node{term}}
		}
		det.args = append(det.args, term)
	}
	return det
}

func (p *parser) environment() string {
	p.need("{")
	t := p.next()
	p.need("}")
	return t.text
}

// key is n as text, for names.
func (n *node) key() string {
	s := n.text
	for _, a := range n.args {
		s += "(" + a.key() + ")"
	}
	return s
}
