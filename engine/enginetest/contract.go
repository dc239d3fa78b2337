package enginetest

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// contractChecks hold the backend to points 1 to 3 of the numerical contract in
// package engine: bits, not tolerances.
func contractChecks() (checks list) {
	for _, s := range [][3]int{{40, 33, 50}, {7, 300, 9}, {33, 64, 100}, {150, 40, 20}} {
		t, k, n := s[0], s[1], s[2]
		checks.add("BatchInvariance", "Linear", fmt.Sprintf("T=%d,K=%d,N=%d", t, k, n), t*k*n, 0,
			func(e *env) error { return linearInvariant(e, t, k, n) })
	}
	for i, h := range headShapes {
		at := func(op, kind string, work int, run func(*env) error) {
			checks.add(op, kind, h.String(), work*h.h*h.d, i, run)
		}
		at("BatchInvariance", "Attention", 3000, func(e *env) error { return attentionInvariant(e, h) })
		at("AttentionBits", "decode equals packed, token by token", 3000, func(e *env) error { return decodeBits(e, h, 0, pick(e, 100, 40)) })
		at("AttentionBits", "decode of a group equals packed with sharing", 3000,
			func(e *env) error { return groupDecodeBits(e, []int{5, 32, 45, 64, 31}[i%5], pick(e, 35, 6), h) })
	}
	// Around 256 keys, a likely size of a larger split.
	long := heads{4, 2, 64}
	checks.one("AttentionBits", "decode equals packed over a long prompt", func(e *env) error { return decodeBits(e, long, 250, 10) })
	for _, n := range []int{250, 256, 300} {
		checks.one("AttentionBits", fmt.Sprintf("decode of a group over a long prompt of %d", n), func(e *env) error { return groupDecodeBits(e, n, 8, long) })
	}
	for _, v := range []int{40, engine.VocabChunk, 9001} {
		at := fmt.Sprintf("V=%d", v)
		checks.add("LogProbBits", "Sample equals LogProb", at, 600*v, 0, func(e *env) error { return logProbBits(e, v) })
		checks.add("BatchInvariance", "LogProb", at, 200*v, 0, func(e *env) error { return logProbInvariant(e, v) })
	}
	// Two chunks are the least that a merge can go wrong in.
	checks.one("LogProbBits", "Sample equals LogProb over two chunks", func(e *env) error { return logProbBits(e, engine.VocabChunk+77) })
	checks.one("BatchInvariance", "elementwise", elementwiseInvariant)
	checks.one("BatchInvariance", "decoding", decodingInvariant)
	checks.one("Determinism", "every operation twice", everythingTwice)
	return checks
}

// sampleContractChecks: sampling is in float32 at any precision.
func sampleContractChecks() (checks list) {
	for _, v := range []int{40, engine.VocabChunk, 9001} {
		checks.add("BatchInvariance", "Sample", fmt.Sprintf("V=%d", v), 18*v, 0, func(e *env) error { return sampleInvariant(e, v) })
	}
	return checks
}

// subsets are the batches in which rows of a batch of n are computed again:
// each of a few rows alone, all in reverse, a run from the middle.
func subsets(n int) [][]int {
	reverse, middle := make([]int, n), []int{}
	for i := range reverse {
		reverse[i] = n - 1 - i
	}
	for i := n / 3; i < 2*n/3; i++ {
		middle = append(middle, i)
	}
	out := [][]int{{0}, {n - 1}, {n / 2}, reverse, append(reverse[:n-1:n-1], reverse[:n-1]...)}
	if len(middle) > 0 {
		out = append(out, middle)
	}
	return out
}

// invariant computes rows of x in one batch and in the subsets and compares
// bits. run allocates its outputs for the given input rows and returns them.
func (e *env) invariant(x ref.Mat, run func(x *block, rows []int) []*block) error {
	all := make([]int, x.Rows)
	for i := range all {
		all[i] = i
	}
	whole := run(e.data("X", x.Rows, x.Cols, toF32(x.V)), all)
	type part struct {
		rows []int
		outs []*block
	}
	var parts []part
	for i, rows := range subsets(x.Rows) {
		e.layout = layouts[i%len(layouts)]
		m := rowsOf(x, rows)
		parts = append(parts, part{rows, run(e.data("X", m.Rows, m.Cols, toF32(m.V)), rows)})
	}
	if err := e.fetch(); err != nil {
		return err
	}
	for _, p := range parts {
		for i, o := range p.outs {
			w := whole[i].matAfter()
			if w.Rows == 1 && x.Rows > 1 { // a vector of one element for each row
				w = ref.Mat{Rows: w.Cols, Cols: 1, V: w.V}
			}
			if err := o.same(fmt.Sprintf("rows %v in another batch", p.rows), toF32(rowsOf(w, p.rows).V)); err != nil {
				return err
			}
		}
	}
	return nil
}

func linearInvariant(e *env, t, k, n int) error {
	_, w := e.weight("W", n, k)
	bias, residual := e.vec("Bias", e.normal(n, 1)), toMat(t, n, e.normal(t*n, 1))
	return e.invariant(toMat(t, k, e.normal(t*k, 1)), func(x *block, rows []int) []*block {
		y, z := e.out("Y", x.Rows, n), e.outF32("Y with bias and residual", x.Rows, n)
		r := rowsOf(residual, rows)
		e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
		e.Linear(engine.LinearArgs{Y: z.Tensor, X: x.Tensor, W: w, Bias: bias.Tensor, Residual: e.dataF32("R", r.Rows, r.Cols, toF32(r.V)).Tensor})
		return []*block{y, z}
	})
}

func elementwiseInvariant(e *env) error {
	const t, c = 13, 36
	w := e.vec("W", e.normal(c/2, 1))
	cs, sn := ropeTables(t, 12)
	cos, sin := e.dataF32("cos", t, 6, cs), e.dataF32("sin", t, 6, sn)
	return e.invariant(toMat(t, c, e.normal(t*c, 1)), func(x *block, rows []int) []*block {
		y, rstd, s, r := e.out("norm", x.Rows, c), e.outF32("rstd", x.Rows, 2), e.out("swiglu", x.Rows, c/2), e.out("rope", x.Rows, c)
		var pos []int32
		for _, r := range rows {
			pos = append(pos, int32(r))
		}
		e.RMSNorm(engine.RMSNormArgs{Y: y.Tensor, X: x.Tensor, W: w.Tensor, Rstd: rstd.Tensor, Groups: 2, Eps: 1e-6})
		e.SwiGLU(engine.SwiGLUArgs{Y: s.Tensor, Gate: x.ColRange(0, c/2), Up: x.ColRange(c/2, c)})
		e.Copy(r.Tensor, x.Tensor)
		e.RoPE(engine.RoPEArgs{X: r.Tensor, Positions: e.ints("pos", pos).Tensor, Cos: cos.Tensor, Sin: sin.Tensor, HeadDim: 12})
		return []*block{y, rstd, s, r}
	})
}

func logProbInvariant(e *env, v int) error {
	const t, c = 9, 20
	_, w := e.weight("W", v, c)
	return e.invariant(toMat(t, c, e.normal(t*c, 2)), func(x *block, rows []int) []*block {
		a, b, l := e.outVec("LogProb", x.Rows), e.outVec("Entropy", x.Rows), e.outVec("LSE", x.Rows)
		var ids []int32
		for _, r := range rows {
			ids = append(ids, int32(r*7919%v))
		}
		e.LogProb(engine.LogProbArgs{X: x.Tensor, W: w, Targets: e.ints("Targets", ids).Tensor,
			LogProb: a.Tensor, Entropy: b.Tensor, LSE: l.Tensor, Scale: 0.9})
		return []*block{a, b, l}
	})
}

func sampleInvariant(e *env, v int) error {
	const b = 18
	settings := samplingRows(e, b)
	var all [][]int32
	var batches [][]int
	err := e.invariant(toMat(b, v, e.normal(b*v, 2)), func(x *block, rows []int) []*block {
		var some []ref.SampleParams
		tokens, positions := make([]int32, len(rows)), make([]int32, len(rows))
		for i, r := range rows {
			some = append(some, settings[r])
			tokens[i], positions[i] = int32(r%2), int32(r*3)
		}
		s := e.sampler(v, x.before(), some, []int32{7, 20}, tokens, positions, make([]int32, len(rows)))
		e.Sample(s.args())
		got := make([]int32, len(rows))
		e.DownloadI32(got, s.tokens.Tensor)
		all, batches = append(all, got), append(batches, rows)
		return []*block{s.logp, s.slogp, s.entropy}
	})
	if err != nil {
		return err
	}
	for i, rows := range batches {
		for j, r := range rows {
			if all[i][j] != all[0][r] {
				return fmt.Errorf("row %d draws %d in the whole batch and %d in batch %v", r, all[0][r], all[i][j], rows)
			}
		}
	}
	return nil
}

// attentionInvariant: a group's rows are the same alone, among other groups in
// another order, and without sharing.
func attentionInvariant(e *env, h heads) error {
	groups := []group{{7, []int{4, 40}}, {45, []int{20, 1}}, {32, []int{33}}, {3, nil}}
	whole := pack(groups, true)
	q, k, v := toMat(whole.Rows, h.h*h.d, e.normal(whole.Rows*h.h*h.d, 1)),
		toMat(whole.Rows, h.kv*h.d, e.normal(whole.Rows*h.kv*h.d, 1)), toMat(whole.Rows, h.kv*h.d, e.normal(whole.Rows*h.kv*h.d, 1))
	run := func(p *engine.Packing, rows []int) (o, lse *block) {
		put := func(name string, m ref.Mat) engine.Tensor {
			m = rowsOf(m, rows)
			return e.data(name, m.Rows, m.Cols, toF32(m.V)).Tensor
		}
		o, lse = e.out("O", p.Rows, h.h*h.d), e.outF32("LSE", p.Rows, h.h)
		e.Attention(engine.AttentionArgs{O: o.Tensor, LSE: lse.Tensor, Q: put("Q", q), K: put("K", k), V: put("V", v),
			HeadDim: h.d, Scale: h.scale(), Packing: p})
		return o, lse
	}
	first := make([]int, len(groups)) // each group's first row
	size := func(g group) (n int) {
		n = g.prompt
		for _, r := range g.responses {
			n += r
		}
		return n
	}
	for i := 1; i < len(groups); i++ {
		first[i] = first[i-1] + size(groups[i-1])
	}
	all := make([]int, whole.Rows)
	for i := range all {
		all[i] = i
	}
	wo, wl := run(whole, all)
	type part struct {
		rows   []int
		o, lse *block
	}
	var parts []part
	for i, order := range [][]int{{0}, {1}, {2, 1}, {3, 2, 1, 0}, {1, 1}} {
		e.layout = layouts[i%len(layouts)]
		var gs []group
		var rows []int
		for _, g := range order {
			gs = append(gs, groups[g])
			for r := range size(groups[g]) {
				rows = append(rows, first[g]+r)
			}
		}
		o, lse := run(pack(gs, true), rows)
		parts = append(parts, part{rows, o, lse})
	}
	withResponses := groups[:3]
	rows := unshare(withResponses)
	o, lse := run(pack(withResponses, false), rows)
	parts = append(parts, part{rows, o, lse})
	if err := e.fetch(); err != nil {
		return err
	}
	for i, p := range parts {
		if err := p.o.same(fmt.Sprintf("packing %d", i), toF32(rowsOf(wo.matAfter(), p.rows).V)); err != nil {
			return err
		}
		if err := p.lse.same(fmt.Sprintf("packing %d", i), toF32(rowsOf(wl.matAfter(), p.rows).V)); err != nil {
			return err
		}
	}
	return nil
}

// decodeBits: decoding a sequence token by token gives the bits of packed
// attention over the whole sequence, next to a row of another length. The first
// prompt positions are in the cache already.
func decodeBits(e *env, h heads, prompt, steps int) error {
	n := prompt + steps
	seqs, pages := e.sequences([]int{prompt, 40}, steps, h)
	c := e.cache(pages, h)
	e.prefill(c, seqs)
	table := e.table(seqs, max(len(seqs[0].pages), len(seqs[1].pages)))
	in := attentionInputs{e.in("Q", n, h.h*h.d), e.data("K", n, h.kv*h.d, toF32(seqs[0].k.V)), e.data("V", n, h.kv*h.d, toF32(seqs[0].v.V))}
	o := e.out("O", n, h.h*h.d)
	e.Attention(in.args(o, h, &engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}}))
	var taken []*block
	for i := range steps {
		p := prompt + i
		two := func(name string, a, b []float64) engine.Tensor {
			return e.data(name, 2, len(a), toF32(append(slices.Clone(a), b...))).Tensor
		}
		d := e.out("O", 2, h.h*h.d)
		e.DecodeAttention(engine.DecodeAttentionArgs{O: d.Tensor, Cache: c, PageTable: table.Tensor, Scale: h.scale(),
			Q: two("Q", in.q.mat().Row(p), in.q.mat().Row(0)),
			K: two("K", seqs[0].k.Row(p), seqs[1].k.Row(40+i)), V: two("V", seqs[0].v.Row(p), seqs[1].v.Row(40+i)),
			Positions: e.ints("Positions", []int32{int32(p), int32(40 + i)}).Tensor})
		taken = append(taken, d)
	}
	if err := e.fetch(); err != nil {
		return err
	}
	for i, d := range taken {
		p := prompt + i
		if err := testx.Identical(d.after()[:h.h*h.d], o.after()[p*h.h*h.d:(p+1)*h.h*h.d]); err != nil {
			return fmt.Errorf("position %d: decoded against packed: %w", p, err)
		}
	}
	return nil
}

// groupDecodeBits: several responses decode over the shared pages of one
// prompt, in one batch; the packed forward shares the prompt's rows.
func groupDecodeBits(e *env, prompt, n int, h heads) error {
	const responses = 4
	seqs, pages := e.sequences([]int{prompt, -prompt, -prompt, -prompt}, n, h)
	c := e.cache(pages, h)
	e.prefill(c, seqs)
	width := 0
	for _, s := range seqs {
		width = max(width, len(s.pages))
	}
	table := e.table(seqs, width)
	k, v := seqs[0].k.V[:prompt*h.kv*h.d:prompt*h.kv*h.d], seqs[0].v.V[:prompt*h.kv*h.d:prompt*h.kv*h.d]
	for _, s := range seqs {
		k, v = append(k, s.k.V[prompt*h.kv*h.d:]...), append(v, s.v.V[prompt*h.kv*h.d:]...)
	}
	p := pack([]group{{prompt, slices.Repeat([]int{n}, responses)}}, true)
	in := attentionInputs{e.in("Q", p.Rows, h.h*h.d), e.data("K", p.Rows, h.kv*h.d, toF32(k)), e.data("V", p.Rows, h.kv*h.d, toF32(v))}
	o := e.out("O", p.Rows, h.h*h.d)
	e.Attention(in.args(o, h, p))
	var steps []*block
	for i := range n {
		var rows []int
		var positions []int32
		for r := range responses {
			rows, positions = append(rows, prompt+r*n+i), append(positions, int32(prompt+i))
		}
		put := func(b *block) engine.Tensor {
			m := rowsOf(b.mat(), rows)
			return e.data(b.name, m.Rows, m.Cols, toF32(m.V)).Tensor
		}
		d := e.out("O", responses, h.h*h.d)
		e.DecodeAttention(engine.DecodeAttentionArgs{O: d.Tensor, Q: put(in.q), K: put(in.k), V: put(in.v), Cache: c,
			PageTable: table.Tensor, Positions: e.ints("Positions", positions).Tensor, Scale: h.scale()})
		steps = append(steps, d)
	}
	if err := e.fetch(); err != nil {
		return err
	}
	for i, d := range steps {
		var rows []int
		for r := range responses {
			rows = append(rows, prompt+r*n+i)
		}
		if err := d.same(fmt.Sprintf("step %d of the responses against packed", i), toF32(rowsOf(o.matAfter(), rows).V)); err != nil {
			return err
		}
	}
	return nil
}

// logProbBits: the log-prob that Sample reports of a drawn token is the one
// that LogProb gives for it, whatever the row's sampling settings.
func logProbBits(e *env, v int) error {
	const b, c = 18, 33
	x := e.inScaled("X", b, c, 2)
	_, w := e.weight("W", v, c)
	tokens, positions := make([]int32, b), make([]int32, b)
	for i := range tokens {
		tokens[i], positions[i] = int32(i%2), int32(i)
	}
	s := e.sampler(v, nil, samplingRows(e, b), []int32{7, 20}, tokens, positions, make([]int32, b))
	e.Linear(engine.LinearArgs{Y: s.logits.Tensor, X: x.Tensor, W: w})
	e.Sample(s.args())
	logp, entropy, lse := e.outVec("LogProb", b), e.outVec("Entropy", b), e.outVec("LSE", b)
	e.LogProb(engine.LogProbArgs{X: x.Tensor, W: w, Targets: s.tokens.Tensor, LogProb: logp.Tensor,
		Entropy: entropy.Tensor, LSE: lse.Tensor, Scale: 1})
	if err := e.fetch(); err != nil {
		return err
	}
	return s.logp.same("Sample against LogProb", logp.after())
}

// decodingInvariant: the rows of a decoding model give the same tokens and bits
// with other rows, or none, beside them.
func decodingInvariant(e *env) error {
	n := pick(e, 34, 5)
	var alone, together trace
	for _, rows := range []int{1, 6} {
		// The first row's parameters and weights come from the same seed.
		sub := e.again()
		m := sub.newMiniModel(6, 64)
		if rows == 1 {
			inactive := slices.Repeat([]int32{-1}, 6)
			inactive[0] = 0
			copy(m.s.positions.i[m.s.positions.Off:], inactive)
		}
		tr, err := m.decodeTrace(n, -1, m.step)
		sub.free()
		if err != nil {
			return err
		}
		if rows == 1 {
			alone = tr
		} else {
			together = tr
		}
	}
	for i := range alone.tokens {
		if alone.tokens[i][0] != together.tokens[i][0] {
			return fmt.Errorf("step %d: row 0 draws %d alone, %d with others", i, alone.tokens[i][0], together.tokens[i][0])
		}
		for j := range 3 {
			at := i*18 + j*6
			if err := testx.Identical(alone.floats[at:at+1], together.floats[at:at+1]); err != nil {
				return fmt.Errorf("step %d: %w", i, err)
			}
		}
	}
	return nil
}

// everythingTwice runs forward and backward of every operation on the same
// inputs twice and compares all the bits.
func everythingTwice(e *env) error {
	var first []*block
	for run := range 2 {
		sub := e.again()
		sub.layout = strided
		if err := everything(sub); err != nil {
			return err
		}
		if err := sub.fetch(); err != nil {
			return err
		}
		sub.free()
		if run == 0 {
			first = sub.blocks
			continue
		}
		for i, b := range sub.blocks {
			if b.f == nil {
				if !slices.Equal(b.iAfter, first[i].iAfter) {
					return fmt.Errorf("%s differs between two runs", b.name)
				}
			} else if err := testx.Identical(b.fAfter, first[i].fAfter); err != nil {
				return fmt.Errorf("%s differs between two runs: %w", b.name, err)
			}
		}
	}
	return nil
}

// everything submits each operation once, at a size that spreads over threads.
func everything(e *env) error {
	const c, v, headRows = 96, 4200, 40
	h := heads{4, 2, 32}
	p := pack([]group{{45, []int{60, 70, 3}}, {10, []int{50, 1}}}, true)
	t := p.Rows
	x, dy := e.in("X", t, c), e.in("DY", t, 128)
	_, w := e.weight("W", 128, c)
	y := e.out("Y", t, 128)
	e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
	e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: e.out("DX", t, c).Tensor, DY: dy.Tensor, W: w})
	e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: e.inoutF32("DW", 128, c).Tensor, DBias: e.floats("DBias", inplace, dense, 1, 128, e.normal(128, 1)).Tensor,
		DY: dy.Tensor, X: x.Tensor})
	g, n, residual := e.vec("G", e.normal(c, 1)), e.out("norm", t, c), e.dataF32("residual", t, c, e.normal(t*c, 1))
	rstd := e.outF32("rstd", t, 1)
	e.RMSNorm(engine.RMSNormArgs{Y: n.Tensor, X: residual.Tensor, W: g.Tensor, Rstd: rstd.Tensor, Groups: 1, Eps: 1e-6})
	e.RMSNormBackward(engine.RMSNormBackwardArgs{DX: e.inoutF32("DX norm", t, c).Tensor, DW: e.floats("DG", inplace, dense, 1, c, e.normal(c, 1)).Tensor,
		DY: n.Tensor, X: residual.Tensor, W: g.Tensor, Rstd: rstd.Tensor, Groups: 1, Accumulate: true})
	in, o, lse := e.qkv(t, h), e.out("O", t, h.h*h.d), e.outF32("LSE", t, h.h)
	a := in.args(o, h, p)
	a.LSE = lse.Tensor
	e.Attention(a)
	e.AttentionBackward(engine.AttentionBackwardArgs{DQ: e.out("DQ", t, h.h*h.d).Tensor, DK: e.out("DK", t, h.kv*h.d).Tensor,
		DV: e.out("DV", t, h.kv*h.d).Tensor, DO: dy.Tensor, Q: in.q.Tensor, O: o.Tensor, K: in.k.Tensor, V: in.v.Tensor,
		LSE: lse.Tensor, HeadDim: h.d, Scale: h.scale(), Packing: p})
	e.SwiGLU(engine.SwiGLUArgs{Y: e.out("swiglu", t, 64).Tensor, Gate: dy.ColRange(0, 64), Up: dy.ColRange(64, 128)})
	e.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: e.out("DGate", t, 64).Tensor, DUp: e.out("DUp", t, 64).Tensor,
		DY: in.k.Tensor, Gate: dy.ColRange(0, 64), Up: dy.ColRange(64, 128)})
	hx, _, hw, targets := e.head(headRows, c, v, 1)
	logp, entropy, l := e.outVec("LogProb", headRows), e.outVec("Entropy", headRows), e.outVec("LSE head", headRows)
	e.LogProb(engine.LogProbArgs{X: hx.Tensor, W: hw, Targets: targets.Tensor, LogProb: logp.Tensor, Entropy: entropy.Tensor, LSE: l.Tensor, Scale: 1})
	e.LogProbBackward(engine.LogProbBackwardArgs{DX: e.out("DX head", headRows, c).Tensor, DW: e.inoutF32("DW head", v, c).Tensor, X: hx.Tensor, W: hw,
		Targets: targets.Tensor, LSE: l.Tensor, Entropy: entropy.Tensor, DLogProb: e.vec("DLogProb", e.normal(headRows, 1)).Tensor,
		DEntropy: e.vec("DEntropy", e.normal(headRows, 1)).Tensor, Scale: 1})
	ids := e.ints("ids", someIDs(e, t, 6))
	e.ScatterAdd(engine.ScatterAddArgs{Table: e.inoutF32("table", 6, c).Tensor, Src: residual.Tensor, IDs: ids.Tensor})
	big := e.vec("big", e.normal(200000, 1))
	e.SumSquares(engine.SumSquaresArgs{Out: e.outVec("sum", 1).Tensor, X: big.Tensor})
	vec := func(name string) engine.Tensor { return e.floats(name, inplace, dense, 1, 200000, nil).Tensor }
	P, M, V := vec("P"), vec("M"), vec("V")
	for _, z := range []engine.Tensor{P, M, V} {
		e.Fill(z, 0.5)
	}
	e.AdamW(engine.AdamWArgs{P: P, G: big.Tensor, M: M, V: V, LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1, Step: 3})
	m := e.newMiniModel(5, 64)
	_, err := m.decodeTrace(3, -1, m.step)
	return err
}
