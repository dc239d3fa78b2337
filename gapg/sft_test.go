package gapg

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/model"
)

// demonstrations answer x and the end to the one half of prompts, y and the end
// to the other.
type demonstrations struct {
	bad func(i int, ex *Example) error
}

func (d demonstrations) Example(i int) (Example, error) {
	tok := toyTokenizer()
	p := toyPrompts(16)[i%16]
	prompt, err := EncodePrompt(tok, p.Text)
	if err != nil {
		return Example{}, err
	}
	answer, _ := tok.ID(map[bool]string{true: "x", false: "y"}[p.Gold.(bool)])
	junk, _ := tok.ID("q")
	end, _ := tok.ID("<end>")
	// The token in the middle is never trained on.
	ex := Example{Prompt: prompt, Response: []int32{answer, junk, end}, Weights: []float32{1, 0, 2}}
	if d.bad != nil {
		err = d.bad(i, &ex)
	}
	return ex, err
}

func TestSFT(t *testing.T) {
	var want map[string][]float32
	var losses []float64
	for _, rows := range []int{512, 9} {
		y := newToy(t, toyOptions{maxRows: rows})
		s, err := NewSFT(SFTConfig{MaxSteps: 60, BatchSize: 16, WarmupSteps: 3, LearningRate: 2e-2}, y.m, demonstrations{}, nil)
		require.NoError(t, err)

		// The first loss is the weighted mean of −log p over trained tokens.
		var batch model.Batch
		for i := range 16 {
			ex, _ := demonstrations{}.Example(i)
			batch.Groups = append(batch.Groups, model.Group{Prompt: ex.Prompt, Responses: [][]int32{ex.Response}})
		}
		loss := 0.0
		parts, err := batch.Split(rows)
		require.NoError(t, err)
		for _, p := range parts {
			out, err := y.m.Forward(bg, &p.Batch)
			require.NoError(t, err)
			for i, lp := range out.LogProbs {
				loss -= float64(lp) * []float64{1, 0, 2}[(p.From+i)%3] / 48
			}
		}
		losses = losses[:0]
		for i := range 60 {
			st, err := s.Step(bg)
			require.NoError(t, err)
			require.Equal(t, i+1, st.Step)
			require.Equal(t, 32, st.Tokens)
			require.True(t, finite(st.Loss) && st.GradNorm > 0)
			losses = append(losses, st.Loss)
		}
		require.InDelta(t, loss, losses[0], 1e-6)
		require.Less(t, losses[59], losses[0]/10)
		if want == nil {
			want = y.params(t, model.Weights)
		}
	}

	// Taken up from a checkpoint it goes on to the bit.
	y := newToy(t, toyOptions{plain: true})
	cfg := SFTConfig{MaxSteps: 60, BatchSize: 16, WarmupSteps: 3, LearningRate: 2e-2}
	s, err := NewSFT(cfg, y.m, demonstrations{}, nil)
	require.NoError(t, err)
	for range 7 {
		_, err := s.Step(bg)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	require.NoError(t, y.m.Save(bg, dir))
	require.NoError(t, y.m.SaveOptimizer(bg, dir+"/optimizer.safetensors"))
	z := newToy(t, toyOptions{plain: true, seed: 3})
	require.NoError(t, z.m.LoadWeights(bg, dir))
	require.NoError(t, z.m.LoadOptimizer(bg, dir+"/optimizer.safetensors"))
	s, err = NewSFT(cfg, z.m, demonstrations{}, nil)
	require.NoError(t, err)
	s.SetSteps(7)
	for range 53 {
		_, err := s.Step(bg)
		require.NoError(t, err)
	}
	require.Equal(t, 60, s.Steps())
	require.True(t, sameBits(want, z.params(t, model.Weights)))
}

func TestSFTErrors(t *testing.T) {
	y := newToy(t, toyOptions{plain: true})
	_, err := NewSFT(SFTConfig{BatchSize: -1}, y.m, demonstrations{}, nil)
	require.ErrorContains(t, err, "batch size -1")
	_, err = NewSFT(SFTConfig{LearningRate: math.NaN()}, y.m, demonstrations{}, nil)
	require.ErrorContains(t, err, "learning-rate NaN")
	for want, bad := range map[string]func(i int, ex *Example) error{
		"differ in length":         func(_ int, ex *Example) error { ex.Weights = ex.Weights[1:]; return nil },
		"no token of the batch":    func(_ int, ex *Example) error { ex.Weights = make([]float32, 3); return nil },
		"line 3 is malformed":      func(int, *Example) error { return errors.New("line 3 is malformed") },
		ErrNonFinite.Error():       func(_ int, ex *Example) error { ex.Weights[0] = float32(math.Inf(1)); return nil },
		"outside the vocabulary":   func(_ int, ex *Example) error { ex.Response[0] = 999; return nil },
		"raise MaxRows or shorten": func(_ int, ex *Example) error { ex.Prompt = make([]int32, 600); return nil },
	} {
		before := y.params(t, model.Weights)
		s, err := NewSFT(SFTConfig{BatchSize: 4}, y.m, demonstrations{bad}, nil)
		require.NoError(t, err)
		_, err = s.Step(bg)
		require.ErrorContains(t, err, want)
		require.Zero(t, s.Steps())
		require.True(t, sameBits(before, y.params(t, model.Weights)))
	}
	ctx, cancel := context.WithCancel(bg)
	cancel()
	s, err := NewSFT(SFTConfig{BatchSize: 4}, y.m, demonstrations{}, nil)
	require.NoError(t, err)
	_, err = s.Step(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
