package enginetest

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

func optimizerChecks() (checks list) {
	for i, n := range []int{0, 1, 7, 8, 31, 33, 256, 257, 1000, 4097, 100003} {
		name := fmt.Sprintf("n=%d", n)
		checks.add("SumSquares", "", name, n, i, func(e *env) error { return sumSquares(e, n) })
		checks.add("AdamW", "", name, 8*n, i, func(e *env) error { return adamW(e, n, i%2 == 0) })
		checks.add("AdamW", "8-bit moments", name, 8*n, i, func(e *env) error { return adamW8(e, n, i%2 == 1) })
	}
	checks.one("AdamW", "8-bit moments never lose a second moment", secondMomentStays)
	return checks
}

func sumSquares(e *env, n int) error {
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
func adamW(e *env, n int, withCopy bool) error {
	vec := func(name string, v []float32) *block {
		return e.floats(name, inplace, layout{off: e.layout.off}, 1, n, v)
	}
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
		var c *block
		if withCopy {
			c = e.copyOf(n)
			a.Copy = c.Tensor
		}
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
		if c != nil {
			if err := c.isRounded(p); err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
		}
	}
	return nil
}

// copyOf is where AdamW stores the new P in BF16.
func (e *env) copyOf(n int) *block {
	return e.tensor("Copy", output, engine.BF16, layout{off: e.layout.off}, 1, n, nil)
}

// isRounded demands of a BF16 tensor that it is p, rounded.
func (b *block) isRounded(p *block) error {
	want := p.matAfter()
	for i, v := range want.V {
		want.V[i] = float64(half.FromBF16(half.BF16(float32(v))))
	}
	return b.exactly(want.V)
}

// codes is a tensor of 8-bit codes.
func (e *env) codes(name string, v []int32) *block {
	b := e.block(name, inplace, engine.U8, layout{off: e.layout.off}, 1, len(v))
	b.i = make([]int32, b.buf.Len())
	for i := range b.i {
		b.i[i] = canaryU8
	}
	copy(b.i[b.Off:], v)
	e.UploadI32(engine.Vector(b.buf, 0, len(b.i)), b.i)
	return b
}

// moment8 is a moment of n elements in codes and scales.
type moment8 struct {
	codes, scales *block
	values        [256]float32
}

func (e *env) moment8(name string, n int, values [256]float32) moment8 {
	codes, scales := make([]int32, n), make([]float32, blocks8(n))
	for i := range codes {
		codes[i] = int32(e.rng.IntN(256))
	}
	for i := range scales {
		scales[i] = float32(math.Exp(e.rng.NormFloat64()))
	}
	return moment8{e.codes(name, codes), e.floats(name+"Scale", inplace, layout{off: e.layout.off}, 1, len(scales), scales), values}
}

func blocks8(n int) int { return (n + engine.MomentBlock - 1) / engine.MomentBlock }

func (m moment8) widen(codes []int32, scales []float32) []float64 {
	out := make([]float64, len(codes))
	for i, c := range codes {
		out[i] = float64(m.values[c]) * float64(scales[i/engine.MomentBlock])
	}
	return out
}

func (m moment8) before() []float64 { return m.widen(m.codes.intsBefore(), m.scales.before()) }

// near demands of codes and scales that they are the nearest to want, but for
// want's own errors.
func (m moment8) near(want expected) error {
	scales := expected{make([]float64, blocks8(len(want.v))), make([]float64, blocks8(len(want.v)))}
	for i, v := range want.v {
		b := i / engine.MomentBlock
		scales.v[b] = math.Max(scales.v[b], math.Abs(v))
		scales.err[b] = math.Max(scales.err[b], want.err[i])
	}
	if err := m.scales.near(scales); err != nil {
		return err
	}
	codes := m.codes.intsAfter()
	tol := want.tol(engine.F32)
	for i, v := range want.v {
		scale := float64(m.scales.after()[i/engine.MomentBlock])
		if scale == 0 {
			continue
		}
		code := codes[i]
		if code < 0 || code > 255 {
			return fmt.Errorf("%s: element %d has code %d", m.codes.name, i, code)
		}
		// The error of x/scale, and of the middle between two values.
		slack := tol[i]/scale + 4*testx.EpsF32*math.Abs(v/scale)
		x, got := v/scale, float64(m.values[code])
		best := float64(m.values[nearestCode(m.values, v, scale)])
		if !(math.Abs(got-x) <= math.Abs(best-x)+2*slack) {
			return fmt.Errorf("%s: element %d, %g of scale %g, has the code %d of %g; that of %g is nearer", m.codes.name, i, v, scale, code, got, best)
		}
	}
	return nil
}

// adamW8 takes three steps from random codes and compares each with what the
// equations give from the values of the codes.
func adamW8(e *env, n int, withCopy bool) error {
	for _, step := range []int{1, 2, 1000} {
		p, g := e.floats("P", inplace, layout{off: e.layout.off}, 1, n, e.normal(n, 1)), e.vec("G", e.normal(n, 1))
		m, v := e.moment8("M", n, engine.SignedMomentMap()), e.moment8("V", n, engine.UnsignedMomentMap())
		a := engine.AdamWArgs{P: p.Tensor, G: g.Tensor, M: m.codes.Tensor, V: v.codes.Tensor,
			MScale: m.scales.Tensor, VScale: v.scales.Tensor, LR: 0.01, Beta1: 0.9, Beta2: 0.999,
			Eps: 1e-8, WeightDecay: 0.1, GradScale: 0.37, Step: step}
		var c *block
		if withCopy {
			c = e.copyOf(n)
			a.Copy = c.Tensor
		}
		e.AdamW(a)
		if err := e.fetch(); err != nil {
			return err
		}
		wp, wm, wv := expectAdamW(p.mat().V, g.mat().V, m.before(), v.before(), a)
		if err := p.near(wp); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if err := m.near(wm); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if err := v.near(wv); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if c != nil {
			if err := c.isRounded(p); err != nil {
				return fmt.Errorf("step %d: %w", step, err)
			}
		}
	}
	return nil
}

// secondMomentStays: beside a large element a small one's second moment must not
// become zero, or its next update would be its first moment over Eps.
func secondMomentStays(e *env) error {
	const n = 300
	g := make([]float32, n)
	for i := range g {
		g[i] = 1e-5
	}
	g[7], g[280] = 1, -1
	p, gb := e.floats("P", inplace, dense, 1, n, make([]float32, n)), e.vec("G", g)
	zeros := func(name string) *block {
		return e.floats(name, inplace, dense, 1, blocks8(n), make([]float32, blocks8(n)))
	}
	m, v, ms, vs := e.codes("M", make([]int32, n)), e.codes("V", make([]int32, n)), zeros("MScale"), zeros("VScale")
	for step := 1; step <= 5; step++ {
		if step > 1 {
			e.Fill(gb.Tensor, 0)
			gb.role = inplace
		}
		e.AdamW(engine.AdamWArgs{P: p.Tensor, G: gb.Tensor, M: m.Tensor, V: v.Tensor, MScale: ms.Tensor, VScale: vs.Tensor,
			LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, GradScale: 1, Step: step})
	}
	if err := e.fetch(); err != nil {
		return err
	}
	for i, x := range p.after() {
		// An exact Adam would move by no more than one LR in a step.
		if !(math.Abs(float64(x)) <= 5*0.1) {
			return fmt.Errorf("element %d has moved to %g in five steps of 0.1", i, x)
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
