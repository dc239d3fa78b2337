package model

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
)

// demoConfig has the demo model's size, about 0.6M parameters.
func demoConfig() Config {
	return Config{
		ModelType: "llama", HiddenSize: 128, IntermediateSize: 384, NumHiddenLayers: 3, NumAttentionHeads: 4, NumKeyValueHeads: 4,
		VocabSize: 40, MaxPositionEmbeddings: 256, TieWordEmbeddings: true,
	}
}

func benchModel(b *testing.B, o Options) *Model {
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(b, err)
	b.Cleanup(func() { be.Close() })
	m, err := New(be, demoConfig(), 1, o)
	require.NoError(b, err)
	b.Cleanup(func() { m.Close() })
	return m
}

// BenchmarkRollout generates 32 prompts × 8 samples of 48 tokens on one thread.
func BenchmarkRollout(b *testing.B) {
	m := benchModel(b, Options{})
	s, err := NewScheduler(m, SchedulerOptions{MaxBatch: 64, MaxTokens: 128})
	require.NoError(b, err)
	defer s.Close()
	batch := randomBatch(1, 40, 0, 1, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18,
		18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18)
	b.ReportAllocs()
	for b.Loop() {
		for i, g := range batch.Groups {
			_, err := s.Submit(Request{Prompt: g.Prompt, N: 8, MaxNewTokens: 48, PromptIndex: i, Sampling: Sampling{Temperature: 1}})
			require.NoError(b, err)
		}
		require.NoError(b, s.Run(ctx))
	}
	b.ReportMetric(float64(s.Stats().Tokens)/b.Elapsed().Seconds(), "tokens/s")
}

// BenchmarkTrain runs forward and backward on 32 groups of 8 responses of 1 to
// 48 tokens, and the update, on one thread.
func BenchmarkTrain(b *testing.B) {
	m := benchModel(b, Options{Trainable: true, MaxRows: 2048})
	batch := randomBatch(1, 40, 8, 48, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18,
		18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18, 18)
	dp := make([]float32, batch.Tokens())
	for i := range dp {
		dp[i] = 1e-3
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		parts, err := batch.Split(m.opts.MaxRows)
		require.NoError(b, err)
		m.ZeroGrad()
		for _, p := range parts {
			_, err := m.Forward(ctx, &p.Batch)
			require.NoError(b, err)
			require.NoError(b, m.Backward(ctx, dp[p.From:p.To], nil))
		}
		m.AdamWStep(AdamW{LR: 1e-4})
		n++
	}
	require.NoError(b, m.be.Sync())
	b.ReportMetric(float64(n*batch.Rows())/b.Elapsed().Seconds(), "rows/s")
}
