package main

import (
	"errors"
	"fmt"

	"github.com/updraft-ml/updraft/engine"
)

// qwen is a shape of Qwen2.5.
type qwen struct {
	name                                   string
	hidden, ffn, layers, heads, kv, dim, v int
}

var (
	qwen05 = qwen{"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 64, 151936}
	qwen15 = qwen{"qwen2.5-1.5b", 1536, 8960, 28, 12, 2, 128, 151936}
	tiny   = qwen{"tiny", 64, 96, 1, 2, 1, 32, 200}
)

// linearMap is y = x·Wᵀ from K to N columns.
type linearMap struct {
	name string
	n, k int
}

func (q qwen) maps() []linearMap {
	return []linearMap{
		{q.name + "/qkv", (q.heads + 2*q.kv) * q.dim, q.hidden}, {q.name + "/o", q.hidden, q.heads * q.dim},
		{q.name + "/gate-up", 2 * q.ffn, q.hidden}, {q.name + "/down", q.hidden, q.ffn},
	}
}

// gemmWorkloads are a large square, the maps of Qwen2.5 for 4,096 tokens forward
// and backward, and those of decode steps.
func gemmWorkloads(quick bool) (all []*workload) {
	if quick {
		m := linearMap{"tiny", 48, 64}
		return []*workload{forwardWorkload("gemm", m, 32, engine.BF16), gradInputWorkload(m, 32), gradWeightWorkload(m, 32)}
	}
	three := func(m linearMap, t int) {
		all = append(all, forwardWorkload("gemm", m, t, engine.BF16), gradInputWorkload(m, t), gradWeightWorkload(m, t))
	}
	three(linearMap{"square", 8192, 8192}, 8192)
	for _, q := range []qwen{qwen05, qwen15} {
		for _, m := range q.maps() {
			three(m, 4096)
		}
	}
	for _, t := range []int{1, 16, 64, 256} {
		for _, m := range qwen15.maps()[2:] {
			all = append(all, forwardWorkload("gemm-decode", m, t, engine.BF16))
		}
	}
	head := linearMap{qwen15.name + "/head", qwen15.v, qwen15.hidden}
	return append(all, forwardWorkload("gemm-decode", head, 256, engine.F32))
}

func gemmWorkload(group, pass string, m linearMap, t int, out engine.DType) *workload {
	return &workload{
		group: group, name: fmt.Sprintf("%s %s, T %d, N %d, K %d", m.name, pass, t, m.n, m.k), families: true,
		flop: 2 * float64(t) * float64(m.n) * float64(m.k), operands: 2*(t*m.k+m.n*m.k) + t*m.n*out.Size(),
		peers: []request{{"kind": "gemm", "pass": pass, "t": t, "n": m.n, "k": m.k}},
	}
}

// samples is how many elements of a product are compared.
const samples = 256

func forwardWorkload(group string, m linearMap, t int, out engine.DType) *workload {
	x := gemmWorkload(group, "forward", m, t, out)
	if group == "gemm-decode" {
		x.bytes = float64(x.operands)
	}
	x.setup = func(e *env) (func(int), func() verdict) {
		a := each(e, func() operand { return e.random(engine.BF16, t, m.k) })
		w := each(e, func() operand { return e.random(engine.BF16, m.n, m.k) })
		y := each(e, func() engine.Tensor { return e.empty(out, t, m.n) })
		run := func(s int) {
			e.Linear(engine.LinearArgs{Y: y[s], X: a[s].Tensor, W: engine.Weight{Tensor: w[s].Tensor}})
		}
		return run, func() verdict {
			var c compared
			got := e.read(y[0])
			for range samples {
				i, j := e.rng.IntN(t), e.rng.IntN(m.n)
				want, tol := dot(m.k, func(k int) float64 { return a[0].at(i, k) }, func(k int) float64 { return w[0].at(j, k) })
				c.element(fmt.Sprintf("Y[%d][%d]", i, j), float64(got[i*m.n+j]), want, stored(out, want, tol))
			}
			run(0)
			if !sameBits(got, e.read(y[0])) {
				c.err = errors.Join(c.err, errors.New("a second run gave other bits"))
			}
			i := e.rng.IntN(t)
			alone := e.empty(out, 1, m.n)
			e.Linear(engine.LinearArgs{Y: alone, X: a[0].RowRange(i, i+1), W: engine.Weight{Tensor: w[0].Tensor}})
			if !sameBits(got[i*m.n:(i+1)*m.n], e.read(alone)) {
				c.err = errors.Join(c.err, fmt.Errorf("row %d computed alone has other bits than among %d", i, t))
			}
			return c.verdict
		}
	}
	return x
}

func gradInputWorkload(m linearMap, t int) *workload {
	x := gemmWorkload("gemm", "dgrad", m, t, engine.BF16)
	x.setup = func(e *env) (func(int), func() verdict) {
		dy := each(e, func() operand { return e.random(engine.BF16, t, m.n) })
		w := each(e, func() operand { return e.random(engine.BF16, m.n, m.k) })
		dx := each(e, func() engine.Tensor { return e.empty(engine.BF16, t, m.k) })
		run := func(s int) {
			e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx[s], DY: dy[s].Tensor, W: engine.Weight{Tensor: w[s].Tensor}})
		}
		return run, func() verdict {
			var c compared
			got := e.read(dx[0])
			for range samples {
				i, j := e.rng.IntN(t), e.rng.IntN(m.k)
				want, tol := dot(m.n, func(k int) float64 { return dy[0].at(i, k) }, func(k int) float64 { return w[0].at(k, j) })
				c.element(fmt.Sprintf("DX[%d][%d]", i, j), float64(got[i*m.k+j]), want, stored(engine.BF16, want, tol))
			}
			return c.verdict
		}
	}
	return x
}

func gradWeightWorkload(m linearMap, t int) *workload {
	x := gemmWorkload("gemm", "wgrad", m, t, engine.BF16)
	x.operands = 2*t*(m.n+m.k) + 4*m.n*m.k
	x.setup = func(e *env) (func(int), func() verdict) {
		dy := each(e, func() operand { return e.random(engine.BF16, t, m.n) })
		a := each(e, func() operand { return e.random(engine.BF16, t, m.k) })
		dw := each(e, func() engine.Tensor { return e.empty(engine.F32, m.n, m.k) })
		run := func(s int) {
			e.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: dw[s], DY: dy[s].Tensor, X: a[s].Tensor})
		}
		return run, func() verdict {
			var c compared
			got := e.read(dw[0])
			for range samples {
				i, j := e.rng.IntN(m.n), e.rng.IntN(m.k)
				// K may be cut into parts, whose sums are added in order: that reorders what
				// dot adds, within twice its tolerance.
				want, tol := dot(t, func(k int) float64 { return dy[0].at(k, i) }, func(k int) float64 { return a[0].at(k, j) })
				c.element(fmt.Sprintf("DW[%d][%d]", i, j), float64(got[i*m.k+j]), want, 2*tol)
			}
			return c.verdict
		}
	}
	return x
}
