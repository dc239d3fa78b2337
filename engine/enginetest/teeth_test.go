package enginetest

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
)

// defective is a backend with one defect: a hook that is set replaces the
// operation. Hooks reach the sound operation through the embedded Backend.
type defective struct {
	engine.Backend
	calls int
	late  []func() // carried out before the next download

	upload         func(d *defective, dst engine.Tensor, src []float32)
	linear         func(d *defective, a engine.LinearArgs)
	backwardInput  func(d *defective, a engine.LinearBackwardInputArgs)
	backwardWeight func(d *defective, a engine.LinearBackwardWeightArgs)
	gather         func(d *defective, a engine.GatherArgs)
	scatter        func(d *defective, a engine.ScatterAddArgs)
	norm           func(d *defective, a engine.RMSNormArgs)
	normBackward   func(d *defective, a engine.RMSNormBackwardArgs)
	rope           func(d *defective, a engine.RoPEArgs)
	swiglu         func(d *defective, a engine.SwiGLUArgs)
	gated          func(d *defective, a engine.LinearSwiGLUArgs)
	swigluBackward func(d *defective, a engine.SwiGLUBackwardArgs)
	attention      func(d *defective, a engine.AttentionArgs)
	attnBackward   func(d *defective, a engine.AttentionBackwardArgs)
	logprob        func(d *defective, a engine.LogProbArgs)
	lpBackward     func(d *defective, a engine.LogProbBackwardArgs)
	kvWrite        func(d *defective, a engine.KVWriteArgs)
	decode         func(d *defective, a engine.DecodeAttentionArgs)
	sample         func(d *defective, a engine.SampleArgs)
	sumSquares     func(d *defective, a engine.SumSquaresArgs)
	adamW          func(d *defective, a engine.AdamWArgs)
	fill           func(d *defective, t engine.Tensor, v float32)
	copyTensor     func(d *defective, dst, src engine.Tensor)
	refresh        func(d *defective, w engine.Weight)
	record         func(d *defective, build func()) engine.Program
	run            func(d *defective, p engine.Program)
}

// hook calls f where it is set and sound otherwise.
func hook[A any](d *defective, f func(*defective, A), sound func(A), a A) {
	if f == nil {
		sound(a)
		return
	}
	d.calls++
	f(d, a)
}

func (d *defective) Linear(a engine.LinearArgs) { hook(d, d.linear, d.Backend.Linear, a) }
func (d *defective) LinearBackwardInput(a engine.LinearBackwardInputArgs) {
	hook(d, d.backwardInput, d.Backend.LinearBackwardInput, a)
}
func (d *defective) LinearBackwardWeight(a engine.LinearBackwardWeightArgs) {
	hook(d, d.backwardWeight, d.Backend.LinearBackwardWeight, a)
}
func (d *defective) Gather(a engine.GatherArgs)         { hook(d, d.gather, d.Backend.Gather, a) }
func (d *defective) ScatterAdd(a engine.ScatterAddArgs) { hook(d, d.scatter, d.Backend.ScatterAdd, a) }
func (d *defective) RMSNorm(a engine.RMSNormArgs)       { hook(d, d.norm, d.Backend.RMSNorm, a) }
func (d *defective) RMSNormBackward(a engine.RMSNormBackwardArgs) {
	hook(d, d.normBackward, d.Backend.RMSNormBackward, a)
}
func (d *defective) RoPE(a engine.RoPEArgs)     { hook(d, d.rope, d.Backend.RoPE, a) }
func (d *defective) SwiGLU(a engine.SwiGLUArgs) { hook(d, d.swiglu, d.Backend.SwiGLU, a) }
func (d *defective) LinearSwiGLU(a engine.LinearSwiGLUArgs) {
	hook(d, d.gated, func(a engine.LinearSwiGLUArgs) { engine.LinearSwiGLU(d.Backend, a) }, a)
}
func (d *defective) SwiGLUBackward(a engine.SwiGLUBackwardArgs) {
	hook(d, d.swigluBackward, d.Backend.SwiGLUBackward, a)
}
func (d *defective) Attention(a engine.AttentionArgs) { hook(d, d.attention, d.Backend.Attention, a) }
func (d *defective) AttentionBackward(a engine.AttentionBackwardArgs) {
	hook(d, d.attnBackward, d.Backend.AttentionBackward, a)
}
func (d *defective) LogProb(a engine.LogProbArgs) { hook(d, d.logprob, d.Backend.LogProb, a) }
func (d *defective) LogProbBackward(a engine.LogProbBackwardArgs) {
	hook(d, d.lpBackward, d.Backend.LogProbBackward, a)
}
func (d *defective) KVWrite(a engine.KVWriteArgs) { hook(d, d.kvWrite, d.Backend.KVWrite, a) }
func (d *defective) DecodeAttention(a engine.DecodeAttentionArgs) {
	hook(d, d.decode, d.Backend.DecodeAttention, a)
}
func (d *defective) Sample(a engine.SampleArgs) { hook(d, d.sample, d.Backend.Sample, a) }
func (d *defective) SumSquares(a engine.SumSquaresArgs) {
	hook(d, d.sumSquares, d.Backend.SumSquares, a)
}
func (d *defective) AdamW(a engine.AdamWArgs)      { hook(d, d.adamW, d.Backend.AdamW, a) }
func (d *defective) RefreshWeight(w engine.Weight) { hook(d, d.refresh, d.Backend.RefreshWeight, w) }
func (d *defective) Run(p engine.Program)          { hook(d, d.run, d.Backend.Run, p) }

func (d *defective) Fill(t engine.Tensor, v float32) {
	hook(d, d.fill2(v), func(t engine.Tensor) { d.Backend.Fill(t, v) }, t)
}

func (d *defective) fill2(v float32) func(*defective, engine.Tensor) {
	if d.fill == nil {
		return nil
	}
	return func(d *defective, t engine.Tensor) { d.fill(d, t, v) }
}

func (d *defective) UploadF32(dst engine.Tensor, src []float32) {
	if d.upload == nil {
		d.Backend.UploadF32(dst, src)
		return
	}
	d.upload(d, dst, src)
}

func (d *defective) DownloadF32(dst []float32, src engine.Tensor) engine.Ticket {
	for _, f := range d.late {
		f()
	}
	d.late = nil
	return d.Backend.DownloadF32(dst, src)
}

func (d *defective) Copy(dst, src engine.Tensor) {
	if d.copyTensor == nil {
		d.Backend.Copy(dst, src)
		return
	}
	d.copyTensor(d, dst, src)
}

func (d *defective) Record(build func()) engine.Program {
	if d.record == nil {
		return d.Backend.Record(build)
	}
	return d.record(d, build)
}

// change replaces one element of t by f of it.
func (d *defective) change(t engine.Tensor, row, col int, f func(float32) float32) {
	if t.Len() == 0 {
		return
	}
	one := engine.Vector(t.Buf, t.Off+row*t.Stride+col, 1)
	v := make([]float32, 1)
	d.Backend.DownloadF32(v, one)
	if err := d.Sync(); err != nil {
		panic(err)
	}
	v[0] = f(v[0])
	d.Backend.UploadF32(one, v)
}

func ulp(v float32) float32      { return math.Nextafter32(v, float32(math.Inf(1))) }
func percent1(v float32) float32 { return v * 1.01 }

// scratchCopy returns t's elements in a new buffer, after f.
func (d *defective) scratchCopy(t engine.Tensor, f func([]float32)) engine.Tensor {
	b, err := d.Alloc(engine.F32, t.Len())
	if err != nil {
		panic(err)
	}
	out := engine.Matrix(b, 0, t.Rows, t.Cols)
	d.Backend.Copy(out, t)
	v := make([]float32, t.Len())
	d.Backend.DownloadF32(v, out)
	if err := d.Sync(); err != nil {
		panic(err)
	}
	f(v)
	d.Backend.UploadF32(out, v)
	return out
}

// toBF16 rounds, and cutToBF16 cuts, all elements of a float32 tensor to what
// BF16 can hold.
func toBF16(v []float32) {
	for i, x := range v {
		v[i] = half.FromBF16(half.BF16(x))
	}
}

func cutToBF16(v []float32) { keepBits(v, 16) }

// keepBits cuts the lowest bits of each element off.
func keepBits(v []float32, cut int) {
	for i, x := range v {
		v[i] = math.Float32frombits(math.Float32bits(x) >> cut << cut)
	}
}

// alter replaces t's elements by f of them.
func (d *defective) alter(t engine.Tensor, f func([]float32)) {
	if t.Valid() && t.Len() > 0 {
		d.Backend.Copy(t, d.scratchCopy(t, f))
	}
}

// alterCodes replaces t's codes by f of them.
func (d *defective) alterCodes(t engine.Tensor, f func(int32) int32) {
	if t.Len() == 0 || t.Buf.DType() != engine.U8 {
		return
	}
	v := make([]int32, t.Len())
	d.Backend.DownloadI32(v, t)
	for i := range v {
		v[i] = f(v[i])
	}
	d.Backend.UploadI32(t, v)
}

// wideLinear has the float32 result altered before it is stored as BF16.
func wideLinear(f func([]float32)) func(d *defective, a engine.LinearArgs) {
	return func(d *defective, a engine.LinearArgs) {
		y := a.Y
		if y.Len() == 0 || y.Buf.DType() != engine.BF16 {
			d.Backend.Linear(a)
			return
		}
		a.Y = d.scratchCopy(y, func([]float32) {})
		d.Backend.Linear(a)
		d.alter(a.Y, f)
		d.Backend.Copy(y, a.Y)
	}
}

// defects are the suite's teeth: each must be caught by a check whose operation
// and name begin as caughtBy says.
var defects = []struct {
	name     string
	caughtBy string // Op/Name prefix
	defect   defective
}{
	{"one ulp in one element of a batch", "BatchInvariance/Linear", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		if a.Y.Rows > 4 {
			d.change(a.Y, 3, a.Y.Cols/2, ulp)
		}
	}}},
	{"one ulp in one element of every other call", "Determinism/", defective{backwardWeight: func(d *defective, a engine.LinearBackwardWeightArgs) {
		d.Backend.LinearBackwardWeight(a)
		if d.calls%2 == 0 {
			d.change(a.DW, 0, 0, ulp)
		}
	}}},
	{"last row dropped", "Linear/plain", defective{linear: func(d *defective, a engine.LinearArgs) {
		if n := a.Y.Rows - 1; n > 0 && !a.Residual.Valid() {
			a.Y, a.X = a.Y.RowRange(0, n), a.X.RowRange(0, n)
		}
		d.Backend.Linear(a)
	}}},
	{"bias left out", "Linear/bias", defective{linear: func(d *defective, a engine.LinearArgs) {
		a.Bias = engine.Tensor{}
		d.Backend.Linear(a)
	}}},
	{"residual left out", "Linear/residual", defective{linear: func(d *defective, a engine.LinearArgs) {
		a.Residual = engine.Tensor{}
		d.Backend.Linear(a)
	}}},
	{"residual read after Y is written", "Linear/bias+residual in place", defective{linear: func(d *defective, a engine.LinearArgs) {
		r := a.Residual
		a.Residual = engine.Tensor{}
		if r.Valid() && r.Buf == a.Y.Buf && r.Off == a.Y.Off {
			d.Backend.Linear(a)
			a.Residual = a.Y
		}
		d.Backend.Linear(a)
	}}},
	{"write behind the last row", "Linear/plain", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		if a.Y.Rows > 0 {
			d.Backend.UploadF32(engine.Vector(a.Y.Buf, a.Y.Off+(a.Y.Rows-1)*a.Y.Stride+a.Y.Cols, 1), []float32{0})
		}
	}}},
	{"write between rows", "Linear/plain", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		if a.Y.Rows > 1 && a.Y.Stride > a.Y.Cols {
			d.Backend.UploadF32(engine.Vector(a.Y.Buf, a.Y.Off+a.Y.Cols, 1), []float32{0})
		}
	}}},
	{"an input is written", "Linear/plain", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		d.change(a.X, 0, 0, ulp)
	}}},
	{"a hundredth off in one element", "Linear/plain", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		d.change(a.Y, max(a.Y.Rows-1, 0), a.Y.Cols-1, percent1)
	}}},
	{"K in two halves", "Linear/one chain in ascending K", defective{linear: func(d *defective, a engine.LinearArgs) {
		half := a.W.Cols / 2
		second := a
		second.X, second.W = a.X.ColRange(half, a.X.Cols), engine.Weight{Tensor: a.W.ColRange(half, a.W.Cols)}
		second.Y = d.scratchCopy(a.Y, func([]float32) {})
		a.X, a.W = a.X.ColRange(0, half), engine.Weight{Tensor: a.W.ColRange(0, half)}
		for _, w := range []*engine.Weight{&a.W, &second.W} {
			if err := d.PrepareWeight(w); err != nil {
				panic(err)
			}
		}
		d.Backend.Linear(second)
		a.Residual = second.Y
		d.Backend.Linear(a)
	}}},
	{"a product rounded before it is added", "Linear/the chain is fused", defective{linear: func(d *defective, a engine.LinearArgs) {
		var x, w []float32
		d.scratchCopy(a.X, func(v []float32) { x = v })
		d.scratchCopy(a.W.Tensor, func(v []float32) { w = v })
		k, n := a.X.Cols, a.Y.Cols
		d.Backend.Copy(a.Y, d.scratchCopy(a.Y, func(y []float32) {
			for i := range y {
				y[i] = 0
				for j := range k {
					y[i] += float32(x[i/n*k+j] * w[i%n*k+j])
				}
			}
		}))
	}}},
	{"rows added in reverse", "ScatterAdd/in ascending order", defective{scatter: func(d *defective, a engine.ScatterAddArgs) {
		for t := a.Src.Rows - 1; t >= 0; t-- {
			b := a
			b.Src, b.IDs = a.Src.RowRange(t, t+1), a.IDs.ColRange(t, t+1)
			d.Backend.ScatterAdd(b)
		}
	}}},
	{"refresh forgotten", "Linear/refreshed weight", defective{refresh: func(*defective, engine.Weight) {}}},
	{"accumulate ignored", "LinearBackwardInput/accumulate", defective{backwardInput: func(d *defective, a engine.LinearBackwardInputArgs) {
		a.Accumulate = false
		d.Backend.LinearBackwardInput(a)
	}}},
	{"accumulates always", "LinearBackwardInput/overwrite", defective{backwardInput: func(d *defective, a engine.LinearBackwardInputArgs) {
		a.Accumulate = true
		d.Backend.LinearBackwardInput(a)
	}}},
	{"weight gradient overwritten", "LinearBackwardWeight/adds up", defective{backwardWeight: func(d *defective, a engine.LinearBackwardWeightArgs) {
		d.Backend.Fill(a.DW, 0)
		d.Backend.LinearBackwardWeight(a)
	}}},
	{"bias gradient left out", "LinearBackwardWeight/plain", defective{backwardWeight: func(d *defective, a engine.LinearBackwardWeightArgs) {
		a.DBias = engine.Tensor{}
		d.Backend.LinearBackwardWeight(a)
	}}},
	{"negative ids keep what was there", "Gather/", defective{gather: func(d *defective, a engine.GatherArgs) {
		old := d.scratchCopy(a.Dst, func([]float32) {})
		d.Backend.Gather(a)
		if a.Dst.Rows > 2 {
			d.Backend.Copy(a.Dst.RowRange(2, 3), old.RowRange(2, 3))
		}
	}}},
	{"last source row left out", "ScatterAdd/", defective{scatter: func(d *defective, a engine.ScatterAddArgs) {
		if n := a.Src.Rows - 1; n > 0 {
			a.Src, a.IDs = a.Src.RowRange(0, n), a.IDs.ColRange(0, n)
		}
		d.Backend.ScatterAdd(a)
	}}},
	{"eps left out", "RMSNorm/zero row", defective{norm: func(d *defective, a engine.RMSNormArgs) {
		a.Eps = 0
		d.Backend.RMSNorm(a)
	}}},
	{"Rstd not kept", "RMSNorm/plain", defective{norm: func(d *defective, a engine.RMSNormArgs) {
		a.Rstd = engine.Tensor{}
		d.Backend.RMSNorm(a)
	}}},
	{"DX overwritten", "RMSNormBackward/accumulate", defective{normBackward: func(d *defective, a engine.RMSNormBackwardArgs) {
		a.Accumulate = false
		d.Backend.RMSNormBackward(a)
	}}},
	{"DW left out", "RMSNormBackward/overwrite", defective{normBackward: func(d *defective, a engine.RMSNormBackwardArgs) {
		a.DW = engine.Tensor{}
		d.Backend.RMSNormBackward(a)
	}}},
	{"rotates the wrong way", "RoPE/", defective{rope: func(d *defective, a engine.RoPEArgs) {
		a.Inverse = !a.Inverse
		d.Backend.RoPE(a)
	}}},
	{"gate and up swapped", "SwiGLU/", defective{swiglu: func(d *defective, a engine.SwiGLUArgs) {
		a.Gate, a.Up = a.Up, a.Gate
		d.Backend.SwiGLU(a)
	}}},
	{"fused product a percent off", "LinearSwiGLU/", defective{gated: func(d *defective, a engine.LinearSwiGLUArgs) {
		engine.LinearSwiGLU(d.Backend, a)
		d.change(a.Y, 0, 0, percent1)
	}}},
	{"fused product leaves gate and up behind", "LinearSwiGLU/", defective{gated: func(d *defective, a engine.LinearSwiGLUArgs) {
		kept := a.GateUp
		a.GateUp = d.scratchCopy(kept, func([]float32) {})
		engine.LinearSwiGLU(d.Backend, a)
	}}},
	{"gradients swapped", "SwiGLUBackward/", defective{swigluBackward: func(d *defective, a engine.SwiGLUBackwardArgs) {
		a.DGate, a.DUp = a.DUp, a.DGate
		d.Backend.SwiGLUBackward(a)
	}}},
	{"two heads swapped", "Attention/", defective{attention: func(d *defective, a engine.AttentionArgs) {
		d.Backend.Attention(a)
		if a.Q.Cols == 2*a.HeadDim {
			d.Backend.Copy(a.O, d.scratchCopy(a.O, func(v []float32) {
				for r := 0; r < len(v); r += a.Q.Cols {
					for i := range a.HeadDim {
						v[r+i], v[r+i+a.HeadDim] = v[r+i+a.HeadDim], v[r+i]
					}
				}
			}))
		}
	}}},
	{"prefix not seen", "Attention/prompt of", defective{attention: func(d *defective, a engine.AttentionArgs) {
		a.Packing = clonePacking(a.Packing)
		last := &a.Packing.Segments[len(a.Packing.Segments)-1]
		last.PrefixLen, last.PrefixStart = 0, 0
		d.Backend.Attention(a)
	}}},
	{"one key of the prefix too few", "Attention/prompt of", defective{attention: func(d *defective, a engine.AttentionArgs) {
		a.Packing = clonePacking(a.Packing)
		last := &a.Packing.Segments[len(a.Packing.Segments)-1]
		last.PrefixLen = max(last.PrefixLen-1, 0)
		d.Backend.Attention(a)
	}}},
	{"one ulp where segments are many", "BatchInvariance/Attention", defective{attention: func(d *defective, a engine.AttentionArgs) {
		d.Backend.Attention(a)
		if len(a.Packing.Segments) > 4 {
			d.change(a.O, 50, 1, ulp)
		}
	}}},
	{"packing kept, not copied", "Attention/packing is copied", defective{attention: func(d *defective, a engine.AttentionArgs) {
		d.late = append(d.late, func() { d.Backend.Attention(a) })
	}}},
	{"marker kept, not copied", "Sample/marker slice is copied", defective{sample: func(d *defective, a engine.SampleArgs) {
		d.late = append(d.late, func() { d.Backend.Sample(a) })
	}}},
	{"upload source kept, not copied", "Memory/upload source", defective{upload: func(d *defective, dst engine.Tensor, src []float32) {
		d.late = append(d.late, func() { d.Backend.UploadF32(dst, src) })
	}}},
	{"a response's share of the prompt's gradient is missing", "AttentionBackward/prompt of", defective{attnBackward: func(d *defective, a engine.AttentionBackwardArgs) {
		a.Packing = clonePacking(a.Packing)
		last := &a.Packing.Segments[len(a.Packing.Segments)-1]
		last.PrefixLen, last.PrefixStart = 0, 0
		d.Backend.AttentionBackward(a)
	}}},
	{"a hundredth off in one element of DK", "AttentionBackward/one segment", defective{attnBackward: func(d *defective, a engine.AttentionBackwardArgs) {
		d.Backend.AttentionBackward(a)
		d.change(a.DK, 0, 0, percent1)
	}}},
	{"one ulp in decoding", "AttentionBits/decode equals packed", defective{decode: func(d *defective, a engine.DecodeAttentionArgs) {
		d.Backend.DecodeAttention(a)
		if d.calls == 70 {
			d.change(a.O, 0, a.O.Cols-1, ulp)
		}
	}}},
	{"one ulp in decoding a group", "AttentionBits/decode of a group", defective{decode: func(d *defective, a engine.DecodeAttentionArgs) {
		d.Backend.DecodeAttention(a)
		if d.calls == 33 {
			d.change(a.O, 3, 0, ulp)
		}
	}}},
	{"inactive rows are not zeroed", "DecodeAttention/prompts [1 0]", defective{decode: func(d *defective, a engine.DecodeAttentionArgs) {
		d.Backend.DecodeAttention(a)
		d.change(a.O, (d.calls-1)%a.O.Rows, 0, func(v float32) float32 { return v + 1 })
	}}},
	{"the new key is stored a head too far", "DecodeAttention/", defective{decode: func(d *defective, a engine.DecodeAttentionArgs) {
		a.K = d.scratchCopy(a.K, func(v []float32) { v[0] += 0.5 })
		d.Backend.DecodeAttention(a)
	}}},
	{"last slot not written", "DecodeAttention/prompts [5 ", defective{kvWrite: func(d *defective, a engine.KVWriteArgs) {
		if n := a.Rows.Cols - 1; n > 0 {
			a.Rows, a.Slots = a.Rows.ColRange(0, n), a.Slots.ColRange(0, n)
		}
		d.Backend.KVWrite(a)
	}}},
	{"one ulp in a log-prob", "LogProbBits/", defective{logprob: func(d *defective, a engine.LogProbArgs) {
		d.Backend.LogProb(a)
		d.change(a.LogProb, 0, a.LogProb.Cols-1, ulp)
	}}},
	{"one ulp where rows are many", "BatchInvariance/LogProb", defective{logprob: func(d *defective, a engine.LogProbArgs) {
		d.Backend.LogProb(a)
		if a.LogProb.Cols > 8 {
			d.change(a.LogProb, 0, 2, ulp)
		}
	}}},
	{"scale left out", "LogProb/", defective{logprob: func(d *defective, a engine.LogProbArgs) {
		a.Scale = 1
		d.Backend.LogProb(a)
	}}},
	{"entropy's gradient left out", "LogProbBackward/entropy", defective{lpBackward: func(d *defective, a engine.LogProbBackwardArgs) {
		a.DEntropy = engine.Tensor{}
		d.Backend.LogProbBackward(a)
	}}},
	{"nothing done for a frozen head", "LogProbBackward/frozen head", defective{lpBackward: func(d *defective, a engine.LogProbBackwardArgs) {
		if a.DW.Valid() {
			d.Backend.LogProbBackward(a)
		}
	}}},
	{"head gradient overwritten", "LogProbBackward/plain", defective{lpBackward: func(d *defective, a engine.LogProbBackwardArgs) {
		d.Backend.Fill(a.DW, 0)
		d.Backend.LogProbBackward(a)
	}}},
	{"top-p ignored", "SampleStatistics/top-p", defective{sample: func(d *defective, a engine.SampleArgs) {
		a.Params = d.scratchCopy(a.Params, func(v []float32) {
			for i := engine.ParamTopP; i < len(v); i += engine.NumParams {
				v[i] = 1
			}
		})
		d.Backend.Sample(a)
	}}},
	{"temperature a little off", "SampleStatistics/plain", defective{sample: func(d *defective, a engine.SampleArgs) {
		a.Params = d.scratchCopy(a.Params, func(v []float32) {
			for i := 0; i < len(v); i += engine.NumParams {
				v[i] *= 1.2
			}
		})
		d.Backend.Sample(a)
	}}},
	{"temperature ignored", "Sample/B=8", defective{sample: func(d *defective, a engine.SampleArgs) {
		a.Params = d.scratchCopy(a.Params, func(v []float32) {
			for i := 0; i < len(v); i += engine.NumParams {
				v[i] = 1
			}
		})
		d.Backend.Sample(a)
	}}},
	{"bias a thousandth off", "Sample/help bias shifts", defective{sample: func(d *defective, a engine.SampleArgs) {
		a.Params = d.scratchCopy(a.Params, func(v []float32) {
			for i := engine.ParamHelpBias; i < len(v); i += engine.NumParams {
				v[i] *= 1.001
			}
		})
		d.Backend.Sample(a)
	}}},
	{"marker not forced", "Sample/the marker is forced", defective{sample: func(d *defective, a engine.SampleArgs) {
		d.Backend.Sample(a)
		d.Backend.Fill(a.Forced, 0)
	}}},
	{"marker after any token", "Sample/B=8,V=40,marker=true", defective{sample: func(d *defective, a engine.SampleArgs) {
		if a.MarkerAfter.Valid() {
			a.MarkerAfter = d.scratchCopy(a.MarkerAfter, func(v []float32) {
				for i := range v {
					v[i] = 1
				}
			})
		}
		d.Backend.Sample(a)
	}}},
	{"inactive rows written", "Sample/B=40", defective{sample: func(d *defective, a engine.SampleArgs) {
		d.Backend.Sample(a)
		d.change(a.LogProb, 0, min(4, a.LogProb.Cols-1), func(float32) float32 { return 0 })
	}}},
	{"last element left out", "SumSquares/", defective{sumSquares: func(d *defective, a engine.SumSquaresArgs) {
		if n := a.X.Cols - 1; n > 0 {
			a.X = a.X.ColRange(0, n)
		}
		d.Backend.SumSquares(a)
	}}},
	{"bias correction of the next step", "AdamW/", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		a.Step++
		d.Backend.AdamW(a)
	}}},
	{"gradient not scaled", "AdamW/", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		a.GradScale = 1
		d.Backend.AdamW(a)
	}}},
	{"weight decay left out", "AdamW/", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		a.WeightDecay = 0
		d.Backend.AdamW(a)
	}}},
	{"fill ignores the stride", "Fill/", defective{fill: func(d *defective, t engine.Tensor, v float32) {
		t.Stride = t.Cols
		d.Backend.Fill(t, v)
	}}},
	{"copy ignores the source's stride", "Copy/", defective{copyTensor: func(d *defective, dst, src engine.Tensor) {
		src.Stride = src.Cols
		d.Backend.Copy(dst, src)
	}}},
	{"recording also carries out", "Program/recording carries nothing out", defective{record: func(d *defective, build func()) engine.Program {
		build()
		return d.Backend.Record(build)
	}}},
	{"replay does nothing the second time", "Program/programs interleave", defective{run: func(d *defective, p engine.Program) {
		if d.calls != 2 {
			d.Backend.Run(p)
		}
	}}},
	{"NaN rows leak", "Isolation/rows of X", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		d.change(a.Y, 0, 0, func(float32) float32 { return nan32 })
	}}},
	{"a BF16 result cut off, not rounded", "Linear/BF16/plain", defective{linear: wideLinear(cutToBF16)}},
	{"a BF16 result rounded up from the middle", "Linear/BF16/rounded once", defective{linear: wideLinear(func(v []float32) {
		for i, x := range v {
			v[i] = math.Float32frombits((math.Float32bits(x) + 0x8000) >> 16 << 16)
		}
	})}},
	{"a BF16 result rounded twice", "Linear/BF16/rounded once", defective{linear: wideLinear(func(v []float32) {
		for i, x := range v { // to eleven bits first, to nearest
			v[i] = math.Float32frombits((math.Float32bits(x) + 0x1000) >> 13 << 13)
		}
	})}},
	{"a sum in BF16", "LinearBackwardInput/BF16/rounded once", defective{backwardInput: func(d *defective, a engine.LinearBackwardInputArgs) {
		if !a.Accumulate {
			d.Backend.LinearBackwardInput(a)
			return
		}
		old := d.scratchCopy(a.DX, func([]float32) {})
		a.Accumulate = false
		d.Backend.LinearBackwardInput(a)
		var before []float32
		d.scratchCopy(old, func(v []float32) { before = append(before, v...) })
		d.alter(a.DX, func(v []float32) {
			for i := range v {
				v[i] += before[i]
			}
		})
	}}},
	{"the residual stream in BF16", "Linear/BF16/residual", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		if a.Residual.Valid() {
			d.alter(a.Y, toBF16)
		}
	}}},
	{"a float32 result rounded to BF16", "Linear/BF16/to float32", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		d.alter(a.Y, toBF16)
	}}},
	{"weight gradients in BF16", "LinearBackwardWeight/BF16/plain", defective{backwardWeight: func(d *defective, a engine.LinearBackwardWeightArgs) {
		d.Backend.LinearBackwardWeight(a)
		d.alter(a.DW, toBF16)
	}}},
	{"the residual's gradient in BF16", "RMSNormBackward/BF16/accumulate", defective{normBackward: func(d *defective, a engine.RMSNormBackwardArgs) {
		d.Backend.RMSNormBackward(a)
		d.alter(a.DX, toBF16)
	}}},
	{"Rstd in BF16", "RMSNorm/BF16/plain", defective{norm: func(d *defective, a engine.RMSNormArgs) {
		d.Backend.RMSNorm(a)
		d.alter(a.Rstd, toBF16)
	}}},
	{"float32 rows read as BF16", "RMSNorm/BF16/of float32", defective{norm: func(d *defective, a engine.RMSNormArgs) {
		a.X = d.scratchCopy(a.X, cutToBF16)
		d.Backend.RMSNorm(a)
	}}},
	{"a gathered row rounded", "Gather/T=", defective{gather: func(d *defective, a engine.GatherArgs) {
		d.Backend.Gather(a)
		d.alter(a.Dst, toBF16)
	}}},
	{"LSE in BF16", "Attention/BF16/one segment", defective{attention: func(d *defective, a engine.AttentionArgs) {
		d.Backend.Attention(a)
		d.alter(a.LSE, toBF16)
	}}},
	{"outputs of attention cut off", "Attention/BF16/one segment", defective{attention: func(d *defective, a engine.AttentionArgs) {
		d.Backend.Attention(a)
		d.alter(a.O, func(v []float32) { keepBits(v, 17) })
	}}},
	{"gradients of four bits", "AttentionBackward/BF16/one segment", defective{attnBackward: func(d *defective, a engine.AttentionBackwardArgs) {
		d.Backend.AttentionBackward(a)
		d.alter(a.DQ, func(v []float32) { keepBits(v, 20) })
	}}},
	{"one place of BF16 in decoding", "AttentionBits/BF16/decode equals packed", defective{decode: func(d *defective, a engine.DecodeAttentionArgs) {
		d.Backend.DecodeAttention(a)
		if d.calls == 70 {
			d.change(a.O, 0, 0, func(v float32) float32 { return math.Float32frombits(math.Float32bits(v) + 1<<16) })
		}
	}}},
	{"logits in BF16", "LogProbBits/BF16/", defective{linear: func(d *defective, a engine.LinearArgs) {
		d.Backend.Linear(a)
		d.alter(a.Y, toBF16)
	}}},
	{"BF16 elements taken for float32 in an offset", "Fill/", defective{fill: func(d *defective, t engine.Tensor, v float32) {
		if t.Buf.DType() == engine.BF16 {
			t.Off /= 2
		}
		d.Backend.Fill(t, v)
	}}},
	{"a stride of BF16 rows in float32 elements", "Copy/between", defective{copyTensor: func(d *defective, dst, src engine.Tensor) {
		if dst.Buf.DType() == engine.BF16 && dst.Rows > 1 {
			dst = dst.RowRange(0, (dst.Rows+1)/2)
			dst.Stride *= 2
			src = src.RowRange(0, dst.Rows)
		}
		d.Backend.Copy(dst, src)
	}}},
	{"a copy cut off, not rounded", "Copy/between", defective{copyTensor: func(d *defective, dst, src engine.Tensor) {
		if dst.Buf.DType() == engine.BF16 && src.Buf.DType() == engine.F32 {
			src = d.scratchCopy(src, cutToBF16)
		}
		d.Backend.Copy(dst, src)
	}}},
	{"an upload cut off, not rounded", "Copy/between", defective{upload: func(d *defective, dst engine.Tensor, src []float32) {
		if dst.Buf.DType() == engine.BF16 {
			src = slices.Clone(src)
			cutToBF16(src)
		}
		d.Backend.UploadF32(dst, src)
	}}},
	{"the working copy is of the old weights", "AdamW/n=", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		if a.Copy.Valid() {
			d.Backend.Copy(a.Copy, a.P)
			a.Copy = engine.Tensor{}
		}
		d.Backend.AdamW(a)
	}}},
	{"the working copy is cut off", "AdamW/n=", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		d.Backend.AdamW(a)
		if a.Copy.Valid() {
			d.Backend.Copy(a.Copy, d.scratchCopy(a.P, cutToBF16))
		}
	}}},
	{"no working copy with 8-bit moments", "AdamW/8-bit moments/n=", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		if a.M.Buf.DType() == engine.U8 {
			a.Copy = engine.Tensor{}
		}
		d.Backend.AdamW(a)
	}}},
	{"codes rounded down", "AdamW/8-bit moments/n=", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		d.Backend.AdamW(a)
		d.alterCodes(a.M, func(c int32) int32 { return max(c-1, 0) })
	}}},
	{"scales of the step before", "AdamW/8-bit moments/n=", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		old := engine.Tensor{}
		if a.VScale.Valid() {
			old = d.scratchCopy(a.VScale, func([]float32) {})
		}
		d.Backend.AdamW(a)
		if old.Valid() {
			d.Backend.Copy(a.VScale, old)
		}
	}}},
	{"small second moments become zero", "AdamW/8-bit moments never", defective{adamW: func(d *defective, a engine.AdamWArgs) {
		d.Backend.AdamW(a)
		d.alterCodes(a.V, func(c int32) int32 {
			if c == 1 {
				return 0
			}
			return c
		})
	}}},
	{"zero gradients hide NaNs", "Isolation/rows of W", defective{backwardInput: func(d *defective, a engine.LinearBackwardInputArgs) {
		d.Backend.Fill(a.DX, 0)
	}}},
}

// Every defect is caught by a check that it names.
func TestSuiteCatchesSeededDefects(t *testing.T) {
	checks := Checks()
	for _, c := range defects {
		t.Run(c.name, func(t *testing.T) {
			tried, caught := 0, 0
			for _, check := range checks {
				if !strings.HasPrefix(check.Op+"/"+check.Name, c.caughtBy) {
					continue
				}
				tried++
				d := c.defect
				d.Backend = NewRounding()
				if err := check.Run(&d); err != nil {
					require.NotContains(t, err.Error(), "panic", "the defect must be caught by comparison")
					caught++
					break
				}
			}
			require.NotZero(t, tried, "no check is named %s", c.caughtBy)
			require.NotZero(t, caught, "none of %d checks named %s caught it", tried, c.caughtBy)
		})
	}
}

// Thin leaves every kind of check at every precision, and far less to do.
func TestThinnedKeepsEveryKind(t *testing.T) {
	work := func(checks []Check) (kinds map[string]bool, total int) {
		kinds = map[string]bool{}
		for _, c := range checks {
			kinds[c.Op+"/"+c.Weights.String()+"/"+c.kind] = true
			total += c.work
		}
		return kinds, total
	}
	all, allWork := work(Checks())
	few, fewWork := work(thinned(Checks()))
	require.Equal(t, all, few)
	require.Less(t, fewWork, allWork/4)
}
