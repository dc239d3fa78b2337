package enginetest

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/ref"
	"github.com/updraft-ml/updraft/internal/testx"
)

// expected is what an output must hold: internal/ref's value v and for each
// element the error allowed to it in units of u = 2⁻²⁴, to which the output's
// own rounding, u·|v|, is added.
//
// Errors are first-order rounding analyses: a sum of n products contributes
// ChainC(n)·Σ|ab| (see testx.ChainC), an elementary function elemC times its
// value, a value carried from an earlier step its own error times the
// derivative. None of them knows which instructions a backend uses.
type expected struct{ v, err []float64 }

// elemC is the error allowed to one exp, log, sqrt or division with the few
// roundings around it: vectorised exponentials of 2 ulp (4 u) between a
// multiplication and an addition stay below it.
const elemC = 12

// expect allows c·mag.
func expect(c float64, want, mag []float64) expected {
	x := expected{want, make([]float64, len(mag))}
	for i, m := range mag {
		x.err[i] = c * m
	}
	return x
}

// tol returns the tolerances of a result that is stored as d.
func (x expected) tol(d engine.DType) []float64 {
	tol := testx.Tolerance(1, x.err, x.v)
	if d == engine.BF16 { // rounded a second time, from a value within the tolerance so far
		for i, v := range x.v {
			tol[i] += testx.HalfULPBF16(math.Abs(v) + tol[i])
		}
	}
	return tol
}

// arith is the precision that operations compute at: the types of matrices and
// of activations.
type arith struct{ w, a engine.DType }

// chain is the C of a sum of n products of activations or weights.
func (a arith) chain(n int) float64 {
	if a.a == engine.BF16 {
		return testx.MatrixC(n)
	}
	return testx.ChainC(n)
}

// roundings returns the error, in units of u, of a sum whose terms have each
// been rounded to BF16 on the way: their absolute values add up to sum, their
// squares to squares. The roundings of different numbers are independent and of
// mean zero, at most 2⁻⁸ of each term, so that by Hoeffding's inequality six
// times the root of the sum of squares is exceeded with probability below 4e-8;
// the sum of them all is never exceeded.
func (a arith) roundings(sum, squares float64) float64 {
	if a.a != engine.BF16 {
		return 0
	}
	return math.Min(sum, 6*math.Sqrt(squares)) * (testx.EpsBF16 / testx.EpsF32)
}

// plus is the expectation of old + x, where the chain of x's sum may have
// started from old, so that old takes part in as many roundings: c·|old|.
func (x expected) plus(old []float64, c float64) expected {
	out := expected{make([]float64, len(x.v)), make([]float64, len(x.v))}
	for i, o := range old {
		out.v[i] = x.v[i] + o
		out.err[i] = x.err[i] + c*math.Abs(o)
	}
	return out
}

// doubled allows twice the error.
func (x expected) doubled() expected { return expect(2, x.v, x.err) }

// nearSlice compares values that do not lie in a block.
func nearSlice[G testx.Float](name string, got []G, want expected) error {
	if _, err := testx.Close(got, want.v, want.tol(engine.F32)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// exactly expects bits, save the sign of zero.
func (b *block) exactly(want []float64) error {
	_, err := testx.Close(b.after(), want, make([]float64, len(want)))
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	return nil
}

// expectLinear: one chain of K products and up to two more summands.
func (a arith) expectLinear(x, w, bias, residual ref.Mat) expected {
	mag := ref.Linear(abs(x), abs(w), abs(bias), abs(residual))
	return expect(a.chain(x.Cols+2), ref.Linear(x, w, bias, residual).V, mag.V)
}

// expectLinearBackwardInput: one chain of N products.
func (a arith) expectLinearBackwardInput(dy, w ref.Mat) expected {
	return expect(a.chain(dy.Cols), ref.LinearBackwardInput(dy, w).V, ref.LinearBackwardInput(abs(dy), abs(w)).V)
}

// expectLinearBackwardWeight: one chain of T products.
func (a arith) expectLinearBackwardWeight(dy, x ref.Mat) (dw, db expected) {
	w, b := ref.LinearBackwardWeight(dy, x)
	mw, mb := ref.LinearBackwardWeight(abs(dy), abs(x))
	c := a.chain(dy.Rows)
	return expect(c, w.V, mw.V), expect(c, b.V, mb.V)
}

// expectRMSNorm: a sum of D positive terms under a square root (half its
// relative error), a division, two products.
func expectRMSNorm(x ref.Mat, w []float64, groups int, eps float64) (y, rstd expected) {
	c := testx.ChainC(x.Cols/groups)/2 + elemC
	my, mr := ref.RMSNorm(x, w, groups, eps)
	return expect(c, my.V, abs(my).V), expect(c, mr.V, mr.V)
}

// expectRMSNormBackward: a sum of D products inside, then a difference of the
// two parts' sizes; DW is a sum of T·groups products of three factors.
func expectRMSNormBackward(dy, x ref.Mat, w []float64, rstd ref.Mat, groups int) (dx, dw expected) {
	d := x.Cols / groups
	gx, gw := ref.RMSNormBackward(dy, x, w, rstd, groups)
	err, magW := ref.New(x.Rows, x.Cols), make([]float64, d)
	for t := range x.Rows {
		for g := range groups {
			r, sum := rstd.At(t, g), 0.0
			for i := range d {
				c := g*d + i
				sum += math.Abs(w[i]*dy.At(t, c)*x.At(t, c)) * r / float64(d)
				magW[i] += math.Abs(dy.At(t, c)*x.At(t, c)) * r
			}
			for i := range d {
				c := g*d + i
				err.Row(t)[c] = r * (elemC*math.Abs(w[i]*dy.At(t, c)) +
					(testx.ChainC(d)+elemC)*math.Abs(x.At(t, c)*r)*sum)
			}
		}
	}
	return expected{gx.V, err.V}, expect(testx.ChainC(x.Rows*groups)+elemC, gw, magW)
}

// expectSwiGLU: one sigmoid, two products.
func expectSwiGLU(gate, up ref.Mat) expected {
	y := ref.SwiGLU(gate, up)
	return expect(elemC, y.V, abs(y).V)
}

// expectSwiGLUBackward: 1 − σ and 1 + gate·(1−σ) may cancel, so the sizes of
// their parts count.
func expectSwiGLUBackward(dy, gate, up ref.Mat) (dgate, dup expected) {
	dg, du := ref.SwiGLUBackward(dy, gate, up)
	mag := ref.New(gate.Rows, gate.Cols)
	for i, g := range gate.V {
		s := ref.Sigmoid(g)
		mag.V[i] = math.Abs(dy.V[i]*up.V[i]) * s * (1 + math.Abs(g)*(1-s+testx.EpsF32) + math.Abs(g)*s)
	}
	return expect(elemC, dg.V, mag.V), expect(elemC, du.V, abs(du).V)
}

// expectRoPE: two products and their sum.
func expectRoPE(x ref.Mat, positions []int32, cos, sin ref.Mat, headDim int, inverse bool) expected {
	mag := ref.New(x.Rows, x.Cols)
	for t := range x.Rows {
		for c := range x.Cols {
			j := c % headDim
			other := (j + headDim/2) % headDim
			if p := int(positions[t]); p >= 0 {
				i := j % (headDim / 2)
				mag.Row(t)[c] = math.Abs(x.At(t, c)*cos.At(p, i)) + math.Abs(x.At(t, c-j+other)*sin.At(p, i))
			}
		}
	}
	return expect(4, ref.RoPE(x, positions, cos, sin, headDim, inverse).V, mag.V)
}
