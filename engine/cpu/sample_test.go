package cpu

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// sampleArgs makes arguments for B rows: temperature 1, no filter, no marker.
func (r *rig) sampleArgs(logits engine.Tensor) engine.SampleArgs {
	B := logits.Rows
	a := engine.SampleArgs{Logits: logits, Params: r.zeros(B, engine.NumParams)}
	a.Keys = engine.Matrix(r.buf(engine.I32, B*engine.NumKeys), 0, B, engine.NumKeys)
	for b := range B {
		r.UploadF32(a.Params.RowRange(b, b+1), []float32{1, 1, 0, 0})
		r.UploadI32(a.Keys.RowRange(b, b+1), []int32{0, 1, 2, 3, 4, int32(b)})
	}
	a.Forced, a.Tokens, a.Positions = r.ints(make([]int32, B)), r.ints(make([]int32, B)), r.ints(make([]int32, B))
	a.LogProb, a.SamplingLogProb, a.Entropy = r.zeros(1, B), r.zeros(1, B), r.zeros(1, B)
	return a
}

// expected is the distribution after temperature and filters, by sorting.
func expected(z []float32, temperature, topP, minP float64, topK int) []float64 {
	type entry struct {
		i int
		p float64
	}
	e := make([]entry, len(z))
	m := slices.Max(z)
	for i, v := range z {
		e[i] = entry{i, math.Exp((float64(v) - float64(m)) / temperature)}
	}
	slices.SortStableFunc(e, func(a, b entry) int { return cmp.Compare(b.p, a.p) })
	if topK > 0 && topK < len(e) {
		e = e[:topK]
	}
	total := func() (s float64) {
		for _, x := range e {
			s += x.p
		}
		return s
	}
	if topP < 1 {
		t, s, n := total()*topP, 0.0, 0
		for n < len(e) && (n == 0 || s < t) {
			s += e[n].p
			n++
		}
		e = e[:n]
	}
	if minP > 0 {
		e = slices.DeleteFunc(e, func(x entry) bool { return x.p < minP*e[0].p })
	}
	out := make([]float64, len(z))
	t := total()
	for _, x := range e {
		out[x.i] = x.p / t
	}
	return out
}

func TestSampleFollowsTheFilteredDistribution(t *testing.T) {
	for name, c := range map[string]struct {
		temperature, topP, minP float32
		topK                    int32
	}{
		"plain": {1, 1, 0, 0}, "temperature": {0.6, 1, 0, 0}, "top-k": {1, 1, 0, 7}, "top-p": {1, 0.8, 0, 0},
		"min-p": {1.2, 1, 0.1, 0}, "all": {0.9, 0.9, 0.05, 12}, "k of 1": {1, 1, 0, 1}, "p of 0": {1, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2, 21)
			const B, V = 4000, 30
			row := r.floats(r.random(1, V, 1.5))
			row[3] = row[9] // a tie
			logits := r.zeros(B, V)
			a := r.sampleArgs(logits)
			for b := range B {
				r.UploadF32(logits.RowRange(b, b+1), row)
				r.UploadF32(a.Params.RowRange(b, b+1), []float32{c.temperature, c.topP, c.minP, 0})
				r.UploadI32(a.Keys.RowRange(b, b+1), []int32{c.topK, 1, 2, 3, 4, int32(b)})
			}
			r.Sample(a)
			want := expected(row, float64(c.temperature), float64(c.topP), float64(c.minP), int(c.topK))
			counts := make([]float64, V)
			sampling := r.floats(a.SamplingLogProb)
			for b, id := range r.readInts(a.Tokens) {
				counts[id]++
				require.Positive(t, want[id], "token %d is filtered out", id)
				require.InDelta(t, math.Log(want[id]), float64(sampling[b]), 2e-5)
			}
			var chi2, cells float64
			for i, p := range want {
				if p*B >= 5 {
					chi2 += (counts[i] - p*B) * (counts[i] - p*B) / (p * B)
					cells++
				}
			}
			// Five standard deviations over the mean of χ²; the seed is fixed.
			require.LessOrEqual(t, chi2, cells+5*math.Sqrt(2*cells))
			for _, p := range r.readInts(a.Positions) {
				require.Equal(t, int32(1), p)
			}
		})
	}
}

func TestSelectionAgainstSorting(t *testing.T) {
	r := newRig(t, 1, 22)
	for range 500 {
		n := 1 + r.rng.IntN(60)
		if r.rng.IntN(3) == 0 {
			n += 400 // several blocks of candidates
		}
		if r.rng.IntN(20) == 0 {
			n += 2 * massFew // bisected
		}
		z := make([]float32, n)
		for i := range z {
			z[i] = float32(r.rng.IntN(200)) / 4 // some ties
		}
		sorted := slices.Clone(z)
		slices.SortFunc(sorted, func(a, b float32) int { return cmp.Compare(b, a) })
		k := 1 + r.rng.IntN(min(n, 30))
		require.Equal(t, sorted[k-1], selectLargest(slices.Clone(z), k))

		kept := slices.Clone(z)
		keepLargest(kept, k, make([]float32, n))
		want := expected(z, 1, 1, 0, k)
		for i := range z {
			require.Equal(t, want[i] > 0 || k == n, kept[i] != negInf, "top-k %d of %v: element %d", k, z, i)
		}

		// Quarter steps add up exactly, so that edges are exact too.
		var total float64
		for _, v := range z {
			total += float64(v)
		}
		share := float64(r.rng.IntN(65)) / 64
		target := share * total
		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(z[b], z[a]) })
		head := map[int]bool{}
		var s float64
		for _, i := range order {
			if len(head) > 0 && s >= target || z[i] == 0 {
				break
			}
			head[i] = true
			s += float64(z[i])
		}
		mass := slices.Clone(z)
		keepMass(mass, share, make([]float32, n))
		for i := range z {
			require.Equal(t, head[i], mass[i] > 0, "mass %v of %v: element %d", target, z, i)
		}
	}
}

func TestMarkerIsForcedOnceBegun(t *testing.T) {
	r := newRig(t, 2, 23)
	const B, V = 4, 9
	logits := r.random(B, V, 0.1)
	raw := r.floats(logits)
	a := r.sampleArgs(logits)
	a.Marker = []int32{5, 6, 7}
	a.MarkerAfter = r.zeros(1, V)
	r.UploadF32(a.MarkerAfter, []float32{0, 1, 0, 0, 0, 0, 0, 0, 0})
	inf := float32(math.Inf(-1))
	r.UploadI32(a.Tokens, []int32{1, 2, 1, 1}) // row 1's token allows no marker
	r.UploadI32(a.Positions, []int32{3, 3, 3, -1})
	for b, bias := range []float32{100, 100, inf, 100} {
		r.UploadF32(a.Params.RowRange(b, b+1), []float32{1, 1, 0, bias})
	}
	// Row 2 would draw the marker, were it not forbidden.
	high := slices.Clone(raw)
	high[2*V+5] = 50
	r.UploadF32(logits, high)
	r.Sample(a)
	tokens, forced := r.readInts(a.Tokens), r.readInts(a.Forced)
	require.Equal(t, int32(5), tokens[0])
	require.Equal(t, int32(1), forced[0])
	require.InDelta(t, 0, float64(r.floats(a.SamplingLogProb)[0]), 1e-6)
	require.Less(t, r.floats(a.LogProb)[0], float32(-1), "the log prob is that of the logits without the bias")
	require.Zero(t, forced[1])
	require.NotEqual(t, int32(5), tokens[2])
	require.Equal(t, int32(1), tokens[3], "an inactive row is left alone")
	require.Equal(t, []int32{4, 4, 4, -1}, r.readInts(a.Positions))
	for _, want := range []struct{ token, forced int32 }{{6, 2}, {7, 0}} {
		r.UploadF32(logits, raw)
		r.Sample(a)
		require.Equal(t, want.token, r.readInts(a.Tokens)[0])
		require.Equal(t, want.forced, r.readInts(a.Forced)[0])
		require.Zero(t, r.floats(a.SamplingLogProb)[0])
	}
}

func TestTemperatureZeroTakesTheLowestIndexOnATie(t *testing.T) {
	r := newRig(t, 1, 24)
	logits := r.zeros(1, 6)
	r.UploadF32(logits, []float32{0, 3, 1, 3, 3, 2})
	a := r.sampleArgs(logits)
	r.UploadF32(a.Params, []float32{0, 0.5, 0.5, 0})
	r.Sample(a)
	require.Equal(t, int32(1), r.readInts(a.Tokens)[0])
	require.Zero(t, r.floats(a.SamplingLogProb)[0])
}
