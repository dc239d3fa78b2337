package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// tensor is a matrix on a device: rows at off + r·stride elements of its buffer.
// What lies between is NaN, and stays so.
type tensor struct {
	rows, cols, off, stride int
	bf16                    bool
	buffer                  *kerneltest.Buffer
}

// layout is where a test's tensors lie: an offset, and what is between rows.
type layout struct{ off, pad int }

var (
	aligned    = layout{64, 8}
	misaligned = layout{3, 5}
)

func (t *tensor) arg() *kerneltest.Buffer { return t.buffer.At(t.off * t.size()) }

func (t *tensor) size() int {
	if t.bf16 {
		return 2
	}
	return 4
}

// fill spreads v over a buffer's elements.
func (t *tensor) fill(v ref.Mat) []float32 {
	all := make([]float32, t.off+t.rows*t.stride)
	for i := range all {
		all[i] = float32(math.NaN())
	}
	for r := range t.rows {
		for c, x := range v.Row(r) {
			all[t.off+r*t.stride+c] = float32(x)
		}
	}
	return all
}

func toBF16(v []float32) []uint16 {
	out := make([]uint16, len(v))
	for i, x := range v {
		out[i] = half.BF16(x)
	}
	return out
}

// input puts v, whose elements the type holds, on the device.
func input(d *kerneltest.Device, v ref.Mat, l layout, bf16 bool) *tensor {
	t := &tensor{v.Rows, v.Cols, l.off, v.Cols + l.pad, bf16, nil}
	if bf16 {
		t.buffer = kerneltest.In(d, toBF16(t.fill(v)))
	} else {
		t.buffer = kerneltest.In(d, t.fill(v))
	}
	return t
}

// output makes a tensor of NaN.
func output(d *kerneltest.Device, rows, cols int, l layout, bf16 bool) *tensor {
	t := &tensor{rows, cols, l.off, cols + l.pad, bf16, nil}
	t.buffer = d.Out(max(1, t.off+rows*t.stride) * t.size())
	return t
}

// read returns a tensor's elements, and an error where something beside them was
// written.
func (t *tensor) read(d *kerneltest.Device) (ref.Mat, error) {
	var all []float32
	if t.bf16 {
		for _, v := range kerneltest.Values[uint16](d, t.buffer) {
			all = append(all, half.FromBF16(v))
		}
	} else {
		all = kerneltest.Values[float32](d, t.buffer)
	}
	out := ref.New(t.rows, t.cols)
	for i, v := range all[:t.off+t.rows*t.stride] {
		r, c := (i-t.off)/t.stride, (i-t.off)%t.stride
		if i >= t.off && c < t.cols {
			out.Row(r)[c] = float64(v)
		} else if v == v {
			return out, fmt.Errorf("element %d, which is no element of the tensor, was written", i)
		}
	}
	return out, nil
}

// random draws numbers that bf16 holds.
func random(r *rand.Rand, rows, cols int, scale float64) ref.Mat {
	m := ref.New(rows, cols)
	for i := range m.V {
		m.V[i] = float64(half.FromBF16(half.BF16(float32(scale * r.NormFloat64()))))
	}
	return m
}

// near compares got with want within tol.
func near(what string, got, want, tol ref.Mat) error {
	if _, err := testx.Close(got.V, want.V, tol.V); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// same compares bits, by way of values: NaN equals NaN.
func same(what string, got, want ref.Mat) error {
	for i, v := range got.V {
		w := want.V[i]
		if math.Float64bits(v) != math.Float64bits(w) && (v == v || w == w) {
			return fmt.Errorf("%s: element (%d, %d) is %g, want %g: not the same bits", what, i/got.Cols, i%got.Cols, v, w)
		}
	}
	return nil
}

func rowsOf(m ref.Mat, rows []int) ref.Mat {
	out := ref.New(len(rows), m.Cols)
	for i, r := range rows {
		copy(out.Row(i), m.Row(r))
	}
	return out
}

// problem of attention: a packing, its inputs, and where they lie.
type attentionProblem struct {
	bf16     bool
	h, kv, d int
	packing  *engine.Packing
	layout   layout
	q, k, v  ref.Mat
}

func (p *attentionProblem) scale() float64 { return float64(float32(1 / math.Sqrt(float64(p.d)))) }

func (p *attentionProblem) kernels() (kernels.Attention, error) {
	t := kernels.F32
	if p.bf16 {
		t = kernels.BF16
	}
	return kernels.AttentionFor(t, p.d, p.h/p.kv)
}

func segmentsOf(segments []engine.Segment) (s []kernels.Segment) {
	for _, x := range segments {
		s = append(s, kernels.Segment(x))
	}
	return s
}

// prompt packs one prompt and its responses.
func prompt(n int, responses ...int) *engine.Packing {
	p := &engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}}
	for _, r := range responses {
		p.Segments = append(p.Segments, engine.Segment{Start: p.Rows, Len: r, PrefixLen: n})
		p.Rows += r
	}
	return p
}

func newAttention(seed uint64, bf16 bool, h, kv, d int, packing *engine.Packing, l layout) *attentionProblem {
	packing.Check()
	r := rand.New(rand.NewPCG(seed, 11))
	t := packing.Rows
	return &attentionProblem{bf16, h, kv, d, packing, l, random(r, t, h*d, 1), random(r, t, kv*d, 1), random(r, t, kv*d, 1)}
}

// forward runs the kernel.
func (p *attentionProblem) forward(d *kerneltest.Device) (o, lse ref.Mat, err error) {
	return p.forwardOf(d, p.packing.Segments)
}

// forwardOf runs the kernel for some of the segments.
func (p *attentionProblem) forwardOf(d *kerneltest.Device, segments []engine.Segment) (o, lse ref.Mat, err error) {
	a, err := p.kernels()
	if err != nil {
		return o, lse, err
	}
	t := p.packing.Rows
	q, k, v := input(d, p.q, p.layout, p.bf16), input(d, p.k, p.layout, p.bf16), input(d, p.v, p.layout, p.bf16)
	to, tl := output(d, t, p.h*p.d, p.layout, p.bf16), output(d, t, p.h, p.layout, false)
	tiles := a.QueryTiles(segmentsOf(segments))
	err = d.Launch(a.Forward, [3]int{a.Blocks(tiles, p.kv)}, to.arg(), q.arg(), k.arg(), v.arg(), tl.arg(), kerneltest.In(d, tiles),
		p.kv, a.Group, p.d, to.stride, q.stride, k.stride, v.stride, tl.stride, p.scale())
	if err != nil {
		return o, lse, err
	}
	if o, err = to.read(d); err != nil {
		return o, lse, err
	}
	lse, err = tl.read(d)
	return o, lse, err
}

// Errors, relative to what they act on.
const (
	u32bit   = 0x1p-24
	u16bit   = 0x1p-8 // of a rounding to bf16
	exp2Fast = 0x1p-22
)

// chain is the error of a sum of n products relative to the sum of their sizes:
// for bf16 one rounding for each step of 16, and as much again, since a GPU may
// cut where the emulator rounds; for fp32 that of a chain.
func (p *attentionProblem) chain(n int) float64 {
	if p.bf16 {
		return float64(n/16+2) * 2 * u32bit
	}
	return float64(n+2) * u32bit
}

// rounding is the error of storing an output, and a weight before a product.
func (p *attentionProblem) rounding() float64 {
	if p.bf16 {
		return u16bit
	}
	return u32bit
}

// seen is what one query sees: scores, their errors, weights. keys are rows.
type seen struct {
	keys           []int
	s, err, weight []float64
	lse, mean      float64
}

func (p *attentionProblem) see(t, h int, keys []int) seen {
	x := seen{keys: keys}
	q, g := p.q.Row(t)[h*p.d:][:p.d], h/(p.h/p.kv)
	top := math.Inf(-1)
	for _, r := range keys {
		k := p.k.Row(r)[g*p.d:][:p.d]
		s, mag := 0.0, 0.0
		for i := range q {
			s += p.scale() * q[i] * k[i]
			mag += math.Abs(p.scale() * q[i] * k[i])
		}
		x.s, x.err = append(x.s, s), append(x.err, p.chain(p.d)*mag)
		top = math.Max(top, s)
	}
	x.lse = ref.LogSumExp(x.s)
	for i, s := range x.s {
		// The factor scale·log2 e, the product and the maximum's product are rounded,
		// the exponential is approximate.
		x.err[i] += 4*u32bit*(math.Abs(s)+math.Abs(top)) + exp2Fast
		x.weight = append(x.weight, math.Exp(s-x.lse))
		x.mean += x.weight[i] * x.err[i]
	}
	return x
}

// merging is the error of the weights' sum, and of the factors of merges.
func merging(keys int) float64 {
	splits := float64(keys/kernels.AttentionSplit + 1)
	return (kernels.AttentionSplit/4+4)*u32bit + splits*2*(exp2Fast+4*u32bit)
}

// expect gives the forward's results with tolerances: an output is Σ w·v, whose
// error is Σ w·|v| times the relative errors of w and of the sum, and its rounding.
func (p *attentionProblem) expect() (o, lse, tolO, tolLSE ref.Mat) {
	o, lse = ref.Attention(p.q, p.k, p.v, p.d, p.scale(), p.packing)
	tolO, tolLSE = ref.New(o.Rows, o.Cols), ref.New(lse.Rows, lse.Cols)
	for t := range o.Rows {
		keys := ref.Visible(p.packing, t)
		for h := range p.h {
			x := p.see(t, h, keys)
			g := h / (p.h / p.kv)
			m := merging(len(keys))
			for i := range p.d {
				col, sum := h*p.d+i, 0.0
				for j, r := range keys {
					w := x.weight[j] * math.Abs(p.v.Row(r)[g*p.d+i])
					sum += w * (x.err[j] + x.mean + m + p.rounding() + p.chain(kernels.AttentionSplit))
				}
				tolO.Row(t)[col] = sum + p.rounding()*(math.Abs(o.Row(t)[col])+sum)
			}
			// log2 is approximate, absolutely near 1.
			tolLSE.Row(t)[h] = x.mean + m + 4*u32bit*math.Abs(x.lse) + 0x1p-22
		}
	}
	return o, lse, tolO, tolLSE
}

// checkForward compares the kernel with the reference.
func (p *attentionProblem) checkForward(d *kerneltest.Device) error {
	o, lse, err := p.forward(d)
	if err != nil {
		return err
	}
	wantO, wantL, tolO, tolL := p.expect()
	if err := near("O", o, wantO, tolO); err != nil {
		return err
	}
	return near("LSE", lse, wantL, tolL)
}
