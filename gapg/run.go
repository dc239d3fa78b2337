package gapg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// RunConfig says what a training leaves on disk. Steps of 0 mean never, except
// that the last step is always saved.
type RunConfig struct {
	Dir            string
	LoggingSteps   int // 1
	SaveSteps      int
	EvalSteps      int
	EvalOnStart    bool
	SaveTotalLimit int // checkpoints kept beside the best one; 0: 2
	// MetricForBest is the evaluation metric whose largest value marks the best
	// checkpoint; "" keeps none.
	MetricForBest string
	LoadBest      bool // load the best checkpoint's weights at the end
	Patience      int  // evaluations without a better value before stopping; 0: never
}

// Run is a training with a directory: metrics.jsonl, TensorBoard events and
// checkpoint-N directories. Killed at any instant and resumed on the same kind
// of device, it ends in the same weights, optimizer state and metrics as a run
// that was never killed.
type Run struct {
	Trainer *Trainer
	Config  RunConfig
	// Evaluate measures the model; its metrics are logged under "eval/".
	Evaluate func(ctx context.Context, step int) (map[string]float64, error)
	// OnStep and OnEval, where set, see every step and evaluation: progress
	// bars, reports.
	OnStep func(*StepStats)
	OnEval func(step int, metrics map[string]float64)
	// Stop, when closed, ends the training after the running step, with a
	// checkpoint.
	Stop <-chan struct{}

	runLog
	state   runState
	maxDiff float64
}

// runState is trainer_state.json: all that a resumed run needs beside weights
// and optimizer.
type runState struct {
	FormatVersion  int             `json:"format_version"`
	Trainer        State           `json:"trainer"`
	Algorithm      string          `json:"algorithm"`
	AlgorithmState json.RawMessage `json:"algorithm_state,omitempty"`
	Metrics        report.Mark     `json:"metrics"`
	BestStep       int             `json:"best_step"`
	BestValue      *float64        `json:"best_value,omitempty"`
	SinceBest      int             `json:"evaluations_since_best"`
	EarlyStopped   bool            `json:"early_stopped,omitempty"`
	// EvaluationDue says that the step is made and its evaluation is not.
	EvaluationDue bool `json:"evaluation_due,omitempty"`
}

const formatVersion = 1

// ErrStopped says that Stop ended the training early; everything is saved.
var ErrStopped = errors.New("stopped")

// Train runs to the trainer's MaxSteps, from the newest checkpoint in the
// directory where resume is set. It calls Open unless that was done.
func (r *Run) Train(ctx context.Context, resume bool) (err error) {
	if r.log == nil {
		if err := r.Open(ctx, resume); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.close()) }()
	t := r.Trainer
	if r.Config.EvalOnStart && t.state.Step == 0 {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
	}
	for r.state.EvaluationDue || t.state.Step < t.cfg.MaxSteps && !r.state.EarlyStopped {
		if !r.state.EvaluationDue {
			st, err := t.Step(ctx)
			if err != nil {
				return r.halt(ctx, err)
			}
			r.maxDiff = max(r.maxDiff, st.MaxLogpDifference)
			if err := r.logStep(st); err != nil {
				return err
			}
			r.state.EvaluationDue = r.Config.EvalSteps > 0 && (t.state.Step%r.Config.EvalSteps == 0 || t.state.Step == t.cfg.MaxSteps)
		}
		if r.state.EvaluationDue {
			if err := r.evaluate(ctx); err != nil {
				return r.halt(ctx, err)
			}
			r.state.EvaluationDue = false
		}
		last := t.state.Step == t.cfg.MaxSteps
		stop := isClosed(r.Stop)
		if last || stop || r.state.EarlyStopped || r.Config.SaveSteps > 0 && t.state.Step%r.Config.SaveSteps == 0 || r.state.BestStep == t.state.Step {
			if err := r.save(ctx); err != nil {
				return err
			}
		}
		if stop && !last {
			return ErrStopped
		}
	}
	if r.Config.LoadBest && r.state.BestStep > 0 {
		return t.s.Model.LoadWeights(ctx, r.checkpointDir(r.state.BestStep))
	}
	return nil
}

// halt ends a run for which the cloud has nothing more until somebody acts: at
// a limit, or where it takes no question. The steps made so far are saved, so
// that the run goes on from there under a raised limit or with a key that works.
func (r *Run) halt(ctx context.Context, err error) error {
	var limit *cloud.LimitError
	var rejected *cloud.RejectedError
	if !errors.As(err, &limit) && !errors.As(err, &rejected) || r.Trainer.state.Step == 0 {
		return err
	}
	steps, listErr := checkpoints(r.Config.Dir)
	if listErr == nil && slices.Contains(steps, r.Trainer.state.Step) && !r.state.EvaluationDue {
		return err
	}
	return errors.Join(err, r.save(ctx))
}

// MaxLogpDifference returns the largest difference between rollout and training
// log-probs that this process saw: 0 by contract.
func (r *Run) MaxLogpDifference() float64 { return r.maxDiff }

// BestStep returns the step of the best checkpoint, 0 where there is none.
func (r *Run) BestStep() int { return r.state.BestStep }

// Open makes the directory ready: a new run's log, or the state of the newest
// checkpoint where resume is set. Nothing is changed where it fails, so that a
// caller can tell a bad configuration from a run that failed.
func (r *Run) Open(ctx context.Context, resume bool) error {
	def(&r.Config.LoggingSteps, 1)
	def(&r.Config.SaveTotalLimit, 2)
	err := r.openIn(r.Config.Dir, resume, func(step int) (report.Mark, error) {
		err := r.load(ctx, step)
		return r.state.Metrics, err
	})
	if err == nil && resume {
		// What a kill between a save and its pruning left.
		if err = r.prune(); err != nil {
			err = errors.Join(err, r.close())
		}
	}
	return err
}

func (r *Run) logStep(st *StepStats) error {
	if r.OnStep != nil {
		r.OnStep(st)
	}
	if st.ClippedRatio > 0.1 {
		r.Trainer.log.Warn("many completions are cut at the token limit; raise max-completion-length",
			"step", st.Step, "completions/clipped_ratio", st.ClippedRatio)
	}
	if st.MaxLogpDifference != 0 {
		r.Trainer.log.Error("rollout and training log-probs differ; this is a defect of the engine, please report it",
			"step", st.Step, "max", st.MaxLogpDifference)
	}
	if st.Step%r.Config.LoggingSteps != 0 {
		return nil
	}
	line := st.Metrics()
	for k, v := range st.Timings() {
		line[k] = v
	}
	return r.write(st.Step, line)
}

// evaluate measures the model and keeps track of the best value.
func (r *Run) evaluate(ctx context.Context) error {
	if r.Evaluate == nil {
		return nil
	}
	step := r.Trainer.state.Step
	metrics, err := r.Evaluate(ctx, step)
	if err != nil {
		return err
	}
	line := map[string]float64{}
	for k, v := range metrics {
		line["eval/"+k] = v
	}
	if err := r.write(step, line); err != nil {
		return err
	}
	if r.OnEval != nil {
		r.OnEval(step, metrics)
	}
	if r.Config.MetricForBest == "" || step == 0 {
		return nil
	}
	value, ok := metrics[r.Config.MetricForBest]
	if !ok {
		return fmt.Errorf("metric-for-best-model %q: the evaluation has no such metric; it has %s", r.Config.MetricForBest, strings.Join(sortedKeys(metrics), ", "))
	}
	if !math.IsNaN(value) && (r.state.BestValue == nil || value > *r.state.BestValue) {
		r.state.BestStep, r.state.BestValue, r.state.SinceBest = step, &value, 0
		return nil
	}
	r.state.SinceBest++
	r.state.EarlyStopped = r.Config.Patience > 0 && r.state.SinceBest >= r.Config.Patience
	return nil
}

func sortedKeys(m map[string]float64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (r *Run) checkpointDir(step int) string { return checkpointDir(r.Config.Dir, step) }

// save writes checkpoint-N whole or not at all, then drops the ones beyond the
// limit.
func (r *Run) save(ctx context.Context) error {
	t := r.Trainer
	mark, err := r.log.Mark(int64(t.state.Step))
	if err != nil {
		return err
	}
	r.state.FormatVersion, r.state.Trainer, r.state.Metrics = formatVersion, t.state, mark
	r.state.Algorithm = t.cfg.Algorithm.Name()
	if s, ok := t.cfg.Algorithm.(Stateful); ok {
		if r.state.AlgorithmState, err = s.State(); err != nil {
			return err
		}
	}
	err = checkpoint.WriteDir(r.checkpointDir(t.state.Step), func(tmp string) error {
		if err := t.s.Model.SaveState(ctx, tmp); err != nil {
			return err
		}
		if err := t.s.Tokenizer.Save(filepath.Join(tmp, tokenizer.File)); err != nil {
			return err
		}
		if err := t.s.Model.SaveOptimizer(ctx, filepath.Join(tmp, optimizerFile)); err != nil {
			return err
		}
		state, err := json.MarshalIndent(&r.state, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, stateFile), append(state, '\n'), 0o644)
	})
	if err != nil {
		return fmt.Errorf("checkpoint of step %d: %w; the checkpoints before it are intact: mend the cause (a full disk?) and resume", t.state.Step, err)
	}
	return r.prune()
}

// Files of a checkpoint beside the model's own.
const (
	stateFile     = "trainer_state.json"
	optimizerFile = model.OptimizerFile
)

func (r *Run) prune() error {
	return pruneCheckpoints(r.Config.Dir, r.Config.SaveTotalLimit, r.state.BestStep)
}

// load restores the checkpoint of a step.
func (r *Run) load(ctx context.Context, step int) error {
	dir, t := r.checkpointDir(step), r.Trainer
	path := filepath.Join(dir, stateFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	damaged := func(err error) error {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w; if it is damaged, move %s away to resume from the checkpoint before it", err, dir)
	}
	var s runState
	if err := json.Unmarshal(data, &s); err != nil {
		return damaged(fmt.Errorf("%s: %w", path, err))
	}
	switch {
	case s.FormatVersion != formatVersion:
		return fmt.Errorf("%s: format_version %d; this program reads %d", path, s.FormatVersion, formatVersion)
	case s.Algorithm != t.cfg.Algorithm.Name():
		return fmt.Errorf("%s: the run used the algorithm %s, not %s", path, s.Algorithm, t.cfg.Algorithm.Name())
	case s.Trainer.Step != step:
		return fmt.Errorf("%s: step %d in the directory of step %d", path, s.Trainer.Step, step)
	}
	if a, ok := t.cfg.Algorithm.(Stateful); ok {
		if err := a.SetState(s.AlgorithmState); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := t.s.Model.LoadWeights(ctx, dir); err != nil {
		return damaged(err)
	}
	if err := t.s.Model.LoadOptimizer(ctx, filepath.Join(dir, optimizerFile)); err != nil {
		return damaged(err)
	}
	r.state, t.state = s, s.Trainer
	return nil
}
