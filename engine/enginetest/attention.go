package enginetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

// heads are the number of query heads, of key-value heads and the head
// dimension: ratios of 1, 2 and 4, dimensions of 16 to 128.
type heads struct{ h, kv, d int }

func (h heads) String() string { return fmt.Sprintf("H=%d,KV=%d,D=%d", h.h, h.kv, h.d) }

func (h heads) scale() float32 { return float32(1 / math.Sqrt(float64(h.d))) }

var headShapes = []heads{{1, 1, 16}, {2, 1, 32}, {4, 1, 16}, {4, 2, 64}, {3, 3, 32}, {2, 2, 128}, {8, 2, 16}, {4, 1, 128}, {3, 1, 96}}

// headsFor chooses a shape for a packing: a small one where it is long.
func headsFor(p *engine.Packing, i int) heads {
	if p.Rows > 200 {
		return []heads{{2, 1, 64}, {1, 1, 128}, {2, 2, 16}}[i%3]
	}
	return headShapes[i%len(headShapes)]
}

// group is a prompt and the lengths of the responses that share it.
type group struct {
	prompt    int
	responses []int
}

// pack lays groups out: each prompt, then its responses. With shared false each
// response is preceded by a copy of its prompt in one segment without prefix.
func pack(groups []group, shared bool) *engine.Packing {
	p := &engine.Packing{}
	add := func(n, prefix, prefixLen int) int {
		p.Segments = append(p.Segments, engine.Segment{Start: p.Rows, Len: n, PrefixStart: prefix, PrefixLen: prefixLen})
		p.Rows += n
		return p.Rows - n
	}
	for _, g := range groups {
		if !shared {
			for _, n := range g.responses {
				add(g.prompt+n, 0, 0)
			}
			continue
		}
		start := add(g.prompt, 0, 0)
		for _, n := range g.responses {
			add(n, start, g.prompt)
		}
	}
	p.Check()
	return p
}

// unshare returns, for each row of the unshared packing, the row of the shared
// one that it copies.
func unshare(groups []group) (rows []int) {
	start := 0
	for _, g := range groups {
		at := start + g.prompt
		for _, n := range g.responses {
			for i := range g.prompt {
				rows = append(rows, start+i)
			}
			for i := range n {
				rows = append(rows, at+i)
			}
			at += n
		}
		start = at
	}
	return rows
}

type namedPacking struct {
	name string
	p    *engine.Packing
}

// packings: single segments around the page, prompts shorter than, equal to and
// longer than a page, several groups, a prefix that is only the head of its
// prompt; and some around 256 keys, a likely size of a larger split.
func packings() (out []namedPacking) {
	for _, n := range []int{1, 2, 31, 32, 33, 64, 65, 100, 257, 300} {
		out = append(out, namedPacking{fmt.Sprintf("one segment of %d", n),
			&engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}}})
	}
	for _, n := range []int{1, 5, 31, 32, 33, 64, 70} {
		out = append(out, namedPacking{fmt.Sprintf("prompt of %d shared", n), pack([]group{{n, []int{3, 1, 40, 33}}}, true)})
	}
	out = append(out,
		namedPacking{"prompt of 255 shared", pack([]group{{255, []int{1, 3}}}, true)},
		namedPacking{"prompt of 270 shared", pack([]group{{270, []int{5, 17}}, {3, []int{2}}}, true)},
		namedPacking{"prompt of 20 shared by a long response", pack([]group{{20, []int{250, 4}}}, true)},
		namedPacking{"several groups", pack([]group{{7, []int{4, 9}}, {33, []int{1, 32, 5}}, {10, nil}}, true)},
	)
	for i := range 6 {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		gs := make([]group, 1+rng.IntN(4))
		for j := range gs {
			gs[j].prompt = 1 + rng.IntN(70)
			for range rng.IntN(4) {
				gs[j].responses = append(gs[j].responses, 1+rng.IntN(40))
			}
		}
		out = append(out, namedPacking{fmt.Sprintf("random %d", i), pack(gs, true)})
	}
	out = append(out, namedPacking{"no rows", &engine.Packing{}})
	return append(out, namedPacking{"prefix is part of a prompt", &engine.Packing{Rows: 52, Segments: []engine.Segment{
		{Start: 0, Len: 40},
		{Start: 40, Len: 6, PrefixStart: 0, PrefixLen: 35},
		{Start: 46, Len: 6, PrefixStart: 3, PrefixLen: 33},
	}}})
}

// kind tells packings apart by what they exercise: the shape of the name, and
// whether a sequence is within a page, over several, or over 256 keys.
func (p namedPacking) kind() string {
	longest := 0
	for _, s := range p.p.Segments {
		longest = max(longest, s.PrefixLen+s.Len)
	}
	shape := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, p.name))
	switch {
	case longest > 256:
		return shape + ", long"
	case longest > engine.PageSize:
		return shape + ", pages"
	}
	return shape
}

// pairs counts the queries and the keys that they see.
func (p namedPacking) pairs() (n int) {
	for _, s := range p.p.Segments {
		n += s.Len*s.PrefixLen + s.Len*(s.Len+1)/2
	}
	return n
}

func attentionChecks() (checks list) {
	for i, p := range packings() {
		for j := range 2 {
			h := headsFor(p.p, i*2+j)
			checks.named("Attention", p.kind(), p.name+"/"+h.String(), p.pairs()*h.h*h.d, i+j, func(e *env) error {
				return attention(e, p.p, h, (i+j)%3 != 0)
			})
		}
	}
	checks.one("Attention", "packing is copied at the call", attentionCopiesPacking)
	checks.one("Attention", "large scores", largeScores)
	return checks
}

type attentionInputs struct{ q, k, v *block }

func (e *env) qkv(rows int, h heads) attentionInputs {
	return attentionInputs{e.in("Q", rows, h.h*h.d), e.in("K", rows, h.kv*h.d), e.in("V", rows, h.kv*h.d)}
}

func (in attentionInputs) args(o *block, h heads, p *engine.Packing) engine.AttentionArgs {
	return engine.AttentionArgs{O: o.Tensor, Q: in.q.Tensor, K: in.k.Tensor, V: in.v.Tensor, HeadDim: h.d, Scale: h.scale(), Packing: p}
}

func attention(e *env, p *engine.Packing, h heads, keepLSE bool) error {
	in := e.qkv(p.Rows, h)
	o := e.out("O", p.Rows, h.h*h.d)
	a := in.args(o, h, p)
	var lse *block
	if keepLSE {
		lse = e.outF32("LSE", p.Rows, h.h)
		a.LSE = lse.Tensor
	}
	e.Attention(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wantO, wantL := e.expectAttention(in.q.mat(), in.k.mat(), in.v.mat(), h.d, float64(a.Scale), p)
	if err := o.near(wantO); err != nil {
		return err
	}
	if lse == nil {
		return nil
	}
	return lse.near(wantL)
}

// attentionCopiesPacking: the caller may reuse its Packing once the call has
// returned.
func attentionCopiesPacking(e *env) error {
	h := heads{2, 1, 16}
	p := pack([]group{{5, []int{3, 4}}}, true)
	in, o := e.qkv(p.Rows, h), e.out("O", p.Rows, h.h*h.d)
	mine := clonePacking(p)
	e.Attention(in.args(o, h, mine))
	mine.Segments[1].PrefixLen, mine.Segments[2].PrefixLen = 1, 2
	if err := e.fetch(); err != nil {
		return err
	}
	want, _ := e.expectAttention(in.q.mat(), in.k.mat(), in.v.mat(), h.d, float64(h.scale()), p)
	return o.near(want)
}

// largeScores: scores of ±1000, whose exponentials do not exist in float32, in
// rising and falling order over several splits.
func largeScores(e *env) error {
	h := heads{2, 2, 16}
	const n = 80
	kv := e.normal(n*h.kv*h.d, 0.1)
	for t := range n {
		for g, sign := range []float32{1, -1} {
			kv[t*h.kv*h.d+g*h.d] = sign * float32(t-n/2) * 10
		}
	}
	qs := e.normal(n*h.h*h.d, 0.1)
	for i := 0; i < len(qs); i += h.d {
		qs[i] = 10
	}
	in := attentionInputs{e.data("Q", n, h.h*h.d, qs), e.data("K", n, h.kv*h.d, kv), e.in("V", n, h.kv*h.d)}
	p := &engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}}
	o, lse := e.out("O", n, h.h*h.d), e.outF32("LSE", n, h.h)
	a := in.args(o, h, p)
	a.Scale, a.LSE = 1, lse.Tensor
	e.Attention(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wantO, wantL := e.expectAttention(in.q.mat(), in.k.mat(), in.v.mat(), h.d, 1, p)
	if err := o.near(wantO); err != nil {
		return err
	}
	return lse.near(wantL)
}

func attentionBackwardChecks() (checks list) {
	for i, p := range packings() {
		h := headsFor(p.p, i)
		checks.named("AttentionBackward", p.kind(), p.name+"/"+h.String(), p.pairs()*h.h*h.d, i, func(e *env) error {
			return attentionBackward(e, p.p, h)
		})
	}
	checks.one("AttentionBackward", "sharing a prompt gives the same gradients", sharedGradients)
	return checks
}

func attentionBackward(e *env, p *engine.Packing, h heads) error {
	in := e.qkv(p.Rows, h)
	do := e.in("DO", p.Rows, h.h*h.d)
	scale := float64(h.scale())
	wo, wl := ref.Attention(in.q.mat(), in.k.mat(), in.v.mat(), h.d, scale, p)
	o, lse := e.data("O", p.Rows, h.h*h.d, toF32(wo.V)), e.dataF32("LSE", p.Rows, h.h, toF32(wl.V))
	dq, dk, dv := e.out("DQ", p.Rows, h.h*h.d), e.out("DK", p.Rows, h.kv*h.d), e.out("DV", p.Rows, h.kv*h.d)
	e.AttentionBackward(engine.AttentionBackwardArgs{
		DQ: dq.Tensor, DK: dk.Tensor, DV: dv.Tensor, DO: do.Tensor, Q: in.q.Tensor, O: o.Tensor,
		K: in.k.Tensor, V: in.v.Tensor, LSE: lse.Tensor, HeadDim: h.d, Scale: h.scale(), Packing: p,
	})
	if err := e.fetch(); err != nil {
		return err
	}
	wq, wk, wv := e.expectAttentionBackward(do.mat(), in.q.mat(), in.k.mat(), in.v.mat(), o.mat(), lse.mat(), h.d, scale, p)
	if err := dq.near(wq); err != nil {
		return err
	}
	if err := dk.near(wk); err != nil {
		return err
	}
	return dv.near(wv)
}

// rowsOf copies the given rows.
func rowsOf(m ref.Mat, rows []int) ref.Mat {
	out := ref.New(len(rows), m.Cols)
	for i, r := range rows {
		copy(out.Row(i), m.Row(r))
	}
	return out
}

// sharedGradients: forward and backward with a shared prompt against the same
// sequences laid out one by one. Outputs are equal in bits; the gradients of a
// shared row are the sums over its copies, within tolerance. The copies of a
// prompt row carry the row's incoming gradient only once.
func sharedGradients(e *env) error {
	for i, gs := range [][]group{{{5, []int{3, 6}}}, {{32, []int{2, 40, 1}}}, {{45, []int{30, 3}}, {3, []int{1, 1, 1, 1}}}} {
		if err := sharedGradientsOf(e, gs, headShapes[(3*i+3)%len(headShapes)]); err != nil {
			return fmt.Errorf("groups %v: %w", gs, err)
		}
	}
	return nil
}

func sharedGradientsOf(e *env, groups []group, h heads) error {
	e.layout = dense
	ps, pu, copies := pack(groups, true), pack(groups, false), unshare(groups)
	in, do := e.qkv(ps.Rows, h), e.in("DO", ps.Rows, h.h*h.d)
	pick := func(b *block, once bool) *block {
		m, seen := rowsOf(b.mat(), copies), map[int]bool{}
		for i, r := range copies {
			if once && seen[r] {
				clear(m.Row(i))
			}
			seen[r] = true
		}
		return e.data(b.name+" unshared", m.Rows, m.Cols, toF32(m.V))
	}
	type side struct{ o, lse, dq, dk, dv *block }
	run := func(in attentionInputs, do *block, p *engine.Packing) side {
		s := side{e.out("O", p.Rows, h.h*h.d), e.outF32("LSE", p.Rows, h.h),
			e.out("DQ", p.Rows, h.h*h.d), e.out("DK", p.Rows, h.kv*h.d), e.out("DV", p.Rows, h.kv*h.d)}
		a := in.args(s.o, h, p)
		a.LSE = s.lse.Tensor
		e.Attention(a)
		e.AttentionBackward(engine.AttentionBackwardArgs{
			DQ: s.dq.Tensor, DK: s.dk.Tensor, DV: s.dv.Tensor, DO: do.Tensor, Q: in.q.Tensor, O: s.o.Tensor,
			K: in.k.Tensor, V: in.v.Tensor, LSE: s.lse.Tensor, HeadDim: h.d, Scale: h.scale(), Packing: p,
		})
		return s
	}
	a := run(in, do, ps)
	b := run(attentionInputs{pick(in.q, false), pick(in.k, false), pick(in.v, false)}, pick(do, true), pu)
	if err := e.fetch(); err != nil {
		return err
	}
	if err := b.o.same("unshared and shared forward", toF32(rowsOf(a.o.matAfter(), copies).V)); err != nil {
		return err
	}
	if err := b.lse.same("unshared and shared forward", toF32(rowsOf(a.lse.matAfter(), copies).V)); err != nil {
		return err
	}
	wq, wk, wv := e.expectAttentionBackward(do.mat(), in.q.mat(), in.k.mat(), in.v.mat(),
		a.o.matAfter(), a.lse.matAfter(), h.d, float64(h.scale()), ps)
	fold := func(b *block, want expected) error {
		m := b.matAfter()
		sum := make([]float64, len(want.v))
		for i, r := range copies {
			for c, v := range m.Row(i) {
				sum[r*m.Cols+c] += v
			}
		}
		// Two computations, each within its own error of the reference.
		return nearSlice(b.name+" unshared, summed", sum, want.doubled())
	}
	for _, c := range []struct {
		shared, unshared *block
		want             expected
	}{{a.dq, b.dq, wq}, {a.dk, b.dk, wk}, {a.dv, b.dv, wv}} {
		if err := c.shared.near(c.want); err != nil {
			return err
		}
		if err := fold(c.unshared, c.want); err != nil {
			return err
		}
	}
	return nil
}
