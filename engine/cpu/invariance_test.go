package cpu

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// everyOp runs each operation once, forward and backward, on inputs that depend
// on the seed alone, and returns all outputs by name.
func everyOp(r *rig) map[string][]float32 {
	const h, kv, d, f, v, groups = 6, 2, 16, 70, 5000, 6
	const c = h * d
	p := sharedPacking(45, []int{3, 40, 70}, 64, 33, 1)
	T := p.Rows
	out := map[string][]float32{}
	keep := func(name string, t engine.Tensor) { out[name] = r.floats(t) }

	ids := r.randomInts(T, v)
	table := r.random(v, c, 1)
	x := r.zeros(T, c)
	r.Gather(engine.GatherArgs{Dst: x, Table: table, IDs: ids})
	r.ScatterAdd(engine.ScatterAddArgs{Table: table, Src: x, IDs: ids})
	keep("table", table)

	for _, g := range []int{1, groups} {
		w, y, rstd := r.random(1, c/g, 1), r.zeros(T, c), r.zeros(T, g)
		r.RMSNorm(engine.RMSNormArgs{Y: y, X: x, W: w, Rstd: rstd, Groups: g, Eps: 1e-6})
		dx, dw, dy := r.random(T, c, 1), r.zeros(1, c/g), r.random(T, c, 1)
		r.RMSNormBackward(engine.RMSNormBackwardArgs{DX: dx, DW: dw, DY: dy, X: x, W: w, Rstd: rstd, Groups: g, Accumulate: g > 1})
		keep(fmt.Sprint("norm y ", g), y)
		keep(fmt.Sprint("norm dx ", g), dx)
		keep(fmt.Sprint("norm dw ", g), dw)
	}

	w, bias, y := r.weight(f, c, 1), r.random(1, f, 1), r.zeros(T, f)
	r.Linear(engine.LinearArgs{Y: y, X: x, W: w, Bias: bias})
	keep("linear y", y)
	dx, dw, db := r.random(T, c, 1), r.random(f, c, 1), r.zeros(1, f)
	r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx, DY: y, W: w})
	r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw, DBias: db, DY: y, X: x})
	keep("linear dx", dx)
	keep("linear dw", dw)
	keep("linear db", db)

	up, act := r.random(T, f, 1), r.zeros(T, f)
	r.SwiGLU(engine.SwiGLUArgs{Y: act, Gate: y, Up: up})
	keep("swiglu y", act)
	r.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: y, DUp: up, DY: act, Gate: y, Up: up})
	keep("swiglu dgate", y)
	keep("swiglu dup", up)

	k, val := r.random(T, kv*d, 1), r.random(T, kv*d, 1)
	pos := r.ints(p.Positions(nil))
	cos, sin := r.random(200, d/2, 1), r.random(200, d/2, 1)
	r.RoPE(engine.RoPEArgs{X: k, Positions: pos, Cos: cos, Sin: sin, HeadDim: d})
	keep("rope", k)
	o, lse, do := r.zeros(T, c), r.zeros(T, h), r.random(T, c, 1)
	dq, dk, dv := r.zeros(T, c), r.zeros(T, kv*d), r.zeros(T, kv*d)
	r.Attention(engine.AttentionArgs{O: o, Q: x, K: k, V: val, LSE: lse, HeadDim: d, Scale: 0.25, Packing: p})
	r.AttentionBackward(engine.AttentionBackwardArgs{DQ: dq, DK: dk, DV: dv, DO: do, Q: x, O: o, K: k, V: val, LSE: lse, HeadDim: d, Scale: 0.25, Packing: p})
	for name, t := range map[string]engine.Tensor{"attention o": o, "attention lse": lse, "attention dq": dq, "attention dk": dk, "attention dv": dv} {
		keep(name, t)
	}

	head := r.weight(v, c, 0.1)
	lp, ent, hl := r.zeros(1, T), r.zeros(1, T), r.zeros(1, T)
	r.LogProb(engine.LogProbArgs{X: x, W: head, Targets: ids, LogProb: lp, Entropy: ent, LSE: hl, Scale: 0.9})
	dlp, dent, hw := r.random(1, T, 1), r.random(1, T, 1), r.random(v, c, 1)
	r.LogProbBackward(engine.LogProbBackwardArgs{DX: dx, DW: hw, X: x, W: head, Targets: ids, LSE: hl, Entropy: ent, DLogProb: dlp, DEntropy: dent, Scale: 0.9})
	for name, t := range map[string]engine.Tensor{"logprob": lp, "entropy": ent, "lse": hl, "head dx": dx, "head dw": hw} {
		keep(name, t)
	}

	ss := r.zeros(1, 1)
	r.SumSquares(engine.SumSquaresArgs{Out: ss, X: hw})
	keep("sum of squares", ss)
	m, s := r.zeros(v, c), r.zeros(v, c)
	r.AdamW(engine.AdamWArgs{P: table, G: hw, M: m, V: s, LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, WeightDecay: 0.1, GradScale: 0.5, Step: 3})
	keep("adamw p", table)
	return out
}

func TestResultsDoNotDependOnThreads(t *testing.T) {
	want := everyOp(newRig(t, 1, 7))
	for _, threads := range []int{2, 3} {
		got := everyOp(newRig(t, threads, 7))
		require.Len(t, got, len(want))
		for name, w := range want {
			sameBits(t, w, got[name], fmt.Sprintf("%s with %d threads", name, threads))
		}
	}
	for name, w := range want {
		for i, x := range w {
			require.False(t, x != x, "%s[%d] is NaN", name, i)
		}
	}
}

// A row of the forward has the same bits alone as in a batch.
func TestForwardDoesNotDependOnTheBatch(t *testing.T) {
	r := newRig(t, 2, 8)
	const T, c, n, v = 67, 130, 77, 4200
	x, w, head := r.random(T, c, 1), r.weight(n, c, 1), r.weight(v, c, 0.1)
	bias, residual := r.random(1, n, 1), r.random(T, n, 1)
	ids := r.randomInts(T, v)
	type outs struct{ y, lp, ent engine.Tensor }
	forward := func(from, to int) outs {
		m := to - from
		o := outs{r.zeros(m, n), r.zeros(1, m), r.zeros(1, m)}
		r.Linear(engine.LinearArgs{Y: o.y, X: x.RowRange(from, to), W: w, Bias: bias, Residual: residual.RowRange(from, to)})
		r.LogProb(engine.LogProbArgs{X: x.RowRange(from, to), W: head, Targets: ids.ColRange(from, to), LogProb: o.lp, Entropy: o.ent, LSE: r.zeros(1, m), Scale: 1})
		return o
	}
	all := forward(0, T)
	for _, span := range [][2]int{{0, 1}, {66, 67}, {5, 12}, {10, 60}} {
		part := forward(span[0], span[1])
		sameBits(t, r.floats(all.y.RowRange(span[0], span[1])), r.floats(part.y), "linear")
		sameBits(t, r.floats(all.lp.ColRange(span[0], span[1])), r.floats(part.lp), "log prob")
		sameBits(t, r.floats(all.ent.ColRange(span[0], span[1])), r.floats(part.ent), "entropy")
	}
	// The weight's own copy and one packed on the way give the same bits.
	bare := engine.Weight{Tensor: w.Tensor}
	y := r.zeros(T, n)
	r.Linear(engine.LinearArgs{Y: y, X: x, W: bare, Bias: bias, Residual: residual})
	sameBits(t, r.floats(all.y), r.floats(y), "weight that was not prepared")
}

// paged is the same history in a cache: the prompt's whole pages shared by its
// responses, its last page copied for each.
type paged struct {
	cache  engine.KVCache
	tables [][]int32 // by segment
	rows   []int32   // KVWrite's entries
	slots  []int32
}

// page lays out the prompts of p, and the responses' page tables, in pages drawn
// in random order.
func (r *rig) page(p *engine.Packing, kv, d int) *paged {
	var need int
	for _, s := range p.Segments {
		need += (s.PrefixLen+s.Len)/engine.PageSize + 1
	}
	pg := &paged{cache: engine.KVCache{Pages: need, KVHeads: kv, HeadDim: d}}
	n := need * engine.PageSize * kv * d
	pg.cache.K, pg.cache.V = r.buf(engine.F32, n), r.buf(engine.F32, n)
	// What an earlier sequence left in a page must not matter, NaN included.
	r.Fill(engine.Vector(pg.cache.K, 0, n), float32(math.NaN()))
	r.Fill(engine.Vector(pg.cache.V, 0, n), float32(math.NaN()))
	free := r.rng.Perm(need)
	take := func() int32 {
		x := free[0]
		free = free[1:]
		return int32(x)
	}
	prompts := map[int][]int32{}
	for i, s := range p.Segments {
		var table []int32
		if s.PrefixLen > 0 {
			table = append(table, prompts[s.PrefixStart][:s.PrefixLen/engine.PageSize]...)
			for len(table) <= (s.PrefixLen+s.Len-1)/engine.PageSize {
				table = append(table, take())
			}
			for pos := s.PrefixLen / engine.PageSize * engine.PageSize; pos < s.PrefixLen; pos++ {
				pg.rows = append(pg.rows, int32(s.PrefixStart+pos))
				pg.slots = append(pg.slots, table[pos/engine.PageSize]*engine.PageSize+int32(pos%engine.PageSize))
			}
		} else {
			for len(table) <= (s.Len-1)/engine.PageSize {
				table = append(table, take())
			}
			prompts[s.Start] = table
			for pos := range s.Len / engine.PageSize * engine.PageSize {
				pg.rows = append(pg.rows, int32(s.Start+pos))
				pg.slots = append(pg.slots, table[pos/engine.PageSize]*engine.PageSize+int32(pos%engine.PageSize))
			}
		}
		_ = i
		pg.tables = append(pg.tables, table)
	}
	return pg
}

func TestDecodeEqualsTrainingBitForBit(t *testing.T) {
	for seed, s := range []struct{ h, kv, d int }{{4, 2, 8}, {3, 3, 32}, {8, 1, 20}} {
		for _, threads := range []int{1, 2} {
			r := newRig(t, threads, uint64(seed))
			lengths := func(n int) []int {
				out := make([]int, n)
				for i := range out {
					out[i] = 1 + r.rng.IntN(75)
				}
				return out
			}
			p := sharedPacking(1+r.rng.IntN(130), lengths(9), 64, 70, 40)
			T := p.Rows
			scale := float32(1 / math.Sqrt(float64(s.d)))
			q, k, v := r.random(T, s.h*s.d, 2), r.random(T, s.kv*s.d, 1), r.random(T, s.kv*s.d, 1)
			o := r.zeros(T, s.h*s.d)
			r.Attention(engine.AttentionArgs{O: o, Q: q, K: k, V: v, HeadDim: s.d, Scale: scale, Packing: p})

			pg := r.page(p, s.kv, s.d)
			r.KVWrite(engine.KVWriteArgs{Cache: pg.cache, K: k, V: v, Rows: r.ints(pg.rows), Slots: r.ints(pg.slots)})
			// All responses at once, one token a step; a finished one is inactive.
			var segs []int
			width := 0
			for i, sg := range p.Segments {
				if sg.PrefixLen > 0 || i == len(p.Segments)-1 {
					segs = append(segs, i)
				}
				width = max(width, len(pg.tables[i]))
			}
			r.rng.Shuffle(len(segs), func(i, j int) { segs[i], segs[j] = segs[j], segs[i] })
			B := len(segs)
			tables := make([]int32, B*width)
			for b, i := range segs {
				copy(tables[b*width:], pg.tables[i])
			}
			table := engine.Matrix(r.buf(engine.I32, B*width), 0, B, width)
			r.UploadI32(table, tables)
			positions := r.ints(make([]int32, B))
			bq, bk, bv, bo := r.zeros(B, s.h*s.d), r.zeros(B, s.kv*s.d), r.zeros(B, s.kv*s.d), r.zeros(B, s.h*s.d)
			program := r.Record(func() {
				r.DecodeAttention(engine.DecodeAttentionArgs{O: bo, Q: bq, K: bk, V: bv, Cache: pg.cache, PageTable: table, Positions: positions, Scale: scale})
			})
			require.Equal(t, 1, program.Ops())
			for step, active := 0, true; active; step++ {
				active = false
				pos := make([]int32, B)
				for b, i := range segs {
					pos[b] = -1
					if sg := p.Segments[i]; step < sg.Len {
						active = true
						pos[b] = int32(sg.PrefixLen + step)
						row := sg.Start + step
						r.Copy(bq.RowRange(b, b+1), q.RowRange(row, row+1))
						r.Copy(bk.RowRange(b, b+1), k.RowRange(row, row+1))
						r.Copy(bv.RowRange(b, b+1), v.RowRange(row, row+1))
					}
				}
				r.UploadI32(positions, pos)
				r.Run(program)
				for b, i := range segs {
					got := r.floats(bo.RowRange(b, b+1))
					if pos[b] < 0 {
						for _, x := range got {
							require.Zero(t, x)
						}
						continue
					}
					row := p.Segments[i].Start + step
					sameBits(t, r.floats(o.RowRange(row, row+1)), got, fmt.Sprintf("heads %d/%d, segment %d, step %d", s.h, s.kv, i, step))
				}
			}
		}
	}
}

// A response attends to a shared prompt as to its own copy of it.
func TestSharedPromptEqualsItsCopy(t *testing.T) {
	r := newRig(t, 2, 9)
	const h, kv, d = 4, 2, 16
	for _, prompt := range []int{1, 31, 32, 33, 70} {
		const n = 50
		shared := &engine.Packing{Rows: prompt + 2*n, Segments: []engine.Segment{
			{Start: 0, Len: prompt}, {Start: prompt, Len: n, PrefixLen: prompt}, {Start: prompt + n, Len: n, PrefixLen: prompt}}}
		whole := &engine.Packing{Rows: prompt + n, Segments: []engine.Segment{{Start: 0, Len: prompt + n}}}
		q, k, v := r.random(shared.Rows, h*d, 1), r.random(shared.Rows, kv*d, 1), r.random(shared.Rows, kv*d, 1)
		o := r.zeros(shared.Rows, h*d)
		r.Attention(engine.AttentionArgs{O: o, Q: q, K: k, V: v, HeadDim: d, Scale: 0.3, Packing: shared})
		for resp := range 2 {
			from := prompt + resp*n
			cat := func(x engine.Tensor) engine.Tensor {
				y := r.zeros(prompt+n, x.Cols)
				r.Copy(y.RowRange(0, prompt), x.RowRange(0, prompt))
				r.Copy(y.RowRange(prompt, prompt+n), x.RowRange(from, from+n))
				return y
			}
			alone := r.zeros(prompt+n, h*d)
			r.Attention(engine.AttentionArgs{O: alone, Q: cat(q), K: cat(k), V: cat(v), HeadDim: d, Scale: 0.3, Packing: whole})
			sameBits(t, r.floats(alone.RowRange(prompt, prompt+n)), r.floats(o.RowRange(from, from+n)), fmt.Sprintf("prompt of %d", prompt))
		}
	}
}

func TestUnseenNaNStaysUnseen(t *testing.T) {
	r := newRig(t, 2, 10)
	const n, h, kv, d, bad = 40, 2, 1, 24, 37
	p := &engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}}
	q, k, v := r.random(n, h*d, 1), r.random(n, kv*d, 1), r.random(n, kv*d, 1)
	clean, dirty := r.zeros(n, h*d), r.zeros(n, h*d)
	args := engine.AttentionArgs{O: clean, Q: q, K: k, V: v, HeadDim: d, Scale: 0.3, Packing: p}
	r.Attention(args)
	r.Fill(v.RowRange(bad, bad+1), float32(math.NaN()))
	r.Fill(k.RowRange(bad, bad+1), float32(math.Inf(1)))
	args.O = dirty
	r.Attention(args)
	sameBits(t, r.floats(clean.RowRange(0, bad)), r.floats(dirty.RowRange(0, bad)), "rows before the NaN")
	for _, x := range r.floats(dirty.RowRange(bad, n)) {
		require.True(t, x != x, "a row that sees NaN is NaN")
	}
}

func TestSampleLogProbEqualsLogProbBitForBit(t *testing.T) {
	for _, v := range []int{40, 2*engine.VocabChunk + 50} {
		r := newRig(t, 2, 11)
		const B, c = 5, 24
		x, w, logits := r.random(B, c, 1), r.weight(v, c, 0.5), r.zeros(B, v)
		r.Linear(engine.LinearArgs{Y: logits, X: x, W: w})
		a := r.sampleArgs(logits)
		params := make([]float32, B*engine.NumParams)
		for b := range B {
			copy(params[b*engine.NumParams:], []float32{[]float32{1, 0.7, 0, 1.3, 1}[b], []float32{1, 0.9, 1, 1, 1}[b], 0, 0})
		}
		r.UploadF32(a.Params, params)
		r.Sample(a)
		lp, ent, lse := r.zeros(1, B), r.zeros(1, B), r.zeros(1, B)
		r.LogProb(engine.LogProbArgs{X: x, W: w, Targets: a.Tokens, LogProb: lp, Entropy: ent, LSE: lse, Scale: 1})
		sameBits(t, r.floats(lp), r.floats(a.LogProb), "log prob")
		sameBits(t, r.floats(ent), r.floats(a.Entropy), "entropy")
		sampling := r.floats(a.SamplingLogProb)
		require.Equal(t, r.floats(lp)[0], sampling[0], "without temperature and filters the distributions are one")
		require.Zero(t, sampling[2])
	}
}

func TestRecordedOperationsReadDeviceMemoryAtRun(t *testing.T) {
	r := newRig(t, 2, 12)
	x, y := r.random(3, 4, 1), r.zeros(3, 4)
	w := r.weight(4, 4, 1)
	p := r.Record(func() {
		r.Copy(y, x)
		r.Linear(engine.LinearArgs{Y: y, X: x, W: w, Residual: y})
	})
	require.Equal(t, 2, p.Ops())
	for _, v := range r.floats(y) {
		require.Zero(t, v, "recording carries nothing out")
	}
	for range 2 {
		r.UploadF32(x, r.floats(r.random(3, 4, 1)))
		r.Run(p)
		want := r.zeros(3, 4)
		r.Linear(engine.LinearArgs{Y: want, X: x, W: w, Residual: x})
		sameBits(t, r.floats(want), r.floats(y), "replay")
	}
	require.PanicsWithValue(t, "cpu: alloc, free, upload, download and prepare are not allowed while recording", func() {
		r.Record(func() { r.UploadF32(x, make([]float32, 12)) })
	})
	r.Fill(x, 1) // the failed recording has ended
	require.Equal(t, float32(1), r.floats(x)[0])
	twice := r.Record(func() { r.Run(p); r.Run(p) })
	require.Equal(t, 4, twice.Ops())
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	for _, threads := range []int{1, 2} {
		r := newRig(t, threads, 13)
		const h, kv, d, v = 4, 2, 16, 300
		const c = h * d
		pk := sharedPacking(45, []int{3, 40, 70}, 64, 33, 1)
		T := pk.Rows
		x, y, w, head := r.random(T, c, 1), r.zeros(T, c), r.weight(c, c, 1), r.weight(v, c, 1)
		k, dk, dv, lse := r.random(T, kv*d, 1), r.zeros(T, kv*d), r.zeros(T, kv*d), r.zeros(T, h)
		dx, dw, norm, rstd := r.zeros(T, c), r.zeros(v, c), r.random(1, c, 1), r.zeros(T, 1)
		dn, dcc := r.zeros(1, c), r.zeros(c, c)
		ids, lp, ent, hl, ss := r.randomInts(T, v), r.zeros(1, T), r.zeros(1, T), r.zeros(1, T), r.zeros(1, 1)
		m1, m2, pos, cos := r.zeros(v, c), r.zeros(v, c), r.ints(pk.Positions(nil)), r.random(200, d/2, 1)

		// A decode step as it is replayed.
		const B, pages = 6, 3
		cache := engine.KVCache{K: r.buf(engine.F32, B*pages*split*kv*d), V: r.buf(engine.F32, B*pages*split*kv*d), Pages: B * pages, KVHeads: kv, HeadDim: d}
		table := engine.Matrix(r.buf(engine.I32, B*pages), 0, B, pages)
		ids32, at, drawn := make([]int32, B*pages), make([]int32, B), make([]int32, B)
		for b := range B {
			at[b] = int32(40 + b)
			copy(ids32[b*pages:], []int32{0, int32(3*b + 1), int32(3*b + 2)})
		}
		r.UploadI32(table, ids32)
		dq, dkv, dout, logits := r.random(B, c, 1), r.random(B, kv*d, 1), r.zeros(B, c), r.zeros(B, v)
		sample := r.sampleArgs(logits)
		sample.Marker, sample.MarkerAfter = []int32{1, 2}, r.zeros(1, v)
		positions := sample.Positions
		for b := range B {
			r.UploadF32(sample.Params.RowRange(b, b+1), []float32{0.8, 0.9, 0.01, 1})
			r.UploadI32(sample.Keys.RowRange(b, b+1), []int32{20, 1, 2, 3, 4, int32(b)})
		}
		rows := r.ints([]int32{0, 1, 2})
		program := r.Record(func() {
			r.KVWrite(engine.KVWriteArgs{Cache: cache, K: k, V: k, Rows: rows, Slots: rows})
			r.DecodeAttention(engine.DecodeAttentionArgs{O: dout, Q: dq, K: dkv, V: dkv, Cache: cache, PageTable: table, Positions: positions, Scale: 0.25})
			r.Linear(engine.LinearArgs{Y: logits, X: dout, W: head})
			r.Sample(sample)
		})
		step := func() {
			r.Gather(engine.GatherArgs{Dst: x, Table: head.Tensor, IDs: ids})
			r.RMSNorm(engine.RMSNormArgs{Y: y, X: x, W: norm, Rstd: rstd, Groups: 1, Eps: 1e-6})
			r.Linear(engine.LinearArgs{Y: y, X: x, W: w, Residual: x})
			r.Attention(engine.AttentionArgs{O: y, Q: x, K: k, V: k, LSE: lse, HeadDim: d, Scale: 0.25, Packing: pk})
			r.LogProb(engine.LogProbArgs{X: y, W: head, Targets: ids, LogProb: lp, Entropy: ent, LSE: hl, Scale: 1})
			r.LogProbBackward(engine.LogProbBackwardArgs{DX: dx, DW: dw, X: y, W: head, Targets: ids, LSE: hl, DLogProb: lp, Scale: 1})
			r.AttentionBackward(engine.AttentionBackwardArgs{DQ: y, DK: dk, DV: dv, DO: dx, Q: x, O: y, K: k, V: k, LSE: lse, HeadDim: d, Scale: 0.25, Packing: pk})
			r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: y, DY: dx, W: w})
			r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dcc, DY: dx, X: x})
			r.RMSNormBackward(engine.RMSNormBackwardArgs{DX: y, DW: dn, DY: dx, X: x, W: norm, Rstd: rstd, Groups: 1})
			r.ScatterAdd(engine.ScatterAddArgs{Table: dw, Src: dx, IDs: ids})
			r.SumSquares(engine.SumSquaresArgs{Out: ss, X: dw})
			r.AdamW(engine.AdamWArgs{P: head.Tensor, G: dw, M: m1, V: m2, LR: 1e-3, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1, Step: 1})
			r.RoPE(engine.RoPEArgs{X: x, Positions: pos, Cos: cos, Sin: cos, HeadDim: d})
			r.SwiGLU(engine.SwiGLUArgs{Y: y, Gate: x, Up: dx})
			r.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: x, DUp: dx, DY: y, Gate: x, Up: dx})
			r.RefreshWeight(w)
			r.RefreshWeight(head)
			r.UploadI32(positions, at)
			r.Run(program)
			require.NoError(t, r.Wait(r.DownloadI32(drawn, sample.Tokens)))
		}
		step()
		if n := testing.AllocsPerRun(10, step); n != 0 && !raceEnabled {
			t.Errorf("%d threads: %v allocations in a step", threads, n)
		}
	}
}

// goroutines waits until there are n goroutines: one that has ended may be
// counted a little longer.
func goroutines(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() != n && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	require.Equal(t, n, runtime.NumGoroutine())
}

// Backends share nothing: two at once give what one gives alone.
func TestTwoBackendsAtOnce(t *testing.T) {
	want := everyOp(newRig(t, 1, 7))
	rigs := []*rig{newRig(t, 2, 7), newRig(t, 2, 7)}
	got := make([]map[string][]float32, len(rigs))
	var wg sync.WaitGroup
	for i, r := range rigs {
		wg.Go(func() { got[i] = everyOp(r) })
	}
	wg.Wait()
	for i := range rigs {
		for name, w := range want {
			sameBits(t, w, got[i][name], fmt.Sprintf("%s of backend %d", name, i))
		}
	}
}

func TestCloseEndsWorkers(t *testing.T) {
	time.Sleep(20 * time.Millisecond) // earlier tests' goroutines are gone
	before := runtime.NumGoroutine()
	b, err := New(Options{Threads: 4})
	require.NoError(t, err)
	goroutines(t, before+3)
	require.Equal(t, 4, b.Threads())
	time.Sleep(10 * time.Millisecond) // they have parked
	require.NoError(t, b.Close())
	require.NoError(t, b.Close())
	goroutines(t, before)
	require.Error(t, b.Sync())
	require.PanicsWithValue(t, "cpu: backend is closed", func() { _, _ = b.Alloc(engine.F32, 1) })

	one, err := New(Options{Threads: 1})
	require.NoError(t, err)
	goroutines(t, before) // one thread needs none
	require.NoError(t, one.Close())
	_, err = New(Options{Threads: -1})
	require.ErrorContains(t, err, "threads")
}

type countTiles struct {
	hits  []int32
	panic int
}

func (c *countTiles) tile(_ *worker, i int) {
	if i == c.panic {
		panic("tile panics")
	}
	c.hits[i]++ // a tile taken twice is a race that -race sees
}

func TestPoolRunsEachTileOnce(t *testing.T) {
	p := newPool(4)
	defer p.close()
	for round := range 300 {
		n := 1 + round*7%50
		if round%100 == 99 {
			time.Sleep(2 * spinTime) // let workers park
		}
		c := &countTiles{hits: make([]int32, n), panic: -1}
		p.run(c, n, round%3 > 0)
		for i, h := range c.hits {
			require.Equal(t, int32(1), h, "tile %d of %d", i, n)
		}
	}
	c := &countTiles{hits: make([]int32, 20), panic: 11}
	require.PanicsWithValue(t, "tile panics", func() { p.run(c, 20, true) })
	for i, h := range c.hits {
		require.Equal(t, i != 11, h == 1)
	}
	c.panic = -1
	p.run(c, 20, true) // the pool still works
}

func TestAllocOfAbsurdSizeIsAnError(t *testing.T) {
	r := newRig(t, 1, 14)
	for _, n := range []int{math.MaxInt, math.MaxInt / 8, 1 << 50} {
		_, err := r.Alloc(engine.F32, n)
		require.Error(t, err)
		require.Contains(t, err.Error(), "bytes")
		require.Contains(t, err.Error(), fmt.Sprint(n))
	}
	w := engine.Weight{Tensor: engine.Tensor{Buf: r.buf(engine.F32, 1), Rows: 1 << 30, Cols: 1 << 20, Stride: 1}}
	require.Error(t, r.PrepareWeight(&w))
	require.Nil(t, w.Prepared)

	before := r.Allocated()
	b := r.buf(engine.BF16, 10)
	require.Equal(t, before+20, r.Allocated())
	r.Free(b)
	require.Equal(t, before, r.Allocated())
	require.PanicsWithValue(t, "cpu: free: buffer was freed before", func() { r.Free(b) })
	f := r.zeros(2, 2)
	r.Free(f.Buf)
	require.PanicsWithValue(t, "cpu: tensor's buffer was freed", func() { r.Fill(f, 1) })
	other := newRig(t, 1, 1).zeros(2, 2)
	require.PanicsWithValue(t, "cpu: buffer of another backend", func() { r.Fill(other, 1) })
}
