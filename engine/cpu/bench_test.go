package cpu

import (
	"fmt"
	"testing"

	"github.com/updraft-ml/updraft/engine"
)

// The tiny model's shapes: a training batch of 2048 rows.
const (
	benchT, benchC, benchF         = 2048, 128, 384
	benchH, benchKV, benchD        = 4, 2, 32
	benchV                         = 40
	benchPrompt, benchResponse     = 24, 40
	benchGroups, benchGenerations  = 6, 8
	benchBatch, benchBatchPosition = 32, 60
)

// benchThreads runs f with 1 and 2 threads and reports GFLOP/s of the work
// that f returns, in floating-point operations a call; and, where the system
// tells, per second of processor time, which is steadier on a machine that
// others use too.
func benchThreads(b *testing.B, f func(r *rig) (flops float64, call func())) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			r := newRig(b, threads, 31)
			flops, call := f(r)
			call()
			b.ReportAllocs()
			start := cpuTime()
			for b.Loop() {
				call()
			}
			b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			if used := cpuTime() - start; used > 0 {
				b.ReportMetric(flops*float64(b.N)/used.Seconds()/1e9, "GFLOP/cpu-s")
			}
		})
	}
}

func BenchmarkLinear(b *testing.B) {
	for _, s := range [][3]int{{benchT, benchC, benchC}, {benchT, benchF, benchC}, {benchT, benchC, benchF}, {benchBatch, benchC, benchC}, {benchBatch, benchF, benchC}, {2048, 2048, 2048}} {
		T, N, K := s[0], s[1], s[2]
		name := fmt.Sprintf("T=%d,N=%d,K=%d", T, N, K)
		flops := 2 * float64(T) * float64(N) * float64(K)
		b.Run("forward/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				x, w, y := r.random(T, K, 1), r.weight(N, K, 1), r.zeros(T, N)
				return flops, func() { r.Linear(engine.LinearArgs{Y: y, X: x, W: w}) }
			})
		})
		if T < benchT {
			continue
		}
		b.Run("residual/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				x, w, y, res := r.random(T, K, 1), r.weight(N, K, 1), r.zeros(T, N), r.random(T, N, 1)
				return flops, func() { r.Linear(engine.LinearArgs{Y: y, X: x, W: w, Residual: res}) }
			})
		})
		b.Run("input/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				dx, w, dy := r.random(T, K, 1), r.weight(N, K, 1), r.random(T, N, 1)
				return flops, func() { r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx, DY: dy, W: w}) }
			})
		})
		b.Run("weight/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				x, dw, dy := r.random(T, K, 1), r.zeros(N, K), r.random(T, N, 1)
				return flops, func() { r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw, DY: dy, X: x}) }
			})
		})
	}
}

// benchPacking is groups of responses that share a prompt each.
func benchPacking() *engine.Packing {
	p := &engine.Packing{}
	for range benchGroups {
		prompt := p.Rows
		p.Segments = append(p.Segments, engine.Segment{Start: prompt, Len: benchPrompt})
		p.Rows += benchPrompt
		for range benchGenerations {
			p.Segments = append(p.Segments, engine.Segment{Start: p.Rows, Len: benchResponse, PrefixStart: prompt, PrefixLen: benchPrompt})
			p.Rows += benchResponse
		}
	}
	return p
}

func BenchmarkAttention(b *testing.B) {
	long := &engine.Packing{Rows: 2048, Segments: []engine.Segment{{Len: 1024}, {Start: 1024, Len: 1024}}}
	for _, s := range []struct {
		name  string
		p     *engine.Packing
		kv, d int
	}{{"groups/KV=4", benchPacking(), 4, benchD}, {"groups/KV=2", benchPacking(), 2, benchD}, {"long/KV=2,D=64", long, 2, 64}} {
		var pairs float64 // of a query and a key that it sees
		for _, g := range s.p.Segments {
			pairs += float64(g.Len)*float64(g.PrefixLen) + float64(g.Len)*float64(g.Len+1)/2
		}
		flops := 4 * pairs * benchH * float64(s.d)
		setup := func(r *rig) (engine.AttentionArgs, engine.AttentionBackwardArgs) {
			T, q, k := s.p.Rows, benchH*s.d, s.kv*s.d
			a := engine.AttentionArgs{O: r.zeros(T, q), Q: r.random(T, q, 1), K: r.random(T, k, 1), V: r.random(T, k, 1), LSE: r.zeros(T, benchH), HeadDim: s.d, Scale: 0.2, Packing: s.p}
			r.Attention(a)
			return a, engine.AttentionBackwardArgs{DQ: r.zeros(T, q), DK: r.zeros(T, k), DV: r.zeros(T, k), DO: r.random(T, q, 1),
				Q: a.Q, O: a.O, K: a.K, V: a.V, LSE: a.LSE, HeadDim: s.d, Scale: 0.2, Packing: s.p}
		}
		b.Run("forward/"+s.name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				a, _ := setup(r)
				return flops, func() { r.Attention(a) }
			})
		})
		b.Run("backward/"+s.name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				_, a := setup(r)
				return 2.5 * flops, func() { r.AttentionBackward(a) }
			})
		})
	}
}

func BenchmarkDecodeAttention(b *testing.B) {
	benchThreads(b, func(r *rig) (float64, func()) {
		const B, pos, c = benchBatch, benchBatchPosition, benchKV * benchD
		pages := (pos + engine.PageSize) / engine.PageSize
		cache := engine.KVCache{Pages: B * pages, KVHeads: benchKV, HeadDim: benchD}
		n := cache.Pages * engine.PageSize * c
		cache.K, cache.V = r.buf(engine.F32, n), r.buf(engine.F32, n)
		table := engine.Matrix(r.buf(engine.I32, B*pages), 0, B, pages)
		ids, at := make([]int32, B*pages), make([]int32, B)
		for i := range ids {
			ids[i] = int32(i)
			if i%pages == 0 { // groups of eight share the first page
				ids[i] = int32(i / pages / 8 * 8 * pages)
			}
		}
		for i := range at {
			at[i] = pos
		}
		r.UploadI32(table, ids)
		a := engine.DecodeAttentionArgs{O: r.zeros(B, benchH*benchD), Q: r.random(B, benchH*benchD, 1), K: r.random(B, c, 1), V: r.random(B, c, 1),
			Cache: cache, PageTable: table, Positions: r.ints(at), Scale: 0.2}
		return 4 * B * (pos + 1) * benchH * benchD, func() { r.DecodeAttention(a) }
	})
}

func BenchmarkLogProb(b *testing.B) {
	for _, s := range [][3]int{{benchT, benchV, benchC}, {256, 49152, 576}} {
		T, V, C := s[0], s[1], s[2]
		flops := 2 * float64(T) * float64(V) * float64(C)
		setup := func(r *rig) (engine.LogProbArgs, engine.LogProbBackwardArgs) {
			a := engine.LogProbArgs{X: r.random(T, C, 1), W: r.weight(V, C, 0.1), Targets: r.randomInts(T, V), LogProb: r.zeros(1, T), Entropy: r.zeros(1, T), LSE: r.zeros(1, T), Scale: 1}
			r.LogProb(a)
			return a, engine.LogProbBackwardArgs{DX: r.zeros(T, C), DW: r.zeros(V, C), X: a.X, W: a.W, Targets: a.Targets, LSE: a.LSE, DLogProb: r.random(1, T, 1), Scale: 1}
		}
		name := fmt.Sprintf("T=%d,V=%d,C=%d", T, V, C)
		b.Run("forward/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				a, _ := setup(r)
				return flops, func() { r.LogProb(a) }
			})
		})
		b.Run("backward/"+name, func(b *testing.B) {
			benchThreads(b, func(r *rig) (float64, func()) {
				_, a := setup(r)
				return 3 * flops, func() { r.LogProbBackward(a) }
			})
		})
	}
}

func BenchmarkSample(b *testing.B) {
	for _, v := range []int{benchV, 150000} {
		for name, p := range map[string][]float32{"plain": {1, 1, 0, 0}, "top-p": {0.8, 0.95, 0, 0}, "top-k": {0.8, 1, 0, 0}} {
			b.Run(fmt.Sprintf("V=%d/%s", v, name), func(b *testing.B) {
				r := newRig(b, 1, 31)
				B := 8
				logits := r.random(B, v, 2)
				a := r.sampleArgs(logits)
				for i := range B {
					r.UploadF32(a.Params.RowRange(i, i+1), p)
					if name == "top-k" {
						r.UploadI32(a.Keys.RowRange(i, i+1), []int32{20, 1, 2, 3, 4, 5})
					}
				}
				start := cpuTime()
				for b.Loop() {
					r.Sample(a)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(B), "ns/row")
				b.ReportMetric(float64((cpuTime()-start).Nanoseconds())/float64(b.N)/float64(B), "cpu-ns/row")
			})
		}
	}
}

// BenchmarkDispatch measures what handing out an operation of eight empty tiles
// costs.
func BenchmarkDispatch(b *testing.B) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			p := newPool(threads)
			defer p.close()
			for b.Loop() {
				p.run(noTiles{}, 8, false)
			}
		})
	}
}

type noTiles struct{}

func (noTiles) tile(*worker, int) {}
