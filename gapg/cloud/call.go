package cloud

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// arrival is the end of a question's calls.
type arrival struct {
	key    string
	result Result
	end    callEnd
	sent   bool  // the last call may have reached the cloud
	stop   error // ends the step
}

type callEnd int

const (
	ended     callEnd = iota // with an answer or a failure of its own
	abandoned                // with the run: no outcome, the question is to be asked again
	unsent                   // nothing was sent, or what was is on record as unanswered
)

// mostWait bounds the wait before another attempt: a cloud that asks for more
// has the question left unresolved.
const mostWait = 5 * time.Minute

// call asks a question, several times where it fails in passing. Each attempt
// is journalled before it is sent: begin did that for the first.
func (b *batch) call(run, ctx context.Context, key string) arrival {
	bound := b.bound(key)
	for attempt := 1; ; attempt++ {
		if ctx.Err() != nil || b.stopped.Load() {
			return arrival{key: key, end: unsent}
		}
		if err := b.store.purse.acquire(ctx, bound); err != nil {
			if ctx.Err() != nil {
				err = nil
			} else {
				b.stopped.Store(true)
			}
			return arrival{key: key, end: unsent, stop: err}
		}
		a := b.once(run, ctx, key)
		used := bound
		if a.result.Err == nil && a.end == ended {
			u := a.result.Answer.Usage
			used = Bound{Tokens: u.PromptTokens + u.CompletionTokens, USD: a.result.Answer.CostUSD}
		}
		b.store.purse.settle(bound, a.sent, used)
		wait, again := b.pause(attempt, a)
		if !again {
			return a
		}
		if a.sent {
			if err := b.again(key); err != nil {
				b.stopped.Store(true)
				return arrival{key: key, end: unsent, stop: err}
			}
		}
		sleep(ctx, wait)
	}
}

// once makes one attempt.
func (b *batch) once(run, ctx context.Context, key string) arrival {
	if b.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.cfg.Timeout)
		defer cancel()
	}
	a, err := b.cloud.Answer(ctx, b.question(key))
	if err != nil {
		var rejected *RejectedError
		if errors.As(err, &rejected) {
			b.stopped.Store(true)
			return arrival{key: key, end: unsent, stop: err}
		}
		// A call that ran into its own time limit is a passing failure; one that
		// ended with the run's context is no outcome at all.
		if run.Err() != nil || errors.Is(ctx.Err(), context.Canceled) {
			return arrival{key: key, end: abandoned, sent: true}
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) && !IsTransient(err) {
			err = Transient(err)
		}
		return arrival{key: key, result: Result{Err: err}, sent: WasSent(err)}
	}
	if math.IsNaN(a.CostUSD) || math.IsInf(a.CostUSD, 0) || a.CostUSD < 0 || a.CostUSD > 1e6 {
		err := fmt.Errorf("the cloud %q reports a cost of %v US dollars", b.cloud.Name(), a.CostUSD)
		return arrival{key: key, result: Result{Err: err}, sent: true}
	}
	// As it will be read back: JSON holds no broken UTF-8.
	a.Text = strings.ToValidUTF8(a.Text, "\ufffd")
	return arrival{key: key, result: Result{Answer: a}, sent: true}
}

// pause says whether to try once more, and after how long. Waits are drawn from
// the upper half of their range, so that calls that failed together do not come
// back together; what a run computes does not depend on them.
func (b *batch) pause(attempt int, a arrival) (time.Duration, bool) {
	err := a.result.Err
	if err == nil || a.end != ended || attempt >= b.cfg.Attempts || !IsTransient(err) {
		return 0, false
	}
	wait := min(b.cfg.Backoff<<min(attempt-1, 20), mostWait)
	wait = wait/2 + rand.N(wait/2+1)
	if asked, ok := RetryAfter(err); ok {
		wait = max(asked, wait)
	}
	return wait, wait <= mostWait
}

// again records that an attempt remained without an answer, and the intent of
// the next.
func (b *batch) again(key string) error {
	err := b.store.db.update(func(tx txn) error {
		if err := retire(tx, []string{key}); err != nil {
			return err
		}
		in := b.intent(key)
		return put(tx, intentsBucket, []byte(key), &in)
	})
	return b.store.fail("record a failed attempt", err)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
