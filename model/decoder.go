package model

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// decoder is the device side of generation: the paged cache, the state of the
// batch's rows and one recorded program for each size of batch.
type decoder struct {
	m     *Model
	batch int // rows of the largest program
	table int // pages of the longest sequence

	bufs  []engine.Buffer
	cache []engine.KVCache // one per layer
	w     *workspace       // of the decode step
	pre   *workspace       // of prefill

	state       engine.Tensor // [3, B] I32: tokens, positions, places in the marker
	stats       engine.Tensor // [3, B]: log-prob, sampling log-prob, entropy
	logits      engine.Tensor // [B, V]
	params      engine.Tensor // [B, NumParams]
	keys        engine.Tensor // [B, NumKeys] I32
	pageTable   engine.Tensor // [B, table] I32
	markerAfter engine.Tensor // [V]
	rows, slots engine.Tensor // [writes] I32: what prefill stores where
	marker      []int32

	programs map[int]engine.Program
}

// Rows of decoder.state.
const (
	stateTokens = iota
	statePositions
	stateForced
	stateRows
)

// Rows of decoder.stats.
const (
	statLogProb = iota
	statSampling
	statEntropy
	statRows
)

// planDecoder lays out everything but the cache and the workspaces.
func planDecoder(a *arena, d *decoder, c *Config, o *SchedulerOptions) {
	a.ints(&d.state, stateRows, o.MaxBatch)
	a.matrix(&d.stats, statRows, o.MaxBatch)
	a.matrix(&d.logits, o.MaxBatch, c.VocabSize)
	a.matrix(&d.params, o.MaxBatch, engine.NumParams)
	a.ints(&d.keys, o.MaxBatch, engine.NumKeys)
	a.ints(&d.pageTable, o.MaxBatch, pagesFor(o.MaxTokens))
	a.ints(&d.rows, 1, o.writes())
	a.ints(&d.slots, 1, o.writes())
	if len(o.Marker) > 0 {
		a.matrix(&d.markerAfter, 1, c.VocabSize)
	}
}

func (o *SchedulerOptions) decodeShape(act engine.DType) workspaceShape {
	return workspaceShape{rows: o.MaxBatch, noHead: true, act: act}
}

func (o *SchedulerOptions) prefillShape(act engine.DType) workspaceShape {
	return workspaceShape{rows: o.PrefillRows, noHead: true, act: act}
}

// writes is the number of rows that one prefill can store: each once, and a
// partly filled page for every row of a full batch.
func (o *SchedulerOptions) writes() int { return o.PrefillRows + o.MaxBatch*engine.PageSize }

// pagesFor returns the pages that n tokens take.
func pagesFor(n int) int { return (n + engine.PageSize - 1) / engine.PageSize }

func newDecoder(m *Model, o *SchedulerOptions) (_ *decoder, err error) {
	d := &decoder{m: m, batch: o.MaxBatch, table: pagesFor(o.MaxTokens), marker: o.Marker, programs: make(map[int]engine.Program)}
	defer func() {
		if err != nil {
			d.free()
		}
	}()
	c := &m.cfg
	var a arena
	planDecoder(&a, d, c, o)
	if d.bufs, err = a.alloc(m.be, "decoding"); err != nil {
		return nil, err
	}
	n := o.Pages * engine.PageSize * c.NumKeyValueHeads * c.HeadDim
	for range m.layers {
		kv := engine.KVCache{Pages: o.Pages, KVHeads: c.NumKeyValueHeads, HeadDim: c.HeadDim}
		for _, b := range []*engine.Buffer{&kv.K, &kv.V} {
			if *b, err = m.be.Alloc(m.act, n); err != nil {
				return nil, fmt.Errorf("model: kv cache of %d pages: %w: lower MaxBatch, MaxTokens or Pages", o.Pages, err)
			}
			d.bufs = append(d.bufs, *b)
		}
		d.cache = append(d.cache, kv)
	}
	if d.w, err = newWorkspace(m.be, c, o.decodeShape(m.act)); err != nil {
		return nil, err
	}
	if d.pre, err = newWorkspace(m.be, c, o.prefillShape(m.act)); err != nil {
		return nil, err
	}
	d.w.ids, d.w.positions = d.state.RowRange(stateTokens, stateTokens+1), d.state.RowRange(statePositions, statePositions+1)
	if len(o.Marker) > 0 {
		after := make([]float32, c.VocabSize)
		for _, id := range o.MarkerAfter {
			after[id] = 1
		}
		m.be.UploadF32(d.markerAfter, after)
	}
	return d, nil
}

func (d *decoder) free() {
	freeAll(d.m.be, d.bufs)
	for _, w := range []*workspace{d.w, d.pre} {
		if w != nil {
			w.free(d.m.be)
		}
	}
}

// bucket returns the size of the program that serves n rows. Few sizes mean
// few recordings; the rows between are inactive.
func (d *decoder) bucket(n int) int {
	up := func(m int) int { return min((n+m-1)/m*m, d.batch) }
	switch {
	case n <= 2:
		return min(n, d.batch)
	case n <= 4:
		return up(4)
	case n <= 64:
		return up(8)
	case n <= 256:
		return up(32)
	}
	return up(64)
}

// program returns the recorded step for b rows: embedding, layers, logits, one
// drawn token for each row.
func (d *decoder) program(b int) engine.Program {
	if p := d.programs[b]; p != nil {
		return p
	}
	p := d.m.be.Record(func() { d.step(b) })
	d.programs[b] = p
	return p
}

func (d *decoder) step(b int) {
	m, w := d.m, d.w
	m.trunk(w, b, 0, func(l int, a *activations) {
		q, k, v := m.qkvOf(a, b)
		m.be.DecodeAttention(engine.DecodeAttentionArgs{
			O: a.o.RowRange(0, b), Q: q, K: k, V: v, Cache: d.cache[l],
			PageTable: d.pageTable.RowRange(0, b), Positions: head(w.positions, b), Scale: m.scale(),
		})
	})
	n := w.layers[0].n1.RowRange(0, b)
	m.be.RMSNorm(engine.RMSNormArgs{Y: n, X: w.out.RowRange(0, b), W: m.norm, Groups: 1, Eps: float32(m.cfg.RMSNormEps)})
	logits := d.logits.RowRange(0, b)
	m.be.Linear(engine.LinearArgs{Y: logits, X: n, W: m.head})
	row := func(t engine.Tensor, r int) engine.Tensor { return head(t.RowRange(r, r+1), b) }
	m.be.Sample(engine.SampleArgs{
		Logits: logits, Params: d.params.RowRange(0, b), Keys: d.keys.RowRange(0, b),
		Marker: d.marker, MarkerAfter: d.markerAfter, Forced: row(d.state, stateForced),
		Tokens: row(d.state, stateTokens), Positions: row(d.state, statePositions),
		LogProb: row(d.stats, statLogProb), SamplingLogProb: row(d.stats, statSampling), Entropy: row(d.stats, statEntropy),
	})
}

// prefill computes keys and values of p's rows and stores row rows[i] at
// slots[i] of every layer's cache.
func (d *decoder) prefill(p *packed, rows, slots []int32) {
	m, w, n := d.m, d.pre, p.packing.Rows
	m.be.UploadI32(head(w.ids, n), p.ids)
	m.be.UploadI32(head(w.positions, n), p.positions)
	m.be.UploadI32(head(d.rows, len(rows)), rows)
	m.be.UploadI32(head(d.slots, len(slots)), slots)
	attention := m.packedAttention(&p.packing)
	m.trunk(w, n, n, func(l int, a *activations) {
		_, k, v := m.qkvOf(a, n)
		m.be.KVWrite(engine.KVWriteArgs{Cache: d.cache[l], K: k, V: v, Rows: head(d.rows, len(rows)), Slots: head(d.slots, len(slots))})
		if l < len(m.layers)-1 { // of the last layer nothing but keys and values is used
			attention(l, a)
		}
	})
}
