package answer

import "strings"

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
		return num(t.text)
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
	case "mathbb":
		return &node{kind: symbol, text: "mathbb " + p.digit().key()}
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
	if n.kind == list {
		return n
	}
	return &node{kind: list, args: []*node{n}}
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
				m.text = "det"
			}
			return m
		default:
			p.fail()
		}
	}
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
