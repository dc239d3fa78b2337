package gapg

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model/tokenizer"
)

const testAlphabet = "0123456789 +-*/()=abcdefxy"

func testTokenizer(t testing.TB) *tokenizer.Tokenizer {
	tok, err := tokenizer.NewCharacter(testAlphabet, []string{"<think>", "</think>", "<answer>", "</answer>", Marker, "<end>"})
	require.NoError(t, err)
	return tok
}

func record(t testing.TB, tok *tokenizer.Tokenizer, text, answer string, logprobs ...float32) Record {
	ids, err := tok.Encode(text)
	require.NoError(t, err)
	end, _ := tok.ID("<end>")
	ids = append(ids, end)
	if logprobs == nil {
		logprobs = make([]float32, len(ids))
	}
	require.Len(t, logprobs, len(ids))
	return Record{Tokens: ids, Text: text, Logprobs: logprobs, Entropies: make([]float32, len(ids)), Verdict: Verdict{Answer: answer}}
}

func TestConfidenceByHand(t *testing.T) {
	tok := testTokenizer(t)
	// Tokens: a <answer> 1 + 2 </answer> <end>
	r := record(t, tok, "a<answer>1+2</answer>", "1+2", -1, -0.5, -0.25, -2, -0.75, 0, -0.5)
	copy(r.Entropies, []float32{0.5, 1, 0, 0, 0, 0, 2})
	want := map[string]float64{
		"mean log-prob": 5. / 7, "sum of log-probs": 5, "least log-prob": 2,
		"mean log-prob of the answer": 1, "mean entropy": 0.5,
	}
	empty := Record{}
	for _, s := range ConfidenceScores(tok) {
		require.InDelta(t, want[s.Name], s.Score(&r), 1e-9, s.Name)
		require.Equal(t, math.Inf(1), s.Score(&empty), "%s of nothing", s.Name)
	}
	require.Len(t, ConfidenceScores(tok), len(want))
}

func TestAnswerTokens(t *testing.T) {
	tok := testTokenizer(t)
	for _, c := range []struct {
		name, text, answer string
		from, to           int
	}{
		{"the last of two", "a1+2b1+2c", "1+2", 5, 8},
		{"extracted, not verbatim: what stands in the tags", "a<answer>1 +2</answer>", "1+2", 2, 6},
		{"no answer: the tags", "<answer>12</answer>", "", 1, 3},
		{"open tag", "x<answer>12", "", 2, 4},
		{"neither: all, the end token too", "abc", "", 0, 4},
		{"empty tags: all", "a<answer></answer>", "", 0, 4},
	} {
		r := record(t, tok, c.text, c.answer)
		from, to := answerTokens(tok, &r)
		require.Equal(t, []int{c.from, c.to}, []int{from, to}, c.name)
	}
}

func TestBestRanking(t *testing.T) {
	base := handMade()
	worse := Rescored(base, func(i int) float64 { return -base[i].Score })
	require.Equal(t, 1, bestRanking([][]Outcome{worse, base}, budget(t, "1/4")))
	require.Equal(t, 0, bestRanking([][]Outcome{base, worse}, budget(t, "1/4")))
	// Equal at the budget of two calls, better beyond it: the area decides.
	late := Rescored(base, func(i int) float64 { return []float64{8, 7, 1, 6, 5, 4, 3, 2}[i] })
	require.Equal(t, 1, bestRanking([][]Outcome{base, late}, budget(t, "1/4")))
	require.Equal(t, 0, bestRanking([][]Outcome{base, base}, budget(t, "1/4")), "the first among equals")
}
