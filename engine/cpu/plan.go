package cpu

import "github.com/updraft-ml/updraft/engine"

// attentionPlan says where each segment's keys lie in panels. A panel holds one
// split of one segment: split keys at multiples of split in the segment's
// logical position. Whole splits of a shared prompt are the prompt's own panels;
// the split that straddles the end of the prompt is gathered once per response.
type attentionPlan struct {
	segs   []segPlan
	panels []panelPlan
	blocks []blockPlan
	roots  []int  // segments without a prefix, in ascending order
	finite []bool // see panels
}

type segPlan struct {
	engine.Segment
	root   int // the segment that holds the prefix; itself without one
	next   int // the root's next segment in ascending order, or -1
	last   int // of a root: its last segment so far
	shared int // leading splits that are the root's panels
	splits int // all splits
	own    int // panel of split number shared
}

type panelPlan struct{ seg, split int }

// blockPlan is a run of a segment's rows within one split: they see the same
// splits, the last one in part.
type blockPlan struct{ seg, from, n int }

// panel returns the index of the segment's panel for split j.
func (p *attentionPlan) panel(s *segPlan, j int) int {
	if j < s.shared {
		return p.segs[s.root].own + j
	}
	return s.own + j - s.shared
}

// keys returns the rows that hold the keys of split j: first those of the
// prefix, then those of the segment itself.
func (s *segPlan) keys(j int) (prefixRow, prefixN, ownRow, ownN int) {
	from, to := j*split, min((j+1)*split, s.PrefixLen+s.Len)
	if from < s.PrefixLen {
		prefixRow, prefixN = s.PrefixStart+from, min(to, s.PrefixLen)-from
	}
	if to > s.PrefixLen {
		first := max(from, s.PrefixLen)
		ownRow, ownN = s.Start+first-s.PrefixLen, to-first
	}
	return
}

// set plans the panels and row blocks of a packing.
func (p *attentionPlan) set(k *engine.Packing) {
	p.segs, p.panels, p.blocks, p.roots = p.segs[:0], p.panels[:0], p.blocks[:0], p.roots[:0]
	for i, seg := range k.Segments {
		s := segPlan{Segment: seg, root: i, next: -1, last: i}
		if s.PrefixLen > 0 {
			s.root = p.find(s.PrefixStart)
			r := &p.segs[s.root]
			if r.PrefixLen > 0 || s.PrefixStart+s.PrefixLen > r.Start+r.Len {
				panic("cpu: attention: a prefix must lie in one earlier segment that has none")
			}
			if s.PrefixStart == r.Start {
				s.shared = s.PrefixLen / split
			}
			p.segs[r.last].next = i // r may be p.segs[r.last]
			p.segs[s.root].last = i
		} else {
			p.roots = append(p.roots, i)
		}
		end := s.PrefixLen + s.Len
		s.splits = (end + split - 1) / split
		s.own = len(p.panels)
		for j := s.shared; j < s.splits; j++ {
			p.panels = append(p.panels, panelPlan{seg: i, split: j})
		}
		for from := 0; from < s.Len; {
			n := min(split-(s.PrefixLen+from)%split, s.Len-from)
			p.blocks = append(p.blocks, blockPlan{seg: i, from: from, n: n})
			from += n
		}
		p.segs = append(p.segs, s)
	}
}

// find returns the planned segment that holds a row.
func (p *attentionPlan) find(row int) int {
	lo, hi := 0, len(p.segs)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; p.segs[mid].Start <= row {
			lo = mid
		} else {
			hi = mid
		}
	}
	return lo
}

// clonePacking copies a packing for a recorded operation.
func clonePacking(b *Backend, k *engine.Packing) *engine.Packing {
	if k == nil {
		panic("cpu: attention: packing is absent")
	}
	if b.recording == nil {
		return k
	}
	return &engine.Packing{Rows: k.Rows, Segments: append([]engine.Segment(nil), k.Segments...)}
}
