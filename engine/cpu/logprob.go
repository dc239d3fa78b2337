package cpu

import (
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// softStats is the online reduction of one row of logits: their maximum m and,
// relative to it, s = Σ e^(z−m) and t = Σ (z−m)·e^(z−m). LogProb and Sample feed
// it the same chunks in the same order.
type softStats struct{ m, s, t float32 }

func newSoftStats() softStats { return softStats{m: negInf} }

// add takes the next chunk of logits, at most engine.VocabChunk of them.
func (a *softStats) add(z []float32) {
	m := simd.Max(z)
	if m == negInf {
		return
	}
	s, t := simd.SumExp(z, m)
	if a.m == negInf {
		*a = softStats{m, s, t}
		return
	}
	if m > a.m {
		a.rescale(m)
		a.s += s
		a.t += t
		return
	}
	b := softStats{m, s, t}
	b.rescale(a.m)
	a.s += b.s
	a.t += b.t
}

// rescale makes m the maximum that s and t are relative to. A NaN in m stays.
func (a *softStats) rescale(m float32) {
	d := a.m - m
	e := exp32(d)
	a.t = float32(e * (a.t + float32(d*a.s)))
	a.s = float32(e * a.s)
	a.m = m
}

func (a *softStats) logProb(z float32) float32 { return (z - a.m) - log32(a.s) }
func (a *softStats) entropy() float32          { return log32(a.s) - a.t/a.s }
func (a *softStats) lse() float32              { return a.m + log32(a.s) }

// LogProb computes the fused language-model head. A tile takes a block of rows
// over the whole vocabulary, chunk by chunk, and holds one chunk's logits.
func (b *Backend) LogProb(a engine.LogProbArgs) {
	op := next(b, &b.ops.logProb)
	*op = logProbOp{x: b.f32(a.X), w: b.weight(a.W), scale: a.Scale}
	n := op.x.rows
	op.targets = b.ints(a.Targets, n)
	op.logProb, op.entropy, op.lse = b.vec(a.LogProb, n), b.vec(a.Entropy, n), b.vec(a.LSE, n)
	if op.x.cols != op.w.cols || op.w.rows == 0 {
		panic("cpu: log prob: shapes do not match")
	}
	b.submit(op)
}

// logProbRows is the most rows of a tile. A chunk's logits then take 3 MiB, and
// its weights, which take three times as much, are read once for that many rows.
const logProbRows = 192

type logProbOp struct {
	x                     mat
	w                     weight
	targets               []int32
	logProb, entropy, lse []float32
	scale                 float32

	panels packedRows
	rows   int
}

func (o *logProbOp) run(b *Backend) {
	n := o.x.rows
	if n == 0 {
		return
	}
	o.panels = b.packedWeight(&o.w)
	threads := len(b.pool.workers)
	tiles := roundUp((n+logProbRows-1)/logProbRows, threads) // as many for each thread
	o.rows = (n + tiles - 1) / tiles
	b.reserve(scratchLen(o.rows * min(o.w.rows, engine.VocabChunk)))
	b.parallel(o, (n+o.rows-1)/o.rows)
}

func (o *logProbOp) tile(w *worker, i int) {
	from := i * o.rows
	m := min(o.rows, o.x.rows-from)
	k := o.x.cols
	var stats [logProbRows]softStats
	var target [logProbRows]float32
	for r := range m {
		stats[r] = newSoftStats()
		if id := int(o.targets[from+r]); id < 0 || id >= o.w.rows {
			panic("cpu: log prob: target out of range")
		}
	}
	z := w.floats(m * min(o.w.rows, engine.VocabChunk))
	for v := 0; v < o.w.rows; v += engine.VocabChunk {
		n := min(engine.VocabChunk, o.w.rows-v)
		o.panels.multiply(m, n, k, v, o.x.from(from, 0), o.x.stride, z, n, nil)
		if o.scale != 1 {
			simd.Scale(z[:m*n], o.scale, z[:m*n])
		}
		for r := range m {
			row := z[r*n:][:n]
			stats[r].add(row)
			if at := int(o.targets[from+r]) - v; at >= 0 && at < n {
				target[r] = row[at]
			}
		}
	}
	for r := range m {
		o.logProb[from+r] = stats[r].logProb(target[r])
		o.entropy[from+r] = stats[r].entropy()
		o.lse[from+r] = stats[r].lse()
	}
}

// LogProbBackward computes the gradients of X and W. It takes as many rows and as
// much of the vocabulary at a time as their gradients dz with respect to the logits
// fit in a bounded scratch, in three passes: dz from recomputed logits, DX += dz·W,
// DW += dzᵀ·X. Each element of DX is one chain in ascending v and each of DW one in
// ascending t, wherever the passes cut them.
func (b *Backend) LogProbBackward(a engine.LogProbBackwardArgs) {
	op := next(b, &b.ops.logProbBack)
	*op = logProbBackwardOp{x: b.f32(a.X), w: b.weight(a.W), scale: a.Scale}
	n := op.x.rows
	op.dx = b.shaped(a.DX, n, op.x.cols)
	if op.weight = a.DW.Valid(); op.weight {
		op.dw = b.shaped(a.DW, op.w.rows, op.x.cols)
	}
	if op.x.cols != op.w.cols {
		panic("cpu: log prob backward: shapes do not match")
	}
	op.targets = b.ints(a.Targets, n)
	op.lse, op.dlogProb = b.vec(a.LSE, n), b.vec(a.DLogProb, n)
	if op.dentropy = b.optionalVec(a.DEntropy, n); a.DEntropy.Valid() {
		op.withEntropy = true
		op.entropy = b.vec(a.Entropy, n)
	}
	b.submit(op)
}

// gradRows and gradVocab are the most rows and entries of the vocabulary that
// LogProbBackward takes at a time, 8 MiB of dz: few enough entries that the panels
// of their weights stay in the cache, and W is packed once for that many rows.
const (
	gradRows  = 2048
	gradVocab = 1024
)

type logProbBackwardOp struct {
	dx, dw, x          mat
	w                  weight
	targets            []int32
	lse, entropy       []float32
	dlogProb, dentropy []float32
	withEntropy        bool
	weight             bool // its gradient is wanted
	scale              float32

	panels   packedRows
	xPanels  []float32 // dz's rows of X by columns
	wPanels  []float32 // dz's entries of W by columns
	dz       mat
	row0, v0 int // dz's first row and first entry of the vocabulary
	pass     int
	grid     grid
}

func (o *logProbBackwardOp) run(b *Backend) {
	t, v, c := o.x.rows, o.w.rows, o.x.cols
	if t == 0 || v == 0 {
		return
	}
	threads := len(b.pool.workers)
	o.panels = b.packedWeight(&o.w)
	rows := evenPart(t, gradRows)
	cols := roundUp(min(v, gradVocab), simd.PanelWidth)
	xLen := 0
	if o.weight {
		xLen = simd.PackedLen(c, rows)
	}
	mem := b.sharedFloats(rows*cols + xLen)
	o.dz.p, o.dz.stride, mem = mem[:rows*cols], cols, mem[rows*cols:]
	for o.row0 = 0; o.row0 < t; o.row0 += rows {
		o.dz.rows = min(rows, t-o.row0)
		if o.weight {
			o.xPanels = b.columnsIn(mem[:simd.PackedLen(c, o.dz.rows)], weight{mat: o.x.rowRange(o.row0, o.dz.rows)})
		}
		for o.v0 = 0; o.v0 < v; o.v0 += cols {
			o.dz.cols = min(cols, v-o.v0)
			o.pass, o.grid = 0, newGrid(o.dz.rows, o.dz.cols, c, threads)
			b.reserve(scratchLen(o.grid.cols))
			b.parallel(o, o.grid.tiles)
			o.wPanels = b.columns(o.w.rowRange(o.v0, o.dz.cols))
			o.pass, o.grid = 1, newGrid(o.dz.rows, c, o.dz.cols, threads)
			b.parallel(o, o.grid.tiles)
			if o.weight {
				o.pass, o.grid = 2, newGrid(o.dz.cols, c, o.dz.rows, threads)
				b.parallel(o, o.grid.tiles)
			}
		}
	}
}

func (o *logProbBackwardOp) tile(w *worker, i int) {
	i0, i1, j0, j1 := o.grid.tile(i)
	m, n := i1-i0, j1-j0
	switch o.pass {
	case 0:
		o.panels.multiply(m, n, o.x.cols, o.v0+j0, o.x.from(o.row0+i0, 0), o.x.stride, o.dz.from(i0, j0), o.dz.stride, nil)
		p := w.floats(n)
		for r := range m {
			o.gradient(o.dz.from(i0+r, j0)[:n], p, o.row0+i0+r, o.v0+j0)
		}
	case 1:
		simd.GemmPacked(m, n, o.dz.cols, o.dz.from(i0, 0), o.dz.stride, 1, o.wPanels[j0*o.dz.cols:],
			o.dx.from(o.row0+i0, j0), o.dx.stride, o.v0 > 0)
	case 2:
		simd.GemmPacked(m, n, o.dz.rows, o.dz.from(0, i0), 1, o.dz.stride, o.xPanels[j0*o.dz.rows:],
			o.dw.from(o.v0+i0, j0), o.dw.stride, true)
	}
}

// gradient turns products z[j] = x·w of vocabulary entries from..from+len(z)
// into Scale·dz, with p as scratch.
func (o *logProbBackwardOp) gradient(z, p []float32, t, from int) {
	if o.scale != 1 {
		simd.Scale(z, o.scale, z)
	}
	lse, dlp := o.lse[t], o.dlogProb[t]
	simd.ExpSub(p, z, lse)
	if o.withEntropy {
		dh, h := o.dentropy[t], o.entropy[t]
		for j, pj := range p {
			if pj == 0 { // its logit may be −Inf
				z[j] = 0
				continue
			}
			z[j] = -o.scale * pj * (dlp + dh*(z[j]-lse+h))
		}
	} else {
		simd.Scale(z, -o.scale*dlp, p)
	}
	if at := int(o.targets[t]) - from; at >= 0 && at < len(z) {
		z[at] += o.scale * dlp
	}
}
