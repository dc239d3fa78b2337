package gpu

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

// An operation that was submitted once makes the host allocate nothing when it is
// submitted again.
func TestOperationsAllocateNothing(t *testing.T) {
	b := open(t, Options{})
	rng := rand.New(rand.NewPCG(1, 1))
	const rows, c, v = 16, 64, 96
	h := func(r, c int) engine.Tensor { return randomOf(t, b, rng, engine.BF16, r, c) }
	f := func(r, c int) engine.Tensor { return randomOf(t, b, rng, engine.F32, r, c) }
	w, x, y, wide, dw := engine.Weight{Tensor: h(c, c)}, h(rows, c), h(rows, c), f(rows, c), f(c, c)
	head, dHead, one := engine.Weight{Tensor: h(v, c)}, f(v, c), func() engine.Tensor { return f(1, rows) }
	ids := intsOf(t, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
	norm, rstd, dNorm, lse := f(1, c), f(rows, 1), f(1, c), f(rows, 2)
	logProb, entropy, sum, table := one(), one(), one(), f(rows, 16)
	packing := &engine.Packing{Rows: rows, Segments: []engine.Segment{{Len: 10}, {Start: 10, Len: 6, PrefixLen: 10}}}
	p, g, m, s := f(1, 1000), f(1, 1000), f(1, 1000), f(1, 1000)
	b.Fill(s, 1)
	decode := newDecodeRig(t, b)
	host := make([]float32, rows)
	for name, op := range map[string]func(){
		"Fill":       func() { b.Fill(wide, 1); b.Fill(x, 1) },
		"Copy":       func() { b.Copy(y, x); b.Copy(y, wide); b.Copy(y.ColRange(0, 9), x.ColRange(1, 10)) },
		"Gather":     func() { b.Gather(engine.GatherArgs{Dst: wide, Table: x, IDs: ids}) },
		"ScatterAdd": func() { b.ScatterAdd(engine.ScatterAddArgs{Table: dw, Src: wide, IDs: ids}) },
		"RMSNorm":    func() { b.RMSNorm(engine.RMSNormArgs{Y: y, X: wide, W: norm, Rstd: rstd, Groups: 1, Eps: 1e-5}) },
		"RMSNormBackward": func() {
			b.RMSNormBackward(engine.RMSNormBackwardArgs{DX: wide, DW: dNorm, DY: y, X: wide, W: norm, Rstd: rstd, Groups: 1, Accumulate: true})
		},
		"Linear":               func() { b.Linear(engine.LinearArgs{Y: wide, X: x, W: w, Bias: norm, Residual: wide}) },
		"LinearBackwardInput":  func() { b.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: y, DY: x, W: w}) },
		"LinearBackwardWeight": func() { b.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw, DBias: dNorm, DY: x, X: y}) },
		"RoPE":                 func() { b.RoPE(engine.RoPEArgs{X: x, Positions: ids, Cos: table, Sin: table, HeadDim: 32}) },
		"Attention": func() {
			b.Attention(engine.AttentionArgs{O: y, Q: x, K: x.ColRange(0, 32), V: x.ColRange(32, 64), LSE: lse, HeadDim: 32, Scale: 1, Packing: packing})
		},
		"AttentionBackward": func() {
			b.AttentionBackward(engine.AttentionBackwardArgs{DQ: y, DK: w.ColRange(0, 32).RowRange(0, rows), DV: w.ColRange(32, 64).RowRange(0, rows), DO: x, Q: x, O: x,
				K: x.ColRange(0, 32), V: x.ColRange(32, 64), LSE: lse, HeadDim: 32, Scale: 1, Packing: packing})
		},
		"SwiGLU": func() { b.SwiGLU(engine.SwiGLUArgs{Y: y, Gate: x, Up: x}) },
		"SwiGLUBackward": func() {
			b.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: y, DUp: w.RowRange(0, rows), DY: x, Gate: x, Up: x})
		},
		"LogProb": func() {
			b.LogProb(engine.LogProbArgs{X: x, W: head, Targets: ids, LogProb: logProb, Entropy: entropy, LSE: sum, Scale: 1})
		},
		"LogProbBackward": func() {
			b.LogProbBackward(engine.LogProbBackwardArgs{DX: y, DW: dHead, X: x, W: head, Targets: ids, LSE: sum, DLogProb: logProb, Scale: 1})
		},
		"DecodeAttention": func() { b.DecodeAttention(decode.args) },
		"SumSquares":      func() { b.SumSquares(engine.SumSquaresArgs{Out: norm.ColRange(0, 1), X: p}) },
		"AdamW": func() {
			b.AdamW(engine.AdamWArgs{P: p, G: g, M: m, V: s, LR: 1e-3, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1, Step: 3})
		},
		"copies": func() {
			b.UploadF32(logProb, host)
			if err := b.Wait(b.DownloadF32(host, entropy)); err != nil {
				panic(err)
			}
		},
	} {
		n := testing.AllocsPerRun(10, op)
		require.NoError(t, b.Sync(), name)
		require.Zero(t, n, name)
	}
}
