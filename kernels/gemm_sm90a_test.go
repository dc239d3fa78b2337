package kernels_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// hopper makes the emulated device one of compute capability 9.0.
const hopper = "capability=9.0"

// wgmmaProblems has every orientation, type and epilogue, with edges of every tile, K
// from nothing to more than twice round the ring of stages, and rows that TMA cannot load.
var wgmmaProblems = []problem{
	{op: kernels.Forward, factors: bf16, result: f32, m: 1, n: 1, k: 0, bias: true},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 1, n: 1, k: 1, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 5, n: 3, k: 7, pad: 1, add: other},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 1, n: 130, k: 40, pad: 1, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 129, n: 2, k: 200, pad: 3, add: other, bias: true},
	{op: kernels.Forward, factors: bf16, result: f32, m: 131, n: 260, k: 72, pad: 4, add: itself},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 64, n: 128, k: 250, add: other},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 17, n: 36, k: 1100, pad: 4},
	{op: kernels.Forward, factors: bf16, result: f32, m: 67, n: 65, k: 75, pad: 1, odd: true, bias: true},
	{op: kernels.Forward, factors: bf16, result: bf16, m: 3, n: 70, k: 330, pad: 4, odd: true, add: other},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 1, n: 1, k: 0},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 5, n: 3, k: 7, pad: 1},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 129, n: 330, k: 133, pad: 4, add: itself},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 65, n: 67, k: 90, pad: 1, odd: true, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 1, n: 1, k: 0, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 3, n: 5, k: 7, pad: 1, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 131, n: 260, k: 640, pad: 4, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 65, n: 70, k: 90, pad: 1, odd: true, add: itself},
}

// wgmmaSplits cut K into parts; a part may be empty.
var wgmmaSplits = []problem{
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 150, n: 130, k: 300, splits: 3, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 24, n: 9, k: 130, splits: 7, pad: 1},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 9, n: 24, k: 200, splits: 2, odd: true, add: other},
}

func checkWGMMA(d *kerneltest.Device, problems ...problem) error {
	for _, p := range problems {
		p.family = kernels.WGMMA
		if err := p.check(d); err != nil {
			return err
		}
	}
	return nil
}

// Every kernel that may compute a product is right, and all give the same bits: tiles
// of every shape, loaded by TMA or by threads, and parts of K cut at the same places.
func TestWGMMA(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		if err := checkAlignedRows(d, nil); err != nil {
			return err
		}
		return checkWGMMA(d, append(wgmmaProblems, wgmmaSplits...)...)
	}, hopper)
}

// checkAlignedRows computes a product whose rows of C start at multiples of 16 bytes,
// which is when they are stored in pieces of 16, and end between two such pieces.
func checkAlignedRows(d *kerneltest.Device, only []string) error {
	p := problem{op: kernels.Forward, factors: bf16, result: bf16, m: 70, n: 271, k: 40, family: kernels.WGMMA, only: only}
	want, err := p.compute(d)
	if err != nil {
		return err
	}
	a, b, _, _, _ := p.operands()
	c := newOperand(rand.New(rand.NewPCG(4, 4)), bf16, p.m, p.n, 280, 8)
	product := kernels.Product{Op: p.op, Factors: bf16, Result: bf16, M: p.m, N: p.n, K: p.k, A: a.place(d, false), B: b.place(d, false)}
	for i := 0; ; i++ {
		product.C = c.place(d, true)
		all, err := product.Candidates(kernels.WGMMA, 1)
		if err != nil || i == len(all) {
			return err
		}
		if !named(all[i].Spec.Entry, only) {
			continue
		}
		if err := d.LaunchPlanned(all[i]); err != nil {
			return err
		}
		got, err := c.read(d)
		if err == nil {
			err = testx.Identical(got, want[0])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", all[i].Spec.Entry, err)
		}
	}
}

// A row's bits are those that it has alone, in the tile that a decode step takes.
func TestWGMMABatchInvariant(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		whole := problem{op: kernels.Forward, factors: bf16, result: f32, m: 150, n: 140, k: 330, family: kernels.WGMMA}
		x, w, _, _, _ := whole.operands()
		want, err := whole.compute(d)
		if err != nil {
			return err
		}
		chip := kernels.Chip{Arch: kernels.Arch{Major: 9}, SMs: 132, Family: kernels.WGMMA}
		r := rand.New(rand.NewPCG(3, 3))
		for _, row := range []int{0, 17, 127, 149} {
			alone := newOperand(r, bf16, 1, x.cols, 352, 8)
			copy(alone.values, x.values[row*x.cols:])
			c := newOperand(r, f32, 1, whole.n, whole.n, 0)
			p := kernels.Product{Op: kernels.Forward, Factors: bf16, Result: f32, M: 1, N: whole.n, K: whole.k,
				A: alone.place(d, false), B: w.place(d, false), C: c.place(d, true)}
			l, err := p.Plan(chip)
			if err != nil {
				return err
			}
			if err := d.LaunchPlanned(l); err != nil {
				return err
			}
			got, err := c.read(d)
			if err == nil {
				err = testx.Identical(got, want[0][row*whole.n:][:whole.n])
			}
			if err != nil {
				return fmt.Errorf("row %d by %s: %w", row, l.Spec.Entry, err)
			}
		}
		return nil
	}, hopper)
}
