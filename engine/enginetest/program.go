package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/testx"
)

func programChecks() (checks list) {
	checks.one("Program", "recording carries nothing out", recordIsLazy)
	checks.one("Program", "arguments are copied while recording", recordCopies)
	checks.one("Program", "decode steps replay to the same bits", replayDecode)
	checks.one("Program", "programs interleave with direct calls", interleave)
	return checks
}

func recordIsLazy(e *env) error {
	b := e.tensor("b", inplace, e.a, dense, 1, 8, make([]float32, 8))
	src := e.in("src", 1, 8)
	calls := 0
	p := e.Record(func() {
		calls++
		e.Fill(b.Tensor, 7)
		e.Copy(b.ColRange(0, 4), src.ColRange(0, 4))
		e.SwiGLU(engine.SwiGLUArgs{Y: b.ColRange(4, 8), Gate: src.ColRange(0, 4), Up: src.ColRange(4, 8)})
	})
	if p.Ops() != 3 {
		return fmt.Errorf("3 operations were recorded, Ops says %d", p.Ops())
	}
	if err := e.fetch(); err != nil {
		return err
	}
	if err := b.same("after recording only", make([]float32, 8)); err != nil {
		return err
	}
	e.Run(p)
	e.Run(p)
	if err := e.fetch(); err != nil {
		return err
	}
	if calls != 1 {
		return fmt.Errorf("build was called %d times", calls)
	}
	return testx.Identical(b.after()[:4], src.before()[:4])
}

// recordCopies: slices that the recorded calls were given may change later.
func recordCopies(e *env) error {
	h := heads{2, 1, 16}
	pack := pack([]group{{5, []int{3, 4}}}, true)
	in, o := e.qkv(pack.Rows, h), e.out("O", pack.Rows, h.h*h.d)
	mine := clonePacking(pack)

	row := plainSampling
	row.HelpBias = 200
	s := e.sampler(40, e.normal(40, 1), samplingRows(e, 1), []int32{7, 20}, []int32{1}, []int32{0}, []int32{0})
	args := s.args()
	args.Marker = slices.Clone(args.Marker)
	p := e.Record(func() {
		e.Attention(in.args(o, h, mine))
		e.Sample(args)
	})
	mine.Segments[1].Len, mine.Segments[2].PrefixLen = 1, 1
	clear(args.Marker)
	e.Run(p)
	if err := e.fetch(); err != nil {
		return err
	}
	want, _ := e.expectAttention(in.q.mat(), in.k.mat(), in.v.mat(), h.d, float64(h.scale()), pack)
	if err := o.near(want); err != nil {
		return err
	}
	_, err := s.verify()
	return err
}

func interleave(e *env) error {
	b := e.floats("b", inplace, dense, 1, 1, []float32{0})
	one, two := e.vec("one", []float32{1}), e.vec("two", []float32{2})
	ids := e.ints("ids", []int32{0})
	add := func(x *block) func() {
		return func() { e.ScatterAdd(engine.ScatterAddArgs{Table: b.Tensor, Src: x.Tensor, IDs: ids.Tensor}) }
	}
	p, q := e.Record(add(one)), e.Record(add(two))
	var got [4]float32
	e.Run(p)
	e.DownloadF32(got[0:1], b.Tensor)
	add(two)()
	e.DownloadF32(got[1:2], b.Tensor)
	e.Run(q)
	e.Run(p)
	e.DownloadF32(got[2:3], b.Tensor)
	e.Fill(b.Tensor, 10)
	e.Run(p)
	e.DownloadF32(got[3:4], b.Tensor)
	if err := e.Sync(); err != nil {
		return err
	}
	if want := [4]float32{1, 3, 6, 11}; got != want {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	return nil
}

// miniModel is one attention layer between an embedding and a head, enough to
// decode with.
type miniModel struct {
	e                           *env
	h                           heads
	c, v                        int
	embed, norm, cos, sin       *block
	wq, wk, wv, wo, head        engine.Weight
	x, hid, q, k, val, o, logit *block
	cache                       engine.KVCache
	table                       *block
	s                           *sampler
}

// newMiniModel sets up decoding for rows sequences at positions 0 up.
func (e *env) newMiniModel(rows, maxLen int) *miniModel {
	m := &miniModel{e: e, h: heads{4, 2, 16}, c: 24, v: 60}
	m.embed = e.matrix("embed", m.v, m.c, e.normal(m.v*m.c, 1))
	m.norm = e.vec("norm", e.normal(m.c, 1))
	c, s := ropeTables(maxLen, m.h.d)
	m.cos, m.sin = e.dataF32("cos", maxLen, m.h.d/2, c), e.dataF32("sin", maxLen, m.h.d/2, s)
	_, m.wq = e.weight("wq", m.h.h*m.h.d, m.c)
	_, m.wk = e.weight("wk", m.h.kv*m.h.d, m.c)
	_, m.wv = e.weight("wv", m.h.kv*m.h.d, m.c)
	_, m.wo = e.weight("wo", m.c, m.h.h*m.h.d)
	_, m.head = e.weight("head", m.v, m.c)
	m.x, m.hid = e.outF32("x", rows, m.c), e.out("hid", rows, m.c)
	m.q, m.k = e.out("q", rows, m.h.h*m.h.d), e.out("k", rows, m.h.kv*m.h.d)
	m.val, m.o = e.out("v", rows, m.h.kv*m.h.d), e.out("o", rows, m.h.h*m.h.d)
	pages := (maxLen + engine.PageSize - 1) / engine.PageSize
	m.cache = e.cache(rows*pages, m.h)
	var ids []int32
	for _, p := range e.rng.Perm(rows * pages) {
		ids = append(ids, int32(p))
	}
	m.table = e.intMatrix("table", inplace, rows, pages, ids)
	params := samplingRows(e, rows)
	tokens := make([]int32, rows)
	for i := range tokens {
		tokens[i] = int32(i % m.v)
	}
	m.s = e.sampler(m.v, nil, params, []int32{7, 20, 31}, tokens, make([]int32, rows), make([]int32, rows))
	m.logit = m.s.logits
	return m
}

// step submits one decode step.
func (m *miniModel) step() {
	e := m.e
	e.Gather(engine.GatherArgs{Dst: m.x.Tensor, Table: m.embed.Tensor, IDs: m.s.tokens.Tensor})
	e.RMSNorm(engine.RMSNormArgs{Y: m.hid.Tensor, X: m.x.Tensor, W: m.norm.Tensor, Groups: 1, Eps: 1e-6})
	e.Linear(engine.LinearArgs{Y: m.q.Tensor, X: m.hid.Tensor, W: m.wq})
	e.Linear(engine.LinearArgs{Y: m.k.Tensor, X: m.hid.Tensor, W: m.wk})
	e.Linear(engine.LinearArgs{Y: m.val.Tensor, X: m.hid.Tensor, W: m.wv})
	for _, t := range []*block{m.q, m.k} {
		e.RoPE(engine.RoPEArgs{X: t.Tensor, Positions: m.s.positions.Tensor, Cos: m.cos.Tensor, Sin: m.sin.Tensor, HeadDim: m.h.d})
	}
	e.DecodeAttention(engine.DecodeAttentionArgs{O: m.o.Tensor, Q: m.q.Tensor, K: m.k.Tensor, V: m.val.Tensor, Cache: m.cache,
		PageTable: m.table.Tensor, Positions: m.s.positions.Tensor, Scale: m.h.scale()})
	e.Linear(engine.LinearArgs{Y: m.x.Tensor, X: m.o.Tensor, W: m.wo, Residual: m.x.Tensor})
	e.RMSNorm(engine.RMSNormArgs{Y: m.hid.Tensor, X: m.x.Tensor, W: m.norm.Tensor, Groups: 1, Eps: 1e-6})
	e.Linear(engine.LinearArgs{Y: m.logit.Tensor, X: m.hid.Tensor, W: m.head})
	e.Sample(m.s.args())
}

// trace is what steps of decoding leave.
type trace struct {
	tokens [][]int32
	floats []float32 // log-probs, sampling log-probs and entropies
}

// decodeTrace runs steps by calling step n times and reads the results of each.
// After change steps row 1 becomes inactive, by an upload into Positions.
func (m *miniModel) decodeTrace(n, change int, step func()) (tr trace, err error) {
	e := m.e
	nan := float32(math.NaN())
	for _, b := range []*block{m.s.tokens, m.s.positions, m.s.forced} {
		e.UploadI32(b.Tensor, b.i[b.Off:b.Off+b.Len()])
	}
	for _, b := range []engine.Buffer{m.cache.K, m.cache.V} {
		e.Fill(engine.Vector(b, 0, b.Len()), nan)
	}
	for _, b := range []*block{m.s.logp, m.s.slogp, m.s.entropy} {
		e.Fill(b.Tensor, 0)
	}
	for i := range n {
		if i == change {
			e.UploadI32(m.s.positions.ColRange(1, 2), []int32{-1})
		}
		step()
		tokens := make([]int32, m.s.b)
		e.DownloadI32(tokens, m.s.tokens.Tensor)
		fs := make([]float32, 3*m.s.b)
		for j, b := range []*block{m.s.logp, m.s.slogp, m.s.entropy} {
			e.DownloadF32(fs[j*m.s.b:(j+1)*m.s.b], b.Tensor)
		}
		if err := e.Sync(); err != nil {
			return tr, err
		}
		tr.tokens, tr.floats = append(tr.tokens, tokens), append(tr.floats, fs...)
	}
	return tr, nil
}

func (tr trace) same(other trace) error {
	for i := range tr.tokens {
		if !slices.Equal(tr.tokens[i], other.tokens[i]) {
			return fmt.Errorf("step %d: tokens %v and %v", i, tr.tokens[i], other.tokens[i])
		}
	}
	return testx.Identical(tr.floats, other.floats)
}

// replayDecode: a recorded decode step, replayed while lengths, tokens and
// tables change on the device, gives the bits of direct calls; another table
// with other pages gives them too.
func replayDecode(e *env) error {
	const rows, steps = 5, 40
	m := e.newMiniModel(rows, 64)
	direct, err := m.decodeTrace(steps, 35, m.step)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(direct.floats, func(v float32) bool { return math.IsNaN(float64(v)) }) {
		return fmt.Errorf("NaN among the results of decoding")
	}
	p := e.Record(m.step)
	replayed, err := m.decodeTrace(steps, 35, func() { e.Run(p) })
	if err != nil {
		return err
	}
	if err := replayed.same(direct); err != nil {
		return fmt.Errorf("replay and direct calls: %w", err)
	}
	ids := slices.Clone(m.table.intsBefore())
	slices.Reverse(ids)
	e.UploadI32(m.table.Tensor, ids)
	moved, err := m.decodeTrace(steps, 35, func() { e.Run(p) })
	if err != nil {
		return err
	}
	if err := moved.same(direct); err != nil {
		return fmt.Errorf("replay with another page table: %w", err)
	}
	return e.fetch()
}
