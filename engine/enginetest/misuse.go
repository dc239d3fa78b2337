package enginetest

import (
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// misuseChecks: shapes and handles that do not fit panic with a constant
// string, at the call or, on a backend that only queues, at Sync.
func misuseChecks() (checks list) {
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
		checks.one("Misuse", name, func(e *env) error { return mustPanic(e, misuse) })
	}
	sortChecks(checks)
	return checks
}

// precisionMisuseChecks: tensors of types that ops.go does not name together.
// Where activations are F32 the odd one is BF16, and the other way round.
func precisionMisuseChecks(w engine.DType) (checks list) {
	strange := func(e *env, name string, rows, cols int) engine.Tensor {
		odd := engine.BF16
		if e.a == engine.BF16 {
			odd = engine.F32
		}
		return e.tensor(name, inplace, odd, e.layout, rows, cols, make([]float32, rows*cols)).Tensor
	}
	cases := map[string]func(e *env){
		"Linear: X": func(e *env) {
			_, w := e.weight("W", 4, 8)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 2, 4).Tensor, X: strange(e, "X", 2, 8), W: w})
		},
		"LinearBackwardInput: DY": func(e *env) {
			_, w := e.weight("W", 4, 8)
			e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: e.out("DX", 2, 8).Tensor, DY: strange(e, "DY", 2, 4), W: w})
		},
		"LinearBackwardWeight: X": func(e *env) {
			e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: e.inoutF32("DW", 4, 8).Tensor, DY: e.in("DY", 2, 4).Tensor, X: strange(e, "X", 2, 8)})
		},
		"RMSNorm: Y and X": func(e *env) {
			y, x := e.outAs(engine.F32, "Y", 2, 8).Tensor, e.tensor("X", input, engine.BF16, e.layout, 2, 8, make([]float32, 16)).Tensor
			e.RMSNorm(engine.RMSNormArgs{Y: y, X: x, W: e.vec("W", make([]float32, 8)).Tensor, Groups: 1})
		},
		"SwiGLU: Up": func(e *env) {
			e.SwiGLU(engine.SwiGLUArgs{Y: e.out("Y", 2, 8).Tensor, Gate: e.in("G", 2, 8).Tensor, Up: strange(e, "U", 2, 8)})
		},
		"Attention: K": func(e *env) {
			a := e.qkv(4, heads{1, 1, 16}).args(e.out("O", 4, 16), heads{1, 1, 16}, &engine.Packing{Rows: 4, Segments: []engine.Segment{{Len: 4}}})
			a.K = strange(e, "K", 4, 16)
			e.Attention(a)
		},
		"LogProb: X": func(e *env) {
			_, _, w, targets := e.head(2, 8, 5, 1)
			e.LogProb(engine.LogProbArgs{X: strange(e, "X", 2, 8), W: w, Targets: targets.Tensor,
				LogProb: e.outVec("L", 2).Tensor, Entropy: e.outVec("E", 2).Tensor, LSE: e.outVec("S", 2).Tensor, Scale: 1})
		},
	}
	rounded := map[string]func(e *env){} // where activations are BF16
	if w == engine.BF16 {
		rounded["Linear: a residual with a BF16 result"] = func(e *env) {
			_, w := e.weight("W", 4, 8)
			e.Linear(engine.LinearArgs{Y: e.out("Y", 2, 4).Tensor, X: e.in("X", 2, 8).Tensor, W: w, Residual: e.in("R", 2, 4).Tensor})
		}
		rounded["LinearBackwardWeight: DW"] = func(e *env) {
			e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: e.inout("DW", 4, 8).Tensor, DY: e.in("DY", 2, 4).Tensor, X: e.in("X", 2, 8).Tensor})
		}
		rounded["RMSNormBackward: accumulates into BF16"] = func(e *env) {
			v := func(name string) engine.Tensor { return e.in(name, 2, 8).Tensor }
			e.RMSNormBackward(engine.RMSNormBackwardArgs{DX: e.inout("DX", 2, 8).Tensor, DY: v("DY"), X: v("X"),
				W: e.vec("W", make([]float32, 8)).Tensor, Rstd: e.dataF32("Rstd", 2, 1, make([]float32, 2)).Tensor, Groups: 1, Accumulate: true})
		}
	}
	for name, misuse := range cases {
		checks.one("Misuse", "types/"+name, func(e *env) error { return mustPanic(e, misuse) })
	}
	for name, misuse := range rounded {
		checks.one("Misuse", "types/"+name, func(e *env) error {
			if e.a != engine.BF16 {
				return nil
			}
			return mustPanic(e, misuse)
		})
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
