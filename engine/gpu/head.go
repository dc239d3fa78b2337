package gpu

import (
	"errors"

	"github.com/updraft-ml/updraft/engine"
)

// LogProb computes the fused language-model head.
func (b *Backend) LogProb(a engine.LogProbArgs) {
	b.begin("LogProb")
	x := b.real(a.X)
	w := b.of(a.W.Tensor, x.dtype)
	if x.cols != w.cols || w.rows == 0 {
		panic("gpu: log prob: shapes do not match")
	}
	n := x.rows
	targets := b.vec(a.Targets, engine.I32, n)
	logProb, entropy, lse := b.vec(a.LogProb, engine.F32, n), b.vec(a.Entropy, engine.F32, n), b.vec(a.LSE, engine.F32, n)
	_, _, _, _ = targets, logProb, entropy, lse
	if n == 0 {
		return
	}
	b.fail("LogProb", errors.ErrUnsupported) // its kernel is still to come
}

// LogProbBackward computes the gradients of X and W.
func (b *Backend) LogProbBackward(a engine.LogProbBackwardArgs) {
	b.begin("LogProbBackward")
	x := b.real(a.X)
	w := b.of(a.W.Tensor, x.dtype)
	if x.cols != w.cols {
		panic("gpu: log prob backward: shapes do not match")
	}
	n := x.rows
	dx := b.shaped(a.DX, x.dtype, n, x.cols)
	dw := b.shaped(a.DW, engine.F32, w.rows, x.cols)
	targets := b.vec(a.Targets, engine.I32, n)
	lse, dLogProb := b.vec(a.LSE, engine.F32, n), b.vec(a.DLogProb, engine.F32, n)
	dEntropy := b.optionalVec(a.DEntropy, engine.F32, n)
	var entropy view
	if dEntropy.present() {
		entropy = b.vec(a.Entropy, engine.F32, n)
	}
	_, _, _, _, _, _ = dx, dw, targets, lse, dLogProb, entropy
	if n == 0 || w.rows == 0 {
		return
	}
	b.fail("LogProbBackward", errors.ErrUnsupported) // its kernel is still to come
}

// Sample draws one token for each row from its logits.
func (b *Backend) Sample(a engine.SampleArgs) {
	b.begin("Sample")
	b.stale()
	logits := b.of(a.Logits, engine.F32)
	n := logits.rows
	params := b.shaped(a.Params, engine.F32, n, engine.NumParams)
	keys := b.shaped(a.Keys, engine.I32, n, engine.NumKeys)
	tokens, positions := b.vec(a.Tokens, engine.I32, n), b.vec(a.Positions, engine.I32, n)
	forced := b.vec(a.Forced, engine.I32, n)
	logProb, sampling, entropy := b.vec(a.LogProb, engine.F32, n), b.vec(a.SamplingLogProb, engine.F32, n), b.vec(a.Entropy, engine.F32, n)
	var after view
	var marker *deviceInts
	if len(a.Marker) > 0 {
		after = b.vec(a.MarkerAfter, engine.F32, logits.cols)
		for _, id := range a.Marker {
			if id < 0 || int(id) >= logits.cols {
				panic("gpu: sample: marker token out of range")
			}
		}
		if marker = b.list("Sample", a.Marker); marker == nil {
			return
		}
	}
	if n > 0 && logits.cols == 0 {
		panic("gpu: sample: empty vocabulary")
	}
	_, _, _, _, _, _, _, _, _, _ = forced, after, marker, params, keys, tokens, positions, logProb, sampling, entropy
	if n == 0 {
		return
	}
	b.fail("Sample", errors.ErrUnsupported) // its kernel is still to come
}
