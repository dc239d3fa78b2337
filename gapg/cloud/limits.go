package cloud

import (
	"context"
	"fmt"
	"sync"
)

// Bound is the most that one call can use.
type Bound struct {
	Tokens int     `json:"tokens,omitempty"`
	USD    float64 `json:"usd,omitempty"`
}

// Bounder is a Cloud that can tell beforehand what a call may use at most. What
// is not known is 0.
type Bounder interface {
	Bound(q Question) Bound
}

// Limits bound what a Store's runs use together, over restarts; 0 is no limit.
// They hold strictly: a call is sent only if its bound still fits, and a call
// whose end nobody saw counts with its bound.
type Limits struct {
	Calls, Tokens int
	USD           float64
}

// Used is what a Store's calls have used, those possibly billed included.
type Used struct {
	Calls, Tokens int
	USD           float64
}

// LimitError says that the next call might exceed a limit. Everything up to it
// is on record: under a raised limit the run goes on.
type LimitError struct {
	What        string // "calls", "tokens", "US dollars"
	Limit, Used float64
	Need        float64 // of the next call, at most
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("cloud limit: %.6g of %.6g %s are used and the next call may need %.6g", e.Used, e.Limit, e.What, e.Need)
}

// purse keeps a Store's calls within its limits.
type purse struct {
	mu      sync.Mutex
	limits  Limits
	used    Used          // bounds of the calls under way included
	flying  int           // calls under way
	settled chan struct{} // closed and replaced when a call ends
}

// SetLimits sets the limits of all the ledgers on s. Call it before they ask.
func (s *Store) SetLimits(l Limits) {
	s.purse.mu.Lock()
	s.purse.limits = l
	s.purse.mu.Unlock()
}

// Used returns what all runs on s have used.
func (s *Store) Used() Used {
	s.purse.mu.Lock()
	defer s.purse.mu.Unlock()
	return s.purse.used
}

// acquire sets b aside for a call. Where it does not fit it waits for calls
// under way, which usually end below their bounds, and fails when there are
// none left.
func (p *purse) acquire(ctx context.Context, b Bound) error {
	for {
		p.mu.Lock()
		err := p.exceeded(b)
		if err == nil {
			p.add(1, b.Tokens, b.USD)
			p.flying++
			p.mu.Unlock()
			return nil
		}
		if p.flying == 0 {
			p.mu.Unlock()
			return err
		}
		if p.settled == nil {
			p.settled = make(chan struct{})
		}
		wait := p.settled
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *purse) exceeded(b Bound) error {
	for _, x := range []struct {
		what              string
		limit, used, need float64
	}{
		{"calls", float64(p.limits.Calls), float64(p.used.Calls), 1},
		{"tokens", float64(p.limits.Tokens), float64(p.used.Tokens), float64(b.Tokens)},
		{"US dollars", p.limits.USD, p.used.USD, b.USD},
	} {
		if x.limit > 0 && x.used+x.need > x.limit {
			return &LimitError{What: x.what, Limit: x.limit, Used: x.used, Need: x.need}
		}
	}
	return nil
}

func (p *purse) add(calls, tokens int, usd float64) {
	p.used.Calls += calls
	p.used.Tokens += tokens
	p.used.USD += usd
}

// settle ends a call for which b was set aside. What it used is b itself where
// nobody can tell, and nothing where it was not sent.
func (p *purse) settle(b Bound, sent bool, used Bound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent {
		p.add(0, used.Tokens-b.Tokens, used.USD-b.USD)
	} else {
		p.add(-1, -b.Tokens, -b.USD)
	}
	p.flying--
	if p.settled != nil {
		close(p.settled)
		p.settled = nil
	}
}

// spent counts a call that is on record.
func (p *purse) spent(b Bound) {
	p.mu.Lock()
	p.add(1, b.Tokens, b.USD)
	p.mu.Unlock()
}

// used returns what a recorded call counts with.
func (e *Entry) used() Bound {
	if e.Status == Answered {
		return Bound{Tokens: e.Usage.PromptTokens + e.Usage.CompletionTokens, USD: e.CostUSD}
	}
	return e.Bound
}
