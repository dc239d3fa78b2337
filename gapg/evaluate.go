package gapg

import (
	"context"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// Evaluator measures a model on prompts. Decoding is greedy.
type Evaluator struct {
	Tokenizer    *tokenizer.Tokenizer
	Task         Task
	EndToken     int32
	Marker       []int32 // the marker's tokens
	MarkerAfter  []int32 // tokens after which the marker may begin
	MaxNewTokens int
	MaxBatch     int // rows of a decode step; 0: 256
}

// Record is what one evaluation knows of one prompt: the device's own answer
// with calls disabled, and at which help bias it would have asked and when.
//
// With greedy decoding that is enough for every budget. With the help bias b
// the model asks at the first place where the marker may begin and
// log p(best other token) − log p(marker) ≤ b; up to there its tokens are those
// of the answer with calls disabled.
type Record struct {
	Prompt Prompt
	Tokens []int32 // greedy, with calls disabled
	Text   string
	Finish Finish
	// Verdict of the device's own answer.
	Verdict   Verdict
	Logprobs  []float32 // raw, one per token
	Entropies []float32
	// Gaps[i] is log p(token) − log p(marker) at the i-th place where the
	// marker may begin; Places[i] is the number of tokens before it.
	Gaps   []float32
	Places []int
	// Unresolved says why the answer could not be judged; such a record counts
	// in no figure.
	Unresolved string
}

// AsksAt reports whether the model asks at a help bias, and after how many
// tokens of its own.
func (r *Record) AsksAt(bias float64) (tokens int, asks bool) {
	for i, g := range r.Gaps {
		if float64(g) <= bias {
			return r.Places[i], true
		}
	}
	return len(r.Tokens), false
}

// AskBias returns the smallest help bias at which the model asks: at most 0
// where it asks by itself, +Inf where it has no place to.
func (r *Record) AskBias() float64 {
	b := math.Inf(1)
	for _, g := range r.Gaps {
		b = min(b, float64(g))
	}
	return b
}

// Run evaluates m on the prompts, in their order.
func (e *Evaluator) Run(ctx context.Context, m *model.Model, prompts []Prompt) ([]Record, error) {
	tokens, err := EncodePrompts(e.Tokenizer, prompts, m.Config().MaxPositionEmbeddings, e.MaxNewTokens)
	if err != nil {
		return nil, err
	}
	records := make([]Record, len(prompts))
	for i, p := range prompts {
		records[i].Prompt = p
	}
	if err := e.answer(ctx, m, tokens, records); err != nil {
		return nil, err
	}
	if err := e.judge(ctx, records); err != nil {
		return nil, err
	}
	return records, e.probe(ctx, m, tokens, records)
}

// answer generates the responses with calls disabled.
func (e *Evaluator) answer(ctx context.Context, m *model.Model, tokens [][]int32, records []Record) error {
	longest := 0
	for _, p := range tokens {
		longest = max(longest, len(p))
	}
	batch := e.MaxBatch
	if batch == 0 {
		batch = 256
	}
	s, err := model.NewScheduler(m, model.SchedulerOptions{
		MaxBatch: min(batch, len(records)), MaxTokens: longest + e.MaxNewTokens, Marker: e.Marker, MarkerAfter: e.MarkerAfter})
	if err != nil {
		return err
	}
	defer s.Close()
	handles := make([]*model.Handle, len(records))
	for i := range records {
		handles[i], err = s.Submit(model.Request{Prompt: tokens[i], MaxNewTokens: e.MaxNewTokens,
			Sampling: model.Sampling{HelpBias: float32(math.Inf(-1))}, StopTokens: []int32{e.EndToken}})
		if err != nil {
			return err
		}
	}
	if err := s.Run(ctx); err != nil {
		return err
	}
	for i, h := range handles {
		c, r := h.Completions()[0], &records[i]
		r.Tokens, r.Logprobs, r.Entropies = c.Tokens, c.LogProbs, c.Entropies
		r.Text, r.Finish = decode(e.Tokenizer, c, e.EndToken)
	}
	return nil
}

// decode returns a completion's text without its end token.
func decode(tok *tokenizer.Tokenizer, c model.Completion, end int32) (string, Finish) {
	ids := c.Tokens
	if c.Finish != model.FinishStop {
		return tok.Decode(ids), FinishLength
	}
	if n := len(ids); n > 0 && ids[n-1] == end {
		ids = ids[:n-1]
	}
	return tok.Decode(ids), FinishStop
}

// judge verifies the responses.
func (e *Evaluator) judge(ctx context.Context, records []Record) error {
	groups := make([]*Group, len(records))
	for i := range records {
		groups[i] = &Group{Prompt: records[i].Prompt, Rollouts: []Rollout{{Text: records[i].Text}}}
	}
	if err := judgeAll(ctx, e.Task, groups); err != nil {
		return err
	}
	for i, g := range groups {
		records[i].Verdict, records[i].Unresolved = g.Rollouts[0].Verdict, g.Unresolved
	}
	return nil
}

// probe finds the log-probability of the marker at every place where it may
// begin, in one teacher-forced pass over the responses.
func (e *Evaluator) probe(ctx context.Context, m *model.Model, tokens [][]int32, records []Record) error {
	if len(e.Marker) == 0 {
		return nil
	}
	after := map[int32]bool{}
	for _, id := range e.MarkerAfter {
		after[id] = true
	}
	batch := &model.Batch{Probe: &e.Marker[0]}
	for i := range records {
		batch.Groups = append(batch.Groups, model.Group{Prompt: tokens[i], Responses: [][]int32{records[i].Tokens}})
	}
	parts, err := batch.Split(m.Options().MaxRows)
	if err != nil {
		return fmt.Errorf("evaluation: %w", err)
	}
	marker := make([]float32, 0, batch.Tokens())
	for _, p := range parts {
		out, err := m.Forward(ctx, &p.Batch)
		if err != nil {
			return err
		}
		marker = append(marker, out.LogProbs...)
	}
	at := 0
	for i := range records {
		r := &records[i]
		previous := tokens[i][len(tokens[i])-1]
		for t, id := range r.Tokens {
			if after[previous] {
				r.Gaps = append(r.Gaps, r.Logprobs[t]-marker[at+t])
				r.Places = append(r.Places, t)
			}
			previous = id
		}
		at += len(r.Tokens)
	}
	return nil
}
