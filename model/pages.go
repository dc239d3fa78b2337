package model

// pageAllocator hands out pages of the KV cache and counts their users, so
// that a prompt's full pages may be shared. Freed pages are reused last in,
// first out.
type pageAllocator struct {
	free []int32
	refs []int32
	peak int
}

func newPageAllocator(pages int) *pageAllocator {
	a := &pageAllocator{free: make([]int32, pages), refs: make([]int32, pages)}
	for i := range a.free {
		a.free[i] = int32(pages - 1 - i)
	}
	return a
}

// take returns a page with one user. There must be a free one.
func (a *pageAllocator) take() int32 {
	p := a.free[len(a.free)-1]
	a.free = a.free[:len(a.free)-1]
	a.refs[p] = 1
	a.peak = max(a.peak, a.used())
	return p
}

// share adds a user to a page in use.
func (a *pageAllocator) share(p int32) {
	if a.refs[p] == 0 {
		panic("model: kv cache: sharing a free page")
	}
	a.refs[p]++
}

// release takes one user away and frees the page after the last.
func (a *pageAllocator) release(p int32) {
	switch a.refs[p]--; {
	case a.refs[p] < 0:
		panic("model: kv cache: page released twice")
	case a.refs[p] == 0:
		a.free = append(a.free, p)
	}
}

func (a *pageAllocator) used() int { return len(a.refs) - len(a.free) }
