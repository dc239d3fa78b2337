package engine

// Segment is a run of consecutive rows of a packed batch. Row i of a segment
// (0 ≤ i < Len) sees the keys of its prefix, which come first in logical
// position, and rows 0..i of its own segment. A prompt is a segment without a
// prefix; each response to it is a segment whose prefix is the prompt's rows,
// so that G responses share one computation of the prompt.
type Segment struct {
	Start, Len             int // rows [Start, Start+Len)
	PrefixStart, PrefixLen int // rows of an earlier segment that has no prefix itself
}

// Packing describes which rows of a packed batch see which.
// Segments are in ascending order of Start and cover rows [0, Rows) without
// gaps.
type Packing struct {
	Rows     int
	Segments []Segment
}

// Positions appends the logical position of each row to dst: prefix length
// plus the offset in the segment.
func (p *Packing) Positions(dst []int32) []int32 {
	for _, s := range p.Segments {
		for i := range s.Len {
			dst = append(dst, int32(s.PrefixLen+i))
		}
	}
	return dst
}

// Check panics when p breaks the rules above.
func (p *Packing) Check() {
	row := 0
	for _, s := range p.Segments {
		if s.Start != row || s.Len <= 0 {
			panic("engine: packing: segments must follow one another")
		}
		if s.PrefixLen < 0 || s.PrefixLen > 0 && (s.PrefixStart < 0 || s.PrefixStart+s.PrefixLen > s.Start) {
			panic("engine: packing: prefix must be rows of an earlier segment")
		}
		row += s.Len
	}
	if row != p.Rows {
		panic("engine: packing: segments must cover all rows")
	}
}
