package model

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/enginetest"
)

var ctx = context.Background()

// newCPU returns a CPU backend that ends with the test. Its memory is hidden
// and its work deferred, so that nothing here relies on either, and buffers
// that are never freed fail the test.
func newCPU(t testing.TB) engine.Backend {
	c, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	be := enginetest.NewDeferred(c)
	t.Cleanup(func() { require.NoError(t, be.Close()) })
	return be
}

// newRounding returns a backend with BF16 arithmetic, hidden and checked in the
// same way.
func newRounding(t testing.TB) engine.Backend {
	be := enginetest.NewDeferred(enginetest.NewRounding())
	t.Cleanup(func() { require.NoError(t, be.Close()) })
	return be
}

// tinyConfig is a decoder with grouped queries whose sizes are no multiples of
// anything that kernels like. kind is a model type, or "untied" for llama with
// a head of its own.
func tinyConfig(kind string) Config {
	c := Config{
		ModelType: kind, HiddenSize: 36, IntermediateSize: 52, NumHiddenLayers: 2, NumAttentionHeads: 4, NumKeyValueHeads: 2,
		HeadDim: 10, VocabSize: 29, MaxPositionEmbeddings: 160, TieWordEmbeddings: true, RMSNormEps: 1e-5, EOSTokenID: TokenIDs{1},
	}
	if kind == "untied" {
		c.ModelType, c.TieWordEmbeddings = "llama", false
	}
	c.setDefaults()
	c.InitializerRange = 0.3 // so that the distributions are far from uniform
	return c
}

var kinds = []string{"llama", "qwen2", "qwen3", "untied"}

func newTiny(t testing.TB, be engine.Backend, kind string, o Options) *Model {
	m, err := New(be, tinyConfig(kind), 7, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	randomVectors(t, m)
	return m
}

// randomVectors moves norms and biases off their initial ones and zeros.
func randomVectors(t require.TestingT, m *Model) {
	rng := rand.New(rand.NewPCG(3, 5))
	for _, p := range m.Params() {
		if p.Rows > 0 {
			continue
		}
		v, err := m.ReadParam(ctx, Weights, p.Name)
		require.NoError(t, err)
		for i := range v {
			v[i] += 0.3 * (rng.Float32() - 0.5)
		}
		require.NoError(t, m.WriteParam(ctx, Weights, p.Name, v))
	}
	m.RefreshWeights()
}

func randomTokens(rng *rand.Rand, n, vocab int) []int32 {
	t := make([]int32, n)
	for i := range t {
		t[i] = int32(rng.IntN(vocab))
	}
	return t
}

// randomBatch has one group for each prompt length, with n responses of
// random lengths.
func randomBatch(seed uint64, vocab, n, longest int, prompts ...int) Batch {
	rng := rand.New(rand.NewPCG(seed, 11))
	var b Batch
	for _, p := range prompts {
		g := Group{Prompt: randomTokens(rng, p, vocab)}
		for range n {
			g.Responses = append(g.Responses, randomTokens(rng, 1+rng.IntN(longest), vocab))
		}
		b.Groups = append(b.Groups, g)
	}
	return b
}
