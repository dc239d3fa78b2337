package cpu

import "github.com/updraft-ml/updraft/engine"

// A page of the KV cache holds for each key-value head one split's keys as a
// [D][split] panel and its values as a [split][D] one:
//
//	K: [page][KV][D][split]    V: [page][KV][split][D]

// cache is a KV cache resolved to slices.
type cache struct {
	k, v         []float32
	pages, kv, d int
}

func (b *Backend) cache(c engine.KVCache) cache {
	n := c.Pages * engine.PageSize * c.KVHeads * c.HeadDim
	if c.Pages < 0 || c.KVHeads <= 0 || c.HeadDim <= 0 {
		panic("cpu: kv cache: bad shape")
	}
	if c.K == nil || c.V == nil {
		panic("cpu: kv cache: buffer is absent")
	}
	k, v := b.buffer(c.K), b.buffer(c.V)
	if k.dtype != engine.F32 || v.dtype != engine.F32 {
		panic("cpu: unsupported dtype: the kv cache must be F32")
	}
	if len(k.f) < n || len(v.f) < n {
		panic("cpu: kv cache: buffer is too small")
	}
	return cache{k: k.f[:n], v: v.f[:n], pages: c.Pages, kv: c.KVHeads, d: c.HeadDim}
}

// panels returns the key and value panels of one page and head.
func (c *cache) panels(page, head int) (k, v []float32) {
	n := split * c.d
	at := (page*c.kv + head) * n
	return c.k[at:][:n], c.v[at:][:n]
}

// store puts one head's key and value at an offset in a page.
func (c *cache) store(page, offset, head int, k, v []float32) {
	kp, vp := c.panels(page, head)
	for i, x := range k {
		kp[i*split+offset] = x
	}
	copy(vp[offset*c.d:][:c.d], v)
}

// KVWrite stores rows of K and V in the cache.
func (b *Backend) KVWrite(a engine.KVWriteArgs) {
	op := next(b, &b.ops.kvWrite)
	*op = kvWriteOp{cache: b.cache(a.Cache), k: b.f32(a.K)}
	op.v = b.shaped(a.V, op.k.rows, op.k.cols)
	if op.k.cols != op.cache.kv*op.cache.d {
		panic("cpu: kv write: shapes do not match")
	}
	n := a.Rows.Len()
	op.rows, op.slots = b.ints(a.Rows, n), b.ints(a.Slots, n)
	b.submit(op)
}

type kvWriteOp struct {
	cache       cache
	k, v        mat
	rows, slots []int32
	block       int
}

// run gives each tile a run of entries: entries of one call name different
// slots, so tiles write different elements.
func (o *kvWriteOp) run(b *Backend) {
	var tiles int
	o.block, tiles = rowBlocks(len(o.slots), o.k.cols)
	b.parallel(o, tiles)
}

func (o *kvWriteOp) tile(_ *worker, i int) {
	d := o.cache.d
	for e := i * o.block; e < min((i+1)*o.block, len(o.slots)); e++ {
		slot, row := int(o.slots[e]), int(o.rows[e])
		if slot < 0 {
			continue
		}
		if slot >= o.cache.pages*engine.PageSize || row < 0 || row >= o.k.rows {
			panic("cpu: kv write: row or slot out of range")
		}
		k, v := o.k.row(row), o.v.row(row)
		for head := range o.cache.kv {
			o.cache.store(slot/engine.PageSize, slot%engine.PageSize, head, k[head*d:][:d], v[head*d:][:d])
		}
	}
}

// decodePlan orders the rows of a decode batch so that those whose page tables
// begin alike are neighbours, and cuts them into groups.
type decodePlan struct {
	order  []int
	groups []decodeGroup
}

// decodeGroup is rows order[from:to], whose first shared pages are the same and
// wholly seen by all of them.
type decodeGroup struct{ from, to, shared int }

// groupQueries bounds the queries of a group, so that a batch of one prompt
// still falls into several tiles.
const groupQueries = 32

func (p *decodePlan) set(positions []int32, pages *imat, rowsPerGroup int) {
	p.order, p.groups = p.order[:0], p.groups[:0]
	first := func(r int) int32 {
		if positions[r] < split { // no full page: nothing to share
			return -1
		}
		return pages.row(r)[0]
	}
	for r, pos := range positions {
		if pos < 0 {
			continue
		}
		if int(pos)/engine.PageSize >= pages.cols {
			panic("cpu: decode attention: position beyond the page table")
		}
		// Insertion keeps rows of one first page together and in ascending order.
		at := len(p.order)
		for at > 0 && first(p.order[at-1]) > first(r) {
			at--
		}
		p.order = append(p.order, 0)
		copy(p.order[at+1:], p.order[at:])
		p.order[at] = r
	}
	for from := 0; from < len(p.order); {
		row := pages.row(p.order[from])
		shared := int(positions[p.order[from]]) / split
		to := from + 1
		for ; to < len(p.order) && to-from < rowsPerGroup; to++ {
			r := p.order[to]
			next := pages.row(r)
			n := 0
			for n < min(shared, int(positions[r])/split) && next[n] == row[n] {
				n++
			}
			if n == 0 {
				break
			}
			shared = n
		}
		if to == from+1 {
			shared = 0
		}
		p.groups = append(p.groups, decodeGroup{from, to, shared})
		from = to
	}
}

// DecodeAttention stores each row's key and value and attends over its pages.
// A tile is one group of rows and one key-value head. Pages that the whole group
// sees are read once, as one product with all its queries; the rest row by row.
// Split by split it is what Attention does, so the bits are the same.
func (b *Backend) DecodeAttention(a engine.DecodeAttentionArgs) {
	op := next(b, &b.ops.decode)
	*op = decodeOp{o: b.f32(a.O), cache: b.cache(a.Cache), scale: a.Scale}
	op.q = b.shaped(a.Q, op.o.rows, op.o.cols)
	op.k = b.shaped(a.K, op.o.rows, op.cache.kv*op.cache.d)
	op.v = b.shaped(a.V, op.o.rows, op.cache.kv*op.cache.d)
	op.heads, _ = heads(op.o.cols, op.k.cols, op.cache.d)
	op.pages = b.i32(a.PageTable, op.o.rows, -1)
	op.positions = b.ints(a.Positions, op.o.rows)
	b.submit(op)
}

type decodeOp struct {
	o, q, k, v mat
	cache      cache
	pages      imat
	positions  []int32
	scale      float32
	heads      int

	plan *decodePlan
	rows int // most rows of a group
}

func (o *decodeOp) run(b *Backend) {
	for r, pos := range o.positions {
		if pos < 0 {
			clear(o.o.row(r))
		}
	}
	group := o.heads / o.cache.kv
	o.rows = max(1, groupQueries/group)
	o.plan = &b.decode
	o.plan.set(o.positions, &o.pages, o.rows)
	m, d := o.rows*group, o.cache.d
	b.reserve(queriesLen(m, d))
	b.parallel(o, len(o.plan.groups)*o.cache.kv)
}

func (o *decodeOp) tile(w *worker, i int) {
	g := o.plan.groups[i/o.cache.kv]
	head := i % o.cache.kv
	group := o.heads / o.cache.kv
	rows := o.plan.order[g.from:g.to]
	d := o.cache.d
	m := len(rows) * group
	s := newQueries(w, m, d, o.scale) // ordered by row, then head
	for at, r := range rows {
		pos := int(o.positions[r])
		page := o.page(r, pos/split)
		o.cache.store(page, pos%split, head, o.k.from(r, head*d)[:d], o.v.from(r, head*d)[:d])
		for x := range group {
			s.load(at*group+x, o.q.from(r, (head*group+x)*d))
		}
	}
	for j := range g.shared {
		keys, values := o.cache.panels(o.page(rows[0], j), head)
		s.split(0, m, j, split, 0, keys, values, false)
	}
	for at, r := range rows {
		pos := int(o.positions[r])
		from, to := at*group, (at+1)*group
		for j := g.shared; j <= pos/split; j++ {
			keys, values := o.cache.panels(o.page(r, j), head)
			// What lies beyond the seen keys is left over from the page's last use.
			s.split(from, to, j, min(pos-j*split+1, split), 0, keys, values, false)
		}
		for x := from; x < to; x++ {
			s.finish(x, o.o.from(r, (head*group+x-from)*d)[:d])
		}
	}
}

func (o *decodeOp) page(r, j int) int {
	page := int(o.pages.row(r)[j])
	if page < 0 || page >= o.cache.pages {
		panic("cpu: decode attention: page out of range")
	}
	return page
}
