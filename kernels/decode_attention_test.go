package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// sequence is a row of a decode batch: n positions are in the cache, of which the
// first `shared` are those of row `like`, whose full pages it uses. A negative n is
// an inactive row.
type sequence struct{ n, like, shared int }

// decodeProblem is a batch. Row b's packing is its cached positions and, as a
// segment of its own, the new one.
type decodeProblem struct {
	rows    []*attentionProblem // nil: inactive
	lengths []int
	pages   [][]int32
	count   int // pages of the cache
	columns int // of the page table
	*attentionProblem
}

func newDecode(seed uint64, bf16 bool, h, kv, d int, l layout, sequences ...sequence) *decodeProblem {
	p := &decodeProblem{attentionProblem: &attentionProblem{bf16: bf16, h: h, kv: kv, d: d, layout: l}, columns: 1}
	for i, s := range sequences {
		if s.n < 0 {
			p.rows, p.lengths, p.pages = append(p.rows, nil), append(p.lengths, s.n), append(p.pages, nil)
			continue
		}
		packing := &engine.Packing{Rows: s.n + 1, Segments: []engine.Segment{{Len: s.n}, {Start: s.n, Len: 1, PrefixLen: s.n}}}
		if s.n == 0 {
			packing.Segments = []engine.Segment{{Len: 1}}
		}
		row := newAttention(seed*100+uint64(i), bf16, h, kv, d, packing, l)
		var pages []int32
		if s.shared > 0 {
			like := p.rows[s.like]
			copy(row.k.V[:s.shared*kv*d], like.k.V)
			copy(row.v.V[:s.shared*kv*d], like.v.V)
			pages = slices.Clone(p.pages[s.like][:s.shared/kernels.PageTokens])
		}
		for len(pages)*kernels.PageTokens < s.n+1 {
			pages = append(pages, int32(p.count))
			p.count++
		}
		p.rows, p.lengths, p.pages = append(p.rows, row), append(p.lengths, s.n), append(p.pages, pages)
		p.columns = max(p.columns, len(pages))
	}
	// A page's place has nothing to do with its number; two are nobody's.
	p.count += 2
	places := rand.New(rand.NewPCG(seed, 13)).Perm(p.count)
	for _, pages := range p.pages {
		for i, at := range pages {
			pages[i] = int32(places[at])
		}
	}
	return p
}

// stack puts one row of each sequence below another; an inactive row has NaN.
func (p *decodeProblem) stack(cols int, row func(*attentionProblem) []float64) ref.Mat {
	m := ref.New(len(p.rows), cols)
	for b, r := range p.rows {
		for i := range cols {
			m.Row(b)[i] = math.NaN()
			if r != nil {
				m.Row(b)[i] = row(r)[i]
			}
		}
	}
	return m
}

// run fills the cache, decodes one step and returns its output. The grid of Decode
// and the number of unused columns of the table are the caller's.
func (p *decodeProblem) run(d *kerneltest.Device, blocks, spare int) (ref.Mat, error) {
	none := ref.Mat{}
	a, err := p.kernels()
	if err != nil {
		return none, err
	}
	batch, width, columns := len(p.rows), p.kv*p.d, p.columns+spare
	cacheK := output(d, p.count*kernels.PageTokens, width, layout{}, p.bf16)
	cacheV := output(d, p.count*kernels.PageTokens, width, layout{}, p.bf16)

	// Prompts: rows of all sequences below one another, those of shared pages once.
	var k, v ref.Mat
	var rows, slots, table, positions []int32
	written := map[int32]bool{}
	k.Cols, v.Cols = width, width
	for b, r := range p.rows {
		positions = append(positions, int32(p.lengths[b]))
		line := slices.Repeat([]int32{-1 << 30}, columns+1)
		copy(line, p.pages[b])
		table = append(table, line...)
		if r == nil {
			continue
		}
		for at := range p.lengths[b] {
			slot := p.pages[b][at/kernels.PageTokens]*kernels.PageTokens + int32(at%kernels.PageTokens)
			if written[slot] {
				slot = -1
			}
			written[slot] = true
			rows, slots = append(rows, int32(k.Rows+at)), append(slots, slot)
		}
		k.V, v.V = append(k.V, r.k.V...), append(v.V, r.v.V...)
		k.Rows, v.Rows = k.Rows+r.k.Rows, v.Rows+r.v.Rows
	}
	if len(rows) > 0 {
		tk, tv := input(d, k, p.layout, p.bf16), input(d, v, p.layout, p.bf16)
		if err := d.Launch(a.KVWrite, [3]int{len(rows)}, cacheK.arg(), cacheV.arg(), tk.arg(), tv.arg(),
			kerneltest.In(d, rows), kerneltest.In(d, slots), p.kv, p.d, tk.stride, tv.stride); err != nil {
			return none, err
		}
	}

	in := func(m ref.Mat) *tensor { return input(d, m, p.layout, p.bf16) }
	q := in(p.stack(p.h*p.d, func(r *attentionProblem) []float64 { return r.q.Row(r.q.Rows - 1) }))
	tk := in(p.stack(width, func(r *attentionProblem) []float64 { return r.k.Row(r.k.Rows - 1) }))
	tv := in(p.stack(width, func(r *attentionProblem) []float64 { return r.v.Row(r.v.Rows - 1) }))
	o := output(d, batch, p.h*p.d, p.layout, p.bf16)
	pages, at := kerneltest.In(d, table), kerneltest.In(d, positions)
	if a.Simple {
		err = d.Launch(a.SimpleDecode, [3]int{batch * p.kv}, o.arg(), q.arg(), tk.arg(), tv.arg(), cacheK.arg(), cacheV.arg(), pages, at,
			p.kv, a.Group, p.d, columns, columns+1, o.stride, q.stride, tk.stride, tv.stride, p.scale())
		if err != nil {
			return none, err
		}
		return o.read(d)
	}
	plan, err := a.Plan(batch)
	if err != nil {
		return none, err
	}
	s := a.Scratch(batch, columns, p.kv)
	scratch := d.Out(s.Bytes)
	counts, items, order, sums, stats := scratch.At(s.Counts), scratch.At(s.Items), scratch.At(s.Order), scratch.At(s.Sums), scratch.At(s.Stats)
	if err := d.Launch(plan, [3]int{kernels.DecodeSplits(columns)}, counts, items, order, pages, at, batch, columns, columns+1, a.ItemRows()); err != nil {
		return none, err
	}
	if err := d.Launch(a.Decode, [3]int{blocks}, sums, stats, q.arg(), tk.arg(), tv.arg(), cacheK.arg(), cacheV.arg(), pages, at,
		counts, items, order, batch, p.kv, a.Group, p.d, columns, columns+1, q.stride, tk.stride, tv.stride, p.scale()); err != nil {
		return none, err
	}
	if err := d.Launch(a.Merge, [3]int{a.DeltaGrid(batch, p.h)}, o.arg(), sums, stats, at, batch, p.h, p.d, columns, o.stride); err != nil {
		return none, err
	}
	return o.read(d)
}

// check compares each row with the reference and, in bits, with packed attention.
func (p *decodeProblem) check(d *kerneltest.Device) error {
	for i, launch := range [][2]int{{3, 0}, {64, 9}} {
		o, err := p.run(d, launch[0], launch[1])
		if err != nil {
			return err
		}
		for b, r := range p.rows {
			got, want := rowsOf(o, []int{b}), ref.New(1, o.Cols) // an inactive row is zero
			if r != nil {
				packed, _, err := r.forwardOf(d, r.packing.Segments[len(r.packing.Segments)-1:])
				if err != nil {
					return err
				}
				want = rowsOf(packed, []int{r.packing.Rows - 1})
				if i == 0 {
					wo, _, tol, _ := r.expect()
					last := []int{r.packing.Rows - 1}
					if err := near(fmt.Sprintf("row %d", b), got, rowsOf(wo, last), rowsOf(tol, last)); err != nil {
						return err
					}
				}
			}
			if err := same(fmt.Sprintf("row %d, decoded against packed", b), got, want); err != nil {
				return err
			}
		}
	}
	return nil
}

// decodeProblems are, for bf16, sequences without a full split, at its ends, nested prompts, a
// group with more queries than one item has, inactive rows, every head size.
func decodeProblems(bf16 bool) []*decodeProblem {
	none := sequence{n: -1}
	if !bf16 {
		return []*decodeProblem{
			newDecode(2, bf16, 4, 2, 24, misaligned, sequence{n: 140}, none, sequence{130, 0, 128}, sequence{n: 0}, sequence{n: 63}),
			newDecode(4, bf16, 1, 1, 256, aligned, sequence{n: 70}),
		}
	}
	return []*decodeProblem{
		newDecode(1, bf16, 2, 1, 16, aligned, sequence{n: 0}, none, sequence{n: 63}, sequence{n: 64}, sequence{n: 31}),
		newDecode(2, bf16, 4, 2, 64, misaligned, sequence{n: 140}, none, sequence{130, 0, 128}, sequence{70, 0, 66}, sequence{n: 66},
			sequence{190, 2, 130}, sequence{127, 0, 127}),
		newDecode(3, bf16, 24, 1, 96, aligned, sequence{n: 65}, sequence{64, 0, 64}, sequence{100, 0, 64}, sequence{68, 0, 65}),
		newDecode(4, bf16, 1, 1, 128, aligned, sequence{n: 200}),
	}
}

func TestDecodeAttention(t *testing.T) {
	for _, bf16 := range []bool{true, false} {
		t.Run(map[bool]string{true: "bf16", false: "f32"}[bf16], func(t *testing.T) {
			kerneltest.EachMode(t, func(d *kerneltest.Device) error {
				for i, p := range decodeProblems(bf16) {
					if err := p.check(d); err != nil {
						return fmt.Errorf("problem %d: %w", i, err)
					}
				}
				return nil
			}, noConflicts)
		})
	}
}

// The plan puts rows into one item exactly where a whole split that none of them is
// writing has the same pages, in items of at most so many rows.
func TestDecodePlan(t *testing.T) { kerneltest.EachMode(t, checkPlan) }

func checkPlan(d *kerneltest.Device) error {
	const columns, stride, rowsPerItem = 7, 8, 2
	a, err := kernels.AttentionFor(kernels.BF16, 64, 1)
	if err != nil {
		return err
	}
	// Rows 1, 2, 4 and 5 share three splits at most; 0 is inactive, 6 is beyond the
	// table, 3 has the first split alone.
	positions := []int32{-1, 200, 130, 64, 127, 223, 224}
	table := make([]int32, 0, len(positions)*stride)
	for b := range positions {
		line := []int32{1, 2, 3, 4, 5, int32(20 + b), int32(30 + b), -1}
		if b == 5 {
			line[3] = 9 // the second split differs
		}
		table = append(table, line...)
	}
	batch, splits := len(positions), kernels.DecodeSplits(columns)
	counts, items, order := d.Out(4*splits), d.Out(4*splits*batch), d.Out(4*splits*batch)
	plan, err := a.Plan(batch)
	if err != nil {
		return err
	}
	if err := d.Launch(plan, [3]int{splits}, counts, items, order, kerneltest.In(d, table), kerneltest.In(d, positions),
		batch, columns, stride, rowsPerItem); err != nil {
		return err
	}
	n, list, rows := kerneltest.Values[int32](d, counts), kerneltest.Values[int32](d, items), kerneltest.Values[int32](d, order)
	want := [][][]int32{
		{{1, 2}, {3, 4}, {5}},   // pages 1, 2 and whole: positions from 64 on
		{{1, 2}, {3}, {4}, {5}}, // pages 3, 4: 4 is writing position 127
		{{1}, {2}, {5}},         // pages 5 and one of their own
		{{1}, {5}},
	}
	for j := range splits {
		var got [][]int32
		for _, item := range list[j*batch:][:n[j]] {
			got = append(got, rows[j*batch+int(item&65535):][:item>>16])
		}
		if fmt.Sprint(got) != fmt.Sprint(want[j]) {
			return fmt.Errorf("split %d: items %v, want %v", j, got, want[j])
		}
	}
	return nil
}

// A context of more splits than the 32 whose items a warp counts at once, beside a
// short one.
func TestDecodeAttentionLong(t *testing.T) {
	p := newDecode(5, true, 1, 1, 16, aligned, sequence{n: 33*kernels.AttentionSplit + 5}, sequence{n: 3})
	d := kerneltest.Open(t, kerneltest.Library(t, emu.Options{}), emu.Modes()[0])
	require.NoError(t, p.check(d))
}
