package model

import "github.com/updraft-ml/updraft/engine"

// workspaceShape says how large a workspace is and what it can do.
type workspaceShape struct {
	rows      int
	keep      bool         // every layer's activations stay, for Backward
	recompute bool         // of those, not the norms' and SwiGLU's outputs
	noHead    bool         // no log-probs: decoding and prefill
	act       engine.DType // of what enters products and attention
	rank      int          // of adapters to train, 0: none
}

// workspace holds the activations of one packed forward, planned in one arena.
// Those marked A have the type of activations that goes with the weights'
// (engine.Backend.Precision); the others, the residual stream among them, are
// F32.
type workspace struct {
	shape workspaceShape
	bufs  []engine.Buffer

	ids, positions engine.Tensor // [T] I32
	layers         []activations
	out            engine.Tensor // [T, C] what the last layer wrote

	final, finalRstd      engine.Tensor // [T, C] A, [T, 1] of the rows with a target
	targets               engine.Tensor // [T] I32
	logProb, entropy, lse engine.Tensor // [T]
	last                  engine.Tensor // [T] I32: rows that Hidden reads

	// Backward's scratch.
	dx                 engine.Tensor // [T, C]
	dxa                engine.Tensor // [T, C] A: dx where it enters products; dx itself where A is F32
	dn                 engine.Tensor // [T, C] A
	dff                engine.Tensor // [T, F] A
	do                 engine.Tensor // [T, H*D] A
	dqkv               engine.Tensor // [T, (H+2KV)*D] A
	dLogProb, dEntropy engine.Tensor // [T]
	thin               engine.Tensor // [T, R] A: what adapters map to; absent without any
}

// activations are one layer's. Where nothing is kept, all layers share one.
type activations struct {
	x            engine.Tensor // [T, C] the layer's input
	n1, rstd1    engine.Tensor // normalised input, A, and [T, 1]
	qkv          engine.Tensor // [T, (H+2KV)*D] A
	qk           engine.Tensor // [T, (H+KV)*D] A, after QK-norm and rotation
	qRstd, kRstd engine.Tensor // [T, H], [T, KV]
	o, lse       engine.Tensor // [T, H*D] A, [T, H]
	mid          engine.Tensor // [T, C] after attention
	n2, rstd2    engine.Tensor // as n1, rstd1
	gateUp       engine.Tensor // [T, 2F] A
	ff           engine.Tensor // [T, F] A
	out          engine.Tensor // [T, C] the next layer's input
}

// planWorkspace lays a workspace out in a without allocating.
func planWorkspace(a *arena, w *workspace, c *Config, s workspaceShape) {
	w.shape = s
	T, C, F := s.rows, c.HiddenSize, c.IntermediateSize
	H, KV, D := c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim
	a.ints(&w.ids, 1, T)
	a.ints(&w.positions, 1, T)

	kept := 1
	if s.keep {
		kept = c.NumHiddenLayers
	}
	w.layers = make([]activations, kept)
	for i := range w.layers {
		y := &w.layers[i]
		a.matrix(&y.x, T, C)
		if i == 0 || !s.recompute {
			a.plan(&y.n1, s.act, T, C)
			a.plan(&y.ff, s.act, T, F)
		}
		a.plan(&y.qkv, s.act, T, (H+2*KV)*D)
		a.plan(&y.o, s.act, T, H*D)
		a.plan(&y.gateUp, s.act, T, 2*F)
		if !s.keep {
			continue
		}
		a.matrix(&y.rstd1, T, 1)
		a.matrix(&y.rstd2, T, 1)
		a.matrix(&y.lse, T, H)
		a.matrix(&y.mid, T, C)
		if !s.recompute {
			a.plan(&y.n2, s.act, T, C)
		}
		if c.qkNorm() {
			a.plan(&y.qk, s.act, T, (H+KV)*D)
			a.matrix(&y.qRstd, T, H)
			a.matrix(&y.kRstd, T, KV)
		}
	}
	if s.keep {
		a.matrix(&w.out, T, C)
	}
	if s.noHead {
		return
	}
	a.plan(&w.final, s.act, T, C)
	a.ints(&w.targets, 1, T)
	a.ints(&w.last, 1, T)
	a.matrix(&w.logProb, 1, T)
	a.matrix(&w.entropy, 1, T)
	a.matrix(&w.lse, 1, T)
	if !s.keep {
		return
	}
	a.matrix(&w.finalRstd, T, 1)
	a.matrix(&w.dx, T, C)
	if s.act != engine.F32 {
		a.plan(&w.dxa, s.act, T, C)
	}
	a.plan(&w.dn, s.act, T, C)
	a.plan(&w.dff, s.act, T, F)
	a.plan(&w.do, s.act, T, H*D)
	a.plan(&w.dqkv, s.act, T, (H+2*KV)*D)
	a.matrix(&w.dLogProb, 1, T)
	a.matrix(&w.dEntropy, 1, T)
	if s.rank > 0 {
		a.plan(&w.thin, s.act, T, s.rank)
	}
}

func newWorkspace(be engine.Backend, c *Config, s workspaceShape) (*workspace, error) {
	w := &workspace{}
	var a arena
	planWorkspace(&a, w, c, s)
	bufs, err := a.alloc(be, "activations")
	if err != nil {
		return nil, err
	}
	w.bufs = bufs
	w.share(c)
	return w, nil
}

// share points the tensors that use another's memory to it, and gives every
// layer its entry.
func (w *workspace) share(c *Config) {
	if !w.dxa.Valid() {
		w.dxa = w.dx
	}
	qk := (c.NumAttentionHeads + c.NumKeyValueHeads) * c.HeadDim
	first := w.layers[0]
	for i := range w.layers {
		y := &w.layers[i]
		if !y.n1.Valid() { // recomputed
			y.n1, y.ff = first.n1, first.ff
		}
		if !y.n2.Valid() {
			y.n2 = y.n1
		}
		if !y.qk.Valid() { // rotated where the product wrote it
			y.qk = y.qkv.ColRange(0, qk)
		}
		if !w.shape.keep {
			y.mid, y.out = y.x, y.x
		} else if i+1 < len(w.layers) {
			y.out = w.layers[i+1].x
		} else {
			y.out = w.out
		}
	}
	if !w.shape.keep {
		one := w.layers[0]
		w.layers = make([]activations, c.NumHiddenLayers)
		for i := range w.layers {
			w.layers[i] = one
		}
		w.out = one.out
	}
}

func (w *workspace) free(be engine.Backend) { freeAll(be, w.bufs) }
