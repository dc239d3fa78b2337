package model

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model/checkpoint"
)

// Adapters that peft has made give its log-probs and its gradients to 1e-5
// relative to a tensor's largest value, and what is saved of them is the file that
// peft wrote.
func TestPEFT(t *testing.T) {
	const tolerance = 1e-5
	be := newCPU(t)
	for kind, targets := range map[string]int{"llama": 7, "qwen2": 2, "qwen3": 3} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join("testdata", "peft", kind)
			l, err := readAdapterConfig(dir)
			require.NoError(t, err)
			require.Len(t, l.TargetModules, targets)
			g := openGolden(t, kind)
			m := g.model(t, be, kind, Options{Trainable: true, MaxRows: 400, LoRA: &l})
			require.NoError(t, m.LoadAdapter(ctx, dir))
			values, err := checkpoint.Open(filepath.Join(dir, "values.safetensors"))
			require.NoError(t, err)
			defer values.Close()
			check := func(name string, shape []int, got []float32) {
				want := make([]float32, len(got))
				require.NoError(t, values.ReadF32(name, shape, want))
				require.LessOrEqual(t, relative(got, want), tolerance, name)
			}
			m.ZeroGrad()
			out, err := m.Forward(ctx, &g.batch)
			require.NoError(t, err)
			check("log_probs", []int{len(out.LogProbs)}, out.LogProbs)
			require.NoError(t, m.Backward(ctx, g.read(t, "d_log_probs"), g.read(t, "d_entropies")))
			require.Len(t, values.Tensors(), 1+len(m.Trained()))
			for _, p := range m.Trained() {
				v, err := m.ReadParam(ctx, Gradients, p.Name)
				require.NoError(t, err)
				check("grad."+p.Name, p.Shape(), v)
			}

			again := t.TempDir()
			require.NoError(t, m.SaveAdapter(ctx, again))
			open := func(dir string) *checkpoint.Reader {
				r, err := checkpoint.Open(filepath.Join(dir, AdapterWeightsFile))
				require.NoError(t, err)
				t.Cleanup(func() { r.Close() })
				return r
			}
			ours, theirs := open(again), open(dir)
			require.Len(t, ours.Tensors(), len(theirs.Tensors()))
			for _, info := range theirs.Tensors() {
				a, b := make([]float32, info.Len()), make([]float32, info.Len())
				require.Equal(t, "F32", info.DType)
				require.NoError(t, theirs.ReadF32(info.Name, info.Shape, a))
				require.NoError(t, ours.ReadF32(info.Name, info.Shape, b))
				require.Zero(t, bitDiffs(a, b), info.Name)
			}
			saved, err := readAdapterConfig(again)
			require.NoError(t, err)
			require.Equal(t, l, saved)
		})
	}
}
