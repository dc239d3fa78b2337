package model

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

// Every element of the gradient of a whole model against central differences,
// in float64: with biases, QK-norm, shared and unshared prompts, a temperature,
// entropies in the loss.
func TestGradientsNumerically(t *testing.T) {
	for _, kind := range kinds {
		for _, unshare := range []bool{false, true} {
			name := kind + "/shared"
			if unshare {
				name = kind + "/unshared"
			}
			t.Run(name, func(t *testing.T) {
				be := enginetest.NewReference()
				cfg := tinyConfig(kind)
				cfg.HiddenSize, cfg.IntermediateSize, cfg.NumAttentionHeads, cfg.NumKeyValueHeads, cfg.HeadDim, cfg.VocabSize = 6, 7, 2, 1, 4, 9
				m, err := New(be, cfg, 5, Options{Trainable: true, MaxRows: 64})
				require.NoError(t, err)
				randomVectors(t, m)
				b := randomBatch(4, cfg.VocabSize, 2, 4, 1, 3, 5)
				b.Unshare, b.Scale = unshare, 0.8

				n := b.Tokens()
				rng := rand.New(rand.NewPCG(1, 2))
				dp, de := make([]float32, n), make([]float32, n)
				for i := range n {
					dp[i], de[i] = rng.Float32()-0.3, rng.Float32()-0.5
				}
				loss := func() float64 {
					_, err := m.Forward(ctx, &b)
					require.NoError(t, err)
					lp, ent := be.Float64s(head(m.work.logProb, n)), be.Float64s(head(m.work.entropy, n))
					var s float64
					for i := range n {
						s += float64(dp[i])*lp[i] + float64(de[i])*ent[i]
					}
					return s
				}
				m.ZeroGrad()
				loss()
				require.NoError(t, m.Backward(ctx, dp, de))
				all := func(buf engine.Buffer) engine.Tensor { return engine.Vector(buf, 0, m.layout.total) }
				grad := append([]float64(nil), be.Float64s(all(m.grads))...)
				weights := append([]float64(nil), be.Float64s(all(m.weights))...)
				scale := 0.0
				for _, g := range grad {
					scale = max(scale, math.Abs(g))
				}
				const h, tolerance = 1e-6, 1e-7 // the quotient's own errors are of the orders h² and 1e-16/h
				for _, p := range m.Params() {
					for i := p.off; i < p.off+p.len(); i += 1 + rng.IntN(3) {
						at := engine.Vector(m.weights, i, 1)
						be.SetFloat64s(at, []float64{weights[i] + h})
						m.RefreshWeights()
						up := loss()
						be.SetFloat64s(at, []float64{weights[i] - h})
						m.RefreshWeights()
						down := loss()
						be.SetFloat64s(at, []float64{weights[i]})
						want := (up - down) / (2 * h)
						if !(math.Abs(grad[i]-want) <= tolerance*scale) {
							t.Fatalf("%s[%d]: gradient %.9g, difference quotient %.9g", p.Name, i-p.off, grad[i], want)
						}
					}
				}
			})
		}
	}
}

// gradients returns the flat gradients of one batch.
func gradients(t testing.TB, m *Model, b *Batch, dp []float32) []float32 {
	parts, err := b.Split(m.opts.MaxRows)
	require.NoError(t, err)
	m.ZeroGrad()
	for _, p := range parts {
		_, err := m.Forward(ctx, &p.Batch)
		require.NoError(t, err)
		require.NoError(t, m.Backward(ctx, dp[p.From:p.To], nil))
	}
	g := make([]float32, m.trained.total)
	require.NoError(t, m.be.Wait(m.be.DownloadF32(g, engine.Vector(m.grads, 0, len(g)))))
	return g
}

// Recomputed activations give the same bits, and so does a second run; sharing
// and micro-batches differ by rounding.
func TestGradientsOfOneBatch(t *testing.T) {
	be := newCPU(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			kept := newTiny(t, be, kind, Options{Trainable: true, MaxRows: 900})
			lean := newTiny(t, be, kind, Options{Trainable: true, MaxRows: 900, Recompute: true})
			small := newTiny(t, be, kind, Options{Trainable: true, MaxRows: 110})
			b := randomBatch(8, kept.cfg.VocabSize, 3, 40, 1, 20, 33, 64)
			dp := make([]float32, b.Tokens())
			for i := range dp {
				dp[i] = float32(i%7) - 3
			}
			want := gradients(t, kept, &b, dp)
			require.Zero(t, bitDiffs(want, gradients(t, kept, &b, dp)), "twice the same")
			require.Zero(t, bitDiffs(want, gradients(t, lean, &b, dp)), "recomputed")
			require.LessOrEqual(t, relative(gradients(t, small, &b, dp), want), 1e-5, "micro-batches")
			b.Unshare = true
			require.LessOrEqual(t, relative(gradients(t, kept, &b, dp), want), 1e-5, "unshared")
		})
	}
}

// Sharing the prompt of a group changes no gradient: in float64 it is the same sum in
// another order; on the CPU each element lies as far from its unshared twin as two
// devices may that pass the conformance suite, √2 times the scatter of backends that
// err within its tolerances. Of that scatter, estimated from 16 models and perhaps a
// quarter too small, eight standard deviations are allowed to each element, and one to
// all together.
func TestGradientsWithAndWithoutSharing(t *testing.T) {
	const samples, sigmas = 16, 8
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			cfg := tinyConfig(kind)
			b := randomBatch(8, cfg.VocabSize, 2, 16, 1, 4, 7)
			dp := make([]float32, b.Tokens())
			for i := range dp {
				dp[i] = float32(i%7) - 3
			}
			gradient := func(be engine.Backend, unshare bool) []float64 {
				m, err := New(be, cfg, 5, Options{Trainable: true, MaxRows: 512})
				require.NoError(t, err)
				defer m.Close()
				randomVectors(t, m)
				b.Unshare = unshare
				got := gradients(t, m, &b, dp)
				if r, ok := be.(*enginetest.Reference); ok {
					return append([]float64(nil), r.Float64s(engine.Vector(m.grads, 0, m.layout.total))...)
				}
				wide := make([]float64, len(got))
				for i, v := range got {
					wide[i] = float64(v)
				}
				return wide
			}
			exact := gradient(enginetest.NewReference(), false)
			largest := 0.0
			for _, v := range exact {
				largest = max(largest, math.Abs(v))
			}
			for i, v := range gradient(enginetest.NewReference(), true) {
				if !(math.Abs(v-exact[i]) <= 1e-12*largest) {
					t.Fatalf("in float64, element %d is %.17g shared and %.17g unshared", i, exact[i], v)
				}
			}

			mean, square := make([]float64, len(exact)), make([]float64, len(exact)) // of what errs
			for k := range samples {
				for i, v := range gradient(enginetest.NewErring(uint64(k)), k%2 == 1) {
					v -= exact[i]
					mean[i], square[i] = mean[i]+v/samples, square[i]+v*v/samples
				}
			}
			be := newCPU(t)
			shared, unshared := gradient(be, false), gradient(be, true)
			var worst, off, scatter float64
			for i := range exact {
				sd := math.Sqrt(2 * max(0, square[i]-mean[i]*mean[i]) * samples / (samples - 1))
				diff := math.Abs(shared[i] - unshared[i])
				if !(diff <= sigmas*sd) {
					t.Fatalf("element %d is %.9g shared and %.9g unshared, %.3g being the deviation allowed", i, shared[i], unshared[i], sd)
				}
				if sd > 0 {
					worst = max(worst, diff/sd)
				}
				off, scatter = off+diff*diff, scatter+sd*sd
			}
			require.Less(t, off, scatter, "all elements together")
			t.Logf("at most %.3f of the standard deviation allowed, %.4f over all", worst, math.Sqrt(off/scatter))
		})
	}
}

func TestBackwardMisuse(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "llama", Options{Trainable: true, MaxRows: 64})
	b := randomBatch(8, m.cfg.VocabSize, 1, 4, 5)
	dp := make([]float32, b.Tokens())
	require.ErrorContains(t, m.Backward(ctx, dp, nil), "needs the activations")
	_, err := m.Forward(ctx, &b)
	require.NoError(t, err)
	require.ErrorContains(t, m.Backward(ctx, dp[1:], nil), "values for")
	require.NoError(t, m.Backward(ctx, dp, nil))
	require.ErrorContains(t, m.Backward(ctx, dp, nil), "needs the activations")
	_, err = m.Forward(ctx, &b)
	require.NoError(t, err)
	_, err = m.Hidden(ctx, [][]int32{{1, 2}})
	require.NoError(t, err)
	require.ErrorContains(t, m.Backward(ctx, dp, nil), "needs the activations")

	frozen := newTiny(t, be, "llama", Options{MaxRows: 64})
	_, err = frozen.Forward(ctx, &b)
	require.NoError(t, err)
	require.ErrorIs(t, frozen.Backward(ctx, dp, nil), errNotTrainable)
	_, err = frozen.GradNorm(ctx)
	require.ErrorIs(t, err, errNotTrainable)
	require.Panics(t, func() { frozen.AdamWStep(AdamW{LR: 1}) })
	only := newTiny(t, be, "llama", Options{})
	_, err = only.Forward(ctx, &b)
	require.ErrorContains(t, err, "MaxRows")
}

// AdamW against its equations, decay on matrices only, and the gradient norm.
func TestAdamWStep(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "qwen2", Options{Trainable: true, MaxRows: 200})
	b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
	dp := make([]float32, b.Tokens())
	for i := range dp {
		dp[i] = -1
	}
	type state struct{ w, m, v float64 }
	states := map[string][]state{}
	for _, p := range m.Params() {
		w, err := m.ReadParam(ctx, Weights, p.Name)
		require.NoError(t, err)
		for _, x := range w {
			states[p.Name] = append(states[p.Name], state{w: float64(x)})
		}
	}
	s := AdamW{LR: 0.01, Beta1: 0.8, Beta2: 0.95, Eps: 1e-6, WeightDecay: 0.1, GradScale: 0.5}
	for step := 1; step <= 3; step++ {
		g := gradients(t, m, &b, dp)
		var sum float64
		for _, x := range g {
			sum += float64(x) * float64(x)
		}
		norm, err := m.GradNorm(ctx)
		require.NoError(t, err)
		require.InEpsilon(t, math.Sqrt(sum), norm, 1e-5)
		m.AdamWStep(s)
		require.Equal(t, step, m.StepCount())
		for _, p := range m.Params() {
			decay := float64(s.WeightDecay)
			if p.Rows == 0 {
				decay = 0
			}
			w, err := m.ReadParam(ctx, Weights, p.Name)
			require.NoError(t, err)
			for i, x := range states[p.Name] {
				gi := float64(g[p.off+i]) * float64(s.GradScale)
				x.m = float64(s.Beta1)*x.m + (1-float64(s.Beta1))*gi
				x.v = float64(s.Beta2)*x.v + (1-float64(s.Beta2))*gi*gi
				mh, vh := x.m/(1-math.Pow(float64(s.Beta1), float64(step))), x.v/(1-math.Pow(float64(s.Beta2), float64(step)))
				x.w -= float64(s.LR) * (mh/(math.Sqrt(vh)+float64(s.Eps)) + decay*x.w)
				states[p.Name][i] = x
				if !(math.Abs(x.w-float64(w[i])) <= 2e-5) {
					t.Fatalf("step %d: %s[%d] is %g, want %g", step, p.Name, i, w[i], x.w)
				}
			}
		}
	}
}

// A model learns a sequence by heart, which needs forward, backward, optimizer
// and refreshed weights to agree, and then generates it.
func TestTrainsAndGenerates(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "qwen3", Options{Trainable: true, MaxRows: 100})
	prompt, answer := []int32{4, 8, 15}, []int32{16, 23, 7, 7, 9, 12, 1}
	b := Batch{Groups: []Group{{Prompt: prompt, Responses: [][]int32{answer}}}}
	weights := []float32{1, 1, 1, 1, 1, 1, 1}
	var first, last float64
	for i := range 60 {
		m.ZeroGrad()
		out, err := m.Forward(ctx, &b)
		require.NoError(t, err)
		loss, d := WeightedNLL(out, weights, 7)
		require.NoError(t, m.Backward(ctx, d, nil))
		m.AdamWStep(AdamW{LR: 0.01})
		if i == 0 {
			first = loss
		}
		last = loss
	}
	require.Less(t, last, first/20)
	h := rollout(t, m, SchedulerOptions{MaxTokens: 40}, [][]int32{prompt}, Request{})[0]
	require.Equal(t, answer, h.Completions()[0].Tokens)
	require.Equal(t, FinishStop, h.Completions()[0].Finish)
}

func TestWeightedNLL(t *testing.T) {
	out := &Output{LogProbs: []float32{-1, float32(math.Inf(-1)), -3}}
	loss, d := WeightedNLL(out, []float32{1, 0, 2}, 4)
	require.Equal(t, 7.0/4, loss)
	require.Equal(t, []float32{-0.25, 0, -0.5}, d)
}
