package model

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/enginetest"
	"github.com/updraft-ml/updraft/internal/half"
)

// testLoRA adapts every matrix that can be, with a scale that no type holds
// exactly.
func testLoRA() *LoRA {
	return &LoRA{R: 3, Alpha: 5, TargetModules: []string{AllLinear}, Seed: 9}
}

// randomAdapters moves B off its zeros.
func randomAdapters(t testing.TB, m *Model) {
	rng := rand.New(rand.NewPCG(13, 17))
	for _, p := range m.Trained() {
		v, err := m.ReadParam(ctx, Weights, p.Name)
		require.NoError(t, err)
		for i := range v {
			v[i] += 0.2 * (rng.Float32() - 0.5)
		}
		require.NoError(t, m.WriteParam(ctx, Weights, p.Name, v))
	}
	m.RefreshWeights()
}

// Every element of A's and B's gradients against central differences in float64.
func TestLoRAGradientsNumerically(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			be := enginetest.NewReference()
			cfg := tinyConfig(kind)
			cfg.HiddenSize, cfg.IntermediateSize, cfg.NumAttentionHeads, cfg.NumKeyValueHeads, cfg.HeadDim, cfg.VocabSize = 6, 7, 2, 1, 4, 9
			m, err := New(be, cfg, 5, Options{Trainable: true, MaxRows: 64, LoRA: testLoRA()})
			require.NoError(t, err)
			randomVectors(t, m)
			randomAdapters(t, m)
			b := randomBatch(4, cfg.VocabSize, 2, 4, 1, 3, 5)
			b.Scale = 0.8
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
			all := func(buf engine.Buffer) []float64 {
				return append([]float64(nil), be.Float64s(engine.Vector(buf, 0, m.trained.total))...)
			}
			grad, masters := all(m.grads), all(m.tuning.masters)
			scale := 0.0
			for _, g := range grad {
				scale = max(scale, math.Abs(g))
			}
			const h, tolerance = 1e-6, 1e-7 // the quotient's own errors are of the orders h² and 1e-16/h
			require.Len(t, m.Trained(), 2*7*2)
			for _, p := range m.Trained() {
				for i := p.off; i < p.off+p.len(); i++ {
					at := engine.Vector(m.tuning.masters, i, 1)
					be.SetFloat64s(at, []float64{masters[i] + h})
					m.RefreshWeights()
					up := loss()
					be.SetFloat64s(at, []float64{masters[i] - h})
					m.RefreshWeights()
					down := loss()
					be.SetFloat64s(at, []float64{masters[i]})
					want := (up - down) / (2 * h)
					if !(math.Abs(grad[i]-want) <= tolerance*scale) {
						t.Fatalf("%s[%d]: gradient %.9g, difference quotient %.9g", p.Name, i-p.off, grad[i], want)
					}
				}
			}
		})
	}
}

// The gradients of A and B are those of the whole matrix, projected:
// dB = s·dW·Aᵀ and dA = s·Bᵀ·dW. In float64 to its precision, in float32 to the
// rounding of two chains of sums.
func TestLoRAGradientsAreProjections(t *testing.T) {
	for _, c := range []struct {
		name      string
		be        engine.Backend
		tolerance float64
	}{{"float64", enginetest.NewReference(), 1e-6}, {"cpu", newCPU(t), 1e-5}} {
		for _, kind := range kinds {
			t.Run(c.name+"/"+kind, func(t *testing.T) {
				m, err := New(c.be, tinyConfig(kind), 7, Options{Trainable: true, MaxRows: 200, LoRA: testLoRA()})
				require.NoError(t, err)
				defer m.Close()
				randomVectors(t, m)
				randomAdapters(t, m)
				full, err := m.Clone(ctx, Options{Trainable: true, MaxRows: 200})
				require.NoError(t, err)
				defer full.Close()
				b := randomBatch(8, m.cfg.VocabSize, 3, 9, 1, 20)
				dp := make([]float32, b.Tokens())
				for i := range dp {
					dp[i] = float32(i%7) - 3
				}
				for _, x := range []*Model{m, full} {
					x.ZeroGrad()
					_, err := x.Forward(ctx, &b)
					require.NoError(t, err)
					require.NoError(t, x.Backward(ctx, dp, nil))
				}
				read := func(x *Model, r Role, name string) []float32 {
					v, err := x.ReadParam(ctx, r, name)
					require.NoError(t, err)
					return v
				}
				s := 5.0 / 3
				for _, ad := range m.tuning.list {
					dw := read(full, Gradients, ad.target.Name)
					A, B := read(m, Weights, ad.a.Name), read(m, Weights, ad.b.Name)
					N, K, R := ad.target.Rows, ad.target.Cols, ad.a.Rows
					dA, dB := make([]float32, R*K), make([]float32, N*R)
					for r := range R {
						for k := range K {
							var sum float64
							for n := range N {
								sum += float64(B[n*R+r]) * float64(dw[n*K+k])
							}
							dA[r*K+k] = float32(s * sum)
						}
						for n := range N {
							var sum float64
							for k := range K {
								sum += float64(dw[n*K+k]) * float64(A[r*K+k])
							}
							dB[n*R+r] = float32(s * sum)
						}
					}
					require.LessOrEqual(t, relative(read(m, Gradients, ad.a.Name), dA), c.tolerance, ad.a.Name)
					require.LessOrEqual(t, relative(read(m, Gradients, ad.b.Name), dB), c.tolerance, ad.b.Name)
				}
			})
		}
	}
}

// loraCases are the ways in which adapters are kept.
func loraCases(t testing.TB) []struct {
	name, kind string
	be         engine.Backend
	o          Options
} {
	be, rounding := newCPU(t), newRounding(t)
	return []struct {
		name, kind string
		be         engine.Backend
		o          Options
	}{
		{"qwen2", "qwen2", be, Options{}},
		{"qwen3, 8-bit moments", "qwen3", be, Options{Moments: engine.U8}},
		{"untied, recompute", "untied", be, Options{Recompute: true}},
		{"BF16", "llama", rounding, Options{Weights: engine.BF16}},
		{"BF16, F32 activations", "llama", newCPU(t), Options{Weights: engine.BF16}},
		{"BF16, 8-bit moments", "qwen2", rounding, Options{Weights: engine.BF16, Moments: engine.U8}},
	}
}

// trainAdapters takes steps on one batch.
func trainAdapters(t testing.TB, m *Model, steps int) {
	b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
	dp := make([]float32, b.Tokens())
	for i := range dp {
		dp[i] = -1
	}
	for range steps {
		m.ZeroGrad()
		_, err := m.Forward(ctx, &b)
		require.NoError(t, err)
		require.NoError(t, m.Backward(ctx, dp, nil))
		m.AdamWStep(AdamW{LR: 0.03, WeightDecay: 0.1})
	}
}

// checkMerged holds the targets against their frozen weights and the masters, in
// float64.
func checkMerged(t testing.TB, m *Model) {
	read := func(at engine.Tensor) []float32 {
		v := make([]float32, at.Len())
		require.NoError(t, m.be.Wait(m.be.DownloadF32(v, at)))
		return v
	}
	s := float64(m.tuning.scale())
	moved := false
	for i := range m.tuning.list {
		ad := &m.tuning.list[i]
		base, got := read(m.tuning.frozen(ad)), read(m.target(ad))
		A, B := read(viewOf(m.tuning.masters, ad.a)), read(viewOf(m.tuning.masters, ad.b))
		R, K := ad.a.Rows, ad.a.Cols
		for j, w := range base {
			sum, size := float64(w), math.Abs(float64(w))
			for r := range R {
				x := s * float64(B[j/K*R+r]) * float64(A[r*K+j%K])
				sum, size = sum+x, size+math.Abs(x)
			}
			// In float32 a rounding of s·b and one for each term of the chain. In BF16
			// a and s·b are rounded, and so is the sum, once.
			tol := float64(R+2) * size / (1 << 24)
			if m.opts.Weights == engine.BF16 {
				tol += (size-math.Abs(float64(w)))/(1<<7) + math.Abs(sum)/(1<<8)
			}
			if !(math.Abs(float64(got[j])-sum) <= tol) {
				t.Fatalf("%s[%d] is %g, want %g within %g", ad.target.Name, j, got[j], sum, tol)
			}
			moved = moved || got[j] != w
		}
	}
	require.True(t, moved, "the adapters do nothing")
}

// Through several updates products see the frozen weights plus the adapters, so
// that a rollout's log-probs are those of the training forward to the bit; what is
// frozen stays, and can be computed with.
func TestLoRARolloutEqualsForward(t *testing.T) {
	for _, c := range loraCases(t) {
		t.Run(c.name, func(t *testing.T) {
			o := c.o
			o.Trainable, o.MaxRows = true, 300
			plain := newTiny(t, c.be, c.kind, Options{Weights: o.Weights, MaxRows: 300})
			o.LoRA = testLoRA()
			m, err := plain.Clone(ctx, o)
			require.NoError(t, err)
			defer m.Close()
			fixed := randomBatch(3, m.cfg.VocabSize, 2, 9, 5, 6)
			base, _ := forward(t, plain, &fixed)
			got, _ := forward(t, m, &fixed)
			require.Zero(t, bitDiffs(base, got), "new adapters change nothing")
			frozen := bits(t, plain)
			prompts := testPrompts(m.cfg.VocabSize)[2:6]
			for step := range 3 {
				handles := rollout(t, m, SchedulerOptions{MaxBatch: 5, MaxTokens: 60, PrefillRows: 70}, prompts,
					Request{N: 2, MaxNewTokens: 10, Seed: 42, Step: step, Sampling: Sampling{Temperature: 1}})
				b, logp, entropy := batchOf(handles)
				gotP, gotE := forward(t, m, &b)
				require.Zero(t, bitDiffs(logp, gotP), "log-probs")
				require.Zero(t, bitDiffs(entropy, gotE), "entropies")
				trainAdapters(t, m, 2)
				checkMerged(t, m)
			}
			want, _ := forward(t, m, &fixed)
			require.Positive(t, bitDiffs(base, want))
			require.NoError(t, m.WithoutAdapters(func() error {
				got, _ := forward(t, m, &fixed)
				require.Zero(t, bitDiffs(base, got), "the reference model")
				require.Zero(t, bitDiffs(frozen, bits(t, m)), "frozen weights")
				return nil
			}))
			got, _ = forward(t, m, &fixed)
			require.Zero(t, bitDiffs(want, got), "and back")

			targets := map[string]bool{}
			for _, ad := range m.tuning.list {
				targets[ad.target.Name] = true
			}
			now := bits(t, m)
			for _, p := range m.Params() {
				if !targets[p.Name] {
					require.Zero(t, bitDiffs(frozen[p.off:p.off+p.len()], now[p.off:p.off+p.len()]), p.Name)
				}
			}
		})
	}
}

// A run that goes on from an adapter directory and its base ends in the same bits;
// and the adapter directory, or the merged model that Save writes, loads as a
// plain model with the weights that products saw.
func TestLoRASaveAndLoad(t *testing.T) {
	for _, c := range loraCases(t) {
		t.Run(c.name, func(t *testing.T) {
			baseDir, dir, merged := t.TempDir(), t.TempDir(), t.TempDir()
			plain := newTiny(t, c.be, c.kind, Options{Weights: c.o.Weights})
			require.NoError(t, plain.Save(ctx, baseDir))
			o := c.o
			o.Trainable, o.MaxRows, o.LoRA = true, 200, testLoRA()
			m, err := Load(ctx, c.be, baseDir, o)
			require.NoError(t, err)
			defer m.Close()
			trainAdapters(t, m, 3)
			require.NoError(t, m.SaveState(ctx, dir))
			require.NoError(t, m.SaveOptimizer(ctx, filepath.Join(dir, OptimizerFile)))
			require.NoError(t, m.Save(ctx, merged))
			_, err = os.Stat(filepath.Join(dir, WeightsFile))
			require.ErrorIs(t, err, os.ErrNotExist, "an adapter checkpoint holds no weights of the base")
			now := bits(t, m)

			cfg, err := ConfigAt(dir)
			require.NoError(t, err)
			require.Equal(t, m.Config(), cfg)
			for _, from := range []string{dir, merged} {
				got, err := Load(ctx, c.be, from, Options{Weights: c.o.Weights})
				require.NoError(t, err)
				require.Zero(t, bitDiffs(now, bits(t, got)), from)
				require.NoError(t, got.Close())
			}
			onDisk, err := OpenCheckpoint(dir) // where no device computes the sum
			require.NoError(t, err)
			exported := t.TempDir()
			require.NoError(t, onDisk.SaveAs(ctx, exported, SaveOptions{}))
			require.NoError(t, onDisk.Close())
			got, err := Load(ctx, c.be, exported, Options{})
			require.NoError(t, err)
			require.LessOrEqual(t, relative(bits(t, got), now), map[engine.DType]float64{engine.F32: 1e-6, engine.BF16: 1.0 / (1 << 7)}[c.o.Weights])
			require.NoError(t, got.Close())

			again, err := Load(ctx, c.be, baseDir, o)
			require.NoError(t, err)
			defer again.Close()
			require.NoError(t, again.LoadWeights(ctx, dir))
			require.NoError(t, again.LoadOptimizer(ctx, filepath.Join(dir, OptimizerFile)))
			require.Equal(t, 3, again.StepCount())
			require.Zero(t, bitDiffs(now, bits(t, again)))
			trainAdapters(t, m, 3)
			trainAdapters(t, again, 3)
			require.Zero(t, bitDiffs(bits(t, m), bits(t, again)))
			for _, role := range []Role{Weights, Moment1, Moment2} {
				for _, p := range m.Trained() {
					want, err := m.ReadParam(ctx, role, p.Name)
					require.NoError(t, err)
					got, err := again.ReadParam(ctx, role, p.Name)
					require.NoError(t, err)
					require.Zero(t, bitDiffs(want, got), p.Name)
				}
			}

			// New adapters over an adapted model, whose checkpoint is their base.
			over, err := Load(ctx, c.be, dir, o)
			require.NoError(t, err)
			defer over.Close()
			require.Zero(t, bitDiffs(now, bits(t, over)))
			require.Equal(t, dir, over.Options().LoRA.Base)
			trainAdapters(t, over, 2)
			second := t.TempDir()
			require.NoError(t, over.SaveState(ctx, second))
			got, err = Load(ctx, c.be, second, Options{Weights: c.o.Weights})
			require.NoError(t, err)
			defer got.Close()
			require.Zero(t, bitDiffs(bits(t, over), bits(t, got)))
		})
	}
}

// In BF16 as in F32 an adapter knows its base, and no other.
func TestLoRAKnowsItsBase(t *testing.T) {
	be := newRounding(t)
	baseDir, dir := t.TempDir(), t.TempDir()
	plain := newTiny(t, be, "llama", Options{})
	require.NoError(t, plain.Save(ctx, baseDir))
	o := Options{Weights: engine.BF16, Trainable: true, MaxRows: 100, LoRA: testLoRA()}
	m, err := Load(ctx, be, baseDir, o)
	require.NoError(t, err)
	defer m.Close()
	require.NoError(t, m.SaveState(ctx, dir))
	got, err := Load(ctx, be, dir, Options{}) // whose base is not rounded
	require.NoError(t, err)
	require.NoError(t, got.Close())

	name := "model.layers.1.mlp.up_proj.weight"
	v, err := plain.ReadParam(ctx, Weights, name)
	require.NoError(t, err)
	v[5] = half.FromBF16(half.BF16(v[5]) + 1)
	require.NoError(t, plain.WriteParam(ctx, Weights, name, v))
	require.NoError(t, plain.Save(ctx, baseDir))
	_, err = Load(ctx, be, dir, Options{})
	require.ErrorContains(t, err, "belongs to a base model with other weights")
	require.NoError(t, m.WriteParam(ctx, Weights, name, v))
	require.ErrorContains(t, m.LoadAdapter(ctx, dir), "belongs to a base model with other weights")
	require.NoError(t, os.RemoveAll(baseDir))
	_, err = Load(ctx, be, dir, Options{})
	require.ErrorContains(t, err, "is not there: put its directory into base_model_name_or_path")
}

func TestLoRAErrors(t *testing.T) {
	be := newCPU(t)
	for want, l := range map[string]LoRA{
		"rank is -1":                        {R: -1},
		"alpha is -2":                       {Alpha: -2},
		`target module "lm_head" is unkno`:  {TargetModules: []string{"q_proj", "lm_head"}},
		`target module "all-linear" is unk`: {TargetModules: []string{"q_proj", AllLinear}},
	} {
		_, err := New(be, tinyConfig("llama"), 1, Options{LoRA: &l})
		require.ErrorContains(t, err, want)
	}
	m := newTiny(t, be, "llama", Options{Trainable: true, MaxRows: 50, LoRA: &LoRA{TargetModules: []string{"v_proj", "q_proj", "v_proj"}}})
	l := m.Options().LoRA
	require.Equal(t, []any{16, 32.0, []string{"q_proj", "v_proj"}}, []any{l.R, l.Alpha, l.TargetModules})
	_, err := m.ReadParam(ctx, Gradients, "model.norm.weight")
	require.ErrorIs(t, err, errFrozen)
	require.ErrorContains(t, m.CopyWeights(m), "make a Clone")

	plain := newTiny(t, be, "llama", Options{})
	require.ErrorIs(t, plain.SaveAdapter(ctx, t.TempDir()), errNoAdapter)
	require.ErrorIs(t, plain.LoadAdapter(ctx, t.TempDir()), errNoAdapter)
	require.Panics(t, func() { plain.WithoutAdapters(func() error { return nil }) })

	dir := t.TempDir()
	require.ErrorIs(t, m.LoadAdapter(ctx, dir), os.ErrNotExist)
	require.NoError(t, m.SaveAdapter(ctx, dir))
	require.NoError(t, m.LoadAdapter(ctx, dir))
	other := newTiny(t, be, "llama", Options{Trainable: true, MaxRows: 50, LoRA: testLoRA()})
	require.ErrorContains(t, other.LoadAdapter(ctx, dir), "r 16, alpha 32 and target modules q_proj, v_proj, where this model has 3, 5 and")
	_, err = Load(ctx, be, dir, Options{})
	require.ErrorContains(t, err, "base_model_name_or_path is not set")

	path := filepath.Join(dir, AdapterConfigFile)
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, c := range []struct{ from, to, want string }{
		{`"LORA"`, `"IA3"`, `peft_type "IA3"`},
		{`"r": 16`, `"r": 0`, "r is 0"},
		{`"r": 16`, `"r": "x"`, "adapter_config.json"},
		{`"bias": "none"`, `"bias": "all"`, `bias "all"`},
		{`"r": 16`, `"r": 16, "use_dora": true`, "use_dora is set"},
		{`"r": 16`, `"r": 16, "use_rslora": true`, "use_rslora is set"},
		{`"init_lora_weights": true`, `"init_lora_weights": "pissa"`, "changes the base model's weights"},
		{`"r": 16`, `"r": 16, "rank_pattern": {"q_proj": 4}`, "rank_pattern is set"},
		{`"fan_in_fan_out": false`, `"fan_in_fan_out": true`, "fan_in_fan_out"},
		{`"v_proj"`, `"c_attn"`, `target module "c_attn" is unknown`},
		{`"v_proj"`, `7`, "target_modules must be a list of names"},
		{`{`, `[`, "not valid JSON"},
	} {
		require.Contains(t, string(good), c.from)
		require.NoError(t, os.WriteFile(path, []byte(strings.Replace(string(good), c.from, c.to, 1)), 0o644))
		err := m.LoadAdapter(ctx, dir)
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), "\n")
	}
}

// A new A is uniform within ±1/√K, by its seed.
func TestLoRAInitialWeights(t *testing.T) {
	cfg := tinyConfig("llama")
	l, err := LoRA{R: 24, TargetModules: []string{AllLinear}, Seed: 3}.resolve()
	require.NoError(t, err)
	s := newAdapterSet(l, newLayout(&cfg))
	v := s.initial()
	require.Equal(t, v, s.initial())
	for _, ad := range s.list {
		bound := 1 / math.Sqrt(float64(ad.target.Cols))
		var sq float64
		for _, x := range v[ad.a.off : ad.a.off+ad.a.len()] {
			require.LessOrEqual(t, math.Abs(float64(x)), bound)
			sq += float64(x) * float64(x) / float64(ad.a.len())
		}
		require.InEpsilon(t, bound*bound/3, sq, 0.12, ad.a.Name)
		require.Equal(t, make([]float32, ad.b.len()), v[ad.b.off:ad.b.off+ad.b.len()])
	}
	l.Seed++
	require.NotEqual(t, v, newAdapterSet(l, newLayout(&cfg)).initial())
}
