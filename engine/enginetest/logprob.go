package enginetest

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

func logprobChecks() (checks []Check) {
	shapes := [][3]int{{0, 8, 40}, {1, 1, 1}, {3, 7, 1}, {1, 16, 40}, {5, 33, 40}, {17, 8, 63}, {40, 5, 13}, {2, 9, 1000},
		{2, 12, engine.VocabChunk - 1}, {3, 5, engine.VocabChunk}, {2, 17, engine.VocabChunk + 1}, {3, 8, 9001}}
	for i, s := range shapes {
		t, c, v := s[0], s[1], s[2]
		scale := []float32{1, 1 / 0.7, 0.5}[i%3]
		name := fmt.Sprintf("T=%d,C=%d,V=%d,scale=%.2f", t, c, v, scale)
		add := func(op, name string, run func(*env) error) {
			checks = append(checks, Check{op, name, withLayout(i, run)})
		}
		add("LogProb", name, func(e *env) error { return logProb(e, t, c, v, scale, 1) })
		add("LogProbBackward", "plain/"+name, func(e *env) error { return logProbBackward(e, t, c, v, scale, false) })
		add("LogProbBackward", "entropy/"+name, func(e *env) error { return logProbBackward(e, t, c, v, scale, true) })
	}
	return append(checks, Check{"LogProb", "peaked", func(e *env) error { return logProb(e, 6, 8, 100, 1, 30) }})
}

// head is the input of a language-model head: hidden states of the given size,
// a weight, and targets that include both ends of the vocabulary.
func (e *env) head(t, c, v int, size float64) (x, wb *block, w engine.Weight, targets *block) {
	x = e.inScaled("X", t, c, 2*size)
	wb, w = e.weight("W", v, c)
	ids := make([]int32, t)
	for i := range ids {
		switch i % 3 {
		case 0:
			ids[i] = int32(v - 1)
		case 1:
			ids[i] = int32(e.rng.IntN(v))
		}
	}
	return x, wb, w, e.ints("Targets", ids)
}

func logProb(e *env, t, c, v int, scale float32, size float64) error {
	x, wb, w, targets := e.head(t, c, v, size)
	logp, entropy, lse := e.outVec("LogProb", t), e.outVec("Entropy", t), e.outVec("LSE", t)
	e.LogProb(engine.LogProbArgs{X: x.Tensor, W: w, Targets: targets.Tensor,
		LogProb: logp.Tensor, Entropy: entropy.Tensor, LSE: lse.Tensor, Scale: scale})
	if err := e.fetch(); err != nil {
		return err
	}
	wp, wh, wl := expectLogProb(x.mat(), wb.mat(), targets.intsBefore(), float64(scale))
	if err := logp.near(wp); err != nil {
		return err
	}
	if err := lse.near(wl); err != nil {
		return err
	}
	return entropy.near(wh)
}

func logProbBackward(e *env, t, c, v int, scale float32, withEntropy bool) error {
	x, wb, w, targets := e.head(t, c, v, 1)
	_, h, l := ref.LogProb(x.mat(), wb.mat(), targets.intsBefore(), float64(scale))
	lse, dlogp := e.vec("LSE", toF32(l)), e.vec("DLogProb", e.normal(t, 1))
	dx, dw := e.out("DX", t, c), e.inout("DW", v, c)
	a := engine.LogProbBackwardArgs{DX: dx.Tensor, DW: dw.Tensor, X: x.Tensor, W: w, Targets: targets.Tensor,
		LSE: lse.Tensor, DLogProb: dlogp.Tensor, Scale: scale}
	var entropy, dentropy []float64
	if withEntropy {
		hb, db := e.vec("Entropy", toF32(h)), e.vec("DEntropy", e.normal(t, 1))
		a.Entropy, a.DEntropy = hb.Tensor, db.Tensor
		entropy, dentropy = hb.mat().V, db.mat().V
	}
	e.LogProbBackward(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wx, ww := expectLogProbBackward(x.mat(), wb.mat(), targets.intsBefore(), lse.mat().V, entropy, dlogp.mat().V, dentropy, float64(scale))
	if err := dx.near(wx); err != nil {
		return err
	}
	return dw.near(ww.plus(dw.mat().V, testx.ChainC(t)))
}

func optimizerChecks() (checks []Check) {
	for i, n := range []int{0, 1, 7, 8, 31, 33, 1000, 4097, 100003} {
		l := layouts[i%len(layouts)]
		checks = append(checks,
			Check{"SumSquares", fmt.Sprintf("n=%d", n), func(e *env) error { return sumSquares(e, n, l) }},
			Check{"AdamW", fmt.Sprintf("n=%d", n), func(e *env) error { return adamW(e, n, l) }})
	}
	return checks
}

func sumSquares(e *env, n int, l layout) error {
	l.pad = 0
	e.layout = l
	x, out := e.vec("X", e.normal(n, 1)), e.outVec("Out", 1)
	e.SumSquares(engine.SumSquaresArgs{Out: out.Tensor, X: x.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	want := []float64{ref.SumSquares(x.mat().V)}
	return out.near(expect(testx.ChainC(n), want, want))
}

// adamW takes three steps and compares each on its own, from what the backend
// held before it. At step 1000 the bias corrections are near one; at step 1
// they are 1−β exactly, which must not be computed by cancellation.
func adamW(e *env, n int, l layout) error {
	l.pad = 0
	e.layout = l
	vec := func(name string, v []float32) *block { return e.floats(name, inplace, layout{off: l.off}, 1, n, v) }
	second := e.normal(n, 1)
	for i := range second {
		second[i] *= second[i]
	}
	for _, step := range []int{1, 2, 1000} {
		p, g, m, v := vec("P", e.normal(n, 1)), vec("G", e.normal(n, 1)), vec("M", e.normal(n, 1)), vec("V", second)
		if step == 1 {
			m, v = vec("M", make([]float32, n)), vec("V", make([]float32, n))
		}
		g.role = input
		a := engine.AdamWArgs{P: p.Tensor, G: g.Tensor, M: m.Tensor, V: v.Tensor, LR: 0.01, Beta1: 0.9, Beta2: 0.999,
			Eps: 1e-8, WeightDecay: 0.1, GradScale: 0.37, Step: step}
		e.AdamW(a)
		if err := e.fetch(); err != nil {
			return err
		}
		wp, wm, wv := expectAdamW(p.mat().V, g.mat().V, m.mat().V, v.mat().V, a)
		for _, c := range []struct {
			b *block
			x expected
		}{{m, wm}, {v, wv}, {p, wp}} {
			if err := c.b.near(c.x); err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
		}
	}
	return nil
}

// expectAdamW: the moments are sums of two or three products; the update is
// their quotient, with the first moment's error and half the second's relative
// one. Scalars that depend on the step are the backend's to get right: they
// count as one rounding.
func expectAdamW(p, g, m, v []float64, a engine.AdamWArgs) (wp, wm, wv expected) {
	old := append([]float64(nil), m...)
	wp.v, wm.v, wv.v = append([]float64(nil), p...), append([]float64(nil), m...), append([]float64(nil), v...)
	par := ref.AdamWParams{LR: float64(a.LR), Beta1: float64(a.Beta1), Beta2: float64(a.Beta2), Eps: float64(a.Eps),
		WeightDecay: float64(a.WeightDecay), GradScale: float64(a.GradScale), Step: a.Step}
	ref.AdamW(wp.v, g, wm.v, wv.v, par)
	c1, c2 := 1-math.Pow(par.Beta1, float64(a.Step)), 1-math.Pow(par.Beta2, float64(a.Step))
	for i := range p {
		gi := math.Abs(g[i] * par.GradScale)
		em := 6 * (math.Abs(par.Beta1*old[i]) + (1-par.Beta1)*gi)
		wm.err = append(wm.err, em)
		wv.err = append(wv.err, 8*wv.v[i])
		den := math.Sqrt(wv.v[i]/c2) + par.Eps
		upd := math.Abs(wm.v[i]/c1) / den
		wp.err = append(wp.err, 4*math.Abs(p[i])+par.LR*(em/c1/den+upd*(elemC+8)+elemC*math.Abs(par.WeightDecay*p[i])))
	}
	return wp, wm, wv
}
