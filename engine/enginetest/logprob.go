package enginetest

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

func logprobChecks() (checks list) {
	shapes := [][3]int{{0, 8, 40}, {1, 1, 1}, {3, 7, 1}, {1, 16, 40}, {5, 33, 40}, {17, 8, 63}, {40, 5, 13}, {2, 9, 1000},
		{2, 12, engine.VocabChunk - 1}, {3, 5, engine.VocabChunk}, {2, 17, engine.VocabChunk + 1}, {3, 8, 9001}}
	for i, s := range shapes {
		t, c, v := s[0], s[1], s[2]
		scale := []float32{1, 1 / 0.7, 0.5}[i%3]
		name := fmt.Sprintf("T=%d,C=%d,V=%d,scale=%.2f", t, c, v, scale)
		add := func(op, kind string, run func(*env) error) {
			if v > engine.VocabChunk {
				kind += " over chunks"
			}
			checks.add(op, kind, name, t*c*v, i, run)
		}
		add("LogProb", "plain", func(e *env) error { return logProb(e, t, c, v, scale, 1) })
		add("LogProbBackward", "plain", func(e *env) error { return logProbBackward(e, t, c, v, scale, false, true) })
		add("LogProbBackward", "entropy", func(e *env) error { return logProbBackward(e, t, c, v, scale, true, true) })
		add("LogProbBackward", "frozen head", func(e *env) error { return logProbBackward(e, t, c, v, scale, true, false) })
	}
	checks.one("LogProb", "peaked", func(e *env) error { return logProb(e, 6, 8, 100, 1, 30) })
	return checks
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
	wp, wh, wl := e.expectLogProb(x.mat(), wb.mat(), targets.intsBefore(), float64(scale))
	if err := logp.near(wp); err != nil {
		return err
	}
	if err := lse.near(wl); err != nil {
		return err
	}
	return entropy.near(wh)
}

func logProbBackward(e *env, t, c, v int, scale float32, withEntropy, withWeight bool) error {
	x, wb, w, targets := e.head(t, c, v, 1)
	_, h, l := ref.LogProb(x.mat(), wb.mat(), targets.intsBefore(), float64(scale))
	lse, dlogp := e.vec("LSE", toF32(l)), e.vec("DLogProb", e.normal(t, 1))
	dx := e.out("DX", t, c)
	a := engine.LogProbBackwardArgs{DX: dx.Tensor, X: x.Tensor, W: w, Targets: targets.Tensor,
		LSE: lse.Tensor, DLogProb: dlogp.Tensor, Scale: scale}
	var dw *block
	if withWeight {
		dw = e.inoutF32("DW", v, c)
		a.DW = dw.Tensor
	}
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
	wx, ww := e.expectLogProbBackward(x.mat(), wb.mat(), targets.intsBefore(), lse.mat().V, entropy, dlogp.mat().V, dentropy, float64(scale))
	if err := dx.near(wx); err != nil || !withWeight {
		return err
	}
	return dw.near(ww.plus(dw.mat().V, e.chain(t)))
}
