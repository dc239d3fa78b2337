package enginetest

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// misuseChecks: shapes and handles that do not fit panic with a constant
// string, at the call or, on a backend that only queues, at Sync.
func misuseChecks() (checks []Check) {
	for name, misuse := range map[string]func(e *env){
		"Linear: X and W differ in K": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 2, 4).Tensor, X: e.in("X", 2, 6).Tensor, W: w})
		},
		"Linear: Y and W differ in N": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 2, 3).Tensor, X: e.in("X", 2, 5).Tensor, W: w})
		},
		"Linear: Y and X differ in T": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 3, 4).Tensor, X: e.in("X", 2, 5).Tensor, W: w})
		},
		"Linear: short bias": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 2, 4).Tensor, X: e.in("X", 2, 5).Tensor, W: w, Bias: e.in("B", 1, 3).Tensor})
		},
		"LinearBackwardInput: DX and W differ": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: e.out("DX", 2, 6).Tensor, DY: e.in("DY", 2, 4).Tensor, W: w})
		},
		"LinearBackwardWeight: DY and X differ in T": func(e *env) {
			e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: e.inout("DW", 4, 5).Tensor, DY: e.in("DY", 3, 4).Tensor, X: e.in("X", 2, 5).Tensor})
		},
		"Gather: too few ids": func(e *env) {
			e.Gather(engine.GatherArgs{Dst: e.out("Dst", 3, 4).Tensor, Table: e.in("T", 5, 4).Tensor, IDs: e.ints("IDs", []int32{0, 1}).Tensor})
		},
		"Gather: float ids": func(e *env) {
			e.Gather(engine.GatherArgs{Dst: e.out("Dst", 2, 4).Tensor, Table: e.in("T", 5, 4).Tensor, IDs: e.in("IDs", 1, 2).Tensor})
		},
		"RMSNorm: groups do not divide": func(e *env) {
			e.RMSNorm(engine.RMSNormArgs{Y: e.out("Y", 2, 7).Tensor, X: e.in("X", 2, 7).Tensor, W: e.in("W", 1, 3).Tensor, Groups: 2})
		},
		"RoPE: odd head": func(e *env) {
			e.RoPE(engine.RoPEArgs{X: e.inout("X", 2, 6).Tensor, Positions: e.ints("P", []int32{0, 0}).Tensor,
				Cos: e.in("C", 2, 1).Tensor, Sin: e.in("S", 2, 1).Tensor, HeadDim: 3})
		},
		"Attention: packing and Q differ": func(e *env) {
			h := heads{1, 1, 16}
			e.Attention(e.qkv(4, h).args(e.out("O", 4, 16), h, &engine.Packing{Rows: 3, Segments: []engine.Segment{{Len: 3}}}))
		},
		"Attention: packing with a gap": func(e *env) {
			h := heads{1, 1, 16}
			e.Attention(e.qkv(4, h).args(e.out("O", 4, 16), h, &engine.Packing{Rows: 4, Segments: []engine.Segment{{Len: 2}, {Start: 3, Len: 1}}}))
		},
		"Attention: heads do not divide": func(e *env) {
			p := &engine.Packing{Rows: 2, Segments: []engine.Segment{{Len: 2}}}
			e.Attention(engine.AttentionArgs{O: e.out("O", 2, 48).Tensor, Q: e.in("Q", 2, 48).Tensor, K: e.in("K", 2, 32).Tensor,
				V: e.in("V", 2, 32).Tensor, HeadDim: 16, Scale: 1, Packing: p})
		},
		"SwiGLU: shapes differ": func(e *env) {
			e.SwiGLU(engine.SwiGLUArgs{Y: e.out("Y", 2, 3).Tensor, Gate: e.in("G", 2, 3).Tensor, Up: e.in("U", 2, 4).Tensor})
		},
		"LogProb: too few targets": func(e *env) {
			_, w := e.weight("W", 4, 5)
			e.LogProb(engine.LogProbArgs{X: e.in("X", 2, 5).Tensor, W: w, Targets: e.ints("T", []int32{0}).Tensor,
				LogProb: e.outVec("L", 2).Tensor, Entropy: e.outVec("E", 2).Tensor, LSE: e.outVec("S", 2).Tensor, Scale: 1})
		},
		"Copy: shapes differ": func(e *env) { e.Copy(e.out("D", 2, 3).Tensor, e.in("S", 3, 2).Tensor) },
		"Copy: dtypes differ": func(e *env) { e.Copy(e.outVec("D", 2).Tensor, e.ints("S", []int32{1, 2}).Tensor) },
		"Upload: wrong size":  func(e *env) { e.UploadF32(e.outVec("D", 2).Tensor, make([]float32, 3)) },
		"Upload: gaps between rows": func(e *env) {
			e.layout = strided
			e.UploadF32(e.out("D", 2, 2).Tensor, make([]float32, 4))
		},
		"Upload: wrong dtype": func(e *env) { e.UploadF32(e.ints("D", []int32{1, 2}).Tensor, make([]float32, 2)) },
		"Download: wrong size": func(e *env) {
			e.DownloadF32(make([]float32, 3), e.in("S", 1, 2).Tensor)
		},
		"AdamW: lengths differ": func(e *env) {
			v := func(n int) engine.Tensor { return e.inout("v", 1, n).Tensor }
			e.AdamW(engine.AdamWArgs{P: v(4), G: v(3), M: v(4), V: v(4), Step: 1})
		},
		"Record: upload inside": func(e *env) {
			d := e.outVec("D", 2).Tensor
			e.Record(func() { e.UploadF32(d, make([]float32, 2)) })
		},
		"Record: download inside": func(e *env) {
			d := e.outVec("D", 2).Tensor
			e.Record(func() { e.DownloadF32(make([]float32, 2), d) })
		},
		"Record: alloc inside": func(e *env) {
			e.Record(func() {
				if b, err := e.Alloc(engine.F32, 2); err == nil {
					e.Free(b)
				}
			})
		},
		"Record: record inside": func(e *env) { e.Record(func() { e.Record(func() {}) }) },
		"a buffer of nobody": func(e *env) {
			e.Fill(engine.Vector(strangeBuffer{}, 0, 3), 1)
		},
		"a program of nobody": func(e *env) { e.Run(strangeProgram{}) },
	} {
		checks = append(checks, Check{"Misuse", name, func(e *env) error { return mustPanic(e, misuse) }})
	}
	sortChecks(checks)
	return checks
}

type strangeBuffer struct{}

func (strangeBuffer) DType() engine.DType { return engine.F32 }
func (strangeBuffer) Len() int            { return 3 }

type strangeProgram struct{}

func (strangeProgram) Ops() int { return 0 }

func mustPanic(e *env, misuse func(e *env)) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
			err = fmt.Errorf("did not panic")
		case string:
			err = nil
		default:
			err = fmt.Errorf("panicked with %T (%v), want a constant string", p, p)
		}
	}()
	misuse(e)
	return e.Sync()
}
