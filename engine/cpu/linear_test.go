package cpu

import (
	"testing"

	"github.com/updraft-ml/updraft/engine"
)

// TestGradientsInPasses: a second operand that needs several passes of panels gives
// the bits of calls that add a part each.
func TestGradientsInPasses(t *testing.T) {
	const T, N, K = 1030, 66, 8200
	r := newRig(t, 2, 52)
	x, dy, bias := r.random(T, K, 1), r.random(T, N, 1), r.zeros(1, N)
	whole, parts, sum := r.zeros(N, K), r.zeros(N, K), r.zeros(1, N)
	r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: whole, DBias: bias, DY: dy, X: x})
	for from := 0; from < T; from += 103 {
		r.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: parts, DBias: sum, DY: dy.RowRange(from, from+103), X: x.RowRange(from, from+103)})
	}
	sameBits(t, r.floats(parts), r.floats(whole), "DW")
	sameBits(t, r.floats(sum), r.floats(bias), "DBias")

	// The same product with the other operand as W: DX = DYᵀ·X.
	back := r.random(N, T, 1)
	for _, accumulate := range []bool{false, true} {
		whole, parts := r.random(N, K, 1), r.zeros(N, K)
		r.Copy(parts, whole)
		w := engine.Weight{Tensor: x}
		r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: whole, DY: back, W: w, Accumulate: accumulate})
		for from := 0; from < T; from += 103 {
			w.Tensor = x.RowRange(from, from+103)
			r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: parts, DY: back.ColRange(from, from+103), W: w, Accumulate: accumulate || from > 0})
		}
		sameBits(t, r.floats(parts), r.floats(whole), "DX")
	}
}
