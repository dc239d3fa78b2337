package model

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
)

// drawConfig draws a decoder: sizes that kernels like and sizes that they do not,
// one to three query heads for each key-value head, one or two vocabulary chunks.
func drawConfig(t *rapid.T) Config {
	kind := rapid.SampledFrom(kinds).Draw(t, "kind")
	kv := rapid.IntRange(1, 3).Draw(t, "kv heads")
	c := Config{
		ModelType:             kind,
		HiddenSize:            rapid.IntRange(1, 70).Draw(t, "hidden size"),
		IntermediateSize:      rapid.IntRange(1, 70).Draw(t, "intermediate size"),
		NumHiddenLayers:       rapid.IntRange(1, 3).Draw(t, "layers"),
		NumAttentionHeads:     kv * rapid.IntRange(1, 3).Draw(t, "queries per kv head"),
		NumKeyValueHeads:      kv,
		HeadDim:               rapid.SampledFrom([]int{2, 8, 10, 32, 64}).Draw(t, "head dim"),
		VocabSize:             rapid.SampledFrom([]int{2, 29, 64, engine.VocabChunk + 5}).Draw(t, "vocabulary"),
		MaxPositionEmbeddings: 160, TieWordEmbeddings: kind != "untied", RMSNormEps: 1e-5, EOSTokenID: TokenIDs{1},
	}
	if kind == "untied" {
		c.ModelType = "llama"
	}
	return c
}

// newOn makes the model of one configuration and seed on a backend of its own.
func newOn(t *rapid.T, threads int, c Config, o Options) (*Model, func()) {
	be, err := cpu.New(cpu.Options{Threads: threads})
	require.NoError(t, err)
	m, err := New(be, c, 7, o)
	require.NoError(t, err)
	randomVectors(t, m)
	return m, func() {
		require.NoError(t, m.Close())
		require.NoError(t, be.Close())
	}
}

// TestContractOfAnyModel draws a model, prompts, a scheduler and numbers of
// threads, and demands the bits that the numerical contract promises: a sample is
// the same alone and in the batch; its log-probs and entropies are those of the
// training forward, of the whole batch and of itself alone, with its prompt
// shared and not; gradients are the same at any number of threads.
func TestContractOfAnyModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawConfig(t)
		threads := rapid.IntRange(1, 8)
		const rows, longest = 600, 140
		o := Options{Trainable: true, MaxRows: rows, Recompute: rapid.Bool().Draw(t, "recompute")}
		m, done := newOn(t, threads.Draw(t, "threads"), c, o)
		defer done()
		other, otherDone := newOn(t, threads.Draw(t, "other threads"), c, o)
		defer otherDone()

		token := rapid.Int32Range(0, int32(c.VocabSize-1))
		prompts := rapid.SliceOfN(rapid.SliceOfN(token, 1, 70), 1, 4).Draw(t, "prompts")
		r := Request{
			N: rapid.IntRange(1, 4).Draw(t, "samples"), MaxNewTokens: rapid.IntRange(1, 40).Draw(t, "new tokens"),
			Seed: rapid.Uint64().Draw(t, "seed"), Sampling: Sampling{Temperature: rapid.SampledFrom([]float32{0, 0.7, 1}).Draw(t, "temperature")},
		}
		so := SchedulerOptions{MaxBatch: rapid.IntRange(1, 9).Draw(t, "batch"), MaxTokens: longest, Pipeline: rapid.Bool().Draw(t, "pipeline")}
		so.Pages = rapid.IntRange(pagesFor(longest), 3*pagesFor(longest)).Draw(t, "pages")

		handles := rollout(t, m, so, prompts, r)
		alone := rollout(t, other, SchedulerOptions{MaxBatch: 1, MaxTokens: longest}, prompts, r)
		for i := range handles {
			require.Equal(t, alone[i].Completions(), handles[i].Completions(), "prompt %d: in the batch and alone", i)
		}
		b, logp, entropy := batchOf(handles)
		same := func(m *Model, b *Batch, from int, what string) {
			p, e := forward(t, m, b)
			require.Zero(t, bitDiffs(logp[from:from+len(p)], p), "log-probs: %s", what)
			require.Zero(t, bitDiffs(entropy[from:from+len(e)], e), "entropies: %s", what)
		}
		for _, unshare := range []bool{false, true} {
			b.Unshare = unshare
			same(m, &b, 0, "training forward")
		}
		token0 := 0
		for _, g := range b.Groups {
			for _, y := range g.Responses {
				same(other, &Batch{Groups: []Group{{Prompt: g.Prompt, Responses: [][]int32{y}}}}, token0, "alone in training")
				token0 += len(y)
			}
		}

		b.Unshare = rapid.Bool().Draw(t, "unshare")
		d := make([]float32, len(logp))
		for i := range d {
			d[i] = float32(i%7) - 3
		}
		for _, m := range []*Model{m, other} {
			parts, err := b.Split(rows)
			require.NoError(t, err)
			for _, p := range parts {
				_, err := m.Forward(ctx, &p.Batch)
				require.NoError(t, err)
				require.NoError(t, m.Backward(ctx, d[p.From:p.To], d[p.From:p.To]))
			}
			m.AdamWStep(AdamW{LR: 1e-3, WeightDecay: 0.1})
		}
		for _, role := range []Role{Gradients, Weights} {
			for _, p := range m.Params() {
				want, err := m.ReadParam(ctx, role, p.Name)
				require.NoError(t, err)
				got, err := other.ReadParam(ctx, role, p.Name)
				require.NoError(t, err)
				require.Zero(t, bitDiffs(want, got), "%v of %s at two numbers of threads", role, p.Name)
			}
		}
	})
}
