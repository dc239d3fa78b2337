package gpu

import "github.com/updraft-ml/updraft/cuda"

// scratch is the memory that an operation may use while it runs. All operations
// share it, since they run one after another. It grows when an operation asks
// for more than ever before, so that a step that was run once allocates nothing.
type scratch struct {
	mem     *cuda.Buffer
	pinned  bool           // a program was recorded with it
	retired []*cuda.Buffer // outgrown, but recorded in programs
}

// scratchAlign is the alignment of parts of the scratch.
const scratchAlign = 256

// part rounds a part's bytes up, so that the next one is aligned.
func part(bytes int) int { return (bytes + scratchAlign - 1) / scratchAlign * scratchAlign }

// scratchFor returns the address of n bytes of scratch for the operation that is
// being submitted. It returns false where the device has too little memory, which
// Sync and Wait then say.
func (b *Backend) scratchFor(op string, n int) (uint64, bool) { return b.reserve(op, &b.scratch, n) }

// reserve makes s hold n bytes and returns their address.
func (b *Backend) reserve(op string, s *scratch, n int) (uint64, bool) {
	if s.mem == nil || s.mem.Size() < n {
		// An eighth more than needed keeps slowly growing shapes from allocating
		// each time.
		mem, err := b.pool.Alloc(part(n + n/8 + 1))
		if err != nil {
			mem, err = b.pool.Alloc(max(n, 1))
		}
		if err != nil {
			b.fail(op, b.memoryError("scratch", n, err))
			return 0, false
		}
		s.retire(b.pool)
		s.mem = mem
	}
	s.pinned = s.pinned || b.recording != nil
	return s.mem.Ptr(0), true
}

// leastCounters is how many counters there are at least.
const leastCounters = 1 << 14

// counters returns the address and the number of the counters by which blocks of
// a launch take turns, at least n. They are zero before and after every launch.
func (b *Backend) counters(op string, n int) (addr uint64, have int, ok bool) {
	c := &b.turns
	if c.mem == nil || c.mem.Size() < 4*n {
		n = max(n, leastCounters)
		mem, err := b.pool.Alloc(4 * n)
		if err != nil {
			b.fail(op, b.memoryError("counters", 4*n, err))
			return 0, 0, false
		}
		c.retire(b.pool)
		c.mem = mem
		b.issue(op, b.stream.Fill32(mem, 0, n, 0))
	}
	c.pinned = c.pinned || b.recording != nil
	return c.mem.Ptr(0), c.mem.Size() / 4, true
}

func (s *scratch) retire(p *cuda.Pool) {
	switch {
	case s.mem == nil:
	case s.pinned:
		s.retired = append(s.retired, s.mem)
	default:
		p.Free(s.mem)
	}
	s.mem, s.pinned = nil, false
}

// unpin says that no program is left.
func (s *scratch) unpin(p *cuda.Pool) {
	s.pinned = false
	for _, m := range s.retired {
		p.Free(m)
	}
	s.retired = nil
}

func (s *scratch) free(p *cuda.Pool) {
	s.unpin(p)
	s.retire(p)
}
