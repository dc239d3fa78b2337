package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// peerVocabulary is a vocabulary for models that have none: llama.cpp does not load
// a file without. Its last token ends a text.
func peerVocabulary(size int) []checkpoint.GGUFValue {
	tokens := []string{"Ċ", "Ġ", "ab"}
	for c := 'a'; len(tokens) < size; c++ {
		tokens = append(tokens, string(c))
	}
	types := make([]int32, size)
	for i := range types {
		types[i] = 1
	}
	return []checkpoint.GGUFValue{
		{Key: "tokenizer.ggml.model", Value: "gpt2"}, {Key: "tokenizer.ggml.pre", Value: "gpt-2"}, {Key: "tokenizer.ggml.tokens", Value: tokens},
		{Key: "tokenizer.ggml.token_type", Value: types}, {Key: "tokenizer.ggml.merges", Value: []string{"a b"}},
		{Key: "tokenizer.ggml.bos_token_id", Value: uint32(size - 1)}, {Key: "tokenizer.ggml.eos_token_id", Value: uint32(size - 1)},
	}
}

// peerModel is a small model whose weights any machine makes to the bit: integers,
// scaled by a power of two. Vectors lie about 1 or, of biases, 0.
func peerModel(t *testing.T, be engine.Backend, kind string) *Model {
	cfg, err := ReadConfig(filepath.Join("testdata", kind+".config.json"))
	require.NoError(t, err)
	if kind == "qwen2" { // llama.cpp takes it for granted that the heads are as wide as the model together
		cfg.NumAttentionHeads, cfg.NumKeyValueHeads = 3, 1
	}
	if kind == "llama" {
		cfg.RopeTheta = 500000
		cfg.RopeScaling = &RopeScaling{RopeType: "llama3", Factor: 32, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	}
	m, err := New(be, cfg, 1, Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	state := uint32(1)
	for _, p := range m.Params() {
		v := make([]float32, p.len())
		for i := range v {
			state = state*1664525 + 1013904223
			v[i] = float32(int32(state)>>8) / (1 << 23) // in [-1, 1)
			switch {
			case p.Rows == 0 && !strings.HasSuffix(p.Name, ".bias"):
				v[i] = 1 + v[i]/4
			case p.Rows > 0:
				v[i] /= 2
			}
		}
		require.NoError(t, m.WriteParam(ctx, Weights, p.Name, v))
	}
	m.RefreshWeights()
	return m
}

// llama.cpp's greedy continuations of GGUF files of Updraft's: the files are the
// same to the byte as those that it was given, and Updraft reads and continues
// them alike. bench/peers/golden.mjs makes the values
// from the files that this test leaves in UPDRAFT_PEER_GGUF.
func TestLlamaCpp(t *testing.T) {
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	var want map[string]struct {
		SHA256  string
		Release string
		Prompts [][]int32
		IDs     [][]int32
	}
	b, err := os.ReadFile(filepath.Join("testdata", "llamacpp.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &want))
	for _, kind := range []string{"llama", "qwen2", "qwen3"} {
		t.Run(kind, func(t *testing.T) {
			m := peerModel(t, be, kind)
			vocab := m.Config().VocabSize
			path := filepath.Join(t.TempDir(), kind+".gguf")
			if dir := os.Getenv("UPDRAFT_PEER_GGUF"); dir != "" {
				path = filepath.Join(dir, kind+".gguf")
			}
			require.NoError(t, m.SaveGGUF(ctx, path, "F32", peerVocabulary(vocab)))
			file, err := os.ReadFile(path)
			require.NoError(t, err)
			sum := sha256.Sum256(file)
			require.Equal(t, want[kind].SHA256, hex.EncodeToString(sum[:]), "the file differs from the one that llama.cpp read: if it should, make the values anew")

			again, err := LoadGGUF(ctx, be, path, Options{})
			require.NoError(t, err)
			defer again.Close()
			require.NotEmpty(t, want[kind].Prompts)
			for i, prompt := range want[kind].Prompts {
				ids := want[kind].IDs[i]
				s, err := NewScheduler(again, SchedulerOptions{MaxBatch: 1, MaxTokens: again.Config().MaxPositionEmbeddings})
				require.NoError(t, err)
				h, err := s.Submit(Request{Prompt: prompt, MaxNewTokens: len(ids), StopTokens: []int32{int32(vocab - 1)}})
				require.NoError(t, err)
				require.NoError(t, s.Run(ctx))
				require.Equal(t, ids, h.Completions()[0].Tokens, "prompt %d", i)
				s.Close()
			}
		})
	}
}
