package enginetest

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// Canaries lie around every tensor, between its rows included. They are NaNs,
// so that reading one shows in a result, with payloads that tell a canary from
// an element of an output that was never written. In BF16, where a conversion
// need not keep a payload, all NaNs count as one.
const (
	canaryF32  = 0x7fc0dead
	unsetF32   = 0x7fc0f00d
	canaryI32  = -0x5a5a5a5b
	canaryU8   = 0xa5
	canaryRoom = 5 // elements before and after a tensor
)

// layout says how tensors lie in their buffers.
type layout struct {
	off int // elements before the first row
	pad int // elements between rows
}

var (
	dense   = layout{}
	strided = layout{off: 3, pad: 5}
	wide    = layout{off: 64, pad: 32}
)

var layouts = []layout{dense, strided, wide}

// env is one case's view of a backend, at one precision.
type env struct {
	engine.Backend
	arith
	thin   bool // see Thin
	rng    *rand.Rand
	layout layout
	blocks []*block
	loose  []engine.Buffer // freed with the blocks, not inspected
	err    error           // first failure of the environment itself

	used   float64 // the largest percent of a tolerance that an element used
	usedBy string
}

// newEnv is for weights of type w, which b must support.
func newEnv(b engine.Backend, w engine.DType, thin bool) *env {
	a, err := b.Precision(w)
	if err != nil {
		panic(err)
	}
	return &env{Backend: b, arith: arith{w, a}, thin: thin, rng: rand.New(rand.NewPCG(2024, 7))}
}

// again returns a fresh environment on the same backend.
func (e *env) again() *env { return newEnv(e.Backend, e.w, e.thin) }

// pick returns few where sizes are to be thin.
func pick[T any](e *env, many, few T) T {
	if e.thin {
		return few
	}
	return many
}

func (e *env) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *env) free() {
	for _, b := range e.blocks {
		e.Free(b.buf)
	}
	for _, b := range e.loose {
		e.Free(b)
	}
}

type role uint8

const (
	input   role = iota // must not change
	output              // starts as unset NaNs; only the view may change
	inplace             // starts with data; only the view may change
	scratch             // may change everywhere in the view; not compared
)

// block is one buffer with one tensor in it.
type block struct {
	engine.Tensor
	name      string
	role      role
	buf       engine.Buffer
	env       *env
	f, fAfter []float32 // the whole buffer as uploaded, and as downloaded
	i, iAfter []int32
}

func (e *env) block(name string, role role, d engine.DType, l layout, rows, cols int) *block {
	stride := cols
	if rows > 1 {
		stride += l.pad
	}
	n := l.off + rows*stride + canaryRoom
	buf, err := e.Alloc(d, n)
	if err != nil {
		panic(err)
	}
	b := &block{name: name, role: role, buf: buf, env: e,
		Tensor: engine.Tensor{Buf: buf, Off: l.off, Rows: rows, Cols: cols, Stride: stride}}
	e.blocks = append(e.blocks, b)
	return b
}

// floats is an F32 tensor.
func (e *env) floats(name string, role role, l layout, rows, cols int, data []float32) *block {
	return e.tensor(name, role, engine.F32, l, rows, cols, data)
}

// tensor is a tensor of floats of type d with the given elements, rounded to d,
// or unset ones where there are none.
func (e *env) tensor(name string, role role, d engine.DType, l layout, rows, cols int, data []float32) *block {
	b := e.block(name, role, d, l, rows, cols)
	b.f = make([]float32, b.buf.Len())
	for i := range b.f {
		b.f[i] = math.Float32frombits(canaryF32)
	}
	for r := range rows {
		for c := range cols {
			v := math.Float32frombits(unsetF32)
			if data != nil {
				v = data[r*cols+c]
			}
			b.f[b.Off+r*b.Stride+c] = v
		}
	}
	if d == engine.BF16 {
		for i, v := range b.f {
			b.f[i] = half.FromBF16(half.BF16(v))
		}
	}
	e.UploadF32(engine.Vector(b.buf, 0, len(b.f)), b.f)
	return b
}

// normal returns n normally distributed numbers.
func (e *env) normal(n int, scale float64) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(e.rng.NormFloat64() * scale)
	}
	return out
}

// activations returns normally distributed values that an activation can have.
func (e *env) activations(rows, cols int, scale float64) ref.Mat {
	m := toMat(rows, cols, e.normal(rows*cols, scale))
	if e.a == engine.BF16 {
		return m.Map(func(v float64) float64 { return float64(half.FromBF16(half.BF16(float32(v)))) })
	}
	return m
}

// in is an input of normally distributed activations.
func (e *env) in(name string, rows, cols int) *block {
	return e.inScaled(name, rows, cols, 1)
}

func (e *env) inScaled(name string, rows, cols int, scale float64) *block {
	return e.data(name, rows, cols, e.normal(rows*cols, scale))
}

// data is an input of the given activations.
func (e *env) data(name string, rows, cols int, v []float32) *block {
	return e.tensor(name, input, e.a, e.layout, rows, cols, v)
}

// dataF32 is an input of the given float32 elements.
func (e *env) dataF32(name string, rows, cols int, v []float32) *block {
	return e.floats(name, input, e.layout, rows, cols, v)
}

// vec is an input of one dense row of float32.
func (e *env) vec(name string, v []float32) *block {
	return e.floats(name, input, layout{off: e.layout.off}, 1, len(v), v)
}

// out is an output of activations, which is overwritten.
func (e *env) out(name string, rows, cols int) *block {
	return e.outAs(e.a, name, rows, cols)
}

// outAs is an output of type d.
func (e *env) outAs(d engine.DType, name string, rows, cols int) *block {
	return e.tensor(name, output, d, e.layout, rows, cols, nil)
}

// outF32 is a float32 output.
func (e *env) outF32(name string, rows, cols int) *block {
	return e.outAs(engine.F32, name, rows, cols)
}

// outVec is a float32 output of one dense row.
func (e *env) outVec(name string, n int) *block {
	return e.floats(name, output, layout{off: e.layout.off}, 1, n, nil)
}

// inout is a tensor of activations that is read and written.
func (e *env) inout(name string, rows, cols int) *block {
	return e.tensor(name, inplace, e.a, e.layout, rows, cols, e.normal(rows*cols, 1))
}

// inoutF32 is a float32 tensor that is read and written.
func (e *env) inoutF32(name string, rows, cols int) *block {
	return e.floats(name, inplace, e.layout, rows, cols, e.normal(rows*cols, 1))
}

// inoutVec is a float32 vector that is read and written.
func (e *env) inoutVec(name string, n int) *block {
	return e.floats(name, inplace, layout{off: e.layout.off}, 1, n, e.normal(n, 1))
}

// ints is a dense vector of integers.
func (e *env) ints(name string, v []int32) *block { return e.intMatrix(name, input, 1, len(v), v) }

func (e *env) intMatrix(name string, role role, rows, cols int, v []int32) *block {
	b := e.block(name, role, engine.I32, layout{off: e.layout.off}, rows, cols)
	b.i = make([]int32, b.buf.Len())
	for i := range b.i {
		b.i[i] = canaryI32
	}
	copy(b.i[b.Off:], v)
	e.UploadI32(engine.Vector(b.buf, 0, len(b.i)), b.i)
	return b
}

// weight is a prepared input matrix with elements of size 1/√cols.
func (e *env) weight(name string, rows, cols int) (*block, engine.Weight) {
	b := e.matrix(name, rows, cols, e.normal(rows*cols, 1/math.Sqrt(float64(cols))))
	return b, e.prepare(b)
}

// matrix is an input of the weights' type.
func (e *env) matrix(name string, rows, cols int, v []float32) *block {
	return e.tensor(name, input, e.w, e.layout, rows, cols, v)
}

func (e *env) prepare(b *block) engine.Weight {
	w := engine.Weight{Tensor: b.Tensor}
	if err := e.PrepareWeight(&w); err != nil {
		panic(err)
	}
	return w
}

// fetch downloads every block and checks that inputs and canaries are as they
// were.
func (e *env) fetch() error {
	for _, b := range e.blocks {
		if b.f != nil {
			b.fAfter = make([]float32, len(b.f))
			e.DownloadF32(b.fAfter, engine.Vector(b.buf, 0, len(b.f)))
		} else {
			b.iAfter = make([]int32, len(b.i))
			e.DownloadI32(b.iAfter, engine.Vector(b.buf, 0, len(b.i)))
		}
	}
	if err := e.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	var errs []error
	for _, b := range e.blocks {
		errs = append(errs, b.guards())
	}
	return errors.Join(errs...)
}

// inView reports whether element i of the buffer belongs to the tensor.
func (b *block) inView(i int) bool {
	i -= b.Off
	return i >= 0 && b.Rows > 0 && b.Stride > 0 && i/b.Stride < b.Rows && i%b.Stride < b.Cols
}

func (b *block) guards() error {
	for i := range b.buf.Len() {
		var same bool
		if b.f != nil {
			was, is := b.f[i], b.fAfter[i]
			same = math.Float32bits(was) == math.Float32bits(is) || b.buf.DType() == engine.BF16 && was != was && is != is
		} else {
			same = b.i[i] == b.iAfter[i]
		}
		switch {
		case same:
		case !b.inView(i):
			return fmt.Errorf("%s: written outside its view, at element %d of the buffer (view at %d, %d×%d, stride %d)",
				b.name, i, b.Off, b.Rows, b.Cols, b.Stride)
		case b.role == input:
			return fmt.Errorf("%s: an input was changed, at element %d of the buffer", b.name, i)
		}
	}
	return nil
}

// before and after return the view's elements, dense, as they were uploaded
// and as fetch found them.
func (b *block) before() []float32 { return b.cut(b.f) }
func (b *block) after() []float32  { return b.cut(b.fAfter) }

func (b *block) cut(from []float32) []float32 {
	out := make([]float32, 0, b.Len())
	for r := range b.Rows {
		out = append(out, from[b.Off+r*b.Stride:][:b.Cols]...)
	}
	return out
}

func (b *block) intsBefore() []int32 { return b.i[b.Off : b.Off+b.Len()] }
func (b *block) intsAfter() []int32  { return b.iAfter[b.Off : b.Off+b.Len()] }

// mat returns the view's elements as they were uploaded.
func (b *block) mat() ref.Mat { return toMat(b.Rows, b.Cols, b.before()) }

// matAfter returns the view's elements as fetch found them.
func (b *block) matAfter() ref.Mat { return toMat(b.Rows, b.Cols, b.after()) }

func toMat(rows, cols int, v []float32) ref.Mat {
	m := ref.New(rows, cols)
	for i, x := range v {
		m.V[i] = float64(x)
	}
	return m
}

// abs returns |m|; an absent matrix stays absent.
func abs(m ref.Mat) ref.Mat {
	if !m.Valid() {
		return m
	}
	return m.Map(math.Abs)
}

// near compares an output with what internal/ref says.
func (b *block) near(want expected) error {
	r, err := testx.Close(b.after(), want.v, want.tol(b.buf.DType()))
	if r.Percent > b.env.used {
		b.env.used, b.env.usedBy = r.Percent, b.name
	}
	if err != nil {
		at := ""
		if b.Cols > 0 && r.Worst >= 0 {
			at = fmt.Sprintf(" (row %d, column %d of %d×%d)", r.Worst/b.Cols, r.Worst%b.Cols, b.Rows, b.Cols)
		}
		return fmt.Errorf("%s: %w%s", b.name, err, at)
	}
	return nil
}

// same compares the bits of an output with got from elsewhere.
func (b *block) same(what string, want []float32) error {
	if err := testx.Identical(b.after(), want); err != nil {
		return fmt.Errorf("%s: %s: %w", b.name, what, err)
	}
	return nil
}
