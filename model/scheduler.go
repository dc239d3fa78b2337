package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/updraft-ml/updraft/engine"
)

// SchedulerOptions sizes a scheduler's memory.
type SchedulerOptions struct {
	MaxBatch    int // sequences in the largest decode step; 0: 64
	MaxTokens   int // longest sequence, prompt included; 0: the model's context
	Pages       int // of engine.PageSize tokens in the cache; 0: MaxBatch sequences of MaxTokens and as many prompts in waiting
	PrefillRows int // packed rows of the largest prefill; 0: max(MaxTokens, 512)

	Marker      []int32 // the help marker's tokens; empty: Sampling.HelpBias has no effect
	MarkerAfter []int32 // tokens that the marker may follow

	// Pipeline submits a decode step before the last one's tokens have been
	// read. A device then never waits for the host, and a sequence that is found
	// to have ended has run one step too far, which is dropped. On backends that
	// are Async it is always so.
	Pipeline bool
}

func (o *SchedulerOptions) setDefaults(context int) {
	if o.MaxBatch == 0 {
		o.MaxBatch = 64
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = context
	}
	if o.Pages == 0 {
		o.Pages = o.MaxBatch * (pagesFor(o.MaxTokens) + 1)
	}
	if o.PrefillRows == 0 {
		o.PrefillRows = max(o.MaxTokens, 512)
	}
}

func (o *SchedulerOptions) check(m *Model) error {
	switch {
	case o.MaxBatch < 0 || o.Pages < 0 || o.PrefillRows < 0:
		return errors.New("model: scheduler: sizes must not be negative")
	case o.MaxTokens < 2 || o.MaxTokens > m.opts.MaxContext:
		return fmt.Errorf("model: scheduler: sequences of %d tokens: the model's context is %d", o.MaxTokens, m.opts.MaxContext)
	case o.PrefillRows < o.MaxTokens-1:
		return fmt.Errorf("model: scheduler: PrefillRows %d cannot hold a sequence of %d tokens", o.PrefillRows, o.MaxTokens)
	}
	if err := checkTokens(o.Marker, m.cfg.VocabSize); err != nil {
		return fmt.Errorf("model: scheduler: marker: %w", err)
	}
	if err := checkTokens(o.MarkerAfter, m.cfg.VocabSize); err != nil {
		return fmt.Errorf("model: scheduler: tokens before the marker: %w", err)
	}
	return nil
}

// SchedulerStats counts a scheduler's work since it was made.
type SchedulerStats struct {
	Steps       int // decode steps
	Tokens      int // generated and kept
	Surplus     int // computed for sequences that had ended
	Prefills    int
	PrefillRows int
	Binds       int // times that all rows were set up anew
	Joins       int // sequences that took a row while steps were under way
	Preemptions int // sequences that gave their pages up and were prefilled again
	PagesUsed   int
	PagesPeak   int
	Running     int // sequences in the batch
	Waiting     int // sequences not in the batch
}

// Scheduler generates for many requests at once over one model: rollouts,
// evaluation and serving alike. Requests are admitted in the order of
// submission when the batch has a free row and the cache has free pages;
// finished sequences leave at once. When the cache is full, the sequence that
// was admitted last gives up its pages and is prefilled again later. A sample's
// tokens and log-probs do not depend on any of this.
//
// Submit, Continue, Cancel and Stats may be called from any goroutine; Step,
// Run, Serve and Close from one at a time, which is also the only one to use
// the model meanwhile.
type Scheduler struct {
	m    *Model
	opts SchedulerOptions
	d    *decoder

	mu     sync.Mutex // guards inbox, cancels, stats, err and Handle.cancelled
	inbox  []*Handle
	cancel bool
	stats  SchedulerStats
	err    error         // why nothing more can be done
	wake   chan struct{} // a submission or cancellation has come

	pages    *pageAllocator
	waiting  []*sequence // in the order of admission
	primed   []*sequence // prefilled, waiting for a row
	running  []*sequence // row i of the batch; nil where nobody has it
	dirty    bool        // all rows are to be set up; no step is under way
	joined   []int       // rows to be set up, the others staying as they are
	left     []int       // rows to be made inactive
	grown    bool        // the page table on the device is out of date
	admitted uint64
	flight   []*flight // steps submitted and not yet read, oldest first
	spare    []*flight

	host     hostRows
	pack     packed
	rowIDs   []int32
	slotIDs  []int32
	scratch  []int32
	counting SchedulerStats // published to stats after each step
}

// flight is a decode step under way.
type flight struct {
	rows   []*sequence // nil where nobody had the row
	state  []int32
	stats  []float32
	ticket engine.Ticket
}

// hostRows mirrors the batch's rows for upload.
type hostRows struct {
	state, keys, table []int32
	params             []float32
}

// NewScheduler allocates the cache and everything else that generation needs.
func NewScheduler(m *Model, o SchedulerOptions) (*Scheduler, error) {
	o.setDefaults(m.opts.MaxContext)
	o.Marker, o.MarkerAfter = slices.Clone(o.Marker), slices.Clone(o.MarkerAfter)
	o.Pipeline = o.Pipeline || m.be.Async()
	if err := o.check(m); err != nil {
		return nil, err
	}
	d, err := newDecoder(m, &o)
	if err != nil {
		return nil, err
	}
	return &Scheduler{
		m: m, opts: o, d: d, pages: newPageAllocator(o.Pages), wake: make(chan struct{}, 1),
		host: hostRows{
			state:  make([]int32, stateRows*o.MaxBatch),
			keys:   make([]int32, o.MaxBatch*engine.NumKeys),
			table:  make([]int32, o.MaxBatch*d.table),
			params: make([]float32, o.MaxBatch*engine.NumParams),
		},
	}, nil
}

// Options returns the scheduler's options with the defaults filled in.
func (s *Scheduler) Options() SchedulerOptions { return s.opts }

// Submit queues a request. It fails at once where the request can never be
// served: an empty or too long prompt, a token outside the vocabulary, a cache
// too small for one of its samples.
func (s *Scheduler) Submit(r Request) (*Handle, error) {
	return s.submit(r, nil)
}

// Continue queues a request that goes on from a finished sample of h with
// further tokens appended (none is allowed). r.Prompt is ignored. The sequence
// is prefilled again; draws go on at its next position.
func (s *Scheduler) Continue(h *Handle, sample int, appended []int32, r Request) (*Handle, error) {
	select {
	case <-h.done:
	default:
		return nil, errors.New("model: Continue of a request that has not finished")
	}
	if sample < 0 || sample >= len(h.seqs) {
		return nil, fmt.Errorf("model: Continue of sample %d of %d", sample, len(h.seqs))
	}
	q := h.seqs[sample]
	r.Prompt = slices.Concat(h.req.Prompt, q.out.Tokens, appended)
	if len(appended) > 0 {
		q = nil // whatever was being forced is over
	}
	return s.submit(r, q)
}

func (s *Scheduler) submit(r Request, from *sequence) (*Handle, error) {
	if r.N == 0 {
		r.N = 1
	}
	p := len(r.Prompt)
	switch {
	case r.N < 0 || r.MaxNewTokens < 0:
		return nil, errors.New("model: request: N and MaxNewTokens must not be negative")
	case p == 0:
		return nil, errors.New("model: request: the prompt is empty: it needs one token at least")
	case p >= s.opts.MaxTokens:
		return nil, fmt.Errorf("model: request: the prompt has %d tokens, which leaves no room in a context of %d: shorten it", p, s.opts.MaxTokens)
	}
	if err := checkTokens(r.Prompt, s.m.cfg.VocabSize); err != nil {
		return nil, fmt.Errorf("model: request: prompt: %w", err)
	}
	if err := r.Sampling.check(); err != nil {
		return nil, err
	}
	h := &Handle{req: r, open: r.N, done: make(chan struct{}), total: s.opts.MaxTokens}
	if r.MaxNewTokens > 0 {
		h.total = min(h.total, p+r.MaxNewTokens)
	}
	if need := pagesFor(h.total - 1); need > s.opts.Pages {
		return nil, fmt.Errorf("model: request: a sequence of %d tokens needs %d pages, the cache has %d: lower MaxNewTokens or raise Pages", h.total, need, s.opts.Pages)
	}
	h.req.Prompt = slices.Clone(r.Prompt)
	if r.StopTokens == nil {
		h.req.StopTokens = s.m.cfg.EOSTokenID
	}
	room := min(h.total-p, 128)
	for i := range r.N {
		q := &sequence{h: h, out: Completion{
			Sample: r.FirstSample + i, Tokens: make([]int32, 0, room), Forced: make([]bool, 0, room),
			LogProbs: make([]float32, 0, room), SamplingLogProbs: make([]float32, 0, room), Entropies: make([]float32, 0, room),
		}}
		if from != nil {
			q.forced = from.forced
		}
		h.seqs = append(h.seqs, q)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	s.inbox = append(s.inbox, h)
	s.signal()
	return h, nil
}

// Cancel ends a request's unfinished samples at the next step.
func (s *Scheduler) Cancel(h *Handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.cancelled, s.cancel = true, true
	s.signal()
}

func (s *Scheduler) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Stats returns the counters as of the latest step.
func (s *Scheduler) Stats() SchedulerStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Run steps until everything submitted has finished. When ctx ends it returns
// between two steps, and a later Run goes on from there.
func (s *Scheduler) Run(ctx context.Context) error {
	for {
		if more, err := s.Step(ctx); err != nil || !more {
			return err
		}
	}
}

// Serve steps whenever there is something to do, until ctx ends.
func (s *Scheduler) Serve(ctx context.Context) error {
	for {
		if err := s.Run(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		}
	}
}

// Step admits what fits, runs one decode step and hands out its tokens. more
// tells whether anything is left to do. After a failure of the device every
// request has ended with FinishCancelled and the scheduler stays unusable.
func (s *Scheduler) Step(ctx context.Context) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := s.receive(); err != nil {
		return false, err
	}
	if err = s.step(); err != nil {
		s.fail(err)
		return false, err
	}
	s.publish()
	return len(s.waiting)+len(s.primed)+s.occupied() > 0, nil
}

// publish copies the counters for Stats.
func (s *Scheduler) publish() {
	c := &s.counting
	c.PagesUsed, c.PagesPeak = s.pages.used(), s.pages.peak
	c.Running, c.Waiting = s.occupied(), len(s.waiting)+len(s.primed)
	s.mu.Lock()
	s.stats = *c
	s.mu.Unlock()
}

// receive takes submissions and cancellations in.
func (s *Scheduler) receive() error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return s.err
	}
	inbox, cancel := s.inbox, s.cancel
	s.inbox, s.cancel = nil, false
	var gone []*sequence
	for _, h := range inbox {
		s.waiting = append(s.waiting, h.seqs...)
	}
	if cancel {
		for _, list := range [][]*sequence{s.waiting, s.primed, s.running} {
			for _, q := range list {
				if q != nil && q.h.cancelled {
					gone = append(gone, q)
				}
			}
		}
	}
	s.mu.Unlock()
	for _, q := range gone {
		s.finish(q, FinishCancelled)
	}
	if len(gone) > 0 {
		s.retire()
	}
	return nil
}

// fail ends everything with err.
func (s *Scheduler) fail(err error) {
	s.mu.Lock()
	s.err = err
	for _, h := range s.inbox {
		s.waiting = append(s.waiting, h.seqs...)
	}
	s.inbox = nil
	s.mu.Unlock()
	all := slices.Concat(s.waiting, s.primed, s.running)
	for _, f := range s.flight {
		all = append(all, f.rows...)
	}
	for _, q := range all {
		if q != nil && q.out.Finish == Unfinished {
			q.h.err = err
			s.finish(q, FinishCancelled)
		}
	}
	s.waiting, s.primed, s.running, s.flight = nil, nil, nil, nil
}

// Close ends what is unfinished with FinishCancelled and frees the memory. The
// model stays.
func (s *Scheduler) Close() error {
	s.mu.Lock()
	closed := s.err == errClosed
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := s.m.be.Sync() // downloads under way end before their slices go
	s.fail(errClosed)
	s.d.free()
	return err
}

var errClosed = errors.New("model: the scheduler is closed")
