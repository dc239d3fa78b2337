package bench

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// kernelWorkloads are the operations of a model beside its linear maps, at the
// sizes that training and generation give them.
func (r *runner) kernelWorkloads() (all []*workload) {
	names, rows := []string{SmolLM2}, 512
	if r.o.Full {
		names = []string{SmolLM2, Qwen25}
	}
	for _, s := range r.shapes(names...) {
		all = append(all, attentionKernels(s, rows)...)
		all = append(all, decodeAttentionKernel(s, 1, 512), decodeAttentionKernel(s, 32, 512))
		if s.Config.VocabSize < 1<<17 { // the wider one takes seconds and shows the same
			all = append(all, headKernels(s, 128)...)
		}
		all = append(all, normKernels(s, rows)...)
		all = append(all, swigluKernels(s, rows)...)
		all = append(all, sampleKernel(s, 8, 1), sampleKernel(s, 8, 0.9))
	}
	if len(r.shapes(names...)) > 0 {
		all = append(all, r.softmaxKernel(), r.adamWKernel())
	}
	return all
}

func kernel(s Shape, flop, bytes float64, setup func(e *env) *subject, format string, args ...any) *workload {
	return &workload{group: "kernels", shape: s.Name, name: fmt.Sprintf(format, args...), flop: flop, bytes: bytes, setup: setup}
}

// one is a subject of a single variant.
func one(w *workload, check func() string, run func()) *subject {
	return &subject{variants: []variant{{flop: w.flop, bytes: w.bytes, run: func(*laps) { run() }}}, check: check}
}

// attentionKernels are causal attention over one sequence, forward and backward.
func attentionKernels(s Shape, t int) []*workload {
	c := s.Config
	q, kv := c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim
	flop, bytes := 4*causalPairs(0, t)*float64(q), 4*float64(t*(2*q+2*kv))
	args := func(e *env) (a engine.AttentionArgs, q_, k, v operand) {
		q_, k, v = e.random(engine.F32, t, q), e.random(engine.F32, t, kv), e.random(engine.F32, t, kv)
		return engine.AttentionArgs{O: e.zeros(engine.F32, t, q), Q: q_.Tensor, K: k.Tensor, V: v.Tensor, LSE: e.zeros(engine.F32, t, c.NumAttentionHeads),
			HeadDim: c.HeadDim, Scale: float32(1 / math.Sqrt(float64(c.HeadDim))), Packing: &engine.Packing{Rows: t, Segments: []engine.Segment{{Len: t}}}}, q_, k, v
	}
	forward := kernel(s, flop, bytes, nil, "attention T=%d H=%d KV=%d D=%d", t, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim)
	forward.setup = func(e *env) *subject {
		a, q_, k, v := args(e)
		return one(forward, func() string { return checkAttention(e, s, t, a, q_, k, v) }, func() { e.Attention(a) })
	}
	backward := kernel(s, 2.5*flop, 2*bytes, nil, "attention-backward T=%d H=%d KV=%d D=%d", t, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim)
	backward.setup = func(e *env) *subject {
		a, _, _, _ := args(e)
		e.Attention(a)
		b := engine.AttentionBackwardArgs{DQ: e.zeros(engine.F32, t, q), DK: e.zeros(engine.F32, t, kv), DV: e.zeros(engine.F32, t, kv),
			DO: e.random(engine.F32, t, q).Tensor, Q: a.Q, O: a.O, K: a.K, V: a.V, LSE: a.LSE, HeadDim: a.HeadDim, Scale: a.Scale, Packing: a.Packing}
		return one(backward, func() string { return finite(e.read(b.DQ), e.read(b.DK), e.read(b.DV)) }, func() { e.AttentionBackward(b) })
	}
	return []*workload{forward, backward}
}

// checkAttention compares elements with float64. A score errs by chain(D)·Σ|qk| of
// its scale, the exponential and the sums by as much as a chain over the keys;
// weights that err by a share e of themselves move the mean by 2e·max|v|.
func checkAttention(e *env, s Shape, t int, a engine.AttentionArgs, q, k, v operand) string {
	var seen compared
	c, got := s.Config, e.read(a.O)
	for range checkedElements / 4 {
		row, h := e.rng.IntN(t), e.rng.IntN(c.NumAttentionHeads)
		at, kvAt := h*c.HeadDim, h/(c.NumAttentionHeads/c.NumKeyValueHeads)*c.HeadDim
		weights, sum, scoreErr := make([]float64, row+1), 0.0, 0.0
		for j := range weights {
			z, tolerance := dot(c.HeadDim, func(i int) float64 { return q.at(row, at+i) }, func(i int) float64 { return k.at(j, kvAt+i) })
			weights[j] = math.Exp(float64(a.Scale) * z)
			sum += weights[j]
			scoreErr = max(scoreErr, float64(a.Scale)*tolerance)
		}
		d := e.rng.IntN(c.HeadDim)
		want := 0.0
		for j, w := range weights {
			want += w / sum * v.at(j, kvAt+d)
		}
		seen.element(fmt.Sprintf("O[%d] head %d column %d", row, h, d), float64(got[row*a.O.Cols+at+d]), want, 2*(scoreErr+chain(row+8)))
	}
	return seen.String()
}

// decodeAttentionKernel is a step of so many rows over caches of their own.
func decodeAttentionKernel(s Shape, rows, length int) *workload {
	c := s.Config
	kv := c.NumKeyValueHeads * c.HeadDim
	w := kernel(s, float64(4*rows*length*c.NumAttentionHeads*c.HeadDim), float64(8*rows*length*kv), nil, "attention-decode B=%d length=%d", rows, length)
	w.setup = func(e *env) *subject {
		pages := (length + engine.PageSize - 1) / engine.PageSize
		slots := rows * pages * engine.PageSize
		cache := engine.KVCache{Pages: rows * pages, KVHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim,
			K: e.zeros(engine.F32, slots, kv).Buf, V: e.zeros(engine.F32, slots, kv).Buf}
		ids := make([]int32, slots)
		for i := range ids {
			ids[i] = int32(i)
		}
		places := e.ints(1, slots, ids)
		e.KVWrite(engine.KVWriteArgs{Cache: cache, K: e.random(engine.F32, slots, kv).Tensor, V: e.random(engine.F32, slots, kv).Tensor, Rows: places, Slots: places})
		positions := make([]int32, rows)
		for i := range positions {
			positions[i] = int32(length - 1)
		}
		a := engine.DecodeAttentionArgs{O: e.zeros(engine.F32, rows, c.NumAttentionHeads*c.HeadDim), Q: e.random(engine.F32, rows, c.NumAttentionHeads*c.HeadDim).Tensor,
			K: e.random(engine.F32, rows, kv).Tensor, V: e.random(engine.F32, rows, kv).Tensor, Cache: cache, PageTable: e.ints(rows, pages, ids[:rows*pages]),
			Positions: e.ints(1, rows, positions), Scale: float32(1 / math.Sqrt(float64(c.HeadDim)))}
		return one(w, func() string { return finite(e.read(a.O)) }, func() { e.DecodeAttention(a) })
	}
	return w
}

// headKernels are the fused head's log-probs, forward and backward.
func headKernels(s Shape, t int) []*workload {
	c := s.Config
	flop, bytes := 2*float64(t)*s.head(), 4*s.head()
	args := func(e *env) (engine.LogProbArgs, operand, operand, []int32) {
		x, w, targets := e.random(engine.F32, t, c.HiddenSize), e.random(engine.F32, c.VocabSize, c.HiddenSize), e.tokens(t, c.VocabSize)
		return engine.LogProbArgs{X: x.Tensor, W: e.prepared(w.Tensor), Targets: e.ints(1, t, targets), LogProb: e.zeros(engine.F32, 1, t),
			Entropy: e.zeros(engine.F32, 1, t), LSE: e.zeros(engine.F32, 1, t), Scale: 1.0 / 16}, x, w, targets
	}
	forward := kernel(s, flop, bytes, nil, "head-logprob T=%d V=%d", t, c.VocabSize)
	forward.setup = func(e *env) *subject {
		a, x, w, targets := args(e)
		check := func() string {
			var seen compared
			got := e.read(a.LogProb)
			for range 2 {
				row := e.rng.IntN(t)
				sum, worst := 0.0, 0.0
				z := func(v int) float64 {
					z, tolerance := dot(c.HiddenSize, func(i int) float64 { return x.at(row, i) }, func(i int) float64 { return w.at(v, i) })
					worst = max(worst, tolerance*float64(a.Scale))
					return z * float64(a.Scale)
				}
				for v := range c.VocabSize {
					sum += math.Exp(z(v))
				}
				want := z(int(targets[row])) - math.Log(sum)
				seen.element(fmt.Sprintf("log-prob %d", row), float64(got[row]), want, 2*worst+chain(c.VocabSize)+0x1p-23*math.Abs(want))
			}
			return seen.String()
		}
		return one(forward, check, func() { e.LogProb(a) })
	}
	backward := kernel(s, 3*flop, 3*bytes, nil, "head-logprob-backward T=%d V=%d", t, c.VocabSize)
	backward.setup = func(e *env) *subject {
		a, _, _, _ := args(e)
		e.LogProb(a)
		b := engine.LogProbBackwardArgs{DX: e.zeros(engine.F32, t, c.HiddenSize), DW: e.zeros(engine.F32, c.VocabSize, c.HiddenSize), X: a.X, W: a.W, Targets: a.Targets,
			LSE: a.LSE, DLogProb: e.random(engine.F32, 1, t).Tensor, Scale: a.Scale}
		return one(backward, func() string { return finite(e.read(b.DX), e.read(b.DW)) }, func() { e.LogProbBackward(b) })
	}
	return []*workload{forward, backward}
}

func normKernels(s Shape, t int) []*workload {
	c := s.Config.HiddenSize
	forward := kernel(s, 0, float64(8*t*c), nil, "rmsnorm T=%d C=%d", t, c)
	forward.setup = func(e *env) *subject {
		x, w := e.random(engine.F32, t, c), e.random(engine.F32, 1, c)
		a := engine.RMSNormArgs{Y: e.zeros(engine.F32, t, c), X: x.Tensor, W: w.Tensor, Rstd: e.zeros(engine.F32, t, 1), Groups: 1, Eps: 1e-6}
		check := func() string {
			var seen compared
			got := e.read(a.Y)
			for range checkedElements {
				i, j := e.rng.IntN(t), e.rng.IntN(c)
				sum, _ := dot(c, func(k int) float64 { return x.at(i, k) }, func(k int) float64 { return x.at(i, k) })
				want := x.at(i, j) * w.at(0, j) / math.Sqrt(sum/float64(c)+float64(a.Eps))
				seen.element(fmt.Sprintf("Y[%d,%d]", i, j), float64(got[i*c+j]), want, chain(c)*math.Abs(want)) // half of it for the sum, the root, two products
			}
			return seen.String()
		}
		return one(forward, check, func() { e.RMSNorm(a) })
	}
	backward := kernel(s, 0, float64(12*t*c), nil, "rmsnorm-backward T=%d C=%d", t, c)
	backward.setup = func(e *env) *subject {
		a := engine.RMSNormBackwardArgs{DX: e.zeros(engine.F32, t, c), DW: e.zeros(engine.F32, 1, c), DY: e.random(engine.F32, t, c).Tensor,
			X: e.random(engine.F32, t, c).Tensor, W: e.random(engine.F32, 1, c).Tensor, Rstd: e.random(engine.F32, t, 1).Tensor, Groups: 1}
		return one(backward, func() string { return finite(e.read(a.DX), e.read(a.DW)) }, func() { e.RMSNormBackward(a) })
	}
	return []*workload{forward, backward}
}

func swigluKernels(s Shape, t int) []*workload {
	f := s.Config.IntermediateSize
	forward := kernel(s, 0, float64(12*t*f), nil, "swiglu T=%d F=%d", t, f)
	forward.setup = func(e *env) *subject {
		gate, up := e.random(engine.F32, t, f), e.random(engine.F32, t, f)
		a := engine.SwiGLUArgs{Y: e.zeros(engine.F32, t, f), Gate: gate.Tensor, Up: up.Tensor}
		check := func() string {
			var seen compared
			got := e.read(a.Y)
			for range checkedElements {
				i, j := e.rng.IntN(t), e.rng.IntN(f)
				g := gate.at(i, j)
				want := g / (1 + math.Exp(-g)) * up.at(i, j)
				seen.element(fmt.Sprintf("Y[%d,%d]", i, j), float64(got[i*f+j]), want, 8*0x1p-23*math.Abs(want)) // an exponential and four operations
			}
			return seen.String()
		}
		return one(forward, check, func() { e.SwiGLU(a) })
	}
	backward := kernel(s, 0, float64(20*t*f), nil, "swiglu-backward T=%d F=%d", t, f)
	backward.setup = func(e *env) *subject {
		a := engine.SwiGLUBackwardArgs{DGate: e.zeros(engine.F32, t, f), DUp: e.zeros(engine.F32, t, f), DY: e.random(engine.F32, t, f).Tensor,
			Gate: e.random(engine.F32, t, f).Tensor, Up: e.random(engine.F32, t, f).Tensor}
		return one(backward, func() string { return finite(e.read(a.DGate), e.read(a.DUp)) }, func() { e.SwiGLUBackward(a) })
	}
	return []*workload{forward, backward}
}

// sampleKernel draws a token for each row; its logits are written anew before each
// sample, since the operation may overwrite them.
func sampleKernel(s Shape, rows int, topP float32) *workload {
	v := s.Config.VocabSize
	w := kernel(s, 0, float64(4*rows*v), nil, "sample B=%d V=%d top-p=%g", rows, v, topP)
	w.setup = func(e *env) *subject {
		source, logits := e.random(engine.F32, rows, v), e.zeros(engine.F32, rows, v)
		params := make([]float32, rows*engine.NumParams)
		for i := range rows {
			p := params[i*engine.NumParams:]
			p[engine.ParamTemperature], p[engine.ParamTopP] = 1, topP
		}
		set := e.zeros(engine.F32, rows, engine.NumParams)
		e.UploadF32(set, params)
		a := engine.SampleArgs{Logits: logits, Params: set, Keys: e.ints(rows, engine.NumKeys, e.tokens(rows*engine.NumKeys, 1)), Forced: e.ints(1, rows, make([]int32, rows)),
			Tokens: e.ints(1, rows, make([]int32, rows)), Positions: e.ints(1, rows, make([]int32, rows)),
			LogProb: e.zeros(engine.F32, 1, rows), SamplingLogProb: e.zeros(engine.F32, 1, rows), Entropy: e.zeros(engine.F32, 1, rows)}
		sub := one(w, func() string { return finite(e.read(a.LogProb), e.read(a.Entropy)) }, func() { e.Sample(a) })
		sub.variants[0].whole, sub.variants[0].before = true, func() { e.Copy(logits, source.Tensor) }
		return sub
	}
	return w
}

// softmaxKernel is the inner softmax of attention on one thread: rows of 32 scores.
func (r *runner) softmaxKernel() *workload {
	const rows = 4096
	w := &workload{group: "kernels", shape: "any", name: fmt.Sprintf("softmax %d rows of %d, 1 thread", rows, simd.SoftmaxWidth), bytes: 8 * rows * simd.SoftmaxWidth}
	w.setup = func(e *env) *subject {
		scores, m, sum := e.numbers(rows*simd.SoftmaxWidth), make([]float32, rows), make([]float32, rows)
		// Run after run it takes the weights of the last one for scores: numbers in [0, 1].
		sub := one(w, func() string { return finite(scores, sum) }, func() { simd.SoftmaxRows(scores, 1, simd.SoftmaxWidth, 0, m, sum) })
		sub.variants[0].threads = 1
		return sub
	}
	return w
}

func (r *runner) adamWKernel() *workload {
	n := 1 << 24
	if r.o.Miniature {
		n = 1 << 10
	}
	w := &workload{group: "kernels", shape: "any", name: fmt.Sprintf("adamw n=%d", n), bytes: 28 * float64(n)}
	w.setup = func(e *env) *subject {
		p, g := e.random(engine.F32, 1, n), e.random(engine.F32, 1, n)
		a := engine.AdamWArgs{P: p.Tensor, G: g.Tensor, M: e.zeros(engine.F32, 1, n), V: e.zeros(engine.F32, 1, n), LR: 1e-5, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: 1}
		return one(w, func() string { return finite(e.read(a.P), e.read(a.M), e.read(a.V)) }, func() { e.AdamW(a); a.Step++ })
	}
	return w
}
