package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// draws is one launch of Sample. The marker may follow odd tokens.
type draws struct {
	vocab                     int
	z                         []float32
	rows                      []ref.SampleParams
	marker                    []int32
	tokens, positions, forced []int32
}

// drawn is what a launch leaves.
type drawn struct {
	tokens, positions, forced []int32
	logp, slogp, entropy      []float32
}

// settings are the values as the kernel sees them.
func (s *draws) settings() (params []float32, keys []int32) {
	for i := range s.rows {
		r := &s.rows[i]
		p := []float32{float32(r.Temperature), float32(r.TopP), float32(r.MinP), float32(r.HelpBias)}
		r.Temperature, r.TopP, r.MinP, r.HelpBias = float64(p[0]), float64(p[1]), float64(p[2]), float64(p[3])
		params = append(params, p...)
		keys = append(keys, int32(r.TopK), r.SeedLo, r.SeedHi, r.Step, r.Prompt, r.Sample)
	}
	return params, keys
}

func (s *draws) run(d *kerneltest.Device, l placing) (out drawn, err error) {
	n := len(s.rows)
	params, keys := s.settings()
	after := make([]float32, s.vocab)
	for i := range after {
		after[i] = float32(i % 2)
	}
	spec, err := kernels.Sample(s.vocab)
	if err != nil {
		return out, err
	}
	z := matInOut(d, kernels.F32, l, n, s.vocab, s.z)
	p := matIn(d, kernels.F32, l, n, 4, params)
	tokens, positions, forced := kerneltest.InOut(d, s.tokens), kerneltest.InOut(d, s.positions), kerneltest.InOut(d, s.forced)
	marker := s.marker
	if len(marker) == 0 {
		marker = []int32{0}
	}
	res := [3]*mat{}
	for i := range res {
		res[i] = matOut(d, kernels.F32, placing{off: l.off}, 1, n)
	}
	err = d.Launch(spec, [3]int{n}, z.p(), p.p(), kerneltest.In(d, keys), kerneltest.In(d, marker), kerneltest.In(d, after),
		forced, tokens, positions, res[0].p(), res[1].p(), res[2].p(), s.vocab, len(s.marker), z.stride, p.stride, 6)
	if err != nil {
		return out, err
	}
	out.tokens, out.positions, out.forced = kerneltest.Values[int32](d, tokens), kerneltest.Values[int32](d, positions), kerneltest.Values[int32](d, forced)
	for i, to := range []*[]float32{&out.logp, &out.slogp, &out.entropy} {
		if *to, err = res[i].after(); err != nil {
			return out, err
		}
	}
	_, err = z.after()
	return out, err
}

// check compares a launch with the reference. Rows whose support hangs on a
// rounding, a filter's edge within 1e-5, are left out; decided counts the others.
func (s *draws) check(d *kerneltest.Device, l placing) (decided int, err error) {
	out, err := s.run(d, l)
	if err != nil {
		return 0, err
	}
	for i := range s.rows {
		ok, err := s.checkRow(i, out)
		if err != nil {
			return 0, fmt.Errorf("row %d (%+v): %w", i, s.rows[i], err)
		}
		if ok {
			decided++
		}
	}
	return decided, nil
}

func (s *draws) checkRow(i int, out drawn) (decided bool, err error) {
	if s.positions[i] < 0 {
		if out.tokens[i] != s.tokens[i] || out.positions[i] != s.positions[i] || out.forced[i] != s.forced[i] || out.logp[i] == out.logp[i] {
			return false, fmt.Errorf("inactive, but written")
		}
		return true, nil
	}
	z := make([]float64, s.vocab)
	for v := range z {
		z[v] = float64(s.z[i*s.vocab+v])
	}
	r, follow := s.rows[i], len(s.marker) > 0 && s.tokens[i]%2 == 1
	st := ref.SampleState{Token: s.tokens[i], Position: s.positions[i], Forced: s.forced[i]}
	want := ref.SampleRow(z, r, s.marker, follow, &st)
	got := out.tokens[i]
	if out.positions[i] != s.positions[i]+1 || got < 0 || int(got) >= s.vocab {
		return false, fmt.Errorf("token %d, position %d", got, out.positions[i])
	}
	errS := 0.0
	top := slices.Max(z)
	if want.P != nil {
		biased := -1
		if follow {
			biased = int(s.marker[0])
		}
		if !sameSupport(z, r, biased) {
			return false, nil
		}
		// The error of a cumulative probability: those of the weights and of their sums.
		slack := (softmaxC(s.vocab) + 60) * testx.EpsF32
		lo := 0.0
		for _, p := range want.P[:got] {
			lo += p
		}
		hi := lo + want.P[got]
		if !(want.P[got] > 0 && want.U >= lo-slack && want.U < hi+slack) {
			return false, fmt.Errorf("drew %d, whose stretch is [%.8f, %.8f), with u = %.8f; want %d", got, lo, hi, want.U, st.Token)
		}
		if st.Token != got { // a neighbour, within rounding
			st.Token, st.Forced = got, 0
			if int(got) == biased && r.HelpBias != 0 && len(s.marker) > 1 {
				st.Forced = 1
			}
		}
		want.SamplingLogProb = math.Log(want.P[got])
		if r.Temperature > 0 {
			errS = softmaxC(s.vocab) + 12 + 4*(math.Abs(z[got])+math.Abs(top)+math.Abs(r.HelpBias))/r.Temperature
		}
	}
	if got != st.Token || out.forced[i] != st.Forced {
		return false, fmt.Errorf("token %d forced %d, want %d forced %d", got, out.forced[i], st.Token, st.Forced)
	}
	if math.IsInf(errS, 0) {
		errS = softmaxC(s.vocab) + 12 + 8*math.Abs(top)/r.Temperature
	}
	_, err = testx.Close([]float32{out.slogp[i]}, []float64{want.SamplingLogProb}, tolerance(1, []float64{errS}, []float64{want.SamplingLogProb}))
	if err != nil {
		return false, fmt.Errorf("sampling log-prob: %w", err)
	}
	lse, entropy := ref.LogitStats(z)
	c := softmaxC(s.vocab) + 4*math.Abs(lse) + 2*math.Abs(top)
	errH := c
	for _, v := range z {
		errH += math.Exp(v-lse) * (2*math.Abs(v) + math.Abs(v-lse)*softmaxC(s.vocab))
	}
	raw := []float64{z[got] - lse, entropy}
	_, err = testx.Close([]float32{out.logp[i], out.entropy[i]}, raw, tolerance(1, []float64{c + math.Abs(z[got]), errH}, raw))
	if err != nil {
		return false, fmt.Errorf("log-prob and entropy: %w", err)
	}
	return true, nil
}

func sameSupport(z []float64, r ref.SampleParams, biased int) bool {
	support := func(f float64) (out []bool) {
		p := r
		if p.TopP < 1 {
			p.TopP *= f
		}
		p.MinP *= f
		if p.HelpBias == 0 {
			biased = -1
		}
		for _, v := range ref.Distribution(z, p, biased) {
			out = append(out, v > 0)
		}
		return out
	}
	return slices.Equal(support(1-1e-5), support(1+1e-5))
}

// newDraws mixes settings over n rows; ties puts logits on a coarse grid.
func newDraws(r *rand.Rand, n, vocab int, marker []int32, ties bool) *draws {
	s := &draws{vocab: vocab, z: normal(r, n*vocab), marker: marker}
	for i := range s.z {
		s.z[i] *= 2
		if ties {
			s.z[i] = float32(math.Round(float64(s.z[i])))
		}
	}
	for i := range n {
		p := ref.SampleParams{Temperature: 1, TopP: 1, SeedLo: int32(r.Uint32()), SeedHi: int32(r.Uint32()), Step: int32(i % 3),
			Prompt: int32(r.IntN(1000)), Sample: int32(i)}
		switch i % 12 {
		case 1:
			p.Temperature = 0.6
		case 2:
			p.Temperature = 0
		case 3:
			p.TopK = 1 + i
		case 4:
			p.TopP = 0.8
		case 5:
			p.MinP = 0.05
		case 6:
			p.Temperature, p.TopK, p.TopP, p.MinP = 1.5, 30, 0.9, 0.02
		case 7:
			p.HelpBias = 3
		case 8:
			p.HelpBias, p.Temperature = -2, 0.8
		case 9:
			p.TopP, p.Temperature = 0.99, 3
		case 10:
			p.TopK, p.TopP = vocab*2/3, 0.97
		case 11:
			p.TopP, p.TopK = 0, 5
		}
		s.rows = append(s.rows, p)
		s.tokens, s.positions, s.forced = append(s.tokens, int32(r.IntN(vocab))), append(s.positions, int32(r.IntN(500))), append(s.forced, 0)
		if i%7 == 6 {
			s.positions[i] = -1
		}
		if len(marker) > 1 && i%6 == 5 {
			s.forced[i] = int32(1 + i/6%(len(marker)-1))
		}
	}
	return s
}

func checkSample(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(41, 42))
	for i, c := range []struct {
		n, vocab int
		marker   []int32
		ties     bool
	}{{2, 1, nil, false}, {12, 3, nil, true}, {24, 40, []int32{7, 20, 31}, false}, {12, 63, nil, true}, {12, 1000, []int32{7}, false},
		{12, 4097, []int32{4096, 7}, true}, {12, 9001, []int32{7, 8, 9}, false}} {
		s := newDraws(r, c.n, c.vocab, c.marker, c.ties)
		decided, err := s.check(d, placings[i%3])
		if err != nil {
			return fmt.Errorf("vocabulary of %d: %w", c.vocab, err)
		}
		if decided < c.n*2/3 {
			return fmt.Errorf("only %d of %d rows are decided by the reference", decided, c.n)
		}
	}
	if err := checkGreedyTies(d); err != nil {
		return err
	}
	if err := checkMarker(d); err != nil {
		return err
	}
	return checkHopeless(d)
}

// checkGreedyTies: at temperature 0 the lowest index wins.
func checkGreedyTies(d *kerneltest.Device) error {
	for _, at := range [][]int{{0}, {200, 63}, {4200, 4096, 4095}, {4299, 64}} {
		s := newDraws(rand.New(rand.NewPCG(1, 1)), 1, 4300, nil, false)
		s.rows[0].Temperature = 0
		for _, i := range at {
			s.z[i] = 100
		}
		out, err := s.run(d, placings[0])
		if err != nil {
			return err
		}
		if want := int32(slices.Min(at)); out.tokens[0] != want || out.slogp[0] != 0 {
			return fmt.Errorf("maxima at %v: drew %d with log-prob %v", at, out.tokens[0], out.slogp[0])
		}
	}
	return nil
}

// checkMarker: a bias that makes the marker certain gives all of it, token by token,
// and only where it may follow.
func checkMarker(d *kerneltest.Device) error {
	s := newDraws(rand.New(rand.NewPCG(2, 2)), 2, 45, []int32{7, 20, 2, 31}, false)
	for i := range s.rows {
		s.rows[i] = ref.SampleParams{Temperature: 1, TopP: 1, HelpBias: 200, Sample: int32(i)}
		s.tokens[i] = int32(i) // the second may be followed by the marker
	}
	for step, want := range s.marker {
		if _, err := s.check(d, placings[1]); err != nil {
			return fmt.Errorf("marker, step %d: %w", step, err)
		}
		out, err := s.run(d, placings[0])
		if err != nil {
			return err
		}
		if out.tokens[1] != want || out.forced[1] != int32((step+1)%len(s.marker)) || out.forced[0] != 0 {
			return fmt.Errorf("marker, step %d: drew %d, forced %d", step, out.tokens[1], out.forced)
		}
		s.tokens[1], s.positions[1], s.forced[1] = out.tokens[1], out.positions[1], out.forced[1]
	}
	return nil
}

// checkHopeless: where there is no distribution a token of the vocabulary comes,
// and a NaN says what happened.
func checkHopeless(d *kerneltest.Device) error {
	inf, nan := math.Inf(1), math.NaN()
	for _, v := range [][3]float64{{nan, nan, nan}, {0, nan, 0}, {-inf, -inf, -inf}, {0, inf, 0}} {
		s := newDraws(rand.New(rand.NewPCG(1, 1)), 12, 70, nil, false)
		for i := range s.z {
			s.z[i] = float32(v[i%3])
		}
		out, err := s.run(d, placings[0])
		if err != nil {
			return err
		}
		for i, t := range out.tokens {
			if t < 0 || t >= 70 || s.positions[i] >= 0 && out.logp[i] == out.logp[i] {
				return fmt.Errorf("logits %v: row %d drew %d with log-prob %v", v, i, t, out.logp[i])
			}
		}
	}
	return nil
}

func TestSampleEmulated(t *testing.T) { kerneltest.EachMode(t, checkSample) }

// The raw log-prob and entropy are LogProb's, to the bit, and so is a row's draw
// alone.
func TestSampleEmulatedEqualsLogProb(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		s := newDraws(rand.New(rand.NewPCG(45, 46)), 12, 9001, []int32{7, 8}, false)
		for i := range s.positions {
			s.positions[i] = int32(i)
		}
		out, err := s.run(d, placings[1])
		if err != nil {
			return err
		}
		logp, entropy, _, err := headStats(d, s.z, placings[0], out.tokens, s.vocab, 1)
		if err != nil {
			return err
		}
		if err := testx.Identical(out.logp, logp); err != nil {
			return fmt.Errorf("log-prob: %w", err)
		}
		if err := testx.Identical(out.entropy, entropy); err != nil {
			return fmt.Errorf("entropy: %w", err)
		}
		for _, i := range []int{0, 6, 10} {
			one := &draws{vocab: s.vocab, z: s.z[i*s.vocab:][:s.vocab], rows: s.rows[i : i+1], marker: s.marker,
				tokens: s.tokens[i : i+1], positions: s.positions[i : i+1], forced: s.forced[i : i+1]}
			alone, err := one.run(d, placings[0])
			if err != nil {
				return err
			}
			if alone.tokens[0] != out.tokens[i] {
				return fmt.Errorf("row %d drew %d, alone %d", i, out.tokens[i], alone.tokens[0])
			}
			if err := testx.Identical([]float32{alone.logp[0], alone.slogp[0], alone.entropy[0]}, []float32{out.logp[i], out.slogp[i], out.entropy[i]}); err != nil {
				return fmt.Errorf("row %d alone: %w", i, err)
			}
		}
		return nil
	})
}

func TestSampleSpec(t *testing.T) {
	s, err := kernels.Sample(151936)
	require.NoError(t, err)
	require.LessOrEqual(t, s.Shared, 48<<10, "two blocks on a multiprocessor of 100 KB")
	for _, v := range []int{0, 1 << 20} {
		_, err := kernels.Sample(v)
		require.ErrorContains(t, err, "vocabulary")
	}
}

func TestSampleEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "sample", []kerneltest.Defect{
		{Name: "the bias stays in the raw log-prob", Old: "      raw = unbiased;\n", New: ""},
		{Name: "the marker is not forced", Old: "next = 1 % marker_len;", New: "next = 0;"},
		{Name: "inactive rows move", Old: "if (position < 0) return;", New: "if (position < -1) return;"},
		{Name: "ties all stay", Old: "    k.last = pick(r, k, true, -equals).index;\n", New: ""},
		{Name: "zeros of two signs", Old: "float_bits(f + 0.0f)", New: "float_bits(f)"},
		{Name: "a bound too high", Old: "4.0f * (float)r.vocab", New: "0.01f * (float)r.vocab"},
		{Name: "top-p of what lies above top-k's cut", Old: "goal.besides = edge;", New: "goal.besides = 0 * edge;"},
		{Name: "min-p left out", Old: "k.least = min(min_p, 1.0f);", New: "k.least = 0 * min_p;"},
		{Name: "a round of Philox left out", Old: "i < 10; i++", New: "i < 9; i++"},
		{Name: "a run too late", Old: "scan.through > target && sum > 0", New: "scan.before > target && sum > 0"},
		{Name: "always the second neighbour", Old: "(two > 0 && !(below + one > target))", New: "(two > 0 && below + one + target >= 0)"},
		{Name: "list read early", Old: "  block_sync();  // shows the list to all\n", New: ""},
		{Name: "sums read early", Old: "  block_sync();  // shows the sums to all\n", New: ""},
		{Name: "sums of the search overwritten early", Old: "    block_sync();  // they have been read: the next step may overwrite them\n", New: ""},
	}, func(d *kerneltest.Device) error {
		r := rand.New(rand.NewPCG(47, 48))
		for i, s := range []*draws{newDraws(r, 24, 40, []int32{7, 20, 31}, false), newDraws(r, 24, 63, nil, true), newDraws(r, 5, 4500, nil, false)} {
			if _, err := s.check(d, placings[i%3]); err != nil {
				return err
			}
		}
		return checkMarker(d)
	})
}
