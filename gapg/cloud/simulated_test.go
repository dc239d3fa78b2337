package cloud

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func simulated(t testing.TB, c SimulatedConfig) *Simulated {
	t.Helper()
	if c.Right == nil {
		c.Right = func(q Question) (string, error) { return "right " + q.ID, nil }
	}
	if c.Wrong == nil {
		c.Wrong = func(q Question) (string, error) { return "wrong " + q.ID, nil }
	}
	s, err := NewSimulated(c)
	require.NoError(t, err)
	return s
}

func TestSimulatedAccuracy(t *testing.T) {
	const n = 20_000
	for _, c := range []struct{ set, want float64 }{{0, DefaultAccuracy}, {0.5, 0.5}, {1, 1}, {-1, 0}} {
		s := simulated(t, SimulatedConfig{Accuracy: c.set})
		right := 0
		for i := range n {
			q := Question{ID: fmt.Sprint("q", i)}
			a, err := s.Answer(t.Context(), q)
			require.NoError(t, err)
			if a.Text == "right "+q.ID {
				right++
			} else {
				require.Equal(t, "wrong "+q.ID, a.Text)
			}
			require.Equal(t, s.Knows(q.ID), a.Text == "right "+q.ID)
		}
		// Five standard deviations of the binomial share; exact at 0 and 1.
		tol := 5 * math.Sqrt(c.want*(1-c.want)/n)
		require.True(t, math.Abs(float64(right)/n-c.want) <= tol, "share %v", float64(right)/n)
	}
}

func TestSimulatedIsFixed(t *testing.T) {
	// The values are part of what a run means: they must not change.
	s := simulated(t, SimulatedConfig{Accuracy: 0.5})
	got := ""
	for i := range 24 {
		if s.Knows(fmt.Sprint("countdown:1,2,", i, "=10")) {
			got += "1"
		} else {
			got += "0"
		}
	}
	require.Equal(t, fixedKnows, got)
}

// Computed once by another program from the definition in Knows' comment.
const fixedKnows = "111001111100100001011110"

func TestSimulatedWrongWhereThereIsNoAnswer(t *testing.T) {
	s := simulated(t, SimulatedConfig{Accuracy: 1, Right: func(Question) (string, error) { return "", errors.New("no solution") }})
	a, err := s.Answer(t.Context(), Question{ID: "x"})
	require.NoError(t, err)
	require.Equal(t, "wrong x", a.Text)

	s = simulated(t, SimulatedConfig{Accuracy: -1, Wrong: func(Question) (string, error) { return "", errors.New("nothing wrong to say") }})
	_, err = s.Answer(t.Context(), Question{ID: "x"})
	require.ErrorContains(t, err, "nothing wrong to say")
	require.False(t, IsTransient(err))
}

func TestSimulatedUsage(t *testing.T) {
	s := simulated(t, SimulatedConfig{
		Accuracy:    1,
		Right:       func(Question) (string, error) { return "12345", nil },
		LatencyBase: time.Second, LatencyPerToken: 10 * time.Millisecond,
		USDPerCall: 0.5, USDPerMillionPromptTokens: 1e6, USDPerMillionCompletionTokens: 2e6,
		ReasoningTokens: 100,
	})
	a, err := s.Answer(t.Context(), Question{ID: "x", Text: "12345678"})
	require.NoError(t, err)
	require.Equal(t, Usage{PromptTokens: 2, CompletionTokens: 102}, a.Usage)
	require.Equal(t, 0.5+2*1+102*2, a.CostUSD)
	require.Equal(t, time.Second+1020*time.Millisecond, a.Latency)
}

func TestSimulatedLatencyIsVirtualUnlessAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := simulated(t, SimulatedConfig{LatencyBase: time.Hour})
		_, err := s.Answer(t.Context(), Question{ID: "x"})
		require.NoError(t, err)
		require.Zero(t, time.Since(start))

		s = simulated(t, SimulatedConfig{LatencyBase: time.Hour, Sleep: true})
		_, err = s.Answer(t.Context(), Question{ID: "x"})
		require.NoError(t, err)
		require.Equal(t, time.Hour, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = s.Answer(ctx, Question{ID: "x"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.True(t, IsTransient(err))
		require.Equal(t, time.Hour+time.Minute, time.Since(start))
	})
}

func TestSimulatedConfigErrors(t *testing.T) {
	f := func(Question) (string, error) { return "", nil }
	for _, c := range []SimulatedConfig{
		{},
		{Right: f},
		{Right: f, Wrong: f, Accuracy: 1.1},
		{Right: f, Wrong: f, Accuracy: math.NaN()},
		{Right: f, Wrong: f, LatencyBase: -1},
		{Right: f, Wrong: f, USDPerCall: -1},
		{Right: f, Wrong: f, USDPerMillionPromptTokens: math.NaN()},
		{Right: f, Wrong: f, ReasoningTokens: -1},
	} {
		_, err := NewSimulated(c)
		require.Error(t, err)
	}
}

type timeoutError struct{ error }

func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestIsTransient(t *testing.T) {
	base := errors.New("base")
	require.NoError(t, Transient(nil))
	require.False(t, IsTransient(nil))
	require.False(t, IsTransient(base))
	require.True(t, IsTransient(Transient(base)))
	require.ErrorIs(t, Transient(base), base)
	require.True(t, IsTransient(fmt.Errorf("call: %w", Transient(base))))
	require.True(t, IsTransient(context.DeadlineExceeded))
	require.False(t, IsTransient(context.Canceled))
	require.True(t, IsTransient(fmt.Errorf("dial: %w", timeoutError{base})))
	require.True(t, IsTransient(&recordedError{"x", true}))
	require.False(t, IsTransient(&recordedError{"x", false}))
}
