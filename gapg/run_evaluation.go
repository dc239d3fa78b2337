package gapg

import (
	"context"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
)

// Evaluation measures a model in the course of its training; its Metrics is a
// Run's Evaluate.
type Evaluation struct {
	Evaluator Evaluator
	Model     *model.Model
	Prompts   []Prompt
	// Cloud answers the prompts that the model asks about; nil: nobody does, and
	// a prompt that asks counts as wrong. Give it a run name of its own, apart
	// from the training's.
	Cloud  Desk
	Budget Budget
	// OnRecords, where set, sees each evaluation's records and what the cloud
	// answered to those that ask.
	OnRecords func(step int, records []Record, answers []CloudOutcome)
}

// EvaluationMetrics names what Evaluation.Metrics returns.
func EvaluationMetrics() []string {
	return []string{
		"accuracy/overall", "accuracy/device", "accuracy/solo", "cloud/ratio", "help/precision", "help/recall", "help/harmful",
		"tokens/before_call", "tokens/solution", "accuracy/overall_at_budget", "cloud/ratio_at_budget", "help/precision_at_budget",
		"help/recall_at_budget", "help/bias_at_budget", "prompts", "unresolved",
	}
}

// Metrics measures the model at its own decisions,
//
//	accuracy/overall, accuracy/device, accuracy/solo, cloud/ratio,
//	help/precision, help/recall, tokens/before_call, tokens/solution
//
// and with those decisions cut to the budget, by a help bias of at most 0,
//
//	accuracy/overall_at_budget, cloud/ratio_at_budget,
//	help/precision_at_budget, help/recall_at_budget, help/bias_at_budget
//
// where accuracy/overall_at_budget is the overall accuracy subject to the
// budget, by which checkpoints are compared. A share of nothing (a precision
// without a call) is NaN.
func (e *Evaluation) Metrics(ctx context.Context, step int) (map[string]float64, error) {
	records, err := e.Evaluator.Run(ctx, e.Model, e.Prompts)
	if err != nil {
		return nil, err
	}
	unresolved := 0
	kept := records[:0]
	for _, r := range records {
		if r.Unresolved != "" {
			unresolved++
			continue
		}
		kept = append(kept, r)
	}
	records = kept
	if len(records) == 0 {
		return nil, fmt.Errorf("evaluation: none of the %d prompts could be judged", unresolved)
	}
	answers := make([]CloudOutcome, len(records))
	outcomes := Outcomes(records, answers)
	natural := make([]bool, len(outcomes))
	for i := range outcomes {
		natural[i] = outcomes[i].Score >= 0
	}
	budgeted := e.atBudget(outcomes, natural)
	lost, err := e.ask(ctx, step, records, answers, func(i int) bool { return natural[i] })
	if err != nil {
		return nil, err
	}
	outcomes = Outcomes(records, answers)
	for i := range outcomes {
		if n, asks := records[i].AsksAt(max(0, -outcomes[i].Score)); asks {
			outcomes[i].TokensBeforeCall = n
		}
	}
	if e.OnRecords != nil {
		e.OnRecords(step, records, answers)
	}
	m := map[string]float64{}
	put := func(key string, v float64) { m[key] = v }
	f := Measure(outcomes, natural)
	put("accuracy/overall", f.Overall)
	put("accuracy/device", f.Device)
	put("accuracy/solo", f.Solo)
	put("cloud/ratio", f.Ratio)
	put("help/precision", f.HelpPrecision)
	put("help/recall", f.HelpRecall)
	put("help/harmful", f.Harmful)
	put("tokens/before_call", f.TokensBeforeCall)
	put("tokens/solution", f.TokensSolution)
	f = Measure(outcomes, budgeted)
	put("accuracy/overall_at_budget", f.Overall)
	put("cloud/ratio_at_budget", f.Ratio)
	put("help/precision_at_budget", f.HelpPrecision)
	put("help/recall_at_budget", f.HelpRecall)
	bias := math.NaN()
	for i, asked := range budgeted {
		if b := -outcomes[i].Score; asked && !(b <= bias) && !math.IsInf(b, 0) {
			bias = b
		}
	}
	put("help/bias_at_budget", bias)
	put("prompts", float64(len(records)))
	put("unresolved", float64(unresolved+lost))
	return m, nil
}

// atBudget cuts the prompts that ask by themselves to the budget, those that
// prefer most to ask first. A model that asks less than it may is not made to
// ask more.
func (e *Evaluation) atBudget(o []Outcome, natural []bool) []bool {
	asked := TopCalls(o, e.Budget.Calls(len(o)))
	for i := range asked {
		asked[i] = asked[i] && natural[i]
	}
	return asked
}

// ask fills in the cloud's answers to the wanted prompts and returns how many
// could not be had: for this measurement they count as wrong.
func (e *Evaluation) ask(ctx context.Context, step int, records []Record, answers []CloudOutcome, wanted func(i int) bool) (unresolved int, err error) {
	if e.Cloud == nil {
		return 0, nil
	}
	var at []int
	var questions []cloud.Question
	for i := range records {
		if wanted(i) {
			at, questions = append(at, i), append(questions, Question(records[i].Prompt))
		}
	}
	results, err := e.Cloud.AnswerAll(ctx, step, questions)
	if err != nil {
		return 0, err
	}
	for k, i := range at {
		o := CloudOutcome{Asked: true, Answer: results[k].Answer, Cached: results[k].Cached}
		err := results[k].Err
		if err == nil {
			o.Correct, err = e.Evaluator.Task.JudgeCloud(ctx, records[i].Prompt, o.Answer.Text)
		}
		unresolved += count(err != nil)
		answers[i] = o
	}
	return unresolved, ctx.Err()
}
