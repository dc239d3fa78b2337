package gapg

import (
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/updraft-ml/updraft/model"
)

func TestDrawPrompt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		epoch := rapid.IntRange(0, 1000).Draw(t, "epoch")
		seen := make([]bool, n)
		same := 0
		for i := range n {
			at := drawPrompt(seed, epoch*n+i, n)
			if at < 0 || at >= n || seen[at] {
				t.Fatalf("place %d of epoch %d gives %d", i, epoch, at)
			}
			seen[at] = true
			if at == drawPrompt(seed, epoch*n+i, n) {
				same++
			}
		}
		if same != n {
			t.Fatal("not a pure function")
		}
	})
	require.Zero(t, drawPrompt(3, 17, 1))
	// Epochs and seeds differ, and no place keeps a prompt: over 400 epochs of
	// 10 each prompt stands 40 times at each place, with a deviation of 6.
	const n, epochs = 10, 400
	var counts [n][n]int
	orders := map[[n]int]bool{}
	for e := range epochs {
		var order [n]int
		for i := range n {
			order[i] = drawPrompt(1, e*n+i, n)
			counts[i][order[i]]++
		}
		orders[order] = true
	}
	require.Greater(t, len(orders), epochs*9/10)
	for i := range n {
		for j := range n {
			require.InDelta(t, epochs/n, counts[i][j], 6*6, "prompt %d at %d", j, i)
		}
	}
}

func TestLearningRate(t *testing.T) {
	for _, c := range []struct {
		name        string
		warmup, max int
		want        map[int]float64
	}{
		{"constant", 0, 10, map[int]float64{1: 1, 5: 1, 10: 1}},
		{"constant", 4, 10, map[int]float64{1: 0.2, 2: 0.4, 4: 0.8, 5: 1, 10: 1}},
		{"linear", 0, 10, map[int]float64{1: 1, 2: 0.9, 6: 0.5, 10: 0.1, 11: 0, 50: 0}},
		{"linear", 2, 12, map[int]float64{1: 1. / 3, 2: 2. / 3, 3: 1, 8: 0.5, 12: 0.1}},
		{"cosine", 0, 10, map[int]float64{1: 1, 6: 0.5, 11: 0, 4: 0.5 * (1 + math.Cos(0.3*math.Pi))}},
		{"cosine", 3, 1, map[int]float64{1: 0.25, 4: 1, 5: 0}},
	} {
		cfg := Config{LearningRate: 1, LRScheduler: c.name, WarmupSteps: c.warmup, MaxSteps: c.max}
		for step, want := range c.want {
			require.InDelta(t, want, cfg.learningRate(step), 1e-12, "%s, warm-up %d, step %d", c.name, c.warmup, step)
		}
	}
}

// However the batch is cut, each rollout gets its own tokens.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var rollouts []*Rollout
		var flat []float32
		for range rapid.IntRange(1, 6).Draw(t, "rollouts") {
			r := &Rollout{Tokens: make([]int32, rapid.IntRange(0, 5).Draw(t, "tokens"))}
			for i := range r.Tokens {
				r.Tokens[i] = int32(len(flat))
				flat = append(flat, float32(len(flat)))
			}
			rollouts = append(rollouts, r)
		}
		got := map[*Rollout][]float32{}
		for from := 0; from < len(flat); {
			to := rapid.IntRange(from+1, len(flat)).Draw(t, "to")
			spread(flat[from:to], rollouts, from, func(r *Rollout, at int, v []float32) {
				if at != len(got[r]) {
					t.Fatalf("run at %d after %d tokens", at, len(got[r]))
				}
				got[r] = append(got[r], v...)
			})
			from = to
		}
		for _, r := range rollouts {
			if len(got[r]) != len(r.Tokens) {
				t.Fatalf("%d of %d tokens", len(got[r]), len(r.Tokens))
			}
			for i, v := range got[r] {
				if int32(v) != r.Tokens[i] {
					t.Fatal("another's token")
				}
			}
		}
	})
}

// Two trainers at once in one process do what each does alone, and their
// workers end with them.
func TestTwoTrainers(t *testing.T) {
	before := runtime.NumGoroutine()
	train := func(seed uint64, wait *sync.WaitGroup) (map[string][]float32, []map[string]float64) {
		y := newToy(t, toyOptions{plain: true, threads: 2, seed: seed, config: func(c *Config) {
			c.Seed, c.Algorithm, c.PromptsPerStep = 7+seed, NewDAGRPO(), 8
		}})
		defer y.close()
		if wait != nil {
			wait.Done()
			wait.Wait()
		}
		var ms []map[string]float64
		for range 8 {
			st, err := y.tr.Step(bg)
			if err != nil {
				t.Error(err)
				return nil, nil
			}
			ms = append(ms, st.Metrics())
		}
		return y.params(t, model.Weights), ms
	}
	var alone, together [2]map[string][]float32
	var aloneM, togetherM [2][]map[string]float64
	for i := range 2 {
		alone[i], aloneM[i] = train(uint64(i), nil)
	}
	var ready, done sync.WaitGroup
	ready.Add(2)
	for i := range 2 {
		done.Go(func() { together[i], togetherM[i] = train(uint64(i), &ready) })
	}
	done.Wait()
	for i := range 2 {
		require.True(t, sameBits(alone[i], together[i]))
		require.Equal(t, aloneM[i], togetherM[i])
	}
	require.False(t, sameBits(alone[0], alone[1]))
	for wait := 0; runtime.NumGoroutine() > before; wait++ {
		require.Less(t, wait, 5000, "workers outlive Close")
		time.Sleep(time.Millisecond)
	}
}
