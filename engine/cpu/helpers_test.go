package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// rig is a backend with helpers that make random tensors from a seed.
type rig struct {
	*Backend
	t   testing.TB
	rng *rand.Rand
}

func newRig(t testing.TB, threads int, seed uint64) *rig {
	t.Helper()
	b, err := New(Options{Threads: threads})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return &rig{Backend: b, t: t, rng: rand.New(rand.NewPCG(seed, 1))}
}

func (r *rig) buf(d engine.DType, n int) engine.Buffer {
	r.t.Helper()
	b, err := r.Alloc(d, n)
	require.NoError(r.t, err)
	return b
}

func (r *rig) zeros(rows, cols int) engine.Tensor {
	return engine.Matrix(r.buf(engine.F32, rows*cols), 0, rows, cols)
}

// random returns normal values times scale.
func (r *rig) random(rows, cols int, scale float64) engine.Tensor {
	t := r.zeros(rows, cols)
	v := make([]float32, rows*cols)
	for i := range v {
		v[i] = float32(r.rng.NormFloat64() * scale)
	}
	r.UploadF32(t, v)
	return t
}

func (r *rig) ints(v []int32) engine.Tensor {
	t := engine.Vector(r.buf(engine.I32, len(v)), 0, len(v))
	r.UploadI32(t, v)
	return t
}

func (r *rig) randomInts(n, below int) engine.Tensor {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(r.rng.IntN(below))
	}
	return r.ints(v)
}

func (r *rig) floats(t engine.Tensor) []float32 {
	r.t.Helper()
	out := make([]float32, t.Len())
	if t.Dense() {
		require.NoError(r.t, r.Wait(r.DownloadF32(out, t)))
		return out
	}
	for i := range t.Rows {
		require.NoError(r.t, r.Wait(r.DownloadF32(out[i*t.Cols:][:t.Cols], t.RowRange(i, i+1))))
	}
	return out
}

func (r *rig) readInts(t engine.Tensor) []int32 {
	out := make([]int32, t.Len())
	require.NoError(r.t, r.Wait(r.DownloadI32(out, t)))
	return out
}

func (r *rig) weight(rows, cols int, scale float64) engine.Weight {
	w := engine.Weight{Tensor: r.random(rows, cols, scale)}
	require.NoError(r.t, r.PrepareWeight(&w))
	return w
}

// sameBits requires equal bits, NaN and the sign of zero included.
func sameBits(t testing.TB, want, got []float32, what string) {
	t.Helper()
	require.Equal(t, len(want), len(got), what)
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%s: element %d: %v (%08x), want %v (%08x)", what, i, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// near compares with a float64 loop's value and the sum of the terms'
// magnitudes, from which the tolerance is derived: c roundings of 2⁻²⁴ each.
func near(t testing.TB, what string, i int, got float32, want, magnitude, c float64) {
	t.Helper()
	tol := c*math.Exp2(-24)*magnitude + 1e-30
	if !(math.Abs(float64(got)-want) <= tol) {
		t.Fatalf("%s: element %d: %v, want %v ± %v", what, i, got, want, tol)
	}
}

// sharedPacking is a prompt with several responses, then a prompt of its own
// with one, then a lone segment: lengths straddle splits.
func sharedPacking(prompt1 int, responses []int, prompt2, response2, lone int) *engine.Packing {
	p := &engine.Packing{}
	add := func(n, prefixStart, prefixLen int) int {
		start := p.Rows
		p.Segments = append(p.Segments, engine.Segment{Start: start, Len: n, PrefixStart: prefixStart, PrefixLen: prefixLen})
		p.Rows += n
		return start
	}
	a := add(prompt1, 0, 0)
	b := add(prompt2, 0, 0)
	for _, n := range responses {
		add(n, a, prompt1)
	}
	add(response2, b, prompt2)
	add(lone, 0, 0)
	return p
}

// history returns the packed row of each logical position that row r sees, its
// own last.
func history(p *engine.Packing, r int) []int {
	for _, s := range p.Segments {
		if r >= s.Start && r < s.Start+s.Len {
			var rows []int
			for i := range s.PrefixLen {
				rows = append(rows, s.PrefixStart+i)
			}
			for i := s.Start; i <= r; i++ {
				rows = append(rows, i)
			}
			return rows
		}
	}
	panic("row in no segment")
}
