package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// Rows of the matrices that linear maps are applied to, and those at which peers
// compute as well.
var (
	gemmRows      = []int{1, 2, 4, 8, 32, 64, 512, 2048}
	gemmPeerRows  = []int{1, 8, 64, 512, 2048}
	gemmQuickRows = []int{1, 8, 512}
	backwardRows  = []int{512, 2048}
)

// mostGEMM bounds the arithmetic of a product: above it, one run takes seconds and
// shows nothing that a smaller one does not.
const mostGEMM = 80e9

// gemmWorkloads are the linear maps of the models, forward and backward.
func (r *runner) gemmWorkloads() (all []*workload) {
	names := []string{SmolLM2}
	rows, backward := gemmQuickRows, []int{512}
	if r.o.Full {
		names, rows, backward = []string{Tiny, SmolLM2, Qwen25}, gemmRows, backwardRows
	}
	for _, s := range r.shapes(names...) {
		for _, l := range append(s.linears(), s.vocabulary()) {
			for _, m := range rows {
				w := gemmForward(s, l, m)
				if 2*float64(m*l.n*l.k) > mostGEMM || m > 8 && l.n > 1<<17 {
					continue
				}
				if !r.o.Full || slices.Contains(gemmPeerRows, m) {
					w.peers = []string{"openblas", "onednn"}
					if m == 64 || m == 512 && l.n < 1<<14 {
						w.peers = append(w.peers, "gonum", "gorgonia")
					}
				}
				all = append(all, w)
			}
			if l.name == "vocabulary" { // the fused head does that one's backward
				continue
			}
			for _, m := range backward {
				all = append(all, gemmBackward(s, l, m)...)
			}
		}
	}
	return all
}

// gemmForward is Y = X·Wᵀ, X being M×K and W N×K: with W as it is stored, so that
// its packing is part of a run, and packed ahead as the engine keeps it, in BF16 as
// well where few rows make reading it the whole of the work.
func gemmForward(s Shape, l linear, m int) *workload {
	flop, bytes := 2*float64(m*l.n*l.k), 4*float64(m*l.k+l.n*l.k+m*l.n)
	w := &workload{group: "kernels", shape: s.Name, name: fmt.Sprintf("linear %s M=%d N=%d K=%d", l.name, m, l.n, l.k), flop: 3 * flop, bytes: 3 * bytes, set: bytes, class: gemmClass(m)}
	w.setup = func(e *env) *subject {
		x, weight := e.random(engine.F32, m, l.k), e.random(engine.F32, l.n, l.k)
		y, z := e.zeros(engine.F32, m, l.n), e.zeros(engine.F32, m, l.n)
		packed := e.prepared(weight.Tensor)
		sub := &subject{variants: []variant{
			{name: "gemm", flop: flop, bytes: bytes, run: func(*laps) { e.Linear(engine.LinearArgs{Y: y, X: x.Tensor, W: engine.Weight{Tensor: weight.Tensor}}) }},
			{name: "packed", flop: flop, bytes: bytes, run: func(*laps) { e.Linear(engine.LinearArgs{Y: z, X: x.Tensor, W: packed}) }},
		}}
		var half engine.Tensor
		if act, err := e.Precision(engine.BF16); err == nil && m <= 32 {
			half = e.zeros(engine.F32, m, l.n)
			in, narrow := x.Tensor, e.zeros(engine.BF16, l.n, l.k)
			e.UploadF32(narrow, weight.v)
			if act == engine.BF16 {
				in = e.zeros(act, m, l.k)
				e.UploadF32(in, x.v)
			}
			packed := e.prepared(narrow)
			sub.variants = append(sub.variants, variant{name: "packed bf16", flop: flop, bytes: bytes - 2*float64(l.n*l.k),
				run: func(*laps) { e.Linear(engine.LinearArgs{Y: half, X: in, W: packed}) }})
			sub.compare = [][2]string{{"packed bf16", "packed"}}
		}
		sub.check = func() string {
			got := e.read(y)
			if !sameBits(got, e.read(z)) {
				fail("wrong result: packed ahead, the bits differ from those packed in the call")
			}
			line := checkProduct(e.rng, m, l.n, l.k, x.at, func(p, j int) float64 { return weight.at(j, p) }, got)
			if half.Valid() {
				checkProduct(e.rng, m, l.n, l.k, x.at, func(p, j int) float64 { return weight.at(j, p) }, e.read(half))
			}
			if len(w.peers) > 0 && len(e.r.o.Peers) > 0 {
				sub.ask = e.gemmAsk(m, l, x, weight, got)
			}
			return line
		}
		return sub
	}
	return w
}

// gemmClass takes the shapes of a number of rows together, and all of many rows.
func gemmClass(m int) string {
	if m >= 512 {
		return "linear, M ≥ 512"
	}
	return fmt.Sprintf("linear, M = %d", m)
}

// gemmAsk writes a product's operands for peers.
func (e *env) gemmAsk(m int, l linear, x, weight operand, ours []float32) *ask {
	dir, err := os.MkdirTemp(e.r.temp, "gemm-")
	must(err)
	a, b := filepath.Join(dir, "a.f32"), filepath.Join(dir, "b.f32")
	writeFloats(a, x.v)
	writeFloats(b, weight.v)
	return &ask{work: "gemm", dir: dir, params: map[string]any{"m": m, "n": l.n, "k": l.k, "a": a, "b": b}, length: m * l.n,
		compare: sameProduct(m, l.n, l.k, x, weight, ours)}
}

// gemmBackward are DX = DY·W and DW += DYᵀ·X.
func gemmBackward(s Shape, l linear, m int) []*workload {
	flop, bytes := 2*float64(m*l.n*l.k), 4*float64(m*l.k+l.n*l.k+m*l.n)
	input := &workload{group: "kernels", shape: s.Name, name: fmt.Sprintf("linear-backward-input %s M=%d N=%d K=%d", l.name, m, l.n, l.k), flop: flop, bytes: bytes, class: "linear, backward for the input"}
	input.setup = func(e *env) *subject {
		dy, w, dx := e.random(engine.F32, m, l.n), e.random(engine.F32, l.n, l.k), e.zeros(engine.F32, m, l.k)
		a := engine.LinearBackwardInputArgs{DX: dx, DY: dy.Tensor, W: e.prepared(w.Tensor)}
		return &subject{variants: []variant{{flop: flop, bytes: bytes, run: func(*laps) { e.LinearBackwardInput(a) }}},
			check: func() string { return checkProduct(e.rng, m, l.k, l.n, dy.at, w.at, e.read(dx)) }}
	}
	weight := &workload{group: "kernels", shape: s.Name, name: fmt.Sprintf("linear-backward-weight %s M=%d N=%d K=%d", l.name, m, l.n, l.k), flop: flop, bytes: bytes, class: "linear, backward for the weight"}
	weight.setup = func(e *env) *subject {
		dy, x, dw := e.random(engine.F32, m, l.n), e.random(engine.F32, m, l.k), e.zeros(engine.F32, l.n, l.k)
		a := engine.LinearBackwardWeightArgs{DW: dw, DY: dy.Tensor, X: x.Tensor}
		// The sum grows with the runs, of which the check allows no more than one.
		return &subject{variants: []variant{{flop: flop, bytes: bytes, run: func(*laps) { e.LinearBackwardWeight(a) }}},
			check: func() string {
				e.Fill(dw, 0)
				e.LinearBackwardWeight(a)
				return checkProduct(e.rng, l.n, l.k, m, func(i, p int) float64 { return dy.at(p, i) }, x.at, e.read(dw))
			}}
	}
	return []*workload{input, weight}
}
