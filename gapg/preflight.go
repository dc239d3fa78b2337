package gapg

import (
	"context"
	"fmt"
	"maps"
	"math"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
)

// Preflight is what a training can expect, measured on the prompts that it draws
// first. Shares are of the responses that could be judged, and of the prompts
// whose cloud answer could be; NaN where there are none.
type Preflight struct {
	Prompts    int
	Responses  int
	Accuracy   float64 // responses whose own answer is right
	Format     float64 // responses that keep the task's format
	MarkerRate float64 // responses that ask for help
	Truncation float64 // responses that ran into the token limit

	CloudPrompts  int     // prompts whose answer by the cloud was judged
	CloudAccuracy float64 // of them, those that it answers rightly
	Unresolved    int     // groups or cloud answers that could not be judged
}

// Metrics are the figures by name, those that are not known left out.
func (p *Preflight) Metrics() map[string]float64 {
	m := map[string]float64{
		"prompts": float64(p.Prompts), "responses": float64(p.Responses), "accuracy": p.Accuracy, "format_rate": p.Format, "marker_rate": p.MarkerRate,
		"truncation_rate": p.Truncation, "cloud_prompts": float64(p.CloudPrompts), "cloud_accuracy": p.CloudAccuracy, "unresolved": float64(p.Unresolved),
	}
	maps.DeleteFunc(m, func(_ string, x float64) bool { return math.IsNaN(x) })
	return m
}

// preflightResponses is how many responses a prompt gets at most: enough to see a
// marker that 2 % of responses have, with a probability of 99 % on 64 prompts.
const preflightResponses = 4

// Preflight samples responses to the first n prompts of the training, as it
// would, and asks the cloud about cloudPrompts of them. It changes no weights.
// The cloud's answers are recorded at step 0, so that the training asks none of
// them again, and their calls count in the trainer's State.
func (t *Trainer) Preflight(ctx context.Context, n, cloudPrompts int) (*Preflight, error) {
	var groups []*Group
	var handles []*model.Handle
	for i := range min(n, len(t.prompts)) {
		idx := drawPrompt(t.cfg.Seed, i, len(t.prompts))
		groups = append(groups, &Group{Prompt: t.s.Prompts[idx], Index: idx, PromptTokens: t.prompts[idx]})
	}
	defer func() {
		for _, h := range handles {
			t.rollout.Cancel(h) // those that are done do not mind
		}
	}()
	for i, g := range groups {
		h, err := t.rollout.Submit(model.Request{
			Prompt: g.PromptTokens, N: min(preflightResponses, t.cfg.NumGenerations), MaxNewTokens: t.cfg.MaxCompletionLength,
			Sampling: model.Sampling{Temperature: float32(t.cfg.Temperature), TopK: t.cfg.TopK, TopP: float32(t.cfg.TopP), MinP: float32(t.cfg.MinP)},
			Seed:     t.cfg.Seed, Step: 0, PromptIndex: i, StopTokens: []int32{t.s.EndToken},
		})
		if err != nil {
			return nil, err
		}
		handles = append(handles, h)
	}
	if err := t.rollout.Run(ctx); err != nil {
		return nil, err
	}
	for i, h := range handles {
		for _, c := range h.Completions() {
			text, finish := decode(t.s.Tokenizer, c, t.s.EndToken)
			groups[i].Rollouts = append(groups[i].Rollouts, Rollout{Text: text, Finish: finish, Tokens: c.Tokens})
		}
	}
	if err := judgeWithin(ctx, t.s.Task, groups, t.cfg.JudgeTimeout); err != nil {
		return nil, err
	}
	p := &Preflight{Prompts: len(groups)}
	for _, g := range groups {
		if g.Unresolved != "" {
			p.Unresolved++
			t.log.Warn("a response could not be judged", "prompt", g.Prompt.ID, "reason", g.Unresolved)
			continue
		}
		for _, r := range g.Rollouts {
			p.Responses++
			p.Accuracy += float64(count(r.Verdict.Correct && !r.Verdict.Help))
			p.Format += float64(count(r.Verdict.Format))
			p.MarkerRate += float64(count(r.Verdict.Help))
			p.Truncation += float64(count(r.Finish == FinishLength))
		}
	}
	for _, share := range []*float64{&p.Accuracy, &p.Format, &p.MarkerRate, &p.Truncation} {
		*share /= float64(p.Responses)
	}
	return p, t.preflightCloud(ctx, groups[:min(cloudPrompts, len(groups))], p)
}

// preflightCloud asks the cloud about the groups' prompts.
func (t *Trainer) preflightCloud(ctx context.Context, groups []*Group, p *Preflight) error {
	p.CloudAccuracy = math.NaN()
	if t.s.Cloud == nil || len(groups) == 0 {
		return nil
	}
	var questions []cloud.Question
	for _, g := range groups {
		questions = append(questions, Question(g.Prompt))
	}
	outcomes, err := t.s.Cloud.AnswerAll(ctx, 0, questions)
	if err != nil {
		return err
	}
	seen, right := map[questionKey]bool{}, 0
	for i, o := range outcomes {
		key := questionKey{questions[i].ID, questions[i].Text}
		if !o.Cached && !seen[key] {
			t.state.count(o)
		}
		seen[key] = true
		err := o.Err
		correct := false
		if err == nil {
			correct, err = t.judgeCloud(ctx, groups[i].Prompt, o.Answer.Text)
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.Unresolved++
			t.log.Warn("the cloud gave no answer that can be judged", "prompt", groups[i].Prompt.ID, "reason", fmt.Sprint(err))
			continue
		}
		p.CloudPrompts++
		if correct {
			right++
		}
	}
	p.CloudAccuracy = float64(right) / float64(p.CloudPrompts)
	return nil
}
