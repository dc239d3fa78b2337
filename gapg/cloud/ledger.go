package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// LedgerConfig says how a ledger asks.
type LedgerConfig struct {
	// Run names the user of the answers: entries and totals are kept by run. Use
	// one name per purpose ("train", "eval") and keep it over a resume.
	Run string

	// Concurrency bounds the calls under way at once; 0 means 8.
	Concurrency int

	// Timeout bounds each call; 0 means no bound but the context's.
	Timeout time.Duration

	// Attempts is how often a question is sent at most when calls fail in passing;
	// 0 means once. Between attempts the ledger waits as long as the cloud asks
	// (RetryAfter), or from Backoff on twice as long each time; 0 means 1 s.
	Attempts int
	Backoff  time.Duration
}

// Ledger asks a Cloud on behalf of a run, at most once per question: what is
// answered is on record and never asked for again, by this run or another on
// the same Store. It is a Cloud itself, and safe for concurrent use.
//
// The resume rule. What AnswerAll returns is a function of the store and the
// cloud: asked again for a step that is on record, it gives the recorded
// outcomes, failures included, sends nothing and adds nothing. So a run that is
// killed and goes on from an earlier checkpoint sees the outcomes, and through
// Totals the counts and costs, of a run that was never killed. The one trace of
// the kill is in Store.Unanswered.
type Ledger struct {
	cloud Cloud
	store *Store
	cfg   LedgerConfig
}

// NewLedger returns a ledger over cloud and store.
func NewLedger(c Cloud, s *Store, cfg LedgerConfig) (*Ledger, error) {
	if c == nil || s == nil {
		return nil, errors.New("cloud ledger: both a cloud and a store are needed")
	}
	if err := checkRun(cfg.Run, 0); err != nil {
		return nil, err
	}
	if cfg.Concurrency < 0 || cfg.Timeout < 0 || cfg.Attempts < 0 || cfg.Backoff < 0 {
		return nil, errors.New("cloud ledger: concurrency, timeout, attempts and backoff must not be negative")
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = 8
	}
	if cfg.Backoff == 0 {
		cfg.Backoff = time.Second
	}
	cfg.Attempts = max(cfg.Attempts, 1)
	return &Ledger{c, s, cfg}, nil
}

// Name returns the cloud's name.
func (l *Ledger) Name() string { return l.cloud.Name() }

// Run returns the run's name.
func (l *Ledger) Run() string { return l.cfg.Run }

// Answer implements Cloud. Each call is a step of its own, after all steps that
// the run has on record: so a question that found no answer is asked again, one
// that did is not. Use it with a run of its own, and AnswerAll for many
// questions: that records them together.
func (l *Ledger) Answer(ctx context.Context, q Question) (Answer, error) {
	r, err := l.AnswerAll(ctx, l.store.nextStep(l.cfg.Run), []Question{q})
	if err != nil {
		return Answer{}, err
	}
	return r[0].Answer, r[0].Err
}

// Totals counts the run's entries up to and with the step: see Store.Totals.
func (l *Ledger) Totals(throughStep int) Totals { return l.store.Totals(l.cfg.Run, throughStep) }

// Result is the outcome of one question.
type Result struct {
	Answer Answer
	// Err is why there is no answer. IsTransient tells the two kinds apart; both
	// mean that the question is unresolved, not that the answer is wrong.
	Err error
	// Cached is true if this run's entry at this step sent nothing: another step
	// or run had asked. A replayed entry keeps the value that it was recorded with.
	Cached bool
}

// flight is a call under way, or about to be. Whoever registered it closes done.
type flight struct {
	done chan struct{}
	err  error // set before done is closed if the call failed on its own account
}

// AnswerAll answers all questions at a step; result i belongs to question i. Equal
// questions, in one call or in concurrent ones, share one call to the cloud.
//
// Failures of the cloud are in the results. The error is for what ends a step: a
// *StoreError, if a call could not be journalled or an answer not be recorded; a
// *LimitError, if a call did not fit in the store's limits; a *RejectedError; or
// the context's. Answers that had arrived by then are on record.
func (l *Ledger) AnswerAll(ctx context.Context, step int, qs []Question) ([]Result, error) {
	if err := checkRun(l.cfg.Run, step); err != nil {
		return nil, err
	}
	at := make(map[string][]int, len(qs)) // question key → positions
	var todo []string
	for i, q := range qs {
		k := questionKey(l.cloud.Name(), q)
		if at[k] == nil {
			todo = append(todo, k)
		}
		at[k] = append(at[k], i)
	}
	results := make([]Result, len(qs))
	b := &batch{Ledger: l, step: step, question: func(k string) Question { return qs[at[k][0]] },
		set: func(k string, r Result) {
			for _, i := range at[k] {
				results[i] = r
			}
		}}
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		mine, theirs := l.store.claim(todo)
		if err := b.ask(ctx, todo, mine); err != nil {
			return nil, err
		}
		waiting := todo
		todo = nil
		for _, k := range waiting {
			f := theirs[k]
			if f == nil {
				continue
			}
			select {
			case <-f.done:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if f.err == nil {
				todo = append(todo, k) // look again: the answer is on record, or it is our turn
				continue
			}
			if err := b.share(k, f.err); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

// claim registers a flight for each key that has none and returns the flights of
// the others.
func (s *Store) claim(keys []string) (mine map[string]*flight, theirs map[string]*flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, theirs = make(map[string]*flight), make(map[string]*flight)
	for _, k := range keys {
		if f := s.inflight[k]; f != nil {
			theirs[k] = f
			continue
		}
		f := &flight{done: make(chan struct{})}
		s.inflight[k] = f
		mine[k] = f
	}
	return mine, theirs
}

// land ends a flight. err is the call's own failure, for those who waited.
func (s *Store) land(key string, f *flight, err error) {
	s.mu.Lock()
	delete(s.inflight, key)
	s.mu.Unlock()
	f.err = err
	close(f.done)
}

// batch is one AnswerAll under way.
type batch struct {
	*Ledger
	step     int
	question func(key string) Question
	set      func(key string, r Result)

	stopped atomic.Bool // no further call may be sent: the step has failed
}

// bound is what asking a question may use at most.
func (b *batch) bound(key string) Bound {
	if x, ok := b.cloud.(Bounder); ok {
		return x.Bound(b.question(key))
	}
	return Bound{}
}

func (b *batch) intent(key string) Intent {
	e := b.entry(key)
	return Intent{Run: e.Run, Step: e.Step, ID: e.ID, Cloud: e.Cloud, Bound: b.bound(key)}
}

func (b *batch) entry(key string) Entry {
	return Entry{Run: b.cfg.Run, Step: b.step, ID: b.question(key).ID, Cloud: b.cloud.Name()}
}

// ask resolves the claimed keys among order: from the record where it can, else by
// calls that are journalled first and sent in that order. All flights have landed
// when it returns.
func (b *batch) ask(ctx context.Context, order []string, mine map[string]*flight) error {
	if len(mine) == 0 {
		return nil
	}
	land := func(key string, err error) {
		if f := mine[key]; f != nil {
			delete(mine, key)
			b.store.land(key, f, err)
		}
	}
	defer func() {
		for k := range mine {
			land(k, nil)
		}
	}()
	var claimed []string
	for _, k := range order {
		if mine[k] != nil {
			claimed = append(claimed, k)
		}
	}
	send, err := b.begin(claimed)
	if err != nil {
		return err
	}
	for _, k := range claimed {
		if !slices.Contains(send, k) {
			land(k, nil)
		}
	}

	if len(send) == 0 {
		return nil
	}

	// Calls run concurrently; this goroutine records what has come back, all of
	// it in one transaction, while further calls are under way.
	var (
		arrivals  = make(chan arrival, len(send))
		slots     = make(chan struct{}, b.cfg.Concurrency)
		callCtx   context.Context
		cancel    context.CancelFunc
		wg        sync.WaitGroup
		recordErr error // nothing more can be recorded
		stepErr   error // a limit, or a cloud that takes no question
	)
	callCtx, cancel = context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		for _, k := range send {
			slots <- struct{}{}
			wg.Go(func() {
				a := b.call(ctx, callCtx, k)
				<-slots
				arrivals <- a
			})
		}
	})
	for left := len(send); left > 0; {
		got := []arrival{<-arrivals}
		for more := true; more; {
			select {
			case a := <-arrivals:
				got = append(got, a)
			default:
				more = false
			}
		}
		left -= len(got)
		if err := b.record(got); err != nil {
			// Nothing more can be recorded, so nothing more may be sent.
			recordErr = errors.Join(recordErr, err)
			cancel()
			continue
		}
		for _, a := range got {
			if stepErr == nil {
				stepErr = a.stop
			}
			if a.end != ended {
				land(a.key, nil) // those who waited ask for themselves
				continue
			}
			b.set(a.key, a.result)
			land(a.key, a.result.Err)
		}
	}
	wg.Wait()
	return cmp.Or(recordErr, ctx.Err(), stepErr)
}

// begin settles in one transaction what is on record and journals the intent to
// send the rest, which it returns in the order given.
func (b *batch) begin(keys []string) (send []string, err error) {
	// Most steps of a resumed run are on record whole: then nothing is written.
	replay := make(map[string]Result)
	err = b.store.db.view(func(tx txn) error {
		for _, k := range keys {
			_, r, state, err := b.lookUp(tx, k)
			if err != nil {
				return err
			}
			if state != replayed {
				return nil
			}
			replay[k] = r
		}
		return nil
	})
	if err != nil {
		return nil, b.store.fail("read", err)
	}
	if len(replay) == len(keys) {
		for k, r := range replay {
			b.set(k, r)
		}
		return nil, nil
	}

	var fresh []Entry // entries that were added
	found := make(map[string]Result)
	err = b.store.db.update(func(tx txn) error {
		for _, k := range keys {
			e, r, state, err := b.lookUp(tx, k)
			if err != nil {
				return err
			}
			if state == unknown {
				send = append(send, k)
				in := b.intent(k)
				if err := put(tx, intentsBucket, []byte(k), &in); err != nil {
					return err
				}
				continue
			}
			if state == answeredElsewhere {
				if err := put(tx, entriesBucket, entryKey(e.Run, e.Step, k), &e); err != nil {
					return err
				}
				fresh = append(fresh, e)
			}
			found[k] = r
		}
		return nil
	})
	if err != nil {
		return nil, b.store.fail("record the calls to come", err)
	}
	for i := range fresh {
		b.store.count(&fresh[i])
	}
	for k, r := range found {
		b.set(k, r)
	}
	return send, nil
}

type recordState int

const (
	unknown           recordState = iota
	replayed                      // this run has an entry at this step
	answeredElsewhere             // the answer is on record for another step or run
)

func (b *batch) lookUp(tx txn, key string) (Entry, Result, recordState, error) {
	e := b.entry(key)
	var prior Entry
	state := unknown
	if v := tx.get(entriesBucket, entryKey(e.Run, e.Step, key)); v != nil {
		if err := unseal(entryKey(e.Run, e.Step, key), v, &prior); err != nil {
			return e, Result{}, unknown, err
		}
		if prior.Status != Answered {
			r := Result{Err: &recordedError{prior.Err, prior.Status == Unresolved}, Cached: prior.Cached}
			return prior, r, replayed, nil
		}
		state = replayed
	}
	v := tx.get(answersBucket, []byte(key))
	if v == nil {
		if state == replayed {
			return e, Result{}, unknown, fmt.Errorf("%w: the answer to %q is recorded as given and missing", ErrCorrupt, e.ID)
		}
		return e, Result{}, unknown, nil
	}
	var rec answerRecord
	if err := unseal([]byte(key), v, &rec); err != nil {
		return e, Result{}, unknown, err
	}
	if state == replayed {
		return prior, Result{Answer: rec.Answer, Cached: prior.Cached}, replayed, nil
	}
	e.Status, e.Cached = Answered, true
	return e, Result{Answer: rec.Answer, Cached: true}, answeredElsewhere, nil
}

// record writes ended calls in one transaction: answers, entries, and the end of
// their intents.
func (b *batch) record(got []arrival) error {
	var fresh []Entry
	err := b.store.db.update(func(tx txn) error {
		fresh = fresh[:0]
		for _, a := range got {
			if a.end == abandoned {
				if err := retire(tx, []string{a.key}); err != nil {
					return err
				}
				continue
			}
			if a.end == unsent {
				if err := tx.del(intentsBucket, []byte(a.key)); err != nil {
					return err
				}
				continue
			}
			e := b.entry(a.key)
			e.fill(a.result)
			if a.result.Err != nil && a.sent {
				e.Bound = b.bound(a.key)
			}
			if e.Status == Answered {
				rec := answerRecord{Cloud: e.Cloud, ID: e.ID, Answer: a.result.Answer}
				if err := put(tx, answersBucket, []byte(a.key), &rec); err != nil {
					return err
				}
			}
			if err := put(tx, entriesBucket, entryKey(e.Run, e.Step, a.key), &e); err != nil {
				return err
			}
			if err := tx.del(intentsBucket, []byte(a.key)); err != nil {
				return err
			}
			fresh = append(fresh, e)
		}
		return nil
	})
	if err != nil {
		return b.store.fail("record answers", err)
	}
	for i := range fresh {
		b.store.count(&fresh[i])
	}
	return nil
}

func (e *Entry) fill(r Result) {
	e.Cached = r.Cached
	switch {
	case r.Err == nil:
		e.Status = Answered
		if !r.Cached {
			e.CostUSD, e.CostUnknown, e.Usage = r.Answer.CostUSD, r.Answer.CostUnknown, r.Answer.Usage
		}
	case IsTransient(r.Err):
		e.Status, e.Err = Unresolved, r.Err.Error()
	default:
		e.Status, e.Err = Failed, r.Err.Error()
	}
}

// share records that a call of another step or run, which this one waited for,
// failed.
func (b *batch) share(key string, cause error) error {
	e := b.entry(key)
	r := Result{Err: cause, Cached: true}
	e.fill(r)
	k := entryKey(e.Run, e.Step, key)
	added := false
	err := b.store.db.update(func(tx txn) error {
		added = false
		if tx.get(entriesBucket, k) != nil {
			return nil // the same step, asked for twice at once
		}
		added = true
		return put(tx, entriesBucket, k, &e)
	})
	if err != nil {
		return b.store.fail("record a failure", err)
	}
	if added {
		b.store.count(&e)
	}
	b.set(key, r)
	return nil
}
