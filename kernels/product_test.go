package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// operand is a matrix on the host. Between its rows, and before its first, lies
// NaN, so that a read of it shows.
type operand struct {
	kind               kernels.Type
	rows, cols         int
	stride, off        int // in elements
	values             []float32
	buffer             *kerneltest.Buffer
	elements, elemSize int
}

// newOperand draws values of the given type.
func newOperand(r *rand.Rand, kind kernels.Type, rows, cols, stride, off int) *operand {
	o := &operand{kind: kind, rows: rows, cols: cols, stride: stride, off: off, elemSize: 4}
	o.elements = off + max(rows-1, 0)*stride + cols
	if kind == kernels.BF16 {
		o.elemSize = 2
	}
	for range rows * cols {
		v := float32(r.NormFloat64())
		if kind == kernels.BF16 {
			v = half.FromBF16(half.BF16(v))
		}
		o.values = append(o.values, v)
	}
	return o
}

func (o *operand) at(i, j int) float64 { return float64(o.values[i*o.cols+j]) }

const nan32 = 0x7fc00001 // no computation gives this one

// words are the elements as they lie in memory.
func (o *operand) words() []uint32 {
	w := make([]uint32, o.elements)
	for i := range w {
		w[i] = nan32 >> (32 - 8*o.elemSize)
	}
	for i := range o.rows {
		for j := range o.cols {
			v := o.values[i*o.cols+j]
			if o.elemSize == 2 {
				w[o.off+i*o.stride+j] = uint32(half.BF16(v))
			} else {
				w[o.off+i*o.stride+j] = math.Float32bits(v)
			}
		}
	}
	return w
}

// place copies the operand to the device, for launches to read or to write.
func (o *operand) place(d *kerneltest.Device, writable bool) kernels.Matrix {
	w := o.words()
	switch {
	case o.elemSize == 4 && writable:
		o.buffer = kerneltest.InOut(d, w)
	case o.elemSize == 4:
		o.buffer = kerneltest.In(d, w)
	default:
		h := make([]uint16, len(w))
		for i, v := range w {
			h[i] = uint16(v)
		}
		if writable {
			o.buffer = kerneltest.InOut(d, h)
		} else {
			o.buffer = kerneltest.In(d, h)
		}
	}
	return kernels.Matrix{Addr: o.buffer.At(o.off * o.elemSize).Addr(), Stride: o.stride}
}

// read returns what launches made of the operand, packed; what lies between the
// rows must be as it was.
func (o *operand) read(d *kerneltest.Device) ([]float32, error) {
	var w []uint32
	if o.elemSize == 4 {
		w = kerneltest.Values[uint32](d, o.buffer)
	} else {
		for _, v := range kerneltest.Values[uint16](d, o.buffer) {
			w = append(w, uint32(v))
		}
	}
	for i := range o.elements {
		if at := i - o.off; at < 0 || at%o.stride >= o.cols {
			if w[i] != nan32>>(32-8*o.elemSize) {
				return nil, fmt.Errorf("element %d, %d columns beyond a row, was written", i, at%o.stride-o.cols)
			}
		}
	}
	got := make([]float32, 0, o.rows*o.cols)
	for i := range o.rows {
		for j := range o.cols {
			v := w[o.off+i*o.stride+j]
			if o.elemSize == 4 {
				got = append(got, math.Float32frombits(v))
			} else {
				got = append(got, half.FromBF16(uint16(v)))
			}
		}
	}
	return got, nil
}

// problem is a product to compute and to compare.
type problem struct {
	op              kernels.ProductOp
	factors, result kernels.Type
	m, n, k         int
	pad             int  // of the strides: in elements, of the factors in multiples of 8
	odd             bool // the factors' rows are not aligned
	bias            bool
	add             addend
	splits          int      // 0 is 1
	only            []string // of the kernels, those whose names end so; none: all
	seed            uint64
	family          kernels.Family
}

// addend is what a product is added to.
type addend int

const (
	nothing addend = iota
	other          // another matrix
	itself         // the result
)

func (p problem) String() string {
	return fmt.Sprintf("%v %d->%d %dx%dx%d pad %d odd %v bias %v add %d splits %d",
		p.op, p.factors, p.result, p.m, p.n, p.k, p.pad, p.odd, p.bias, p.add, p.splits)
}

// operands draws them.
func (p problem) operands() (a, b, c, r, bias *operand) {
	rng := rand.New(rand.NewPCG(p.seed, uint64(p.m)<<40^uint64(p.n)<<20^uint64(p.k)))
	factor := func(rows, cols, pad int) *operand {
		if p.odd {
			return newOperand(rng, p.factors, rows, cols, max(cols, 1)+pad, 3)
		}
		return newOperand(rng, p.factors, rows, cols, max(up8(cols), 8)+8*pad, 8*pad)
	}
	switch p.op {
	case kernels.GradInput:
		a, b = factor(p.m, p.k, p.pad), factor(p.k, p.n, 2*p.pad)
	case kernels.GradWeight:
		a, b = factor(p.k, p.m, p.pad), factor(p.k, p.n, 2*p.pad)
	default:
		a, b = factor(p.m, p.k, p.pad), factor(p.n, p.k, 2*p.pad)
	}
	c = newOperand(rng, p.result, p.m, p.n, p.n+p.pad, p.pad)
	r = newOperand(rng, p.result, p.m, p.n, p.n+3*p.pad, 2*p.pad)
	bias = newOperand(rng, kernels.F32, 1, p.n, p.n, p.pad)
	return a, b, c, r, bias
}

func up8(n int) int { return (n + 7) / 8 * 8 }

// numCounters is as many as any product of these tests has tiles.
const numCounters = 256

// compute runs every kernel that may compute p and returns their results.
func (p problem) compute(d *kerneltest.Device) (results [][]float32, err error) {
	a, b, c, r, bias := p.operands()
	counters := kerneltest.InOut(d, make([]uint32, numCounters))
	product := kernels.Product{
		Op: p.op, Factors: p.factors, Result: p.result, M: p.m, N: p.n, K: p.k,
		A: a.place(d, false), B: b.place(d, false), Counters: counters.Addr(), NumCounters: numCounters,
	}
	if p.bias {
		product.Bias = bias.place(d, false).Addr
	}
	if p.add == other {
		product.R = r.place(d, false)
	}
	for i := 0; ; i++ {
		product.C = c.place(d, true)
		if p.add == itself {
			product.R = product.C
		}
		all, err := product.Candidates(p.family, max(p.splits, 1))
		if err != nil || i == len(all) {
			return results, err
		}
		if !named(all[i].Spec.Entry, p.only) {
			continue
		}
		if err := d.LaunchPlanned(all[i]); err != nil {
			return nil, err
		}
		got, err := c.read(d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", all[i].Spec.Entry, err)
		}
		results = append(results, got)
		for _, v := range kerneltest.Values[uint32](d, counters) {
			if v != 0 {
				return nil, fmt.Errorf("%s: a counter was left at %d", all[i].Spec.Entry, v)
			}
		}
	}
}

// compare checks a result against float64.
//
// A bf16 product rounds to fp32 once for each step of 16 along K in the emulator:
// each errs by at most 2^-24 of the sum of |a·b|; twice that and one step more are
// allowed, and one for each split. A chain of fma rounds K times. Bias and addend
// each round once more, and a result in bf16 errs by half of its last place.
func (p problem) compare(got []float32) error {
	a, b, c, r, bias := p.operands()
	roundings := 2 * ((p.k+15)/16 + 1 + p.splits)
	if p.factors == kernels.F32 {
		roundings = p.k + 1
	}
	for i := range p.m {
		for j := range p.n {
			var sum, abs float64
			for k := range p.k {
				var x float64
				switch p.op {
				case kernels.GradInput:
					x = a.at(i, k) * b.at(k, j)
				case kernels.GradWeight:
					x = a.at(k, i) * b.at(k, j)
				default:
					x = a.at(i, k) * b.at(j, k)
				}
				sum += x
				abs += math.Abs(x)
			}
			plus := func(x float64) { sum, abs = sum+x, abs+math.Abs(x) }
			if p.bias {
				plus(bias.at(0, j))
			}
			switch p.add {
			case other:
				plus(r.at(i, j))
			case itself:
				plus(c.at(i, j))
			}
			tol := float64(roundings+2) * 0x1p-24 * abs
			if p.result == kernels.BF16 {
				tol += 0x1p-8 * (math.Abs(sum) + tol)
			}
			if d := math.Abs(float64(got[i*p.n+j]) - sum); !(d <= tol) {
				return fmt.Errorf("C[%d][%d] = %v, want %v within %v", i, j, got[i*p.n+j], sum, tol)
			}
		}
	}
	return nil
}

// check requires that the first kernel that may compute p is right, and that all
// others give the same bits.
func (p problem) check(d *kerneltest.Device) error {
	results, err := p.compute(d)
	if err == nil {
		err = p.compare(results[0])
	}
	for i := 1; i < len(results) && err == nil; i++ {
		if err = testx.Identical(results[i], results[0]); err != nil {
			err = fmt.Errorf("kernel %d against kernel 0: %w", i, err)
		}
	}
	if err != nil {
		return fmt.Errorf("%v: %w", p, err)
	}
	return nil
}

func checkAll(d *kerneltest.Device, problems []problem) error {
	for _, p := range problems {
		if err := p.check(d); err != nil {
			return err
		}
	}
	return nil
}

func named(entry string, endings []string) bool {
	return len(endings) == 0 || slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(entry, "_"+e) })
}
