package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in the text before the vocabulary's
// words are.
type addedToken struct {
	id         int32
	content    string
	special    bool
	singleWord bool // found only where no word character touches it
	lstrip     bool // takes the white space before it along
	rstrip     bool // and that after it
	normalized bool // looked for after normalization, in its normalized form
}

// matcher is a trie of added tokens. The zero value is an empty one.
type matcher struct {
	nodes []matchNode
	first [256]bool // bytes that begin a token
}

type matchNode struct {
	token int // index of the added token that ends here, -1 for none
	edges []matchEdge
}

type matchEdge struct {
	b  byte
	to int
}

func (m *matcher) add(content string, token int) {
	if content == "" {
		return
	}
	if m.nodes == nil {
		m.nodes = []matchNode{{token: -1}}
	}
	m.first[content[0]] = true
	at := 0
	for i := range len(content) {
		to := m.step(at, content[i])
		if to < 0 {
			to = len(m.nodes)
			m.nodes = append(m.nodes, matchNode{token: -1})
			m.nodes[at].edges = append(m.nodes[at].edges, matchEdge{content[i], to})
		}
		at = to
	}
	m.nodes[at].token = token
}

func (m *matcher) step(at int, b byte) int {
	for _, e := range m.nodes[at].edges {
		if e.b == b {
			return e.to
		}
	}
	return -1
}

// longest returns the longest token that s begins with and its length, or
// token -1.
func (m *matcher) longest(s string) (token, n int) {
	token = -1
	at := 0
	for i := range len(s) {
		if at = m.step(at, s[i]); at < 0 {
			break
		}
		if m.nodes[at].token >= 0 {
			token, n = m.nodes[at].token, i+1
		}
	}
	return token, n
}

// cut calls token for each added token of m in s and text for what lies
// between them with its place, in order. Matches are leftmost, then longest,
// and do not overlap; one that is refused, because plain asks for no special
// tokens or because it is part of a word, is passed over whole.
func (t *Tokenizer) cut(m *matcher, s string, plain bool, token func(*addedToken), text func(from int, piece string)) {
	begin := 0 // of the text that has not been handed out
	if m.nodes != nil {
		for i := 0; i < len(s); {
			if !m.first[s[i]] {
				i++
				continue
			}
			k, n := m.longest(s[i:])
			if k < 0 {
				i++
				continue
			}
			a := &t.added[k]
			from, to := i, i+n
			i = to
			if plain && a.special || a.singleWord && (endsInWord(s[:from]) || startsWithWord(s[to:])) {
				continue
			}
			if a.lstrip {
				from = len(strings.TrimRightFunc(s[:from], unicode.IsSpace))
			}
			if a.rstrip {
				to = len(s) - len(strings.TrimLeftFunc(s[to:], unicode.IsSpace))
			}
			if begin < from {
				text(begin, s[begin:from])
			}
			token(a)
			begin = to
		}
	}
	if begin < len(s) {
		text(begin, s[begin:])
	}
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode's technical standard 18.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic, unicode.Join_Control)
}
