package enginetest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// erring is a Reference whose every result is off by as much as the suite lets an
// F32 device be: by a number drawn evenly from the tolerance of each element, then
// rounded. What copies (Gather, Copy, KVWrite, weights) is exact.
type erring struct {
	*Reference
	arith
	rng *rand.Rand
}

// NewErring returns a backend whose operations err at random, within the tolerances
// that the suite's checks have for them at F32, and store in F32. How much the
// results of something long, a training, scatter over backends of several seeds is
// how far those of two devices that pass the suite may be from each other. Its
// weights, activations and moments are of F32 alone.
func NewErring(seed uint64) engine.Backend {
	return &erring{NewRounding(), arith{engine.F32, engine.F32}, rand.New(rand.NewPCG(seed, 6))}
}

var _ engine.Backend = (*erring)(nil)

// Precision implements engine.Backend.
func (r *erring) Precision(weights engine.DType) (engine.DType, error) {
	if weights != engine.F32 {
		return 0, fmt.Errorf("erring: weights of %v: %w", weights, errors.ErrUnsupported)
	}
	return weights, nil
}

// off stores a result, off by the error allowed to it at most.
func (r *erring) off(t engine.Tensor, want expected) {
	if !t.Valid() {
		return
	}
	v := make([]float64, len(want.v))
	for i, err := range want.err {
		v[i] = want.v[i] + testx.EpsF32*err*(2*r.rng.Float64()-1)
	}
	r.store(t, ref.Mat{Rows: t.Rows, Cols: t.Cols, V: v})
}

// added is off for a result that is added to what is there, where accumulate is set.
func (r *erring) added(t engine.Tensor, want expected, c float64, accumulate bool) {
	if t.Valid() && accumulate {
		want = want.plus(r.floats(t).V, c)
	}
	r.off(t, want)
}

// ScatterAdd implements engine.Backend.
func (r *erring) ScatterAdd(a engine.ScatterAddArgs) {
	r.do(func() {
		src, ids, n := r.floats(a.Src), r.ints(a.IDs), float64(a.Src.Rows)
		r.added(a.Table, expect(n, ref.ScatterAdd(a.Table.Rows, src, ids).V, ref.ScatterAdd(a.Table.Rows, abs(src), ids).V), n, true)
	})
}

// RMSNorm implements engine.Backend.
func (r *erring) RMSNorm(a engine.RMSNormArgs) {
	r.do(func() {
		y, rstd := expectRMSNorm(r.floats(a.X), r.floats(a.W).V, a.Groups, float64(a.Eps))
		r.off(a.Y, y)
		r.off(a.Rstd, rstd)
	})
}

// RMSNormBackward implements engine.Backend.
func (r *erring) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	r.do(func() {
		dx, dw := expectRMSNormBackward(r.floats(a.DY), r.floats(a.X), r.floats(a.W).V, r.floats(a.Rstd), a.Groups)
		r.added(a.DX, dx, elemC, a.Accumulate)
		r.added(a.DW, dw, testx.ChainC(a.X.Rows*a.Groups), true)
	})
}

// Linear implements engine.Backend.
func (r *erring) Linear(a engine.LinearArgs) {
	r.do(func() {
		r.off(a.Y, r.expectLinear(r.floats(a.X), r.weight(a.W), r.optional(a.Bias), r.optional(a.Residual)))
	})
}

// LinearBackwardInput implements engine.Backend.
func (r *erring) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	r.do(func() {
		r.added(a.DX, r.expectLinearBackwardInput(r.floats(a.DY), r.weight(a.W)), r.chain(a.DY.Cols), a.Accumulate)
	})
}

// LinearBackwardWeight implements engine.Backend.
func (r *erring) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	r.do(func() {
		dw, db := r.expectLinearBackwardWeight(r.floats(a.DY), r.floats(a.X))
		r.added(a.DW, dw, r.chain(a.DY.Rows), true)
		r.added(a.DBias, db, r.chain(a.DY.Rows), true)
	})
}

// RoPE implements engine.Backend.
func (r *erring) RoPE(a engine.RoPEArgs) {
	r.do(func() {
		r.off(a.X, expectRoPE(r.floats(a.X), r.ints(a.Positions), r.floats(a.Cos), r.floats(a.Sin), a.HeadDim, a.Inverse))
	})
}

// SwiGLU implements engine.Backend.
func (r *erring) SwiGLU(a engine.SwiGLUArgs) {
	r.do(func() { r.off(a.Y, expectSwiGLU(r.floats(a.Gate), r.floats(a.Up))) })
}

// SwiGLUBackward implements engine.Backend.
func (r *erring) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	r.do(func() {
		dgate, dup := expectSwiGLUBackward(r.floats(a.DY), r.floats(a.Gate), r.floats(a.Up))
		r.off(a.DGate, dgate)
		r.off(a.DUp, dup)
	})
}

// Attention implements engine.Backend.
func (r *erring) Attention(a engine.AttentionArgs) {
	p := clonePacking(a.Packing)
	r.do(func() {
		o, lse := r.expectAttention(r.floats(a.Q), r.floats(a.K), r.floats(a.V), a.HeadDim, float64(a.Scale), p)
		r.off(a.O, o)
		r.off(a.LSE, lse)
	})
}

// AttentionBackward implements engine.Backend.
func (r *erring) AttentionBackward(a engine.AttentionBackwardArgs) {
	p := clonePacking(a.Packing)
	r.do(func() {
		dq, dk, dv := r.expectAttentionBackward(r.floats(a.DO), r.floats(a.Q), r.floats(a.K), r.floats(a.V), r.floats(a.O),
			r.floats(a.LSE), a.HeadDim, float64(a.Scale), p)
		r.off(a.DQ, dq)
		r.off(a.DK, dk)
		r.off(a.DV, dv)
	})
}

// DecodeAttention implements engine.Backend. The exact operation comes first,
// because it writes the cache.
func (r *erring) DecodeAttention(a engine.DecodeAttentionArgs) {
	r.do(func() {
		r.Reference.DecodeAttention(a)
		q, cache, table := r.floats(a.Q), r.cache(a.Cache), r.ints(a.PageTable)
		d, shared := a.Cache.HeadDim, a.Q.Cols/a.K.Cols
		o := expected{make([]float64, len(q.V)), make([]float64, len(q.V))}
		for b, last := range r.ints(a.Positions) {
			var slots []int
			for p := range int(last) + 1 {
				slots = append(slots, int(table[b*a.PageTable.Cols+p/engine.PageSize])*engine.PageSize+p%engine.PageSize)
			}
			for c := 0; c < q.Cols && len(slots) > 0; c += d {
				at, g := b*q.Cols+c, c/d/shared
				s := r.scoresOf(q.V[at:at+d], keysOf(cache.K, slots, g, d), float64(a.Scale))
				r.weighted(&s, keysOf(cache.V, slots, g, d), o.v[at:at+d], o.err[at:at+d])
			}
		}
		r.off(a.O, o)
	})
}

// LogProb implements engine.Backend.
func (r *erring) LogProb(a engine.LogProbArgs) {
	r.do(func() {
		logp, entropy, lse := r.expectLogProb(r.floats(a.X), r.weight(a.W), r.ints(a.Targets), float64(a.Scale))
		r.off(a.LogProb, logp)
		r.off(a.Entropy, entropy)
		r.off(a.LSE, lse)
	})
}

// LogProbBackward implements engine.Backend.
func (r *erring) LogProbBackward(a engine.LogProbBackwardArgs) {
	r.do(func() {
		dx, dw := r.expectLogProbBackward(r.floats(a.X), r.weight(a.W), r.ints(a.Targets), r.floats(a.LSE).V,
			r.optional(a.Entropy).V, r.floats(a.DLogProb).V, r.optional(a.DEntropy).V, float64(a.Scale))
		r.off(a.DX, dx)
		r.added(a.DW, dw, r.chain(a.X.Rows), true)
	})
}

// Sample implements engine.Backend. Tokens are drawn exactly, from logits that err.
func (r *erring) Sample(a engine.SampleArgs) {
	a.Marker = slices.Clone(a.Marker)
	r.do(func() {
		r.Reference.Sample(a)
		logits, tokens := r.floats(a.Logits), r.ints(a.Tokens)
		logp, entropy := expected{r.floats(a.LogProb).V, nil}, expected{r.floats(a.Entropy).V, nil}
		for i := range a.Logits.Rows {
			e, h := sampleErrors(logits.Row(i))
			logp.err = append(logp.err, e+math.Abs(logits.At(i, int(tokens[i]))))
			entropy.err = append(entropy.err, h)
		}
		r.off(a.LogProb, logp)
		r.off(a.Entropy, entropy)
	})
}

// SumSquares implements engine.Backend.
func (r *erring) SumSquares(a engine.SumSquaresArgs) {
	r.do(func() {
		s := []float64{ref.SumSquares(r.floats(a.X).V)}
		r.off(a.Out, expect(testx.ChainC(a.X.Len()), s, s))
	})
}

// AdamW implements engine.Backend.
func (r *erring) AdamW(a engine.AdamWArgs) {
	r.do(func() {
		p, m, v := expectAdamW(r.floats(a.P).V, r.floats(a.G).V, r.floats(a.M).V, r.floats(a.V).V, a)
		r.off(a.P, p)
		r.off(a.M, m)
		r.off(a.V, v)
		if a.Copy.Valid() {
			r.store(a.Copy, r.floats(a.P))
		}
	})
}
