package gpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// LogProb computes the fused language-model head: block by block of rows and chunk
// by chunk of the vocabulary, the logits as Linear makes them, then their
// reduction.
func (b *Backend) LogProb(a engine.LogProbArgs) {
	const op = "LogProb"
	b.begin(op)
	x := b.real(a.X)
	w := b.of(a.W.Tensor, x.dtype)
	if x.cols != w.cols || w.rows == 0 {
		panic("gpu: log prob: shapes do not match")
	}
	n := x.rows
	targets := b.vec(a.Targets, engine.I32, n)
	logProb, entropy, lse := b.vec(a.LogProb, engine.F32, n), b.vec(a.Entropy, engine.F32, n), b.vec(a.LSE, engine.F32, n)
	if n == 0 {
		return
	}
	plan := kernels.PlanHead(n, w.rows, x.cols, false)
	products, ok := b.scratchFor(op, part(plan.ProductBytes())+plan.StateBytes())
	if !ok {
		return
	}
	state := products + uint64(part(plan.ProductBytes()))
	stats := kernels.HeadStats()
	for s := range plan.Steps() {
		b.logits(op, x, w, products, plan.Stride, s)
		args := b.start().Pointer(state + uint64(16*s.Row))
		add(args, logProb.colRange(s.Row, s.Rows), entropy.colRange(s.Row, s.Rows), lse.colRange(s.Row, s.Rows)).Pointer(products)
		sizes(add(args, targets.colRange(s.Row, s.Rows)), s.Cols, s.From, w.rows, plan.Stride).Float32(a.Scale)
		b.launch(op, &stats, s.Rows, 1, 1)
	}
}

// logits computes X·Wᵀ for the rows and the part of the vocabulary of a step.
func (b *Backend) logits(op string, x, w view, products uint64, stride int, s kernels.HeadStep) {
	b.product(op, kernels.Product{Op: kernels.Forward, Factors: x.kernelType(), Result: kernels.F32,
		M: s.Rows, N: s.Cols, K: x.cols, A: x.rowRange(s.Row, s.Rows).matrix(), B: w.rowRange(s.From, s.Cols).matrix(),
		C: kernels.Matrix{Addr: products, Stride: stride}})
}

// LogProbBackward computes the gradients of X and W: the logits once more, from
// them dz in their place, and from dz the two products. DX is summed in F32 over
// the chunks of the vocabulary and rounded once where it is BF16.
func (b *Backend) LogProbBackward(a engine.LogProbBackwardArgs) {
	const op = "LogProbBackward"
	b.begin(op)
	x := b.real(a.X)
	w := b.of(a.W.Tensor, x.dtype)
	if x.cols != w.cols {
		panic("gpu: log prob backward: shapes do not match")
	}
	n := x.rows
	dx := b.shaped(a.DX, x.dtype, n, x.cols)
	dw := b.optional(a.DW, engine.F32, w.rows, x.cols)
	targets := b.vec(a.Targets, engine.I32, n)
	lse, dLogProb := b.vec(a.LSE, engine.F32, n), b.vec(a.DLogProb, engine.F32, n)
	dEntropy := b.optionalVec(a.DEntropy, engine.F32, n)
	var entropy view
	if dEntropy.present() {
		entropy = b.vec(a.Entropy, engine.F32, n)
	}
	if n == 0 || w.rows == 0 {
		return
	}
	plan := kernels.PlanHead(n, w.rows, x.cols, true)
	narrow := x.is(engine.BF16)
	size := part(plan.ProductBytes())
	if narrow {
		size += plan.SumBytes()
	}
	products, ok := b.scratchFor(op, size)
	if !ok {
		return
	}
	gradient := kernels.HeadGradient(x.kernelType())
	dzStride := plan.Stride
	if narrow { // a row of dz lies in the first half of its row of products
		dzStride *= 2
	}
	dz := kernels.Matrix{Addr: products, Stride: dzStride}
	for s := range plan.Steps() {
		b.logits(op, x, w, products, plan.Stride, s)
		some := func(v view) view {
			if v.present() {
				v = v.colRange(s.Row, s.Rows)
			}
			return v
		}
		args := add(b.start().Pointer(products).Pointer(products), some(targets), some(lse), some(entropy), some(dLogProb), some(dEntropy))
		sizes(args, s.Cols, s.From, dzStride, plan.Stride).Float32(a.Scale)
		b.launch(op, &gradient, s.Rows, 1, 1)

		if dw.present() {
			rows := x.rowRange(s.Row, s.Rows)
			wGrad := dw.rowRange(s.From, s.Cols).matrix()
			b.product(op, kernels.Product{Op: kernels.GradWeight, Factors: x.kernelType(), Result: kernels.F32,
				M: s.Cols, N: x.cols, K: s.Rows, A: dz, B: rows.matrix(), C: wGrad, R: wGrad})
		}

		out := dx.rowRange(s.Row, s.Rows)
		sum := out.matrix()
		if narrow {
			sum = kernels.Matrix{Addr: products + uint64(part(plan.ProductBytes())+4*s.SumRow*x.cols), Stride: x.cols}
		}
		p := kernels.Product{Op: kernels.GradInput, Factors: x.kernelType(), Result: kernels.F32,
			M: s.Rows, N: x.cols, K: s.Cols, A: dz, B: w.rowRange(s.From, s.Cols).matrix(), C: sum}
		if !s.First {
			p.R = sum
		}
		b.product(op, p)
		if narrow && s.Last && x.cols > 0 {
			k := kernels.ToBF16()
			sizes(add(b.start(), out).Pointer(sum.Addr), out.rows, out.cols, out.stride, sum.Stride)
			b.launch(op, &k.Spec, k.Grid(out.rows, out.cols), 1, 1)
		}
	}
}

// Sample draws one token for each row from its logits.
func (b *Backend) Sample(a engine.SampleArgs) {
	const op = "Sample"
	b.begin(op)
	b.stale()
	logits := b.of(a.Logits, engine.F32)
	n := logits.rows
	params := b.shaped(a.Params, engine.F32, n, engine.NumParams)
	keys := b.shaped(a.Keys, engine.I32, n, engine.NumKeys)
	tokens, positions, forced := b.vec(a.Tokens, engine.I32, n), b.vec(a.Positions, engine.I32, n), b.vec(a.Forced, engine.I32, n)
	logProb, sampling, entropy := b.vec(a.LogProb, engine.F32, n), b.vec(a.SamplingLogProb, engine.F32, n), b.vec(a.Entropy, engine.F32, n)
	var after view
	var marker uint64
	if len(a.Marker) > 0 {
		after = b.vec(a.MarkerAfter, engine.F32, logits.cols)
		for _, id := range a.Marker {
			if id < 0 || int(id) >= logits.cols {
				panic("gpu: sample: marker token out of range")
			}
		}
		list := b.list(op, a.Marker)
		if list == nil {
			return
		}
		marker = list.ptr(0)
	}
	if n == 0 {
		return
	}
	k, err := kernels.Sample(logits.cols)
	if err != nil {
		panic("gpu: sample: empty vocabulary, or one that is too large")
	}
	args := add(add(b.start(), logits, params, keys).Pointer(marker), after, forced, tokens, positions, logProb, sampling, entropy)
	sizes(args, logits.cols, len(a.Marker), logits.stride, params.stride, keys.stride)
	b.launch(op, &k, n, 1, 1)
}
