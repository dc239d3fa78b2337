package task

import (
	"context"
	"fmt"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
)

// CountdownTask is Countdown as a gapg.Task. The Gold of its prompts is the
// Countdown problem itself.
type CountdownTask struct {
	// Compact chooses the prompt of a small character model, "17 16 5=69", over an
	// instruction in English. The cloud reads English in both cases.
	Compact bool

	// Options say how responses are prompted.
	Options ParseOptions
}

var _ gapg.Task = CountdownTask{}

// Name returns "countdown".
func (CountdownTask) Name() string { return "countdown" }

// Prompt makes the prompt of a problem. Its ID is the problem's key.
func (t CountdownTask) Prompt(p Countdown) gapg.Prompt {
	out := gapg.Prompt{ID: p.Key(), Text: p.Instruction(), CloudText: p.CloudInstruction(), Gold: p}
	if t.Compact {
		out.Text = p.Compact()
	}
	return out
}

// Prompts makes the prompts of problems.
func (t CountdownTask) Prompts(ps []Countdown) []gapg.Prompt {
	out := make([]gapg.Prompt, len(ps))
	for i, p := range ps {
		out[i] = t.Prompt(p)
	}
	return out
}

// Judge implements gapg.Task. Its only error is a prompt that is not Countdown's.
func (t CountdownTask) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	c, err := problemOf(p.Gold)
	if err != nil {
		return gapg.Verdict{}, err
	}
	r := Parse(response, t.Options)
	return gapg.Verdict{
		Help:    r.Help,
		Correct: r.HasAnswer && c.Correct(r.Answer),
		Format:  r.FormatKept,
		Answer:  r.Answer,
	}, nil
}

// JudgeCloud implements gapg.Task. The cloud may give the bare expression or wrap
// it as a device does.
func (t CountdownTask) JudgeCloud(_ context.Context, p gapg.Prompt, answer string) (bool, error) {
	c, err := problemOf(p.Gold)
	if err != nil {
		return false, err
	}
	if AsksForHelp(answer) {
		return false, nil
	}
	if inside, ok := LastAnswer(answer); ok {
		answer = inside
	}
	return c.Correct(answer), nil
}

func problemOf(gold any) (Countdown, error) {
	c, ok := gold.(Countdown)
	if !ok {
		return Countdown{}, fmt.Errorf("countdown: the prompt's gold is a %T, not a task.Countdown", gold)
	}
	return c, nil
}

// SimulatedCloud fills in what makes a simulated cloud answer Countdown: the
// exact solver, and expressions over the right numbers that miss the target. What
// c says of accuracy, latency and price is kept.
func SimulatedCloud(c cloud.SimulatedConfig) (*cloud.Simulated, error) {
	c.Right = func(q cloud.Question) (string, error) {
		p, err := problemOf(q.Gold)
		if err != nil {
			return "", err
		}
		e, ok := p.Solve()
		if !ok {
			return "", fmt.Errorf("%v has no solution", p)
		}
		return wrapAnswer(e), nil
	}
	c.Wrong = func(q cloud.Question) (string, error) {
		p, err := problemOf(q.Gold)
		if err != nil {
			return "", err
		}
		return p.WrongAnswer(), nil
	}
	return cloud.NewSimulated(c)
}

func wrapAnswer(e *Expr) string { return AnswerOpen + e.String() + AnswerClose }

// WrongAnswer returns an answer in its tags that is well formed, uses p's numbers
// and misses the target, if any such expression exists; else a sentence. It is
// fixed by p.
func (p Countdown) WrongAnswer() string {
	r := newStream(purposeWrong, Hash64("wrong answer", p.Key()), 0)
	for range 64 {
		x, ok := randomExpr(r, p.Nums, Rules{})
		if ok && x.v != Int(int64(p.Target)) {
			return wrapAnswer(x.e)
		}
	}
	return "I found no expression for the target."
}

// PromptFeatures is what the prompt router of the comparison sees of a problem.
func (CountdownTask) PromptFeatures(p gapg.Prompt) []float64 {
	c, err := problemOf(p.Gold)
	if err != nil {
		return nil
	}
	return c.Features()
}

// SelfCheck is the comparison's rule that reads the trace: see
// Countdown.SelfCheck.
func (CountdownTask) SelfCheck(p gapg.Prompt, response string) bool {
	c, err := problemOf(p.Gold)
	return err == nil && c.SelfCheck(response)
}
