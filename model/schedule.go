package model

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// step is Step after submissions have been taken in.
func (s *Scheduler) step() error {
	if s.dirty || s.admissible() || s.mustDrain() {
		if err := s.drain(); err != nil {
			return err
		}
		if err := s.admit(); err != nil {
			return err
		}
	}
	if err := s.grow(); err != nil {
		return err
	}
	if len(s.running) == 0 {
		return s.drain()
	}
	s.bind()
	s.launch()
	depth := 0
	if s.opts.Pipeline {
		depth = 1
	}
	for len(s.flight) > depth {
		if err := s.collect(); err != nil {
			return err
		}
	}
	return nil
}

// admissible reports whether a row is free and someone waits for it.
func (s *Scheduler) admissible() bool {
	return len(s.running) < s.opts.MaxBatch && (len(s.primed) > 0 || len(s.waiting) > 0)
}

// mustDrain reports whether a running sequence ends for its length with the
// steps under way: another would run past its pages.
func (s *Scheduler) mustDrain() bool {
	for _, q := range s.running {
		if q.len()+len(s.flight) >= q.h.total {
			return true
		}
	}
	return false
}

// admit fills free rows from primed and waiting sequences. No step is under
// way.
func (s *Scheduler) admit() error {
	for len(s.running) < s.opts.MaxBatch {
		if len(s.primed) == 0 && !s.prefill() {
			break
		}
		n := min(s.opts.MaxBatch-len(s.running), len(s.primed))
		s.running = append(s.running, s.primed[:n]...)
		s.primed = slices.Delete(s.primed, 0, n)
		s.dirty = true
	}
	return nil
}

// prefill computes the keys and values of waiting sequences, as many as the
// free rows, pages and the plan allow, and makes them primed. Samples of one
// request that have not begun share the computation and the full pages.
func (s *Scheduler) prefill() bool {
	p := &s.pack
	*p = packed{ids: p.ids[:0], positions: p.positions[:0], packing: engine.Packing{Segments: p.packing.Segments[:0]}}
	s.rowIDs, s.slotIDs = s.rowIDs[:0], s.slotIDs[:0]
	for len(s.waiting) > 0 && len(s.running)+len(s.primed) < s.opts.MaxBatch {
		k := s.prefillGroup(p)
		if k == 0 {
			break
		}
		s.primed = append(s.primed, s.waiting[:k]...)
		s.waiting = slices.Delete(s.waiting, 0, k)
	}
	if p.packing.Rows = len(p.ids); p.packing.Rows > 0 {
		s.counting.Prefills++
		s.counting.PrefillRows += p.packing.Rows
		s.d.prefill(p, s.rowIDs, s.slotIDs)
	}
	return len(s.primed) > 0
}

// prefillGroup adds the first waiting sequence and those that may share its
// rows to p. It returns how many of waiting that were, 0 where the first does
// not fit now.
func (s *Scheduler) prefillGroup(p *packed) int {
	const page = engine.PageSize
	first := s.waiting[0]
	rows := first.len() - 1 // the last token is the decode step's first input
	full, tail := rows/page, rows%page
	if len(p.ids)+rows > s.opts.PrefillRows {
		return 0
	}
	k := 1
	for len(first.out.Tokens) == 0 && k < len(s.waiting) && s.waiting[k].h == first.h && len(s.waiting[k].out.Tokens) == 0 {
		k++
	}
	// Everyone needs a page of their own for what follows the full ones. While
	// others run, leave each of them a page to grow into.
	busy := len(s.running) + len(s.primed)
	k = min(k, len(s.pages.free)-full-busy)
	// Samples beyond the free rows are prefilled along where that takes no page
	// that the rows may come to need.
	if rows := s.opts.MaxBatch - busy; k > rows {
		spare := len(s.pages.free) - full - rows*(first.maxPages()-full)
		for _, list := range [][]*sequence{s.running, s.primed} {
			for _, q := range list {
				spare -= q.maxPages() - len(q.pages)
			}
		}
		k = rows + max(0, min(k-rows, spare))
	}
	if room := s.opts.writes() - len(s.rowIDs) - full*page; tail > 0 {
		k = min(k, room/tail)
	}
	if k <= 0 {
		return 0
	}
	base := len(p.ids)
	s.scratch = s.scratch[:0]
	for i := range rows {
		s.scratch = append(s.scratch, first.at(i))
	}
	p.segment(s.scratch, 0, 0)
	put := func(i int, page int32) {
		s.rowIDs = append(s.rowIDs, int32(base+i))
		s.slotIDs = append(s.slotIDs, page*engine.PageSize+int32(i%engine.PageSize))
	}
	for i := range full {
		id := s.pages.take()
		first.pages = append(first.pages, id)
		for j := range page {
			put(i*page+j, id)
		}
	}
	for i, q := range s.waiting[:k] {
		if i > 0 {
			q.pages = append(q.pages[:0], first.pages[:full]...)
			for _, id := range q.pages {
				s.pages.share(id)
			}
		}
		id := s.pages.take()
		q.pages = append(q.pages, id)
		for j := range tail {
			put(full*page+j, id)
		}
		s.admitted++
		q.admitted = s.admitted
	}
	return k
}

// grow gives every running sequence the page that its next step writes to. If
// none is free, the sequence that was admitted last goes back to waiting.
func (s *Scheduler) grow() error {
	for i := 0; i < len(s.running); i++ {
		q := s.running[i]
		for len(q.pages)*engine.PageSize < q.len()+len(s.flight) {
			if len(s.pages.free) > 0 {
				q.pages = append(q.pages, s.pages.take())
				s.grown = true
				continue
			}
			if len(s.flight) > 0 {
				if err := s.drain(); err != nil { // may end sequences, this one too
					return err
				}
				i = -1
				break
			}
			if s.preempt() == q {
				i--
				break
			}
			i = slices.Index(s.running, q)
		}
	}
	return nil
}

// preempt sends the sequence that was admitted last back to the front of the
// queue and returns it. No step is under way.
func (s *Scheduler) preempt() *sequence {
	list, at := &s.running, -1
	for _, l := range []*[]*sequence{&s.primed, &s.running} {
		for i, q := range *l {
			if at < 0 || q.admitted > (*list)[at].admitted {
				list, at = l, i
			}
		}
	}
	q := (*list)[at]
	*list = slices.Delete(*list, at, at+1)
	s.release(q)
	s.waiting = slices.Insert(s.waiting, 0, q)
	s.counting.Preemptions++
	s.dirty = true
	return q
}

func (s *Scheduler) release(q *sequence) {
	for _, id := range q.pages {
		s.pages.release(id)
	}
	q.pages = q.pages[:0]
}

// bind brings the rows on the device up to date with running.
func (s *Scheduler) bind() {
	be, d, h := s.m.be, s.d, &s.host
	if !s.dirty && !s.grown {
		return
	}
	b := d.bucket(len(s.running))
	for i, q := range s.running {
		copy(h.table[i*d.table:(i+1)*d.table], q.pages)
	}
	be.UploadI32(d.pageTable.RowRange(0, b), h.table[:b*d.table])
	s.grown = false
	if !s.dirty {
		return
	}
	s.dirty = false
	s.counting.Binds++
	for i := range b {
		if i >= len(s.running) {
			h.state[statePositions*d.batch+i] = -1
			h.state[stateTokens*d.batch+i] = 0
			h.state[stateForced*d.batch+i] = 0
			continue
		}
		q := s.running[i]
		n, r := q.len(), &q.h.req
		h.state[stateTokens*d.batch+i] = q.at(n - 1)
		h.state[statePositions*d.batch+i] = int32(n - 1)
		h.state[stateForced*d.batch+i] = q.forced
		k := h.keys[i*engine.NumKeys : (i+1)*engine.NumKeys]
		k[engine.KeyTopK] = int32(r.Sampling.TopK)
		k[engine.KeySeedLo], k[engine.KeySeedHi] = int32(uint32(r.Seed)), int32(uint32(r.Seed>>32))
		k[engine.KeyStep], k[engine.KeyPrompt], k[engine.KeySample] = int32(r.Step), int32(r.PromptIndex), int32(q.out.Sample)
		v := h.params[i*engine.NumParams : (i+1)*engine.NumParams]
		v[engine.ParamTemperature], v[engine.ParamTopP] = r.Sampling.Temperature, r.Sampling.TopP
		v[engine.ParamMinP], v[engine.ParamHelpBias] = r.Sampling.MinP, r.Sampling.HelpBias
		if r.Sampling.TopP == 0 {
			v[engine.ParamTopP] = 1
		}
	}
	be.UploadI32(d.state, h.state)
	be.UploadI32(d.keys.RowRange(0, b), h.keys[:b*engine.NumKeys])
	be.UploadF32(d.params.RowRange(0, b), h.params[:b*engine.NumParams])
}

// launch submits one decode step and the reading of its results.
func (s *Scheduler) launch() {
	var f *flight
	if n := len(s.spare); n > 0 {
		f, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		f = &flight{state: make([]int32, stateRows*s.d.batch), stats: make([]float32, statRows*s.d.batch)}
	}
	f.rows = append(f.rows[:0], s.running...)
	s.m.be.Run(s.d.program(s.d.bucket(len(s.running))))
	s.m.be.DownloadI32(f.state, s.d.state)
	f.ticket = s.m.be.DownloadF32(f.stats, s.d.stats)
	s.flight = append(s.flight, f)
	s.counting.Steps++
}

// drain collects all steps under way.
func (s *Scheduler) drain() error {
	for len(s.flight) > 0 {
		if err := s.collect(); err != nil {
			return err
		}
	}
	return nil
}

// collect waits for the oldest step under way and hands out its tokens.
func (s *Scheduler) collect() error {
	f := s.flight[0]
	if err := s.m.be.Wait(f.ticket); err != nil {
		return fmt.Errorf("model: decoding: %w", err)
	}
	s.flight = slices.Delete(s.flight, 0, 1)
	s.spare = append(s.spare, f)
	b := s.d.batch
	ended := false
	for i, q := range f.rows {
		if q.out.Finish != Unfinished {
			s.counting.Surplus++
			continue
		}
		t := Token{
			Sample: q.out.Sample, Index: len(q.out.Tokens), ID: f.state[stateTokens*b+i], Forced: q.forced != 0,
			LogProb: f.stats[statLogProb*b+i], SamplingLogProb: f.stats[statSampling*b+i], Entropy: f.stats[statEntropy*b+i],
		}
		if t.LogProb != t.LogProb || t.ID < 0 || int(t.ID) >= s.m.cfg.VocabSize {
			return fmt.Errorf("model: decoding: token %d has log-prob %g at position %d: %w", t.ID, t.LogProb, q.len(), ErrNonFinite)
		}
		q.forced = f.state[stateForced*b+i]
		s.counting.Tokens++
		if reason := s.accept(q, t); reason != Unfinished {
			s.finish(q, reason)
			ended = true
		}
	}
	if ended {
		s.sweep()
	}
	return nil
}

// accept appends a token to its sample and says whether that ends it.
func (s *Scheduler) accept(q *sequence, t Token) FinishReason {
	o := &q.out
	o.Tokens = append(o.Tokens, t.ID)
	o.LogProbs = append(o.LogProbs, t.LogProb)
	o.SamplingLogProbs = append(o.SamplingLogProbs, t.SamplingLogProb)
	o.Entropies = append(o.Entropies, t.Entropy)
	o.Forced = append(o.Forced, t.Forced)
	goOn := true
	if q.h.req.OnToken != nil {
		goOn = q.h.req.OnToken(t)
	}
	switch {
	case !goOn || q.stops():
		return FinishStop
	case q.len() >= q.h.total:
		return FinishLength
	}
	return Unfinished
}

// finish ends a sample and gives its pages back. It stays in its list until
// sweep.
func (s *Scheduler) finish(q *sequence, reason FinishReason) {
	if q.out.Finish != Unfinished {
		return
	}
	q.out.Finish = reason
	s.release(q)
	if q.h.open--; q.h.open == 0 {
		close(q.h.done)
	}
}

// sweep removes finished sequences from all lists.
func (s *Scheduler) sweep() {
	ended := func(q *sequence) bool { return q.out.Finish != Unfinished }
	n := len(s.running)
	s.running = slices.DeleteFunc(s.running, ended)
	s.primed = slices.DeleteFunc(s.primed, ended)
	s.waiting = slices.DeleteFunc(s.waiting, ended)
	if len(s.running) != n {
		s.dirty = true
	}
}
