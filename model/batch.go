package model

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// Group is one prompt with its responses. A response includes its end token.
type Group struct {
	Prompt    []int32
	Responses [][]int32
}

// Batch is what one Forward computes: the log-prob of every response token
// given its prompt and the tokens before it. Per-token slices are flat: by
// group, by response, by token.
type Batch struct {
	Groups []Group
	// Unshare gives each response a copy of its prompt. Log-probs are the same
	// to the bit; it costs what sharing saves and is there to be compared with.
	Unshare bool
	// Scale is the inverse temperature of the head; 0 means 1.
	Scale float32
	// Probe, where not nil, is scored at every response position in place of the
	// response's token: Forward then returns log p(*Probe | what came before).
	// Such a Forward has no Backward of use.
	Probe *int32
}

// Tokens returns the number of response tokens.
func (b *Batch) Tokens() int {
	n := 0
	for _, g := range b.Groups {
		for _, r := range g.Responses {
			n += len(r)
		}
	}
	return n
}

// Rows returns the number of packed rows: response tokens, and of each prompt
// all but the last token, once per group or, unshared, once per response.
func (b *Batch) Rows() int {
	n := 0
	for _, g := range b.Groups {
		copies := 0
		for _, r := range g.Responses {
			n += len(r)
			if len(r) > 0 {
				copies++
			}
		}
		n += b.promptRows(g, copies)
	}
	return n
}

func (b *Batch) promptRows(g Group, responses int) int {
	if responses == 0 {
		return 0
	}
	if !b.Unshare {
		responses = 1
	}
	return responses * (len(g.Prompt) - 1)
}

// Part is a micro-batch: consecutive responses of a larger batch. Its tokens
// are [From, To) of the whole batch's.
type Part struct {
	Batch    Batch
	From, To int
}

// Split cuts b into the fewest parts of consecutive responses that need at most
// maxRows rows each, as equal in rows as the order allows. A group may span
// parts; each then holds its prompt.
func (b *Batch) Split(maxRows int) ([]Part, error) {
	parts, need := b.cut(maxRows)
	if need > maxRows {
		return nil, fmt.Errorf("model: a prompt and its response need %d packed rows, the plan has %d: raise MaxRows or shorten them", need, maxRows)
	}
	if len(parts) < 2 {
		return parts, nil
	}
	// The smallest bound that needs no more parts.
	low, high := (b.Rows()+len(parts)-1)/len(parts), maxRows
	for low < high {
		mid := (low + high) / 2
		if p, need := b.cut(mid); need <= mid && len(p) <= len(parts) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	parts, _ = b.cut(high)
	return parts, nil
}

// cut fills parts greedily up to maxRows and returns them with the rows of the
// longest single response and its prompt.
func (b *Batch) cut(maxRows int) (parts []Part, need int) {
	token, rows := 0, 0
	open := func() {
		parts = append(parts, Part{Batch: Batch{Unshare: b.Unshare, Scale: b.Scale, Probe: b.Probe}, From: token, To: token})
		rows = 0
	}
	for _, g := range b.Groups {
		in := false // the group's prompt is in the open part
		for _, r := range g.Responses {
			if len(r) == 0 {
				continue
			}
			alone := len(g.Prompt) - 1 + len(r)
			need = max(need, alone)
			cost := alone
			if in && !b.Unshare {
				cost = len(r)
			}
			if len(parts) == 0 || rows+cost > maxRows {
				open()
				in, cost = false, alone
			}
			p := &parts[len(parts)-1]
			if !in {
				p.Batch.Groups = append(p.Batch.Groups, Group{Prompt: g.Prompt})
				in = true
			}
			last := &p.Batch.Groups[len(p.Batch.Groups)-1]
			last.Responses = append(last.Responses, r)
			rows += cost
			token += len(r)
			p.To = token
		}
	}
	return parts, need
}

// packed is a batch laid out in rows: all prompts' rows first, then the
// responses', each of which has one target.
type packed struct {
	ids, positions, targets []int32
	packing                 engine.Packing
	prompts                 int // rows before the first response
	scale                   float32
}

// pack lays b out, reusing p's memory.
//
// A prompt's segment holds its tokens but the last; a response's holds the
// prompt's last token and the response without its last, and sees the prompt.
func (p *packed) pack(b *Batch, c *Config, context int) error {
	p.ids, p.positions, p.targets = p.ids[:0], p.positions[:0], p.targets[:0]
	p.packing.Segments = p.packing.Segments[:0]
	p.scale = b.Scale
	if p.scale == 0 {
		p.scale = 1
	}
	if b.Probe != nil {
		if err := checkTokens([]int32{*b.Probe}, c.VocabSize); err != nil {
			return fmt.Errorf("model: probed token: %w", err)
		}
	}
	for i, g := range b.Groups {
		if len(g.Prompt) == 0 {
			return fmt.Errorf("model: group %d has an empty prompt: it needs one token at least", i)
		}
		if err := checkTokens(g.Prompt, c.VocabSize); err != nil {
			return fmt.Errorf("model: prompt of group %d: %w", i, err)
		}
		for j, r := range g.Responses {
			if err := checkTokens(r, c.VocabSize); err != nil {
				return fmt.Errorf("model: response %d of group %d: %w", j, i, err)
			}
			if n := len(g.Prompt) + len(r) - 1; n > context {
				return fmt.Errorf("model: response %d of group %d ends at position %d: the context is %d", j, i, n, context)
			}
		}
		for range p.copies(b, g) {
			p.segment(g.Prompt[:len(g.Prompt)-1], 0, 0)
		}
	}
	p.prompts = len(p.ids)

	prompt := 0
	for _, g := range b.Groups {
		n := len(g.Prompt) - 1
		first := prompt
		for _, r := range g.Responses {
			if len(r) == 0 {
				continue
			}
			p.segment(g.Prompt[n:], prompt, n)
			p.extend(r[:len(r)-1])
			p.targets = append(p.targets, r...)
			if b.Probe != nil {
				for i := len(p.targets) - len(r); i < len(p.targets); i++ {
					p.targets[i] = *b.Probe
				}
			}
			if b.Unshare {
				prompt += n
			}
		}
		if !b.Unshare {
			prompt = first + n*p.copies(b, g)
		}
	}
	p.packing.Rows = len(p.ids)
	if len(p.targets) == 0 {
		return fmt.Errorf("model: a batch without response tokens has nothing to compute")
	}
	return nil
}

// copies returns how often g's prompt is laid out.
func (p *packed) copies(b *Batch, g Group) int {
	n := 0
	for _, r := range g.Responses {
		if len(r) > 0 {
			n++
		}
	}
	if !b.Unshare {
		n = min(n, 1)
	}
	return n
}

// segment starts a segment that sees n rows from prefix on.
func (p *packed) segment(tokens []int32, prefix, n int) {
	if len(tokens) == 0 {
		return
	}
	if n == 0 {
		prefix = 0
	}
	p.packing.Segments = append(p.packing.Segments, engine.Segment{Start: len(p.ids), PrefixStart: prefix, PrefixLen: n})
	p.extend(tokens)
}

// extend adds rows to the latest segment.
func (p *packed) extend(tokens []int32) {
	s := &p.packing.Segments[len(p.packing.Segments)-1]
	for range tokens {
		p.positions = append(p.positions, int32(s.PrefixLen+s.Len))
		s.Len++
	}
	p.ids = append(p.ids, tokens...)
}

func checkTokens(ids []int32, vocab int) error {
	for i, id := range ids {
		if id < 0 || int(id) >= vocab {
			return fmt.Errorf("token %d at %d is outside the vocabulary of %d", id, i, vocab)
		}
	}
	return nil
}
