package model

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

func newScheduler(t testing.TB, m *Model, o SchedulerOptions) *Scheduler {
	s, err := NewScheduler(m, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func submit(t testing.TB, s *Scheduler, r Request) *Handle {
	h, err := s.Submit(r)
	require.NoError(t, err)
	return h
}

// run serves one request alone.
func run(t testing.TB, s *Scheduler, r Request) []Completion {
	h := submit(t, s, r)
	require.NoError(t, s.Run(ctx))
	select {
	case <-h.Done():
	default:
		t.Fatal("the request has not finished")
	}
	require.NoError(t, h.Err())
	return h.Completions()
}

// Greedy decoding takes the most likely token: no other has a higher log-prob
// in the training forward.
func TestGreedy(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{MaxRows: 2000})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 4, MaxTokens: 60})
	prompt := []int32{3, 9, 4}
	c := run(t, s, Request{Prompt: prompt, MaxNewTokens: 20, StopTokens: []int32{}})[0]
	require.Len(t, c.Tokens, 20)
	for i, id := range c.Tokens {
		g := Group{Prompt: append(append([]int32(nil), prompt...), c.Tokens[:i]...)}
		for v := range m.cfg.VocabSize {
			g.Responses = append(g.Responses, []int32{int32(v)})
		}
		out, err := m.Forward(ctx, &Batch{Groups: []Group{g}})
		require.NoError(t, err)
		for v, lp := range out.LogProbs {
			require.LessOrEqual(t, lp, out.LogProbs[id], "token %d at %d", v, i)
		}
		require.Equal(t, out.LogProbs[id], c.LogProbs[i])
		require.Zero(t, c.SamplingLogProbs[i])
	}
}

func TestStops(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 4, MaxTokens: 60})
	r := Request{Prompt: []int32{3, 9, 4}, Seed: 5, Sampling: Sampling{Temperature: 1}, StopTokens: []int32{}}
	all := run(t, s, r)[0]
	require.Equal(t, FinishLength, all.Finish)
	require.Len(t, all.Tokens, 57, "up to the longest sequence")

	r.MaxNewTokens = 9
	c := run(t, s, r)[0]
	require.Equal(t, FinishLength, c.Finish)
	require.Equal(t, all.Tokens[:9], c.Tokens)
	require.Equal(t, all.LogProbs[:9], c.LogProbs)

	// The first occurrence of a token, and of a pair, ends the sample.
	r.MaxNewTokens = 0
	stop := all.Tokens[20]
	at := 0
	for all.Tokens[at] != stop {
		at++
	}
	r.StopTokens = []int32{stop}
	c = run(t, s, r)[0]
	require.Equal(t, FinishStop, c.Finish)
	require.Equal(t, all.Tokens[:at+1], c.Tokens, "the stop token is kept")

	pair := all.Tokens[20:22]
	for at = 1; all.Tokens[at-1] != pair[0] || all.Tokens[at] != pair[1]; at++ {
	}
	r.StopTokens, r.StopSequences = []int32{}, [][]int32{{}, pair}
	c = run(t, s, r)[0]
	require.Equal(t, FinishStop, c.Finish)
	require.Equal(t, all.Tokens[:at+1], c.Tokens)

	// nil means the configuration's.
	m.cfg.EOSTokenID = TokenIDs{stop}
	r.StopTokens, r.StopSequences = nil, nil
	require.Equal(t, FinishStop, run(t, s, r)[0].Finish)
	require.Equal(t, []string{"", "stop", "length", "cancelled"},
		[]string{Unfinished.String(), FinishStop.String(), FinishLength.String(), FinishCancelled.String()})
}

func TestStreaming(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	for _, pipeline := range []bool{false, true} {
		s := newScheduler(t, m, SchedulerOptions{MaxBatch: 3, MaxTokens: 60, Pipeline: pipeline})
		got := map[int][]Token{}
		var later *Handle
		r := Request{Prompt: []int32{3, 9, 4}, N: 5, FirstSample: 10, MaxNewTokens: 12, Sampling: Sampling{Temperature: 1}, StopTokens: []int32{}}
		r.OnToken = func(k Token) bool {
			got[k.Sample] = append(got[k.Sample], k)
			if later == nil { // a callback may submit
				later = submit(t, s, Request{Prompt: []int32{1}, MaxNewTokens: 3})
			}
			return k.Sample != 12 || k.Index < 4
		}
		cs := run(t, s, r)
		require.Len(t, cs, 5)
		for i, c := range cs {
			require.Equal(t, 10+i, c.Sample)
			want, reason := 12, FinishLength
			if c.Sample == 12 {
				want, reason = 5, FinishStop
			}
			require.Equal(t, reason, c.Finish)
			require.Len(t, c.Tokens, want)
			require.Len(t, got[c.Sample], want)
			for j, k := range got[c.Sample] {
				require.Equal(t, Token{c.Sample, j, c.Tokens[j], c.LogProbs[j], c.SamplingLogProbs[j], c.Entropies[j], c.Forced[j]}, k)
			}
		}
		require.NotEqual(t, cs[0].Tokens, cs[1].Tokens, "samples differ")
		<-later.Done()
	}
}

func TestCancel(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	for _, pipeline := range []bool{false, true} {
		s := newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 60, Pipeline: pipeline})
		r := Request{Prompt: []int32{3, 9, 4}, N: 3, Sampling: Sampling{Temperature: 1}, StopTokens: []int32{}}
		a, b, c := submit(t, s, r), submit(t, s, r), submit(t, s, r)
		for range 5 {
			_, err := s.Step(ctx)
			require.NoError(t, err)
		}
		s.Cancel(a) // running
		s.Cancel(c) // waiting
		require.NoError(t, s.Run(ctx))
		<-a.Done()
		<-c.Done()
		for _, x := range append(a.Completions(), c.Completions()...) {
			require.Equal(t, FinishCancelled, x.Finish)
			require.Less(t, len(x.Tokens), 10)
		}
		require.NotEmpty(t, a.Completions()[0].Tokens, "what was generated is kept")
		for _, x := range b.Completions() {
			require.Equal(t, FinishLength, x.Finish)
		}
		require.Zero(t, s.Stats().PagesUsed)
		s.Cancel(b) // finished: nothing happens
		_, err := s.Step(ctx)
		require.NoError(t, err)
		require.Equal(t, FinishLength, b.Completions()[0].Finish)
	}
}

// A context that ends stops Run between two steps; a later Run goes on, and
// the samples are the same as without the interruption.
func TestRunResumes(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 60})
	r := Request{Prompt: []int32{3, 9, 4}, N: 3, Sampling: Sampling{Temperature: 1}, MaxNewTokens: 10}
	want := run(t, s, r)
	stopping, cancel := context.WithCancel(ctx)
	n := 0
	r.OnToken = func(Token) bool {
		if n++; n == 5 {
			cancel()
		}
		return true
	}
	h := submit(t, s, r)
	require.ErrorIs(t, s.Run(stopping), context.Canceled)
	require.Less(t, n, 8)
	require.NoError(t, s.Run(ctx))
	require.Equal(t, want, h.Completions())
}

// Continue goes on as if generation had never ended: same tokens, same bits.
func TestContinue(t *testing.T) {
	m := newTiny(t, newCPU(t), "qwen3", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 100})
	r := Request{Prompt: []int32{3, 9, 4}, Sampling: Sampling{Temperature: 1}, MaxNewTokens: 70, StopTokens: []int32{}}
	all := run(t, s, r)[0]
	r.MaxNewTokens = 40
	h := submit(t, s, r)
	_, err := s.Continue(h, 0, nil, r)
	require.ErrorContains(t, err, "not finished")
	require.NoError(t, s.Run(ctx))
	r.MaxNewTokens = 30
	_, err = s.Continue(h, 1, nil, r)
	require.Error(t, err)
	more, err := s.Continue(h, 0, nil, r)
	require.NoError(t, err)
	other, err := s.Continue(h, 0, []int32{5, 6}, r)
	require.NoError(t, err)
	require.NoError(t, s.Run(ctx))
	require.Equal(t, all.Tokens[40:], more.Completions()[0].Tokens)
	require.Zero(t, bitDiffs(all.LogProbs[40:], more.Completions()[0].LogProbs))
	require.Len(t, other.Completions()[0].Tokens, 30)
	require.NotEqual(t, more.Completions()[0].Tokens, other.Completions()[0].Tokens)
}

// The help bias decides at its declared places, forces the rest of the marker
// and leaves raw log-probs alone, through preemption and Continue too.
func TestHelpBias(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{MaxRows: 4000})
	marker, after := []int32{20, 21, 22}, []int32{5, 6, 7, 8, 9, 10}
	may := map[int32]bool{}
	for _, id := range after {
		may[id] = true
	}
	o := SchedulerOptions{MaxBatch: 8, MaxTokens: 100, Marker: marker, MarkerAfter: after}
	prompts := testPrompts(m.cfg.VocabSize)[:6]
	r := Request{N: 4, MaxNewTokens: 40, Sampling: Sampling{Temperature: 1, HelpBias: 50}, StopTokens: []int32{}}
	handles := rollout(t, m, o, prompts, r)
	begun := 0
	for _, h := range handles {
		for _, c := range h.Completions() {
			place := 0
			before := h.req.Prompt[len(h.req.Prompt)-1]
			for i, id := range c.Tokens {
				require.Equal(t, place > 0, c.Forced[i])
				switch {
				case place > 0:
					require.Equal(t, marker[place], id)
					require.Zero(t, c.SamplingLogProbs[i])
					place = (place + 1) % len(marker)
				case may[before]:
					require.Equal(t, marker[0], id, "a bias of 50 decides")
					place = 1
					begun++
				}
				before = id
			}
		}
	}
	require.Greater(t, begun, 10)
	b, logp, _ := batchOf(handles)
	got, _ := forward(t, m, &b)
	require.Zero(t, bitDiffs(logp, got), "raw log-probs")

	few := o
	few.Pages = 7
	again := rollout(t, m, few, prompts, r)
	for i := range handles {
		require.Equal(t, handles[i].Completions(), again[i].Completions())
	}

	r.Sampling.HelpBias = float32(math.Inf(-1))
	for _, h := range rollout(t, m, o, prompts, r) {
		before := h.req.Prompt[len(h.req.Prompt)-1]
		for _, c := range h.Completions() {
			before := before
			for i, id := range c.Tokens {
				require.False(t, c.Forced[i])
				require.False(t, may[before] && id == marker[0], "the marker is forbidden here")
				before = id
			}
		}
	}
	// A marker cut by the length goes on when the sample does.
	s := newScheduler(t, m, o)
	r = Request{Prompt: []int32{5}, MaxNewTokens: 1, Sampling: Sampling{HelpBias: 50}}
	h := submit(t, s, r)
	require.NoError(t, s.Run(ctx))
	require.Equal(t, marker[:1], h.Completions()[0].Tokens)
	r.MaxNewTokens = 2
	h, err := s.Continue(h, 0, nil, r)
	require.NoError(t, err)
	require.NoError(t, s.Run(ctx))
	require.Equal(t, marker[1:], h.Completions()[0].Tokens)
	require.Equal(t, []bool{true, true}, h.Completions()[0].Forced)
}

func TestSubmitErrors(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 100, Pages: 2})
	ok := Request{Prompt: []int32{1, 2}, MaxNewTokens: 5}
	for name, c := range map[string]struct {
		change func(*Request)
		want   string
	}{
		"empty":       {func(r *Request) { r.Prompt = nil }, "the prompt is empty"},
		"long":        {func(r *Request) { r.Prompt = make([]int32, 100) }, "100 tokens, which leaves no room in a context of 100"},
		"never fits":  {func(r *Request) { r.MaxNewTokens = 64 }, "needs 3 pages, the cache has 2"},
		"token":       {func(r *Request) { r.Prompt = []int32{1, 29} }, "token 29 at 1 is outside the vocabulary of 29"},
		"n":           {func(r *Request) { r.N = -1 }, "negative"},
		"temperature": {func(r *Request) { r.Sampling.Temperature = -1 }, "temperature"},
		"top-p":       {func(r *Request) { r.Sampling.TopP = 1.5 }, "top-p"},
		"min-p":       {func(r *Request) { r.Sampling.MinP = float32(math.NaN()) }, "min-p"},
		"top-k":       {func(r *Request) { r.Sampling.TopK = -1 }, "top-k"},
		"bias":        {func(r *Request) { r.Sampling.HelpBias = float32(math.NaN()) }, "help bias"},
	} {
		r := ok
		c.change(&r)
		_, err := s.Submit(r)
		require.ErrorContains(t, err, c.want, name)
		require.NotContains(t, err.Error(), "\n")
	}
	ok.MaxNewTokens, ok.StopTokens = 63, []int32{} // 65 tokens, of which the last is never stored
	require.Len(t, run(t, s, ok)[0].Tokens, 63)

	for name, o := range map[string]SchedulerOptions{
		"context": {MaxTokens: 161}, "prefill": {MaxTokens: 100, PrefillRows: 98}, "marker": {Marker: []int32{29}},
		"after": {MarkerAfter: []int32{-1}}, "batch": {MaxBatch: -1},
	} {
		_, err := NewScheduler(m, o)
		require.Error(t, err, name)
	}
}

// Requests in random sizes with a cache that is always short: every request
// ends, no page leaks, and each result is what it is alone.
func TestSchedulerUnderPressure(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	rng := rand.New(rand.NewPCG(6, 6))
	var requests []Request
	for i := range 40 {
		requests = append(requests, Request{
			Prompt: randomTokens(rng, 1+rng.IntN(70), m.cfg.VocabSize), N: 1 + rng.IntN(5), MaxNewTokens: 1 + rng.IntN(60),
			Sampling: Sampling{Temperature: 1}, PromptIndex: i,
		})
	}
	alone := newScheduler(t, m, SchedulerOptions{MaxBatch: 5, MaxTokens: 140})
	var want [][]Completion
	for _, r := range requests {
		want = append(want, run(t, alone, r))
	}
	for _, pipeline := range []bool{false, true} {
		s := newScheduler(t, m, SchedulerOptions{MaxBatch: 12, MaxTokens: 140, Pages: 13, Pipeline: pipeline})
		var handles []*Handle
		for _, r := range requests {
			handles = append(handles, submit(t, s, r))
		}
		require.NoError(t, s.Run(ctx))
		for i, h := range handles {
			require.Equal(t, want[i], h.Completions(), "request %d", i)
		}
		st := s.Stats()
		require.Zero(t, st.PagesUsed)
		require.LessOrEqual(t, st.PagesPeak, 13)
		require.Positive(t, st.Preemptions, "the test is meant to be short of pages")
		if !pipeline {
			require.Zero(t, st.Surplus)
		}
	}
}

// A group's prompt is computed and stored once.
func TestPromptIsShared(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 8, MaxTokens: 100})
	run(t, s, Request{Prompt: make([]int32, 70), N: 8, MaxNewTokens: 2, StopTokens: []int32{}})
	st := s.Stats()
	require.Equal(t, 69, st.PrefillRows)
	require.Equal(t, 1, st.Prefills)
	require.Equal(t, 2+8, st.PagesPeak)
	require.Equal(t, 2, st.Steps)
	require.Equal(t, 16, st.Tokens)
	require.Equal(t, 1, st.Binds, "the rows are bound once")

	// Where the rows do not suffice for the group, the others wait prefilled.
	s = newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 100, Pages: 40})
	run(t, s, Request{Prompt: make([]int32, 70), N: 8, MaxNewTokens: 2, StopTokens: []int32{}})
	require.Equal(t, 69, s.Stats().PrefillRows)
}

// Submissions and cancellations from other goroutines while Serve runs.
func TestServe(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 4, MaxTokens: 60})
	serving, stop := context.WithTimeout(ctx, time.Minute)
	ended := make(chan error)
	go func() { ended <- s.Serve(serving) }()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				h, err := s.Submit(Request{Prompt: []int32{int32(i), int32(j)}, MaxNewTokens: 5, StopTokens: []int32{}, Sampling: Sampling{Temperature: 1}})
				if err != nil {
					t.Error(err)
					return
				}
				if j == 3 {
					s.Cancel(h)
				}
				<-h.Done()
				c := h.Completions()[0]
				if c.Finish != FinishLength && (j != 3 || c.Finish != FinishCancelled) {
					t.Errorf("request %d.%d ended with %v", i, j, c.Finish)
				}
				s.Stats()
			}
		})
	}
	wg.Wait()
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// asyncBackend says that it is asynchronous, and counts how often the host
// waited for a decode step with no other one submitted behind it.
type asyncBackend struct {
	engine.Backend
	runs, waits, idle int
}

func (b *asyncBackend) Async() bool { return true }

func (b *asyncBackend) Run(p engine.Program) {
	b.runs++
	b.Backend.Run(p)
}

func (b *asyncBackend) Wait(k engine.Ticket) error {
	if b.waits++; b.runs <= b.waits {
		b.idle++
	}
	return b.Backend.Wait(k)
}

// On an asynchronous device the next step is under way whenever the host reads
// the last, while sequences end for every reason and others take their rows; what
// is computed for those that have ended is dropped, and results are the same.
func TestDeviceDoesNotWaitForTheHost(t *testing.T) {
	generate := func(be engine.Backend) ([][]Completion, SchedulerStats) {
		m := newTiny(t, be, "qwen3", Options{})
		if a, ok := be.(*asyncBackend); ok {
			*a = asyncBackend{Backend: a.Backend} // count from here
		}
		s := newScheduler(t, m, SchedulerOptions{MaxBatch: 8, MaxTokens: 110, Marker: []int32{3, 4}, MarkerAfter: []int32{5, 6, 7}})
		var handles []*Handle
		for i, p := range slices.Concat(testPrompts(m.cfg.VocabSize), testPrompts(m.cfg.VocabSize)) {
			r := Request{Prompt: p, PromptIndex: i, N: 3, MaxNewTokens: 3 + i%23, Seed: 9, Sampling: Sampling{Temperature: 1, HelpBias: float32(i % 3)}}
			if i%4 == 1 {
				r.OnToken = func(k Token) bool { return k.Index < 6 }
			}
			if i%4 == 2 {
				r.StopTokens = []int32{2, 8, 11, 20}
			}
			handles = append(handles, submit(t, s, r))
		}
		require.NoError(t, s.Run(ctx))
		var out [][]Completion
		for _, h := range handles {
			out = append(out, h.Completions())
		}
		st := s.Stats()
		require.Zero(t, st.PagesUsed)
		return out, st
	}
	want, plain := generate(newCPU(t))
	require.Zero(t, plain.Joins)
	require.Zero(t, plain.Surplus)
	be := &asyncBackend{Backend: newCPU(t)}
	got, st := generate(be)
	require.Equal(t, want, got)
	require.Equal(t, plain.Tokens, st.Tokens)
	require.Greater(t, st.Joins, 30)
	require.Positive(t, st.Surplus)
	// The rows are set up at the beginning and whenever few enough are left for a
	// smaller program: of 8, 4, 2 and 1 rows. Then, and at the end, it waits.
	require.LessOrEqual(t, st.Binds, 4)
	require.LessOrEqual(t, be.idle, 4)
	require.Greater(t, st.Steps, 60)
}

// brokenBackend fails every Wait once told to.
type brokenBackend struct {
	engine.Backend
	broken bool
}

var errBroken = errors.New("the device has fallen off the bus")

func (b *brokenBackend) Wait(k engine.Ticket) error {
	if err := b.Backend.Wait(k); err != nil || !b.broken {
		return err
	}
	return errBroken
}

func TestDeviceFailure(t *testing.T) {
	be := &brokenBackend{Backend: newCPU(t)}
	m := newTiny(t, be, "llama", Options{})
	s := newScheduler(t, m, SchedulerOptions{MaxBatch: 2, MaxTokens: 60})
	h := submit(t, s, Request{Prompt: []int32{1}, N: 3})
	_, err := s.Step(ctx)
	require.NoError(t, err)
	be.broken = true
	require.ErrorIs(t, s.Run(ctx), errBroken)
	<-h.Done()
	require.ErrorIs(t, h.Err(), errBroken)
	for _, c := range h.Completions() {
		require.Equal(t, FinishCancelled, c.Finish)
	}
	_, err = s.Submit(Request{Prompt: []int32{1}})
	require.ErrorIs(t, err, errBroken)
	require.ErrorIs(t, s.Run(ctx), errBroken)
	be.broken = false
}

func TestNotFiniteWeights(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	v := make([]float32, m.cfg.HiddenSize)
	v[3] = float32(math.NaN())
	require.NoError(t, m.WriteParam(ctx, Weights, "model.norm.weight", v))
	s := newScheduler(t, m, SchedulerOptions{MaxTokens: 60})
	submit(t, s, Request{Prompt: []int32{1}})
	require.ErrorContains(t, s.Run(ctx), "not finite")
}

func TestCloseEndsRequests(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{})
	s, err := NewScheduler(m, SchedulerOptions{MaxBatch: 2, MaxTokens: 60, Pipeline: true})
	require.NoError(t, err)
	h := submit(t, s, Request{Prompt: []int32{1}, N: 5})
	_, err = s.Step(ctx)
	require.NoError(t, err)
	late := submit(t, s, Request{Prompt: []int32{1}})
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	<-h.Done()
	<-late.Done()
	require.Equal(t, FinishCancelled, late.Completions()[0].Finish)
	_, err = s.Submit(Request{Prompt: []int32{1}})
	require.ErrorIs(t, err, errClosed)
}

func TestBuckets(t *testing.T) {
	d := &decoder{batch: 300}
	last := 0
	for n := 1; n <= 300; n++ {
		b := d.bucket(n)
		require.GreaterOrEqual(t, b, n)
		require.GreaterOrEqual(t, b, last)
		require.LessOrEqual(t, b, 300)
		last = b
	}
	require.Equal(t, 5, (&decoder{batch: 5}).bucket(5))
}
