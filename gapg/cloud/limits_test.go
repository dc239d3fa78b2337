package cloud

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func errorsAs(err error, target any) bool { return err != nil && errors.As(err, target) }

// priced answers with a fixed usage and says what it may use at most.
type priced struct {
	usage Usage
	cost  float64
	bound Bound
	fail  error
	slow  time.Duration
}

func (p priced) Name() string         { return "priced" }
func (p priced) Bound(Question) Bound { return p.bound }
func (p priced) Answer(ctx context.Context, q Question) (Answer, error) {
	time.Sleep(p.slow)
	return Answer{Text: q.Text, Usage: p.usage, CostUSD: p.cost}, p.fail
}

func someQuestions(n int) []Question {
	qs := make([]Question, n)
	for i := range qs {
		qs[i] = Question{ID: fmt.Sprint(i), Text: fmt.Sprint("q", i)}
	}
	return qs
}

// Limits are never exceeded, hold over restarts, and a raised one lets the step
// go on where it was without asking again.
func TestLimits(t *testing.T) {
	c := priced{usage: Usage{60, 40}, cost: 0.25, bound: Bound{Tokens: 150, USD: 0.5}, slow: time.Millisecond}
	for name, limits := range map[string]Limits{
		"calls": {Calls: 5}, "tokens": {Tokens: 550}, "US dollars": {USD: 1.5},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			run := func(l Limits) (Used, []Result, error) {
				s, err := Open(path, OpenOptions{NoSync: true})
				require.NoError(t, err)
				defer s.Close()
				s.SetLimits(l)
				ledger, err := NewLedger(c, s, LedgerConfig{Run: "train", Concurrency: 3})
				require.NoError(t, err)
				r, err := ledger.AnswerAll(context.Background(), 0, someQuestions(8))
				return s.Used(), r, err
			}
			for range 2 { // the second time nothing more fits
				used, _, err := run(limits)
				var limit *LimitError
				require.True(t, errorsAs(err, &limit), "%v", err)
				require.Equal(t, name, limit.What)
				require.Equal(t, Used{Calls: 5, Tokens: 500, USD: 1.25}, used)
			}
			used, results, err := run(Limits{Calls: 8})
			require.NoError(t, err)
			require.Equal(t, Used{Calls: 8, Tokens: 800, USD: 2}, used)
			for i, r := range results {
				require.Equal(t, fmt.Sprint("q", i), r.Answer.Text)
			}
		})
	}
}

// A call whose end is not known counts with its bound, one that was not sent
// not at all.
func TestLimitsCountWhatMayHaveBeenBilled(t *testing.T) {
	c := priced{bound: Bound{Tokens: 150, USD: 0.5}, fail: Transient(errors.New("reset"))}
	s := NewMemory()
	l, err := NewLedger(c, s, LedgerConfig{Run: "train", Attempts: 3, Backoff: 1})
	require.NoError(t, err)
	_, err = l.AnswerAll(context.Background(), 0, someQuestions(2))
	require.NoError(t, err)
	require.Equal(t, Used{Calls: 6, Tokens: 900, USD: 3}, s.Used())

	c.fail = NotSent(Transient(errors.New("held back")))
	s = NewMemory()
	l, err = NewLedger(c, s, LedgerConfig{Run: "train", Attempts: 2, Backoff: 1})
	require.NoError(t, err)
	r, err := l.AnswerAll(context.Background(), 0, someQuestions(2))
	require.NoError(t, err)
	require.True(t, IsTransient(r[0].Err))
	require.Equal(t, Used{}, s.Used())
	left, err := s.Unanswered()
	require.NoError(t, err)
	require.Empty(t, left)
}

// What another run's ledger holds is imported once, and replaying sends nothing.
func TestImportAndReplay(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(filepath.Join(dir, "a.db"), OpenOptions{NoSync: true})
	require.NoError(t, err)
	c := priced{cost: 0.25}
	l, err := NewLedger(c, first, LedgerConfig{Run: "train"})
	require.NoError(t, err)
	_, err = l.AnswerAll(context.Background(), 0, someQuestions(3))
	require.NoError(t, err)
	require.NoError(t, first.Close())

	second, err := Open(filepath.Join(dir, "b.db"), OpenOptions{NoSync: true})
	require.NoError(t, err)
	defer second.Close()
	for _, want := range []int{3, 0} {
		n, err := second.Import(filepath.Join(dir, "a.db"))
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	_, err = second.Import(filepath.Join(dir, "none.db"))
	var e *StoreError
	require.True(t, errorsAs(err, &e), "%v", err)

	known, err := second.Answers(c, someQuestions(4))
	require.NoError(t, err)
	require.Equal(t, []bool{true, true, true, false}, known)
	l, err = NewLedger(Replay{Of: c}, second, LedgerConfig{Run: "train"})
	require.NoError(t, err)
	r, err := l.AnswerAll(context.Background(), 0, someQuestions(4))
	require.NoError(t, err)
	for i := range 3 {
		require.NoError(t, r[i].Err)
		require.True(t, r[i].Cached)
	}
	require.ErrorContains(t, r[3].Err, "not on record")
	require.Equal(t, Used{}, second.Used())
	require.Zero(t, l.Totals(9).CostUSD)
}
