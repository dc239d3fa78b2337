package model

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// Backward adds to the gradients those of Σ dLogProb·logprob + dEntropy·entropy
// over the tokens of the latest Forward. dEntropy may be nil. It consumes the
// activations: one Backward for each Forward.
func (m *Model) Backward(ctx context.Context, dLogProb, dEntropy []float32) error {
	if !m.opts.Trainable {
		return errNotTrainable
	}
	p := m.live
	if p == nil {
		return errors.New("model: Backward needs the activations of a Forward that no other call has followed")
	}
	w, rows, from := m.work, p.packing.Rows, p.prompts
	n := rows - from
	if len(dLogProb) != n || dEntropy != nil && len(dEntropy) != n {
		return fmt.Errorf("model: Backward got %d and %d values for %d tokens", len(dLogProb), len(dEntropy), n)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.live = nil

	args := engine.LogProbBackwardArgs{
		DX: w.dn.RowRange(0, n), DW: m.headGradient(),
		X: w.final.RowRange(0, n), W: m.head, Targets: head(w.targets, n), LSE: head(w.lse, n), Entropy: head(w.entropy, n),
		DLogProb: head(w.dLogProb, n), Scale: p.scale,
	}
	m.be.UploadF32(args.DLogProb, dLogProb)
	if dEntropy != nil {
		args.DEntropy = head(w.dEntropy, n)
		m.be.UploadF32(args.DEntropy, dEntropy)
	}
	m.be.LogProbBackward(args)
	if from > 0 { // the last layer's prompt rows feed nothing but keys and values
		m.be.Fill(w.dx.RowRange(0, from), 0)
	}
	m.be.RMSNormBackward(engine.RMSNormBackwardArgs{
		DX: w.dx.RowRange(from, rows), DW: m.gradVector(m.layout.norm, m.cfg.HiddenSize), DY: w.dn.RowRange(0, n),
		X: w.out.RowRange(from, rows), W: m.norm, Rstd: w.finalRstd.RowRange(0, n), Groups: 1,
	})
	for l := len(m.layers) - 1; l >= 0; l-- {
		lo := 0
		if l == len(m.layers)-1 {
			lo = from
		}
		m.mixBackward(l, lo, rows)
		m.attentionBackward(l, p)
	}
	if m.tuning != nil { // the embedding is frozen
		return nil
	}
	m.be.ScatterAdd(engine.ScatterAddArgs{
		Table: m.gradMatrix(m.layout.embed, m.cfg.VocabSize, m.cfg.HiddenSize), Src: w.dx.RowRange(0, rows), IDs: head(w.ids, rows),
	})
	return nil
}

func (m *Model) gradMatrix(off, rows, cols int) engine.Tensor {
	return engine.Matrix(m.grads, off, rows, cols)
}

// headGradient views the head's gradient, absent where it is frozen.
func (m *Model) headGradient() engine.Tensor {
	if m.tuning != nil {
		return engine.Tensor{}
	}
	return m.gradMatrix(m.layout.head, m.cfg.VocabSize, m.cfg.HiddenSize)
}

// gradVector views a vector's gradient, absent where the vector is or where it is
// frozen.
func (m *Model) gradVector(off, n int) engine.Tensor {
	if off < 0 || m.tuning != nil {
		return engine.Tensor{}
	}
	return engine.Vector(m.grads, off, n)
}

// weightBackward adds to the gradients of the product at off [N, K], and of its
// bias, for Y = X·Wᵀ: to W's own, or to those of its adapters.
func (m *Model) weightBackward(off, bias int, dy, x engine.Tensor) {
	if m.tuning != nil {
		m.adapterBackward(off, dy, x)
		return
	}
	m.be.LinearBackwardWeight(engine.LinearBackwardWeightArgs{
		DW: m.gradMatrix(off, dy.Cols, x.Cols), DBias: m.gradVector(bias, dy.Cols), DY: dy, X: x,
	})
}

// mixBackward takes dx from a layer's output to its state after attention, on
// rows [from, to), and leaves the gradient of the attention's output in do.
func (m *Model) mixBackward(l, from, to int) {
	y, at, w := &m.layers[l], &m.layout.layers[l], m.work
	a := &w.layers[l]
	c := &m.cfg
	C, F := c.HiddenSize, c.IntermediateSize
	dx, dxa := w.dx.RowRange(from, to), w.dxa.RowRange(from, to)
	dn, dff := w.dn.RowRange(from, to), w.dff.RowRange(from, to)
	mid, n2, rstd2 := a.mid.RowRange(from, to), a.n2.RowRange(from, to), a.rstd2.RowRange(from, to)
	gu, ff := a.gateUp.RowRange(from, to), a.ff.RowRange(from, to)
	gate, up := gu.ColRange(0, F), gu.ColRange(F, 2*F)
	if w.shape.recompute {
		m.be.RMSNorm(engine.RMSNormArgs{Y: n2, X: mid, W: y.norm2, Groups: 1, Eps: float32(c.RMSNormEps)})
		m.be.SwiGLU(engine.SwiGLUArgs{Y: ff, Gate: gate, Up: up})
	}

	m.round(dxa, dx)
	m.weightBackward(at.down, -1, dxa, ff)
	m.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dff, DY: dxa, W: y.down})
	m.be.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: gate, DUp: up, DY: dff, Gate: gate, Up: up})
	m.weightBackward(at.gateUp, -1, gu, n2)
	m.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dn, DY: gu, W: y.gateUp})
	m.be.RMSNormBackward(engine.RMSNormBackwardArgs{
		DX: dx, DW: m.gradVector(at.norm2, C), DY: dn, X: mid, W: y.norm2, Rstd: rstd2, Groups: 1, Accumulate: true,
	})

	m.round(dxa, dx)
	m.weightBackward(at.o, -1, dxa, a.o.RowRange(from, to))
	m.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: w.do.RowRange(from, to), DY: dxa, W: y.o})
	if from > 0 {
		m.be.Fill(w.do.RowRange(0, from), 0)
	}
}

// round brings the residual stream's gradient into the activations' type, where
// that is another.
func (m *Model) round(dxa, dx engine.Tensor) {
	if dxa.Buf != dx.Buf {
		m.be.Copy(dxa, dx)
	}
}

// attentionBackward takes do to the layer's input and adds it to dx.
func (m *Model) attentionBackward(l int, p *packed) {
	y, at, w := &m.layers[l], &m.layout.layers[l], m.work
	a, c, rows := &w.layers[l], &m.cfg, p.packing.Rows
	C, H, KV, D := c.HiddenSize, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim
	x, n1, dx, dn := a.x.RowRange(0, rows), a.n1.RowRange(0, rows), w.dx.RowRange(0, rows), w.dn.RowRange(0, rows)
	q, k, v := m.qkvOf(a, rows)
	dqkv := w.dqkv.RowRange(0, rows)
	dq, dk, dv := dqkv.ColRange(0, H*D), dqkv.ColRange(H*D, (H+KV)*D), dqkv.ColRange((H+KV)*D, (H+2*KV)*D)
	if w.shape.recompute {
		m.be.RMSNorm(engine.RMSNormArgs{Y: n1, X: x, W: y.norm1, Groups: 1, Eps: float32(c.RMSNormEps)})
	}

	m.be.AttentionBackward(engine.AttentionBackwardArgs{
		DQ: dq, DK: dk, DV: dv, DO: w.do.RowRange(0, rows), Q: q, O: a.o.RowRange(0, rows), K: k, V: v,
		LSE: a.lse.RowRange(0, rows), HeadDim: D, Scale: m.scale(), Packing: &p.packing,
	})
	m.be.RoPE(engine.RoPEArgs{
		X: dqkv.ColRange(0, (H+KV)*D), Positions: head(w.positions, rows), Cos: m.cos, Sin: m.sin, HeadDim: D, Inverse: true,
	})
	if c.qkNorm() {
		raw := a.qkv.RowRange(0, rows)
		m.be.RMSNormBackward(engine.RMSNormBackwardArgs{
			DX: dq, DW: m.gradVector(at.qNorm, D), DY: dq, X: raw.ColRange(0, H*D), W: y.qNorm, Rstd: a.qRstd.RowRange(0, rows), Groups: H,
		})
		m.be.RMSNormBackward(engine.RMSNormBackwardArgs{
			DX: dk, DW: m.gradVector(at.kNorm, D), DY: dk, X: raw.ColRange(H*D, (H+KV)*D), W: y.kNorm, Rstd: a.kRstd.RowRange(0, rows), Groups: KV,
		})
	}
	m.weightBackward(at.qkv, at.bias, dqkv, n1)
	if l == 0 && m.tuning != nil { // nothing below is trained
		return
	}
	m.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dn, DY: dqkv, W: y.qkv})
	m.be.RMSNormBackward(engine.RMSNormBackwardArgs{
		DX: dx, DW: m.gradVector(at.norm1, C), DY: dn, X: x, W: y.norm1, Rstd: a.rstd1.RowRange(0, rows), Groups: 1, Accumulate: true,
	})
}

// ZeroGrad clears the gradients.
func (m *Model) ZeroGrad() {
	if m.grads != nil {
		m.be.Fill(engine.Vector(m.grads, 0, m.trained.total), 0)
	}
}

// GradNorm returns the Euclidean norm of all gradients. NaN and infinities pass
// through: a caller rejects the step.
func (m *Model) GradNorm(ctx context.Context) (float64, error) {
	if !m.opts.Trainable {
		return 0, errNotTrainable
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	out := engine.Vector(m.scalar, 0, 1)
	m.be.SumSquares(engine.SumSquaresArgs{Out: out, X: engine.Vector(m.grads, 0, m.trained.total)})
	var s [1]float32
	if err := m.be.Wait(m.be.DownloadF32(s[:], out)); err != nil {
		return 0, fmt.Errorf("model: gradient norm: %w", err)
	}
	return math.Sqrt(float64(s[0])), nil
}

// AdamW is one step's settings. Zero Beta1, Beta2, Eps and GradScale mean 0.9,
// 0.999, 1e-8 and 1.
type AdamW struct {
	LR, Beta1, Beta2, Eps float32
	WeightDecay           float32 // of matrices; norms and biases do not decay
	GradScale             float32 // multiplies the gradients: clipping, averaging
}

// AdamWStep updates what is trained from the gradients (Loshchilov and Hutter
// 2019) and brings what is made from it up to date. It leaves the gradients as they
// are. It panics where the model is not trainable.
func (m *Model) AdamWStep(s AdamW) {
	if !m.opts.Trainable {
		panic("model: AdamWStep of a model that is not trainable")
	}
	set := func(v *float32, def float32) {
		if *v == 0 {
			*v = def
		}
	}
	set(&s.Beta1, 0.9)
	set(&s.Beta2, 0.999)
	set(&s.Eps, 1e-8)
	set(&s.GradScale, 1)
	m.steps++
	m.live = nil
	masters := m.weights
	if m.tuning != nil {
		masters = m.tuning.masters
	}
	step := func(from, to int, decay float32) {
		if from == to {
			return
		}
		a := engine.AdamWArgs{
			P: engine.Vector(masters, from, to-from), G: engine.Vector(m.grads, from, to-from),
			LR: s.LR, Beta1: s.Beta1, Beta2: s.Beta2, Eps: s.Eps, WeightDecay: decay, GradScale: s.GradScale, Step: m.steps,
		}
		a.M, a.MScale = m.moment1.view(from, to)
		a.V, a.VScale = m.moment2.view(from, to)
		if m.working != nil && m.tuning == nil && from == 0 {
			a.Copy = engine.Vector(m.working, 0, to)
		}
		m.be.AdamW(a)
	}
	step(0, m.trained.matrices, s.WeightDecay)
	step(m.trained.matrices, m.trained.total, 0)
	if m.tuning != nil {
		m.refreshTargets(true)
		return
	}
	m.refreshProducts()
}

// WeightedNLL is the supervised loss −Σ w·logprob / total, and its gradient
// with respect to the log-probs, for Backward. total is the sum of weights over
// all micro-batches of a step, or whatever the loss is to be divided by.
func WeightedNLL(o *Output, weights []float32, total float64) (loss float64, dLogProb []float32) {
	if len(weights) != len(o.LogProbs) {
		panic("model: WeightedNLL: one weight for each token")
	}
	dLogProb = make([]float32, len(weights))
	for i, w := range weights {
		if w == 0 {
			continue // a weightless token's log-prob does not matter, −Inf included
		}
		loss -= float64(w) * float64(o.LogProbs[i])
		dLogProb[i] = float32(-float64(w) / total)
	}
	return loss / total, dLogProb
}
