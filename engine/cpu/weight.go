package cpu

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/simd"
)

// PrepareWeight allocates and fills w.Prepared: w's rows in panels of
// simd.PanelWidth, of w's type, which Linear, LogProb and decoding read.
func (b *Backend) PrepareWeight(w *engine.Weight) error {
	b.outside()
	d, n := engine.F32, simd.PackedLen(w.Rows, w.Cols)
	if is(w.Tensor, engine.BF16) {
		d, n = engine.BF16, simd.PackedLenBF16(w.Rows, w.Cols)
	}
	buf, err := b.Alloc(d, n)
	if err != nil {
		return fmt.Errorf("cpu: prepare weight %d×%d: %w", w.Rows, w.Cols, err)
	}
	w.Prepared = buf
	b.RefreshWeight(*w)
	return nil
}

// RefreshWeight fills w.Prepared from w's elements.
func (b *Backend) RefreshWeight(w engine.Weight) {
	if w.Prepared == nil {
		return
	}
	op := next(b, &b.ops.pack)
	*op = packOp{w: b.weight(w)}
	op.dst = op.w.panels
	b.submit(op)
}

// weight is a weight resolved to its rows and its panels, all of one type.
type weight struct {
	mat               // of BF16 weights the shape alone
	bits   []uint16   // BF16 elements, from the first row on
	panels packedRows // neither: not prepared
}

func (b *Backend) weight(w engine.Weight) weight {
	if !is(w.Tensor, engine.BF16) {
		r := weight{mat: b.f32(w.Tensor)}
		if w.Prepared != nil {
			r.panels.wide = fitting(b.prepared(w).f, simd.PackedLen(w.Rows, w.Cols))
		}
		return r
	}
	m := b.bf16(w.Tensor)
	r := weight{mat: mat{rows: m.rows, cols: m.cols, stride: m.stride}, bits: m.p}
	if w.Prepared != nil {
		r.panels.bits = fitting(b.prepared(w).h, simd.PackedLenBF16(w.Rows, w.Cols))
	}
	return r
}

func (w *weight) prepared() bool { return w.panels.wide != nil || w.panels.bits != nil }

func (b *Backend) prepared(w engine.Weight) *buffer {
	buf := b.buffer(w.Prepared)
	if buf.freed {
		panic("cpu: prepared weight was freed")
	}
	return buf
}

// fitting returns the first n elements of a prepared weight.
func fitting[T any](p []T, n int) []T {
	if len(p) < n {
		panic("cpu: prepared weight does not fit its matrix")
	}
	return p[:n]
}

// rowRange returns n rows from row i on, without panels.
func (w *weight) rowRange(i, n int) weight {
	if w.bits == nil {
		return weight{mat: w.mat.rowRange(i, n)}
	}
	return weight{mat: mat{rows: n, cols: w.cols, stride: w.stride}, bits: w.bits[min(i*w.stride, len(w.bits)):]}
}

// packedRows are the rows of a weight in panels, in F32 or in BF16.
type packedRows struct {
	wide []float32
	bits []uint16
}

// multiply computes m rows of A·Wᵀ + Bias, n columns from column j on, which
// begins a panel: A's rows are k long and lda apart. bias begins at column j; it
// may be nil.
func (p *packedRows) multiply(m, n, k, j int, a []float32, lda int, c []float32, ldc int, bias []float32) {
	switch {
	case p.bits != nil && bias != nil:
		simd.GemmPackedBF16Bias(m, n, k, a, lda, 1, p.bits[j*(k+k%2):], c, ldc, bias)
	case p.bits != nil:
		simd.GemmPackedBF16(m, n, k, a, lda, 1, p.bits[j*(k+k%2):], c, ldc, false)
	case bias != nil:
		simd.GemmPackedBias(m, n, k, a, lda, 1, p.wide[j*k:], c, ldc, bias)
	default:
		simd.GemmPacked(m, n, k, a, lda, 1, p.wide[j*k:], c, ldc, false)
	}
}

// packedWeight returns w's panels, packing them into scratch where w was not
// prepared.
func (b *Backend) packedWeight(w *weight) packedRows {
	if w.prepared() {
		return w.panels
	}
	pack := &b.ops.pack
	*pack = packOp{w: *w}
	if w.bits != nil {
		n := simd.PackedLenBF16(w.rows, w.cols)
		if len(b.packed.bits) < n {
			b.packed.bits = make([]uint16, n)
		}
		pack.dst.bits = b.packed.bits[:n]
	} else {
		n := simd.PackedLen(w.rows, w.cols)
		if len(b.packed.wide) < n {
			b.packed.wide = alignedF32(n)
		}
		pack.dst.wide = b.packed.wide[:n]
	}
	pack.run(b)
	return pack.dst
}

// packOp packs a weight into panels, a few panels to a tile.
type packOp struct {
	w    weight
	dst  packedRows
	rows int // of w to a tile
}

func (o *packOp) run(b *Backend) {
	if o.w.rows == 0 || o.w.cols == 0 {
		return
	}
	o.rows = roundUp(max(1, tileLeast/o.w.cols), simd.PanelWidth)
	b.parallel(o, (o.w.rows+o.rows-1)/o.rows)
}

func (o *packOp) tile(_ *worker, i int) {
	from := i * o.rows
	n := min(o.rows, o.w.rows-from)
	k := o.w.cols
	if o.w.bits != nil {
		simd.PackNTBF16(o.dst.bits[from*(k+k%2):], o.w.bits[from*o.w.stride:], n, k, o.w.stride)
		return
	}
	simd.PackNT(o.dst.wide[from*k:], o.w.from(from, 0), n, k, o.w.stride)
}

// columns returns m packed as the second operand of a product m.rows deep, in F32,
// in scratch that the next packing takes over.
func (b *Backend) columns(m weight) []float32 {
	n := simd.PackedLen(m.cols, m.rows)
	if len(b.columnPanels) < n {
		b.columnPanels = alignedF32(n)
	}
	return b.columnsIn(b.columnPanels[:n], m)
}

// columnsIn is columns in the memory of dst.
func (b *Backend) columnsIn(dst []float32, m weight) []float32 {
	op := &b.ops.packColumns
	*op = packColumnsOp{m: m, dst: dst}
	b.parallel(op, (m.rows+packRows-1)/packRows)
	return dst
}

// packColumnsOp packs a matrix by columns. A tile takes all panels of a few rows,
// which are then read once, a page at a time.
type packColumnsOp struct {
	m   weight
	dst []float32
}

// packRows is the number of rows of a tile, as many as the first translation
// buffer holds pages.
const packRows = 64

func (o *packColumnsOp) tile(_ *worker, i int) {
	from := i * packRows
	k := min(packRows, o.m.rows-from)
	for j := 0; j < o.m.cols; j += simd.PanelWidth {
		n := min(simd.PanelWidth, o.m.cols-j)
		dst := o.dst[j*o.m.rows+from*simd.PanelWidth:]
		if o.m.bits != nil {
			simd.PackNNBF16(dst, o.m.bits[from*o.m.stride+j:], n, k, o.m.stride)
		} else {
			simd.PackNN(dst, o.m.from(from, j), n, k, o.m.stride)
		}
	}
}
