package kernels_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// partial is a packing whose second and third prefixes are parts of the prompt.
var partial = &engine.Packing{Rows: 122, Segments: []engine.Segment{
	{Start: 0, Len: 80},
	{Start: 80, Len: 9, PrefixStart: 0, PrefixLen: 75},
	{Start: 89, Len: 33, PrefixStart: 3, PrefixLen: 68},
}}

// attentionProblems has, for bf16, every head size that has a kernel and some that run on the
// next larger, groups that do not divide 64, segments around the split, prompts
// that end inside, at and beyond one, and both layouts. fp32 has one kernel.
func attentionProblems(bf16 bool) []*attentionProblem {
	if !bf16 {
		return []*attentionProblem{
			newAttention(1, bf16, 1, 1, 16, prompt(1), aligned),
			newAttention(2, bf16, 4, 2, 24, prompt(63, 3, 66), misaligned),
			newAttention(6, bf16, 3, 1, 48, partial, layout{}),
			newAttention(7, bf16, 1, 1, 256, prompt(65, 2), aligned),
		}
	}
	return []*attentionProblem{
		newAttention(1, bf16, 1, 1, 16, prompt(1), aligned),
		newAttention(2, bf16, 4, 2, 64, prompt(63, 3, 1, 66), aligned),
		newAttention(3, bf16, 3, 1, 32, prompt(65, 2, 70), misaligned),
		newAttention(4, bf16, 2, 2, 96, prompt(64, 1), aligned),
		newAttention(5, bf16, 2, 1, 128, prompt(130, 5), aligned),
		newAttention(6, bf16, 7, 1, 48, partial, layout{}),
		newAttention(7, bf16, 2, 1, 144, prompt(66, 2), misaligned),
	}
}

func TestAttention(t *testing.T) {
	for _, bf16 := range []bool{true, false} {
		t.Run(map[bool]string{true: "bf16", false: "f32"}[bf16], func(t *testing.T) {
			kerneltest.EachMode(t, func(d *kerneltest.Device) error {
				for i, p := range attentionProblems(bf16) {
					if err := p.checkForward(d); err != nil {
						return fmt.Errorf("problem %d: %w", i, err)
					}
				}
				return nil
			}, noConflicts)
		})
	}
}

// Scores of ±1000, whose exponentials do not exist in fp32, rising and falling.
func TestAttentionLargeScores(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		for _, bf16 := range []bool{true, false} {
			p := newAttention(8, bf16, 2, 2, 16, prompt(150), aligned)
			for r := range p.packing.Rows {
				p.q.Row(r)[0], p.q.Row(r)[16] = 64, 64
				p.k.Row(r)[0], p.k.Row(r)[16] = float64(r-75), float64(75-r)
			}
			if err := p.checkForward(d); err != nil {
				return err
			}
		}
		return nil
	})
}

// A row's bits depend on what it sees alone: not on the rows beside it, on how a
// prompt is shared, or on where its segment lies.
func TestAttentionInvariant(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		for _, bf16 := range []bool{true, false} {
			if err := invariant(d, bf16); err != nil {
				return err
			}
		}
		return nil
	})
}

func invariant(d *kerneltest.Device, bf16 bool) error {
	const n, first, second = 70, 5, 80
	whole := newAttention(9, bf16, 6, 2, 64, prompt(n, first, second), aligned)
	o, lse, err := whole.forward(d)
	if err != nil {
		return err
	}
	span := func(from, n int) (rows []int) {
		for r := range n {
			rows = append(rows, from+r)
		}
		return rows
	}
	own := prompt(n + second)
	inFront := prompt(33, 2)
	inFront.Segments = append(inFront.Segments, engine.Segment{Start: 35, Len: n},
		engine.Segment{Start: 35 + n, Len: second, PrefixStart: 35, PrefixLen: n})
	inFront.Rows = 35 + n + second
	for i, c := range []struct {
		packing *engine.Packing
		rows    []int // of whole
	}{
		{prompt(n), span(0, n)},
		{prompt(20), span(0, 20)},
		{own, append(span(0, n), span(n+first, second)...)},
		{inFront, slices.Concat(span(0, 35), span(0, n), span(n+first, second))},
	} {
		p := *whole
		p.packing, p.layout = c.packing, layout{i, 3 * i}
		p.q, p.k, p.v = rowsOf(whole.q, c.rows), rowsOf(whole.k, c.rows), rowsOf(whole.v, c.rows)
		po, pl, err := p.forward(d)
		if err != nil {
			return err
		}
		from := 0
		if c.packing == inFront {
			from = 35
		}
		rest := span(from, len(c.rows)-from)
		if err := same(fmt.Sprintf("packing %d: O", i), rowsOf(po, rest), rowsOf(o, c.rows[from:])); err != nil {
			return err
		}
		if err := same(fmt.Sprintf("packing %d: LSE", i), rowsOf(pl, rest), rowsOf(lse, c.rows[from:])); err != nil {
			return err
		}
	}
	return nil
}

// A NaN or an Inf in a key or a value reaches the rows that see it and no others,
// whose bits stay as they were.
func TestAttentionIsolatesNaN(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		for _, bf16 := range []bool{true, false} {
			if err := isolates(d, bf16); err != nil {
				return err
			}
		}
		return nil
	})
}

func isolates(d *kerneltest.Device, bf16 bool) error {
	clean := newAttention(10, bf16, 4, 2, 32, prompt(40, 30, 50), aligned)
	want, _, err := clean.forward(d)
	if err != nil {
		return err
	}
	for i, at := range []int{0, 39, 45, 69, 70, 119} {
		bad := []float64{math.NaN(), math.Inf(1)}[i%2]
		p := *clean
		p.k, p.v = clean.k.Clone(), clean.v.Clone()
		p.k.Row(at)[3] = math.NaN() // of query heads 0 and 1
		p.v.Row(at)[32+5] = bad     // column 5 of query heads 2 and 3
		got, _, err := p.forward(d)
		if err != nil {
			return err
		}
		for r := range got.Rows {
			sees := slices.Contains(ref.Visible(p.packing, r), at)
			for c, v := range got.Row(r) {
				poisoned := sees && (c < 2*32 || c%32 == 5)
				finite := !math.IsNaN(v) && !math.IsInf(v, 0)
				if finite == poisoned || finite && v != want.Row(r)[c] {
					return fmt.Errorf("row %d is not finite: O[%d][%d] = %g, without it %g", at, r, c, v, want.Row(r)[c])
				}
			}
		}
	}
	return nil
}
