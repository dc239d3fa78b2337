package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// cache is a layer's paged keys and values, resolved.
type cache struct {
	k, v  view
	pages int
	kv, d int
}

func (b *Backend) cache(c engine.KVCache, d engine.DType) cache {
	if c.K == nil || c.V == nil {
		panic("gpu: a required tensor is absent")
	}
	n := c.Pages * engine.PageSize * c.KVHeads * c.HeadDim
	if c.Pages < 0 || c.KVHeads < 1 || c.HeadDim < 1 || c.K.Len() != n || c.V.Len() != n {
		panic("gpu: kv cache has the wrong size")
	}
	return cache{k: b.of(engine.Vector(c.K, 0, n), d), v: b.of(engine.Vector(c.V, 0, n), d), pages: c.Pages, kv: c.KVHeads, d: c.HeadDim}
}

// KVWrite stores rows of K and V in the cache.
func (b *Backend) KVWrite(a engine.KVWriteArgs) {
	const op = "KVWrite"
	b.begin(op)
	k := b.real(a.K)
	v := b.shaped(a.V, k.dtype, k.rows, k.cols)
	c := b.cache(a.Cache, k.dtype)
	if k.cols != c.kv*c.d {
		panic("gpu: kv write: shapes do not match")
	}
	n := a.Rows.Len()
	rows, slots := b.vec(a.Rows, engine.I32, n), b.vec(a.Slots, engine.I32, n)
	kernel := b.attentionFor(k.dtype, c.d, 1)
	sizes(add(b.start(), c.k, c.v, k, v, rows, slots), c.kv, c.d, k.stride, v.stride)
	b.launch(op, &kernel.KVWrite, n, 1, 1)
}

// decodePlan says which rows of a batch share which pages: on the device, made by
// a kernel from page tables and positions. The layers of a step share it, as long
// as nothing has written into what it was made from.
type decodePlan struct {
	mem   scratch
	of    decodeBatch // what it was made for
	valid bool
}

// decodeBatch is what a plan depends on.
type decodeBatch struct {
	table, positions view
	itemRows         int
}

// stale says that the plan may no longer be true: whatever may write integers on
// the device calls it.
func (b *Backend) stale() { b.decode.valid = false }

// DecodeAttention stores each row's key and value and attends over its pages.
func (b *Backend) DecodeAttention(a engine.DecodeAttentionArgs) {
	const op = "DecodeAttention"
	b.begin(op)
	o := b.real(a.O)
	q := b.shaped(a.Q, o.dtype, o.rows, o.cols)
	c := b.cache(a.Cache, o.dtype)
	k := b.shaped(a.K, o.dtype, o.rows, c.kv*c.d)
	v := b.shaped(a.V, o.dtype, o.rows, c.kv*c.d)
	h, _ := heads(o.cols, k.cols, c.d)
	table := b.of(a.PageTable, engine.I32)
	if table.rows != o.rows {
		panic("gpu: tensor has the wrong shape")
	}
	positions := b.vec(a.Positions, engine.I32, o.rows)
	if o.len() == 0 {
		return
	}
	group, batch := h/c.kv, o.rows
	kernel := b.attentionFor(o.dtype, c.d, group)
	if kernel.Simple {
		sizes(add(b.start(), o, q, k, v, c.k, c.v, table, positions), c.kv, group, c.d, table.cols,
			table.stride, o.stride, q.stride, k.stride, v.stride).Float32(a.Scale)
		b.launch(op, &kernel.SimpleDecode, batch*c.kv, 1, 1)
		return
	}
	for from := 0; from < batch; from += b.decodeRows {
		n := min(b.decodeRows, batch-from)
		b.decodeSome(op, kernel, decodeCall{o: o.rowRange(from, n), q: q.rowRange(from, n), k: k.rowRange(from, n), v: v.rowRange(from, n),
			of: decodeBatch{table.rowRange(from, n), positions.colRange(from, n), kernel.ItemRows()}, cache: c, scale: a.Scale})
	}
}

// maxDecodeRows is the most rows of a batch that one plan takes; a larger batch has
// several.
const maxDecodeRows = 3072

// decodeCall is what one plan's rows attend to.
type decodeCall struct {
	o, q, k, v view
	of         decodeBatch
	cache      cache
	scale      float32
}

func (b *Backend) decodeSome(op string, kernel *kernels.Attention, d decodeCall) {
	c, batch, columns := &d.cache, d.o.rows, d.of.table.cols
	group := kernel.Group
	parts := kernel.Scratch(batch, columns, c.kv)
	plan, ok := b.planDecode(op, kernel, &parts, d.of)
	if !ok {
		return
	}
	work, ok := b.scratchFor(op, parts.Bytes-parts.Sums)
	if !ok {
		return
	}
	sums, stats := work, work+uint64(parts.Stats-parts.Sums)
	at := func(offset int) uint64 { return plan + uint64(offset) }
	args := add(b.start().Pointer(sums).Pointer(stats), d.q, d.k, d.v, c.k, c.v, d.of.table, d.of.positions)
	args.Pointer(at(parts.Counts)).Pointer(at(parts.Items)).Pointer(at(parts.Order))
	sizes(args, batch, c.kv, group, c.d, columns, d.of.table.stride, d.q.stride, d.k.stride, d.v.stride).Float32(d.scale)
	b.launch(op, &kernel.Decode, kernel.DecodeGrid(b.info.SMs), 1, 1)
	sizes(add(add(b.start(), d.o).Pointer(sums).Pointer(stats), d.of.positions), batch, c.kv*group, c.d, columns, d.o.stride)
	b.launch(op, &kernel.Merge, kernel.DeltaGrid(batch, c.kv*group), 1, 1)
}

// planDecode returns the address of a plan for a batch, the last one if it is that.
func (b *Backend) planDecode(op string, k *kernels.Attention, parts *kernels.DecodeScratch, of decodeBatch) (uint64, bool) {
	p := &b.decode
	if p.valid && p.of == of {
		return p.mem.mem.Ptr(0), true
	}
	addr, ok := b.reserve(op, &p.mem, parts.Sums)
	if !ok {
		return 0, false
	}
	spec, err := k.Plan(of.table.rows)
	if err != nil {
		panic("gpu: decode attention: the plan takes fewer rows than it was given")
	}
	at := func(offset int) uint64 { return addr + uint64(offset) }
	args := add(b.start().Pointer(at(parts.Counts)).Pointer(at(parts.Items)).Pointer(at(parts.Order)), of.table, of.positions)
	sizes(args, of.table.rows, of.table.cols, of.table.stride, of.itemRows)
	b.launch(op, &spec, kernels.DecodeSplits(of.table.cols), 1, 1)
	p.of, p.valid = of, true
	return addr, true
}
