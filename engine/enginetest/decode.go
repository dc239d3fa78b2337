package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

// sequence is one running sequence of a decode test: its pages and the keys
// and values of all the positions it will have.
type sequence struct {
	pages    []int32
	prompt   int // positions already in the cache
	prompted int // of these, how many it shares with the sequence before it
	k, v     ref.Mat
}

// cache allocates a KV cache full of NaNs, so that a slot that no sequence has
// written shows when it is read.
func (e *env) cache(pages int, h heads) engine.KVCache {
	n := pages * engine.PageSize * h.kv * h.d
	c := engine.KVCache{Pages: pages, KVHeads: h.kv, HeadDim: h.d}
	for _, b := range []*engine.Buffer{&c.K, &c.V} {
		buf, err := e.Alloc(e.a, n)
		if err != nil {
			panic(err)
		}
		*b = buf
		e.loose = append(e.loose, buf)
		e.Fill(engine.Vector(buf, 0, n), float32(math.NaN()))
	}
	return c
}

// sequences makes one sequence for each prompt length, with room for steps more
// tokens. A negative length shares the prompt of the sequence before it: its
// full pages are the same pages, the last partly filled one is its own.
func (e *env) sequences(prompts []int, steps int, h heads) (seqs []*sequence, pages int) {
	for i, n := range prompts {
		shared := n < 0
		if shared {
			n = -n
		}
		s := &sequence{prompt: n, k: e.activations(n+steps, h.kv*h.d, 1), v: e.activations(n+steps, h.kv*h.d, 1)}
		if shared {
			prev := seqs[i-1]
			copy(s.k.V[:n*s.k.Cols], prev.k.V)
			copy(s.v.V[:n*s.v.Cols], prev.v.V)
			s.prompted = n
			s.pages = slices.Clone(prev.pages[:n/engine.PageSize])
		}
		for len(s.pages)*engine.PageSize < n+steps {
			s.pages = append(s.pages, int32(pages))
			pages++
		}
		seqs = append(seqs, s)
	}
	// Page p lies at a place that has nothing to do with p.
	perm := e.rng.Perm(pages + 2)
	for _, s := range seqs {
		for i, p := range s.pages {
			s.pages[i] = int32(perm[p])
		}
	}
	return seqs, pages + 2
}

// slot returns the slot of position p.
func (s *sequence) slot(p int) int32 {
	return s.pages[p/engine.PageSize]*engine.PageSize + int32(p%engine.PageSize)
}

// prefill writes every prompt's keys and values with one KVWrite. Rows are in
// reverse, a row in the middle is left out by a negative slot, and a shared
// prompt's last page is written from the rows of the first sequence that has
// the prompt.
func (e *env) prefill(c engine.KVCache, seqs []*sequence) {
	var k, v []float32
	var rows, slots []int32
	var prev int
	for i, s := range seqs {
		first := len(k) / s.k.Cols
		from := 0
		if s.prompted > 0 {
			first, from = prev, s.prompted/engine.PageSize*engine.PageSize
		} else {
			k = append(k, toF32(s.k.V[:s.prompt*s.k.Cols])...)
			v = append(v, toF32(s.v.V[:s.prompt*s.v.Cols])...)
		}
		prev = first
		for p := s.prompt - 1; p >= from; p-- {
			rows, slots = append(rows, int32(first+p)), append(slots, s.slot(p))
		}
		if i == 0 && s.prompt > 0 {
			rows, slots = append(rows, 0), append(slots, -1)
		}
	}
	width := c.KVHeads * c.HeadDim
	kb, vb := e.data("prompt K", len(k)/width, width, k), e.data("prompt V", len(v)/width, width, v)
	e.KVWrite(engine.KVWriteArgs{Cache: c, K: kb.Tensor, V: vb.Tensor,
		Rows: e.ints("Rows", rows).Tensor, Slots: e.ints("Slots", slots).Tensor})
}

// table lays the sequences' pages out as a page table; unused entries are
// pages that do not exist.
func (e *env) table(seqs []*sequence, width int) *block {
	var ids []int32
	for _, s := range seqs {
		row := slices.Repeat([]int32{-1 << 30}, width)
		copy(row, s.pages)
		ids = append(ids, row...)
	}
	return e.intMatrix("PageTable", input, len(seqs), width, ids)
}

// expectDecode is the attention of the last of n positions.
func (a arith) expectDecode(q []float64, s *sequence, n int, h heads, scale float64) expected {
	out := expected{make([]float64, len(q)), make([]float64, len(q))}
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	for i := range h.h {
		g := i / (h.h / h.kv)
		sc := a.scoresOf(q[i*h.d:(i+1)*h.d], keysOf(s.k, rows, g, h.d), scale)
		a.weighted(&sc, keysOf(s.v, rows, g, h.d), out.v[i*h.d:(i+1)*h.d], out.err[i*h.d:(i+1)*h.d])
	}
	return out
}

func decodeChecks() (checks list) {
	batches := [][]int{{0}, {1, 0}, {31, 32, 33}, {5, -5, -5, 40}, {32, -32, 0, 70, -70}, {64, -64, -64, -64, 3, 100, -100}, {200},
		{254, 3}, {300, -300, -300, 256, -256}, {520}}
	for i, prompts := range batches {
		keys := 0
		for _, n := range prompts {
			keys += max(n, -n)
		}
		for j := range 2 {
			h := headShapes[(2*i+j)%len(headShapes)]
			checks.add("DecodeAttention", fmt.Sprintf("prompts %v", prompts), h.String(), keys*h.h*h.d, i+j,
				func(e *env) error { return decode(e, prompts, h, 3) })
		}
	}
	many := make([]int, 40)
	for i := range many {
		many[i] = i
	}
	checks.one("DecodeAttention", "batch of 40", func(e *env) error { return decode(e, many, heads{2, 1, 16}, 2) })
	return checks
}

// decode runs a few steps over sequences that were prefilled with KVWrite. In
// each step another row is inactive: it gets zeros and nothing is stored, and
// later steps of the other rows do not see it.
func decode(e *env, prompts []int, h heads, steps int) error {
	seqs, pages := e.sequences(prompts, steps, h)
	c := e.cache(pages, h)
	e.prefill(c, seqs)
	maxPages := 0
	for _, s := range seqs {
		maxPages = max(maxPages, len(s.pages))
	}
	table := e.table(seqs, maxPages+1)
	at := make([]int, len(seqs))
	for i, s := range seqs {
		at[i] = s.prompt
	}
	type step struct {
		q, o *block
		at   []int
	}
	var taken []step
	for n := range steps {
		var k, v []float32
		positions, now := make([]int32, len(seqs)), make([]int, len(seqs))
		for i, s := range seqs {
			positions[i], now[i] = int32(at[i]), at[i]
			k, v = append(k, toF32(s.k.Row(at[i]))...), append(v, toF32(s.v.Row(at[i]))...)
			if len(seqs) > 1 && i == n%len(seqs) {
				positions[i], now[i] = -1, -1
				continue
			}
			at[i]++
		}
		s := step{e.in("Q", len(seqs), h.h*h.d), e.out("O", len(seqs), h.h*h.d), now}
		e.DecodeAttention(engine.DecodeAttentionArgs{
			O: s.o.Tensor, Q: s.q.Tensor, K: e.data("K", len(seqs), h.kv*h.d, k).Tensor, V: e.data("V", len(seqs), h.kv*h.d, v).Tensor,
			Cache: c, PageTable: table.Tensor, Positions: e.ints("Positions", positions).Tensor, Scale: h.scale(),
		})
		taken = append(taken, s)
	}
	if err := e.fetch(); err != nil {
		return err
	}
	for n, s := range taken {
		want := expected{}
		for i, p := range s.at {
			row := expected{make([]float64, h.h*h.d), make([]float64, h.h*h.d)}
			if p >= 0 {
				row = e.expectDecode(s.q.mat().Row(i), seqs[i], p+1, h, float64(h.scale()))
			}
			want = expected{append(want.v, row.v...), append(want.err, row.err...)}
		}
		if err := s.o.near(want); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
	}
	return nil
}
