package gapg

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/gapg/cloud"
)

// testCloud answers everything with "right", unless told to fail.
type testCloud struct{ fail error }

func (c testCloud) Name() string { return "test" }

func (c testCloud) Answer(ctx context.Context, q cloud.Question) (cloud.Answer, error) {
	return cloud.Answer{Text: "<answer>right</answer>", CostUSD: 0.25, Usage: cloud.Usage{PromptTokens: 3, CompletionTokens: 1}}, errors.Join(c.fail, ctx.Err())
}

func testPair(t testing.TB, change func(*CollaboratorConfig)) *Pair {
	e := testExperiment(t, 1)
	m, err := e.Open(t.Context())
	require.NoError(t, err)
	c := CollaboratorConfig{Model: m, Tokenizer: e.Tokenizer, Task: e.Task, Cloud: testCloud{}, EndToken: e.EndToken,
		Marker: e.Marker, MarkerAfter: e.MarkerAfter, MaxNewTokens: 14}
	change(&c)
	p, err := NewCollaborator(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, m.Close())
	})
	return p
}

// The same prompt with help forced, forbidden and denied.
func TestCollaboratorSources(t *testing.T) {
	q := testPrompts("p", 1)[0]
	asks := testPair(t, func(c *CollaboratorConfig) { c.HelpBias = 1e4 })
	r, err := asks.Answer(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, FromCloud, r.Source)
	require.Equal(t, "right", r.Answer)
	require.Equal(t, "<answer>right</answer>", r.Text)
	require.True(t, strings.HasSuffix(r.Reasoning, Marker))
	require.Equal(t, 0.25, r.CostUSD)
	require.Equal(t, cloud.Usage{PromptTokens: 3, CompletionTokens: 1}, r.Cloud)
	require.Equal(t, DeviceUsage{4, 1}, r.Device)
	require.False(t, r.Denied)

	alone := testPair(t, func(c *CollaboratorConfig) { c.Cloud, c.HelpBias = nil, 1e4 })
	own, err := alone.Answer(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, FromDevice, own.Source)
	require.Zero(t, own.CostUSD)
	require.Equal(t, own.Reasoning, own.Text)

	denies := testPair(t, func(c *CollaboratorConfig) { c.HelpBias, c.Budget = 1e4, &Budget{0, 1} })
	r, err = denies.Answer(t.Context(), q)
	require.NoError(t, err)
	require.True(t, r.Denied)
	require.Equal(t, FromDevice, r.Source)
	require.Equal(t, own.Text, r.Text, "answered again with help disabled")
	require.Equal(t, own.Device.CompletionTokens+1, r.Device.CompletionTokens, "both attempts count")
	require.Zero(t, r.CostUSD)
}

// At each moment the calls are within the budget, and none is lost.
func TestCollaboratorHardBudget(t *testing.T) {
	p := testPair(t, func(c *CollaboratorConfig) { c.HelpBias, c.Budget = 1e4, &Budget{3, 10} })
	for n := 1; n <= 20; n++ {
		_, err := p.Answer(t.Context(), testPrompts("p", n)[n-1])
		require.NoError(t, err)
		prompts, calls, denied := p.Counts()
		require.Equal(t, n, prompts)
		require.Equal(t, 3*n/10, calls)
		require.Equal(t, n-calls, denied)
	}
}

func TestCollaboratorConcurrently(t *testing.T) {
	p := testPair(t, func(c *CollaboratorConfig) { c.HelpBias, c.Budget = 0.5, &Budget{3, 10} })
	prompts := testPrompts("p", 24)
	replies := make([]Reply, len(prompts))
	var wg sync.WaitGroup
	for i := range prompts {
		wg.Go(func() {
			r, err := p.Answer(context.Background(), prompts[i])
			if err == nil {
				replies[i] = r
			}
		})
	}
	wg.Wait()
	calls := 0
	for _, r := range replies {
		require.NotEmpty(t, r.Source)
		calls += count(r.Source == FromCloud)
	}
	n, counted, _ := p.Counts()
	require.Equal(t, 24, n)
	require.Equal(t, calls, counted)
	require.LessOrEqual(t, calls, 7)
}

func TestCollaboratorFailures(t *testing.T) {
	down := errors.New("the network is down")
	p := testPair(t, func(c *CollaboratorConfig) { c.HelpBias, c.Cloud = 1e4, testCloud{down} })
	r, err := p.Answer(t.Context(), testPrompts("p", 1)[0])
	require.ErrorIs(t, err, down)
	require.NotEmpty(t, r.Reasoning)
	_, calls, _ := p.Counts()
	require.Equal(t, 1, calls)
	_, err = p.Answer(t.Context(), Prompt{Text: strings.Repeat("1", 100)})
	require.ErrorContains(t, err, "context")

	// A cancelled answer leaves the pair usable.
	q := testPair(t, func(c *CollaboratorConfig) {})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = q.Answer(ctx, testPrompts("p", 1)[0])
	require.ErrorIs(t, err, context.Canceled)
	want := testPair(t, func(c *CollaboratorConfig) {})
	a, err := q.Answer(t.Context(), testPrompts("p", 2)[1])
	require.NoError(t, err)
	b, err := want.Answer(t.Context(), testPrompts("p", 2)[1])
	require.NoError(t, err)
	require.Equal(t, b.Text, a.Text)

	e := testExperiment(t, 1)
	m, err := e.Open(t.Context())
	require.NoError(t, err)
	defer m.Close()
	for name, c := range map[string]CollaboratorConfig{
		"nothing":   {},
		"no marker": {Model: m, Tokenizer: e.Tokenizer, Cloud: testCloud{}},
		"NaN":       {Model: m, Tokenizer: e.Tokenizer, HelpBias: math.NaN()},
		"negative":  {Model: m, Tokenizer: e.Tokenizer, MaxNewTokens: -1},
	} {
		_, err := NewCollaborator(c)
		require.Error(t, err, name)
	}
}

func TestEndsInMarker(t *testing.T) {
	for text, want := range map[string]bool{
		Marker: true, "abc" + Marker + " \n": true, strings.ToUpper(Marker): true,
		Marker + "x": false, "<unknown> I need help </unknown>": false, "": false, "I need external assistance </unknown>": false,
	} {
		require.Equal(t, want, endsInMarker(text), "%q", text)
	}
}
