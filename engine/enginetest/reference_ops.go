package enginetest

import (
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

// The operations of Reference: read, call internal/ref, store.

// dtype returns the type of a tensor that must be present.
func (r *Reference) dtype(t engine.Tensor) engine.DType { return r.buffer(t.Buf).dtype }

// are demands that all tensors which are present have type d.
func (r *Reference) are(d engine.DType, ts ...engine.Tensor) {
	for _, t := range ts {
		must(!t.Valid() || r.dtype(t) == d, "reference: tensor has the wrong type")
	}
}

// either demands F32 or a.
func (r *Reference) either(a engine.DType, ts ...engine.Tensor) {
	for _, t := range ts {
		must(r.dtype(t) == engine.F32 || r.dtype(t) == a, "reference: tensor has the wrong type")
	}
}

// intermediate is how products round what enters them where activations are of
// type a.
func (r *Reference) intermediate(a engine.DType) ref.Rounding {
	if a != engine.BF16 || !r.rounds && r.noise == nil {
		return nil
	}
	return func(v float64) float64 { return r.round(engine.BF16, v) }
}

// Gather implements engine.Backend.
func (r *Reference) Gather(a engine.GatherArgs) {
	r.do(func() {
		must(a.IDs.Len() == a.Dst.Rows && a.Dst.Cols == a.Table.Cols, "reference: gather: bad shapes")
		r.either(r.dtype(a.Table), a.Dst)
		r.store(a.Dst, ref.Gather(r.floats(a.Table), r.ints(a.IDs)))
	})
}

// ScatterAdd implements engine.Backend.
func (r *Reference) ScatterAdd(a engine.ScatterAddArgs) {
	r.do(func() {
		must(a.IDs.Len() == a.Src.Rows && a.Src.Cols == a.Table.Cols, "reference: scatter: bad shapes")
		r.are(engine.F32, a.Table, a.Src)
		r.add(a.Table, ref.ScatterAdd(a.Table.Rows, r.floats(a.Src), r.ints(a.IDs)), true)
	})
}

// add stores m, or adds it to what is there.
func (r *Reference) add(t engine.Tensor, m ref.Mat, accumulate bool) {
	if accumulate {
		old := r.floats(t)
		must(len(old.V) == len(m.V), "reference: output has the wrong shape")
		for i, v := range old.V {
			m.V[i] += v
		}
	}
	r.store(t, m)
}

func sameShape(ts ...engine.Tensor) bool {
	for _, t := range ts {
		if t.Rows != ts[0].Rows || t.Cols != ts[0].Cols {
			return false
		}
	}
	return true
}

// RMSNorm implements engine.Backend.
func (r *Reference) RMSNorm(a engine.RMSNormArgs) {
	r.do(func() {
		must(sameShape(a.Y, a.X) && a.Groups > 0 && a.X.Cols == a.Groups*a.W.Len(), "reference: rmsnorm: bad shapes")
		r.either(r.dtype(a.Y), a.X)
		r.are(engine.F32, a.W, a.Rstd)
		y, rstd := ref.RMSNorm(r.floats(a.X), r.floats(a.W).V, a.Groups, float64(a.Eps))
		r.store(a.Y, y)
		if a.Rstd.Valid() {
			r.store(a.Rstd, rstd)
		}
	})
}

// RMSNormBackward implements engine.Backend.
func (r *Reference) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	r.do(func() {
		must(sameShape(a.DX, a.DY, a.X) && a.Groups > 0 && a.X.Cols == a.Groups*a.W.Len() &&
			a.Rstd.Rows == a.X.Rows && a.Rstd.Cols == a.Groups, "reference: rmsnorm backward: bad shapes")
		r.either(r.dtype(a.DY), a.X)
		r.are(r.dtype(a.X), a.DX)
		r.are(engine.F32, a.W, a.Rstd, a.DW)
		if a.Accumulate {
			r.are(engine.F32, a.DX)
		}
		dx, dw := ref.RMSNormBackward(r.floats(a.DY), r.floats(a.X), r.floats(a.W).V, r.floats(a.Rstd), a.Groups)
		r.add(a.DX, dx, a.Accumulate)
		if a.DW.Valid() {
			r.add(a.DW, ref.Mat{Rows: 1, Cols: len(dw), V: dw}, true)
		}
	})
}

// Linear implements engine.Backend.
func (r *Reference) Linear(a engine.LinearArgs) {
	r.do(func() {
		must(a.X.Cols == a.W.Cols && a.Y.Cols == a.W.Rows && a.Y.Rows == a.X.Rows &&
			(!a.Bias.Valid() || a.Bias.Len() == a.W.Rows) && (!a.Residual.Valid() || sameShape(a.Y, a.Residual)),
			"reference: linear: bad shapes")
		r.are(r.dtype(a.W.Tensor), a.X)
		r.either(r.dtype(a.X), a.Y)
		r.are(engine.F32, a.Bias, a.Residual)
		if a.Residual.Valid() {
			r.are(engine.F32, a.Y)
		}
		r.store(a.Y, ref.Linear(r.floats(a.X), r.weight(a.W), r.optional(a.Bias), r.optional(a.Residual)))
	})
}

// LinearBackwardInput implements engine.Backend.
func (r *Reference) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	r.do(func() {
		must(a.DX.Cols == a.W.Cols && a.DY.Cols == a.W.Rows && a.DX.Rows == a.DY.Rows,
			"reference: linear backward input: bad shapes")
		r.are(r.dtype(a.W.Tensor), a.DX, a.DY)
		r.add(a.DX, ref.LinearBackwardInput(r.floats(a.DY), r.weight(a.W)), a.Accumulate)
	})
}

// LinearBackwardWeight implements engine.Backend.
func (r *Reference) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	r.do(func() {
		must(a.DW.Rows == a.DY.Cols && a.DW.Cols == a.X.Cols && a.DY.Rows == a.X.Rows &&
			(!a.DBias.Valid() || a.DBias.Len() == a.DY.Cols), "reference: linear backward weight: bad shapes")
		r.are(r.dtype(a.X), a.DY)
		r.are(engine.F32, a.DW, a.DBias)
		dw, db := ref.LinearBackwardWeight(r.floats(a.DY), r.floats(a.X))
		r.add(a.DW, dw, true)
		if a.DBias.Valid() {
			r.add(a.DBias, db, true)
		}
	})
}

// RoPE implements engine.Backend.
func (r *Reference) RoPE(a engine.RoPEArgs) {
	r.do(func() {
		must(a.HeadDim > 0 && a.HeadDim%2 == 0 && a.X.Cols%a.HeadDim == 0 && a.Positions.Len() == a.X.Rows &&
			a.Cos.Cols == a.HeadDim/2 && sameShape(a.Cos, a.Sin), "reference: rope: bad shapes")
		r.are(engine.F32, a.Cos, a.Sin)
		r.store(a.X, ref.RoPE(r.floats(a.X), r.ints(a.Positions), r.floats(a.Cos), r.floats(a.Sin), a.HeadDim, a.Inverse))
	})
}

func checkHeads(q, k, v engine.Tensor, d int) {
	must(d > 0 && q.Cols%d == 0 && k.Cols%d == 0 && k.Cols > 0 && q.Cols%k.Cols == 0 && sameShape(k, v) && q.Rows == k.Rows,
		"reference: attention: bad shapes")
}

// Attention implements engine.Backend.
func (r *Reference) Attention(a engine.AttentionArgs) {
	p := clonePacking(a.Packing)
	r.do(func() {
		checkHeads(a.Q, a.K, a.V, a.HeadDim)
		p.Check()
		must(p.Rows == a.Q.Rows && sameShape(a.O, a.Q), "reference: attention: bad shapes")
		r.are(r.dtype(a.Q), a.O, a.K, a.V)
		r.are(engine.F32, a.LSE)
		o, lse := r.intermediate(r.dtype(a.Q)).Attention(r.floats(a.Q), r.floats(a.K), r.floats(a.V), a.HeadDim, float64(a.Scale), p)
		r.store(a.O, o)
		if a.LSE.Valid() {
			r.store(a.LSE, lse)
		}
	})
}

// AttentionBackward implements engine.Backend.
func (r *Reference) AttentionBackward(a engine.AttentionBackwardArgs) {
	p := clonePacking(a.Packing)
	r.do(func() {
		checkHeads(a.Q, a.K, a.V, a.HeadDim)
		p.Check()
		must(p.Rows == a.Q.Rows && sameShape(a.O, a.Q, a.DO, a.DQ) && sameShape(a.K, a.DK, a.DV),
			"reference: attention backward: bad shapes")
		r.are(r.dtype(a.Q), a.DQ, a.DK, a.DV, a.DO, a.O, a.K, a.V)
		r.are(engine.F32, a.LSE)
		dq, dk, dv := r.intermediate(r.dtype(a.Q)).AttentionBackward(r.floats(a.DO), r.floats(a.Q), r.floats(a.K), r.floats(a.V),
			r.floats(a.O), r.floats(a.LSE), a.HeadDim, float64(a.Scale), p)
		r.store(a.DQ, dq)
		r.store(a.DK, dk)
		r.store(a.DV, dv)
	})
}

// SwiGLU implements engine.Backend.
func (r *Reference) SwiGLU(a engine.SwiGLUArgs) {
	r.do(func() {
		must(sameShape(a.Y, a.Gate, a.Up), "reference: swiglu: bad shapes")
		r.are(r.dtype(a.Y), a.Gate, a.Up)
		r.store(a.Y, ref.SwiGLU(r.floats(a.Gate), r.floats(a.Up)))
	})
}

// SwiGLUBackward implements engine.Backend.
func (r *Reference) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	r.do(func() {
		must(sameShape(a.DY, a.Gate, a.Up, a.DGate, a.DUp), "reference: swiglu backward: bad shapes")
		r.are(r.dtype(a.DY), a.Gate, a.Up, a.DGate, a.DUp)
		dg, du := ref.SwiGLUBackward(r.floats(a.DY), r.floats(a.Gate), r.floats(a.Up))
		r.store(a.DGate, dg)
		r.store(a.DUp, du)
	})
}

// LogProb implements engine.Backend.
func (r *Reference) LogProb(a engine.LogProbArgs) {
	r.do(func() {
		must(a.X.Cols == a.W.Cols && a.Targets.Len() == a.X.Rows, "reference: logprob: bad shapes")
		r.are(r.dtype(a.W.Tensor), a.X)
		// Logits are what Linear would have stored.
		logits := ref.Rounding(func(z float64) float64 { return r.round(engine.F32, z) })
		logp, h, lse := logits.LogProb(r.floats(a.X), r.weight(a.W), r.ints(a.Targets), float64(a.Scale))
		r.store(a.LogProb, ref.Mat{Rows: 1, Cols: len(logp), V: logp})
		r.store(a.Entropy, ref.Mat{Rows: 1, Cols: len(h), V: h})
		r.store(a.LSE, ref.Mat{Rows: 1, Cols: len(lse), V: lse})
	})
}

// LogProbBackward implements engine.Backend.
func (r *Reference) LogProbBackward(a engine.LogProbBackwardArgs) {
	r.do(func() {
		must(a.X.Cols == a.W.Cols && a.Targets.Len() == a.X.Rows && sameShape(a.DX, a.X) && (!a.DW.Valid() || sameShape(a.DW, a.W.Tensor)),
			"reference: logprob backward: bad shapes")
		r.are(r.dtype(a.W.Tensor), a.X, a.DX)
		r.are(engine.F32, a.DW)
		dx, dw := r.intermediate(r.dtype(a.X)).LogProbBackward(r.floats(a.X), r.weight(a.W), r.ints(a.Targets), r.floats(a.LSE).V,
			r.optional(a.Entropy).V, r.floats(a.DLogProb).V, r.optional(a.DEntropy).V, float64(a.Scale))
		r.store(a.DX, dx)
		if a.DW.Valid() {
			r.add(a.DW, dw, true)
		}
	})
}

// cache returns c as a ref.Cache over the buffers' own memory: the layout
// inside a page is one row for each token.
func (r *Reference) cache(c engine.KVCache) ref.Cache {
	k, v := r.buffer(c.K), r.buffer(c.V)
	rows, cols := c.Pages*engine.PageSize, c.KVHeads*c.HeadDim
	must(len(k.f) >= rows*cols && len(v.f) >= rows*cols, "reference: KV cache is smaller than its pages")
	return ref.Cache{
		K: ref.Mat{Rows: rows, Cols: cols, V: k.f[:rows*cols]},
		V: ref.Mat{Rows: rows, Cols: cols, V: v.f[:rows*cols]},
	}
}

// KVWrite implements engine.Backend.
func (r *Reference) KVWrite(a engine.KVWriteArgs) {
	r.do(func() {
		must(sameShape(a.K, a.V) && a.K.Cols == a.Cache.KVHeads*a.Cache.HeadDim && a.Rows.Len() == a.Slots.Len(),
			"reference: kv write: bad shapes")
		must(r.dtype(a.K) == r.buffer(a.Cache.K).dtype && r.dtype(a.V) == r.dtype(a.K), "reference: tensor has the wrong type")
		r.cache(a.Cache).Write(r.floats(a.K), r.floats(a.V), r.ints(a.Rows), r.ints(a.Slots))
	})
}

// DecodeAttention implements engine.Backend.
func (r *Reference) DecodeAttention(a engine.DecodeAttentionArgs) {
	r.do(func() {
		checkHeads(a.Q, a.K, a.V, a.Cache.HeadDim)
		must(a.K.Cols == a.Cache.KVHeads*a.Cache.HeadDim && sameShape(a.O, a.Q) && a.Positions.Len() == a.Q.Rows &&
			a.PageTable.Rows == a.Q.Rows, "reference: decode attention: bad shapes")
		r.are(r.dtype(a.Q), a.O, a.K, a.V)
		must(r.dtype(a.K) == r.buffer(a.Cache.K).dtype, "reference: tensor has the wrong type")
		ids, table := r.ints(a.PageTable), make([][]int32, a.Q.Rows)
		for b := range table {
			table[b] = ids[b*a.PageTable.Cols:][:a.PageTable.Cols]
		}
		r.store(a.O, r.intermediate(r.dtype(a.Q)).DecodeAttention(r.floats(a.Q), r.floats(a.K), r.floats(a.V), r.cache(a.Cache),
			table, r.ints(a.Positions), a.Cache.HeadDim, float64(a.Scale)))
	})
}

// Sample implements engine.Backend.
func (r *Reference) Sample(a engine.SampleArgs) {
	a.Marker = slices.Clone(a.Marker)
	r.do(func() {
		b := a.Logits.Rows
		must(sameShape(a.Params, engine.Tensor{Rows: b, Cols: engine.NumParams}) &&
			sameShape(a.Keys, engine.Tensor{Rows: b, Cols: engine.NumKeys}) && a.Forced.Len() == b && a.Tokens.Len() == b &&
			a.Positions.Len() == b && a.LogProb.Len() == b && a.SamplingLogProb.Len() == b && a.Entropy.Len() == b &&
			(len(a.Marker) == 0 || a.MarkerAfter.Len() == a.Logits.Cols), "reference: sample: bad shapes")
		logits, params, keys := r.floats(a.Logits), r.floats(a.Params), r.ints(a.Keys)
		after := r.optional(a.MarkerAfter)
		tokens, positions, forced := r.ints(a.Tokens), r.ints(a.Positions), r.ints(a.Forced)
		logp, slogp, h := r.floats(a.LogProb), r.floats(a.SamplingLogProb), r.floats(a.Entropy)
		for i := range b {
			if positions[i] < 0 {
				continue
			}
			s := ref.SampleState{Token: tokens[i], Position: positions[i], Forced: forced[i]}
			mayFollow := len(a.Marker) > 0 && after.V[s.Token] == 1
			res := ref.SampleRow(logits.Row(i), sampleParams(params.Row(i), keys[i*engine.NumKeys:]), a.Marker, mayFollow, &s)
			tokens[i], positions[i], forced[i] = s.Token, s.Position, s.Forced
			logp.V[i], slogp.V[i], h.V[i] = res.LogProb, res.SamplingLogProb, res.Entropy
		}
		r.store(a.LogProb, logp)
		r.store(a.SamplingLogProb, slogp)
		r.store(a.Entropy, h)
	})
}

func sampleParams(p []float64, k []int32) ref.SampleParams {
	return ref.SampleParams{
		Temperature: p[engine.ParamTemperature], TopP: p[engine.ParamTopP], MinP: p[engine.ParamMinP],
		HelpBias: p[engine.ParamHelpBias], TopK: int(k[engine.KeyTopK]),
		SeedLo: k[engine.KeySeedLo], SeedHi: k[engine.KeySeedHi],
		Step: k[engine.KeyStep], Prompt: k[engine.KeyPrompt], Sample: k[engine.KeySample],
	}
}
