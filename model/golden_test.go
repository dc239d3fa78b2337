package model

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// golden is one model's values from testdata, made by make_golden.py.
type golden struct {
	r      *checkpoint.Reader
	shapes map[string][]int
	batch  Batch
}

func openGolden(t testing.TB, kind string) *golden {
	r, err := checkpoint.Open(filepath.Join("testdata", kind+".safetensors"))
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	g := &golden{r: r, shapes: map[string][]int{}}
	for _, i := range r.Tensors() {
		g.shapes[i.Name] = i.Shape
	}
	var note struct {
		Groups []struct {
			Prompt    []int32
			Responses [][]int32
		}
	}
	b, err := os.ReadFile(filepath.Join("testdata", "golden.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &note))
	for _, n := range note.Groups {
		g.batch.Groups = append(g.batch.Groups, Group{Prompt: n.Prompt, Responses: n.Responses})
	}
	return g
}

func (g *golden) read(t testing.TB, name string) []float32 {
	n := 1
	for _, d := range g.shapes[name] {
		n *= d
	}
	v := make([]float32, n)
	require.NoError(t, g.r.ReadF32(name, g.shapes[name], v))
	return v
}

// model returns the golden model on be.
func (g *golden) model(t testing.TB, be engine.Backend, kind string, o Options) *Model {
	cfg, err := ReadConfig(filepath.Join("testdata", kind+".config.json"))
	require.NoError(t, err)
	m, err := New(be, cfg, 1, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	for _, p := range m.Params() {
		require.Equal(t, p.Shape(), g.shapes["weight."+p.Name])
		require.NoError(t, m.WriteParam(ctx, Weights, p.Name, g.read(t, "weight."+p.Name)))
	}
	m.RefreshWeights()
	return m
}

// relative returns the largest difference over the largest magnitude of want;
// NaN where anything is not finite.
func relative(got, want []float32) float64 {
	var diff, scale float64
	for i := range want {
		d := math.Abs(float64(got[i]) - float64(want[i]))
		if !(d <= diff) {
			diff = d
		}
		scale = max(scale, math.Abs(float64(want[i])))
	}
	return diff / scale
}

// Forward and backward agree with PyTorch to 1e-5 relative to a tensor's
// largest value, for every architecture, with prompts shared and not, whole and
// in micro-batches.
func TestGolden(t *testing.T) {
	const tolerance = 1e-5
	be := newCPU(t)
	for _, kind := range []string{"llama", "qwen2", "qwen3"} {
		g := openGolden(t, kind)
		for _, v := range []struct {
			unshare, recompute bool
			rows               int
		}{{false, false, 400}, {true, false, 600}, {false, true, 400}, {false, false, 90}} {
			t.Run(fmt.Sprintf("%s/unshare=%v/recompute=%v/rows=%d", kind, v.unshare, v.recompute, v.rows), func(t *testing.T) {
				m := g.model(t, be, kind, Options{Trainable: true, Recompute: v.recompute, MaxRows: v.rows})
				b := g.batch
				b.Unshare = v.unshare
				parts, err := b.Split(v.rows)
				require.NoError(t, err)
				dp, de := g.read(t, "d_log_probs"), g.read(t, "d_entropies")
				var logp, entropy []float32
				m.ZeroGrad()
				for _, p := range parts {
					out, err := m.Forward(ctx, &p.Batch)
					require.NoError(t, err)
					logp, entropy = append(logp, out.LogProbs...), append(entropy, out.Entropies...)
					require.NoError(t, m.Backward(ctx, dp[p.From:p.To], de[p.From:p.To]))
				}
				worst, where := 0.0, ""
				check := func(name string, got, want []float32) {
					require.Len(t, got, len(want))
					r := relative(got, want)
					if !(r <= tolerance) {
						t.Errorf("%s: relative error %.3g", name, r)
					}
					if r > worst {
						worst, where = r, name
					}
				}
				check("log_probs", logp, g.read(t, "log_probs"))
				check("entropies", entropy, g.read(t, "entropies"))
				for _, p := range m.Params() {
					got, err := m.ReadParam(ctx, Gradients, p.Name)
					require.NoError(t, err)
					check(p.Name, got, g.read(t, "grad."+p.Name))
				}
				t.Logf("worst relative error %.2g (%s), %d parts", worst, where, len(parts))
			})
		}
	}
}
