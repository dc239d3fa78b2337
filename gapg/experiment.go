package gapg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// The methods that an Experiment compares, in the order of its table. The
// trained models among them are task-tuning, collaboration-aware, gapg and
// da-grpo; the others cost no training of their own.
const (
	MethodBase               = "base"
	MethodBaseHelpBias       = "base-help-bias"
	MethodTaskTuning         = "task-tuning"
	MethodNaive              = "naive-offloading"
	MethodRouter             = "router"
	MethodConfidence         = "confidence"
	MethodSelfCheck          = "self-check"
	MethodCollaborationAware = "collaboration-aware"
	MethodGAPG               = "gapg"
	MethodDAGRPO             = "da-grpo"
	MethodCloud              = "cloud"
	MethodOracle             = "oracle"
)

// AllMethods returns every method, in the order of the table.
func AllMethods() []string {
	return []string{MethodBase, MethodBaseHelpBias, MethodTaskTuning, MethodNaive, MethodRouter, MethodConfidence,
		MethodSelfCheck, MethodCollaborationAware, MethodGAPG, MethodDAGRPO, MethodCloud, MethodOracle}
}

// DefaultMethods returns the methods that need the trainings of task-tuning
// and gapg alone.
func DefaultMethods() []string {
	return []string{MethodBase, MethodBaseHelpBias, MethodTaskTuning, MethodNaive, MethodRouter, MethodConfidence,
		MethodSelfCheck, MethodGAPG, MethodCloud, MethodOracle}
}

// OpenModel returns a model that the caller closes.
type OpenModel func(ctx context.Context) (*model.Model, error)

// Experiment trains what its methods need, each from a fresh copy of the base
// and for the same number of steps, and compares them on held-out prompts.
type Experiment struct {
	// Open returns a fresh copy of the base model, trainable where something is
	// to be trained. The experiment closes each copy before it opens the next.
	Open OpenModel
	// Trained holds models that are there already, by method: task-tuning,
	// collaboration-aware, gapg or da-grpo. They are not trained again.
	Trained map[string]OpenModel

	Task      Task
	Tokenizer *tokenizer.Tokenizer
	Cloud     Desk // asked for every prompt of Validation and Test, and by the trainings
	Budget    Budget
	Seed      uint64

	Train, Validation, Test []Prompt

	// Methods names the rows; nil: DefaultMethods. Self-check is left out where
	// the task has no such rule.
	Methods []string

	// Config is the training of every model, but for its algorithm, reward and
	// budget, which the method decides; Configs replaces it for some methods,
	// and what it sets there of Algorithm and Reward stands. Every training has
	// the same MaxSteps.
	Config  Config
	Configs map[string]Config

	EndToken     int32
	Marker       []int32 // the help marker's tokens
	MarkerAfter  []int32 // tokens after which it may begin
	MaxNewTokens int     // of evaluation; 0: Config.MaxCompletionLength
	EvalBatch    int     // rows of a decode step in evaluation; 0: 256
	TrainBatch   int     // rows of a decode step in training; 0: all of a step's

	// Margin is how many standard errors of the validation share calibration
	// stays below the budget; 0: 1; negative: none.
	Margin float64
	// RouterPrompts is how many training prompts teach the router; 0: 2000, or
	// all there are.
	RouterPrompts int
	// Resamples of each bootstrap; 0: 2000.
	Resamples int

	Logger *slog.Logger // nil: silent
	// OnProgress, where set, is called from the goroutine of Run before each
	// phase's first step (Step 0) and after each step.
	OnProgress func(Progress)
	// OnStep, where set, sees every training step.
	OnStep func(method string, st *StepStats)
}

// Progress says how far an experiment is.
type Progress struct {
	Phase  string // "train", "evaluate", "cloud", "router", "compare"
	Method string // whose training or evaluation; "" where none
	Step   int
	Of     int
	Stats  *StepStats // of a training step; nil elsewhere
}

// trainedMethods are the methods with a training of their own, in the order in
// which they are made.
var trainedMethods = []string{MethodTaskTuning, MethodGAPG, MethodCollaborationAware, MethodDAGRPO}

// onTaskTuning are the methods that divide the task-tuned model's prompts.
var onTaskTuning = []string{MethodTaskTuning, MethodNaive, MethodRouter, MethodConfidence, MethodSelfCheck, MethodOracle}

// referenceOf returns the method that the others are compared with.
func referenceOf(methods []string) string {
	for _, name := range []string{MethodGAPG, MethodDAGRPO, MethodCollaborationAware} {
		if slices.Contains(methods, name) {
			return name
		}
	}
	return ""
}

// Run trains, evaluates and compares. Every figure is of this run; the same
// experiment on the same kind of device gives the same figures. When ctx ends,
// Run ends soon with its error.
func (e *Experiment) Run(ctx context.Context) (*Result, error) {
	start := time.Now()
	r, err := newExperimentRun(*e)
	if err != nil {
		return nil, err
	}
	if err := r.askCloud(ctx); err != nil {
		return nil, err
	}
	if r.wants(MethodBase) || r.wants(MethodBaseHelpBias) {
		err := r.with(ctx, MethodBase, r.Open, func(m *model.Model) error {
			return r.evaluate(ctx, MethodBase, m)
		})
		if err != nil {
			return nil, err
		}
	}
	for _, method := range trainedMethods {
		if !r.wants(method) {
			continue
		}
		open, trained := r.Trained[method]
		if !trained {
			open = r.Open
		}
		err := r.with(ctx, method, open, func(m *model.Model) error {
			if !trained {
				if err := r.train(ctx, method, m); err != nil {
					return err
				}
			}
			return r.evaluate(ctx, method, m)
		})
		if err != nil {
			return nil, err
		}
	}
	r.progress(Progress{Phase: "compare", Of: 1})
	res, err := Compare(r.ev)
	if err != nil {
		return nil, err
	}
	if res.ShortcutMismatches > 0 {
		r.log.Warn("responses generated at the calibrated bias differ from what the records say", "prompts", res.ShortcutMismatches, "of", res.TestPrompts)
	}
	res.Task, res.Trainings, res.Time = r.Task.Name(), r.trainings, time.Since(start)
	r.progress(Progress{Phase: "compare", Step: 1, Of: 1})
	return res, nil
}

// experimentRun is an experiment under way, its defaults filled in.
type experimentRun struct {
	Experiment
	log       *slog.Logger
	ev        Evidence
	eval      Evaluator
	trainings []Training
}

func newExperimentRun(e Experiment) (*experimentRun, error) {
	if e.Methods == nil {
		e.Methods = DefaultMethods()
	}
	for _, name := range e.Methods {
		if !slices.Contains(AllMethods(), name) {
			return nil, fmt.Errorf("method %q: unknown; there are %v", name, AllMethods())
		}
	}
	switch {
	case e.Task == nil || e.Tokenizer == nil:
		return nil, errors.New("experiment: a task and a tokenizer are needed")
	case e.Cloud == nil:
		return nil, errors.New("experiment: a cloud is needed: its answers are what every method is measured with")
	case len(e.Test) == 0:
		return nil, errors.New("experiment: no test prompts")
	}
	def(&e.MaxNewTokens, e.Config.MaxCompletionLength)
	def(&e.MaxNewTokens, 512)
	def(&e.Margin, 1)
	def(&e.RouterPrompts, 2000)
	r := &experimentRun{Experiment: e, log: e.Logger}
	if r.log == nil {
		r.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	r.eval = Evaluator{Tokenizer: e.Tokenizer, Task: e.Task, EndToken: e.EndToken, Marker: e.Marker, MarkerAfter: e.MarkerAfter,
		MaxNewTokens: e.MaxNewTokens, MaxBatch: e.EvalBatch}
	r.ev = Evidence{Budget: e.Budget, Seed: e.Seed, Margin: max(0, e.Margin), Resamples: e.Resamples, Methods: e.Methods,
		Validation: e.Validation, Test: e.Test, Models: map[string]Measured{}, Confidence: ConfidenceScores(e.Tokenizer)}
	if s, ok := e.Task.(SelfChecker); ok {
		r.ev.SelfCheck = s.SelfCheck
	}
	return r, r.check()
}

// check finds what is missing before hours are spent.
func (r *experimentRun) check() error {
	calibrated := false
	for _, name := range []string{MethodBaseHelpBias, MethodRouter, MethodConfidence, MethodSelfCheck, MethodCollaborationAware, MethodGAPG, MethodDAGRPO} {
		calibrated = calibrated || slices.Contains(r.Methods, name)
	}
	if calibrated && len(r.Validation) == 0 {
		return errors.New("experiment: no validation prompts: they are needed to calibrate the methods to the budget")
	}
	if slices.Contains(r.Methods, MethodRouter) && len(r.Train) == 0 {
		return errors.New("experiment: no training prompts: the router needs some to learn from")
	}
	if (r.wants(MethodBase) || r.wants(MethodBaseHelpBias)) && r.Open == nil {
		return errors.New("experiment: no base model")
	}
	steps := 0
	for _, method := range trainedMethods {
		if !r.wants(method) || r.Trained[method] != nil {
			continue
		}
		if r.Open == nil {
			return fmt.Errorf("experiment: the method %s needs its trained model, or a base model to train", method)
		}
		c := r.config(method)
		c.setDefaults()
		if err := c.Check(); err != nil {
			return fmt.Errorf("training of %s: %w", method, err)
		}
		if steps != 0 && c.MaxSteps != steps {
			return fmt.Errorf("training of %s: %d steps, another training has %d: give all the same number, or the comparison is not fair", method, c.MaxSteps, steps)
		}
		steps = c.MaxSteps
	}
	if len(r.Marker) == 0 && (referenceOf(r.Methods) != "" || r.wants(MethodBaseHelpBias)) {
		return errors.New("experiment: the tokens of the help marker are needed to calibrate the models that ask")
	}
	return nil
}

// wants reports whether a method or one that builds on its model is a row.
func (r *experimentRun) wants(method string) bool {
	if method == MethodTaskTuning {
		return slices.ContainsFunc(r.Methods, func(m string) bool { return slices.Contains(onTaskTuning, m) })
	}
	return slices.Contains(r.Methods, method)
}

func (r *experimentRun) progress(p Progress) {
	if r.OnProgress != nil {
		r.OnProgress(p)
	}
}

// with opens a model, uses it and closes it.
func (r *experimentRun) with(ctx context.Context, method string, open OpenModel, use func(*model.Model) error) (err error) {
	m, err := open(ctx)
	if err != nil {
		return fmt.Errorf("model of %s: %w", method, err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := use(m); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// askCloud asks for the answers to all validation and test prompts, before
// anything is trained: a cloud that cannot be reached is found out at once.
func (r *experimentRun) askCloud(ctx context.Context) error {
	all := slices.Concat(r.Validation, r.Test)
	r.progress(Progress{Phase: "cloud", Of: len(all)})
	questions := make([]cloud.Question, len(all))
	for i, p := range all {
		questions[i] = Question(p)
	}
	results, err := r.Cloud.AnswerAll(ctx, 0, questions)
	if err != nil {
		return err
	}
	answers := make([]CloudOutcome, len(all))
	for i, a := range results {
		if a.Err != nil {
			r.log.Warn("the cloud gave no answer; the prompt counts in no figure", "prompt", all[i].ID, "reason", a.Err)
			continue
		}
		correct, err := r.Task.JudgeCloud(ctx, all[i], a.Answer.Text)
		if err != nil {
			r.log.Warn("the cloud's answer could not be judged; the prompt counts in no figure", "prompt", all[i].ID, "reason", err)
			continue
		}
		answers[i] = CloudOutcome{Asked: true, Answer: a.Answer, Correct: correct, Cached: a.Cached}
	}
	n := len(r.Validation)
	r.ev.ValidationCloud, r.ev.TestCloud = answers[:n], answers[n:]
	r.progress(Progress{Phase: "cloud", Step: len(all), Of: len(all)})
	return ctx.Err()
}

// config returns the training of a method.
//
//	task-tuning          GAPG without filter, AccuracyOnly, no cloud
//	gapg                 GAPG, the configured reward
//	collaboration-aware  Dr. GRPO without filter, the configured reward
//	da-grpo              DA-GRPO, the configured reward
//
// In task tuning a response that asks for help earns nothing, so what the base
// knows of asking dies out, and nobody is asked.
func (r *experimentRun) config(method string) Config {
	c, own := r.Configs[method]
	if !own {
		c = r.Config
		c.Algorithm = nil
		if method == MethodGAPG {
			c.Algorithm = r.Config.Algorithm
		}
	}
	if c.Seed == 0 {
		c.Seed = r.Seed
	}
	c.Budget = r.Budget
	if c.Reward == nil {
		c.Reward = r.Config.Reward
	}
	if c.Reward == nil {
		c.Reward = PaperWeights()
	}
	var algorithm Algorithm
	switch method {
	case MethodTaskTuning:
		algorithm, c.Budget = GAPG{NoFilter: true}, Budget{}
		if h, ok := c.Reward.(Hierarchical); ok {
			c.Reward = AccuracyOnly{Accuracy: h.Accuracy, Format: h.Format}
		}
	case MethodGAPG:
		algorithm = GAPG{}
	case MethodCollaborationAware:
		algorithm = DrGRPO{}
	case MethodDAGRPO:
		algorithm = NewDAGRPO()
	}
	if c.Algorithm == nil {
		c.Algorithm = algorithm
	}
	return c
}

// train makes all steps of a method's training.
func (r *experimentRun) train(ctx context.Context, method string, m *model.Model) (err error) {
	start := time.Now()
	c := r.config(method)
	s := Setup{Model: m, Tokenizer: r.Tokenizer, Task: r.Task, Prompts: r.Train, EndToken: r.EndToken, MaxBatch: r.TrainBatch, Logger: r.Logger}
	desk := &tally{desk: r.Cloud, seen: map[string]firstAsk{}}
	if method != MethodTaskTuning {
		s.Cloud = desk
	}
	if c.Loss.Beta != 0 {
		o := m.Options()
		o.Trainable = false
		if s.Reference, err = m.Clone(ctx, o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.Reference.Close()) }()
	}
	t, err := NewTrainer(c, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	of := t.Config().MaxSteps
	r.progress(Progress{Phase: "train", Method: method, Of: of})
	tr := Training{Method: method, Config: t.Config()}
	for step := 1; step <= of; step++ {
		st, err := t.Step(ctx)
		if err != nil {
			return err
		}
		tr.add(st)
		if r.OnStep != nil {
			r.OnStep(method, st)
		}
		r.progress(Progress{Phase: "train", Method: method, Step: step, Of: of, Stats: st})
	}
	if tr.MaxLogpDifference != 0 {
		r.log.Error("rollout and training log-probs differ; this is a defect of the engine, please report it", "method", method, "max", tr.MaxLogpDifference)
	}
	tr.CloudCalls, tr.CloudCostUSD = desk.sums()
	tr.Time = time.Since(start)
	r.trainings = append(r.trainings, tr)
	return nil
}

// tally counts the questions of one training, each once, whatever other
// trainings have asked before it.
type tally struct {
	desk Desk
	mu   sync.Mutex
	seen map[string]firstAsk // by the question's ID
}

type firstAsk struct {
	step int
	cost float64
}

// AnswerAll implements Desk. Cached then means: asked before by this training,
// at an earlier step.
func (t *tally) AnswerAll(ctx context.Context, step int, questions []cloud.Question) ([]cloud.Result, error) {
	results, err := t.desk.AnswerAll(ctx, step, questions)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.Clone(results)
	for i, q := range questions {
		if _, ok := t.seen[q.ID]; !ok {
			t.seen[q.ID] = firstAsk{step, out[i].Answer.CostUSD}
		}
		out[i].Cached = t.seen[q.ID].step < step
	}
	return out, nil
}

// sums returns how many questions were asked and what they cost.
func (t *tally) sums() (calls int, usd float64) {
	for _, id := range slices.Sorted(maps.Keys(t.seen)) { // a sum in a fixed order
		usd += t.seen[id].cost
	}
	return len(t.seen), usd
}

// evaluate measures a model on validation and test prompts, each answered
// once, and what builds on it: the router on the task-tuned model, and what
// the reference model generates at its calibrated bias.
func (r *experimentRun) evaluate(ctx context.Context, method string, m *model.Model) error {
	nv, nt := len(r.Validation), len(r.Test)
	prompts := slices.Concat(r.Validation, r.Test)
	asks := method != MethodTaskTuning && (method != MethodBase || r.wants(MethodBaseHelpBias))
	router := method == MethodTaskTuning && slices.Contains(r.Methods, MethodRouter)
	generate := method == referenceOf(r.Methods)
	of := 1 + count(asks) + count(router) + count(generate)
	if router {
		// The training draws from the front of this order: its last prompts are the
		// least seen, and the model's success on them the most like that on others.
		for i := range min(r.RouterPrompts, len(r.Train)) {
			prompts = append(prompts, r.Train[drawPrompt(r.config(method).Seed, len(r.Train)-1-i, len(r.Train))])
		}
	}
	done := 0
	advance := func() {
		r.progress(Progress{Phase: "evaluate", Method: method, Step: done, Of: of})
		done++
	}
	advance()
	tokens, err := EncodePrompts(r.Tokenizer, prompts, m.Config().MaxPositionEmbeddings, r.MaxNewTokens)
	if err != nil {
		return err
	}
	records := make([]Record, len(prompts))
	for i, p := range prompts {
		records[i].Prompt = p
	}
	if err := r.eval.answer(ctx, m, tokens, records); err != nil {
		return err
	}
	if err := r.eval.judge(ctx, records); err != nil {
		return err
	}
	advance()
	if asks {
		if err := r.eval.probe(ctx, m, tokens, records); err != nil {
			return err
		}
		advance()
	}
	got := Measured{Validation: records[:nv:nv], Test: records[nv : nv+nt : nv+nt]}
	if router {
		if err := r.route(ctx, m, prompts, tokens, records); err != nil {
			return err
		}
		advance()
	}
	if generate {
		keep := resolved(r.ev.ValidationCloud)
		for i := range keep {
			keep[i] = keep[i] && got.Validation[i].Unresolved == ""
		}
		val := Outcomes(pick(got.Validation, keep), pick(r.ev.ValidationCloud, keep))
		got.Calibration = new(Calibrate(val, r.Budget, r.ev.Margin))
		if got.Generated, err = r.eval.generate(ctx, m, r.Test, tokens[nv:nv+nt], -got.Calibration.Threshold); err != nil {
			return err
		}
		advance()
	}
	r.ev.Models[method] = got
	return nil
}

// route trains the routers on the model's success on training prompts, which
// stand after the validation and test prompts, and scores those.
func (r *experimentRun) route(ctx context.Context, m *model.Model, prompts []Prompt, tokens [][]int32, records []Record) error {
	x, fromTask, err := routerInputs(ctx, m, r.Task, prompts, tokens)
	if err != nil {
		return err
	}
	nv, n := len(r.Validation), len(r.Validation)+len(r.Test)
	var rows [][]float64
	var fails []bool
	for i := n; i < len(records); i++ {
		if records[i].Unresolved == "" {
			rows, fails = append(rows, x[i]), append(fails, !records[i].Verdict.Correct || records[i].Verdict.Help)
		}
	}
	routers, err := trainRouters(rows, fails, fromTask, r.Seed)
	if err != nil {
		return err
	}
	for _, c := range routers {
		scores := make([]float64, n)
		for i := range scores {
			scores[i] = c.router.Score(x[i])
		}
		r.ev.Routers = append(r.ev.Routers, RankedBy{c.name, scores[:nv], scores[nv:]})
	}
	return ctx.Err()
}

// generate lets the model answer prompts at a help bias, as it would in use.
func (e *Evaluator) generate(ctx context.Context, m *model.Model, prompts []Prompt, tokens [][]int32, bias float64) ([]Generated, error) {
	out := make([]Generated, len(prompts))
	groups := make([]*Group, len(prompts))
	err := e.complete(ctx, m, tokens, bias, func(i int, c model.Completion) {
		g := &out[i]
		g.Text, g.Finish = decode(e.Tokenizer, c, e.EndToken)
		g.Tokens = c.Tokens
		if n := len(g.Tokens) - len(e.Marker); n >= 0 && slices.Equal(g.Tokens[n:], e.Marker) {
			g.Tokens = g.Tokens[:n]
		}
		groups[i] = &Group{Prompt: prompts[i], Rollouts: []Rollout{{Text: g.Text}}}
	})
	if err != nil {
		return nil, err
	}
	if err := judgeAll(ctx, e.Task, groups); err != nil {
		return nil, err
	}
	for i, g := range groups {
		out[i].Verdict, out[i].Unresolved = g.Rollouts[0].Verdict, g.Unresolved
	}
	return out, nil
}

// complete generates one greedy response to each prompt.
func (e *Evaluator) complete(ctx context.Context, m *model.Model, tokens [][]int32, bias float64, each func(i int, c model.Completion)) error {
	longest := 0
	for _, p := range tokens {
		longest = max(longest, len(p))
	}
	batch := e.MaxBatch
	def(&batch, 256)
	s, err := model.NewScheduler(m, model.SchedulerOptions{
		MaxBatch: min(batch, len(tokens)), MaxTokens: longest + e.MaxNewTokens, Marker: e.Marker, MarkerAfter: e.MarkerAfter})
	if err != nil {
		return err
	}
	defer s.Close()
	handles := make([]*model.Handle, len(tokens))
	for i, p := range tokens {
		if handles[i], err = s.Submit(e.Request(p, bias)); err != nil {
			return err
		}
	}
	if err := s.Run(ctx); err != nil {
		return err
	}
	for i, h := range handles {
		each(i, e.finishMarker(tokens[i], h.Completions()[0]))
	}
	return nil
}
