package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
)

var oddSizes = [][2]int{{0, 4}, {1, 1}, {1, 7}, {2, 8}, {3, 9}, {5, 16}, {7, 31}, {16, 33}, {33, 64}, {40, 65}, {2, 1000}, {1, 9001}}

func gatherChecks(w engine.DType) (checks list) {
	for i, s := range oddSizes {
		t, c := s[0], s[1]
		name := fmt.Sprintf("T=%d,C=%d", t, c)
		checks.add("Gather", "", name, t*c, i, func(e *env) error { return gather(e, e.w, t, c, 6) })
		if w != engine.F32 {
			checks.add("Gather", "to float32", name, t*c, i, func(e *env) error { return gather(e, engine.F32, t, c, 6) })
		}
	}
	return checks
}

func scatterChecks() (checks list) {
	for i, s := range oddSizes {
		t, c := s[0], s[1]
		checks.add("ScatterAdd", "", fmt.Sprintf("T=%d,C=%d", t, c), t*c, i, func(e *env) error { return scatterAdd(e, t, c, 6) })
	}
	checks.one("ScatterAdd", "in ascending order", scatterInOrder)
	return checks
}

// scatterInOrder: 2⁶⁰, −2⁶⁰ and 1 add up to 1 in this order only.
func scatterInOrder(e *env) error {
	const c = 37
	var src []float32
	var ids []int32
	for i := range 30 {
		src = append(src, slices.Repeat([]float32{[]float32{1 << 60, -1 << 60, 1}[i%3]}, c)...)
		ids = append(ids, 1)
	}
	table := e.floats("Table", inplace, e.layout, 2, c, make([]float32, 2*c))
	e.ScatterAdd(engine.ScatterAddArgs{Table: table.Tensor, Src: e.dataF32("Src", len(ids), c, src).Tensor, IDs: e.ints("IDs", ids).Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	return table.exactly(append(make([]float64, c), slices.Repeat([]float64{1}, c)...))
}

// someIDs repeats rows, leaves some out and includes both ends of the table.
func someIDs(e *env, t, v int) []int32 {
	ids := make([]int32, t)
	for i := range ids {
		switch i % 4 {
		case 0:
			ids[i] = int32(v - 1)
		case 1:
			ids[i] = int32(e.rng.IntN(v))
		case 2:
			ids[i] = int32(-1 - i)
		}
	}
	return ids
}

func gather(e *env, dst engine.DType, t, c, v int) error {
	table, ids, out := e.matrix("Table", v, c, e.normal(v*c, 1)), e.ints("IDs", someIDs(e, t, v)), e.outAs(dst, "Dst", t, c)
	e.Gather(engine.GatherArgs{Dst: out.Tensor, Table: table.Tensor, IDs: ids.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	return out.exactly(ref.Gather(table.mat(), ids.intsBefore()).V)
}

// scatterAdd: the order of the sum is fixed, so the result is exact.
func scatterAdd(e *env, t, c, v int) error {
	table, ids, src := e.inoutF32("Table", v, c), e.ints("IDs", someIDs(e, t, v)), e.dataF32("Src", t, c, e.normal(t*c, 1))
	e.ScatterAdd(engine.ScatterAddArgs{Table: table.Tensor, Src: src.Tensor, IDs: ids.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	want := expect(float64(t), ref.ScatterAdd(v, src.mat(), ids.intsBefore()).V, ref.ScatterAdd(v, abs(src.mat()), ids.intsBefore()).V)
	return table.near(want.plus(table.mat().V, float64(t)))
}

func normChecks(w engine.DType) (checks list) {
	shapes := [][3]int{{0, 1, 4}, {1, 1, 1}, {2, 1, 7}, {3, 1, 8}, {5, 3, 16}, {7, 2, 33}, {4, 4, 64}, {9, 1, 100}, {33, 1, 65}, {2, 1, 4097}, {6, 5, 5}}
	for i, s := range shapes {
		t, groups, d := s[0], s[1], s[2]
		name := fmt.Sprintf("T=%d,groups=%d,D=%d", t, groups, d)
		add := func(op, kind string, run func(*env) error) {
			checks.add(op, kind, name, t*groups*d, i, run)
		}
		modes := []string{"overwrite", "accumulate", "in place", "without DW"}
		add("RMSNorm", "plain", func(e *env) error { return rmsNorm(e, e.a, t, groups, d, true, false) })
		add("RMSNorm", "without Rstd", func(e *env) error { return rmsNorm(e, e.a, t, groups, d, false, false) })
		add("RMSNorm", "in place", func(e *env) error { return rmsNorm(e, e.a, t, groups, d, i%2 == 0, true) })
		if w != engine.F32 {
			add("RMSNorm", "of float32", func(e *env) error { return rmsNorm(e, engine.F32, t, groups, d, i%2 == 0, false) })
			modes = append(modes, "activations")
		}
		for _, mode := range modes {
			add("RMSNormBackward", mode, func(e *env) error { return rmsNormBackward(e, t, groups, d, mode) })
		}
	}
	checks.one("RMSNorm", "zero row", zeroRow)
	return checks
}

func rmsNorm(e *env, of engine.DType, t, groups, d int, keepRstd, inPlace bool) error {
	x := e.tensor("X", input, of, e.layout, t, groups*d, e.normal(t*groups*d, 1))
	y := x
	if inPlace {
		x.role = inplace
	} else {
		y = e.out("Y", t, groups*d)
	}
	w := e.vec("W", e.normal(d, 1))
	a := engine.RMSNormArgs{Y: y.Tensor, X: x.Tensor, W: w.Tensor, Groups: groups, Eps: 1e-5}
	var rstd *block
	if keepRstd {
		rstd = e.outF32("Rstd", t, groups)
		a.Rstd = rstd.Tensor
	}
	e.RMSNorm(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wantY, wantR := expectRMSNorm(x.mat(), w.mat().V, groups, float64(a.Eps))
	if err := y.near(wantY); err != nil {
		return err
	}
	if rstd == nil {
		return nil
	}
	return rstd.near(wantR)
}

// zeroRow: a row of zeros normalises to zeros, not to NaNs.
func zeroRow(e *env) error {
	x, y := e.data("X", 2, 5, make([]float32, 10)), e.out("Y", 2, 5)
	w := e.vec("W", e.normal(5, 1))
	e.RMSNorm(engine.RMSNormArgs{Y: y.Tensor, X: x.Tensor, W: w.Tensor, Groups: 1, Eps: 1e-6})
	if err := e.fetch(); err != nil {
		return err
	}
	return y.exactly(make([]float64, 10))
}

// rmsNormBackward: X is of the residual stream, float32, or activations.
func rmsNormBackward(e *env, t, groups, d int, mode string) error {
	of := engine.F32
	if mode == "in place" || mode == "activations" {
		of = e.a
	}
	x, dy := e.tensor("X", input, of, e.layout, t, groups*d, e.normal(t*groups*d, 1)), e.in("DY", t, groups*d)
	w := e.vec("W", e.normal(d, 1))
	_, r := ref.RMSNorm(x.mat(), w.mat().V, groups, 1e-5)
	rstd := e.dataF32("Rstd", t, groups, toF32(r.V))
	a := engine.RMSNormBackwardArgs{DY: dy.Tensor, X: x.Tensor, W: w.Tensor, Rstd: rstd.Tensor, Groups: groups}
	var dx *block
	switch mode {
	case "accumulate":
		dx, a.Accumulate = e.inoutF32("DX", t, groups*d), true
	case "in place":
		dx, dy.role = dy, inplace
	default:
		dx = e.outAs(of, "DX", t, groups*d)
	}
	a.DX = dx.Tensor
	var dw *block
	if mode != "without DW" {
		dw = e.inoutVec("DW", d)
		a.DW = dw.Tensor
	}
	e.RMSNormBackward(a)
	if err := e.fetch(); err != nil {
		return err
	}
	wantX, wantW := expectRMSNormBackward(dy.mat(), x.mat(), w.mat().V, rstd.mat(), groups)
	if a.Accumulate {
		wantX = wantX.plus(dx.mat().V, elemC)
	}
	if err := dx.near(wantX); err != nil {
		return err
	}
	if dw == nil {
		return nil
	}
	// Sums over groups and rows may start from the old value.
	return dw.near(wantW.plus(dw.mat().V, 4+2*math.Sqrt(float64(t*groups))))
}

func toF32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

func ropeChecks() (checks list) {
	for i, s := range [][3]int{{0, 1, 4}, {1, 1, 2}, {3, 2, 6}, {5, 3, 16}, {7, 1, 32}, {33, 2, 64}, {2, 4, 128}} {
		for _, inverse := range []bool{false, true} {
			t, heads, d := s[0], s[1], s[2]
			checks.add("RoPE", fmt.Sprintf("inverse=%v", inverse), fmt.Sprintf("T=%d,heads=%d,D=%d", t, heads, d), t*heads*d,
				i, func(e *env) error { return rope(e, t, heads, d, inverse) })
		}
	}
	return checks
}

// ropeTables returns cosines and sines for positions [0, n).
func ropeTables(n, d int) (cos, sin []float32) {
	for p := range n {
		for j := range d / 2 {
			s, c := math.Sincos(float64(p) * math.Pow(10000, -2*float64(j)/float64(d)))
			cos, sin = append(cos, float32(c)), append(sin, float32(s))
		}
	}
	return cos, sin
}

func rope(e *env, t, heads, d int, inverse bool) error {
	const positions = 50
	x := e.inout("X", t, heads*d)
	c, s := ropeTables(positions, d)
	cos, sin := e.dataF32("Cos", positions, d/2, c), e.dataF32("Sin", positions, d/2, s)
	ids := make([]int32, t)
	for i := range ids {
		if ids[i] = int32(e.rng.IntN(positions)); i%5 == 3 {
			ids[i] = -1
		}
	}
	pos := e.ints("Positions", ids)
	e.RoPE(engine.RoPEArgs{X: x.Tensor, Positions: pos.Tensor, Cos: cos.Tensor, Sin: sin.Tensor, HeadDim: d, Inverse: inverse})
	if err := e.fetch(); err != nil {
		return err
	}
	return x.near(expectRoPE(x.mat(), ids, cos.mat(), sin.mat(), d, inverse))
}

func swigluChecks() (checks list) {
	for i, s := range oddSizes {
		t, f := s[0], s[1]
		name := fmt.Sprintf("T=%d,F=%d", t, f)
		checks.add("SwiGLU", "", name, t*f, i, func(e *env) error { return swiglu(e, t, f) })
		checks.add("SwiGLUBackward", "", name, t*f, i, func(e *env) error { return swigluBackward(e, t, f, false) })
		checks.add("SwiGLUBackward", "in place", name, t*f, i, func(e *env) error { return swigluBackward(e, t, f, true) })
	}
	return checks
}

// linearSwiGLUChecks compare the fused product with its parts.
func linearSwiGLUChecks() (checks list) {
	for i, s := range [][3]int{{1, 8, 4}, {3, 16, 8}, {5, 17, 7}, {16, 40, 12}, {33, 64, 64}, {130, 72, 136}, {0, 8, 8}} {
		t, k, f := s[0], s[1], s[2]
		checks.add("LinearSwiGLU", "", fmt.Sprintf("T=%d,K=%d,F=%d", t, k, f), t*k*f, i, func(e *env) error { return linearSwiGLU(e, t, k, f) })
	}
	return checks
}

func linearSwiGLU(e *env, t, k, f int) error {
	x := e.inScaled("X", t, k, 4)
	_, w := e.weight("W", 2*f, k)
	fusedGU, fused := e.out("fused GateUp", t, 2*f), e.out("fused Y", t, f)
	gu, y := e.out("GateUp", t, 2*f), e.out("Y", t, f)
	engine.LinearSwiGLU(e.Backend, engine.LinearSwiGLUArgs{Y: fused.Tensor, GateUp: fusedGU.Tensor, X: x.Tensor, W: w})
	e.Linear(engine.LinearArgs{Y: gu.Tensor, X: x.Tensor, W: w})
	e.SwiGLU(engine.SwiGLUArgs{Y: y.Tensor, Gate: gu.ColRange(0, f), Up: gu.ColRange(f, 2*f)})
	if err := e.fetch(); err != nil {
		return err
	}
	if err := fusedGU.same("fused against its parts", gu.after()); err != nil {
		return err
	}
	return fused.same("fused against its parts", y.after())
}

// gates include the tails of the sigmoid, where its exponential overflows or
// vanishes.
func gates(e *env, n int) []float32 {
	v := e.normal(n, 3)
	for i, x := range []float32{0, 20, -20, 90, -90, 200, -200, 1e-8, -1e-30} {
		if 3*i+1 < n {
			v[3*i+1] = x
		}
	}
	return v
}

func swiglu(e *env, t, f int) error {
	gate, up, y := e.data("Gate", t, f, gates(e, t*f)), e.in("Up", t, f), e.out("Y", t, f)
	e.SwiGLU(engine.SwiGLUArgs{Y: y.Tensor, Gate: gate.Tensor, Up: up.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	return y.near(flushTails(expectSwiGLU(gate.mat(), up.mat())))
}

// flushTails allows results below 1e-36 to be flushed to zero: e^x for x near
// −88 is at the edge of float32.
func flushTails(x expected) expected {
	for i, v := range x.v {
		if math.Abs(v) < 1e-36 {
			x.err[i] += math.Abs(v) * (1 << 24)
		}
	}
	return x
}

func swigluBackward(e *env, t, f int, inPlace bool) error {
	gate, up, dy := e.data("Gate", t, f, gates(e, t*f)), e.in("Up", t, f), e.in("DY", t, f)
	dg, du := gate, up
	if inPlace {
		gate.role, up.role = inplace, inplace
	} else {
		dg, du = e.out("DGate", t, f), e.out("DUp", t, f)
	}
	e.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: dg.Tensor, DUp: du.Tensor, DY: dy.Tensor, Gate: gate.Tensor, Up: up.Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	wantG, wantU := expectSwiGLUBackward(dy.mat(), gate.mat(), up.mat())
	if err := dg.near(flushTails(wantG)); err != nil {
		return err
	}
	return du.near(flushTails(wantU))
}
