package cloud

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// scripted is a Cloud that counts its calls and behaves as told.
type scripted struct {
	name   string
	mu     sync.Mutex
	calls  map[string]int
	order  []string
	answer func(ctx context.Context, q Question) (Answer, error)
}

func (s *scripted) Name() string { return s.name }

func (s *scripted) Answer(ctx context.Context, q Question) (Answer, error) {
	s.mu.Lock()
	if s.calls == nil {
		s.calls = make(map[string]int)
	}
	s.calls[q.ID]++
	s.order = append(s.order, q.ID)
	s.mu.Unlock()
	if s.answer != nil {
		return s.answer(ctx, q)
	}
	return plainAnswer(q), nil
}

func (s *scripted) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

func plainAnswer(q Question) Answer {
	return Answer{Text: "A " + q.ID, Usage: Usage{10, 20}, CostUSD: 0.1, Latency: time.Second}
}

func questions(ids ...int) []Question {
	qs := make([]Question, len(ids))
	for i, id := range ids {
		qs[i] = Question{ID: fmt.Sprint("q", id), Text: fmt.Sprint("text ", id)}
	}
	return qs
}

// eachStore runs a test on both kinds of store.
func eachStore(t *testing.T, f func(t *testing.T, s *Store)) {
	t.Run("memory", func(t *testing.T) {
		s := NewMemory()
		f(t, s)
		require.NoError(t, s.Close())
	})
	t.Run("disk", func(t *testing.T) {
		s, err := Open(filepath.Join(t.TempDir(), "journal"), OpenOptions{NoSync: true})
		require.NoError(t, err)
		f(t, s)
		require.NoError(t, s.Close())
	})
}

func ledger(t testing.TB, c Cloud, s *Store, run string) *Ledger {
	t.Helper()
	l, err := NewLedger(c, s, LedgerConfig{Run: run})
	require.NoError(t, err)
	return l
}

func TestLedgerAsksOnce(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		c := &scripted{name: "c"}
		l := ledger(t, c, s, "train")
		require.Equal(t, "c", l.Name())
		require.Equal(t, "train", l.Run())

		// Duplicates within a batch share a call and a result.
		qs := questions(1, 2, 1, 3)
		r, err := l.AnswerAll(t.Context(), 1, qs)
		require.NoError(t, err)
		for i, q := range qs {
			require.Equal(t, Result{Answer: plainAnswer(q)}, r[i])
		}
		require.Equal(t, 3, c.total())
		usage := func(n int) Usage { return Usage{10 * n, 20 * n} }
		require.Equal(t, Totals{Questions: 3, Calls: 3, CostUSD: 0.3, Usage: usage(3)}, l.Totals(1))

		// A later step has the answers for nothing.
		r, err = l.AnswerAll(t.Context(), 2, questions(2, 4))
		require.NoError(t, err)
		require.Equal(t, []Result{{Answer: plainAnswer(questions(2)[0]), Cached: true}, {Answer: plainAnswer(questions(4)[0])}}, r)
		require.Equal(t, 4, c.total())
		require.Equal(t, Totals{Questions: 5, Calls: 4, Hits: 1, CostUSD: 0.4, Usage: usage(4)}, l.Totals(2))
		require.Equal(t, Totals{Questions: 3, Calls: 3, CostUSD: 0.3, Usage: usage(3)}, l.Totals(1), "later steps do not count")

		// A replay of a step changes nothing, and a step's results stay as they were.
		before, err := s.Entries("train")
		require.NoError(t, err)
		again, err := l.AnswerAll(t.Context(), 2, questions(2, 4))
		require.NoError(t, err)
		require.Equal(t, r, again)
		after, err := s.Entries("train")
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.Len(t, after, 5)
		require.Equal(t, 4, l.Totals(2).Calls)

		// So does another run; a cloud of another name, a question of another text
		// or ID does not share.
		r, err = ledger(t, c, s, "eval").AnswerAll(t.Context(), 1, questions(1))
		require.NoError(t, err)
		require.True(t, r[0].Cached)
		require.Equal(t, 4, c.total())
		d := &scripted{name: "d"}
		_, err = ledger(t, d, s, "train").AnswerAll(t.Context(), 3, questions(1))
		require.NoError(t, err)
		require.Equal(t, 1, d.total())
		_, err = l.AnswerAll(t.Context(), 3, []Question{{ID: "q1", Text: "other"}, {ID: "other", Text: "text 1"}})
		require.NoError(t, err)
		require.Equal(t, 6, c.total())

		left, err := s.Unanswered()
		require.NoError(t, err)
		require.Empty(t, left)
		r, err = l.AnswerAll(t.Context(), 9, nil)
		require.NoError(t, err)
		require.Empty(t, r)
	})
}

func TestLedgerFailures(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		broken := true
		c := &scripted{name: "c", answer: func(_ context.Context, q Question) (Answer, error) {
			switch {
			case broken && q.ID == "q1":
				return Answer{}, Transient(errors.New("connection reset"))
			case q.ID == "q2":
				return Answer{}, errors.New("refused")
			case q.ID == "q3":
				return Answer{CostUSD: math.NaN()}, nil
			}
			return plainAnswer(q), nil
		}}
		l := ledger(t, c, s, "train")
		r, err := l.AnswerAll(t.Context(), 1, questions(1, 2, 3, 4))
		require.NoError(t, err)
		require.ErrorContains(t, r[0].Err, "connection reset")
		require.True(t, IsTransient(r[0].Err))
		require.EqualError(t, r[1].Err, "refused")
		require.False(t, IsTransient(r[1].Err))
		require.ErrorContains(t, r[2].Err, "cost of NaN")
		require.NoError(t, r[3].Err)
		want := Totals{Questions: 4, Calls: 4, Unresolved: 1, Failed: 2, CostUSD: 0.1, Usage: Usage{10, 20}}
		require.Equal(t, want, l.Totals(1))

		// The step stays what it was, though the cloud has come back.
		broken = false
		again, err := l.AnswerAll(t.Context(), 1, questions(1, 2, 3, 4))
		require.NoError(t, err)
		for i := range r {
			require.Equal(t, r[i].Answer, again[i].Answer)
			require.Equal(t, IsTransient(r[i].Err), IsTransient(again[i].Err))
			if r[i].Err != nil {
				require.EqualError(t, again[i].Err, r[i].Err.Error())
			}
		}
		require.Equal(t, 4, c.total())
		require.Equal(t, want, l.Totals(1))

		// A later step asks again.
		r, err = l.AnswerAll(t.Context(), 2, questions(1))
		require.NoError(t, err)
		require.Equal(t, Result{Answer: plainAnswer(questions(1)[0])}, r[0])
		require.Equal(t, 2, c.calls["q1"])
	})
}

func TestLedgerAsACloud(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		fails := 1
		c := &scripted{name: "c", answer: func(_ context.Context, q Question) (Answer, error) {
			if fails--; fails >= 0 {
				return Answer{}, Transient(errors.New("busy"))
			}
			return plainAnswer(q), nil
		}}
		var l Cloud = ledger(t, c, s, "serve")
		q := questions(1)[0]
		_, err := l.Answer(t.Context(), q)
		require.True(t, IsTransient(err))
		for range 2 {
			a, err := l.Answer(t.Context(), q)
			require.NoError(t, err)
			require.Equal(t, plainAnswer(q), a)
		}
		require.Equal(t, 2, c.total())
		require.Equal(t, Totals{Questions: 3, Calls: 2, Hits: 1, Unresolved: 1, CostUSD: 0.1, Usage: Usage{10, 20}}, s.Totals("serve", 99))
	})
}

func TestLedgerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{name: "c", answer: func(ctx context.Context, q Question) (Answer, error) {
			<-ctx.Done()
			return Answer{}, errors.New("gave up") // a client that hides the reason
		}}
		l, err := NewLedger(c, NewMemory(), LedgerConfig{Run: "r", Timeout: time.Minute})
		require.NoError(t, err)
		r, err := l.AnswerAll(t.Context(), 1, questions(1, 2))
		require.NoError(t, err)
		require.True(t, IsTransient(r[0].Err))
		require.Equal(t, 2, l.Totals(1).Unresolved)
	})
}

func TestLedgerCancel(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &scripted{name: "c"}
		c.answer = func(ctx context.Context, q Question) (Answer, error) {
			if q.ID == "q1" {
				return plainAnswer(q), nil
			}
			if q.ID == "q2" {
				cancel()
			}
			<-ctx.Done()
			return Answer{}, ctx.Err()
		}
		l, err := NewLedger(c, s, LedgerConfig{Run: "r", Concurrency: 1})
		require.NoError(t, err)
		_, err = l.AnswerAll(ctx, 1, questions(1, 2, 3))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{"q1", "q2"}, c.order, "questions are asked in order, and none after the end")

		// What was answered is on record, what was sent is possibly billed, what was
		// not sent is neither.
		entries, err := s.Entries("r")
		require.NoError(t, err)
		require.Equal(t, []Entry{{Run: "r", Step: 1, ID: "q1", Cloud: "c", Status: Answered, CostUSD: 0.1, Usage: Usage{10, 20}}}, entries)
		left, err := s.Unanswered()
		require.NoError(t, err)
		require.Equal(t, []Intent{{Run: "r", Step: 1, ID: "q2", Cloud: "c"}}, left)

		// Going on ends where a run without the interruption ends.
		c.answer = nil
		r, err := l.AnswerAll(t.Context(), 1, questions(1, 2, 3))
		require.NoError(t, err)
		require.Len(t, r, 3)
		require.Equal(t, 1, c.calls["q1"])
		clean := NewMemory()
		_, err = ledger(t, &scripted{name: "c"}, clean, "r").AnswerAll(t.Context(), 1, questions(1, 2, 3))
		require.NoError(t, err)
		want, err := clean.Entries("r")
		require.NoError(t, err)
		got, err := s.Entries("r")
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, clean.Totals("r", 1), s.Totals("r", 1))

		_, err = l.AnswerAll(ctx, 2, questions(1))
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestLedgerConcurrency(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		var now, most atomic.Int64
		c := &scripted{name: "c", answer: func(_ context.Context, q Question) (Answer, error) {
			for n := now.Add(1); ; {
				if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			time.Sleep(time.Millisecond)
			now.Add(-1)
			return plainAnswer(q), nil
		}}
		l, err := NewLedger(c, s, LedgerConfig{Run: "r", Concurrency: 3})
		require.NoError(t, err)
		var qs []Question
		for i := range 40 {
			qs = append(qs, questions(i)...)
		}
		// Four callers want overlapping halves in different orders and steps.
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				mine := append(append([]Question{}, qs[10*w:]...), qs[:10*w]...)[:25]
				r, err := l.AnswerAll(t.Context(), w, mine)
				if err != nil {
					t.Error(err)
					return
				}
				for i, q := range mine {
					if r[i].Err != nil || r[i].Answer != plainAnswer(q) {
						t.Errorf("%v: %+v", q, r[i])
					}
				}
			})
		}
		wg.Wait()
		for id, n := range c.calls {
			require.Equal(t, 1, n, id)
		}
		require.Equal(t, 40, c.total())
		sum := l.Totals(4)
		require.Equal(t, 100, sum.Questions)
		require.Equal(t, 40, sum.Calls)
		require.Equal(t, 60, sum.Hits)
		require.InDelta(t, 4.0, sum.CostUSD, 1e-12)
		require.LessOrEqual(t, most.Load(), int64(12), "three calls at once for each of four callers")
		require.Greater(t, most.Load(), int64(1))
	})
}

func TestLedgerSharesFailureWithThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{name: "c", answer: func(context.Context, Question) (Answer, error) {
			time.Sleep(time.Second)
			return Answer{}, Transient(errors.New("busy"))
		}}
		s := NewMemory()
		l := ledger(t, c, s, "r")
		var wg sync.WaitGroup
		for step := range 3 {
			wg.Go(func() {
				r, err := l.AnswerAll(t.Context(), step, questions(1))
				if err != nil || !IsTransient(r[0].Err) {
					t.Errorf("%v, %v", r, err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, 1, c.total())
		sum := l.Totals(3)
		require.Equal(t, Totals{Questions: 3, Calls: 1, Unresolved: 3}, sum)
	})
}

func TestLedgerWaiterTakesOverFromACancelledCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scripted{name: "c", answer: func(ctx context.Context, q Question) (Answer, error) {
			select {
			case <-time.After(time.Second):
				return plainAnswer(q), nil
			case <-ctx.Done():
				return Answer{}, ctx.Err()
			}
		}}
		s := NewMemory()
		l := ledger(t, c, s, "r")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := l.AnswerAll(ctx, 1, questions(1))
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			r, err := l.AnswerAll(t.Context(), 2, questions(1))
			if err != nil || r[0].Err != nil {
				t.Errorf("%v, %v", r, err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		require.Equal(t, 2, c.total())
		left, err := s.Unanswered()
		require.NoError(t, err)
		require.Len(t, left, 1)
	})
}

func TestLedgerTotalsDoNotDependOnOrder(t *testing.T) {
	// 0.1 and 0.2 and 0.3 sum to different floats in different orders.
	costs := map[string]float64{"q1": 0.1, "q2": 0.2, "q3": 0.3, "q4": 1e-7}
	run := func(ids ...int) Totals {
		c := &scripted{name: "c", answer: func(_ context.Context, q Question) (Answer, error) {
			return Answer{CostUSD: costs[q.ID]}, nil
		}}
		l, err := NewLedger(c, NewMemory(), LedgerConfig{Run: "r", Concurrency: 1})
		require.NoError(t, err)
		_, err = l.AnswerAll(t.Context(), 0, questions(ids...))
		require.NoError(t, err)
		return l.Totals(0)
	}
	require.Equal(t, run(1, 2, 3, 4), run(4, 3, 2, 1))
	require.Equal(t, 0.6000001, run(1, 2, 3, 4).CostUSD)
}

func TestLedgerKeepsTextAsItWillBeReadBack(t *testing.T) {
	eachStore(t, func(t *testing.T, s *Store) {
		c := &scripted{name: "c", answer: func(context.Context, Question) (Answer, error) {
			return Answer{Text: "a\xff\xfeb<&>\u2028\x00"}, nil
		}}
		l := ledger(t, c, s, "r")
		first, err := l.AnswerAll(t.Context(), 1, questions(1))
		require.NoError(t, err)
		second, err := l.AnswerAll(t.Context(), 1, questions(1))
		require.NoError(t, err)
		require.Equal(t, first, second)
	})
}

func TestLedgerBadConfig(t *testing.T) {
	c, s := &scripted{name: "c"}, NewMemory()
	for _, cfg := range []LedgerConfig{{}, {Run: "a\x00b"}, {Run: "\xff"}, {Run: "r", Concurrency: -1}, {Run: "r", Timeout: -1}} {
		_, err := NewLedger(c, s, cfg)
		require.Error(t, err)
	}
	_, err := NewLedger(nil, s, LedgerConfig{Run: "r"})
	require.Error(t, err)
	_, err = NewLedger(c, nil, LedgerConfig{Run: "r"})
	require.Error(t, err)
	_, err = ledger(t, c, s, "r").AnswerAll(t.Context(), -1, questions(1))
	require.ErrorContains(t, err, "negative")
}

func BenchmarkAnswerAllDisk(b *testing.B) {
	s, err := Open(filepath.Join(b.TempDir(), "journal"), OpenOptions{})
	require.NoError(b, err)
	defer s.Close()
	l := ledger(b, &scripted{name: "c"}, s, "r")
	step := 0
	for b.Loop() {
		qs := make([]Question, 32)
		for i := range qs {
			qs[i] = Question{ID: fmt.Sprint(step, "/", i)}
		}
		if _, err := l.AnswerAll(b.Context(), step, qs); err != nil {
			b.Fatal(err)
		}
		step++
	}
}
