package model

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// ggufConfig is a tiny model that llama.cpp would load: of qwen2 it takes it for
// granted that the heads are as wide as the model together.
func ggufConfig(kind string) Config {
	c := tinyConfig(kind)
	if kind == "qwen2" {
		c.HiddenSize = c.NumAttentionHeads * c.HeadDim
	}
	return c
}

func TestGGUFRefusesWhatLlamaCppDoesNotLoad(t *testing.T) {
	c := tinyConfig("qwen2")
	_, err := c.ggufMetadata("F32")
	require.ErrorContains(t, err, "llama.cpp does not load such a qwen2 model")
}

// A model of each family written as a GGUF file in F32 comes back to the bit,
// configuration included.
func TestGGUFRoundTrip(t *testing.T) {
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			cfg := ggufConfig(kind)
			cfg.RopeScaling = nil
			if kind == "llama" {
				cfg.RopeTheta = 500000
				cfg.RopeScaling = &RopeScaling{RopeType: "llama3", Factor: 32, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
			}
			m, err := New(be, cfg, 3, Options{})
			require.NoError(t, err)
			defer m.Close()
			path := filepath.Join(t.TempDir(), "m.gguf")
			require.NoError(t, m.SaveGGUF(t.Context(), path, "F32", []checkpoint.GGUFValue{{Key: "x.extra", Value: "y"}}))
			again, err := LoadGGUF(t.Context(), be, path, Options{})
			require.NoError(t, err)
			defer again.Close()
			for _, p := range m.Params() {
				a, err := m.ReadParam(t.Context(), Weights, p.Name)
				require.NoError(t, err)
				b, err := again.ReadParam(t.Context(), Weights, p.Name)
				require.NoError(t, err)
				require.Equal(t, a, b, p.Name)
			}
			want, got := m.Config(), again.Config()
			require.Equal(t, want.HeadDim, got.HeadDim)
			require.Equal(t, want.TieWordEmbeddings, got.TieWordEmbeddings)
			require.Equal(t, want.VocabSize, got.VocabSize)
			require.InDelta(t, want.RMSNormEps, got.RMSNormEps, 1e-12)
			require.Equal(t, want.RopeTheta, got.RopeTheta)
			if kind == "llama" {
				require.Equal(t, "llama3", got.RopeScaling.kind())
				require.InDelta(t, 32, got.RopeScaling.Factor, 1e-3)
				// llama.cpp rotates neighbours: its file has the rows of a head in pairs.
				g, err := checkpoint.OpenGGUF(path)
				require.NoError(t, err)
				defer g.Close()
				q := make([]float32, m.Params()[1].len())
				require.NoError(t, g.ReadF32("blk.0.attn_q.weight", m.Params()[1].Shape(), q))
				ours, err := m.ReadParam(t.Context(), Weights, m.Params()[1].Name)
				require.NoError(t, err)
				C, half := want.HiddenSize, want.HeadDim/2
				require.Equal(t, ours[:C], q[:C])
				require.Equal(t, ours[half*C:(half+1)*C], q[C:2*C], "row 1 is the second half's first")
			}
		})
	}
}
