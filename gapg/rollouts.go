package gapg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// RolloutSource makes demonstrations of a model's own responses, for a warm start
// where nobody has written any.
type RolloutSource struct {
	Tokenizer   *tokenizer.Tokenizer
	Task        Task
	EndToken    int32
	Marker      []int32 // the marker's tokens
	MarkerAfter []int32 // tokens after which it may begin

	Samples      int     // responses to each prompt
	Keep         int     // right responses kept of each prompt at most
	HelpShare    float64 // share of the prompts without a right response that learn to ask
	MaxNewTokens int
	Temperature  float64
	MaxBatch     int
	Seed         uint64
	// OnResponse, where set, is called as each response ends, with how many have.
	OnResponse func(done int)
}

// Demonstration is a response that is learnt from.
type Demonstration struct {
	ID     string `json:"id"` // of the prompt
	Asks   bool   `json:"asks"`
	Prompt string `json:"prompt"`
	Text   string `json:"completion"`
	// PromptTokens and Tokens are those texts; the tokens from TrainFrom on are
	// trained on: all of a right response, and of one that asks the marker and
	// the end alone, so that failed reasoning is not learnt.
	PromptTokens []int32 `json:"prompt_ids"`
	Tokens       []int32 `json:"completion_ids"`
	TrainFrom    int     `json:"train_from"`
}

// RolloutCounts says what became of the responses.
type RolloutCounts struct {
	Prompts    int `json:"prompts"`
	Responses  int `json:"responses"`
	Right      int `json:"right"`      // responses
	Solved     int `json:"solved"`     // prompts with a right response
	Unresolved int `json:"unresolved"` // prompts whose responses could not be judged
	Verified   int `json:"verified"`   // demonstrations of a right response
	Asking     int `json:"asking"`     // demonstrations that ask
}

// Make samples responses to the prompts. Right and complete ones are kept as
// they are. Of the prompts without any, a share chosen by the seed gives one
// failed response, up to a place where the marker may begin and before the answer
// that it gives, and then the marker. The order is shuffled by the seed.
func (s RolloutSource) Make(ctx context.Context, m *model.Model, prompts []Prompt) ([]Demonstration, RolloutCounts, error) {
	counts := RolloutCounts{Prompts: len(prompts)}
	switch {
	case s.Samples < 1 || s.Keep < 1:
		return nil, counts, errors.New("rollouts: at least one response of each prompt must be sampled, and one kept")
	case !(s.Temperature > 0):
		return nil, counts, fmt.Errorf("rollouts: temperature %g: must be above 0", s.Temperature)
	case !(s.HelpShare >= 0 && s.HelpShare <= 1):
		return nil, counts, fmt.Errorf("rollouts: help share %g: must be from 0 to 1", s.HelpShare)
	case len(s.Marker) == 0 && s.HelpShare > 0:
		return nil, counts, errors.New("rollouts: the marker's tokens are needed")
	}
	groups, err := s.sample(ctx, m, prompts)
	if err != nil {
		return nil, counts, err
	}
	if err := judgeAll(ctx, s.Task, groups); err != nil {
		return nil, counts, err
	}
	var out []Demonstration
	for _, g := range groups {
		if g.Unresolved != "" {
			counts.Unresolved++
			continue
		}
		counts.Responses += len(g.Rollouts)
		right := g.DeviceCorrect()
		counts.Right += right
		if right > 0 {
			counts.Solved++
			kept := s.verified(g)
			counts.Verified += len(kept)
			out = append(out, kept...)
			continue
		}
		if unit(hash64(fmt.Sprintf("learns to ask %d", s.Seed), g.Prompt.ID)) < s.HelpShare {
			counts.Asking++
			out = append(out, s.asking(g))
		}
	}
	shuffled := make([]Demonstration, len(out))
	for i := range out {
		shuffled[i] = out[permute(uint64(i), uint64(len(out)), s.Seed, 0)]
	}
	return shuffled, counts, nil
}

// unit maps a hash to [0, 1).
func unit(h uint64) float64 { return float64(h>>11) / (1 << 53) }

func (s RolloutSource) sample(ctx context.Context, m *model.Model, prompts []Prompt) ([]*Group, error) {
	tokens, err := EncodePrompts(s.Tokenizer, prompts, m.Config().MaxPositionEmbeddings, s.MaxNewTokens)
	if err != nil {
		return nil, err
	}
	longest := 0
	for _, p := range tokens {
		longest = max(longest, len(p))
	}
	sched, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: max(s.MaxBatch, s.Samples), MaxTokens: longest + s.MaxNewTokens})
	if err != nil {
		return nil, err
	}
	defer sched.Close()
	done := 0
	count := func(t model.Token) bool {
		if t.ID == s.EndToken || t.Index+1 == s.MaxNewTokens {
			if done++; s.OnResponse != nil {
				s.OnResponse(done)
			}
		}
		return true
	}
	groups, handles := make([]*Group, len(prompts)), make([]*model.Handle, len(prompts))
	for i, p := range prompts {
		groups[i] = &Group{Prompt: p, Index: i, PromptTokens: tokens[i]}
		handles[i], err = sched.Submit(model.Request{Prompt: tokens[i], N: s.Samples, MaxNewTokens: s.MaxNewTokens,
			Sampling: model.Sampling{Temperature: float32(s.Temperature)}, Seed: s.Seed, PromptIndex: i, StopTokens: []int32{s.EndToken}, OnToken: count})
		if err != nil {
			return nil, err
		}
	}
	if err := sched.Run(ctx); err != nil {
		return nil, err
	}
	for i, h := range handles {
		for _, c := range h.Completions() {
			text, finish := decode(s.Tokenizer, c, s.EndToken)
			groups[i].Rollouts = append(groups[i].Rollouts, Rollout{Tokens: c.Tokens, Text: text, Finish: finish})
		}
	}
	return groups, nil
}

// verified returns the right responses of a group, each once, those that keep
// the format first.
func (s RolloutSource) verified(g *Group) []Demonstration {
	var out []Demonstration
	seen := map[string]bool{}
	for _, format := range []bool{true, false} {
		for _, r := range g.Rollouts {
			if r.Verdict.Correct && !r.Verdict.Help && r.Verdict.Format == format && r.Finish == FinishStop && !seen[r.Text] && len(out) < s.Keep {
				seen[r.Text] = true
				out = append(out, Demonstration{ID: g.Prompt.ID, Prompt: g.Prompt.Text, Text: r.Text, PromptTokens: g.PromptTokens, Tokens: r.Tokens})
			}
		}
	}
	return out
}

// asking turns a failed response into one that asks.
func (s RolloutSource) asking(g *Group) Demonstration {
	r := g.Rollouts[hash64("which response", g.Prompt.ID)%uint64(len(g.Rollouts))]
	places := s.places(r)
	at := places[hash64(fmt.Sprintf("where to ask %d", s.Seed), g.Prompt.ID)%uint64(len(places))]
	d := Demonstration{ID: g.Prompt.ID, Asks: true, Prompt: g.Prompt.Text, PromptTokens: g.PromptTokens, TrainFrom: at}
	d.Tokens = append(append(d.Tokens, r.Tokens[:at]...), s.Marker...)
	d.Text = s.Tokenizer.Decode(d.Tokens)
	d.Tokens = append(d.Tokens, s.EndToken)
	return d
}

// places are the numbers of tokens after which a response may ask: where the
// marker may begin, before the answer (or the marker) that the response gives
// itself; the beginning where there is no other.
func (s RolloutSource) places(r Rollout) []int {
	limit := len(r.Text)
	if end := r.Verdict.Answer; end != "" {
		if at := strings.LastIndex(r.Text, end); at >= 0 {
			limit = at
		}
	}
	if r.Verdict.Help {
		limit = max(0, limit-len(Marker))
	}
	after := map[int32]bool{}
	for _, id := range s.MarkerAfter {
		after[id] = true
	}
	var places []int
	stream, written := s.Tokenizer.Stream(), 0
	for k, id := range r.Tokens {
		if id == s.EndToken {
			break
		}
		if written += len(stream.Push(id)); written > limit {
			break
		}
		if after[id] {
			places = append(places, k+1)
		}
	}
	if len(places) == 0 {
		return []int{0}
	}
	return places
}

// Example is the demonstration as it is trained on.
func (d *Demonstration) Example() Example {
	ex := Example{Prompt: d.PromptTokens, Response: d.Tokens, Weights: make([]float32, len(d.Tokens))}
	for i := d.TrainFrom; i < len(d.Tokens); i++ {
		ex.Weights[i] = 1
	}
	return ex
}

// Demonstrations are Examples, over and over in their order.
type Demonstrations []Demonstration

// Example implements Examples.
func (d Demonstrations) Example(i int) (Example, error) {
	return d[i%len(d)].Example(), nil
}
