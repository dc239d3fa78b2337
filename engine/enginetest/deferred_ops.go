package enginetest

import (
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// The operations of the deferred backend: replace the handles, copy what the
// arguments point at, queue.

// Gather implements engine.Backend.
func (d *deferred) Gather(a engine.GatherArgs) {
	d.open(&a.Dst, &a.Table, &a.IDs)
	d.submit(func() { d.inner.Gather(a) })
}

// ScatterAdd implements engine.Backend.
func (d *deferred) ScatterAdd(a engine.ScatterAddArgs) {
	d.open(&a.Table, &a.Src, &a.IDs)
	d.submit(func() { d.inner.ScatterAdd(a) })
}

// RMSNorm implements engine.Backend.
func (d *deferred) RMSNorm(a engine.RMSNormArgs) {
	d.open(&a.Y, &a.X, &a.W, &a.Rstd)
	d.submit(func() { d.inner.RMSNorm(a) })
}

// RMSNormBackward implements engine.Backend.
func (d *deferred) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	d.open(&a.DX, &a.DW, &a.DY, &a.X, &a.W, &a.Rstd)
	d.submit(func() { d.inner.RMSNormBackward(a) })
}

// Linear implements engine.Backend.
func (d *deferred) Linear(a engine.LinearArgs) {
	d.open(&a.Y, &a.X, &a.Bias, &a.Residual)
	d.openWeight(&a.W)
	d.submit(func() { d.inner.Linear(a) })
}

// LinearBackwardInput implements engine.Backend.
func (d *deferred) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	d.open(&a.DX, &a.DY)
	d.openWeight(&a.W)
	d.submit(func() { d.inner.LinearBackwardInput(a) })
}

// LinearBackwardWeight implements engine.Backend.
func (d *deferred) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	d.open(&a.DW, &a.DBias, &a.DY, &a.X)
	d.submit(func() { d.inner.LinearBackwardWeight(a) })
}

// RoPE implements engine.Backend.
func (d *deferred) RoPE(a engine.RoPEArgs) {
	d.open(&a.X, &a.Positions, &a.Cos, &a.Sin)
	d.submit(func() { d.inner.RoPE(a) })
}

// Attention implements engine.Backend.
func (d *deferred) Attention(a engine.AttentionArgs) {
	d.open(&a.O, &a.Q, &a.K, &a.V, &a.LSE)
	a.Packing = clonePacking(a.Packing)
	d.submit(func() { d.inner.Attention(a) })
}

// AttentionBackward implements engine.Backend.
func (d *deferred) AttentionBackward(a engine.AttentionBackwardArgs) {
	d.open(&a.DQ, &a.DK, &a.DV, &a.DO, &a.Q, &a.O, &a.K, &a.V, &a.LSE)
	a.Packing = clonePacking(a.Packing)
	d.submit(func() { d.inner.AttentionBackward(a) })
}

// SwiGLU implements engine.Backend.
func (d *deferred) SwiGLU(a engine.SwiGLUArgs) {
	d.open(&a.Y, &a.Gate, &a.Up)
	d.submit(func() { d.inner.SwiGLU(a) })
}

// SwiGLUBackward implements engine.Backend.
func (d *deferred) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	d.open(&a.DGate, &a.DUp, &a.DY, &a.Gate, &a.Up)
	d.submit(func() { d.inner.SwiGLUBackward(a) })
}

// LogProb implements engine.Backend.
func (d *deferred) LogProb(a engine.LogProbArgs) {
	d.open(&a.X, &a.Targets, &a.LogProb, &a.Entropy, &a.LSE)
	d.openWeight(&a.W)
	d.submit(func() { d.inner.LogProb(a) })
}

// LogProbBackward implements engine.Backend.
func (d *deferred) LogProbBackward(a engine.LogProbBackwardArgs) {
	d.open(&a.DX, &a.DW, &a.X, &a.Targets, &a.LSE, &a.Entropy, &a.DLogProb, &a.DEntropy)
	d.openWeight(&a.W)
	d.submit(func() { d.inner.LogProbBackward(a) })
}

func (d *deferred) openCache(c *engine.KVCache) {
	c.K, c.V = d.buffer(c.K), d.buffer(c.V)
}

// KVWrite implements engine.Backend.
func (d *deferred) KVWrite(a engine.KVWriteArgs) {
	d.open(&a.K, &a.V, &a.Rows, &a.Slots)
	d.openCache(&a.Cache)
	d.submit(func() { d.inner.KVWrite(a) })
}

// DecodeAttention implements engine.Backend.
func (d *deferred) DecodeAttention(a engine.DecodeAttentionArgs) {
	d.open(&a.O, &a.Q, &a.K, &a.V, &a.PageTable, &a.Positions)
	d.openCache(&a.Cache)
	d.submit(func() { d.inner.DecodeAttention(a) })
}

// Sample implements engine.Backend.
func (d *deferred) Sample(a engine.SampleArgs) {
	d.open(&a.Logits, &a.Params, &a.Keys, &a.MarkerAfter, &a.Forced, &a.Tokens, &a.Positions,
		&a.LogProb, &a.SamplingLogProb, &a.Entropy)
	a.Marker = slices.Clone(a.Marker)
	d.submit(func() { d.inner.Sample(a) })
}

// SumSquares implements engine.Backend.
func (d *deferred) SumSquares(a engine.SumSquaresArgs) {
	d.open(&a.Out, &a.X)
	d.submit(func() { d.inner.SumSquares(a) })
}

// AdamW implements engine.Backend.
func (d *deferred) AdamW(a engine.AdamWArgs) {
	d.open(&a.P, &a.G, &a.M, &a.V, &a.MScale, &a.VScale, &a.Copy)
	d.submit(func() { d.inner.AdamW(a) })
}
