package cpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

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
// A tile is one group of rows and some of the key-value heads. Pages that the
// whole group sees are read once, as one product with all its queries; the rest
// row by row. Split by split it is what Attention does, so the bits are the same.
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
	span int // key-value heads of a tile
	cuts int // tiles of a group
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
	groups := len(o.plan.groups)
	if groups == 0 {
		return
	}
	o.cuts = min(o.cache.kv, (tilesEach*len(b.pool.workers)+groups-1)/groups)
	o.span = (o.cache.kv + o.cuts - 1) / o.cuts
	o.cuts = (o.cache.kv + o.span - 1) / o.span
	d := o.cache.d
	n := group * o.span
	b.reserve(queriesLen(o.rows*n, d) + ownLen(n, d))
	for _, w := range b.pool.workers {
		if cap(w.at) < n*ownPages {
			w.at = make([]int, 0, n*ownPages)
		}
	}
	b.parallel(o, groups*o.cuts)
}

func (o *decodeOp) tile(w *worker, i int) {
	g := o.plan.groups[i/o.cuts]
	group := o.heads / o.cache.kv
	rows := o.plan.order[g.from:g.to]
	first := i % o.cuts * o.span
	span := min(o.span, o.cache.kv-first)
	d, each := o.cache.d, len(rows)*group     // queries of one key-value head
	s := newQueries(w, span*each, d, o.scale) // ordered by key-value head, row, query head
	for x := range span {
		head := first + x
		for at, r := range rows {
			pos := int(o.positions[r])
			o.cache.store(o.page(r, pos/split), pos%split, head, o.k.from(r, head*d)[:d], o.v.from(r, head*d)[:d])
			for y := range group {
				s.load(x*each+at*group+y, o.q.from(r, (head*group+y)*d))
			}
		}
		for j := range g.shared {
			keys, values := o.cache.panels(o.page(rows[0], j), head)
			s.split(x*each, (x+1)*each, j, split, 0, keys, values, false)
		}
	}
	// A row's queries lie together where there is one row or one head.
	if len(rows) == 1 {
		o.own(w, &s, 0, span*group, first, rows[0], g.shared)
	} else {
		for x := range span {
			for at, r := range rows {
				o.own(w, &s, x*each+at*group, group, first+x, r, g.shared)
			}
		}
	}
	for x := range span {
		for at, r := range rows {
			for y := range group {
				s.finish(x*each+at*group+y, o.o.from(r, ((first+x)*group+y)*d)[:d])
			}
		}
	}
}

// ownPages is the most pages of a row that own takes at once.
const ownPages = 8

// ownLen is the scratch that own takes for n queries.
func ownLen(n, d int) int {
	units := n * ownPages
	return scratchLen(units*split) + scratchLen(units*d) + 2*scratchLen(units)
}

// own takes the n queries of row r from number from on, those of the key-value
// heads from head on, over the row's pages from number j on. For every query and
// page it does what queries.split does, but many of them in each step.
func (o *decodeOp) own(w *worker, s *queries, from, n, head, r, j int) {
	used := w.used
	d, group := o.cache.d, o.heads/o.cache.kv
	units := n * ownPages // ordered by page, then query
	scores, parts, m, sum := w.floats(units*split), w.floats(units*d), w.floats(units), w.floats(units)
	to := from + n
	pos := int(o.positions[r])
	last := pos / split
	for j <= last {
		count := min(ownPages, last+1-j)
		w.at = w.at[:0]
		for x := range count {
			page := o.page(r, j+x)
			for h := range n {
				w.at = append(w.at, (page*o.cache.kv+head+h/group)*split*d)
			}
		}
		units = count * n
		simd.RowProducts(split, d, s.q[from*d:], d, n, o.cache.k, w.at, scores)
		full := units
		if j+count > last {
			// What lies beyond the seen keys is left over from the page's last use.
			full -= n
			seen := pos%split + 1
			simd.SoftmaxRows(scores[full*split:], o.scale, seen, 0, m[full:units], sum[full:units])
			simd.RowProducts(d, seen, scores[full*split:], split, n, o.cache.v, w.at[full:], parts[full*d:])
		}
		simd.SoftmaxRows(scores, o.scale, split, 0, m[:full], sum[:full])
		simd.RowProducts(d, split, scores, split, units, o.cache.v, w.at[:full], parts)
		for x := 0; x < units; x, j = x+n, j+1 {
			if j == 0 {
				copy(s.m[from:to], m[:n])
				copy(s.sum[from:to], sum[:n])
				copy(s.out[from*d:to*d], parts[:n*d])
				continue
			}
			s.merge(from, to, m[x:x+n], sum[x:x+n], parts[x*d:])
		}
	}
	w.used = used
}

func (o *decodeOp) page(r, j int) int {
	page := int(o.pages.row(r)[j])
	if page < 0 || page >= o.cache.pages {
		panic("cpu: decode attention: page out of range")
	}
	return page
}
