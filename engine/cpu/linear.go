package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// Tiles of a matrix product. Their sizes touch speed only: package simd makes an
// element's bits independent of the tile that it lies in.
const (
	tileWork    = 1 << 27 // most multiply-adds of a tile, about 2 ms
	tileLeast   = 1 << 15 // fewest: below this, splitting costs more than it gains
	tileRows    = 96      // most rows of a tile: whole tiles of every kernel
	tilesEach   = 4       // tiles that a thread should get at least
	tileRowStep = 12
	tilePair    = 2 * simd.PanelWidth // columns that the widest kernel takes
	stripRows   = 48                  // rows of a tile whose residual is added at once
)

// grid cuts an m×n matrix into tiles of rows×cols, cols being a whole number of
// panels.
type grid struct {
	m, n       int
	rows, cols int
	down       int // tiles from top to bottom
	tiles      int
}

// newGrid plans the tiles of a product with inner dimension k for a number of
// threads. They are as wide as their work allows, because a wide one copies
// little of A for what it computes, and evened out.
func newGrid(m, n, k, threads int) grid {
	if m == 0 || n == 0 {
		return grid{}
	}
	k = max(k, 1)
	want := min(max(m*n/(tilesEach*threads)*k, tileLeast), tileWork)
	edge := int(math.Sqrt(float64(want) / float64(k)))
	rows := min(m, tileRows, roundUp(max(edge, 1), tileRowStep))
	down := (m + rows - 1) / rows
	rows = min(rows, roundUp((m+down-1)/down, tileRowStep))
	cols := roundUp(max(1, want/(rows*k)), tilePair)
	across := (n + cols - 1) / cols
	cols = roundUp((n+across-1)/across, tilePair)
	across = (n + cols - 1) / cols
	return grid{m: m, n: n, rows: rows, cols: cols, down: (m + rows - 1) / rows, tiles: (m + rows - 1) / rows * across}
}

// tile returns the bounds of tile i. Tiles run down the columns, so that
// neighbours in time share panels.
func (g *grid) tile(i int) (i0, i1, j0, j1 int) {
	i0 = i % g.down * g.rows
	j0 = i / g.down * g.cols
	return i0, min(i0+g.rows, g.m), j0, min(j0+g.cols, g.n)
}

// Linear computes Y = X·Wᵀ + Bias + Residual.
func (b *Backend) Linear(a engine.LinearArgs) {
	op := next(b, &b.ops.linear)
	*op = linearOp{y: b.f32(a.Y), x: b.f32(a.X), w: b.weight(a.W), residual: b.optional(a.Residual)}
	op.bias = b.optionalVec(a.Bias, op.y.cols)
	if op.x.rows != op.y.rows || op.x.cols != op.w.cols || op.y.cols != op.w.rows {
		panic("cpu: linear: shapes do not match")
	}
	if a.Residual.Valid() && (op.residual.rows != op.y.rows || op.residual.cols != op.y.cols) {
		panic("cpu: linear: residual has the wrong shape")
	}
	op.add = a.Residual.Valid()
	b.submit(op)
}

type linearOp struct {
	y, x     mat
	w        weight
	bias     []float32
	residual mat
	add      bool // of residual

	from   int // first column of Y of a pass
	panels packedRows
	grid   grid
}

// packFloats is the number of elements of a weight that are packed before the
// product with them, so that they come back from a cache: 4 MiB.
const packFloats = 1 << 20

// run takes a weight that was prepared whole, and packs another part by part.
func (o *linearOp) run(b *Backend) {
	n := o.y.cols
	if o.y.rows == 0 || n == 0 {
		return
	}
	each := n
	if !o.w.prepared() {
		each = roundUp(evenPart(n, max(tilePair, packFloats/max(1, o.w.cols))), tilePair)
	}
	for o.from = 0; o.from < n; o.from += each {
		w := o.w
		if !w.prepared() {
			w = o.w.rowRange(o.from, min(each, n-o.from))
		}
		o.panels = b.packedWeight(&w)
		o.grid = newGrid(o.y.rows, w.rows, o.x.cols, len(b.pool.workers))
		if o.add {
			b.reserve(scratchLen(stripRows * o.grid.cols))
		}
		// Where few rows pass over the weights, these come from memory, each tile's after
		// its neighbour's.
		b.pool.run(o, o.grid.tiles, o.grid.down == 1)
	}
}

// tile computes the product into Y, or, where a residual is added, strip by
// strip into scratch first: the chain of a product starts at zero or the bias,
// and the residual, often larger than any term, costs one rounding instead of K.
func (o *linearOp) tile(w *worker, i int) {
	i0, i1, j0, j1 := o.grid.tile(i)
	n := j1 - j0
	if !o.add {
		o.product(i0, i1, j0, j1, o.y.from(i0, o.from+j0), o.y.stride)
		return
	}
	c := w.floats(min(stripRows, i1-i0) * n)
	for ; i0 < i1; i0 += stripRows {
		rows := min(stripRows, i1-i0)
		o.product(i0, i0+rows, j0, j1, c, n)
		for r := range rows {
			simd.Add(o.y.from(i0+r, o.from+j0)[:n], c[r*n:][:n], o.residual.from(i0+r, o.from+j0)[:n])
		}
	}
}

// product computes rows i0..i1 and the pass's columns j0..j1 of X·Wᵀ + Bias.
func (o *linearOp) product(i0, i1, j0, j1 int, c []float32, ldc int) {
	bias := o.bias
	if bias != nil {
		bias = bias[o.from+j0 : o.from+j1]
	}
	o.panels.multiply(i1-i0, j1-j0, o.x.cols, j0, o.x.from(i0, 0), o.x.stride, c, ldc, bias)
}

// LinearBackwardInput computes DX = or += DY·W.
func (b *Backend) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	op := next(b, &b.ops.linearInput)
	*op = linearInputOp{dx: b.f32(a.DX), dy: b.f32(a.DY), w: b.weight(a.W), accumulate: a.Accumulate}
	if op.dx.rows != op.dy.rows || op.dx.cols != op.w.cols || op.dy.cols != op.w.rows {
		panic("cpu: linear backward input: shapes do not match")
	}
	b.submit(op)
}

type linearInputOp struct {
	dx, dy     mat
	w          weight
	accumulate bool
	row0       int       // first of the rows of W that a pass adds
	rows       int       // their number
	panels     []float32 // these rows by columns; nil where few rows of DX would not pay for it
	grid       grid
}

// columnsMin is the number of rows of a product's first operand from which packing
// the second one pays.
const columnsMin = 64

// run adds DY·W in passes of as many rows of W as the panels hold. Without any rows
// one pass is left, which clears DX.
func (o *linearInputOp) run(b *Backend) {
	n, packs := o.dy.cols, o.dx.rows >= columnsMin || o.w.bits != nil
	each := max(n, 1)
	if packs {
		each = passLen(each, o.dx.cols)
	}
	for o.row0 = 0; o.row0 == 0 || o.row0 < n; o.row0 += each {
		o.rows = min(each, n-o.row0)
		if packs {
			o.panels = b.columns(o.w.rowRange(o.row0, o.rows))
		}
		o.grid = newGrid(o.dx.rows, o.dx.cols, o.rows, len(b.pool.workers))
		b.parallel(o, o.grid.tiles)
	}
}

func (o *linearInputOp) tile(_ *worker, i int) {
	i0, i1, j0, j1 := o.grid.tile(i)
	m, n, k, acc := i1-i0, j1-j0, o.rows, o.accumulate || o.row0 > 0
	if o.panels != nil && k > 0 {
		simd.GemmPacked(m, n, k, o.dy.from(i0, o.row0), o.dy.stride, 1, o.panels[j0*k:], o.dx.from(i0, j0), o.dx.stride, acc)
		return
	}
	simd.Gemm(m, n, k, o.dy.p[i0*o.dy.stride:], o.dy.stride, 1,
		o.w.p[min(j0, len(o.w.p)):], o.w.stride, o.dx.from(i0, j0), o.dx.stride, acc)
}

// A pass of a gradient takes as many steps of its sums as the panels of its second
// operand hold: 16 MiB, unless they are fewer than passSteps.
const (
	panelFloats = 1 << 22
	passSteps   = 512
)

// passLen returns the steps of a pass of n in all, over operands of cols columns.
func passLen(n, cols int) int {
	return evenPart(n, max(passSteps, panelFloats/roundUp(max(cols, 1), simd.PanelWidth)))
}

// LinearBackwardWeight computes DW += DYᵀ·X and DBias += Σ_t DY, each element in
// ascending t.
func (b *Backend) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	op := next(b, &b.ops.linearWeight)
	*op = linearWeightOp{dw: b.f32(a.DW), dy: b.f32(a.DY), x: b.f32(a.X)}
	op.dbias = b.optionalVec(a.DBias, op.dy.cols)
	if op.dw.rows != op.dy.cols || op.dw.cols != op.x.cols || op.x.rows != op.dy.rows {
		panic("cpu: linear backward weight: shapes do not match")
	}
	b.submit(op)
}

type linearWeightOp struct {
	dw, dy, x mat
	dbias     []float32
	row0      int       // first of the rows of DY and X that a pass adds
	rows      int       // their number
	panels    []float32 // these rows of X by columns; nil where few outputs would not pay for it
	grid      grid
	biasCols  int // columns of DY to a bias tile
}

// run adds DYᵀ·X in passes of as many rows as the panels of X hold.
func (o *linearWeightOp) run(b *Backend) {
	t := o.dy.rows
	if t == 0 {
		return
	}
	each := passLen(t, o.x.cols)
	for o.row0 = 0; o.row0 < t; o.row0 += each {
		o.rows = min(each, t-o.row0)
		if o.panels = nil; o.dw.rows >= columnsMin {
			o.panels = b.columns(weight{mat: o.x.rowRange(o.row0, o.rows)})
		}
		o.grid = newGrid(o.dw.rows, o.dw.cols, o.rows, len(b.pool.workers))
		tiles := o.grid.tiles
		if len(o.dbias) > 0 {
			o.biasCols = max(64, roundUp(tileLeast/o.rows, 16))
			tiles += (len(o.dbias) + o.biasCols - 1) / o.biasCols
		}
		b.parallel(o, tiles)
	}
}

// evenPart returns the size of the fewest parts of n, about equal, that are at
// most limit long.
func evenPart(n, limit int) int {
	parts := (n + limit - 1) / limit
	return (n + parts - 1) / parts
}

func (o *linearWeightOp) tile(_ *worker, i int) {
	if i >= o.grid.tiles {
		from := (i - o.grid.tiles) * o.biasCols
		to := min(from+o.biasCols, len(o.dbias))
		for t := o.row0; t < o.row0+o.rows; t++ {
			simd.Add(o.dbias[from:to], o.dbias[from:to], o.dy.from(t, from)[:to-from])
		}
		return
	}
	i0, i1, j0, j1 := o.grid.tile(i)
	m, n, k := i1-i0, j1-j0, o.rows
	if o.panels != nil {
		simd.GemmPacked(m, n, k, o.dy.from(o.row0, i0), 1, o.dy.stride, o.panels[j0*k:], o.dw.from(i0, j0), o.dw.stride, true)
		return
	}
	simd.Gemm(m, n, k, o.dy.from(o.row0, i0), 1, o.dy.stride, o.x.from(o.row0, j0), o.x.stride, o.dw.from(i0, j0), o.dw.stride, true)
}
