package cpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// Attention computes causal softmax attention over packed segments in two
// passes. The first lays the keys of each split out as a [D][split] panel and
// its values as a [split][D] one, the layout of the pages of a KV cache. The
// second takes one block of up to split queries and one key-value head per tile
// and walks the splits in ascending order, as queries.split in softmax.go has it. (The online softmax over blocks is that of FlashAttention, Dao et al.
// 2022.)
func (b *Backend) Attention(a engine.AttentionArgs) {
	op := next(b, &b.ops.attention)
	*op = attentionOp{o: b.f32(a.O), packing: clonePacking(b, a.Packing), scale: a.Scale, d: a.HeadDim}
	op.q = b.shaped(a.Q, op.o.rows, op.o.cols)
	op.k = b.f32(a.K)
	op.v = b.shaped(a.V, op.k.rows, op.k.cols)
	op.heads, op.kv = heads(op.o.cols, op.k.cols, op.d)
	if op.k.rows != op.o.rows || op.packing.Rows != op.o.rows {
		panic("cpu: attention: rows do not match")
	}
	if a.LSE.Valid() {
		op.lse = b.shaped(a.LSE, op.o.rows, op.heads)
		op.keep = true
	}
	op.packing.Check()
	b.submit(op)
}

// heads returns the numbers of query and key-value heads.
func heads(qCols, kvCols, d int) (h, kv int) {
	if d <= 0 || qCols%d != 0 || kvCols%d != 0 {
		panic("cpu: attention: columns are not whole heads")
	}
	h, kv = qCols/d, kvCols/d
	if kv == 0 || h%kv != 0 {
		panic("cpu: attention: key-value heads do not divide the heads")
	}
	return h, kv
}

type attentionOp struct {
	o, q, k, v, lse mat
	packing         *engine.Packing
	scale           float32
	d, heads, kv    int
	keep            bool // lse

	plan   *attentionPlan
	panels panels
}

// panels is the pass that lays out keys and values.
type panels struct {
	plan   *attentionPlan
	k, v   mat
	d, kv  int
	values bool // values as rows; else transposed like the keys
	mem    []float32
	finite []bool // by panel and head: no NaN or Inf among the values
}

// panelsPerTile is how many panels one tile lays out.
const panelsPerTile = 4

func (p *panels) build(b *Backend) {
	n := len(p.plan.panels) * p.kv
	p.mem = b.sharedFloats(n * 2 * split * p.d)
	if len(b.plan.finite) < n {
		b.plan.finite = make([]bool, n)
	}
	p.finite = b.plan.finite[:n]
	b.parallel(p, (len(p.plan.panels)+panelsPerTile-1)/panelsPerTile)
}

// at returns the key and value panels of panel i for one head.
func (p *panels) at(i, head int) (k, v []float32) {
	n := split * p.d
	m := p.mem[(i*p.kv+head)*2*n:][:2*n]
	return m[:n], m[n:]
}

func (p *panels) tile(_ *worker, i int) {
	for j := i * panelsPerTile; j < min((i+1)*panelsPerTile, len(p.plan.panels)); j++ {
		pl := p.plan.panels[j]
		prefixRow, prefixN, ownRow, ownN := p.plan.segs[pl.seg].keys(pl.split)
		for head := range p.kv {
			k, v := p.at(j, head)
			if prefixN+ownN < split {
				clear(k)
				clear(v)
			}
			p.copyKeys(k, v, head, prefixRow, 0, prefixN)
			p.copyKeys(k, v, head, ownRow, prefixN, ownN)
			s := simd.Sum(v)
			p.finite[j*p.kv+head] = s-s == 0
		}
	}
}

// copyKeys puts n keys from row on at place at of a panel.
func (p *panels) copyKeys(k, v []float32, head, row, at, n int) {
	if n == 0 {
		return
	}
	col := head * p.d
	simd.Transpose(p.d, n, k[at:], split, p.k.from(row, col), p.k.stride)
	if !p.values {
		simd.Transpose(p.d, n, v[at:], split, p.v.from(row, col), p.v.stride)
		return
	}
	for j := range n {
		copy(v[(at+j)*p.d:][:p.d], p.v.from(row+j, col))
	}
}

func (o *attentionOp) run(b *Backend) {
	if o.o.rows == 0 {
		return
	}
	b.plan.set(o.packing)
	o.plan = &b.plan
	o.panels = panels{plan: o.plan, k: o.k, v: o.v, d: o.d, kv: o.kv, values: true}
	o.panels.build(b)
	b.reserve(queriesLen(split, o.d))
	b.parallel(o, len(o.plan.blocks)*o.kv)
}

// tile computes one block of rows for the query heads of one key-value head.
func (o *attentionOp) tile(w *worker, i int) {
	blk := o.plan.blocks[i/o.kv]
	head := i % o.kv
	seg := &o.plan.segs[blk.seg]
	group := o.heads / o.kv
	row0 := seg.Start + blk.from
	first := seg.PrefixLen + blk.from // logical position of the first row
	s := newQueries(w, blk.n, o.d, o.scale)

	last := first / split
	for h := head * group; h < (head+1)*group; h++ {
		col := h * o.d
		for r := range blk.n {
			s.load(r, o.q.from(row0+r, col))
		}
		for j := range last {
			keys, values := o.panels.at(o.plan.panel(seg, j), head)
			s.split(0, blk.n, j, split, 0, keys, values, false)
		}
		panel := o.plan.panel(seg, last)
		keys, values := o.panels.at(panel, head)
		s.split(0, blk.n, last, first%split+1, 1, keys, values, !o.panels.finite[panel*o.kv+head])
		for r := range blk.n {
			s.finish(r, o.o.from(row0+r, col)[:o.d])
			if o.keep {
				o.lse.p[(row0+r)*o.lse.stride+h] = s.lse(r)
			}
		}
	}
}
