package tokenizer

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// bpe is the model of byte-level BPE: a word begins as its bytes' tokens; as
// long as two neighbours have a merge, those of the lowest rank, the leftmost
// of them first, become one token.
type bpe struct {
	bytes  [256]int32     // token of a byte, -1 where the vocabulary has none: such bytes vanish
	merges map[pair]merge // what two neighbours become
	whole  map[string]int32
	// whole is nil, or, where merges are to be ignored for words that are a token,
	// the tokens by their bytes.

	steps   []splitStep
	classes *classes
	seed    maphash.Seed

	mu   sync.Mutex
	idle []*scratch
}

// pair is two neighbouring ids.
type pair uint64

func pairOf(a, b int32) pair { return pair(uint32(a))<<32 | pair(uint32(b)) }

func (p pair) ids() (a, b int32) { return int32(p >> 32), int32(uint32(p)) }

type merge struct {
	rank uint32
	id   int32
}

const noMerge = ^uint32(0)

// byteChars are the characters that stand for bytes in a byte-level vocabulary:
// printable Latin-1 for itself, the others in order from U+0100.
var byteChars = func() (chars [256]rune) {
	next := rune(0x100)
	for b := range chars {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			chars[b] = rune(b)
		} else {
			chars[b] = next
			next++
		}
	}
	return chars
}()

// charBytes is the inverse of byteChars, -1 where a character stands for none.
var charBytes = func() (bytes [0x144]int16) {
	for i := range bytes {
		bytes[i] = -1
	}
	for b, r := range byteChars {
		bytes[r] = int16(b)
	}
	return bytes
}()

// bytesOf returns the bytes that a token of a byte-level vocabulary stands for,
// and false where it holds a character that stands for none.
func bytesOf(token string) (string, bool) {
	same := true
	for _, r := range token {
		if int(r) >= len(charBytes) || charBytes[r] < 0 {
			return token, false
		}
		same = same && r < utf8.RuneSelf // such a character is its own byte
	}
	if same {
		return token, true
	}
	var b strings.Builder
	for _, r := range token {
		b.WriteByte(byte(charBytes[r]))
	}
	return b.String(), true
}

// setBPE makes t a tokenizer of byte-level BPE: vocab is the model's own, and
// merges are pairs of its entries in order of rank.
func (t *Tokenizer) setBPE(vocab map[string]int32, merges [][2]string, steps []splitStep, ignoreMerges bool) error {
	t.index()
	m := &bpe{merges: make(map[pair]merge, len(merges)), steps: steps, classes: newClasses(), seed: maphash.MakeSeed()}
	for b, r := range byteChars {
		m.bytes[b] = -1
		if id, ok := vocab[string(r)]; ok {
			m.bytes[b] = id
		}
	}
	for rank, p := range merges {
		a, okA := vocab[p[0]]
		b, okB := vocab[p[1]]
		ab, ok := vocab[p[0]+p[1]]
		if !okA || !okB || !ok {
			return fmt.Errorf("tokenizer: model.merges[%d]: %q and %q, or what they make, is not in model.vocab", rank, p[0], p[1])
		}
		m.merges[pairOf(a, b)] = merge{uint32(rank), ab}
	}
	if ignoreMerges {
		m.whole = make(map[string]int32, len(vocab))
	}
	t.text = slices.Clone(t.tokens)
	for token, id := range vocab {
		if s, ok := bytesOf(token); ok {
			t.text[id] = s
			if ignoreMerges {
				m.whole[s] = id
			}
		}
	}
	for _, a := range t.added {
		t.text[a.id] = a.content
	}
	t.bpe = m
	return nil
}

// pairs returns the merges in order of rank.
func (m *bpe) pairs() []pair {
	list := make([]pair, 0, len(m.merges))
	for p := range m.merges {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b pair) int { return cmp.Compare(m.merges[a].rank, m.merges[b].rank) })
	return list
}

// encode appends the ids of text, in which there are no added tokens.
func (m *bpe) encode(out []int32, text string, s *scratch) []int32 {
	m.classes.split(text, m.steps, func(word string) { out = m.word(out, word, s) })
	return out
}

// word appends the ids of a piece.
func (m *bpe) word(out []int32, word string, s *scratch) []int32 {
	if len(word) > maxCached {
		return m.merge(out, word, s)
	}
	c := &s.cache[maphash.String(m.seed, word)%cacheSize]
	if c.word != word {
		n := len(out)
		out = m.merge(out, word, s)
		c.word, c.ids = strings.Clone(word), append(c.ids[:0], out[n:]...)
		return out
	}
	return append(out, c.ids...)
}

// merge appends the ids of a piece that is not in the cache.
func (m *bpe) merge(out []int32, word string, s *scratch) []int32 {
	if m.whole != nil {
		if id, ok := m.whole[word]; ok {
			return append(out, id)
		}
	}
	ids := s.ids[:0]
	for i := range len(word) {
		if id := m.bytes[word[i]]; id >= 0 {
			ids = append(ids, id)
		}
	}
	s.ids = ids
	if len(ids) <= maxPlain {
		return append(out, m.mergePlain(ids, s)...)
	}
	return m.mergeLong(out, ids, s)
}

func (m *bpe) rank(a, b int32) uint32 {
	if x, ok := m.merges[pairOf(a, b)]; ok {
		return x.rank
	}
	return noMerge
}

// mergePlain merges ids in place: each round looks for the lowest rank. Its
// time grows with the square of the length.
func (m *bpe) mergePlain(ids []int32, s *scratch) []int32 {
	ranks := s.ranks[:0] // of the pair that begins at each place
	for i := 1; i < len(ids); i++ {
		ranks = append(ranks, m.rank(ids[i-1], ids[i]))
	}
	s.ranks = ranks
	for {
		best, at := noMerge, -1
		for i, r := range ranks {
			if r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			return ids
		}
		ids[at] = m.merges[pairOf(ids[at], ids[at+1])].id
		ids = slices.Delete(ids, at+1, at+2)
		ranks = slices.Delete(ranks, at, at+1)
		if at < len(ranks) {
			ranks[at] = m.rank(ids[at], ids[at+1])
		}
		if at > 0 {
			ranks[at-1] = m.rank(ids[at-1], ids[at])
		}
	}
}

// candidate is a pair that may be merged.
type candidate struct {
	rank uint32
	at   int32 // place of its left token
	pair pair  // as it was when the candidate was found; another one since makes it void
}

func (c candidate) less(d candidate) bool { return c.rank < d.rank || c.rank == d.rank && c.at < d.at }

// mergeLong does what mergePlain does with a heap of candidates over a linked
// list, in time n log n: a megabyte of one letter is one word.
func (m *bpe) mergeLong(out, ids []int32, s *scratch) []int32 {
	next, prev := slices.Grow(s.next[:0], len(ids)), slices.Grow(s.prev[:0], len(ids))
	for i := range ids {
		next, prev = append(next, int32(i+1)), append(prev, int32(i-1))
	}
	end := int32(len(ids))
	h := candidates(s.heap[:0])
	offer := func(a int32) {
		b := next[a]
		if b == end {
			return
		}
		p := pairOf(ids[a], ids[b])
		if x, ok := m.merges[p]; ok {
			h.push(candidate{x.rank, a, p})
		}
	}
	for i := range end {
		offer(i)
	}
	for len(h) > 0 {
		c := h.pop()
		a := c.at
		b := next[a]
		if ids[a] < 0 || b == end || pairOf(ids[a], ids[b]) != c.pair {
			continue
		}
		ids[a], ids[b] = m.merges[c.pair].id, -1
		next[a] = next[b]
		if next[a] != end {
			prev[next[a]] = a
		}
		offer(a)
		if prev[a] >= 0 {
			offer(prev[a])
		}
	}
	for i := int32(0); i < end; i = next[i] {
		out = append(out, ids[i])
	}
	s.next, s.prev, s.heap = next, prev, h[:0]
	return out
}

// candidates is a heap of them, the least first. container/heap would box each.
type candidates []candidate

func (h *candidates) push(c candidate) {
	q := append(*h, c)
	i := len(q) - 1
	for i > 0 && c.less(q[(i-1)/2]) {
		q[i] = q[(i-1)/2]
		i = (i - 1) / 2
	}
	q[i] = c
	*h = q
}

func (h *candidates) pop() candidate {
	q := *h
	top, last := q[0], q[len(q)-1]
	q = q[:len(q)-1]
	i := 0
	for {
		child := 2*i + 1
		if child >= len(q) {
			break
		}
		if child+1 < len(q) && q[child+1].less(q[child]) {
			child++
		}
		if !q[child].less(last) {
			break
		}
		q[i] = q[child]
		i = child
	}
	if len(q) > 0 {
		q[i] = last
	}
	*h = q
	return top
}

const (
	maxPlain  = 48      // tokens up to which mergePlain is the faster one
	maxCached = 48      // bytes of the longest word in the cache
	cacheSize = 1 << 14 // words in the cache
	maxLong   = 1 << 16 // tokens of buffers that are kept
	maxIdle   = 16      // scratches that are kept
)

// scratch is what encoding needs and one goroutine uses at a time: buffers, and
// a cache of words, in which a word takes the place that its hash decides.
type scratch struct {
	ids   []int32
	ranks []uint32
	next  []int32
	prev  []int32
	heap  []candidate
	cache []cached
}

type cached struct {
	word string
	ids  []int32
}

func (m *bpe) borrow() *scratch {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.idle); n > 0 {
		s := m.idle[n-1]
		m.idle = m.idle[:n-1]
		return s
	}
	return &scratch{cache: make([]cached, cacheSize)}
}

func (m *bpe) giveBack(s *scratch) {
	if cap(s.ids) > maxLong {
		s.ids, s.next, s.prev, s.heap = nil, nil, nil, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.idle) < maxIdle {
		m.idle = append(m.idle, s)
	}
}
