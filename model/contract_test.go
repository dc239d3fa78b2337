package model

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

// promptLengths lie around the boundaries of pages and attention splits.
var promptLengths = []int{1, 2, 5, 31, 32, 33, 34, 64, 65, 70}

// rollout samples n completions for each of the prompts.
func rollout(t require.TestingT, m *Model, o SchedulerOptions, prompts [][]int32, r Request) []*Handle {
	s, err := NewScheduler(m, o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	var handles []*Handle
	for i, p := range prompts {
		q := r
		q.Prompt, q.PromptIndex = p, i
		h, err := s.Submit(q)
		require.NoError(t, err)
		handles = append(handles, h)
	}
	require.NoError(t, s.Run(ctx))
	st := s.Stats()
	require.Zero(t, st.PagesUsed, "pages leak")
	require.Zero(t, st.Running+st.Waiting)
	return handles
}

// batchOf makes the training batch of a rollout and the flat log-probs and
// entropies that the rollout recorded.
func batchOf(handles []*Handle) (b Batch, logp, entropy []float32) {
	for _, h := range handles {
		g := Group{Prompt: h.req.Prompt}
		for _, c := range h.Completions() {
			g.Responses = append(g.Responses, c.Tokens)
			logp = append(logp, c.LogProbs...)
			entropy = append(entropy, c.Entropies...)
		}
		b.Groups = append(b.Groups, g)
	}
	return b, logp, entropy
}

// bitDiffs counts the elements that differ in bits, or all if the lengths do.
func bitDiffs(a, b []float32) int {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	n := 0
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			n++
		}
	}
	return n
}

// forward runs b, in parts of the model's rows.
func forward(t require.TestingT, m *Model, b *Batch) (logp, entropy []float32) {
	parts, err := b.Split(m.Options().MaxRows)
	require.NoError(t, err)
	for i := range parts {
		out, err := m.Forward(ctx, &parts[i].Batch)
		require.NoError(t, err)
		require.Len(t, out.LogProbs, parts[i].To-parts[i].From)
		logp, entropy = append(logp, out.LogProbs...), append(entropy, out.Entropies...)
	}
	return logp, entropy
}

func testPrompts(vocab int) [][]int32 {
	var p [][]int32
	for _, g := range randomBatch(1, vocab, 0, 1, promptLengths...).Groups {
		p = append(p, g.Prompt)
	}
	return p
}

// The log-probs and entropies of a rollout are those of the training forward,
// bit for bit, and a defect of one unit in the last place of one weight shows.
func TestRolloutEqualsForward(t *testing.T) {
	be := newCPU(t)
	for _, kind := range kinds {
		m := newTiny(t, be, kind, Options{MaxRows: 700})
		handles := rollout(t, m, SchedulerOptions{MaxBatch: 13, MaxTokens: 120, PrefillRows: 130}, testPrompts(m.cfg.VocabSize),
			Request{N: 3, MaxNewTokens: 45, Seed: 42, Step: 3, Sampling: Sampling{Temperature: 1}})
		b, logp, entropy := batchOf(handles)
		require.Greater(t, len(logp), 300)
		for _, unshare := range []bool{false, true} {
			for _, rows := range []int{700, 150} {
				t.Run(fmt.Sprintf("%s/unshare=%v/rows=%d", kind, unshare, rows), func(t *testing.T) {
					b := b
					b.Unshare = unshare
					m.opts.MaxRows = rows
					defer func() { m.opts.MaxRows = 700 }()
					gotP, gotE := forward(t, m, &b)
					require.Zero(t, bitDiffs(logp, gotP), "log-probs")
					require.Zero(t, bitDiffs(entropy, gotE), "entropies")
				})
			}
		}
		t.Run(kind+"/defect", func(t *testing.T) {
			// A weight of the last norm scales a channel of every row: one of the
			// layers' small weights may round away in a model this tiny.
			name := "model.norm.weight"
			v, err := m.ReadParam(ctx, Weights, name)
			require.NoError(t, err)
			v[7] = math.Float32frombits(math.Float32bits(v[7]) + 1)
			require.NoError(t, m.WriteParam(ctx, Weights, name, v))
			m.RefreshWeights()
			got, _ := forward(t, m, &b)
			require.Positive(t, bitDiffs(logp, got), "a defect of one ulp must not pass")
		})
	}
}

// A sample depends on its key and its tokens alone: not on the size of the
// batch, its neighbours, the order of submission, the cache's size or the way
// steps are submitted.
func TestBatchInvariance(t *testing.T) {
	be := newCPU(t)
	for _, kind := range []string{"llama", "qwen3"} {
		m := newTiny(t, be, kind, Options{})
		prompts := testPrompts(m.cfg.VocabSize)
		r := Request{N: 4, MaxNewTokens: 40, Seed: 1 << 40, Sampling: Sampling{Temperature: 0.9, TopP: 0.95, TopK: 20}}
		want := rollout(t, m, SchedulerOptions{MaxBatch: 1, MaxTokens: 120}, prompts, r)
		check := func(name string, o SchedulerOptions) {
			t.Run(kind+"/"+name, func(t *testing.T) {
				got := rollout(t, m, o, prompts, r)
				for i := range want {
					require.Equal(t, want[i].Completions(), got[i].Completions())
				}
			})
		}
		check("64", SchedulerOptions{MaxBatch: 64, MaxTokens: 120})
		check("7", SchedulerOptions{MaxBatch: 7, MaxTokens: 120})
		check("pipeline", SchedulerOptions{MaxBatch: 16, MaxTokens: 120, Pipeline: true})
		check("few pages", SchedulerOptions{MaxBatch: 16, MaxTokens: 120, Pages: 9})
		check("few pages, pipeline", SchedulerOptions{MaxBatch: 16, MaxTokens: 120, Pages: 6, Pipeline: true})
	}
}
