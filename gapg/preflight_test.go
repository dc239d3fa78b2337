package gapg

import (
	"errors"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
)

// The check before a training measures what the training would sample, changes
// nothing of it, and pays for no answer twice.
func TestPreflight(t *testing.T) {
	without := newToy(t, toyOptions{})
	defer without.close()
	y := newToy(t, toyOptions{cloud: &toyCloud{answer: func(q cloud.Question) (string, error) {
		switch q.Text[0] {
		case 'a':
			return "right", nil
		default:
			return "wrong", nil
		}
	}}})
	defer y.close()
	p, err := y.tr.Preflight(bg, 64, 6)
	require.NoError(t, err)
	require.Equal(t, 10, p.Prompts, "all that there are")
	require.Equal(t, 40, p.Responses)
	for name, share := range map[string]float64{"accuracy": p.Accuracy, "marker": p.MarkerRate, "truncation": p.Truncation, "format": p.Format} {
		require.True(t, share >= 0 && share <= 1, name)
		require.InDelta(t, math.Round(share*40), share*40, 1e-9, name)
	}
	require.Equal(t, 6, p.CloudPrompts)
	first := FirstPrompts(y.tr.s.Prompts, y.tr.cfg.Seed, 6)
	right := 0
	for _, q := range first {
		if q.Text[0] == 'a' {
			right++
		}
	}
	require.Equal(t, float64(right)/6, p.CloudAccuracy)
	require.Equal(t, 6, y.tr.State().Calls, "the check's calls count")
	require.Equal(t, 1.5, y.tr.State().CostUSD)
	again, err := y.tr.Preflight(bg, 64, 6)
	require.NoError(t, err)
	require.Equal(t, p, again)
	require.Equal(t, 6, y.cloud.total(), "recorded answers are not asked for again")
	require.NotContains(t, (&Preflight{Accuracy: math.NaN()}).Metrics(), "accuracy")

	// The steps are those of a training without the check.
	for range 3 {
		a, err := without.tr.Step(bg)
		require.NoError(t, err)
		b, err := y.tr.Step(bg)
		require.NoError(t, err)
		require.Equal(t, a.RolloutTokens, b.RolloutTokens)
	}
	for id, n := range y.cloud.calls {
		require.Equal(t, 1, n, id)
	}
}

// What could not be judged or answered is counted, and is in no share.
func TestPreflightUnresolved(t *testing.T) {
	y := newToy(t, toyOptions{cloud: &toyCloud{answer: func(q cloud.Question) (string, error) {
		if q.Text[0] == 'b' {
			return "", errors.New("no")
		}
		return "right", nil
	}}})
	defer y.close()
	p, err := y.tr.Preflight(bg, 10, 10)
	require.NoError(t, err)
	require.Equal(t, 5, p.CloudPrompts)
	require.Equal(t, 5, p.Unresolved)
	require.Equal(t, 1.0, p.CloudAccuracy)
}
