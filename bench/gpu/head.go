package main

import (
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// headShape is a language-model head: T rows of C, V logits.
type headShape struct {
	name    string
	t, c, v int
}

func headWorkloads(quick bool) (all []*workload) {
	if quick {
		s := headShape{"tiny", 9, 64, 300}
		return []*workload{headWorkload(s, false), headWorkload(s, true), sampleWorkload(3, 300, 1), sampleWorkload(3, 300, 0.9)}
	}
	for _, q := range []qwen{qwen05, qwen15} {
		s := headShape{q.name, 4096, q.hidden, q.v}
		all = append(all, headWorkload(s, false), headWorkload(s, true))
	}
	return append(all, sampleWorkload(256, qwen05.v, 1), sampleWorkload(256, qwen05.v, 0.9))
}

// headScale keeps the softmax from being a single token's.
const headScale = 0.125

// headWorkload is log-probs and entropies, or these and the gradients: one product
// forward, three backward.
func headWorkload(s headShape, backward bool) *workload {
	pass, products := "forward", 1.0
	if backward {
		pass, products = "forward and backward", 4
	}
	x := &workload{
		group: "head", name: fmt.Sprintf("%s %s, T %d, C %d, V %d", s.name, pass, s.t, s.c, s.v), families: true,
		flop: 2 * products * float64(s.t) * float64(s.c) * float64(s.v), operands: 2*(s.t+s.v)*s.c + 4*s.v*s.c,
		peers: []request{{"kind": "head", "backward": backward, "t": s.t, "c": s.c, "v": s.v}},
	}
	x.setup = func(e *env) (func(int), func() verdict) {
		sets := each(e, func() *headSet { return newHeadSet(e, s, backward) })
		run := func(i int) {
			e.LogProb(sets[i].forward)
			if backward {
				e.LogProbBackward(sets[i].backward)
			}
		}
		return run, func() verdict { return sets[0].check(e, backward) }
	}
	return x
}

type headSet struct {
	shape    headShape
	x, w, d  operand
	targets  []int32
	forward  engine.LogProbArgs
	backward engine.LogProbBackwardArgs
}

func newHeadSet(e *env, s headShape, backward bool) *headSet {
	h := &headSet{shape: s, x: e.random(engine.BF16, s.t, s.c), w: e.random(engine.BF16, s.v, s.c), targets: make([]int32, s.t)}
	for i := range h.targets {
		h.targets[i] = int32(e.rng.IntN(s.v))
	}
	vec := func() engine.Tensor { return e.empty(engine.F32, 1, s.t) }
	weight := engine.Weight{Tensor: h.w.Tensor}
	h.forward = engine.LogProbArgs{X: h.x.Tensor, W: weight, Targets: e.ints(1, s.t, h.targets), LogProb: vec(), Entropy: vec(), LSE: vec(), Scale: headScale}
	if backward {
		h.d = e.random(engine.F32, 1, s.t)
		h.backward = engine.LogProbBackwardArgs{DX: e.empty(engine.BF16, s.t, s.c), DW: e.empty(engine.F32, s.v, s.c), X: h.x.Tensor, W: weight,
			Targets: h.forward.Targets, LSE: h.forward.LSE, DLogProb: h.d.Tensor, Scale: headScale}
	}
	return h
}

func (h *headSet) check(e *env, backward bool) verdict {
	var c compared
	s := h.shape
	logProb, entropy, lse := e.read(h.forward.LogProb), e.read(h.forward.Entropy), e.read(h.forward.LSE)
	var dx []float32
	if backward {
		dx = e.read(h.backward.DX)
	}
	for range 2 { // a row costs V·C operations here
		i := e.rng.IntN(s.t)
		p, errs, want := weights(s.v, s.c, headScale, func(k int) float64 { return h.x.at(i, k) }, func(j, k int) float64 { return h.w.at(j, k) })
		// Within a chunk sums are of 256 threads' partial sums; chunks are merged in a row.
		tol := errs + float64(16+s.v/4096+1)*0x1p-23*(1+math.Abs(want))
		c.element("LSE", float64(lse[i]), want, tol)
		target := int(h.targets[i])
		c.element("LogProb", float64(logProb[i]), math.Log(p[target]), 2*tol)
		h0, size := 0.0, 0.0
		for _, w := range p {
			if w > 0 {
				h0 -= w * math.Log(w)
				size += w * math.Abs(math.Log(w)-want)
			}
		}
		c.element("Entropy", float64(entropy[i]), h0, tol*(2+size+math.Abs(want)))
		if !backward {
			continue
		}
		d := h.d.at(0, i)
		for range 8 {
			k := e.rng.IntN(s.c)
			var want, tol float64
			for j, w := range p {
				dz := -w
				if j == target {
					dz++
				}
				term := headScale * d * dz * h.w.at(j, k)
				want += term
				tol += math.Abs(term)*(roundedBF16+0x1p-20) + math.Abs(headScale*d*w*h.w.at(j, k))*2*errs
			}
			c.element(fmt.Sprintf("DX[%d][%d]", i, k), float64(dx[i*s.c+k]), want, stored(engine.BF16, want, tol+math.Abs(want)*0x1p-16))
		}
	}
	return c.verdict
}

// sampleWorkload draws a token for each row.
func sampleWorkload(rows, vocab int, topP float32) *workload {
	x := &workload{
		group: "sample", name: fmt.Sprintf("%d rows, V %d, top-p %g", rows, vocab, topP), bytes: 4 * float64(rows*vocab), operands: 4 * rows * vocab,
		peers: []request{{"kind": "sample", "rows": rows, "vocab": vocab, "top_p": topP}},
	}
	x.setup = func(e *env) (func(int), func() verdict) {
		logits := each(e, func() operand { return e.random(engine.F32, rows, vocab) })
		params, keys := make([]float32, rows*engine.NumParams), make([]int32, rows*engine.NumKeys)
		for r := range rows {
			params[r*engine.NumParams+engine.ParamTemperature], params[r*engine.NumParams+engine.ParamTopP] = 1, topP
			keys[r*engine.NumKeys+engine.KeySample] = int32(r)
		}
		p := e.empty(engine.F32, rows, engine.NumParams)
		e.UploadF32(p, params)
		vec := func(d engine.DType) engine.Tensor { return e.empty(d, 1, rows) }
		a := engine.SampleArgs{Params: p, Keys: e.ints(rows, engine.NumKeys, keys), Forced: vec(engine.I32), Tokens: vec(engine.I32),
			Positions: vec(engine.I32), LogProb: vec(engine.F32), SamplingLogProb: vec(engine.F32), Entropy: vec(engine.F32)}
		run := func(i int) {
			a := a
			a.Logits = logits[i].Tensor
			e.Sample(a)
		}
		return run, func() verdict {
			var c compared
			got := e.read(a.LogProb)
			tokens := make([]int32, rows)
			e.must(e.Wait(e.DownloadI32(tokens, a.Tokens)))
			for r := range min(rows, 8) {
				if tokens[r] < 0 || int(tokens[r]) >= vocab {
					c.err = fmt.Errorf("row %d drew token %d of %d", r, tokens[r], vocab)
					break
				}
				sum := 0.0
				for j := range vocab {
					sum += math.Exp(logits[0].at(r, j))
				}
				lse := math.Log(sum)
				c.element(fmt.Sprintf("LogProb[%d]", r), float64(got[r]), logits[0].at(r, int(tokens[r]))-lse, float64(16+vocab/4096+1)*0x1p-22*(1+lse))
			}
			return c.verdict
		}
	}
	return x
}
