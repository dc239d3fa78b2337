package task

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Limits on an answer. They are far beyond what the longest legal answer needs
// (8 numbers, 7 operations, 7 pairs of brackets) and bound the verifier's work.
const (
	maxAnswerBytes = 512
	maxDepth       = 32
	maxDigits      = 18 // a literal of 18 digits fits in int64
)

// Reasons why an answer is wrong. Check wraps one of them.
var (
	ErrSyntax     = errors.New("not an expression of the allowed form")
	ErrNumbers    = errors.New("does not use exactly the given numbers")
	ErrDivByZero  = errors.New("divides by zero")
	ErrWrongValue = errors.New("does not equal the target")
)

// Correct reports whether answer solves p.
func (p Countdown) Correct(answer string) bool { return p.Check(answer) == nil }

// Check returns nil if answer solves p, else an error that wraps the reason:
// ErrSyntax, ErrNumbers, ErrDivByZero or ErrWrongValue.
//
// An answer is an expression over digits, + - * /, brackets and spaces. The
// operations bind and associate as usual. × (U+00D7), ÷ (U+00F7) and − (U+2212)
// are read as * / -, because problems are often stated with them and models
// then write them; no other character is. There is no unary sign, no implicit
// product, no "**" or "//", and a number has no leading zeros. White space
// around the answer is ignored; inside it only the space is. Arithmetic is
// exact, over the rationals. "= 24" at the end is not part of an expression.
func (p Countdown) Check(answer string) error {
	e, err := ParseExpr(answer)
	if err != nil {
		return err
	}
	v, err := p.evaluate(e)
	if err != nil {
		return err
	}
	if v != Int(int64(p.Target)) {
		return fmt.Errorf("%w: it is %v, not %d", ErrWrongValue, v, p.Target)
	}
	return nil
}

// evaluate checks that e uses p's numbers and returns its value. The check comes
// first because it is what bounds the arithmetic: see MaxMagnitude.
func (p Countdown) evaluate(e *Expr) (Rat, error) {
	got := e.leaves(make([]int64, 0, MaxCount))
	want := make([]int64, len(p.Nums))
	for i, n := range p.Nums {
		want[i] = int64(n)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return Rat{}, fmt.Errorf("%w: it uses %v, not %v", ErrNumbers, got, want)
	}
	return e.Value()
}

// ParseExpr reads an expression of the form that Check describes. Its errors
// wrap ErrSyntax.
func ParseExpr(s string) (*Expr, error) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > maxAnswerBytes {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrSyntax, maxAnswerBytes)
	}
	ps := parser{s: normalizeOps.Replace(s)}
	e, err := ps.sum(0)
	if err != nil {
		return nil, err
	}
	if c := ps.peek(); c != 0 {
		return nil, ps.fail("unexpected text after the expression")
	}
	return e, nil
}

// normalizeOps maps the accepted Unicode signs to ASCII. A Replacer is safe for
// concurrent use and never changes.
var normalizeOps = strings.NewReplacer("×", "*", "÷", "/", "−", "-")

// parser is a recursive-descent parser:
//
//	sum    = term   { ("+" | "-") term }
//	term   = factor { ("*" | "/") factor }
//	factor = number | "(" sum ")"
type parser struct {
	s string
	i int
}

// peek skips spaces and returns the next byte, 0 at the end. A NUL in the text
// is not confused with the end, because fail and sum look at the position.
func (p *parser) peek() byte {
	for p.i < len(p.s) && p.s[p.i] == ' ' {
		p.i++
	}
	if p.i == len(p.s) {
		return 0
	}
	if c := p.s[p.i]; c != 0 {
		return c
	}
	return 0xff // any byte that no rule accepts
}

func (p *parser) fail(why string) error {
	return fmt.Errorf("%w: at byte %d: %s", ErrSyntax, p.i, why)
}

func (p *parser) sum(depth int) (*Expr, error) {
	e, err := p.term(depth)
	for err == nil {
		op := p.peek()
		if op != '+' && op != '-' {
			break
		}
		p.i++
		var r *Expr
		r, err = p.term(depth)
		e = &Expr{Op: op, Left: e, Right: r}
	}
	return e, err
}

func (p *parser) term(depth int) (*Expr, error) {
	e, err := p.factor(depth)
	for err == nil {
		op := p.peek()
		if op != '*' && op != '/' {
			break
		}
		p.i++
		var r *Expr
		r, err = p.factor(depth)
		e = &Expr{Op: op, Left: e, Right: r}
	}
	return e, err
}

func (p *parser) factor(depth int) (*Expr, error) {
	switch c := p.peek(); {
	case c == '(':
		if depth == maxDepth {
			return nil, p.fail("brackets are nested too deeply")
		}
		p.i++
		e, err := p.sum(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.fail("a bracket is not closed")
		}
		p.i++
		return e, nil
	case '0' <= c && c <= '9':
		return p.number()
	}
	return nil, p.fail("a number or a bracket is expected")
}

func (p *parser) number() (*Expr, error) {
	start := p.i
	for p.i < len(p.s) && '0' <= p.s[p.i] && p.s[p.i] <= '9' {
		p.i++
	}
	digits := p.s[start:p.i]
	if len(digits) > 1 && digits[0] == '0' {
		return nil, p.fail("a number has leading zeros")
	}
	if len(digits) > maxDigits {
		return nil, p.fail("a number is too long")
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return nil, p.fail("not a number")
	}
	return &Expr{Num: n}, nil
}
