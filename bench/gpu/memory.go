package main

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// copyGroup is the workload that says what share of the memory's bandwidth others
// reach.
const copyGroup = "copy"

func copyWorkloads(quick bool) []*workload {
	n := 1 << 27
	if quick {
		n = 1 << 12
	}
	return []*workload{{
		group: copyGroup, name: fmt.Sprintf("%d MiB within the device", 4*n>>20), bytes: 8 * float64(n), operands: 8 * n,
		peers: []request{{"kind": "copy", "n": n}},
		setup: func(e *env) (func(int), func() verdict) {
			src := each(e, func() operand { return e.random(engine.F32, 1, n) })
			dst := each(e, func() engine.Tensor { return e.empty(engine.F32, 1, n) })
			return func(i int) { e.Copy(dst[i], src[i].Tensor) }, func() verdict {
				var c compared
				got := e.read(dst[0])
				for j := range got {
					c.element(fmt.Sprintf("element %d", j), float64(got[j]), src[0].at(0, j), 0)
				}
				return c.verdict
			}
		},
	}}
}

// memoryWorkloads are the operations that move bytes and compute little.
func memoryWorkloads(quick bool) []*workload {
	n, t, q := 1<<27, 8192, qwen15
	if quick {
		n, t, q = 1<<12, 17, tiny
	}
	return []*workload{adamw(n, engine.F32), adamw(n, engine.U8), sumSquares(n),
		norm(t, q.hidden), normBackward(t, q.hidden), rope(t, q.heads, q.dim), swiglu(t, q.ffn), swigluBackward(t, q.ffn)}
}

func adamw(n int, moments engine.DType) *workload {
	// P and G are read, P and its copy in BF16 written; the moments are read and written.
	bytes := float64(n) * float64(4+4+4+2+4*moments.Size())
	x := &workload{group: "adamw", name: fmt.Sprintf("%d M elements, moments in %v", n>>20, moments), bytes: bytes, operands: n * (10 + 2*moments.Size())}
	if moments == engine.F32 {
		x.peers = []request{{"kind": "adamw", "n": n}}
	}
	x.setup = func(e *env) (func(int), func() verdict) {
		const lr, beta1, beta2, eps, decay, scale, step = 1e-3, 0.9, 0.999, 1e-8, 0.01, 0.5, 3
		vec := func(d engine.DType) engine.Tensor { return e.empty(d, 1, n) }
		g := each(e, func() operand { return e.random(engine.F32, 1, n) })
		var p0 operand
		args := each(e, func() engine.AdamWArgs {
			p := e.random(engine.F32, 1, n)
			if p0.pool == nil {
				p0 = p
			}
			a := engine.AdamWArgs{P: p.Tensor, M: vec(moments), V: vec(moments), Copy: vec(engine.BF16), LR: lr, Beta1: beta1, Beta2: beta2,
				Eps: eps, WeightDecay: decay, GradScale: scale, Step: step}
			if moments == engine.U8 {
				blocks := (n + engine.MomentBlock - 1) / engine.MomentBlock
				a.MScale, a.VScale = e.empty(engine.F32, 1, blocks), e.empty(engine.F32, 1, blocks)
			}
			return a
		})
		for i := range args {
			args[i].G = g[i].Tensor
		}
		return func(i int) { e.AdamW(args[i]) }, func() verdict {
			var c compared
			got := e.read(args[0].P)
			for range samples {
				i := e.rng.IntN(n)
				// The moments begin as zero: in 8 bits too this first step is exact in them.
				grad := scale * g[0].at(0, i)
				m, v := (1-beta1)*grad, (1-beta2)*grad*grad
				update := m / (1 - math.Pow(beta1, step)) / (math.Sqrt(v/(1-math.Pow(beta2, step))) + eps)
				want := p0.at(0, i) - lr*(update+decay*p0.at(0, i))
				// Some ten roundings of the update, of which β1 and β2 and what is computed
				// from them carry two bits of cancellation in 1−β2; one of the result.
				c.element(fmt.Sprintf("P[%d]", i), float64(got[i]), want, 0x1p-23*math.Abs(want)+lr*math.Abs(update)*0x1p-12)
			}
			return c.verdict
		}
	}
	return x
}

func sumSquares(n int) *workload {
	return &workload{group: "memory", name: fmt.Sprintf("sum of squares, %d M elements", n>>20), bytes: 4 * float64(n), operands: 4 * n,
		setup: func(e *env) (func(int), func() verdict) {
			x := each(e, func() operand { return e.random(engine.F32, 1, n) })
			out := e.empty(engine.F32, 1, 1)
			return func(i int) { e.SumSquares(engine.SumSquaresArgs{Out: out, X: x[i].Tensor}) }, func() verdict {
				var c compared
				want := 0.0
				for i := range n {
					want += x[0].at(0, i) * x[0].at(0, i)
				}
				// All addends are positive: a chain of n/2^18 in a thread and a tree of sums.
				c.element("sum", float64(e.read(out)[0]), want, want*float64(n>>18+64)*0x1p-24)
				return c.verdict
			}
		}}
}

const normEps = 1e-6

// rstdOf is the reciprocal root of a row's mean square.
func rstdOf(x operand, i int) float64 {
	sum := 0.0
	for j := range x.Cols {
		sum += x.at(i, j) * x.at(i, j)
	}
	return 1 / math.Sqrt(sum/float64(x.Cols)+normEps)
}

func norm(t, c int) *workload {
	return &workload{group: "memory", name: fmt.Sprintf("rms norm, %d × %d, F32 to BF16", t, c), bytes: 6 * float64(t*c), operands: 6 * t * c,
		setup: func(e *env) (func(int), func() verdict) {
			x := each(e, func() operand { return e.random(engine.F32, t, c) })
			w := e.random(engine.F32, 1, c)
			y := each(e, func() engine.Tensor { return e.empty(engine.BF16, t, c) })
			rstd := e.empty(engine.F32, t, 1)
			run := func(i int) {
				e.RMSNorm(engine.RMSNormArgs{Y: y[i], X: x[i].Tensor, W: w.Tensor, Rstd: rstd, Groups: 1, Eps: normEps})
			}
			return run, func() verdict {
				var k compared
				got := e.read(y[0])
				for range 16 {
					i := e.rng.IntN(t)
					r := rstdOf(x[0], i)
					for j := range c {
						want := x[0].at(i, j) * r * w.at(0, j)
						k.element(fmt.Sprintf("Y[%d][%d]", i, j), float64(got[i*c+j]), want, stored(engine.BF16, want, math.Abs(want)*float64(c/32+16)*0x1p-24))
					}
				}
				return k.verdict
			}
		}}
}

func normBackward(t, c int) *workload {
	return &workload{group: "memory", name: fmt.Sprintf("rms norm backward, %d × %d, added to F32", t, c), bytes: 14 * float64(t*c), operands: 10 * t * c,
		setup: func(e *env) (func(int), func() verdict) {
			x, dy := each(e, func() operand { return e.random(engine.F32, t, c) }), each(e, func() operand { return e.random(engine.BF16, t, c) })
			w := e.random(engine.F32, 1, c)
			dx := each(e, func() engine.Tensor { return e.empty(engine.F32, t, c) })
			dw, rstd, y := e.empty(engine.F32, 1, c), each(e, func() engine.Tensor { return e.empty(engine.F32, t, 1) }), e.empty(engine.BF16, t, c)
			for i := range x {
				e.RMSNorm(engine.RMSNormArgs{Y: y, X: x[i].Tensor, W: w.Tensor, Rstd: rstd[i], Groups: 1, Eps: normEps})
			}
			run := func(i int) {
				e.RMSNormBackward(engine.RMSNormBackwardArgs{DX: dx[i], DW: dw, DY: dy[i].Tensor, X: x[i].Tensor, W: w.Tensor, Rstd: rstd[i], Groups: 1, Accumulate: true})
			}
			return run, func() verdict {
				var k compared
				got := e.read(dx[0])
				for range 16 {
					i := e.rng.IntN(t)
					r := rstdOf(x[0], i)
					mean, size := 0.0, 0.0
					for j := range c {
						p := w.at(0, j) * dy[0].at(i, j) * x[0].at(i, j) * r
						mean, size = mean+p/float64(c), size+math.Abs(p)/float64(c)
					}
					eps := float64(c/32+24) * 0x1p-24
					for j := range c {
						a, b := w.at(0, j)*dy[0].at(i, j), x[0].at(i, j)*r
						k.element(fmt.Sprintf("DX[%d][%d]", i, j), float64(got[i*c+j]), r*(a-b*mean), r*(math.Abs(a)+math.Abs(b)*size)*eps)
					}
				}
				return k.verdict
			}
		}}
}

func rope(t, heads, dim int) *workload {
	cols := heads * dim
	return &workload{group: "memory", name: fmt.Sprintf("rope, %d × %d heads of %d", t, heads, dim), bytes: 4 * float64(t*cols), operands: 2 * t * cols,
		setup: func(e *env) (func(int), func() verdict) {
			x := each(e, func() operand { return e.random(engine.BF16, t, cols) })
			cos, sin := make([]float32, t*dim/2), make([]float32, t*dim/2)
			positions := make([]int32, t)
			for i := range t {
				positions[i] = int32(i)
				for j := range dim / 2 {
					s, c := math.Sincos(float64(i) * math.Pow(1e6, -2*float64(j)/float64(dim)))
					cos[i*dim/2+j], sin[i*dim/2+j] = float32(c), float32(s)
				}
			}
			a := engine.RoPEArgs{Positions: e.ints(1, t, positions), Cos: e.empty(engine.F32, t, dim/2), Sin: e.empty(engine.F32, t, dim/2), HeadDim: dim}
			e.UploadF32(a.Cos, cos)
			e.UploadF32(a.Sin, sin)
			run := func(i int) {
				a := a
				a.X = x[i].Tensor
				e.RoPE(a)
			}
			return run, func() verdict {
				var k compared
				got := e.read(x[0].Tensor)
				for range 16 {
					i, h := e.rng.IntN(t), e.rng.IntN(heads)
					for j := range dim / 2 {
						lo, hi := x[0].at(i, h*dim+j), x[0].at(i, h*dim+j+dim/2)
						c, s := float64(cos[i*dim/2+j]), float64(sin[i*dim/2+j])
						tol := 0x1p-22 * (math.Abs(lo) + math.Abs(hi))
						k.element("low half", float64(got[i*cols+h*dim+j]), lo*c-hi*s, stored(engine.BF16, lo*c-hi*s, tol))
						k.element("high half", float64(got[i*cols+h*dim+j+dim/2]), hi*c+lo*s, stored(engine.BF16, hi*c+lo*s, tol))
					}
				}
				return k.verdict
			}
		}}
}

// silu returns x·σ(x) and σ(x).
func silu(x float64) (y, s float64) {
	s = 1 / (1 + math.Exp(-x))
	return x * s, s
}

func swiglu(t, f int) *workload {
	return &workload{group: "memory", name: fmt.Sprintf("swiglu, %d × %d", t, f), bytes: 6 * float64(t*f), operands: 6 * t * f,
		setup: func(e *env) (func(int), func() verdict) {
			both := each(e, func() operand { return e.random(engine.BF16, t, 2*f) })
			y := each(e, func() engine.Tensor { return e.empty(engine.BF16, t, f) })
			run := func(i int) {
				e.SwiGLU(engine.SwiGLUArgs{Y: y[i], Gate: both[i].ColRange(0, f), Up: both[i].ColRange(f, 2*f)})
			}
			return run, func() verdict {
				var k compared
				got := e.read(y[0])
				for range samples {
					i, j := e.rng.IntN(t), e.rng.IntN(f)
					s, _ := silu(both[0].at(i, j))
					want := s * both[0].at(i, f+j)
					k.element(fmt.Sprintf("Y[%d][%d]", i, j), float64(got[i*f+j]), want, stored(engine.BF16, want, math.Abs(want)*0x1p-20))
				}
				return k.verdict
			}
		}}
}

func swigluBackward(t, f int) *workload {
	return &workload{group: "memory", name: fmt.Sprintf("swiglu backward, %d × %d", t, f), bytes: 10 * float64(t*f), operands: 10 * t * f,
		setup: func(e *env) (func(int), func() verdict) {
			both, dy := each(e, func() operand { return e.random(engine.BF16, t, 2*f) }), each(e, func() operand { return e.random(engine.BF16, t, f) })
			d := each(e, func() engine.Tensor { return e.empty(engine.BF16, t, 2*f) })
			run := func(i int) {
				e.SwiGLUBackward(engine.SwiGLUBackwardArgs{DGate: d[i].ColRange(0, f), DUp: d[i].ColRange(f, 2*f), DY: dy[i].Tensor,
					Gate: both[i].ColRange(0, f), Up: both[i].ColRange(f, 2*f)})
			}
			return run, func() verdict {
				var k compared
				got := e.read(d[0])
				for range samples {
					i, j := e.rng.IntN(t), e.rng.IntN(f)
					g, u, y := both[0].at(i, j), both[0].at(i, f+j), dy[0].at(i, j)
					s, sig := silu(g)
					gate := y * u * sig * (1 + g*(1-sig))
					size := math.Abs(y * u * sig * (1 + math.Abs(g)))
					k.element(fmt.Sprintf("DGate[%d][%d]", i, j), float64(got[i*2*f+j]), gate, stored(engine.BF16, gate, size*0x1p-20))
					k.element(fmt.Sprintf("DUp[%d][%d]", i, j), float64(got[i*2*f+f+j]), y*s, stored(engine.BF16, y*s, math.Abs(y*s)*0x1p-20))
				}
				return k.verdict
			}
		}}
}
