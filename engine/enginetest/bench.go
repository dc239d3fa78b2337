package enginetest

import (
	"fmt"
	"testing"

	"github.com/updraft-ml/updraft/engine"
)

// Bench measures every operation at the shapes of a small model: hidden size
// 512, 8 query heads and 2 key-value heads of 64, feed-forward 1408, a
// vocabulary of 8192, a packed batch of 512 rows and decode batches of 1, 8 and
// 32. It reports GFLOP/s where arithmetic bounds an operation and GB/s of
// operands read and written once where memory does.
func Bench(b *testing.B, open func(t testing.TB) engine.Backend) {
	for _, c := range benchmarks() {
		b.Run(c.name, func(b *testing.B) {
			be := open(b)
			e := newEnv(be, engine.F32, false)
			run := c.setup(e)
			run() // memory that is made on first use is not measured
			if err := be.Sync(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				run()
				if err := be.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			seconds := b.Elapsed().Seconds()
			if c.flop > 0 {
				b.ReportMetric(c.flop*float64(b.N)/seconds/1e9, "GFLOP/s")
			}
			if c.bytes > 0 {
				b.ReportMetric(c.bytes*float64(b.N)/seconds/1e9, "GB/s")
			}
			e.free()
			if err := be.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

type benchmark struct {
	name  string
	flop  float64 // arithmetic of one run
	bytes float64 // memory traffic of one run, where that is the bound
	setup func(e *env) (run func())
}

func benchmarks() (out []benchmark) {
	const c, f, v = 512, 1408, 8192
	h := heads{8, 2, 64}
	add := func(name string, flop, bytes float64, setup func(e *env) func()) {
		out = append(out, benchmark{name, flop, bytes, setup})
	}
	for _, t := range []int{1, 8, 32, 512} {
		add(fmt.Sprintf("Linear/T=%d", t), 2*float64(t*c*f), 0, func(e *env) func() {
			_, w := e.weight("W", f, c)
			a := engine.LinearArgs{Y: e.out("Y", t, f).Tensor, X: e.in("X", t, c).Tensor, W: w}
			return func() { e.Linear(a) }
		})
	}
	const t = 512
	add("LinearBackwardInput", 2*t*c*f, 0, func(e *env) func() {
		_, w := e.weight("W", f, c)
		a := engine.LinearBackwardInputArgs{DX: e.out("DX", t, c).Tensor, DY: e.in("DY", t, f).Tensor, W: w}
		return func() { e.LinearBackwardInput(a) }
	})
	add("LinearBackwardWeight", 2*t*c*f, 0, func(e *env) func() {
		a := engine.LinearBackwardWeightArgs{DW: e.inout("DW", f, c).Tensor, DY: e.in("DY", t, f).Tensor, X: e.in("X", t, c).Tensor}
		return func() { e.LinearBackwardWeight(a) }
	})
	add("RefreshWeight", 0, 8*c*f, func(e *env) func() {
		_, w := e.weight("W", f, c)
		return func() { e.RefreshWeight(w) }
	})
	add("RMSNorm", 0, 8*t*c, func(e *env) func() {
		a := engine.RMSNormArgs{Y: e.out("Y", t, c).Tensor, X: e.in("X", t, c).Tensor, W: e.in("W", 1, c).Tensor,
			Rstd: e.out("Rstd", t, 1).Tensor, Groups: 1, Eps: 1e-6}
		return func() { e.RMSNorm(a) }
	})
	add("RMSNormBackward", 0, 12*t*c, func(e *env) func() {
		a := engine.RMSNormBackwardArgs{DX: e.out("DX", t, c).Tensor, DW: e.inout("DW", 1, c).Tensor, DY: e.in("DY", t, c).Tensor,
			X: e.in("X", t, c).Tensor, W: e.in("W", 1, c).Tensor, Rstd: e.in("Rstd", t, 1).Tensor, Groups: 1}
		return func() { e.RMSNormBackward(a) }
	})
	add("RoPE", 0, float64(8*t*h.h*h.d), func(e *env) func() {
		cos, sin := ropeTables(t, h.d)
		pos := make([]int32, t)
		for i := range pos {
			pos[i] = int32(i)
		}
		a := engine.RoPEArgs{X: e.inout("X", t, h.h*h.d).Tensor, Positions: e.ints("P", pos).Tensor,
			Cos: e.data("Cos", t, h.d/2, cos).Tensor, Sin: e.data("Sin", t, h.d/2, sin).Tensor, HeadDim: h.d}
		return func() { e.RoPE(a) }
	})
	add("SwiGLU", 0, 12*t*f, func(e *env) func() {
		a := engine.SwiGLUArgs{Y: e.out("Y", t, f).Tensor, Gate: e.in("G", t, f).Tensor, Up: e.in("U", t, f).Tensor}
		return func() { e.SwiGLU(a) }
	})
	add("SwiGLUBackward", 0, 20*t*f, func(e *env) func() {
		a := engine.SwiGLUBackwardArgs{DGate: e.out("DG", t, f).Tensor, DUp: e.out("DU", t, f).Tensor, DY: e.in("DY", t, f).Tensor,
			Gate: e.in("G", t, f).Tensor, Up: e.in("U", t, f).Tensor}
		return func() { e.SwiGLUBackward(a) }
	})
	// A group of 8 responses of 128 tokens to a prompt of 128.
	p := pack([]group{{128, []int{128, 128, 128, 128, 128, 128, 128, 128}}}, true)
	pairs := 0
	for _, s := range p.Segments {
		pairs += s.Len*s.PrefixLen + s.Len*(s.Len+1)/2
	}
	add("Attention", float64(4*pairs*h.h*h.d), 0, func(e *env) func() {
		a := e.qkv(p.Rows, h).args(e.out("O", p.Rows, h.h*h.d), h, p)
		a.LSE = e.out("LSE", p.Rows, h.h).Tensor
		return func() { e.Attention(a) }
	})
	add("AttentionBackward", float64(10*pairs*h.h*h.d), 0, func(e *env) func() {
		in, o, lse := e.qkv(p.Rows, h), e.out("O", p.Rows, h.h*h.d), e.out("LSE", p.Rows, h.h)
		a := in.args(o, h, p)
		a.LSE = lse.Tensor
		e.Attention(a)
		b := engine.AttentionBackwardArgs{DQ: e.out("DQ", p.Rows, h.h*h.d).Tensor, DK: e.out("DK", p.Rows, h.kv*h.d).Tensor,
			DV: e.out("DV", p.Rows, h.kv*h.d).Tensor, DO: e.in("DO", p.Rows, h.h*h.d).Tensor, Q: a.Q, O: a.O, K: a.K, V: a.V,
			LSE: a.LSE, HeadDim: h.d, Scale: a.Scale, Packing: p}
		return func() { e.AttentionBackward(b) }
	})
	for _, rows := range []int{1, 8, 32} {
		const n = 512
		add(fmt.Sprintf("DecodeAttention/B=%d,length=%d", rows, n), 0, float64(rows*n*h.kv*h.d*8), func(e *env) func() {
			pages := n / engine.PageSize
			cache := e.cache(rows*pages, h)
			for _, b := range []engine.Buffer{cache.K, cache.V} {
				e.Fill(engine.Vector(b, 0, b.Len()), 0.1)
			}
			table, pos := make([]int32, rows*pages), make([]int32, rows)
			for i := range table {
				table[i] = int32(i)
			}
			for i := range pos {
				pos[i] = n - 1
			}
			in := e.qkv(rows, h)
			a := engine.DecodeAttentionArgs{O: e.out("O", rows, h.h*h.d).Tensor, Q: in.q.Tensor, K: in.k.Tensor, V: in.v.Tensor,
				Cache: cache, PageTable: e.intMatrix("T", input, rows, pages, table).Tensor,
				Positions: e.ints("P", pos).Tensor, Scale: h.scale()}
			return func() { e.DecodeAttention(a) }
		})
		add(fmt.Sprintf("Sample/B=%d,top-p", rows), 0, float64(rows*v*4), func(e *env) func() { return benchSample(e, rows, v, 0.9) })
		add(fmt.Sprintf("Sample/B=%d,plain", rows), 0, float64(rows*v*4), func(e *env) func() { return benchSample(e, rows, v, 1) })
	}
	add("LogProb", 2*t*c*v, 0, func(e *env) func() {
		x, _, w, targets := e.head(t, c, v, 1)
		a := engine.LogProbArgs{X: x.Tensor, W: w, Targets: targets.Tensor, LogProb: e.outVec("L", t).Tensor,
			Entropy: e.outVec("H", t).Tensor, LSE: e.outVec("LSE", t).Tensor, Scale: 1}
		return func() { e.LogProb(a) }
	})
	add("LogProbBackward", 6*t*c*v, 0, func(e *env) func() { // logits again, DX and DW
		x, _, w, targets := e.head(t, c, v, 1)
		lse := make([]float32, t)
		for i := range lse {
			lse[i] = 11
		}
		a := engine.LogProbBackwardArgs{DX: e.out("DX", t, c).Tensor, DW: e.inout("DW", v, c).Tensor, X: x.Tensor, W: w,
			Targets: targets.Tensor, LSE: e.vec("LSE", lse).Tensor, DLogProb: e.vec("D", e.normal(t, 1)).Tensor, Scale: 1}
		return func() { e.LogProbBackward(a) }
	})
	const n = 1 << 22
	add("SumSquares", 0, 4*n, func(e *env) func() {
		a := engine.SumSquaresArgs{Out: e.outVec("O", 1).Tensor, X: e.vec("X", e.normal(n, 1)).Tensor}
		return func() { e.SumSquares(a) }
	})
	add("AdamW", 0, 28*n, func(e *env) func() {
		vec := func() engine.Tensor { return e.inout("v", 1, n).Tensor }
		a := engine.AdamWArgs{P: vec(), G: vec(), M: vec(), V: vec(), LR: 1e-4, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: 10}
		e.Fill(a.V, 1)
		return func() { e.AdamW(a) }
	})
	return out
}

// benchSample draws for rows rows; positions grow from call to call.
func benchSample(e *env, rows, v int, topP float64) func() {
	params := samplingRows(e, rows)
	for i := range params {
		params[i] = plainSampling
		params[i].TopP = topP
	}
	s := e.sampler(v, e.normal(rows*v, 2), params, nil, make([]int32, rows), make([]int32, rows), make([]int32, rows))
	a := s.args()
	return func() { e.Sample(a) }
}
