package model

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// roundWeights makes every weight of a model one that BF16 can hold.
func roundWeights(t testing.TB, m *Model) {
	for _, p := range m.Params() {
		v, err := m.ReadParam(ctx, Weights, p.Name)
		require.NoError(t, err)
		for i, x := range v {
			v[i] = half.FromBF16(half.BF16(x))
		}
		require.NoError(t, m.WriteParam(ctx, Weights, p.Name, v))
	}
	m.RefreshWeights()
}

// The gradients, log-probs and hidden states of a whole model in BF16 lie as far from those
// without any rounding as the scatter of models with noise in the place of
// roundings allows: six standard deviations, where each is estimated from 24
// models and may be a quarter too small. Means differ by less, in the second
// order of roundings.
func TestBF16Gradients(t *testing.T) {
	const samples, sigmas = 24, 8
	for _, kind := range kinds {
		for _, recompute := range []bool{false, true} {
			if recompute && kind != "qwen3" {
				continue
			}
			name := kind
			if recompute {
				name += "/recompute"
			}
			t.Run(name, func(t *testing.T) {
				cfg := tinyConfig(kind)
				b := randomBatch(4, cfg.VocabSize, 2, 8, 1, 3, 9)
				b.Scale = 0.8
				n := b.Tokens()
				rng := rand.New(rand.NewPCG(1, 2))
				dp, de := make([]float32, n), make([]float32, n)
				for i := range n {
					dp[i], de[i] = rng.Float32()-0.3, rng.Float32()-0.5
				}
				// results returns gradients, log-probs, entropies and hidden states.
				results := func(be *enginetest.Reference, o Options) []float64 {
					m, err := New(be, cfg, 5, o)
					require.NoError(t, err)
					randomVectors(t, m)
					roundWeights(t, m)
					m.ZeroGrad()
					_, err = m.Forward(ctx, &b)
					require.NoError(t, err)
					out := append(be.Float64s(head(m.work.logProb, n)), be.Float64s(head(m.work.entropy, n))...)
					require.NoError(t, m.Backward(ctx, dp, de))
					hidden, err := m.Hidden(ctx, [][]int32{{1, 2, 3}, {4, 5}})
					require.NoError(t, err)
					for _, h := range hidden {
						for _, x := range h {
							out = append(out, float64(x))
						}
					}
					return append(be.Float64s(engine.Vector(m.grads, 0, m.layout.total)), out...)
				}
				o := Options{Trainable: true, MaxRows: 64, Recompute: recompute}
				exact := results(enginetest.NewReference(), o)
				o.Weights = engine.BF16
				got := results(enginetest.NewRounding(), o)
				mean, variance := make([]float64, len(exact)), make([]float64, len(exact))
				var noisy [samples][]float64
				for k := range noisy {
					noisy[k] = results(enginetest.NewNoisy(uint64(k)), o)
					for i, v := range noisy[k] {
						mean[i] += v / samples
					}
				}
				for _, r := range noisy { // about their own mean: a mistake that all share is no scatter
					for i, v := range r {
						variance[i] += (v - mean[i]) * (v - mean[i]) / (samples - 1)
					}
				}
				var worst, off, size, scatter float64
				for i, want := range exact {
					sd := math.Sqrt(variance[i])
					diff := math.Abs(got[i] - want)
					off, size, scatter = off+diff*diff, size+want*want, scatter+variance[i]
					// What is stored in float32 is rounded to it.
					tol := sigmas*sd + math.Abs(want)/(1<<22)
					if diff > 0 && sd > 0 {
						worst = max(worst, diff/sd)
					}
					if !(diff <= tol) {
						t.Fatalf("result %d of %d is %.6g, without roundings %.6g: the standard deviation is %.3g", i, len(exact), got[i], want, sd)
					}
				}
				t.Logf("at most %.1f standard deviations off; relative error %.4f", worst, math.Sqrt(off/size))
				require.Less(t, off, 4*scatter, "all results together")
				require.Greater(t, off, scatter/16, "BF16 leaves no trace: was it used?")
			})
		}
	}
}

// In BF16 as in F32, the log-probs and entropies of a rollout are those of the
// training forward, bit for bit.
func TestBF16RolloutEqualsForward(t *testing.T) {
	t.Run("BF16 activations", func(t *testing.T) { rolloutEqualsForwardBF16(t, newRounding(t)) })
	t.Run("F32 activations", func(t *testing.T) { rolloutEqualsForwardBF16(t, newCPU(t)) })
}

func rolloutEqualsForwardBF16(t *testing.T, be engine.Backend) {
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			m := newTiny(t, be, kind, Options{Weights: engine.BF16, MaxRows: 300})
			prompts := testPrompts(m.cfg.VocabSize)[2:7]
			handles := rollout(t, m, SchedulerOptions{MaxBatch: 5, MaxTokens: 60, PrefillRows: 70}, prompts,
				Request{N: 2, MaxNewTokens: 12, Seed: 42, Step: 3, Sampling: Sampling{Temperature: 1}})
			b, logp, entropy := batchOf(handles)
			for _, unshare := range []bool{false, true} {
				b.Unshare = unshare
				gotP, gotE := forward(t, m, &b)
				require.Zero(t, bitDiffs(logp, gotP), "log-probs")
				require.Zero(t, bitDiffs(entropy, gotE), "entropies")
			}
		})
	}
}

// On the CPU a model in BF16 computes what one in F32 with the same weights does:
// log-probs, gradients and the masters after a step are equal bit for bit.
func TestBF16OnTheCPUIsF32WithItsWeights(t *testing.T) {
	be := newCPU(t)
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			var got [2][][]float32
			for i, w := range []engine.DType{engine.F32, engine.BF16} {
				m := newTiny(t, be, kind, Options{Weights: w, Trainable: true, MaxRows: 300})
				roundWeights(t, m)
				b := randomBatch(4, m.cfg.VocabSize, 20, 8, 30, 3, 60)
				logp, entropy := forward(t, m, &b)
				d := gradients(t, m, &b, logp)
				m.AdamWStep(AdamW{LR: 0.01, Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, GradScale: 1})
				masters := make([]float32, m.layout.total)
				require.NoError(t, be.Wait(be.DownloadF32(masters, engine.Vector(m.weights, 0, m.layout.total))))
				got[i] = [][]float32{logp, entropy, d, masters}
			}
			for j := range got[0] {
				require.Zero(t, bitDiffs(got[0][j], got[1][j]), "result %d", j)
			}
		})
	}
}

// bits returns all weights as products see them.
func bits(t testing.TB, m *Model) []float32 {
	out := make([]float32, m.layout.total)
	at := m.matrices()
	if m.working != nil {
		at = engine.Vector(m.working, 0, m.layout.matrices)
	}
	m.be.DownloadF32(out[:m.layout.matrices], at)
	require.NoError(t, m.be.Wait(m.be.DownloadF32(out[m.layout.matrices:], m.vectors())))
	return out
}

// The working copy is the masters rounded, whatever has changed them.
func TestWorkingCopyFollows(t *testing.T) {
	be := newRounding(t)
	o := Options{Weights: engine.BF16, Trainable: true, MaxRows: 100}
	m := newTiny(t, be, "qwen2", o)
	check := func(what string, m *Model) {
		want := bits(t, m)
		for _, p := range m.Params() {
			v, err := m.ReadParam(ctx, Weights, p.Name)
			require.NoError(t, err)
			if p.Rows > 0 {
				for i, x := range v {
					v[i] = half.FromBF16(half.BF16(x))
				}
			}
			require.Zero(t, bitDiffs(v, want[p.off:p.off+p.len()]), "%s: %s", what, p.Name)
		}
	}
	master := func(m *Model) []float32 {
		v, err := m.ReadParam(ctx, Weights, "model.embed_tokens.weight")
		require.NoError(t, err)
		return v
	}
	check("new", m)
	b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
	dp := make([]float32, b.Tokens())
	for i := range dp {
		dp[i] = -1
	}
	before := bits(t, m)
	gradients(t, m, &b, dp)
	m.AdamWStep(AdamW{LR: 0.01})
	check("after a step", m)
	require.NotEqual(t, before, bits(t, m))

	// A step smaller than BF16 resolves moves the masters, and few of the copies.
	was, stayed := master(m), bits(t, m)
	m.AdamWStep(AdamW{LR: 1e-7})
	check("after a small step", m)
	require.NotEqual(t, was, master(m))
	require.Less(t, bitDiffs(stayed[:m.layout.matrices], bits(t, m)[:m.layout.matrices]), m.layout.matrices/20)

	clone, err := m.Clone(ctx, o)
	require.NoError(t, err)
	defer clone.Close()
	check("clone", clone)
	require.Equal(t, master(m), master(clone), "masters are copied unrounded")
	frozen, err := m.Clone(ctx, Options{Weights: engine.BF16, MaxRows: 100})
	require.NoError(t, err)
	defer frozen.Close()
	require.Equal(t, bits(t, m), bits(t, frozen))
	wide, err := m.Clone(ctx, Options{})
	require.NoError(t, err)
	defer wide.Close()
	require.Equal(t, master(m), master(wide))

	gradients(t, m, &b, dp)
	m.AdamWStep(AdamW{LR: 0.01})
	require.NoError(t, frozen.CopyWeights(m))
	require.Equal(t, bits(t, m), bits(t, frozen))
	require.NoError(t, clone.CopyWeights(frozen)) // which has no masters
	check("copied from working copies", clone)
	require.Equal(t, bits(t, m), bits(t, clone))
}

// Files of BF16, F16 and F32 load into models of either type, and what is saved
// holds the masters.
func TestWeightFilesOfAnyType(t *testing.T) {
	be := newRounding(t)
	m := newTiny(t, be, "qwen3", Options{Weights: engine.BF16, Trainable: true, MaxRows: 10})
	for _, c := range []struct {
		dtype  string
		encode func(float32) uint16
		widen  func(uint16) float32
	}{{"F32", nil, nil}, {"BF16", half.BF16, half.FromBF16}, {"F16", half.F16, half.FromF16}} {
		dir := t.TempDir()
		require.NoError(t, m.Save(ctx, dir))
		if c.encode != nil {
			narrowFile(t, filepath.Join(dir, WeightsFile), c.dtype, c.encode)
		}
		for _, o := range []Options{{Weights: engine.BF16}, {}, {Weights: engine.BF16, Trainable: true, MaxRows: 10}} {
			got, err := Load(ctx, be, dir, o)
			require.NoError(t, err)
			for _, p := range got.Params() {
				v, err := got.ReadParam(ctx, Weights, p.Name)
				require.NoError(t, err)
				want, err := m.ReadParam(ctx, Weights, p.Name)
				require.NoError(t, err)
				for i, x := range want {
					if c.encode != nil {
						x = c.widen(c.encode(x))
					}
					if p.Rows > 0 && o.Weights == engine.BF16 && !o.Trainable {
						x = half.FromBF16(half.BF16(x))
					}
					want[i] = x
				}
				require.Zero(t, bitDiffs(want, v), "%s from %s with %+v", p.Name, c.dtype, o)
			}
			require.NoError(t, got.Close())
		}
	}
}

// narrowFile rewrites an F32 safetensors file in a type of sixteen bits.
func narrowFile(t testing.TB, path, dtype string, encode func(float32) uint16) {
	r, err := checkpoint.Open(path)
	require.NoError(t, err)
	var entries []string
	var data []byte
	for _, info := range r.Tensors() {
		v := make([]float32, info.Len())
		require.NoError(t, r.ReadF32(info.Name, info.Shape, v))
		from := len(data)
		for _, x := range v {
			data = binary.LittleEndian.AppendUint16(data, encode(x))
		}
		shape := strings.ReplaceAll(fmt.Sprint(info.Shape), " ", ",")
		entries = append(entries, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, info.Name, dtype, shape, from, len(data)))
	}
	require.NoError(t, r.Close())
	header := "{" + strings.Join(entries, ",") + "}"
	out := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	require.NoError(t, os.WriteFile(path, append(out, data...), 0o644))
}

// 8-bit moments can be read, not written, and belong to a run of their own.
func TestMomentCodes(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "qwen2", Options{Trainable: true, MaxRows: 200, Moments: engine.U8})
	f := newTiny(t, be, "qwen2", Options{Trainable: true, MaxRows: 200})
	b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
	dp := make([]float32, b.Tokens())
	for i := range dp {
		dp[i] = -1
	}
	for _, m := range []*Model{m, f} {
		gradients(t, m, &b, dp)
		m.AdamWStep(AdamW{LR: 0.01})
	}
	// Values of the highest decade are half a part of it off at most, 0.9/64/2 of
	// the largest; lower ones up to half of it in the lowest.
	for _, role := range []Role{Moment1, Moment2} {
		flat := make([]float64, m.layout.total)
		for _, p := range m.Params() {
			want, err := f.ReadParam(ctx, role, p.Name)
			require.NoError(t, err)
			for i, x := range want {
				flat[p.off+i] = float64(x)
			}
		}
		for _, p := range m.Params() {
			got, err := m.ReadParam(ctx, role, p.Name)
			require.NoError(t, err)
			for i, x := range got {
				at := p.off + i
				want, tol := flat[at], 0.0
				if p.Rows > 0 {
					first := at / engine.MomentBlock * engine.MomentBlock
					for _, y := range flat[first:min(first+engine.MomentBlock, m.layout.matrices)] {
						tol = max(tol, math.Abs(y)*0.9/64/2*1.001)
					}
				}
				require.LessOrEqual(t, math.Abs(want-float64(x)), tol, "%s[%d]", p.Name, i)
			}
		}
	}
	v, err := m.ReadParam(ctx, Moment1, "model.embed_tokens.weight")
	require.NoError(t, err)
	require.ErrorContains(t, m.WriteParam(ctx, Moment1, "model.embed_tokens.weight", v), "8-bit codes")
	require.NoError(t, m.WriteParam(ctx, Moment1, "model.norm.weight", make([]float32, m.cfg.HiddenSize)))

	path := filepath.Join(t.TempDir(), OptimizerFile)
	require.NoError(t, m.SaveOptimizer(ctx, path))
	require.ErrorContains(t, f.LoadOptimizer(ctx, path), "8-bit moments, where this run has float32 ones")
	require.NoError(t, f.SaveOptimizer(ctx, path))
	require.ErrorContains(t, m.LoadOptimizer(ctx, path), "float32 moments, where this run has 8-bit ones")
}

// What a device cannot do is refused when the model is made.
func TestPrecisionIsTheDevices(t *testing.T) {
	be := newCPU(t)
	_, err := New(be, tinyConfig("llama"), 1, Options{Weights: engine.U8})
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = New(be, tinyConfig("llama"), 1, Options{Moments: engine.BF16})
	require.ErrorContains(t, err, "must be F32 or U8")
}
