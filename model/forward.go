package model

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// Output is what Forward computes, one entry for each response token in the
// flat order. The slices are the caller's.
type Output struct {
	LogProbs  []float32
	Entropies []float32 // of the whole next-token distribution, in nats
}

// attend computes attention for layer l from a.qk and the values in a.qkv into
// a.o. It is what training, prefill and decoding differ in.
type attend func(l int, a *activations)

// trunk runs the embedding and all layers over the first rows rows of w. Of
// the last layer only rows from on are wanted.
func (m *Model) trunk(w *workspace, rows, from int, f attend) {
	m.be.Gather(engine.GatherArgs{Dst: w.layers[0].x.RowRange(0, rows), Table: m.embed, IDs: head(w.ids, rows)})
	for l := range m.layers {
		y, a := &m.layers[l], &w.layers[l]
		m.project(y, a, head(w.positions, rows))
		f(l, a)
		if l == len(m.layers)-1 {
			if from < rows {
				m.mix(y, a, from, rows)
			}
			continue
		}
		m.mix(y, a, 0, rows)
	}
}

// project computes queries, keys and values: norm, one fused product, QK-norm,
// rotation.
func (m *Model) project(y *layer, a *activations, positions engine.Tensor) {
	c, rows := &m.cfg, positions.Cols
	H, KV, D := c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim
	eps := float32(c.RMSNormEps)
	n1 := a.n1.RowRange(0, rows)
	qkv, qk := a.qkv.RowRange(0, rows), a.qk.RowRange(0, rows)

	m.be.RMSNorm(engine.RMSNormArgs{Y: n1, X: a.x.RowRange(0, rows), W: y.norm1, Rstd: rowsOf(a.rstd1, 0, rows), Groups: 1, Eps: eps})
	m.be.Linear(engine.LinearArgs{Y: qkv, X: n1, W: y.qkv, Bias: y.bias})
	if c.qkNorm() {
		m.be.RMSNorm(engine.RMSNormArgs{Y: qk.ColRange(0, H*D), X: qkv.ColRange(0, H*D), W: y.qNorm, Rstd: rowsOf(a.qRstd, 0, rows), Groups: H, Eps: eps})
		m.be.RMSNorm(engine.RMSNormArgs{Y: qk.ColRange(H*D, (H+KV)*D), X: qkv.ColRange(H*D, (H+KV)*D), W: y.kNorm, Rstd: rowsOf(a.kRstd, 0, rows), Groups: KV, Eps: eps})
	}
	m.be.RoPE(engine.RoPEArgs{X: qk, Positions: positions, Cos: m.cos, Sin: m.sin, HeadDim: D})
}

// mix finishes a layer on rows [from, to): output projection, norm,
// feed-forward, with both residual sums.
func (m *Model) mix(y *layer, a *activations, from, to int) {
	mid, n2 := a.mid.RowRange(from, to), a.n2.RowRange(from, to)
	gu, ff := a.gateUp.RowRange(from, to), a.ff.RowRange(from, to)

	m.be.Linear(engine.LinearArgs{Y: mid, X: a.o.RowRange(from, to), W: y.o, Residual: a.x.RowRange(from, to)})
	m.be.RMSNorm(engine.RMSNormArgs{Y: n2, X: mid, W: y.norm2, Rstd: rowsOf(a.rstd2, from, to), Groups: 1, Eps: float32(m.cfg.RMSNormEps)})
	engine.LinearSwiGLU(m.be, engine.LinearSwiGLUArgs{Y: ff, GateUp: gu, X: n2, W: y.gateUp})
	m.be.Linear(engine.LinearArgs{Y: a.out.RowRange(from, to), X: ff, W: y.down, Residual: mid})
}

// qkvOf views queries, keys and values of the first rows rows.
func (m *Model) qkvOf(a *activations, rows int) (q, k, v engine.Tensor) {
	c := &m.cfg
	H, KV, D := c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim
	qk := a.qk.RowRange(0, rows)
	return qk.ColRange(0, H*D), qk.ColRange(H*D, (H+KV)*D), a.qkv.RowRange(0, rows).ColRange((H+KV)*D, (H+2*KV)*D)
}

// scale is what attention scores are multiplied by, 1/√D.
func (m *Model) scale() float32 { return float32(1 / math.Sqrt(float64(m.cfg.HeadDim))) }

// packedAttention is attention over a packed batch.
func (m *Model) packedAttention(p *engine.Packing) attend {
	return func(_ int, a *activations) {
		q, k, v := m.qkvOf(a, p.Rows)
		m.be.Attention(engine.AttentionArgs{
			O: a.o.RowRange(0, p.Rows), Q: q, K: k, V: v, LSE: rowsOf(a.lse, 0, p.Rows),
			HeadDim: m.cfg.HeadDim, Scale: m.scale(), Packing: p,
		})
	}
}

// rowsOf is RowRange for tensors that may be absent.
func rowsOf(t engine.Tensor, from, to int) engine.Tensor {
	if !t.Valid() {
		return t
	}
	return t.RowRange(from, to)
}

// Forward computes the log-prob and the entropy of every response token of b.
// b must fit in Options.MaxRows rows; Split cuts larger ones. In a trainable
// model the activations stay until Backward or the next Forward or Hidden.
func (m *Model) Forward(ctx context.Context, b *Batch) (*Output, error) {
	if err := m.needWork(ctx); err != nil {
		return nil, err
	}
	p, w := &m.packed, m.work
	if err := p.pack(b, &m.cfg, m.opts.MaxContext); err != nil {
		return nil, err
	}
	rows, from := p.packing.Rows, p.prompts
	if rows > m.opts.MaxRows {
		return nil, fmt.Errorf("model: batch of %d packed rows, the plan has %d: split it or raise MaxRows", rows, m.opts.MaxRows)
	}
	m.be.UploadI32(head(w.ids, rows), p.ids)
	m.be.UploadI32(head(w.positions, rows), p.positions)
	n := rows - from
	m.be.UploadI32(head(w.targets, n), p.targets)

	m.trunk(w, rows, from, m.packedAttention(&p.packing))
	final := w.final.RowRange(0, n)
	m.be.RMSNorm(engine.RMSNormArgs{
		Y: final, X: w.out.RowRange(from, rows), W: m.norm, Rstd: rowsOf(w.finalRstd, 0, n), Groups: 1, Eps: float32(m.cfg.RMSNormEps),
	})
	m.be.LogProb(engine.LogProbArgs{
		X: final, W: m.head, Targets: head(w.targets, n),
		LogProb: head(w.logProb, n), Entropy: head(w.entropy, n), LSE: head(w.lse, n), Scale: p.scale,
	})
	out := &Output{LogProbs: make([]float32, n), Entropies: make([]float32, n)}
	m.be.DownloadF32(out.LogProbs, head(w.logProb, n))
	if err := m.be.Wait(m.be.DownloadF32(out.Entropies, head(w.entropy, n))); err != nil {
		return nil, fmt.Errorf("model: forward: %w", err)
	}
	if m.opts.Trainable {
		m.live = p
	}
	return out, nil
}

// needWork checks that packed forwards are possible and gives up what the
// latest one kept.
func (m *Model) needWork(ctx context.Context) error {
	m.live = nil
	if m.work == nil {
		return errors.New("model: no rows planned for packed forwards: set Options.MaxRows")
	}
	return ctx.Err()
}

// Hidden returns, for each prompt, the output of the final norm at its last
// token: C values that a router may take as features. Prompts are packed as
// many at a time as the plan's rows allow.
func (m *Model) Hidden(ctx context.Context, prompts [][]int32) ([][]float32, error) {
	if err := m.needWork(ctx); err != nil {
		return nil, err
	}
	out := make([][]float32, 0, len(prompts))
	for i, p := range prompts {
		if len(p) == 0 || len(p) > min(m.opts.MaxContext, m.opts.MaxRows) {
			return nil, fmt.Errorf("model: prompt %d has %d tokens: must have 1 to %d", i, len(p), min(m.opts.MaxContext, m.opts.MaxRows))
		}
		if err := checkTokens(p, m.cfg.VocabSize); err != nil {
			return nil, fmt.Errorf("model: prompt %d: %w", i, err)
		}
	}
	for len(out) < len(prompts) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, w := &m.packed, m.work
		*p = packed{ids: p.ids[:0], positions: p.positions[:0], targets: p.targets[:0]}
		for _, t := range prompts[len(out):] {
			if len(p.ids)+len(t) > m.opts.MaxRows {
				break
			}
			p.segment(t, 0, 0)
			p.targets = append(p.targets, int32(len(p.ids)-1)) // the rows wanted
		}
		rows, n := len(p.ids), len(p.targets)
		p.packing.Rows = rows
		m.be.UploadI32(head(w.ids, rows), p.ids)
		m.be.UploadI32(head(w.positions, rows), p.positions)
		m.be.UploadI32(head(w.last, n), p.targets)
		m.trunk(w, rows, 0, m.packedAttention(&p.packing))
		hidden, all := w.final.RowRange(0, n), w.layers[0].n1.RowRange(0, rows)
		m.be.RMSNorm(engine.RMSNormArgs{Y: all, X: w.out.RowRange(0, rows), W: m.norm, Groups: 1, Eps: float32(m.cfg.RMSNormEps)})
		m.be.Gather(engine.GatherArgs{Dst: hidden, Table: all, IDs: head(w.last, n)})
		flat := make([]float32, n*m.cfg.HiddenSize)
		if err := m.be.Wait(m.be.DownloadF32(flat, hidden)); err != nil {
			return nil, fmt.Errorf("model: hidden states: %w", err)
		}
		for i := range n {
			out = append(out, flat[i*m.cfg.HiddenSize:(i+1)*m.cfg.HiddenSize:(i+1)*m.cfg.HiddenSize])
		}
	}
	return out, nil
}
