package gapg

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Right responses are learnt whole; of the others the marker alone, behind
// reasoning that ends where asking may begin and before the answer.
func TestRolloutDemonstrations(t *testing.T) {
	y := newToy(t, toyOptions{})
	defer y.close()
	tok := toyTokenizer()
	marker, err := tok.Encode(Marker)
	require.NoError(t, err)
	end, _ := tok.ID("<end>")
	var after []int32
	for _, c := range "abpqrstuvwxy" {
		id, ok := tok.ID(string(c))
		require.True(t, ok)
		after = append(after, id)
	}
	s := RolloutSource{Tokenizer: tok, Task: toyTask{}, EndToken: end, Marker: marker, MarkerAfter: after, Samples: 8, Keep: 2, HelpShare: 1, MaxNewTokens: 6, Temperature: 1, MaxBatch: 16, Seed: 3}
	prompts := toyPrompts(40)
	demos, counts, err := s.Make(bg, y.m, prompts)
	require.NoError(t, err)
	require.Equal(t, 40, counts.Prompts)
	require.Equal(t, 320, counts.Responses)
	require.Equal(t, counts.Verified+counts.Asking, len(demos))
	require.Positive(t, counts.Verified)
	require.GreaterOrEqual(t, counts.Asking, 20, "half of the prompts have no right response")
	gold := map[string]bool{}
	for _, p := range prompts {
		gold[p.ID] = p.Gold.(bool)
	}
	per := map[string]int{}
	for _, d := range demos {
		per[d.ID]++
		require.Equal(t, end, d.Tokens[len(d.Tokens)-1], "the end is learnt")
		ex := d.Example()
		require.Len(t, ex.Weights, len(d.Tokens))
		if !d.Asks {
			require.True(t, gold[d.ID])
			require.True(t, strings.HasPrefix(d.Text, "x"))
			require.Zero(t, d.TrainFrom)
			require.NotContains(t, ex.Weights, float32(0))
			continue
		}
		require.True(t, strings.HasSuffix(d.Text, Marker))
		require.Equal(t, marker, d.Tokens[d.TrainFrom:len(d.Tokens)-1])
		require.Equal(t, d.TrainFrom, slices.Index(ex.Weights, 1))
		if d.TrainFrom > 0 {
			require.Contains(t, after, d.Tokens[d.TrainFrom-1])
		}
	}
	for id, n := range per {
		require.LessOrEqual(t, n, 2, id)
	}
	again, _, err := s.Make(bg, y.m, prompts)
	require.NoError(t, err)
	require.Equal(t, demos, again, "the same seed, the same demonstrations")

	s.HelpShare = 0.5
	_, half, err := s.Make(bg, y.m, prompts)
	require.NoError(t, err)
	require.Equal(t, counts.Verified, half.Verified)
	require.True(t, half.Asking > 0 && half.Asking < counts.Asking)

	for _, bad := range []func(*RolloutSource){
		func(s *RolloutSource) { s.Samples = 0 }, func(s *RolloutSource) { s.Temperature = 0 }, func(s *RolloutSource) { s.HelpShare = 2 }, func(s *RolloutSource) { s.Marker = nil },
	} {
		c := s
		bad(&c)
		_, _, err := c.Make(bg, y.m, prompts)
		require.Error(t, err)
	}
}

// A response asks before the answer that it gives.
func TestPlacesToAsk(t *testing.T) {
	tok := toyTokenizer()
	p, _ := tok.ID("p")
	end, _ := tok.ID("<end>")
	s := RolloutSource{Tokenizer: tok, EndToken: end, MarkerAfter: []int32{p}}
	places := func(text, answer string) []int {
		ids, err := tok.Encode(text)
		require.NoError(t, err)
		return s.places(Rollout{Tokens: append(ids, end), Text: text, Verdict: Verdict{Answer: answer}})
	}
	require.Equal(t, []int{2, 4}, places("apapbpap", "bpap"))
	require.Equal(t, []int{2, 4, 6, 8}, places("apapbpap", ""))
	require.Equal(t, []int{0}, places("aaaa", "a"))
	require.Equal(t, []int{0}, places("bpap", "bpap"))
}
