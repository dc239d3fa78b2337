package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// placing is where a matrix lies in its buffer: after off elements, with rows that
// are pad elements longer than their columns.
type placing struct{ off, pad int }

// placings: aligned and dense, misaligned, aligned and strided.
var placings = []placing{{0, 0}, {3, 5}, {64, 32}}

// mat is a matrix on the device. What lies between its rows and before the first
// is NaN of an odd payload and must stay.
type mat struct {
	d                       *kerneltest.Device
	t                       kernels.Type
	off, rows, cols, stride int
	v                       []float32 // the values at first, rows × cols
	buf                     *kerneltest.Buffer
}

const padding32, padding16 = 0x7fc0beef, 0x7fab

// matIn makes a matrix that no launch may change.
func matIn(d *kerneltest.Device, t kernels.Type, l placing, rows, cols int, v []float32) *mat {
	return newMat(d, t, l, rows, cols, v, true)
}

// matInOut makes one that launches may change.
func matInOut(d *kerneltest.Device, t kernels.Type, l placing, rows, cols int, v []float32) *mat {
	return newMat(d, t, l, rows, cols, v, false)
}

// matOut makes one of NaN.
func matOut(d *kerneltest.Device, t kernels.Type, l placing, rows, cols int) *mat {
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(math.NaN())
	}
	return newMat(d, t, l, rows, cols, v, false)
}

func newMat(d *kerneltest.Device, t kernels.Type, l placing, rows, cols int, v []float32, constant bool) *mat {
	m := &mat{d: d, t: t, off: l.off, rows: rows, cols: cols, stride: cols + l.pad, v: make([]float32, rows*cols)}
	n := l.off
	if rows > 0 {
		n += (rows-1)*m.stride + cols
	}
	if t == kernels.BF16 {
		all := make([]uint16, n)
		for i := range all {
			all[i] = padding16
		}
		m.each(func(i, at int) {
			all[at] = half.BF16(v[i])
			m.v[i] = half.FromBF16(all[at])
		})
		m.buf = upload(d, all, constant)
		return m
	}
	all := make([]uint32, n)
	for i := range all {
		all[i] = padding32
	}
	m.each(func(i, at int) {
		all[at] = math.Float32bits(v[i])
		m.v[i] = v[i]
	})
	m.buf = upload(d, all, constant)
	return m
}

func upload[T uint16 | uint32](d *kerneltest.Device, v []T, constant bool) *kerneltest.Buffer {
	if constant {
		return kerneltest.In(d, v)
	}
	return kerneltest.InOut(d, v)
}

// each calls f with the number of each element and its place in the buffer.
func (m *mat) each(f func(i, at int)) {
	for r := range m.rows {
		for c := range m.cols {
			f(r*m.cols+c, m.off+r*m.stride+c)
		}
	}
}

// p returns the address of the first element, as an argument of a launch.
func (m *mat) p() *kerneltest.Buffer {
	if m.t == kernels.BF16 {
		return m.buf.At(2 * m.off)
	}
	return m.buf.At(4 * m.off)
}

// after returns the values now, and an error if anything around them has changed.
func (m *mat) after() ([]float32, error) {
	var all []float32
	var bits []uint32
	pad := uint32(padding32)
	if m.t == kernels.BF16 {
		pad = padding16
		for _, v := range kerneltest.Values[uint16](m.d, m.buf) {
			bits = append(bits, uint32(v))
			all = append(all, half.FromBF16(v))
		}
	} else {
		bits = kerneltest.Values[uint32](m.d, m.buf)
		for _, b := range bits {
			all = append(all, math.Float32frombits(b))
		}
	}
	out, inside := make([]float32, m.rows*m.cols), make([]bool, len(all))
	m.each(func(i, at int) { out[i], inside[at] = all[at], true })
	for at, b := range bits {
		if !inside[at] && b != pad && m.rows*m.cols > 0 {
			return nil, fmt.Errorf("element %d of the buffer, outside of the matrix, was written", at)
		}
	}
	return out, nil
}

// near compares the values now with want, allowing tol and, for BF16, the rounding
// of the result.
func (m *mat) near(name string, want, tol []float64) error {
	got, err := m.after()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if m.t == kernels.BF16 {
		tol = append([]float64(nil), tol...)
		for i, w := range want {
			if !math.IsNaN(w) {
				tol[i] += testx.EpsBF16 * (math.Abs(w) + tol[i])
			}
		}
	}
	if _, err := testx.Close(got, want, tol); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// exactly compares bits.
func (m *mat) exactly(name string, want []float32) error {
	got, err := m.after()
	if err == nil {
		err = testx.Identical(got, want)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// tolerance is c·eps·mag and one rounding of the result, as in testx.
func tolerance(c float64, mag, want []float64) []float64 { return testx.Tolerance(c, mag, want) }

func normal(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func ints(d *kerneltest.Device, v []int32) *kerneltest.Buffer { return kerneltest.In(d, v) }

// run calls checks one after another and names the one that fails.
func run(d *kerneltest.Device, checks map[string]func(*kerneltest.Device) error) error {
	for _, name := range sortedKeys(checks) {
		if err := checks[name](d); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}
