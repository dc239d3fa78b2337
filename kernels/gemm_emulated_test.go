package kernels_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// problem is one product. Rows of a and b have NaN between their K elements and
// their stride, so that a read beyond K shows.
type problem struct {
	m, n, k       int
	ldc, lda, ldb int
	bf16          bool
	a, b          []uint16
}

func up8(n int) int { return (n + 7) / 8 * 8 }

func newProblem(r *rand.Rand, m, n, k, pad int, bf16 bool) problem {
	p := problem{m: m, n: n, k: k, ldc: n + pad, lda: up8(k) + 8*pad, ldb: up8(k) + 16*pad, bf16: bf16}
	fill := func(rows, ld int) []uint16 {
		x := make([]uint16, (rows-1)*ld+k)
		for i := range x {
			x[i] = 0x7fff
			if i%max(ld, 1) < k {
				x[i] = half.BF16(float32(r.NormFloat64()))
			}
		}
		return x
	}
	p.a, p.b = fill(m, p.lda), fill(n, p.ldb)
	return p
}

// run computes p on the device and checks that nothing but C's M×N elements was
// written. It returns C as float32, packed.
func (p problem) run(d *kerneltest.Device) ([]float32, error) {
	g, size := kernels.GEMMBF16F32(), 4
	if p.bf16 {
		g, size = kernels.GEMMBF16BF16(), 2
	}
	if err := g.Check(p.m, p.n, p.k, p.ldc, p.lda, p.ldb); err != nil {
		return nil, err
	}
	c := d.Out(p.m * p.ldc * size)
	err := d.Launch(g.Spec, [3]int{g.Grid(p.m, p.n)}, c, kerneltest.In(d, p.a), kerneltest.In(d, p.b), p.m, p.n, p.k, p.ldc, p.lda, p.ldb)
	if err != nil {
		return nil, err
	}
	var all []float32
	if p.bf16 {
		for _, v := range kerneltest.Values[uint16](d, c) {
			all = append(all, half.FromBF16(v))
		}
	} else {
		all = kerneltest.Values[float32](d, c)
	}
	got := make([]float32, 0, p.m*p.n)
	for i := range p.m {
		row := all[i*p.ldc : (i+1)*p.ldc]
		for _, v := range row[p.n:] {
			if v == v {
				return nil, errors.New("a row was written beyond N")
			}
		}
		got = append(got, row[:p.n]...)
	}
	return got, nil
}

// compare checks got against a float64 product. The emulator rounds to fp32 once
// for each step of 16 along K, which errs by at most 2^-24·Σ|ab|; twice that and
// one step more are allowed. The bf16 result adds half of its last place.
func (p problem) compare(got []float32) error {
	for i := range p.m {
		for j := range p.n {
			var sum, abs float64
			for k := range p.k {
				x := float64(half.FromBF16(p.a[i*p.lda+k])) * float64(half.FromBF16(p.b[j*p.ldb+k]))
				sum += x
				abs += math.Abs(x)
			}
			tol := float64((p.k+15)/16+1) * 0x1p-23 * abs
			if p.bf16 {
				tol += 0x1p-8 * math.Abs(sum)
			}
			if d := math.Abs(float64(got[i*p.n+j]) - sum); !(d <= tol) {
				return fmt.Errorf("C[%d][%d] = %v, want %v within %v", i, j, got[i*p.n+j], sum, tol)
			}
		}
	}
	return nil
}

func (p problem) check(d *kerneltest.Device) error {
	got, err := p.run(d)
	if err != nil {
		return fmt.Errorf("%dx%dx%d: %w", p.m, p.n, p.k, err)
	}
	return p.compare(got)
}

// noConflicts makes a bank conflict of ldmatrix an error.
const noConflicts = "bank-conflicts=fail"

func TestGEMMEmulated(t *testing.T) {
	shapes := []struct{ m, n, k, pad int }{
		{1, 1, 0, 0}, {1, 1, 1, 0}, {5, 3, 7, 1}, {16, 8, 16, 0}, {1, 130, 40, 1}, {129, 2, 33, 3},
		{128, 128, 160, 0}, {131, 257, 72, 1}, {64, 128, 250, 2},
	}
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		r := rand.New(rand.NewPCG(7, 0))
		for _, s := range shapes {
			for _, bf16 := range []bool{false, true} {
				if err := newProblem(r, s.m, s.n, s.k, s.pad, bf16).check(d); err != nil {
					return err
				}
			}
		}
		return nil
	}, noConflicts)
}

// A result's bits depend on its own rows and K alone: not on the rows beside it,
// its place, or the strides.
func TestGEMMEmulatedBatchInvariant(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		whole := newProblem(rand.New(rand.NewPCG(8, 0)), 150, 140, 96, 0, false)
		want, err := whole.run(d)
		if err != nil {
			return err
		}
		for _, row := range []int{0, 17, 127, 149} {
			one := whole
			one.m, one.ldc = 1, whole.ldc+1
			one.a = whole.a[row*whole.lda:][:whole.k]
			got, err := one.run(d)
			if err != nil {
				return err
			}
			if err := testx.Identical(got, want[row*whole.n:(row+1)*whole.n]); err != nil {
				return fmt.Errorf("row %d: %w", row, err)
			}
		}
		return nil
	})
}

// Each defect, sown into the kernel's text, must fail in at least one mode.
func TestGEMMEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "gemm_bf16", []kerneltest.Defect{
		{Name: "wait too weak", Old: "cp_async_wait<kStages - 2>();", New: "cp_async_wait<kStages - 1>();"},
		{Name: "no barrier", Old: "    block_sync();\n", New: ""},
		{Name: "K edge off by one", Old: "(K - (k0 + c * 8)) * 2", New: "(K + 1 - (k0 + c * 8)) * 2"},
		{Name: "row edge off by one", Old: "row0 + r < rows", New: "row0 + r <= rows"},
		{Name: "store beyond M", Old: "if (m >= M) continue;", New: "if (m > M) continue;"},
		{Name: "store beyond N", Old: "if (n + 1 < N) row[n + 1] =", New: "if (n < N) row[n + 1] ="},
		{Name: "bf16 store beyond N", Old: "if (n + 1 < N) row[n + 1].bits", New: "if (n < N) row[n + 1].bits"},
		{Name: "paired store at odd stride", Old: "bool paired = (ldc & 1) == 0;", New: "bool paired = true;"},
		{Name: "fragments of B swapped", Old: "f.b[2 * i][1] = r[1];", New: "f.b[2 * i][1] = r[2];"},
		{Name: "A walks k before rows", Old: "(j & 1) * 8 + row, kk * 2 + (j >> 1)", New: "(j >> 1) * 8 + row, kk * 2 + (j & 1)"},
		{Name: "bank conflicts", Old: "((c ^ ((r >> 1) & 3)) << 4)", New: "(c << 4)"},
		{Name: "stage refilled early", Old: "int next = step + kStages - 1;", New: "int next = step + kStages;"},
		{Name: "wrong group of tiles", Old: "first_m + in_group % group_m", New: "first_m + in_group % kGroupM"},
	}, func(d *kerneltest.Device) error {
		r := rand.New(rand.NewPCG(9, 0))
		for _, p := range []problem{newProblem(r, 131, 133, 203, 0, false), newProblem(r, 127, 21, 203, 1, true)} {
			if err := p.check(d); err != nil {
				return err
			}
		}
		return nil
	}, noConflicts)
}
