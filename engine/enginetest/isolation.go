package enginetest

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// isolationChecks: a NaN or an Inf reaches the results that depend on it and no
// others.
func isolationChecks() (checks list) {
	checks.one("Isolation", "rows of X", nanRows)
	checks.one("Isolation", "rows of W", nanWeightRow)
	checks.one("Isolation", "keys and values that a row does not see", nanKeys)
	checks.one("Isolation", "rows of the head", nanHead)
	checks.one("Isolation", "optimizer elements", nanOptimizer)
	return checks
}

var nan32 = float32(math.NaN())

// spread demands of out that exactly the given elements are not finite.
func (b *block) spread(poisoned func(row, col int) bool) error {
	for i, v := range b.after() {
		r, c := i/b.Cols, i%b.Cols
		bad := math.IsNaN(float64(v)) || math.IsInf(float64(v), 0)
		if bad != poisoned(r, c) {
			return fmt.Errorf("%s: element (%d, %d) is %g; should it be finite: %v", b.name, r, c, v, !poisoned(r, c))
		}
	}
	return nil
}

func nanRows(e *env) error {
	const t, k, n = 11, 40, 24
	for _, poison := range []float32{nan32, float32(math.Inf(1))} {
		for at := range t {
			xs := e.normal(t*k, 1)
			xs[at*k+k/2] = poison
			x := e.data("X", t, k, xs)
			_, w := e.weight("W", n, k)
			y, norm := e.out("Linear", t, n), e.out("RMSNorm", t, k)
			dw := e.inoutF32("LinearBackwardWeight", k, n)
			e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
			e.RMSNorm(engine.RMSNormArgs{Y: norm.Tensor, X: x.Tensor, W: e.vec("G", e.normal(k, 1)).Tensor, Groups: 1, Eps: 1e-6})
			e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw.Tensor, DY: x.Tensor, X: e.in("X2", t, n).Tensor})
			if err := e.fetch(); err != nil {
				return err
			}
			if err := y.spread(func(r, _ int) bool { return r == at }); err != nil {
				return err
			}
			if math.IsNaN(float64(poison)) {
				if err := norm.spread(func(r, _ int) bool { return r == at }); err != nil {
					return err
				}
			}
			if err := dw.spread(func(r, _ int) bool { return r == k/2 }); err != nil {
				return err
			}
		}
	}
	return nil
}

func nanWeightRow(e *env) error {
	const t, k, n = 5, 17, 40
	for at := 0; at < n; at += 7 {
		ws := e.normal(n*k, 1)
		ws[at*k+3] = nan32
		x := e.in("X", t, k)
		y, dx := e.out("Linear", t, n), e.out("LinearBackwardInput", t, k)
		w := e.prepare(e.matrix("W", n, k, ws))
		e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
		// 0·NaN is NaN: a zero gradient does not hide it.
		e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx.Tensor, DY: e.data("DY", t, n, make([]float32, t*n)).Tensor, W: w})
		if err := e.fetch(); err != nil {
			return err
		}
		if err := y.spread(func(_, c int) bool { return c == at }); err != nil {
			return err
		}
		if err := dx.spread(func(_, c int) bool { return c == 3 }); err != nil {
			return err
		}
	}
	return nil
}

// nanKeys poisons one row's key and value: the rows that see it are NaN, the
// others are what they were.
func nanKeys(e *env) error {
	h := heads{4, 2, 16}
	p := pack([]group{{35, []int{10, 34}}, {4, []int{2}}}, true)
	sees := func(t, key int) bool {
		for _, s := range p.Segments {
			if t >= s.Start && t < s.Start+s.Len {
				return key >= s.Start && key <= t || key >= s.PrefixStart && key < s.PrefixStart+s.PrefixLen
			}
		}
		return false
	}
	for _, at := range []int{0, 17, 34, 35, 44, 45, 60, 78, 79, 83} {
		ks, vs := e.normal(p.Rows*h.kv*h.d, 1), e.normal(p.Rows*h.kv*h.d, 1)
		ks[at*h.kv*h.d+3] = nan32 // head 0: query heads 0 and 1
		vs[at*h.kv*h.d+h.d+5] = nan32
		o, lse := e.out("O", p.Rows, h.h*h.d), e.outF32("LSE", p.Rows, h.h)
		e.Attention(engine.AttentionArgs{O: o.Tensor, LSE: lse.Tensor, Q: e.in("Q", p.Rows, h.h*h.d).Tensor,
			K: e.data("K", p.Rows, h.kv*h.d, ks).Tensor, V: e.data("V", p.Rows, h.kv*h.d, vs).Tensor,
			HeadDim: h.d, Scale: h.scale(), Packing: p})
		if err := e.fetch(); err != nil {
			return err
		}
		if err := o.spread(func(r, c int) bool { return sees(r, at) && (c < 2*h.d || c%h.d == 5) }); err != nil {
			return fmt.Errorf("key row %d: %w", at, err)
		}
		if err := lse.spread(func(r, c int) bool { return sees(r, at) && c < 2 }); err != nil {
			return fmt.Errorf("key row %d: %w", at, err)
		}
	}
	return nil
}

func nanHead(e *env) error {
	const t, c, v, at = 7, 20, 5000, 3
	xs := e.normal(t*c, 1)
	xs[at*c] = nan32
	x := e.data("X", t, c, xs)
	_, w := e.weight("W", v, c)
	logp, entropy, lse := e.outVec("LogProb", t), e.outVec("Entropy", t), e.outVec("LSE", t)
	e.LogProb(engine.LogProbArgs{X: x.Tensor, W: w, Targets: e.ints("Targets", make([]int32, t)).Tensor,
		LogProb: logp.Tensor, Entropy: entropy.Tensor, LSE: lse.Tensor, Scale: 1})
	if err := e.fetch(); err != nil {
		return err
	}
	for _, b := range []*block{logp, entropy, lse} {
		if err := b.spread(func(_, c int) bool { return c == at }); err != nil {
			return err
		}
	}
	return nil
}

func nanOptimizer(e *env) error {
	const n, at = 45, 20
	gs := e.normal(n, 1)
	gs[at] = nan32
	g, p := e.vec("G", gs), e.inoutF32("P", 1, n)
	m, v := e.dataF32("M", 1, n, make([]float32, n)), e.dataF32("V", 1, n, make([]float32, n))
	m.role, v.role = inplace, inplace
	sum := e.outVec("SumSquares", 1)
	e.AdamW(engine.AdamWArgs{P: p.Tensor, G: g.Tensor, M: m.Tensor, V: v.Tensor, LR: 0.1, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1, Step: 1})
	e.SumSquares(engine.SumSquaresArgs{Out: sum.Tensor, X: g.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	for _, b := range []*block{p, m, v} {
		if err := b.spread(func(_, c int) bool { return c == at }); err != nil {
			return err
		}
	}
	return sum.spread(func(int, int) bool { return true })
}
