package gapg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// Desk asks the cloud for many answers at once; *cloud.Ledger is one. A
// question is asked at most once ever, and every outcome is recorded before it
// is returned: asked again at the same step it is the same. Several goroutines
// may ask at once.
type Desk interface {
	AnswerAll(ctx context.Context, step int, questions []cloud.Question) ([]cloud.Result, error)
}

// Setup is what a Trainer works on. The model must be trainable and is
// changed; Reference, needed where Config.Loss.Beta is not zero, is not. A model
// that trains adapters can do without: then its frozen weights are the reference.
type Setup struct {
	Model     *model.Model
	Reference *model.Model
	Tokenizer *tokenizer.Tokenizer
	Task      Task
	Prompts   []Prompt
	Cloud     Desk // may be nil where the budget is 0: then nobody can be asked
	// EndToken ends a response; its id is the last token of a complete rollout.
	EndToken int32
	MaxBatch int          // rows of a decode step; 0: PromptsPerStep·NumGenerations
	Logger   *slog.Logger // nil: silent
}

// Trainer post-trains a model. It is not safe for concurrent use, but several
// trainers with models on different backends may run in one process.
type Trainer struct {
	cfg     Config
	s       Setup
	log     *slog.Logger
	prompts [][]int32 // tokens of s.Prompts
	rollout *model.Scheduler
	state   State
}

// State is all that a step depends on beside the weights, the optimizer and
// the recorded cloud answers.
type State struct {
	Step    int // updates or skipped steps made so far
	Cursor  int // prompts drawn so far, over all epochs
	Tokens  int64
	Calls   int // prompts sent to the cloud for the first time by this run
	CostUSD float64
	// Unpriced counts the calls whose cost is not known, which CostUSD leaves out.
	Unpriced int `json:",omitempty"`
}

// count adds a call that was sent for the first time.
func (s *State) count(o cloud.Result) {
	s.Calls++
	s.CostUSD += o.Answer.CostUSD
	if o.Answer.CostUnknown {
		s.Unpriced++
	}
}

// ErrNonFinite says that a step's loss or gradient was not a finite number;
// the weights are as they were before the step.
var ErrNonFinite = errors.New("loss or gradient is not finite")

// NewTrainer checks the configuration, encodes the prompts and plans the
// memory of rollouts.
func NewTrainer(c Config, s Setup) (*Trainer, error) {
	c.setDefaults()
	if err := c.Check(); err != nil {
		return nil, err
	}
	t := &Trainer{cfg: c, s: s, log: s.Logger}
	if t.log == nil {
		t.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	switch {
	case s.Model == nil || s.Tokenizer == nil || s.Task == nil:
		return nil, errors.New("trainer: Setup needs a Model, a Tokenizer and a Task")
	case !s.Model.Options().Trainable:
		return nil, errors.New("trainer: the model was not made trainable; set model.Options.Trainable and MaxRows")
	case len(s.Prompts) == 0:
		return nil, errors.New("training data: no prompts; give a data set with at least one")
	case c.Loss.Beta != 0 && s.Reference == nil && s.Model.Options().LoRA == nil:
		return nil, fmt.Errorf("beta %g: a KL penalty needs a reference model", c.Loss.Beta)
	case s.Cloud == nil && c.Budget.Num != 0:
		return nil, fmt.Errorf("cloud budget %s: no cloud to ask; set a cloud or a budget of 0", c.Budget)
	}
	var err error
	if t.prompts, err = EncodePrompts(s.Tokenizer, s.Prompts, s.Model.Config().MaxPositionEmbeddings, c.MaxCompletionLength); err != nil {
		return nil, err
	}
	batch := s.MaxBatch
	if batch == 0 {
		batch = c.PromptsPerStep * c.NumGenerations
	}
	longest := 0
	for _, p := range t.prompts {
		longest = max(longest, len(p))
	}
	t.rollout, err = model.NewScheduler(s.Model, model.SchedulerOptions{MaxBatch: batch, MaxTokens: longest + c.MaxCompletionLength})
	return t, err
}

// Close frees the memory of rollouts. The model stays the caller's.
func (t *Trainer) Close() error { return t.rollout.Close() }

// Config returns the settings with their defaults filled in.
func (t *Trainer) Config() Config { return t.cfg }

// State returns the trainer's place in the run.
func (t *Trainer) State() State { return t.state }

// Step makes one update: sample, judge, ask, score, choose, weigh, update. A
// step with nothing to learn from is skipped and says so. When ctx ends before
// the update, nothing has changed but the cloud's recorded answers.
func (t *Trainer) Step(ctx context.Context) (st *StepStats, err error) {
	start := time.Now()
	undo, err := t.saveAlgorithm()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	st, err = t.step(ctx)
	if err == nil {
		st.StepTime = time.Since(start)
	}
	return st, err
}

// saveAlgorithm returns what puts the algorithm's state back.
func (t *Trainer) saveAlgorithm() (undo func() error, err error) {
	s, ok := t.cfg.Algorithm.(Stateful)
	if !ok {
		return func() error { return nil }, nil
	}
	state, err := s.State()
	return func() error { return s.SetState(state) }, err
}

func (t *Trainer) step(ctx context.Context) (*StepStats, error) {
	st := &StepStats{Step: t.state.Step + 1}
	next := t.state
	next.Step++

	batch := &Batch{Step: next.Step, Seed: t.cfg.Seed, Rho: t.cfg.Budget.Rho(), Budget: t.cfg.Budget, Config: t.cfg.Loss}
	asked := map[questionKey]bool{}
	groups, err := t.sample(ctx, &next, st, asked)
	if err != nil {
		return nil, err
	}
	batch.Groups = groups
	st.observe(t.cfg.Algorithm, batch)
	sel := t.cfg.Algorithm.Select(batch)
	for n := 0; t.wantsMore(batch, sel) && n < t.cfg.MaxRefill; n++ {
		more, err := t.sample(ctx, &next, st, asked)
		if err != nil {
			return nil, err
		}
		batch.Groups = append(batch.Groups, more...)
		sel = t.cfg.Algorithm.Select(batch)
	}
	if len(sel.Keep) > t.cfg.PromptsPerStep {
		sel.Keep = sel.Keep[:t.cfg.PromptsPerStep]
	}
	st.summarise(batch, sel)

	for batch.Iteration = range t.cfg.NumIterations {
		if err := t.update(ctx, batch, sel.Keep, st); err != nil {
			return nil, fmt.Errorf("step %d: %w", next.Step, err)
		}
		if st.Skipped {
			break
		}
		ctx = context.WithoutCancel(ctx) // a batch's updates are made all or none
	}
	st.NumTokens = next.Tokens
	st.CloudCalls = next.Calls - t.state.Calls
	st.CloudCallsTotal, st.CloudCostUSD = next.Calls, next.CostUSD
	if next.Unpriced > 0 {
		st.CloudCostUSD = math.NaN()
	}
	t.state = next
	return st, nil
}

func (t *Trainer) wantsMore(b *Batch, sel Selection) bool {
	r, ok := t.cfg.Algorithm.(interface{ Refill() bool })
	return ok && r.Refill() && len(sel.Keep) < min(t.cfg.PromptsPerStep, len(b.Groups))
}

// sample draws the next prompts and returns their groups with rewards; groups
// that could not be resolved are counted in st and left out. asked holds the
// questions that the step has asked so far.
func (t *Trainer) sample(ctx context.Context, next *State, st *StepStats, asked map[questionKey]bool) ([]*Group, error) {
	groups := make([]*Group, t.cfg.PromptsPerStep)
	for i := range groups {
		idx := drawPrompt(t.cfg.Seed, next.Cursor, len(t.prompts))
		groups[i] = &Group{Prompt: t.s.Prompts[idx], Index: idx, PromptTokens: t.prompts[idx]}
		next.Cursor++
	}
	phase := time.Now()
	finish, err := t.generate(ctx, groups, next, st)
	st.RolloutTime += time.Since(phase)
	st.RolloutMemory = max(st.RolloutMemory, residentMemory())
	phase = time.Now()
	if finishErr := finish(); err == nil {
		err = finishErr // else it is a consequence
	}
	if err != nil {
		return nil, err
	}
	if err := t.askCloud(ctx, groups, next, asked); err != nil {
		return nil, err
	}
	scoreGroups(ctx, t.cfg.Reward, groups)
	st.CloudTime += time.Since(phase)

	resolved := groups[:0]
	for _, g := range groups {
		if g.Unresolved != "" {
			st.Unresolved++
			t.log.Warn("group left the batch", "step", st.Step, "prompt", g.Prompt.ID, "reason", g.Unresolved)
			continue
		}
		resolved = append(resolved, g)
	}
	return resolved, ctx.Err()
}

// generate samples G responses to every group's prompt. As soon as a group is
// whole it is judged, and where it asks for help the cloud's answer is fetched,
// while the others are still being written; finish waits for that. What is then
// on record does not depend on the order.
func (t *Trainer) generate(ctx context.Context, groups []*Group, next *State, st *StepStats) (finish func() error, err error) {
	var (
		handles = make([]*model.Handle, 0, len(groups))
		errs    = make([]error, len(groups))
		wg      sync.WaitGroup
	)
	beside, cancel := context.WithCancel(ctx)
	finish = func() error {
		defer cancel()
		wg.Wait()
		for _, g := range groups {
			for _, r := range g.Rollouts {
				next.Tokens += int64(len(r.Tokens))
				st.RolloutTokens += len(r.Tokens)
			}
		}
		return cmp.Or(errs...)
	}
	defer func() {
		if err != nil { // a step that ends early must not leave work behind for the next one
			cancel()
			for _, h := range handles {
				t.rollout.Cancel(h)
			}
		}
	}()
	for i, g := range groups {
		h, err := t.rollout.Submit(model.Request{
			Prompt: g.PromptTokens, N: t.cfg.NumGenerations, MaxNewTokens: t.cfg.MaxCompletionLength,
			Sampling: model.Sampling{Temperature: float32(t.cfg.Temperature), TopK: t.cfg.TopK, TopP: float32(t.cfg.TopP), MinP: float32(t.cfg.MinP)},
			Seed:     t.cfg.Seed, Step: next.Step, PromptIndex: next.Cursor - len(groups) + i,
			StopTokens: []int32{t.s.EndToken},
		})
		if err != nil {
			return finish, err
		}
		handles = append(handles, h)
	}
	for i, h := range handles {
		wg.Go(func() {
			select {
			case <-h.Done():
				errs[i] = t.whole(beside, groups[i], h, next.Step)
			case <-beside.Done():
			}
		})
	}
	if err := t.rollout.Run(ctx); err != nil {
		if errors.Is(err, model.ErrNonFinite) {
			err = fmt.Errorf("step %d: %w: %w; resume from a checkpoint with a lower learning rate", next.Step, ErrNonFinite, err)
		}
		return finish, err
	}
	return finish, nil
}

// whole takes a group's responses over, judges them and fetches the answer that
// they ask for. The answer stays in the desk's records, where askCloud finds it.
func (t *Trainer) whole(ctx context.Context, g *Group, h *model.Handle, step int) error {
	completions := h.Completions()
	for _, c := range completions {
		if c.Finish == model.FinishCancelled {
			return nil // the step has failed
		}
	}
	for _, c := range completions {
		text, finish := decode(t.s.Tokenizer, c, t.s.EndToken)
		g.Rollouts = append(g.Rollouts, Rollout{
			Tokens: c.Tokens, Text: text, Finish: finish,
			OldLogprobs: c.LogProbs, Logprobs: c.LogProbs, SamplingLogprobs: c.SamplingLogProbs, Entropies: c.Entropies,
		})
	}
	if err := judgeWithin(ctx, t.s.Task, []*Group{g}, t.cfg.JudgeTimeout); err != nil {
		return err
	}
	if t.s.Cloud == nil || !t.wantsCloud(g) {
		return nil
	}
	_, err := t.s.Cloud.AnswerAll(ctx, step, []cloud.Question{Question(g.Prompt)})
	return err
}

// wantsCloud reports whether the cloud's answer to a judged group is needed.
func (t *Trainer) wantsCloud(g *Group) bool {
	return g.Unresolved == "" && (g.Helps() > 0 || t.cfg.QueryCloud == "all-fail" && g.DeviceCorrect() == 0)
}

// askCloud asks for the answers that this batch wants, each at most once ever.
func (t *Trainer) askCloud(ctx context.Context, groups []*Group, next *State, asked map[questionKey]bool) error {
	var wanting []*Group
	var questions []cloud.Question
	for _, g := range groups {
		if t.wantsCloud(g) {
			wanting = append(wanting, g)
			questions = append(questions, Question(g.Prompt))
		}
	}
	if len(wanting) == 0 || t.s.Cloud == nil {
		return nil
	}
	outcomes, err := t.s.Cloud.AnswerAll(ctx, next.Step, questions)
	if err != nil {
		return err
	}
	for i, o := range outcomes {
		g := wanting[i]
		// The same question twice in a step is one call, whose outcome a Desk
		// hands out twice.
		key := questionKey{questions[i].ID, questions[i].Text}
		o.Cached = o.Cached || asked[key]
		asked[key] = true
		if !o.Cached {
			next.count(o)
		}
		if o.Err != nil {
			g.Unresolved = fmt.Sprintf("cloud: %v", o.Err)
			continue
		}
		correct, err := t.judgeCloud(ctx, g.Prompt, o.Answer.Text)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			g.Unresolved = fmt.Sprintf("verifier of the cloud's answer: %v", err)
			continue
		}
		g.Cloud = CloudOutcome{Asked: true, Answer: o.Answer, Correct: correct, Cached: o.Cached}
	}
	return nil
}

func (t *Trainer) judgeCloud(ctx context.Context, p Prompt, answer string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.JudgeTimeout)
	defer cancel()
	return t.s.Task.JudgeCloud(ctx, p, answer)
}

// questionKey tells questions to one cloud apart.
type questionKey struct{ id, text string }

// Question is what the cloud is asked about p.
func Question(p Prompt) cloud.Question {
	text := p.CloudText
	if text == "" {
		text = p.Text
	}
	return cloud.Question{ID: p.ID, Text: text, Gold: p.Gold}
}

// scoreGroup fills in the rewards of a resolved group.
func scoreGroup(ctx context.Context, reward Reward, g *Group) {
	for i := range g.Rollouts {
		if g.Unresolved != "" {
			return
		}
		parts, err := reward.Reward(ctx, g, i)
		if err != nil {
			g.Unresolved = fmt.Sprintf("reward: %v", err)
			return
		}
		g.Rollouts[i].Parts, g.Rollouts[i].Reward = parts, parts.Sum()
	}
}

// update makes one optimizer step on the kept groups.
func (t *Trainer) update(ctx context.Context, b *Batch, keep []int, st *StepStats) error {
	first := b.Iteration == 0
	if err := t.logprobs(ctx, b, keep, st); err != nil {
		return err
	}
	st.penalty(b, keep)
	// Groups whose weights are all zero (equal rewards) add nothing to the
	// gradient, so nothing is computed for them.
	batch, rollouts, weights := pack(b, keep, t.cfg.Algorithm.Weights(b, keep))
	if len(rollouts) == 0 {
		st.Skipped = first
		return nil
	}
	batch.Scale = float32(1 / t.cfg.Temperature)
	parts, err := batch.Split(t.s.Model.Options().MaxRows)
	if err != nil {
		return err
	}
	t.s.Model.ZeroGrad()
	loss := 0.0
	for _, p := range parts {
		phase := time.Now()
		out, err := t.s.Model.Forward(ctx, &p.Batch)
		if err != nil {
			return err
		}
		st.ForwardTime += time.Since(phase)
		st.ForwardMemory = max(st.ForwardMemory, residentMemory())
		if first && t.cfg.Temperature == 1 {
			spread(out.LogProbs, rollouts, p.From, st.compareRun)
		}
		slope := make([]float32, p.To-p.From)
		for i, w := range weights[p.From:p.To] {
			slope[i] = -w // the optimizer descends
			loss -= float64(w) * float64(out.LogProbs[i])
		}
		phase = time.Now()
		if err := t.s.Model.Backward(ctx, slope, nil); err != nil {
			return err
		}
		st.BackwardTime += time.Since(phase)
		st.BackwardMemory = max(st.BackwardMemory, residentMemory())
		st.TrainTokens += len(slope)
	}

	phase := time.Now()
	norm, err := t.s.Model.GradNorm(ctx)
	if err != nil {
		return err
	}
	if math.IsNaN(loss) || math.IsInf(loss, 0) || math.IsNaN(norm) || math.IsInf(norm, 0) {
		return fmt.Errorf("%w (loss %g, gradient norm %g): the step is rejected and the weights are unchanged; lower the learning rate or look at the data", ErrNonFinite, loss, norm)
	}
	scale := 1.0
	if t.cfg.MaxGradNorm > 0 && norm > t.cfg.MaxGradNorm {
		scale = t.cfg.MaxGradNorm / norm
	}
	st.Loss, st.GradNorm, st.LearningRate = loss, norm, t.cfg.learningRate(b.Step)
	t.s.Model.AdamWStep(model.AdamW{
		LR: float32(st.LearningRate), Beta1: float32(t.cfg.AdamBeta1), Beta2: float32(t.cfg.AdamBeta2),
		Eps: float32(t.cfg.AdamEpsilon), WeightDecay: float32(t.cfg.WeightDecay), GradScale: float32(scale),
	})
	if err := t.s.Model.Backend().Sync(); err != nil {
		return err
	}
	st.OptimizerTime += time.Since(phase)
	st.OptimizerMemory = max(st.OptimizerMemory, residentMemory())
	return nil
}

// logprobs brings Logprobs and RefLogprobs of the kept groups up to date. In a
// batch's first update the policy is the one that sampled, so that its
// log-probs are known (contract 3 of package engine, which update checks);
// later, and where a temperature scales the head, a pass of its own finds them.
func (t *Trainer) logprobs(ctx context.Context, b *Batch, keep []int, st *StepStats) error {
	first := b.Iteration == 0
	scale := float32(1 / t.cfg.Temperature)
	if first && t.cfg.Loss.Beta != 0 {
		reference := func(m *model.Model) error {
			return forwardAll(ctx, m, b, keep, scale, func(r *Rollout, at int, v []float32) {
				if at == 0 {
					r.RefLogprobs = make([]float32, len(r.Tokens))
				}
				copy(r.RefLogprobs[at:], v)
			})
		}
		var err error
		if t.s.Reference != nil {
			err = reference(t.s.Reference)
		} else {
			err = t.s.Model.WithoutAdapters(func() error { return reference(t.s.Model) })
		}
		if err != nil {
			return err
		}
	}
	if first && scale == 1 {
		return nil
	}
	if first {
		if err := forwardAll(ctx, t.s.Model, b, keep, 1, st.compareRun); err != nil {
			return err
		}
	}
	return forwardAll(ctx, t.s.Model, b, keep, scale, func(r *Rollout, at int, v []float32) {
		if at == 0 {
			r.Logprobs = make([]float32, len(r.Tokens))
		}
		copy(r.Logprobs[at:], v)
		if first {
			r.OldLogprobs = r.Logprobs
		}
	})
}

// forwardAll runs m over the kept groups and hands each rollout its log-probs,
// in runs that begin at token at.
func forwardAll(ctx context.Context, m *model.Model, b *Batch, keep []int, scale float32, each func(r *Rollout, at int, v []float32)) error {
	batch, rollouts, _ := pack(b, keep, nil)
	batch.Scale = scale
	parts, err := batch.Split(m.Options().MaxRows)
	if err != nil {
		return err
	}
	for _, p := range parts {
		out, err := m.Forward(ctx, &p.Batch)
		if err != nil {
			return err
		}
		spread(out.LogProbs, rollouts, p.From, each)
	}
	return nil
}

// pack lays groups out for the model, with their rollouts and weights in its
// flat order. With weights, groups whose weights are all zero are left out.
func pack(b *Batch, keep []int, weights [][][]float32) (*model.Batch, []*Rollout, []float32) {
	batch, rollouts, flat := &model.Batch{}, []*Rollout(nil), []float32(nil)
	for i, k := range keep {
		if weights != nil && allZero(weights[i]) {
			continue
		}
		g := model.Group{Prompt: b.Groups[k].PromptTokens}
		for j := range b.Groups[k].Rollouts {
			r := &b.Groups[k].Rollouts[j]
			g.Responses = append(g.Responses, r.Tokens)
			rollouts = append(rollouts, r)
			if weights != nil {
				flat = append(flat, weights[i][j]...)
			}
		}
		batch.Groups = append(batch.Groups, g)
	}
	return batch, rollouts, flat
}

func allZero(w [][]float32) bool {
	for _, r := range w {
		for _, x := range r {
			if x != 0 {
				return false
			}
		}
	}
	return true
}

// spread hands each rollout its run of flat, which starts at token from of the
// whole batch; at is the place in the rollout where the run begins.
func spread(flat []float32, rollouts []*Rollout, from int, each func(r *Rollout, at int, v []float32)) {
	pos := 0
	for _, r := range rollouts {
		lo, hi := max(pos, from), min(pos+len(r.Tokens), from+len(flat))
		if lo < hi {
			each(r, lo-pos, flat[lo-from:hi-from])
		}
		pos += len(r.Tokens)
	}
}
