package ref

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/testx"
)

func random(seed uint64, rows, cols int) Mat {
	r := rand.New(rand.NewPCG(seed, 1))
	m := New(rows, cols)
	for i := range m.V {
		m.V[i] = r.NormFloat64()
	}
	return m
}

func inDelta(t *testing.T, want, got []float64) {
	t.Helper()
	require.Len(t, got, len(want))
	require.InDeltaSlice(t, want, got, 1e-12)
}

func inner(a, b []float64) float64 { return dot(a, b) }

// grad checks grad against central differences of f at x, all elements.
func grad(t *testing.T, name string, f func() float64, x, g []float64) {
	t.Helper()
	require.NoError(t, testx.GradCheck(f, x, g, nil, 1e-6, 1e-3), name)
}

func TestGatherScatterByHand(t *testing.T) {
	table := Of(3, 1, 2, 3, 4, 5, 6)
	inDelta(t, []float64{5, 6, 0, 0, 1, 2, 5, 6}, Gather(table, []int32{2, -1, 0, 2}).V)
	inDelta(t, []float64{5, 6, 0, 0, 8, 10}, ScatterAdd(3, Of(4, 1, 2, 3, 4, 5, 6, 7, 8), []int32{2, -1, 0, 2}).V)
}

func TestLinearByHand(t *testing.T) {
	x, w := Of(2, 1, 2, 3, 4), Of(3, 1, 0, 0, 1, 1, 1)
	inDelta(t, []float64{1, 2, 3, 3, 4, 7}, Linear(x, w, Mat{}, Mat{}).V)
	inDelta(t, []float64{111, 222, 333, 413, 524, 637},
		Linear(x, w, Of(1, 10, 20, 30), Of(2, 100, 200, 300, 400, 500, 600)).V)
	dy := Of(2, 1, 2, 3, 4, 5, 6)
	inDelta(t, []float64{4, 5, 10, 11}, LinearBackwardInput(dy, w).V)
	dw, db := LinearBackwardWeight(dy, x)
	inDelta(t, []float64{13, 18, 17, 24, 21, 30}, dw.V)
	inDelta(t, []float64{5, 7, 9}, db.V)
}

func TestLinearGradients(t *testing.T) {
	x, w, b, dy := random(1, 3, 4), random(2, 5, 4), random(3, 1, 5), random(4, 3, 5)
	f := func() float64 { return inner(Linear(x, w, b, Mat{}).V, dy.V) }
	dw, db := LinearBackwardWeight(dy, x)
	grad(t, "x", f, x.V, LinearBackwardInput(dy, w).V)
	grad(t, "w", f, w.V, dw.V)
	grad(t, "bias", f, b.V, db.V)
}

func TestScatterAddIsGatherTransposed(t *testing.T) {
	table, src := random(1, 4, 3), random(2, 6, 3)
	ids := []int32{3, 0, -1, 3, 1, 0}
	f := func() float64 { return inner(Gather(table, ids).V, src.V) }
	grad(t, "table", f, table.V, ScatterAdd(4, src, ids).V)
}

func TestRMSNormByHand(t *testing.T) {
	y, rstd := RMSNorm(Of(1, 3, 4, 0, 0, 6, 8), []float64{1, 2}, 3, 0.5)
	a, b, c := 1/math.Sqrt(13), 1/math.Sqrt(0.5), 1/math.Sqrt(50.5)
	inDelta(t, []float64{a, b, c}, rstd.V)
	inDelta(t, []float64{3 * a, 8 * a, 0, 0, 6 * c, 16 * c}, y.V)
}

func TestRMSNormGradients(t *testing.T) {
	for _, groups := range []int{1, 3} {
		x, w, dy := random(1, 4, 6), random(2, 1, 6/groups), random(3, 4, 6)
		f := func() float64 {
			y, _ := RMSNorm(x, w.V, groups, 1e-3)
			return inner(y.V, dy.V)
		}
		_, rstd := RMSNorm(x, w.V, groups, 1e-3)
		dx, dw := RMSNormBackward(dy, x, w.V, rstd, groups)
		grad(t, "x", f, x.V, dx.V)
		grad(t, "w", f, w.V, dw)
	}
}

func TestSwiGLU(t *testing.T) {
	s := 1 / (1 + math.Exp(-2.0))
	inDelta(t, []float64{2 * s * 3, 0}, SwiGLU(Of(1, 2, 0), Of(1, 3, 7)).V)

	gate, up, dy := random(1, 3, 5), random(2, 3, 5), random(3, 3, 5)
	f := func() float64 { return inner(SwiGLU(gate, up).V, dy.V) }
	dg, du := SwiGLUBackward(dy, gate, up)
	grad(t, "gate", f, gate.V, dg.V)
	grad(t, "up", f, up.V, du.V)
}

func TestRoPE(t *testing.T) {
	cos, sin := Of(2, 1, 1, 0, 0.6), Of(2, 0, 0, 1, 0.8)
	x := Of(3, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4)
	got := RoPE(x, []int32{0, 1, -1}, cos, sin, 4, false)
	inDelta(t, []float64{1, 2, 3, 4, -3, 2*0.6 - 4*0.8, 1, 4*0.6 + 2*0.8, 1, 2, 3, 4}, got.V)
	inDelta(t, x.V, RoPE(got, []int32{0, 1, -1}, cos, sin, 4, true).V)

	x, dy := random(1, 3, 8), random(2, 3, 8)
	f := func() float64 { return inner(RoPE(x, []int32{1, -1, 0}, cos, sin, 4, false).V, dy.V) }
	grad(t, "x", f, x.V, RoPE(dy, []int32{1, -1, 0}, cos, sin, 4, true).V)
}

func sharedPacking() *engine.Packing {
	p := &engine.Packing{Rows: 9, Segments: []engine.Segment{
		{Start: 0, Len: 3},
		{Start: 3, Len: 2, PrefixStart: 0, PrefixLen: 3},
		{Start: 5, Len: 1, PrefixStart: 0, PrefixLen: 2},
		{Start: 6, Len: 3},
	}}
	p.Check()
	return p
}

func TestVisible(t *testing.T) {
	p := sharedPacking()
	require.Equal(t, []int{0, 1, 2}, Visible(p, 2))
	require.Equal(t, []int{0, 1, 2, 3, 4}, Visible(p, 4))
	require.Equal(t, []int{0, 1, 5}, Visible(p, 5))
	require.Equal(t, []int{6}, Visible(p, 6))
	require.Panics(t, func() { Visible(p, 9) })
}

func TestAttentionByHand(t *testing.T) {
	// Two query heads share one key-value head, D = 1.
	p := &engine.Packing{Rows: 2, Segments: []engine.Segment{{Start: 0, Len: 2}}}
	o, lse := Attention(Of(2, 1, 2, 1, -1), Of(2, 1, 3), Of(2, 10, 20), 1, 0.5, p)
	w := func(a, b float64) float64 { return (10*math.Exp(a) + 20*math.Exp(b)) / (math.Exp(a) + math.Exp(b)) }
	inDelta(t, []float64{10, 10, w(0.5, 1.5), w(-0.5, -1.5)}, o.V)
	inDelta(t, []float64{0.5, 1, math.Log(math.Exp(0.5) + math.Exp(1.5)), math.Log(math.Exp(-0.5) + math.Exp(-1.5))}, lse.V)
}

func TestAttentionGradients(t *testing.T) {
	p := sharedPacking()
	for _, kv := range []int{1, 2, 4} {
		q, k, v, do := random(1, 9, 8), random(2, 9, 2*kv), random(3, 9, 2*kv), random(4, 9, 8)
		f := func() float64 {
			o, _ := Attention(q, k, v, 2, 0.7, p)
			return inner(o.V, do.V)
		}
		o, lse := Attention(q, k, v, 2, 0.7, p)
		dq, dk, dv := AttentionBackward(do, q, k, v, o, lse, 2, 0.7, p)
		grad(t, "q", f, q.V, dq.V)
		grad(t, "k", f, k.V, dk.V)
		grad(t, "v", f, v.V, dv.V)
	}
}

// Decoding a sequence token by token through pages in any order gives the
// packed attention of the whole sequence.
func TestDecodeAttentionIsAttention(t *testing.T) {
	const n, d, heads, kv = 70, 2, 4, 2
	q, k, v := random(1, n, heads*d), random(2, n, kv*d), random(3, n, kv*d)
	want, _ := Attention(q, k, v, d, 0.7, &engine.Packing{Rows: n, Segments: []engine.Segment{{Len: n}}})
	c := NewCache(5, kv, d)
	table := [][]int32{{4, 0, 3}, {-1, -1, -1}}
	for p := range n {
		two := func(m Mat) Mat { return Of(2, append(append([]float64{}, m.Row(p)...), m.Row(0)...)...) }
		o := DecodeAttention(two(q), two(k), two(v), c, table, []int32{int32(p), -1}, d, 0.7)
		inDelta(t, want.Row(p), o.Row(0))
		inDelta(t, make([]float64, heads*d), o.Row(1))
	}
	inDelta(t, k.Row(40), c.K.Row(0*engine.PageSize+8))
	require.Equal(t, make([]float64, kv*d), c.K.Row(1*engine.PageSize), "pages of nobody are not written")

	c.Write(k, v, []int32{5, 6}, []int32{33, -1})
	inDelta(t, v.Row(5), c.V.Row(33))
}

func TestLogProbByHand(t *testing.T) {
	// z = 2·(0, log 2, log 5)/2
	x, w := Of(1, 1), Of(3, 0, math.Log(2)/2, math.Log(5)/2)
	logp, h, lse := LogProb(x, w, []int32{1}, 2)
	inDelta(t, []float64{math.Log(2.0 / 8)}, logp)
	inDelta(t, []float64{math.Log(8)}, lse)
	inDelta(t, []float64{math.Log(8) - 2.0/8*math.Log(2) - 5.0/8*math.Log(5)}, h)

	require.Equal(t, math.Inf(-1), LogSumExp([]float64{math.Inf(-1)}))
	require.InDelta(t, 1000+math.Log(2), LogSumExp([]float64{1000, 1000}), 1e-9)
	require.True(t, math.IsNaN(LogSumExp([]float64{1, math.NaN(), 2})))
}

func TestLogProbGradients(t *testing.T) {
	x, w := random(1, 3, 4), random(2, 6, 4)
	dl, dh := random(3, 1, 3).V, random(4, 1, 3).V
	targets := []int32{5, 0, 2}
	logp, h, lse := LogProb(x, w, targets, 0.8)
	require.Len(t, logp, 3)
	f := func() float64 {
		logp, h, _ := LogProb(x, w, targets, 0.8)
		return inner(logp, dl) + inner(h, dh)
	}
	dx, dw := LogProbBackward(x, w, targets, lse, h, dl, dh, 0.8)
	grad(t, "x", f, x.V, dx.V)
	grad(t, "w", f, w.V, dw.V)

	f = func() float64 {
		logp, _, _ := LogProb(x, w, targets, 0.8)
		return inner(logp, dl)
	}
	dx, dw = LogProbBackward(x, w, targets, lse, nil, dl, nil, 0.8)
	grad(t, "x without entropy", f, x.V, dx.V)
	grad(t, "w without entropy", f, w.V, dw.V)
}

func TestSumSquares(t *testing.T) { require.Equal(t, 14.0, SumSquares([]float64{1, -2, 3})) }

func TestAdamWByHand(t *testing.T) {
	p, m, v := []float64{1}, []float64{0.5}, []float64{0.25}
	AdamW(p, []float64{4}, m, v, AdamWParams{LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 0.1, WeightDecay: 0.2, GradScale: 0.5, Step: 2})
	wantM, wantV := 0.9*0.5+0.1*2, 0.99*0.25+0.01*4
	inDelta(t, []float64{wantM}, m)
	inDelta(t, []float64{wantV}, v)
	inDelta(t, []float64{1 - 0.1*((wantM/0.19)/(math.Sqrt(wantV/0.0199)+0.1)+0.2)}, p)
}

func TestDistributionByHand(t *testing.T) {
	ln := math.Log
	z := []float64{ln(1), ln(4), ln(2), ln(3)} // p = .1 .4 .2 .3
	base := SampleParams{Temperature: 1, TopP: 1}
	with := func(f func(*SampleParams)) SampleParams {
		p := base
		f(&p)
		return p
	}
	for name, c := range map[string]struct {
		p      SampleParams
		biased int
		want   []float64
	}{
		"plain":            {base, -1, []float64{.1, .4, .2, .3}},
		"temperature":      {with(func(p *SampleParams) { p.Temperature = 0.5 }), -1, []float64{1. / 30, 16. / 30, 4. / 30, 9. / 30}},
		"greedy":           {with(func(p *SampleParams) { p.Temperature = 0 }), -1, []float64{0, 1, 0, 0}},
		"greedy biased":    {with(func(p *SampleParams) { p.Temperature = 0; p.HelpBias = ln(5) }), 0, []float64{1, 0, 0, 0}},
		"top-k":            {with(func(p *SampleParams) { p.TopK = 2 }), -1, []float64{0, 4. / 7, 0, 3. / 7}},
		"top-k too many":   {with(func(p *SampleParams) { p.TopK = 9 }), -1, []float64{.1, .4, .2, .3}},
		"top-p":            {with(func(p *SampleParams) { p.TopP = 0.65 }), -1, []float64{0, 4. / 7, 0, 3. / 7}},
		"top-p crossing":   {with(func(p *SampleParams) { p.TopP = 0.75 }), -1, []float64{0, 4. / 9, 2. / 9, 3. / 9}},
		"top-p at least 1": {with(func(p *SampleParams) { p.TopP = 0 }), -1, []float64{0, 1, 0, 0}},
		"top-p after k":    {with(func(p *SampleParams) { p.TopK = 2; p.TopP = 0.5 }), -1, []float64{0, 1, 0, 0}},
		"min-p":            {with(func(p *SampleParams) { p.MinP = 0.6 }), -1, []float64{0, 4. / 7, 0, 3. / 7}},
		"bias":             {with(func(p *SampleParams) { p.HelpBias = ln(11) }), 0, []float64{.55, .2, .1, .15}},
		"bias forbids":     {with(func(p *SampleParams) { p.HelpBias = math.Inf(-1) }), 1, []float64{1. / 6, 0, 2. / 6, 3. / 6}},
	} {
		t.Run(name, func(t *testing.T) { inDelta(t, c.want, Distribution(z, c.p, c.biased)) })
	}
	require.Equal(t, []float64{0, 1, 0}, Distribution([]float64{1, 2, 2}, SampleParams{}, -1), "a tie goes to the lower index")
}

func TestDraw(t *testing.T) {
	p := []float64{0, .25, 0, .5, .25, 0}
	for _, c := range []struct {
		u    float64
		want int
	}{{0, 1}, {.2499, 1}, {.25, 3}, {.7499, 3}, {.75, 4}, {.999999, 4}} {
		got, lo, hi := Draw(p, c.u)
		require.Equal(t, c.want, got, "u = %g", c.u)
		require.True(t, lo <= c.u && c.u < hi)
	}
}

func TestSampleRow(t *testing.T) {
	z := []float64{0, 1, 2, 3}
	marker := []int32{2, 0, 1}
	p := SampleParams{Temperature: 1, TopP: 1, HelpBias: 50, SeedLo: 3, Prompt: 7}
	s := SampleState{Token: 3, Position: 10}
	r := SampleRow(z, p, marker, true, &s)
	require.Equal(t, SampleState{Token: 2, Position: 11, Forced: 1}, s)
	require.InDelta(t, 0, r.SamplingLogProb, 1e-12)
	lse := LogSumExp(z)
	require.InDelta(t, 2-lse, r.LogProb, 1e-12)
	for i, want := range []SampleState{{0, 12, 2}, {1, 13, 0}} {
		r = SampleRow(z, p, marker, i == 0, &s)
		require.Equal(t, want, s)
		require.Zero(t, r.SamplingLogProb)
		require.InDelta(t, z[want.Token]-lse, r.LogProb, 1e-12)
	}

	s = SampleState{Position: 5}
	p.HelpBias = 0
	u := engine.Philox([4]uint32{5, 0, 7, 0}, [2]uint32{3, 0})
	r = SampleRow(z, p, marker, true, &s)
	require.Equal(t, float64(engine.Uniform(u[0])), r.U)
	i, _, _ := Draw(Distribution(z, p, -1), r.U)
	require.EqualValues(t, i, s.Token)
	require.Zero(t, s.Forced)
}
