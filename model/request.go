package model

import (
	"fmt"
	"slices"
)

// Sampling says how tokens are drawn. Filters apply in the order help bias,
// temperature, top-k, top-p, min-p.
type Sampling struct {
	Temperature float32 // 0: the most likely token
	TopK        int     // 0: off
	TopP        float32 // 0 or 1: off
	MinP        float32 // 0: off
	// HelpBias is added to the log-odds of the help marker's first token where
	// the marker may begin (SchedulerOptions.MarkerAfter); the rest of the
	// marker is then forced. 0 leaves the model alone, −Inf forbids the marker.
	HelpBias float32
}

func (s *Sampling) check() error {
	switch {
	case !(s.Temperature >= 0):
		return fmt.Errorf("model: temperature %g: must be 0 or more", s.Temperature)
	case s.TopK < 0:
		return fmt.Errorf("model: top-k %d: must be 0 (off) or more", s.TopK)
	case !(s.TopP >= 0 && s.TopP <= 1):
		return fmt.Errorf("model: top-p %g: must be in [0, 1]", s.TopP)
	case !(s.MinP >= 0 && s.MinP <= 1):
		return fmt.Errorf("model: min-p %g: must be in [0, 1]", s.MinP)
	case s.HelpBias != s.HelpBias:
		return fmt.Errorf("model: help bias is NaN")
	}
	return nil
}

// Request asks a Scheduler for N samples that continue a prompt.
type Request struct {
	Prompt       []int32
	N            int // 0 means 1
	MaxNewTokens int // 0: up to the longest sequence
	Sampling     Sampling

	// A draw depends on these, the sample's number (FirstSample and up) and the
	// token's position, and on nothing else in the batch.
	Seed                           uint64
	Step, PromptIndex, FirstSample int

	StopTokens    []int32   // nil: the configuration's eos_token_id; empty: none
	StopSequences [][]int32 // generation ends after any of these

	// OnToken is called in Step for each token, in order within a sample. False
	// ends that sample with FinishStop. It may call Submit and Cancel.
	OnToken func(Token) bool
}

// Token is one generated token.
type Token struct {
	Sample          int // Request.FirstSample and up
	Index           int // in the completion
	ID              int32
	LogProb         float32 // under the model, without bias, temperature or filters
	SamplingLogProb float32 // under the distribution it was drawn from
	Entropy         float32 // of the model's distribution, in nats
	Forced          bool    // a later token of the marker, not drawn
}

// FinishReason says why a sample ended.
type FinishReason uint8

// The reasons.
const (
	Unfinished      FinishReason = iota
	FinishStop                   // a stop token or sequence, or OnToken said so
	FinishLength                 // MaxNewTokens or the longest sequence
	FinishCancelled              // Cancel or Close, or the device failed
)

// String returns the name that OpenAI's API uses, where it has one.
func (f FinishReason) String() string {
	switch f {
	case FinishStop:
		return "stop"
	case FinishLength:
		return "length"
	case FinishCancelled:
		return "cancelled"
	}
	return ""
}

// Completion is one sample. The slices have one entry for each token; a stop
// token is included.
type Completion struct {
	Sample                                int
	Tokens                                []int32
	LogProbs, SamplingLogProbs, Entropies []float32
	Forced                                []bool
	Finish                                FinishReason
}

// Handle is a submitted request.
type Handle struct {
	req       Request
	seqs      []*sequence
	total     int // longest prompt and completion together
	open      int // unfinished samples
	cancelled bool
	done      chan struct{}
	err       error
}

// Done is closed when all samples have finished.
func (h *Handle) Done() <-chan struct{} { return h.done }

// Completions returns the samples in order. Call it after Done.
func (h *Handle) Completions() []Completion {
	out := make([]Completion, len(h.seqs))
	for i, q := range h.seqs {
		out[i] = q.out
	}
	return out
}

// Err returns what made the device fail, if that ended the request. Call it
// after Done.
func (h *Handle) Err() error { return h.err }

// sequence is one sample on its way.
type sequence struct {
	h        *Handle
	out      Completion
	pages    []int32 // of the KV cache, by position
	forced   int32   // place in the marker, 0 where nothing is forced
	admitted uint64  // order of admission, for preemption
	ahead    int     // steps under way
}

// len returns the tokens so far, prompt included.
func (q *sequence) len() int { return len(q.h.req.Prompt) + len(q.out.Tokens) }

// maxPages returns the pages of the sequence at its longest. Its last token's
// key and value are never stored.
func (q *sequence) maxPages() int { return pagesFor(q.h.total - 1) }

// at returns token i, prompt included.
func (q *sequence) at(i int) int32 {
	if p := q.h.req.Prompt; i < len(p) {
		return p[i]
	} else {
		return q.out.Tokens[i-len(p)]
	}
}

// stops reports whether the latest token ends the sample.
func (q *sequence) stops() bool {
	r, t := &q.h.req, q.out.Tokens
	if slices.Contains(r.StopTokens, t[len(t)-1]) {
		return true
	}
	for _, s := range r.StopSequences {
		if len(s) > 0 && len(s) <= len(t) && slices.Equal(t[len(t)-len(s):], s) {
			return true
		}
	}
	return false
}
