package answer

// kind says what an answer or a part of it is.
type kind uint8

const (
	number    kind = iota // text holds the digits, see rational
	symbol                // text is a variable's name or a constant
	sum                   // of args
	product               // of args
	quotient              // args[0] / args[1]
	power                 // args[0] ^ args[1]
	negative              // −args[0]
	function              // text of args
	plusMinus             // args[0] ± args[1], or ∓ where text is "mp"; args[0] may be absent (one arg)
	list                  // args in any order: "1, 2", and sets
	tuple                 // args in order; text is the pair of brackets, "()", "[)", …
	union                 // of sets
	matrix                // args are tuples, one for each row
	relation              // text is =, <, <=, !=; args[0] and args[1]; > is turned around
	chain                 // args[0] < args[1] < args[2]; text holds both operators, space between
	wordy                 // text is words
	based                 // digits text in base args[0]
	percent               // args[0] %
)

// node is a part of an answer.
type node struct {
	kind kind
	text string
	args []*node
	unit string // words behind a number: "cm"
}

func num(s string) *node { return &node{kind: number, text: s} }

func fn(name string, args ...*node) *node { return &node{kind: function, text: name, args: args} }

// symbols adds the variables of n to set.
func (n *node) symbols(set map[string]bool) {
	if n.kind == symbol {
		if _, constant := constants[n.text]; !constant {
			set[n.text] = true
		}
	}
	for _, a := range n.args {
		a.symbols(set)
	}
}

// scalar reports whether n has a value that can be computed with.
func (n *node) scalar() bool {
	switch n.kind {
	case list, tuple, union, matrix, relation, chain, wordy:
		return false
	}
	return true
}
