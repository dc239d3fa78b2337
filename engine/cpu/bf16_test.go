package cpu

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// weights returns a weight in BF16 and one of the same values in F32, prepared
// where packed is set.
func (r *rig) weights(rows, cols int, packed bool) (bf16, f32 engine.Weight) {
	stride := cols + 3
	bf16 = engine.Weight{Tensor: engine.Matrix(r.buf(engine.BF16, rows*stride), 0, rows, stride).ColRange(1, 1+cols)}
	f32 = engine.Weight{Tensor: r.zeros(rows, cols)}
	r.Copy(bf16.Tensor, r.random(rows, cols, 0.3))
	r.Copy(f32.Tensor, bf16.Tensor)
	if packed {
		require.NoError(r.t, r.PrepareWeight(&bf16))
		require.NoError(r.t, r.PrepareWeight(&f32))
	}
	return bf16, f32
}

// TestBF16WeightsAreTheirValues: every operation with a weight in BF16 gives the
// bits of the same values in F32, for few and for many rows, prepared or not.
func TestBF16WeightsAreTheirValues(t *testing.T) {
	for _, threads := range []int{1, 2} {
		for _, s := range [][3]int{{1, 40, 37}, {8, 33, 64}, {30, 17, 1001}, {70, 96, 65}, {3, 700, 2000}, {100, 4100, 9}} {
			for _, packed := range []bool{false, true} {
				T, N, K := s[0], s[1], s[2]
				r := newRig(t, threads, 51)
				bf16, f32 := r.weights(N, K, packed)
				x, dy, dx, residual, bias := r.random(T, K, 1), r.random(T, N, 1), r.random(T, K, 1), r.random(T, N, 1), r.random(1, N, 1)
				dlogp := r.random(1, T, 1)
				ids, targets := r.randomInts(T, N), r.randomInts(T, N)
				var got [2][][]float32
				for i, w := range []engine.Weight{bf16, f32} {
					keep := func(t engine.Tensor) { got[i] = append(got[i], r.floats(t)) }
					y, sum, d, plus, rows := r.zeros(T, N), r.zeros(T, N), r.zeros(T, K), r.zeros(T, K), r.zeros(T, K)
					r.Linear(engine.LinearArgs{Y: y, X: x, W: w})
					r.Linear(engine.LinearArgs{Y: sum, X: x, W: w, Bias: bias, Residual: residual})
					r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: d, DY: dy, W: w})
					r.Copy(plus, dx)
					r.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: plus, DY: dy, W: w, Accumulate: true})
					r.Gather(engine.GatherArgs{Dst: rows, Table: w.Tensor, IDs: ids})
					logp, entropy, lse, dhead, dw := r.zeros(1, T), r.zeros(1, T), r.zeros(1, T), r.zeros(T, K), r.zeros(N, K)
					r.LogProb(engine.LogProbArgs{X: x, W: w, Targets: targets, LogProb: logp, Entropy: entropy, LSE: lse, Scale: 0.5})
					r.LogProbBackward(engine.LogProbBackwardArgs{DX: dhead, DW: dw, X: x, W: w, Targets: targets, LSE: lse, DLogProb: dlogp, Scale: 0.5})
					for _, t := range []engine.Tensor{y, sum, d, plus, rows, logp, entropy, lse, dhead, dw} {
						keep(t)
					}
				}
				for j := range got[0] {
					sameBits(t, got[1][j], got[0][j], fmt.Sprintf("result %d at %v, prepared %v, %d threads", j, s, packed, threads))
				}
			}
		}
	}
}
