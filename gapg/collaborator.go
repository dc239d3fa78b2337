package gapg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// ResponseParser is a Task that reads responses without a gold answer. A task
// that is none has its answers read from the last answer tags.
type ResponseParser interface {
	// ParseResponse returns the answer that a response gives, "" if none.
	ParseResponse(p Prompt, response string) (answer string)
}

// CollaboratorConfig is what a Pair is made of.
type CollaboratorConfig struct {
	Model     *model.Model
	Tokenizer *tokenizer.Tokenizer
	Task      Task        // reads answers where it is a ResponseParser; may be nil
	Cloud     cloud.Cloud // nil: the device answers everything

	EndToken     int32
	Marker       []int32 // the help marker's tokens; at least one where there is a cloud
	MarkerAfter  []int32 // tokens after which the marker may begin
	MaxNewTokens int     // of a response: 512
	// HelpBias is added to the log-odds of asking; see Calibrate.
	HelpBias float64
	// Budget, where it is not nil, is a hard budget: see Pair.
	Budget *Budget
}

// Pair is a Collaborator made of one model on the device and one cloud. The
// device reasons first, greedily; where its response asks for help, the cloud
// answers.
//
// With a hard budget, of the first n prompts at most floor(share·n) go to the
// cloud, for every n: the budget holds at each moment and not only in the end,
// and nothing is lent in advance. A request beyond it is denied: the device
// answers again with help disabled, Reply.Denied says so and Denied counts it.
//
// A Pair is safe for concurrent use. The device works on one prompt at a time;
// cloud calls run beside it. The model must not be used elsewhere meanwhile.
type Pair struct {
	c     CollaboratorConfig
	eval  Evaluator // decoding is that of evaluation
	turn  chan struct{}
	sched *model.Scheduler

	mu                      sync.Mutex
	prompts, calls, refused int
}

var _ Collaborator = (*Pair)(nil)

// NewCollaborator returns the pair that c describes. Close it to free the
// memory of generation; the model stays the caller's.
func NewCollaborator(c CollaboratorConfig) (*Pair, error) {
	def(&c.MaxNewTokens, 512)
	switch {
	case c.Model == nil || c.Tokenizer == nil:
		return nil, errors.New("collaborator: a model and its tokenizer are needed")
	case c.Cloud != nil && len(c.Marker) == 0:
		return nil, errors.New("collaborator: the tokens of the help marker are needed to ask the cloud")
	case c.MaxNewTokens < 1:
		return nil, fmt.Errorf("collaborator: max new tokens %d: must be at least 1", c.MaxNewTokens)
	case math.IsNaN(c.HelpBias):
		return nil, errors.New("collaborator: the help bias is NaN")
	}
	if c.Cloud == nil {
		c.HelpBias = math.Inf(-1)
	}
	s, err := model.NewScheduler(c.Model, model.SchedulerOptions{MaxBatch: 1, Marker: c.Marker, MarkerAfter: c.MarkerAfter})
	if err != nil {
		return nil, err
	}
	p := &Pair{c: c, sched: s, turn: make(chan struct{}, 1)}
	p.eval = Evaluator{Tokenizer: c.Tokenizer, EndToken: c.EndToken, Marker: c.Marker, MarkerAfter: c.MarkerAfter, MaxNewTokens: c.MaxNewTokens}
	return p, nil
}

// Close frees the memory of generation.
func (p *Pair) Close() error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	return p.sched.Close()
}

// Counts returns the prompts so far, those sent to the cloud and those whose
// request was denied.
func (p *Pair) Counts() (prompts, calls, denied int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.prompts, p.calls, p.refused
}

// Answer implements Collaborator. If the cloud gives no answer, the error says
// so and the reply holds what the device did; the call counts against the
// budget, for it may have been billed.
func (p *Pair) Answer(ctx context.Context, q Prompt) (Reply, error) {
	ids, err := EncodePrompts(p.c.Tokenizer, []Prompt{q}, p.c.Model.Config().MaxPositionEmbeddings, p.c.MaxNewTokens)
	if err != nil {
		return Reply{}, err
	}
	c, err := p.generate(ctx, ids[0], p.c.HelpBias)
	if err != nil {
		return Reply{}, err
	}
	text, _ := decode(p.c.Tokenizer, p.eval.finishMarker(ids[0], c), p.c.EndToken)
	r := Reply{Text: text, Source: FromDevice, Reasoning: text, Device: DeviceUsage{PromptTokens: len(ids[0]), CompletionTokens: len(c.Tokens)}}
	asks := p.c.Cloud != nil && endsInMarker(text)
	switch {
	case p.admit(asks):
		r.Source, r.Text = FromCloud, ""
		a, err := p.c.Cloud.Answer(ctx, Question(q))
		if err != nil {
			return r, fmt.Errorf("cloud %s: %w", p.c.Cloud.Name(), err)
		}
		r.Text, r.Cloud, r.CostUSD = a.Text, a.Usage, a.CostUSD
	case asks:
		if c, err = p.generate(ctx, ids[0], math.Inf(-1)); err != nil {
			return r, err
		}
		r.Denied = true
		r.Text, _ = decode(p.c.Tokenizer, c, p.c.EndToken)
		r.Device.CompletionTokens += len(c.Tokens)
	}
	r.Answer = p.parse(q, r.Text, r.Source)
	return r, nil
}

// admit counts a prompt and grants its request for help, if it has one and the
// budget allows it.
func (p *Pair) admit(asks bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prompts++
	if !asks {
		return false
	}
	if p.c.Budget != nil && p.calls >= p.c.Budget.Calls(p.prompts) {
		p.refused++
		return false
	}
	p.calls++
	return true
}

// generate waits for the device and lets it respond.
func (p *Pair) generate(ctx context.Context, prompt []int32, bias float64) (model.Completion, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return model.Completion{}, ctx.Err()
	}
	h, err := p.sched.Submit(p.eval.Request(prompt, bias))
	if err != nil {
		return model.Completion{}, err
	}
	if err := p.sched.Run(ctx); err != nil {
		p.sched.Cancel(h) // the next run drops it
		return model.Completion{}, err
	}
	return h.Completions()[0], nil
}

// parse extracts the answer from what the device or the cloud said.
func (p *Pair) parse(q Prompt, text string, from Source) string {
	if t, ok := p.c.Task.(ResponseParser); ok {
		return t.ParseResponse(q, text)
	}
	if lo, hi, ok := lastAnswer(text); ok {
		return strings.TrimSpace(text[lo:hi])
	}
	if from == FromCloud {
		return strings.TrimSpace(text)
	}
	return ""
}

// endsInMarker reports whether a response asks for help: the marker is the last
// thing in it but white space; case does not matter.
func endsInMarker(text string) bool {
	text = strings.TrimSpace(text)
	n := len(text) - len(Marker)
	return n >= 0 && strings.EqualFold(text[n:], Marker)
}

// lastAnswer finds what stands in the last answer tags; an open one ends with
// the text.
func lastAnswer(text string) (lo, hi int, ok bool) {
	const open, end = "<answer>", "</answer>"
	i := strings.LastIndex(text, open)
	if i < 0 {
		return 0, 0, false
	}
	lo, hi = i+len(open), len(text)
	if j := strings.Index(text[lo:], end); j >= 0 {
		hi = lo + j
	}
	return lo, hi, true
}

// Request asks for a greedy response at a help bias. A marker that begins where
// it may ends the response; elsewhere it is a quotation. One that MaxNewTokens cuts
// off is completed by finishMarker. The caller may change Sampling and N, and must
// call OnToken from one of its own.
func (e *Evaluator) Request(prompt []int32, bias float64) model.Request {
	type place struct {
		previous int32
		at       int // tokens of the marker so far
	}
	places := map[int]*place{} // by sample
	return model.Request{
		Prompt: prompt, MaxNewTokens: e.MaxNewTokens, StopTokens: []int32{e.EndToken},
		Sampling: model.Sampling{HelpBias: float32(bias)},
		OnToken: func(t model.Token) bool {
			p := places[t.Sample]
			if p == nil {
				p = &place{previous: prompt[len(prompt)-1]}
				places[t.Sample] = p
			}
			switch {
			case p.at > 0 && t.ID == e.Marker[p.at]:
				p.at++
			case len(e.Marker) > 0 && t.ID == e.Marker[0] && slices.Contains(e.MarkerAfter, p.previous):
				p.at = 1
			default:
				p.at = 0
			}
			p.previous = t.ID
			return p.at == 0 || p.at < len(e.Marker)
		},
	}
}

// finishMarker returns a completion with the rest of a marker that had begun where it
// may when the length ran out: its first token decides, the others are forced.
func (e *Evaluator) finishMarker(prompt []int32, c model.Completion) model.Completion {
	if c.Finish != model.FinishLength {
		return c
	}
	for at := max(0, len(c.Tokens)-len(e.Marker)+1); at < len(c.Tokens); at++ {
		previous, part := prompt[len(prompt)-1], c.Tokens[at:]
		if at > 0 {
			previous = c.Tokens[at-1]
		}
		if slices.Contains(e.MarkerAfter, previous) && slices.Equal(part, e.Marker[:len(part)]) {
			c.Tokens, c.Finish = slices.Concat(c.Tokens, e.Marker[len(part):]), model.FinishStop
			return c
		}
	}
	return c
}
