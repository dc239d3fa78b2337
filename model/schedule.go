package model

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// step is Step after submissions have been taken in.
//
// Where steps are pipelined, those under way go on while sequences come and go:
// a row that somebody leaves is made inactive, a row that somebody takes is set
// up, both by operations behind the steps under way. What was left may still
// write to its pages in one of those, before whoever gets the pages next.
func (s *Scheduler) step() error {
	s.retire()
	s.admit()
	if err := s.grow(); err != nil {
		return err
	}
	if d := s.d; s.occupied() > 0 && d.bucket(len(s.running)) > d.bucket(s.occupied()) {
		if err := s.drain(); err != nil { // moves everybody up
			return err
		}
	}
	if s.occupied() == 0 {
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
	if s.occupied() == 0 && len(s.primed)+len(s.waiting) == 0 {
		return s.drain()
	}
	return nil
}

// occupied returns the number of rows that somebody has.
func (s *Scheduler) occupied() (n int) {
	for _, q := range s.running {
		if q != nil {
			n++
		}
	}
	return n
}

// retire takes the rows of those who have ended, and of those who will have
// ended for their length with the steps under way. When there are none, everybody
// moves up.
func (s *Scheduler) retire() {
	ended := func(q *sequence) bool { return q.out.Finish != Unfinished }
	s.primed = slices.DeleteFunc(s.primed, ended)
	s.waiting = slices.DeleteFunc(s.waiting, ended)
	for i, q := range s.running {
		if q != nil && (ended(q) || q.len()+q.ahead >= q.h.total) {
			s.running[i] = nil
			s.left = append(s.left, i)
		}
	}
	for n := len(s.running); n > 0 && s.running[n-1] == nil; n-- {
		s.running = s.running[:n-1]
	}
	if len(s.flight) == 0 && (len(s.left) > 0 || len(s.joined) > 0 || slices.Contains(s.running, nil)) {
		s.running = slices.DeleteFunc(s.running, func(q *sequence) bool { return q == nil })
		s.dirty, s.left, s.joined = true, s.left[:0], s.joined[:0]
	}
}

// admit fills free rows from primed and waiting sequences.
func (s *Scheduler) admit() {
	for free := s.opts.MaxBatch - s.occupied(); free > 0; free-- {
		if len(s.primed) == 0 && !s.prefill() {
			break
		}
		row := slices.Index(s.running, nil)
		if row < 0 {
			row = len(s.running)
			s.running = append(s.running, nil)
		}
		s.running[row] = s.primed[0]
		s.primed = slices.Delete(s.primed, 0, 1)
		if len(s.flight) == 0 {
			s.dirty = true
		} else {
			s.joined = append(s.joined, row)
			s.counting.Joins++
		}
	}
}

// prefill computes the keys and values of waiting sequences, as many as the
// free rows, pages and the plan allow, and makes them primed. Samples of one
// request that have not begun share the computation and the full pages.
func (s *Scheduler) prefill() bool {
	p := &s.pack
	*p = packed{ids: p.ids[:0], positions: p.positions[:0], packing: engine.Packing{Segments: p.packing.Segments[:0]}}
	s.rowIDs, s.slotIDs = s.rowIDs[:0], s.slotIDs[:0]
	for len(s.waiting) > 0 && s.occupied()+len(s.primed) < s.opts.MaxBatch {
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
	busy := s.occupied() + len(s.primed)
	k = min(k, len(s.pages.free)-full-busy)
	// Samples beyond the free rows are prefilled along where that takes no page
	// that the rows may come to need.
	if rows := s.opts.MaxBatch - busy; k > rows {
		spare := len(s.pages.free) - full - rows*(first.maxPages()-full)
		for _, list := range [][]*sequence{s.running, s.primed} {
			for _, q := range list {
				if q != nil {
					spare -= q.maxPages() - len(q.pages)
				}
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
		for q != nil && len(q.pages)*engine.PageSize < q.len()+q.ahead {
			if len(s.pages.free) > 0 {
				q.pages = append(q.pages, s.pages.take())
				s.grown = true
				continue
			}
			if len(s.flight) > 0 {
				if err := s.drain(); err != nil { // may end sequences, this one too, and moves the others
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
			if q == nil {
				continue
			}
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
	b := d.bucket(len(s.running))
	if s.dirty || len(s.joined) > 0 {
		s.grown = true
	}
	if s.grown {
		for i, q := range s.running {
			if q != nil {
				copy(h.table[i*d.table:(i+1)*d.table], q.pages)
			}
		}
		be.UploadI32(d.pageTable.RowRange(0, b), h.table[:b*d.table])
		s.grown = false
	}
	state := func(row, i int) *int32 { return &h.state[row*d.batch+i] }
	switch {
	case s.dirty:
		s.counting.Binds++
		for i := range d.batch {
			*state(stateTokens, i), *state(statePositions, i), *state(stateForced, i) = 0, -1, 0
			if i < len(s.running) {
				q := s.running[i]
				*state(stateTokens, i), *state(statePositions, i), *state(stateForced, i) = q.at(q.len()-1), int32(q.len()-1), q.forced
				s.settings(i)
			}
		}
		be.UploadI32(d.state, h.state)
		be.UploadI32(d.keys.RowRange(0, b), h.keys[:b*engine.NumKeys])
		be.UploadF32(d.params.RowRange(0, b), h.params[:b*engine.NumParams])
	default:
		set := func(row, i int, v int32) { // of a size that F32 holds
			be.Fill(d.state.RowRange(row, row+1).ColRange(i, i+1), float32(v))
		}
		for _, i := range s.left {
			set(statePositions, i, -1)
		}
		for _, i := range s.joined {
			q := s.running[i]
			set(stateTokens, i, q.at(q.len()-1))
			set(statePositions, i, int32(q.len()-1))
			set(stateForced, i, q.forced)
			s.settings(i)
			be.UploadI32(d.keys.RowRange(i, i+1), h.keys[i*engine.NumKeys:(i+1)*engine.NumKeys])
			be.UploadF32(d.params.RowRange(i, i+1), h.params[i*engine.NumParams:(i+1)*engine.NumParams])
		}
	}
	s.dirty, s.left, s.joined = false, s.left[:0], s.joined[:0]
}

// settings fills in the keys and parameters of row i.
func (s *Scheduler) settings(i int) {
	q, h := s.running[i], &s.host
	r := &q.h.req
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

// launch submits one decode step and the reading of its results.
func (s *Scheduler) launch() {
	var f *flight
	if n := len(s.spare); n > 0 {
		f, s.spare = s.spare[n-1], s.spare[:n-1]
	} else {
		f = &flight{state: make([]int32, stateRows*s.d.batch), stats: make([]float32, statRows*s.d.batch)}
	}
	f.rows = append(f.rows[:0], s.running...)
	for _, q := range f.rows {
		if q != nil {
			q.ahead++
		}
	}
	s.m.be.Run(s.d.program(s.d.bucket(len(s.running))))
	s.m.be.DownloadI32(f.state, s.d.state)
	f.ticket = s.m.be.DownloadF32(f.stats, s.d.stats)
	s.flight = append(s.flight, f)
	s.counting.Steps++
}

// drain collects all steps under way. Then nobody has an ended sequence's row.
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
	for i, q := range f.rows {
		if q == nil {
			continue
		}
		if q.ahead--; q.out.Finish != Unfinished {
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
		}
	}
	s.retire()
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
// retire.
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
