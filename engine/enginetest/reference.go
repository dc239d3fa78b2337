package enginetest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// Reference is a backend in float64 over internal/ref: slow and sequential.
// There are three of them.
//
// NewReference rounds nothing between operations, to whatever type a tensor
// is. Tests of layers above engine use it to differentiate a whole tiny model
// numerically, which float32 cannot resolve: Float64s and SetFloat64s read and
// write its memory at full precision.
//
// NewRounding rounds what it stores to the tensor's type, and what ops.go says
// besides: a device with F32 and BF16 activations, for tests of mixed precision
// where there is no GPU.
//
// NewNoisy puts a random number in the place of each rounding to BF16, as large
// as a rounding may be, and rounds nothing else. How much results of a whole
// model scatter over several of them is how far those of NewRounding may be from
// those of NewReference (Monte Carlo arithmetic, Parker 1997).
//
// All keep a copy of each prepared weight and multiply by that copy, so that a
// forgotten RefreshWeight shows. What they check of their arguments is what any
// backend must refuse.
type Reference struct {
	live   map[*refBuffer]bool
	record *refProgram
	rounds bool
	noise  *rand.Rand
}

// NewReference returns a backend that computes and stores in float64.
func NewReference() *Reference { return &Reference{live: map[*refBuffer]bool{}} }

// NewRounding returns a backend that computes in float64 and stores in the
// tensors' own types.
func NewRounding() *Reference {
	r := NewReference()
	r.rounds = true
	return r
}

// NewNoisy returns a backend that computes and stores in float64 and adds noise
// of the given seed in the place of roundings to BF16.
func NewNoisy(seed uint64) *Reference {
	r := NewReference()
	r.noise = rand.New(rand.NewPCG(seed, 4))
	return r
}

var _ engine.Backend = (*Reference)(nil)

type refBuffer struct {
	owner *Reference
	dtype engine.DType
	f     []float64 // F32 and BF16
	i     []int32   // I32 and U8
}

func (b *refBuffer) floats() bool { return b.dtype == engine.F32 || b.dtype == engine.BF16 }

// round returns v as an element of type d.
func (r *Reference) round(d engine.DType, v float64) float64 {
	rounded := float64(float32(v))
	if d == engine.BF16 {
		rounded = float64(half.FromBF16(half.BF16(float32(v))))
	}
	switch {
	case r.rounds:
		return rounded
	case r.noise != nil && d == engine.BF16 && rounded != v:
		return v + testx.HalfULPBF16(v)*(2*r.noise.Float64()-1)
	}
	return v
}

func (b *refBuffer) DType() engine.DType { return b.dtype }
func (b *refBuffer) Len() int            { return len(b.f) + len(b.i) }

type refProgram struct {
	owner *Reference
	ops   []func()
}

func (p *refProgram) Ops() int { return len(p.ops) }

// Name implements engine.Backend.
func (r *Reference) Name() string {
	if r.rounds {
		return "reference (float64, rounded when stored)"
	}
	return "reference (float64)"
}

// Precision implements engine.Backend: activations are of the weights' type.
func (r *Reference) Precision(weights engine.DType) (engine.DType, error) {
	if weights != engine.F32 && weights != engine.BF16 {
		return 0, fmt.Errorf("reference: weights of %v: %w", weights, errors.ErrUnsupported)
	}
	return weights, nil
}

// Async implements engine.Backend.
func (r *Reference) Async() bool { return false }

// Alloc implements engine.Backend.
func (r *Reference) Alloc(d engine.DType, n int) (engine.Buffer, error) {
	r.notRecording()
	must(n >= 0, "reference: alloc: negative size")
	if n > 1<<32 {
		return nil, fmt.Errorf("reference: %d bytes are too many for a test", n*d.Size())
	}
	b := &refBuffer{owner: r, dtype: d}
	if b.floats() {
		b.f = make([]float64, n)
	} else {
		b.i = make([]int32, n)
	}
	r.live[b] = true
	return b, nil
}

// Free implements engine.Backend.
func (r *Reference) Free(b engine.Buffer) {
	r.notRecording()
	delete(r.live, r.buffer(b))
}

// Sync implements engine.Backend.
func (r *Reference) Sync() error { return nil }

// Close implements engine.Backend.
func (r *Reference) Close() error {
	clear(r.live)
	return nil
}

func (r *Reference) notRecording() {
	must(r.record == nil, "reference: not allowed while recording")
}

func must(ok bool, message string) {
	if !ok {
		panic(message)
	}
}

func (r *Reference) buffer(b engine.Buffer) *refBuffer {
	rb, ok := b.(*refBuffer)
	must(ok && rb.owner == r, "reference: buffer of another backend")
	must(r.live[rb], "reference: buffer was freed")
	return rb
}

// floats reads a tensor of floats.
func (r *Reference) floats(t engine.Tensor) ref.Mat {
	b := r.buffer(t.Buf)
	must(b.floats(), "reference: tensor must be of floats")
	m := ref.New(t.Rows, t.Cols)
	for i := range t.Rows {
		copy(m.Row(i), b.f[t.Off+i*t.Stride:])
	}
	return m
}

// optional is floats, or the absent matrix for an absent tensor.
func (r *Reference) optional(t engine.Tensor) ref.Mat {
	if !t.Valid() {
		return ref.Mat{}
	}
	return r.floats(t)
}

func (r *Reference) store(t engine.Tensor, m ref.Mat) {
	b := r.buffer(t.Buf)
	must(b.floats(), "reference: tensor must be of floats")
	must(t.Rows == m.Rows && t.Cols == m.Cols || t.Rows == 1 && t.Cols == m.Rows*m.Cols || len(m.V) == 0 && t.Len() == 0,
		"reference: output has the wrong shape")
	for i := range t.Rows {
		row := b.f[t.Off+i*t.Stride:][:t.Cols]
		for c := range row {
			row[c] = r.round(b.dtype, m.V[i*t.Cols+c])
		}
	}
}

// ints returns the n elements of a tensor of integers, sharing its memory when
// it is dense.
func (r *Reference) ints(t engine.Tensor) []int32 {
	b := r.buffer(t.Buf)
	must(b.dtype == engine.I32, "reference: tensor must be I32")
	return b.ints(t)
}

func (b *refBuffer) ints(t engine.Tensor) []int32 {
	if t.Dense() {
		return b.i[t.Off : t.Off+t.Len()]
	}
	var out []int32
	for i := range t.Rows {
		out = append(out, b.i[t.Off+i*t.Stride:][:t.Cols]...)
	}
	return out
}

// Float64s returns the elements of a tensor of floats at full precision.
func (r *Reference) Float64s(t engine.Tensor) []float64 { return r.floats(t).V }

// SetFloat64s sets the elements of a tensor of floats at full precision.
func (r *Reference) SetFloat64s(t engine.Tensor, v []float64) {
	must(len(v) == t.Len(), "reference: wrong number of elements")
	r.store(t, ref.Mat{Rows: t.Rows, Cols: t.Cols, V: v})
}

// UploadF32 implements engine.Backend.
func (r *Reference) UploadF32(dst engine.Tensor, src []float32) {
	r.notRecording()
	must(dst.Dense() && dst.Len() == len(src), "reference: upload needs a dense tensor of equal size")
	b := r.buffer(dst.Buf)
	must(b.floats(), "reference: tensor must be of floats")
	for i, v := range src {
		b.f[dst.Off+i] = r.round(b.dtype, float64(v))
	}
}

// UploadI32 implements engine.Backend.
func (r *Reference) UploadI32(dst engine.Tensor, src []int32) {
	r.notRecording()
	must(dst.Dense() && dst.Len() == len(src), "reference: upload needs a dense tensor of equal size")
	b := r.buffer(dst.Buf)
	must(!b.floats(), "reference: tensor must be of integers")
	copy(b.ints(dst), src)
}

// DownloadF32 implements engine.Backend.
func (r *Reference) DownloadF32(dst []float32, src engine.Tensor) engine.Ticket {
	r.notRecording()
	must(src.Dense() && src.Len() == len(dst), "reference: download needs a dense tensor of equal size")
	b := r.buffer(src.Buf)
	must(b.floats(), "reference: tensor must be of floats")
	for i := range dst {
		dst[i] = float32(b.f[src.Off+i])
	}
	return 0
}

// DownloadI32 implements engine.Backend.
func (r *Reference) DownloadI32(dst []int32, src engine.Tensor) engine.Ticket {
	r.notRecording()
	must(src.Dense() && src.Len() == len(dst), "reference: download needs a dense tensor of equal size")
	b := r.buffer(src.Buf)
	must(!b.floats(), "reference: tensor must be of integers")
	copy(dst, b.ints(src))
	return 0
}

// Wait implements engine.Backend.
func (r *Reference) Wait(engine.Ticket) error { return nil }

// Record implements engine.Backend.
func (r *Reference) Record(build func()) engine.Program {
	r.notRecording()
	p := &refProgram{owner: r}
	r.record = p
	defer func() { r.record = nil }()
	build()
	return p
}

// Run implements engine.Backend.
func (r *Reference) Run(p engine.Program) {
	rp, ok := p.(*refProgram)
	must(ok && rp.owner == r, "reference: program of another backend")
	for _, op := range rp.ops {
		op()
	}
}

// do carries an operation out, or keeps it while recording.
func (r *Reference) do(op func()) {
	if r.record != nil {
		r.record.ops = append(r.record.ops, op)
		return
	}
	op()
}

// PrepareWeight implements engine.Backend.
func (r *Reference) PrepareWeight(w *engine.Weight) error {
	b, err := r.Alloc(engine.F32, w.Len())
	if err != nil {
		return err
	}
	w.Prepared = b
	r.RefreshWeight(*w)
	return nil
}

// RefreshWeight implements engine.Backend.
func (r *Reference) RefreshWeight(w engine.Weight) {
	r.do(func() { r.store(engine.Matrix(r.buffer(w.Prepared), 0, w.Rows, w.Cols), r.floats(w.Tensor)) })
}

func (r *Reference) weight(w engine.Weight) ref.Mat {
	must(w.Prepared != nil, "reference: weight was not prepared")
	return r.floats(engine.Matrix(r.buffer(w.Prepared), 0, w.Rows, w.Cols))
}

// Fill implements engine.Backend.
func (r *Reference) Fill(dst engine.Tensor, v float32) {
	r.do(func() {
		b := r.buffer(dst.Buf)
		for i := range dst.Rows {
			for c := range dst.Cols {
				if at := dst.Off + i*dst.Stride + c; b.floats() {
					b.f[at] = r.round(b.dtype, float64(v))
				} else {
					b.i[at] = int32(v)
				}
			}
		}
	})
}

// Copy implements engine.Backend.
func (r *Reference) Copy(dst, src engine.Tensor) {
	r.do(func() {
		d, s := r.buffer(dst.Buf), r.buffer(src.Buf)
		must((d.dtype == s.dtype || d.floats() && s.floats()) && dst.Rows == src.Rows && dst.Cols == src.Cols,
			"reference: copy: shapes or dtypes differ")
		if d.floats() {
			r.store(dst, r.floats(src))
			return
		}
		for i := range dst.Rows {
			copy(d.i[dst.Off+i*dst.Stride:][:dst.Cols], s.i[src.Off+i*src.Stride:])
		}
	})
}

// AdamW implements engine.Backend.
func (r *Reference) AdamW(a engine.AdamWArgs) {
	r.do(func() {
		for _, t := range []engine.Tensor{a.P, a.G, a.M, a.V} {
			must(t.Dense() && t.Len() == a.P.Len(), "reference: adamw: tensors must be dense and of one size")
		}
		p, m, v := r.floats(a.P), r.moment(a.M, a.MScale, engine.SignedMomentMap()), r.moment(a.V, a.VScale, engine.UnsignedMomentMap())
		ref.AdamW(p.V, r.floats(a.G).V, m.V, v.V, ref.AdamWParams{
			LR: float64(a.LR), Beta1: float64(a.Beta1), Beta2: float64(a.Beta2), Eps: float64(a.Eps),
			WeightDecay: float64(a.WeightDecay), GradScale: float64(a.GradScale), Step: a.Step,
		})
		r.store(a.P, p)
		r.storeMoment(a.M, a.MScale, engine.SignedMomentMap(), m)
		r.storeMoment(a.V, a.VScale, engine.UnsignedMomentMap(), v)
		if a.Copy.Valid() {
			must(a.Copy.Dense() && r.buffer(a.Copy.Buf).dtype == engine.BF16, "reference: adamw: Copy must be dense BF16")
			r.store(a.Copy, r.floats(a.P))
		}
	})
}

// moment reads a moment of either type.
func (r *Reference) moment(t, scale engine.Tensor, values [256]float32) ref.Mat {
	b := r.buffer(t.Buf)
	if b.dtype != engine.U8 {
		return r.floats(t)
	}
	m, scales := ref.New(t.Rows, t.Cols), r.floats(scale).V
	for i, c := range b.ints(t) {
		m.V[i] = float64(values[c]) * scales[i/engine.MomentBlock]
	}
	return m
}

// storeMoment stores a moment, as codes where t is U8.
func (r *Reference) storeMoment(t, scale engine.Tensor, values [256]float32, m ref.Mat) {
	b := r.buffer(t.Buf)
	if b.dtype != engine.U8 {
		r.store(t, m)
		return
	}
	codes, scales := b.ints(t), ref.New(1, scale.Len())
	for i, v := range m.V {
		s := &scales.V[i/engine.MomentBlock]
		*s = math.Max(*s, math.Abs(v))
	}
	for i, v := range m.V {
		codes[i] = nearestCode(values, v, scales.V[i/engine.MomentBlock])
	}
	r.store(scale, scales)
}

// nearestCode returns the code of x for a scale: the plainest search.
func nearestCode(values [256]float32, x, scale float64) (best int32) {
	if scale != 0 {
		x /= scale
	}
	distance := math.Inf(1)
	for c, v := range values {
		if v == 0 && values[0] == 0 && x > 0 {
			continue // a positive second moment never becomes zero
		}
		if d := math.Abs(x - float64(v)); d < distance {
			best, distance = int32(c), d
		}
	}
	return best
}

// SumSquares implements engine.Backend.
func (r *Reference) SumSquares(a engine.SumSquaresArgs) {
	r.do(func() {
		must(a.X.Dense() && a.Out.Len() == 1, "reference: sum of squares: bad shapes")
		r.store(a.Out, ref.Of(1, ref.SumSquares(r.floats(a.X).V)))
	})
}

// clonePacking copies p, which the caller may change after the call.
func clonePacking(p *engine.Packing) *engine.Packing {
	return &engine.Packing{Rows: p.Rows, Segments: slices.Clone(p.Segments)}
}
