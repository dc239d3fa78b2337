package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// attentionKey is what the choice of attention kernels depends on.
type attentionKey struct {
	dtype    engine.DType
	d, group int
}

// attentionFor returns the kernels for a head size and a number of query heads for
// each key-value head.
func (b *Backend) attentionFor(d engine.DType, headDim, group int) *kernels.Attention {
	key := attentionKey{d, headDim, group}
	a := b.attentions[key]
	if a == nil {
		k, err := kernels.AttentionFor(typeOf(d), headDim, group)
		if err != nil {
			panic("gpu: attention: head size not supported: from 1 to 256")
		}
		a = &k
		b.attentions[key] = a
	}
	return a
}

// heads returns the numbers of query and key-value heads.
func heads(qCols, kvCols, d int) (h, kv int) {
	if d <= 0 || qCols%d != 0 || kvCols%d != 0 {
		panic("gpu: attention: columns are not whole heads")
	}
	h, kv = qCols/d, kvCols/d
	if kv == 0 || h%kv != 0 {
		panic("gpu: attention: key-value heads do not divide the heads")
	}
	return h, kv
}

func (b *Backend) checkPacking(p *engine.Packing, rows, keys int) {
	if p == nil {
		panic("gpu: attention: packing is absent")
	}
	if p.Rows != rows || keys != rows {
		panic("gpu: attention: rows do not match")
	}
	b.packingTable(p) // checks it where it is new
}

// queryTiles names the table of a packing that has tiles of queries.
type queryTiles struct{ group int }

// keyTiles names the table that has tiles of keys, then their runs.
type keyTiles struct{}

func segmentsOf(p *engine.Packing) []kernels.Segment {
	s := make([]kernels.Segment, len(p.Segments))
	for i, x := range p.Segments {
		s[i] = kernels.Segment(x)
	}
	return s
}

// queryTiles returns the device's list of query tiles and the blocks for it.
func (b *Backend) queryTiles(op string, k *kernels.Attention, p *engine.Packing, kv int) (tiles *deviceInts, blocks int) {
	host, ints := b.packingInts(op, p, queryTiles{k.Group}, func() (any, []int32) {
		t := k.QueryTiles(segmentsOf(p))
		return k.Blocks(t, 1), t
	})
	return ints, host.(int) * kv
}

// keyList is what a launch needs to know of a table of key tiles.
type keyList struct {
	blocks int // for one key-value head
	runs   int // where the runs begin
}

func (b *Backend) keyTiles(op string, p *engine.Packing) (*deviceInts, keyList) {
	host, ints := b.packingInts(op, p, keyTiles{}, func() (any, []int32) {
		tiles, runs := kernels.KeyTiles(segmentsOf(p))
		return keyList{kernels.KeyBlocks(tiles, 1), len(tiles)}, append(tiles, runs...)
	})
	return ints, host.(keyList)
}

// Attention computes causal softmax attention over packed segments.
func (b *Backend) Attention(a engine.AttentionArgs) {
	const op = "Attention"
	b.begin(op)
	o := b.real(a.O)
	q := b.shaped(a.Q, o.dtype, o.rows, o.cols)
	k := b.of(a.K, o.dtype)
	v := b.shaped(a.V, o.dtype, k.rows, k.cols)
	h, kv := heads(o.cols, k.cols, a.HeadDim)
	lse := b.optional(a.LSE, engine.F32, o.rows, h)
	b.checkPacking(a.Packing, o.rows, k.rows)
	if o.len() == 0 {
		return
	}
	kernel := b.attentionFor(o.dtype, a.HeadDim, h/kv)
	tiles, blocks := b.queryTiles(op, kernel, a.Packing, kv)
	if tiles == nil {
		return
	}
	sizes(add(b.start(), o, q, k, v, lse).Pointer(tiles.ptr(0)), kv, h/kv, a.HeadDim,
		o.stride, q.stride, k.stride, v.stride, lse.stride).Float32(a.Scale)
	b.launch(op, &kernel.Forward, blocks, 1, 1)
}

// AttentionBackward computes the gradients of Q, K and V.
func (b *Backend) AttentionBackward(a engine.AttentionBackwardArgs) {
	const op = "AttentionBackward"
	b.begin(op)
	dq := b.real(a.DQ)
	dk := b.of(a.DK, dq.dtype)
	wide := func(t engine.Tensor) view { return b.shaped(t, dq.dtype, dq.rows, dq.cols) }
	narrow := func(t engine.Tensor) view { return b.shaped(t, dq.dtype, dk.rows, dk.cols) }
	do, q, o := wide(a.DO), wide(a.Q), wide(a.O)
	dv, k, v := narrow(a.DV), narrow(a.K), narrow(a.V)
	d := a.HeadDim
	h, kv := heads(dq.cols, dk.cols, d)
	lse := b.shaped(a.LSE, engine.F32, dq.rows, h)
	b.checkPacking(a.Packing, dq.rows, dk.rows)
	if dq.len() == 0 {
		return
	}
	group := h / kv
	kernel := b.attentionFor(dq.dtype, d, group)
	queries, queryBlocks := b.queryTiles(op, kernel, a.Packing, kv)
	keys, list := b.keyTiles(op, a.Packing)
	delta, ok := b.scratchFor(op, 4*dq.rows*h)
	if queries == nil || keys == nil || !ok {
		return
	}
	sizes(add(b.start().Pointer(delta), do, o), dq.rows, h, d, do.stride, o.stride)
	b.launch(op, &kernel.Delta, kernel.DeltaGrid(dq.rows, h), 1, 1)
	sizes(add(b.start(), dq, do, q, k, v, lse).Pointer(delta).Pointer(queries.ptr(0)), kv, group, d,
		dq.stride, do.stride, q.stride, k.stride, v.stride, lse.stride).Float32(a.Scale)
	b.launch(op, &kernel.DQ, queryBlocks, 1, 1)
	sizes(add(b.start(), dk, dv, do, q, k, v, lse).Pointer(delta).Pointer(keys.ptr(0)).Pointer(keys.ptr(list.runs)), kv, group, d,
		dk.stride, dv.stride, do.stride, q.stride, k.stride, v.stride, lse.stride).Float32(a.Scale)
	b.launch(op, &kernel.DKV, list.blocks*kv, 1, 1)
}
