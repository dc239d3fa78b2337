package enginetest

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// linearShapes: every number of rows from 0 to 40 meets odd and even depths
// and widths around the sizes of SIMD registers and tiles; then long chains.
func linearShapes() (shapes [][3]int) {
	ks := []int{1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 100}
	ns := []int{1, 5, 8, 9, 16, 23, 24, 32, 33, 48, 63, 97}
	for t := range 41 {
		shapes = append(shapes, [3]int{t, ks[t%len(ks)], ns[t%len(ns)]})
	}
	for i, k := range ks {
		shapes = append(shapes, [3]int{1 + i%6, k, 257}, [3]int{1, k, ns[i%len(ns)]})
	}
	return append(shapes, [3]int{1, 1000, 7}, [3]int{3, 4097, 5}, [3]int{130, 20, 30})
}

func linearChecks(w engine.DType) (checks list) {
	for i, s := range linearShapes() {
		t, k, n := s[0], s[1], s[2]
		name := fmt.Sprintf("T=%d,K=%d,N=%d", t, k, n)
		add := func(op, kind string, run func(*env) error) {
			checks.add(op, kind, name, t*k*n, i, run)
		}
		add("Linear", "plain", func(e *env) error { return linearForward(e, e.a, t, k, n, false, false, false) })
		switch i % 4 {
		case 0:
			add("Linear", "bias", func(e *env) error { return linearForward(e, e.a, t, k, n, true, false, false) })
		case 1:
			add("Linear", "residual", func(e *env) error { return linearForward(e, engine.F32, t, k, n, false, true, false) })
		case 2:
			add("Linear", "bias+residual", func(e *env) error { return linearForward(e, engine.F32, t, k, n, true, true, false) })
		case 3:
			add("Linear", "bias+residual in place", func(e *env) error { return linearForward(e, engine.F32, t, k, n, true, true, true) })
		}
		if w != engine.F32 {
			add("Linear", "to float32", func(e *env) error { return linearForward(e, engine.F32, t, k, n, i%2 == 0, false, false) })
		}
		add("LinearBackwardInput", "overwrite", func(e *env) error { return linearBackwardInput(e, t, k, n, false) })
		add("LinearBackwardInput", "accumulate", func(e *env) error { return linearBackwardInput(e, t, k, n, true) })
		add("LinearBackwardWeight", "plain", func(e *env) error { return linearBackwardWeight(e, t, k, n, i%2 == 0) })
	}
	checks.one("Linear", "one chain in ascending K", chainInOrder)
	checks.one("Linear", "the chain is fused", chainIsFused)
	if w != engine.F32 {
		checks.one("Linear", "rounded once", linearRoundsOnce)
		checks.one("LinearBackwardInput", "rounded once", inputGradientRoundsOnce)
		checks.one("RoPE", "rounded once", ropeRoundsOnce)
	}
	checks.one("Linear", "refreshed weight", refreshedWeight)
	checks.one("Linear", "views of one buffer", fusedViews)
	checks.one("LinearBackwardWeight", "adds up over calls", weightAddsUp)
	return checks
}

// linearForward stores Y as type to.
func linearForward(e *env, to engine.DType, t, k, n int, withBias, withResidual, inPlace bool) error {
	x := e.in("X", t, k)
	wb, w := e.weight("W", n, k)
	a := engine.LinearArgs{X: x.Tensor, W: w}
	var bias, residual ref.Mat
	if withBias {
		b := e.vec("Bias", e.normal(n, 1))
		a.Bias, bias = b.Tensor, b.mat()
	}
	var y *block
	switch {
	case inPlace:
		y = e.inoutF32("Y", t, n)
		a.Residual, residual = y.Tensor, y.mat()
	case withResidual:
		r := e.dataF32("Residual", t, n, e.normal(t*n, 1))
		a.Residual, residual = r.Tensor, r.mat()
		fallthrough
	default:
		y = e.outAs(to, "Y", t, n)
	}
	a.Y = y.Tensor
	e.Linear(a)
	if err := e.fetch(); err != nil {
		return err
	}
	return y.near(e.expectLinear(x.mat(), wb.mat(), bias, residual))
}

func linearBackwardInput(e *env, t, k, n int, accumulate bool) error {
	dy := e.in("DY", t, n)
	wb, w := e.weight("W", n, k)
	dx := e.out("DX", t, k)
	if accumulate {
		dx = e.inout("DX", t, k)
	}
	e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx.Tensor, DY: dy.Tensor, W: w, Accumulate: accumulate})
	if err := e.fetch(); err != nil {
		return err
	}
	want := e.expectLinearBackwardInput(dy.mat(), wb.mat())
	if accumulate {
		want = want.plus(dx.mat().V, e.chain(n))
	}
	return dx.near(want)
}

func linearBackwardWeight(e *env, t, k, n int, withBias bool) error {
	dy, x := e.in("DY", t, n), e.in("X", t, k)
	dw := e.inoutF32("DW", n, k)
	a := engine.LinearBackwardWeightArgs{DW: dw.Tensor, DY: dy.Tensor, X: x.Tensor}
	var db *block
	if withBias {
		db = e.inoutVec("DBias", n)
		a.DBias = db.Tensor
	}
	e.LinearBackwardWeight(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wantW, wantB := e.expectLinearBackwardWeight(dy.mat(), x.mat())
	if err := dw.near(wantW.plus(dw.mat().V, e.chain(t))); err != nil {
		return err
	}
	if db == nil {
		return nil
	}
	return db.near(wantB.plus(db.mat().V, e.chain(t)))
}

// chainInOrder holds the forward to point 2 of the numerical contract with sums
// that only one order gets right: the products are 2⁶⁰, −2⁶⁰, 1 again and again.
// In ascending order each pair cancels and the last 1 is left; any other
// grouping loses it or keeps others. A matrix instruction adds up to matrixK
// products as one; there the three are the only ones of such a step.
func chainInOrder(e *env) error {
	every := 1
	if e.a != engine.F32 {
		every = matrixK
	}
	return exactChains(e, 3*every, func(_, w []float32) float64 {
		for i := 0; i < len(w); i += every {
			w[i] = []float32{1 << 60, -1 << 60, 1}[i/every%3]
		}
		return 1
	})
}

// matrixK is the depth of a matrix instruction on BF16.
const matrixK = 16

// chainIsFused: −(1+2⁻⁷+2⁻¹⁷) is followed by (1+2⁻¹⁷)·(1+2⁻⁷), whose last bit 2⁻²⁴
// only a fused multiply-add carries into the sum. Matrix instructions, which are
// what BF16 activations go through, add several products at once.
func chainIsFused(e *env) error {
	if e.a != engine.F32 {
		return nil
	}
	return exactChains(e, 3, func(x, w []float32) float64 {
		x[1], w[1] = -(1 + 1.0/(1<<7) + 1.0/(1<<17)), 1
		x[2], w[2] = 1+1.0/(1<<17), 1+1.0/(1<<7)
		return 1.0 / (1 << 24)
	})
}

// exactChains multiplies rows of ones by a weight of zeros, after fill has put
// into a row of each what it wants there, and demands the exact sum that fill
// returns, at every place of the product's tiles. Depths are multiples of the
// period.
func exactChains(e *env, period int, fill func(x, w []float32) float64) error {
	const n = 36
	for _, t := range pick(e, []int{1, 2, 5, 8, 13, 40}, []int{1, 5, 40}) {
		for _, periods := range pick(e, []int{1, 2, 11, 22, 100, 342}, []int{1, 11, 22}) {
			k := period * min(periods, 1026/period)
			row, ws := slices.Repeat([]float32{1}, k), make([]float32, k)
			want := slices.Repeat([]float64{fill(row, ws)}, t*n)
			x, w := e.data("X", t, k, slices.Repeat(row, t)), e.prepare(e.matrix("W", n, k, slices.Repeat(ws, n)))
			y := e.outF32("Y", t, n)
			e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
			if err := e.fetch(); err != nil {
				return err
			}
			if err := y.exactly(want); err != nil {
				return fmt.Errorf("T=%d, K=%d: %w", t, k, err)
			}
		}
	}
	return nil
}

// refreshedWeight: after the elements change, RefreshWeight brings the forward
// and the backward up to date.
func refreshedWeight(e *env) error {
	const t, k, n = 3, 37, 29
	x, dy := e.in("X", t, k), e.in("DY", t, n)
	wb := e.tensor("W", inplace, e.w, strided, n, k, e.normal(n*k, 1))
	w := e.prepare(wb)
	other := e.tensor("other", input, e.w, dense, n, k, e.normal(n*k, 1))
	y, dx := e.out("Y", t, n), e.out("DX", t, k)
	e.Copy(wb.Tensor, other.Tensor)
	e.RefreshWeight(w)
	e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
	e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx.Tensor, DY: dy.Tensor, W: w})
	if err := e.fetch(); err != nil {
		return err
	}
	if err := y.near(e.expectLinear(x.mat(), other.mat(), ref.Mat{}, ref.Mat{})); err != nil {
		return err
	}
	return dx.near(e.expectLinearBackwardInput(dy.mat(), other.mat()))
}

// fusedViews: X, Y and, where one type allows it, Residual are column ranges of
// one buffer's rows, as in a fused projection.
func fusedViews(e *env) error {
	const t, k, n = 6, 10, 7
	all := e.tensor("all", inplace, e.a, strided, t, k+2*n, e.normal(t*(k+2*n), 1))
	before, residual := all.mat(), ref.Mat{}
	wb, w := e.weight("W", n, k)
	a := engine.LinearArgs{Y: all.ColRange(k, k+n), X: all.ColRange(0, k), W: w}
	if e.a == engine.F32 {
		a.Residual, residual = all.ColRange(k+n, k+2*n), cols(before, k+n, k+2*n)
	}
	e.Linear(a)
	if err := e.fetch(); err != nil {
		return err
	}
	want := e.expectLinear(cols(before, 0, k), wb.mat(), ref.Mat{}, residual)
	got := cols(all.matAfter(), k, k+n)
	if _, err := testx.Close(got.V, want.v, want.tol(e.a)); err != nil {
		return err
	}
	for _, r := range [][2]int{{0, k}, {k + n, k + 2*n}} {
		if _, err := testx.Close(cols(all.matAfter(), r[0], r[1]).V, cols(before, r[0], r[1]).V, make([]float64, t*(r[1]-r[0]))); err != nil {
			return fmt.Errorf("columns %d to %d, which are inputs, have changed: %w", r[0], r[1], err)
		}
	}
	return nil
}

// cols copies columns [from, to).
func cols(m ref.Mat, from, to int) ref.Mat {
	out := ref.New(m.Rows, to-from)
	for r := range m.Rows {
		copy(out.Row(r), m.Row(r)[from:to])
	}
	return out
}

// weightAddsUp: gradients of micro-batches accumulate.
func weightAddsUp(e *env) error {
	const k, n = 13, 11
	dw := e.floats("DW", inplace, dense, n, k, make([]float32, n*k))
	var want expected
	for i, t := range []int{4, 1, 9} {
		dy, x := e.in("DY", t, n), e.in("X", t, k)
		e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw.Tensor, DY: dy.Tensor, X: x.Tensor})
		part, _ := e.expectLinearBackwardWeight(dy.mat(), x.mat())
		if i == 0 {
			want = part
		} else {
			old := want
			want = part.plus(old.v, e.chain(t))
			for j := range want.err {
				want.err[j] += old.err[j]
			}
		}
	}
	if err := e.fetch(); err != nil {
		return err
	}
	return dw.near(want)
}
