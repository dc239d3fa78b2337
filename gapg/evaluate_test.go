package gapg

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model"
)

func TestRecordAsks(t *testing.T) {
	r := Record{Tokens: make([]int32, 9), Gaps: []float32{3, -1, 2, -4}, Places: []int{0, 2, 5, 7}}
	for _, c := range []struct {
		bias float64
		at   int
		asks bool
	}{
		{math.Inf(-1), 9, false}, {-5, 9, false}, {-4, 7, true}, {-2, 7, true}, {-1, 2, true}, {0, 2, true}, {2.9, 2, true}, {3, 0, true}, {math.Inf(1), 0, true},
	} {
		at, asks := r.AsksAt(c.bias)
		require.Equal(t, c.at, at, "bias %g", c.bias)
		require.Equal(t, c.asks, asks, "bias %g", c.bias)
	}
	require.Equal(t, -4.0, r.AskBias())
	nowhere := Record{Tokens: make([]int32, 3)}
	require.True(t, math.IsInf(nowhere.AskBias(), 1))
	at, asks := nowhere.AsksAt(1e30)
	require.Equal(t, 3, at)
	require.False(t, asks)
}

// What an evaluation says of a help bias is what generation with that bias
// does: the same tokens up to the call, the same decision.
func TestShortcutIsGeneration(t *testing.T) {
	const longest = 12
	y := newToy(t, toyOptions{maxRows: 40})
	tok := toyTokenizer()
	id := func(s string) int32 { i, ok := tok.ID(s); require.True(t, ok); return i }
	end := id("<end>")
	for name, marker := range map[string][]int32{"one token": {id(Marker)}, "two tokens": {id("y"), id("x")}} {
		t.Run(name, func(t *testing.T) {
			after := []int32{id("p"), id("x"), id("a"), id("q"), id("w"), id("v")}
			prompts := toyPrompts(16)
			e := &Evaluator{Tokenizer: tok, Task: toyTask{}, EndToken: end, Marker: marker, MarkerAfter: after, MaxNewTokens: longest, MaxBatch: 5}
			records, err := e.Run(bg, y.m, prompts)
			require.NoError(t, err)
			tokens, err := EncodePrompts(tok, prompts, 64, longest)
			require.NoError(t, err)

			// The places are where a marker may begin.
			biases := []float64{-30, 0, 30}
			for i, r := range records {
				require.Equal(t, prompts[i].ID, r.Prompt.ID)
				var places []int
				previous := tokens[i][len(tokens[i])-1]
				for at, id := range r.Tokens {
					if slices.Contains(after, previous) {
						places = append(places, at)
						require.NotEqual(t, marker[0], id, "no call where one may begin")
					}
					previous = id
				}
				require.Equal(t, places, r.Places)
				require.Len(t, r.Gaps, len(places))
				for _, g := range r.Gaps {
					biases = append(biases, float64(g)-0.01, float64(g)+0.01)
				}
			}
			require.Greater(t, len(biases), 20, "the random model has places to ask at")
			asked, own := 0, 0
			s, err := model.NewScheduler(y.m, model.SchedulerOptions{MaxBatch: 16, MaxTokens: 40, Marker: marker, MarkerAfter: after})
			require.NoError(t, err)
			defer s.Close()
			for _, b := range biases {
				handles := make([]*model.Handle, len(records))
				for i := range records {
					handles[i], err = s.Submit(model.Request{Prompt: tokens[i], MaxNewTokens: longest,
						Sampling: model.Sampling{HelpBias: float32(b)}, StopTokens: []int32{end}})
					require.NoError(t, err)
				}
				require.NoError(t, s.Run(bg))
				for i, h := range handles {
					got := h.Completions()[0].Tokens
					at, asks := records[i].AsksAt(b)
					if !asks {
						own++
						require.Equal(t, records[i].Tokens, got, "prompt %d at bias %g", i, b)
						continue
					}
					asked++
					require.Equal(t, records[i].Tokens[:at], got[:at], "prompt %d at bias %g", i, b)
					want := marker[:min(len(marker), longest-at)]
					if b == 0 { // nothing is forced then
						want = want[:1]
					}
					require.Equal(t, want, got[at:at+len(want)], "prompt %d at bias %g", i, b)
				}
			}
			require.Greater(t, asked, 50)
			require.Greater(t, own, 50)
		})
	}
}

// The batch's rows and the width of a decode step change nothing.
func TestEvaluationIsBatchInvariant(t *testing.T) {
	var want []Record
	for i, o := range []struct{ rows, batch int }{{512, 0}, {20, 1}, {40, 7}} {
		y := newToy(t, toyOptions{plain: true, maxRows: o.rows})
		end, _ := toyTokenizer().ID("<end>")
		marker, _ := toyTokenizer().ID(Marker)
		after, _ := toyTokenizer().ID("p")
		e := &Evaluator{Tokenizer: toyTokenizer(), Task: toyTask{}, EndToken: end, Marker: []int32{marker}, MarkerAfter: []int32{after}, MaxNewTokens: 10, MaxBatch: o.batch}
		got, err := e.Run(bg, y.m, toyPrompts(16))
		require.NoError(t, err)
		if i == 0 {
			want = got
		}
		require.Equal(t, want, got)
	}
}
