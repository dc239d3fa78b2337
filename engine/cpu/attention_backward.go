package cpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// AttentionBackward recomputes the weights from LSE and accumulates
//
//	P = exp(Scale·Q·Kᵀ − LSE),  dP = dO·Vᵀ,  dS = Scale·P·(dP − Σ dO·O),
//	dQ = dS·K,  dK = dSᵀ·Q,  dV = Pᵀ·dO
//
// (FlashAttention, Dao et al. 2022, algorithm 4). One tile owns a prompt with
// all the segments that see it, for one key-value head, and walks segments,
// query blocks, query heads and splits in that order: every sum has one order,
// and no two tiles add into one element.
func (b *Backend) AttentionBackward(a engine.AttentionBackwardArgs) {
	op := next(b, &b.ops.attentionBack)
	*op = attentionBackwardOp{dq: b.f32(a.DQ), dk: b.f32(a.DK), packing: clonePacking(b, a.Packing), scale: a.Scale, d: a.HeadDim}
	r, c := op.dq.rows, op.dq.cols
	op.do, op.q, op.o = b.shaped(a.DO, r, c), b.shaped(a.Q, r, c), b.shaped(a.O, r, c)
	r, c = op.dk.rows, op.dk.cols
	op.dv, op.k, op.v = b.shaped(a.DV, r, c), b.shaped(a.K, r, c), b.shaped(a.V, r, c)
	op.heads, op.kv = heads(op.dq.cols, op.dk.cols, op.d)
	if op.dk.rows != op.dq.rows || op.packing.Rows != op.dq.rows {
		panic("cpu: attention backward: rows do not match")
	}
	op.lse = b.shaped(a.LSE, op.dq.rows, op.heads)
	op.packing.Check()
	b.submit(op)
}

type attentionBackwardOp struct {
	dq, dk, dv, do, q, o, k, v, lse mat
	packing                         *engine.Packing
	scale                           float32
	d, heads, kv                    int

	plan   *attentionPlan
	panels panels
}

func (o *attentionBackwardOp) run(b *Backend) {
	if o.dq.rows == 0 {
		return
	}
	b.plan.set(o.packing)
	o.plan = &b.plan
	o.panels = panels{plan: o.plan, k: o.k, v: o.v, d: o.d, kv: o.kv}
	o.panels.build(b)
	b.reserve(2*scratchLen(split*split) + 2*scratchLen(split))
	b.parallel(o, len(o.plan.roots)*o.kv)
}

func (o *attentionBackwardOp) tile(w *worker, i int) {
	head := i % o.kv
	s := backwardScratch{p: w.floats(split * split), ds: w.floats(split * split), delta: w.floats(split), lse: w.floats(split)}
	for at := o.plan.roots[i/o.kv]; at >= 0; at = o.plan.segs[at].next {
		seg := &o.plan.segs[at]
		for r := seg.Start; r < seg.Start+seg.Len; r++ {
			clear(o.dk.from(r, head*o.d)[:o.d])
			clear(o.dv.from(r, head*o.d)[:o.d])
		}
		for from := 0; from < seg.Len; {
			n := min(split-(seg.PrefixLen+from)%split, seg.Len-from)
			o.block(&s, seg, from, n, head)
			from += n
		}
	}
}

type backwardScratch struct{ p, ds, delta, lse []float32 }

// block adds the share of n rows of a segment, all within one split.
func (o *attentionBackwardOp) block(s *backwardScratch, seg *segPlan, from, n, head int) {
	group := o.heads / o.kv
	row0 := seg.Start + from
	first := seg.PrefixLen + from
	last := first / split
	kcol := head * o.d
	p, ds := s.p[:n*split], s.ds[:n*split]
	for g := range group {
		h := head*group + g
		col := h * o.d
		q, do, dq := o.q.from(row0, col), o.do.from(row0, col), o.dq.from(row0, col)
		for r := range n {
			s.lse[r] = o.lse.p[(row0+r)*o.lse.stride+h]
			s.delta[r] = simd.Dot(do[r*o.do.stride:][:o.d], o.o.from(row0+r, col)[:o.d])
		}
		for j := 0; j <= last; j++ {
			keys, values := o.panels.at(o.plan.panel(seg, j), head)
			simd.Gemm(n, split, o.d, q, o.q.stride, 1, keys, split, p, split, false)
			simd.Gemm(n, split, o.d, do, o.do.stride, 1, values, split, ds, split, false)
			seen, step := split, 0
			if j == last {
				seen, step = first%split+1, 1
			}
			simd.SoftmaxGradRows(p, ds, o.scale, seen, step, s.lse[:n], s.delta[:n])

			// The split's keys lie in up to two runs of rows. Those that no row of
			// the block sees are left out.
			prefixRow, prefixN, ownRow, ownN := seg.keys(j)
			if j == last {
				ownN = min(ownN, first+n-j*split-prefixN)
			}
			o.keyRun(p, ds, 0, prefixRow, prefixN, n, do, q, dq, kcol, j > 0)
			o.keyRun(p, ds, prefixN, ownRow, ownN, n, do, q, dq, kcol, j > 0 || prefixN > 0)
		}
	}
}

// keyRun adds the share of count keys in rows from row on, which are columns
// from at on of p and ds. DQ is set by the first run and added to by others.
func (o *attentionBackwardOp) keyRun(p, ds []float32, at, row, count, n int, do, q, dq []float32, kcol int, acc bool) {
	if count <= 0 {
		return
	}
	simd.Gemm(count, o.d, n, p[at:], 1, split, do, o.do.stride, o.dv.from(row, kcol), o.dv.stride, true)
	simd.Gemm(count, o.d, n, ds[at:], 1, split, q, o.q.stride, o.dk.from(row, kcol), o.dk.stride, true)
	simd.Gemm(n, o.d, count, ds[at:], split, 1, o.k.from(row, kcol), o.k.stride, dq, o.dq.stride, acc)
}
