package main

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// decodeShape is a decode step's attention: groups of rows that continue one
// prompt each, by so many tokens.
type decodeShape struct{ groups, group, prompt, generated, heads, kv, dim int }

func (d decodeShape) rows() int { return d.groups * d.group }

// tokens is the number of keys that a row sees.
func (d decodeShape) tokens() int { return d.prompt + d.generated }

func pagesFor(tokens int) int { return (tokens + engine.PageSize - 1) / engine.PageSize }

// decodeWorkloads are 16 groups of 16 rows over prompts of 1,024 tokens, whose
// pages a group shares or, for comparison, not.
func decodeWorkloads(quick bool) (all []*workload) {
	shapes := []decodeShape{{16, 16, 1024, 256, 14, 2, 64}, {16, 16, 1024, 256, 12, 2, 128}}
	if quick {
		shapes = []decodeShape{{2, 2, 64, 5, 2, 1, 64}}
	}
	for _, s := range shapes {
		all = append(all, decodeWorkload(s, true), decodeWorkload(s, false))
	}
	return all
}

func decodeWorkload(s decodeShape, shared bool) *workload {
	how, prompts := "prompt shared by the group", s.groups
	if !shared {
		how, prompts = "a prompt for each row", s.rows()
	}
	keys := prompts*s.prompt + s.rows()*s.generated
	x := &workload{
		group: "decode-attn",
		name: fmt.Sprintf("%s: %d × %d rows, %d + %d tokens, %d heads, %d kv heads, head %d", how, s.groups, s.group,
			s.prompt, s.generated, s.heads, s.kv, s.dim),
		flop: 4 * float64(s.rows()*s.tokens()*s.heads*s.dim), bytes: float64(4 * keys * s.kv * s.dim), operands: 4 * keys * s.kv * s.dim,
		peers: []request{{"kind": "sdpa-decode", "rows": s.rows(), "tokens": s.tokens(), "heads": s.heads, "kv": s.kv, "dim": s.dim}},
	}
	x.setup = func(e *env) (func(int), func() verdict) {
		sets := each(e, func() *decodeSet { return newDecodeSet(e, s, shared) })
		return func(i int) { e.DecodeAttention(sets[i].args) }, func() verdict { return sets[0].check(e) }
	}
	return x
}

// decodeSet is a filled cache, and rows that attend to it.
type decodeSet struct {
	shape   decodeShape
	args    engine.DecodeAttentionArgs
	k, v    operand // of the cache: row i at slot i
	q, x, y operand // of the step: queries, new keys and values
	table   []int32
}

func newDecodeSet(e *env, s decodeShape, shared bool) *decodeSet {
	d := &decodeSet{shape: s}
	columns, prompt := pagesFor(s.tokens()), s.prompt/engine.PageSize
	next := int32(0)
	take := func(n int) (pages []int32) {
		for range n {
			pages = append(pages, next)
			next++
		}
		return pages
	}
	var whole []int32
	for r := range s.rows() {
		if !shared || r%s.group == 0 {
			whole = take(prompt)
		}
		d.table = append(append(d.table, whole...), take(columns-prompt)...)
	}
	slots := int(next) * engine.PageSize
	wide := s.kv * s.dim
	cache := engine.KVCache{Pages: int(next), KVHeads: s.kv, HeadDim: s.dim,
		K: e.empty(engine.BF16, slots, wide).Buf, V: e.empty(engine.BF16, slots, wide).Buf}
	d.k, d.v = e.random(engine.BF16, slots, wide), e.random(engine.BF16, slots, wide)
	ids := make([]int32, slots)
	for i := range ids {
		ids[i] = int32(i)
	}
	places := e.ints(1, slots, ids)
	e.KVWrite(engine.KVWriteArgs{Cache: cache, K: d.k.Tensor, V: d.v.Tensor, Rows: places, Slots: places})
	positions := make([]int32, s.rows())
	for i := range positions {
		positions[i] = int32(s.tokens() - 1)
	}
	d.q, d.x, d.y = e.random(engine.BF16, s.rows(), s.heads*s.dim), e.random(engine.BF16, s.rows(), wide), e.random(engine.BF16, s.rows(), wide)
	d.args = engine.DecodeAttentionArgs{O: e.empty(engine.BF16, s.rows(), s.heads*s.dim), Q: d.q.Tensor, K: d.x.Tensor, V: d.y.Tensor, Cache: cache,
		PageTable: e.ints(s.rows(), columns, d.table), Positions: e.ints(1, s.rows(), positions), Scale: float32(1 / math.Sqrt(float64(s.dim)))}
	return d
}

func (d *decodeSet) check(e *env) verdict {
	var c compared
	s := d.shape
	got := e.read(d.args.O)
	columns := pagesFor(s.tokens())
	for range checkedRows {
		row, h := e.rng.IntN(s.rows()), e.rng.IntN(s.heads)
		g := h / (s.heads / s.kv)
		cached := func(o, last operand) func(j, l int) float64 {
			return func(j, l int) float64 {
				if j == s.tokens()-1 {
					return last.at(row, g*s.dim+l)
				}
				slot := int(d.table[row*columns+j/engine.PageSize])*engine.PageSize + j%engine.PageSize
				return o.at(slot, g*s.dim+l)
			}
		}
		v := cached(d.v, d.y)
		p, errs, _ := weights(s.tokens(), s.dim, float64(d.args.Scale), func(l int) float64 { return d.q.at(row, h*s.dim+l) }, cached(d.k, d.x))
		for l := range s.dim {
			want, tol := mix(p, errs, func(j int) float64 { return v(j, l) })
			c.element(fmt.Sprintf("O[%d] head %d column %d", row, h, l), float64(got[row*s.heads*s.dim+h*s.dim+l]), want, stored(engine.BF16, want, tol))
		}
	}
	return c.verdict
}
