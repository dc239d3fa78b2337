package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

const (
	f32  = kernels.F32
	bf16 = kernels.BF16
)

// noConflicts makes a bank conflict of ldmatrix an error.
const noConflicts = "bank-conflicts=fail"

// forwardProblems has every epilogue and, among the sizes, edges of every tile.
var forwardProblems = []problem{
	{op: kernels.Forward, factors: bf16, result: f32, m: 1, n: 1, k: 0},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 1, n: 1, k: 1, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 5, n: 3, k: 7, pad: 1, add: other},
	{op: kernels.Forward, factors: bf16, result: f32, m: 16, n: 8, k: 16, add: itself, bias: true},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 1, n: 130, k: 40, pad: 1, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 129, n: 2, k: 33, pad: 3, add: other, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 131, n: 260, k: 72, pad: 4, add: itself},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 64, n: 128, k: 250, add: other},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 17, n: 36, k: 1100, pad: 4},
	{op: kernels.Forward, factors: bf16, result: f32, m: 67, n: 65, k: 75, pad: 1, odd: true, bias: true},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 3, n: 70, k: 130, pad: 4, odd: true, add: other},
}

func TestGEMMForward(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error { return checkAll(d, forwardProblems) }, noConflicts)
}

// gradProblems does the same for the two orientations of the backward.
var gradProblems = []problem{
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 1, n: 1, k: 0},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 5, n: 3, k: 7, pad: 1},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 16, n: 40, k: 1, add: itself},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 129, n: 70, k: 33, pad: 4, add: itself},
	{op: kernels.GradInput, factors: bf16, result: f32, m: 66, n: 260, k: 72, pad: 1, add: other},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 65, n: 67, k: 90, pad: 1, odd: true, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 1, n: 1, k: 0, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 3, n: 5, k: 7, pad: 1, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 131, n: 260, k: 40, pad: 4, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: bf16, m: 24, n: 16, k: 33},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 65, n: 70, k: 90, pad: 1, odd: true, add: itself},
}

func TestGEMMGrad(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error { return checkAll(d, gradProblems) }, noConflicts)
}

// splitProblems cut K into parts, more of them than there are steps in some. Tiles
// of different depth cut at different places, so each is compared for itself.
var splitProblems = []problem{
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 70, n: 130, k: 300, splits: 3, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 24, n: 9, k: 130, splits: 7, pad: 1},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 9, n: 24, k: 200, splits: 2, odd: true, add: other},
	{op: kernels.GradInput, factors: bf16, result: f32, m: 9, n: 24, k: 200, splits: 2, add: other},
}

func checkSplits(d *kerneltest.Device) error {
	for _, p := range splitProblems {
		results, err := p.compute(d)
		for _, r := range results {
			if err == nil {
				err = p.compare(r)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	return nil
}

func TestGEMMSplits(t *testing.T) { kerneltest.EachMode(t, checkSplits, noConflicts) }

// gatedProblem is a ForwardGated of m rows to f gates.
type gatedProblem struct {
	m, f, k, pad int
	only         []string
}

var gatedProblems = []gatedProblem{{m: 1, f: 4, k: 16}, {m: 5, f: 12, k: 40, pad: 1}, {m: 130, f: 100, k: 72}, {m: 17, f: 132, k: 150, pad: 1}}

// check computes it by every kernel: the bits of G must be those of a Forward, and
// Y must follow from G, with the bits of the separate operation.
func (g gatedProblem) check(d *kerneltest.Device) error {
	plain := problem{op: kernels.Forward, factors: bf16, result: bf16, m: g.m, n: 2 * g.f, k: g.k, pad: 4 * g.pad, only: g.only}
	want, err := plain.compute(d)
	if err != nil {
		return err
	}
	a, b, c, _, _ := plain.operands()
	y := newOperand(rand.New(rand.NewPCG(1, 1)), bf16, g.m, g.f, g.f+8*g.pad, 4*g.pad)
	product := kernels.Product{Op: kernels.ForwardGated, Factors: bf16, Result: bf16, M: g.m, N: 2 * g.f, K: g.k,
		A: a.place(d, false), B: b.place(d, false)}
	for i := 0; ; i++ {
		product.C, product.Y = c.place(d, true), y.place(d, true)
		all, err := product.Candidates(kernels.MMA, 1)
		if err != nil || i == len(all) {
			return err
		}
		if !named(all[i].Spec.Entry, g.only) {
			continue
		}
		if err := d.LaunchPlanned(all[i]); err != nil {
			return err
		}
		gotC, err := c.read(d)
		if err != nil {
			return err
		}
		gotY, err := y.read(d)
		if err != nil {
			return err
		}
		if err := testx.Identical(gotC, want[0]); err != nil {
			return fmt.Errorf("%s: gates and ups: %w", all[i].Spec.Entry, err)
		}
		separate := newOperand(rand.New(rand.NewPCG(1, 1)), bf16, g.m, g.f, g.f, 0)
		to, swiglu := separate.place(d, true), kernels.SwiGLU(bf16)
		err = d.Launch(swiglu.Spec, [3]int{swiglu.Grid(g.m, g.f)}, to.Addr, product.C.Addr, product.C.Addr+2*uint64(g.f),
			g.m, g.f, to.Stride, product.C.Stride, product.C.Stride)
		if err != nil {
			return err
		}
		wantY, err := separate.read(d)
		if err != nil {
			return err
		}
		if err := testx.Identical(gotY, wantY); err != nil {
			return fmt.Errorf("%s against the separate SwiGLU: %w", all[i].Spec.Entry, err)
		}
		for j, v := range gotY {
			row, column := j/g.f, j%g.f
			gate, up := float64(gotC[row*2*g.f+column]), float64(gotC[row*2*g.f+g.f+column])
			w := gate / (1 + math.Exp(-gate)) * up
			// The activation is within a few units of fp32; then half of bf16's last place.
			if tol := (0x1p-8 + 0x1p-20) * math.Abs(w); !(math.Abs(float64(v)-w) <= tol) {
				return fmt.Errorf("%s: Y[%d][%d] = %v, want %v within %v", all[i].Spec.Entry, row, column, v, w, tol)
			}
		}
	}
}

func checkGated(d *kerneltest.Device) error {
	for _, g := range gatedProblems {
		if err := g.check(d); err != nil {
			return fmt.Errorf("%+v: %w", g, err)
		}
	}
	return nil
}

func TestGEMMGated(t *testing.T) { kerneltest.EachMode(t, checkGated, noConflicts) }

// A result's bits depend on its own row of X, its own row of W and K alone: not on
// the rows beside them, the place, the strides or the kernel.
func TestGEMMBatchInvariant(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		whole := problem{op: kernels.Forward, factors: bf16, result: f32, m: 150, n: 140, k: 96}
		x, w, _, _, _ := whole.operands()
		want, err := whole.compute(d)
		if err != nil {
			return err
		}
		rng := rand.New(rand.NewPCG(3, 3))
		for _, part := range []struct{ row, rows, column, columns int }{{0, 1, 0, 140}, {17, 1, 3, 7}, {127, 2, 8, 40}, {149, 1, 0, 140}, {5, 37, 139, 1}} {
			px := newOperand(rng, bf16, part.rows, x.cols, 104, 8)
			copy(px.values, x.values[part.row*x.cols:])
			pw := newOperand(rng, bf16, part.columns, w.cols, 112, 0)
			copy(pw.values, w.values[part.column*w.cols:])
			c := newOperand(rng, f32, part.rows, part.columns, part.columns+1, 0)
			product := kernels.Product{Op: kernels.Forward, Factors: bf16, Result: f32, M: part.rows, N: part.columns, K: whole.k,
				A: px.place(d, false), B: pw.place(d, false)}
			for i := 0; ; i++ {
				product.C = c.place(d, true)
				all, err := product.Candidates(kernels.MMA, 1)
				if err != nil {
					return err
				}
				if i == len(all) {
					break
				}
				if err := d.LaunchPlanned(all[i]); err != nil {
					return err
				}
				got, err := c.read(d)
				if err != nil {
					return err
				}
				for r := range part.rows {
					from := (part.row+r)*whole.n + part.column
					if err := testx.Identical(got[r*part.columns:][:part.columns], want[0][from:][:part.columns]); err != nil {
						return fmt.Errorf("%s, %+v: %w", all[i].Spec.Entry, part, err)
					}
				}
			}
		}
		return nil
	})
}
