package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

// sampler holds the tensors of one Sample call over B rows.
type sampler struct {
	e                                       *env
	b, v                                    int
	logits, params, keys, after             *block
	tokens, positions, forced               *block
	logp, slogp, entropy                    *block
	marker                                  []int32
	rows                                    []ref.SampleParams
	startTokens, startPositions, startForce []int32
}

var plainSampling = ref.SampleParams{Temperature: 1, TopP: 1}

// sampler sets up a call. rows gives each row's settings; logits is [B, V].
func (e *env) sampler(v int, logits []float32, rows []ref.SampleParams, marker []int32, tokens, positions, forced []int32) *sampler {
	b := len(rows)
	s := &sampler{e: e, b: b, v: v, marker: marker, rows: slices.Clone(rows)}
	s.logits = e.floats("Logits", scratch, e.layout, b, v, logits)
	var params []float32
	var keys []int32
	for i, r := range rows {
		p, k := make([]float32, engine.NumParams), make([]int32, engine.NumKeys)
		p[engine.ParamTemperature], p[engine.ParamTopP] = float32(r.Temperature), float32(r.TopP)
		p[engine.ParamMinP], p[engine.ParamHelpBias] = float32(r.MinP), float32(r.HelpBias)
		k[engine.KeyTopK], k[engine.KeySeedLo], k[engine.KeySeedHi] = int32(r.TopK), r.SeedLo, r.SeedHi
		k[engine.KeyStep], k[engine.KeyPrompt], k[engine.KeySample] = r.Step, r.Prompt, r.Sample
		params, keys = append(params, p...), append(keys, k...)
		s.rows[i] = sampleParams(toMat(1, engine.NumParams, p).V, k)
	}
	s.params = e.dataF32("Params", b, engine.NumParams, params)
	s.keys = e.intMatrix("Keys", input, b, engine.NumKeys, keys)
	if len(marker) > 0 {
		// The marker may follow the odd tokens.
		after := make([]float32, v)
		for i := range after {
			after[i] = float32(i % 2)
		}
		s.after = e.vec("MarkerAfter", after)
	}
	s.tokens = e.intMatrix("Tokens", inplace, 1, b, tokens)
	s.positions = e.intMatrix("Positions", inplace, 1, b, positions)
	s.forced = e.intMatrix("Forced", inplace, 1, b, forced)
	s.logp, s.slogp, s.entropy = e.outVec("LogProb", b), e.outVec("SamplingLogProb", b), e.outVec("Entropy", b)
	return s
}

func (s *sampler) args() engine.SampleArgs {
	a := engine.SampleArgs{Logits: s.logits.Tensor, Params: s.params.Tensor, Keys: s.keys.Tensor, Marker: s.marker,
		Forced: s.forced.Tensor, Tokens: s.tokens.Tensor, Positions: s.positions.Tensor,
		LogProb: s.logp.Tensor, SamplingLogProb: s.slogp.Tensor, Entropy: s.entropy.Tensor}
	if s.after != nil {
		a.MarkerAfter = s.after.Tensor
	}
	return a
}

// mayFollow reports whether the marker may follow token.
func (s *sampler) mayFollow(token int32) bool { return len(s.marker) > 0 && token%2 == 1 }

// verify compares the call's results with the reference, row by row. A row
// whose support hangs on a rounding (a filter's edge within 1e-5) is left out;
// decided counts the others.
func (s *sampler) verify() (decided int, err error) {
	for i := range s.b {
		ok, err := s.verifyRow(i)
		if err != nil {
			return decided, fmt.Errorf("row %d (%+v): %w", i, s.rows[i], err)
		}
		if ok {
			decided++
		}
	}
	return decided, nil
}

func (s *sampler) verifyRow(i int) (decided bool, err error) {
	token, position, forced := s.tokens.intsBefore()[i], s.positions.intsBefore()[i], s.forced.intsBefore()[i]
	gotToken, gotPosition, gotForced := s.tokens.intsAfter()[i], s.positions.intsAfter()[i], s.forced.intsAfter()[i]
	if position < 0 {
		if gotToken != token || gotPosition != position || gotForced != forced {
			return false, fmt.Errorf("inactive, but token %d, position %d, forced %d became %d, %d, %d",
				token, position, forced, gotToken, gotPosition, gotForced)
		}
		for _, b := range []*block{s.logp, s.slogp, s.entropy} {
			if math.Float32bits(b.before()[i]) != math.Float32bits(b.after()[i]) {
				return false, fmt.Errorf("inactive, but %s was written", b.name)
			}
		}
		return true, nil
	}
	z := s.logits.mat().Row(i)
	st := ref.SampleState{Token: token, Position: position, Forced: forced}
	want := ref.SampleRow(z, s.rows[i], s.marker, s.mayFollow(token), &st)
	if gotPosition != position+1 {
		return false, fmt.Errorf("position %d became %d", position, gotPosition)
	}
	if gotToken < 0 || int(gotToken) >= s.v {
		return false, fmt.Errorf("token %d is not in the vocabulary of %d", gotToken, s.v)
	}
	if want.P != nil {
		if !s.settled(i, z) {
			return false, nil
		}
		// The error of a cumulative probability: those of the exponentials and
		// of their sum.
		temp := s.rows[i].Temperature
		spread := 0.0
		if temp > 0 {
			spread = (slices.Max(z) - slices.Min(z)) / temp
		}
		slack := (vocabC(s.v) + elemC + 4*math.Min(spread, 30)) / (1 << 24)
		lo := 0.0
		for _, p := range want.P[:gotToken] {
			lo += p
		}
		hi := lo + want.P[gotToken]
		if !(want.P[gotToken] > 0 && want.U >= lo-slack && want.U < hi+slack) {
			return false, fmt.Errorf("drew %d, whose stretch is [%.8f, %.8f), with u = %.8f; want %d", gotToken, lo, hi, want.U, st.Token)
		}
		if st.Token != gotToken { // a neighbour, within rounding
			biased := len(s.marker) > 1 && s.mayFollow(token) && s.rows[i].HelpBias != 0 && gotToken == s.marker[0]
			st.Token, st.Forced = gotToken, 0
			if biased {
				st.Forced = 1
			}
		}
		want.SamplingLogProb = math.Log(want.P[gotToken])
	}
	if gotToken != st.Token || gotForced != st.Forced {
		return false, fmt.Errorf("token %d forced %d, want %d forced %d", gotToken, gotForced, st.Token, st.Forced)
	}
	lse, entropy := ref.LogitStats(z)
	errP, errH := sampleErrors(z)
	if err := nearSlice("LogProb", s.logp.after()[i:i+1], expected{[]float64{z[gotToken] - lse}, []float64{errP + math.Abs(z[gotToken])}}); err != nil {
		return false, err
	}
	if err := nearSlice("Entropy", s.entropy.after()[i:i+1], expected{[]float64{entropy}, []float64{errH}}); err != nil {
		return false, err
	}
	errS := 0.0
	if want.P != nil && s.rows[i].Temperature > 0 {
		bias := math.Abs(s.rows[i].HelpBias)
		if math.IsInf(bias, 0) {
			bias = 0
		}
		errS = vocabC(s.v) + elemC + 4*(math.Abs(z[gotToken])+math.Abs(slices.Max(z))+bias)/s.rows[i].Temperature
	}
	return true, nearSlice("SamplingLogProb", s.slogp.after()[i:i+1], expected{[]float64{want.SamplingLogProb}, []float64{errS}})
}

// sampleErrors are the errors of a log-prob, to which that of its logit is added,
// and of the entropy, both from given logits: see expectLogProb.
func sampleErrors(z []float64) (logp, entropy float64) {
	lse, top, c := ref.LogSumExp(z), slices.Max(z), vocabC(len(z))
	logp = c + 2*math.Abs(lse) + math.Abs(top)
	entropy = logp
	for _, v := range z {
		entropy += math.Exp(v-lse) * (math.Abs(v)*(c+2) + math.Abs(v-lse)*(math.Abs(v-top)+math.Abs(lse)+elemC))
	}
	return logp, entropy
}

// settled reports whether the support of row i's distribution is the same for
// filters a little tighter and a little looser.
func (s *sampler) settled(i int, z []float64) bool {
	biased := -1
	if s.mayFollow(s.tokens.intsBefore()[i]) {
		biased = int(s.marker[0])
	}
	support := func(f float64) []bool {
		p := s.rows[i]
		if p.TopP < 1 {
			p.TopP *= f
		}
		p.MinP *= f
		var out []bool
		for _, v := range ref.Distribution(z, p, biased) {
			out = append(out, v > 0)
		}
		return out
	}
	return slices.Equal(support(1-1e-5), support(1+1e-5))
}

// samplingRows mixes settings over b rows.
func samplingRows(e *env, b int) []ref.SampleParams {
	rows := make([]ref.SampleParams, b)
	for i := range rows {
		r := plainSampling
		r.SeedLo, r.SeedHi = int32(e.rng.Uint32()), int32(e.rng.Uint32())
		r.Step, r.Prompt, r.Sample = int32(i%3), int32(e.rng.IntN(1000)), int32(i)
		switch i % 9 {
		case 1:
			r.Temperature = 0.6
		case 2:
			r.Temperature = 0
		case 3:
			r.TopK = 1 + i
		case 4:
			r.TopP = 0.8
		case 5:
			r.MinP = 0.05
		case 6:
			r.Temperature, r.TopK, r.TopP, r.MinP = 1.5, 30, 0.9, 0.02
		case 7:
			r.HelpBias = 3
		case 8:
			r.HelpBias, r.Temperature = -2, 0.8
		}
		rows[i] = r
	}
	return rows
}

func sampleChecks() (checks list) {
	for i, s := range [][2]int{{0, 10}, {1, 1}, {3, 2}, {1, 40}, {8, 40}, {40, 63}, {18, 1000}, {9, engine.VocabChunk - 1},
		{9, engine.VocabChunk}, {10, engine.VocabChunk + 1}, {18, 9001}, {7, 40000}} {
		for _, withMarker := range []bool{false, true} {
			b, v := s[0], s[1]
			if withMarker && v < 40 {
				continue
			}
			checks.add("Sample", "", fmt.Sprintf("B=%d,V=%d,marker=%v", b, v, withMarker), b*v, i,
				func(e *env) error { return sampleStep(e, b, v, withMarker) })
		}
	}
	checks.one("Sample", "ties", sampleTies)
	checks.one("Sample", "help bias shifts the log-odds", biasShiftsLogOdds)
	checks.one("Sample", "the marker is forced to its end", markerForced)
	checks.one("Sample", "a bias of -Inf forbids", biasForbids)
	checks.one("Sample", "marker slice is copied at the call", markerCopied)
	return checks
}

func sampleStep(e *env, b, v int, withMarker bool) error {
	logits := e.normal(b*v, 2)
	var marker []int32
	if withMarker {
		marker = []int32{7, 20, 31}
	}
	tokens, positions, forced := make([]int32, b), make([]int32, b), make([]int32, b)
	for i := range b {
		tokens[i], positions[i] = int32(e.rng.IntN(v)), int32(e.rng.IntN(500))
		if i%5 == 4 {
			positions[i] = -1
		}
		if withMarker && i%6 == 5 {
			forced[i] = int32(1 + i%2)
		}
	}
	rows := samplingRows(e, b)
	for i := range rows {
		if forced[i] > 0 && rows[i].HelpBias == 0 {
			rows[i].HelpBias = 1
		}
	}
	s := e.sampler(v, logits, rows, marker, tokens, positions, forced)
	e.Sample(s.args())
	if err := e.fetch(); err != nil {
		return err
	}
	decided, err := s.verify()
	if err == nil && decided < b*3/4 {
		err = fmt.Errorf("only %d of %d rows are decided by the reference: the case has lost its teeth", decided, b)
	}
	return err
}

// sampleTies: at temperature 0 the lowest index wins, wherever the ties lie.
func sampleTies(e *env) error {
	for _, c := range []struct {
		v    int
		at   []int
		want int32
	}{{5, nil, 0}, {40, []int{39, 12}, 12}, {9001, []int{9000, 4096, 4095}, 4095}, {9001, []int{8999, 9000}, 8999}, {100, []int{33, 17, 65}, 17}} {
		logits := make([]float32, c.v)
		for _, i := range c.at {
			logits[i] = 3
		}
		greedy := plainSampling
		greedy.Temperature = 0
		s := e.sampler(c.v, logits, []ref.SampleParams{greedy}, nil, []int32{0}, []int32{4}, []int32{0})
		e.Sample(s.args())
		if err := e.fetch(); err != nil {
			return err
		}
		if got := s.tokens.intsAfter()[0]; got != c.want {
			return fmt.Errorf("maxima at %v of %d: drew %d, want %d", c.at, c.v, got, c.want)
		}
		if _, err := s.verify(); err != nil {
			return err
		}
	}
	return nil
}

// biasShiftsLogOdds: where the marker may follow, log(p/(1−p)) of its first
// token is what it was plus the bias; elsewhere it is what it was.
func biasShiftsLogOdds(e *env) error {
	const v, b = 50, 64
	const biasBy = 1.25
	marker := []int32{9}
	row := e.normal(v, 1)
	row[9] = 2.5
	rows, tokens, positions := make([]ref.SampleParams, b), make([]int32, b), make([]int32, b)
	for i := range rows {
		rows[i] = plainSampling
		rows[i].HelpBias, rows[i].Sample = biasBy, int32(i)
		tokens[i], positions[i] = int32(i%2), 3
	}
	s := e.sampler(v, slices.Repeat(row, b), rows, marker, tokens, positions, make([]int32, b))
	e.Sample(s.args())
	if err := e.fetch(); err != nil {
		return err
	}
	seen := [2]int{}
	logOdds := func(lp float64) float64 { return lp - math.Log(-math.Expm1(lp)) }
	for i, tok := range s.tokens.intsAfter() {
		if tok != 9 {
			continue
		}
		allowed := i % 2
		seen[allowed]++
		shift := logOdds(float64(s.slogp.after()[i])) - logOdds(float64(s.logp.after()[i]))
		if want := biasBy * float64(allowed); !(math.Abs(shift-want) <= 1e-5) {
			return fmt.Errorf("log-odds moved by %.7f, want %g", shift, want)
		}
	}
	if seen[0] == 0 || seen[1] == 0 || seen[1] <= seen[0] {
		return fmt.Errorf("the marker came %d times where it may follow and %d times where it may not", seen[1], seen[0])
	}
	_, err := s.verify()
	return err
}

// markerForced: a bias that makes the marker certain gives all of it, token by
// token, over calls on the same tensors; then sampling goes on.
func markerForced(e *env) error {
	const v = 45
	marker := []int32{7, 20, 2, 31}
	row := plainSampling
	row.HelpBias, row.SeedLo = 200, 5
	plain := row
	plain.HelpBias = 0
	logits := e.normal(3*v, 1)
	logits[2*v+7] = 50 // the third row draws the first token without any bias
	s := e.sampler(v, logits, []ref.SampleParams{row, row, plain}, marker, []int32{1, 2, 1}, []int32{10, 10, 10}, make([]int32, 3))
	for step := range len(marker) + 1 {
		e.UploadF32(engine.Vector(s.logits.buf, 0, len(s.logits.f)), s.logits.f)
		e.Sample(s.args())
		if err := e.fetch(); err != nil {
			return err
		}
		if _, err := s.verify(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		got := s.tokens.intsAfter()[0]
		if step < len(marker) && got != marker[step] {
			return fmt.Errorf("step %d drew %d, want the marker's %d", step, got, marker[step])
		}
		if step > 0 && step < len(marker) && s.slogp.after()[0] != 0 {
			return fmt.Errorf("step %d: a forced token has probability 1, got log %g", step, s.slogp.after()[0])
		}
		if f := s.forced.intsAfter()[2]; f != 0 {
			return fmt.Errorf("step %d: forced without a bias", step)
		}
		for _, b := range []*block{s.tokens, s.positions, s.forced} {
			b.i = b.iAfter // the next call starts from here
		}
	}
	return nil
}

func biasForbids(e *env) error {
	const v, b = 40, 33
	logits := make([]float32, b*v)
	rows, tokens, positions := make([]ref.SampleParams, b), make([]int32, b), make([]int32, b)
	for i := range rows {
		logits[i*v+7] = 8
		rows[i] = plainSampling
		rows[i].HelpBias, rows[i].Sample = math.Inf(-1), int32(i)
		tokens[i] = 1
		if i%3 == 0 {
			rows[i].Temperature = 0
		}
		if i == b-1 { // forbidden only where the marker may follow
			rows[i].Temperature, tokens[i] = 0, 2
		}
	}
	s := e.sampler(v, logits, rows, []int32{7, 8}, tokens, positions, make([]int32, b))
	e.Sample(s.args())
	if err := e.fetch(); err != nil {
		return err
	}
	for i, tok := range s.tokens.intsAfter() {
		if (tok == 7) != (i == b-1) {
			return fmt.Errorf("row %d drew %d", i, tok)
		}
	}
	_, err := s.verify()
	return err
}

func markerCopied(e *env) error {
	const v = 40
	row := plainSampling
	row.HelpBias = 200
	marker := []int32{7, 20}
	s := e.sampler(v, e.normal(v, 1), []ref.SampleParams{row}, marker, []int32{1}, []int32{0}, []int32{0})
	a := s.args()
	a.Marker = slices.Clone(marker)
	e.Sample(a)
	a.Marker[0] = 3
	if err := e.fetch(); err != nil {
		return err
	}
	_, err := s.verify()
	return err
}

// samplingStatisticsChecks: many draws against the reference's probabilities.
func samplingStatisticsChecks() (checks list) {
	for name, change := range map[string]func(*ref.SampleParams){
		"plain":       func(*ref.SampleParams) {},
		"temperature": func(p *ref.SampleParams) { p.Temperature = 0.7 },
		"top-k":       func(p *ref.SampleParams) { p.TopK = 5 },
		"top-p":       func(p *ref.SampleParams) { p.TopP = 0.8 },
		"min-p":       func(p *ref.SampleParams) { p.MinP = 0.15 },
		"bias":        func(p *ref.SampleParams) { p.HelpBias = 1.5 },
	} {
		checks.one("SampleStatistics", name, func(e *env) error { return chiSquare(e, change) })
	}
	sortChecks(checks)
	return checks
}

// chiSquare draws 8192 tokens that differ in prompt, sample and position; where
// sizes are thin, 512.
func chiSquare(e *env, change func(*ref.SampleParams)) error {
	const v, b = 12, 512
	calls := pick(e, 16, 1)
	row := make([]float32, v)
	for i := range row {
		row[i] = float32(i*7%v) / 4
	}
	rows := make([]ref.SampleParams, b)
	for i := range rows {
		rows[i] = plainSampling
		rows[i].SeedLo, rows[i].Prompt, rows[i].Sample = 77, int32(i/8), int32(i%8)
		change(&rows[i])
	}
	counts := make([]float64, v)
	for call := range calls {
		tokens, positions := slices.Repeat([]int32{1}, b), slices.Repeat([]int32{int32(call)}, b)
		s := e.sampler(v, slices.Repeat(row, b), rows, []int32{3}, tokens, positions, make([]int32, b))
		e.Sample(s.args())
		if err := e.fetch(); err != nil {
			return err
		}
		for _, tok := range s.tokens.intsAfter() {
			counts[tok]++
		}
	}
	return chiSquareTest(counts, ref.Distribution(toMat(1, v, row).V, rows[0], 3))
}

// chiSquareTest fails with probability below 1e-5 for counts that follow p: the
// quantile is Wilson and Hilferty's approximation at 4.3 standard deviations.
func chiSquareTest(counts, p []float64) error {
	total, chi, df := 0.0, 0.0, -1.0
	for _, c := range counts {
		total += c
	}
	for i, c := range counts {
		if p[i] == 0 {
			if c > 0 {
				return fmt.Errorf("token %d was drawn %g times though it is filtered out", i, c)
			}
			continue
		}
		df++
		chi += (c - total*p[i]) * (c - total*p[i]) / (total * p[i])
	}
	if df <= 0 {
		return nil
	}
	q := 1 - 2/(9*df) + 4.3*math.Sqrt(2/(9*df))
	if limit := df * q * q * q; !(chi <= limit) {
		return fmt.Errorf("chi-square of %g draws is %.1f, over %.1f for %g degrees of freedom", total, chi, limit, df)
	}
	return nil
}
