package gpu

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
)

// randomOf makes a matrix of normally distributed elements.
func randomOf(t testing.TB, b *Backend, rng *rand.Rand, d engine.DType, rows, cols int) engine.Tensor {
	t.Helper()
	x := alloc(t, b, d, rows*cols)
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	b.UploadF32(x, v)
	return engine.Matrix(x.Buf, 0, rows, cols)
}

func intsOf(t testing.TB, b *Backend, v ...int32) engine.Tensor {
	t.Helper()
	x := alloc(t, b, engine.I32, len(v))
	b.UploadI32(x, v)
	return x
}

// decodeRig is a batch over a filled cache, ready for DecodeAttention.
type decodeRig struct {
	*Backend
	args engine.DecodeAttentionArgs
}

func newDecodeRig(t testing.TB, b *Backend) *decodeRig {
	const rows, pages, h, kv, d = 5, 4, 4, 2, 64
	rng := rand.New(rand.NewPCG(5, 6))
	one := func(cols int) engine.Tensor { return randomOf(t, b, rng, engine.BF16, rows, cols) }
	n := (rows + 1) * pages * engine.PageSize * kv * d
	cache := engine.KVCache{K: randomOf(t, b, rng, engine.BF16, 1, n).Buf, V: randomOf(t, b, rng, engine.BF16, 1, n).Buf,
		Pages: (rows + 1) * pages, KVHeads: kv, HeadDim: d}
	var table []int32
	for r := range rows {
		table = append(table, 0, 1) // a prompt's pages, shared
		for p := 2; p < pages; p++ {
			table = append(table, int32((r+1)*pages+p))
		}
	}
	x := intsOf(t, b, table...)
	return &decodeRig{b, engine.DecodeAttentionArgs{O: one(h * d), Q: one(h * d), K: one(kv * d), V: one(kv * d), Cache: cache,
		PageTable: engine.Matrix(x.Buf, 0, rows, pages), Positions: intsOf(t, b, 70, 64, 127, -1, 100), Scale: 0.125}}
}

func (r *decodeRig) out(t testing.TB) []float32 {
	t.Helper()
	r.DecodeAttention(r.args)
	got := make([]float32, r.args.O.Len())
	require.NoError(t, r.Wait(r.DownloadF32(got, r.args.O)))
	return got
}

// A batch that takes several plans gives the bits of one plan.
func TestDecodeInParts(t *testing.T) {
	b := open(t, Options{})
	r := newDecodeRig(t, b)
	want := r.out(t)
	for _, rows := range []int{1, 2, 4} {
		b.decodeRows = rows
		b.stale()
		require.Zero(t, bitDiffs(want, r.out(t)), "%d rows to a plan", rows)
	}
}

// The layers of a step share one plan; whatever may change it makes another.
func TestDecodePlanIsShared(t *testing.T) {
	drv := openDriver(t, cuda.WithCallCounts())
	b, err := New(Options{Driver: drv})
	require.NoError(t, err)
	defer b.Close()
	r := newDecodeRig(t, b)
	launches := func() int { return drv.CallCounts()["cuLaunchKernel"] }
	const plan, layer = 1, 2
	step := func() {
		for range 3 {
			r.DecodeAttention(r.args)
		}
	}
	before := launches()
	step()
	require.Equal(t, before+plan+3*layer, launches())
	step()
	require.Equal(t, before+plan+6*layer, launches(), "nothing has changed")
	for name, change := range map[string]func(){
		"upload":  func() { b.UploadI32(r.args.Positions, []int32{71, 65, 99, 66, 101}) },
		"fill":    func() { b.Fill(r.args.Positions, 90) },
		"copy":    func() { b.Copy(r.args.Positions, r.args.Positions) },
		"run":     func() { b.Run(b.Record(func() {})) },
		"another": func() { r.args.Positions = intsOf(t, b, 64, 65, 66, 67, 68) },
	} {
		change()
		before := launches()
		step()
		require.Equal(t, before+plan+3*layer, launches(), name)
	}
	var got int
	p := b.Record(func() { step(); got = len(b.recording.commands) })
	require.Equal(t, plan+3*layer, got, "a program has a plan of its own")
	b.Run(p)
	require.NoError(t, b.Sync())
}

// Layers share the tables of a packing, and so do batches that come again.
func TestPackingTablesAreShared(t *testing.T) {
	drv := openDriver(t, cuda.WithCallCounts())
	b, err := New(Options{Driver: drv})
	require.NoError(t, err)
	defer b.Close()
	const h, kv, d = 2, 1, 32
	rng := rand.New(rand.NewPCG(7, 8))
	packing := func(n int) *engine.Packing {
		return &engine.Packing{Rows: 20, Segments: []engine.Segment{{Len: n}, {Start: n, Len: 20 - n, PrefixLen: n}}}
	}
	wide := func() engine.Tensor { return randomOf(t, b, rng, engine.BF16, 20, h*d) }
	narrow := func() engine.Tensor { return randomOf(t, b, rng, engine.BF16, 20, kv*d) }
	lse := randomOf(t, b, rng, engine.F32, 20, h)
	a := engine.AttentionArgs{O: wide(), Q: wide(), K: narrow(), V: narrow(), LSE: lse, HeadDim: d, Scale: 0.2}
	g := engine.AttentionBackwardArgs{DQ: wide(), DK: narrow(), DV: narrow(), DO: wide(), Q: a.Q, O: a.O, K: a.K, V: a.V, LSE: lse, HeadDim: d, Scale: 0.2}
	uploads := func(p *engine.Packing) int {
		before := drv.CallCounts()["cuMemcpyHtoDAsync_v2"]
		a.Packing, g.Packing = p, p
		for range 3 {
			b.Attention(a)
			b.AttentionBackward(g)
		}
		return drv.CallCounts()["cuMemcpyHtoDAsync_v2"] - before
	}
	require.Equal(t, 2, uploads(packing(5)), "query tiles and key tiles")
	require.Equal(t, 2, uploads(packing(6)))
	require.Zero(t, uploads(packing(5)), "found by its contents")
	for n := range 3 * keepTables {
		uploads(packing(1 + n%19))
	}
	require.Len(t, b.tables.packings, keepTables)
	require.NoError(t, b.Sync())
}
