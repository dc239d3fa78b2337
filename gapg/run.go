package gapg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model/checkpoint"
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

	log     *report.MetricsLog
	events  *report.EventWriter
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
}

const formatVersion = 1

// ErrStopped says that Stop ended the training early; everything is saved.
var ErrStopped = errors.New("stopped")

// Train runs to the trainer's MaxSteps, from the newest checkpoint in the
// directory where resume is set.
func (r *Run) Train(ctx context.Context, resume bool) (err error) {
	if err := r.open(ctx, resume); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.log.Close(), r.events.Close()) }()
	t := r.Trainer
	if r.Config.EvalOnStart && t.state.Step == 0 {
		if err := r.evaluate(ctx); err != nil {
			return err
		}
	}
	for t.state.Step < t.cfg.MaxSteps && !r.state.EarlyStopped {
		st, err := t.Step(ctx)
		if err != nil {
			return err
		}
		r.maxDiff = max(r.maxDiff, st.MaxLogpDifference)
		if err := r.logStep(st); err != nil {
			return err
		}
		last := t.state.Step == t.cfg.MaxSteps
		if r.Config.EvalSteps > 0 && (t.state.Step%r.Config.EvalSteps == 0 || last) {
			if err := r.evaluate(ctx); err != nil {
				return err
			}
		}
		stop := r.stopped()
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

// MaxLogpDifference returns the largest difference between rollout and training
// log-probs that this process saw: 0 by contract.
func (r *Run) MaxLogpDifference() float64 { return r.maxDiff }

// BestStep returns the step of the best checkpoint, 0 where there is none.
func (r *Run) BestStep() int { return r.state.BestStep }

func (r *Run) stopped() bool {
	select {
	case <-r.Stop:
		return true
	default:
		return false
	}
}

func (r *Run) open(ctx context.Context, resume bool) error {
	def(&r.Config.LoggingSteps, 1)
	def(&r.Config.SaveTotalLimit, 2)
	if err := os.MkdirAll(r.Config.Dir, 0o755); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if resume {
		if err := recoverCheckpoints(r.Config.Dir); err != nil {
			return err
		}
	}
	steps, err := checkpoints(r.Config.Dir)
	if err != nil {
		return err
	}
	metrics := filepath.Join(r.Config.Dir, report.MetricsFile)
	switch {
	case resume && len(steps) > 0:
		if err := r.load(ctx, steps[len(steps)-1]); err != nil {
			return err
		}
		r.log, err = report.ResumeMetrics(metrics, r.state.Metrics)
	case resume: // killed before its first checkpoint: begin again
		r.log, err = report.ResumeMetrics(metrics, report.Mark{})
	case len(steps) > 0:
		return fmt.Errorf("output directory %s: already holds checkpoint-%d; resume it or choose another directory", r.Config.Dir, steps[len(steps)-1])
	default:
		r.log, err = report.CreateMetrics(metrics)
	}
	if err != nil {
		return err
	}
	r.events, err = report.NewEventWriter(r.Config.Dir, report.EventOptions{Resume: int64(r.Trainer.state.Step)})
	if err != nil {
		return errors.Join(err, r.log.Close())
	}
	if resume {
		// What a kill between a save and its pruning left.
		if err := r.prune(); err != nil {
			return errors.Join(err, r.log.Close(), r.events.Close())
		}
	}
	return nil
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

func (r *Run) write(step int, line map[string]float64) error {
	values := make(map[string]any, len(line))
	for k, v := range line {
		values[k] = v
	}
	if err := r.log.Write(int64(step), values); err != nil {
		return err
	}
	if err := r.events.Scalars(int64(step), line); err != nil {
		return err
	}
	return r.events.Flush()
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
	if r.state.BestValue == nil || value > *r.state.BestValue {
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

func (r *Run) checkpointDir(step int) string {
	return filepath.Join(r.Config.Dir, fmt.Sprintf("checkpoint-%d", step))
}

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
		if err := t.s.Model.Save(ctx, tmp); err != nil {
			return err
		}
		if err := t.s.Tokenizer.Save(filepath.Join(tmp, "tokenizer.json")); err != nil {
			return err
		}
		if err := t.s.Model.SaveOptimizer(ctx, filepath.Join(tmp, "optimizer.safetensors")); err != nil {
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

const stateFile = "trainer_state.json"

func (r *Run) prune() error {
	steps, err := checkpoints(r.Config.Dir)
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(s int) bool { return s == r.state.BestStep })
	for len(steps) > r.Config.SaveTotalLimit {
		if err := os.RemoveAll(r.checkpointDir(steps[0])); err != nil {
			return fmt.Errorf("old checkpoint: %w", err)
		}
		steps = steps[1:]
	}
	return nil
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
	if err := t.s.Model.LoadOptimizer(ctx, filepath.Join(dir, "optimizer.safetensors")); err != nil {
		return damaged(err)
	}
	r.state, t.state = s, s.Trainer
	return nil
}

// checkpoints returns the steps of the whole checkpoints in dir, ascending.
func checkpoints(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), "checkpoint-"); ok && e.IsDir() {
			if step, err := strconv.Atoi(n); err == nil {
				steps = append(steps, step)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// recoverCheckpoints puts right what a kill inside a save left in dir.
func recoverCheckpoints(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), ".checkpoint-"); ok {
			step, _, _ := strings.Cut(n, ".")
			if err := checkpoint.RecoverDir(filepath.Join(dir, "checkpoint-"+step)); err != nil {
				return err
			}
		}
	}
	return nil
}

// NewestCheckpoint returns the directory of the last checkpoint in a run
// directory.
func NewestCheckpoint(dir string) (string, error) {
	steps, err := checkpoints(dir)
	if err != nil {
		return "", err
	}
	if len(steps) == 0 {
		return "", fmt.Errorf("%s: holds no checkpoint", dir)
	}
	return filepath.Join(dir, fmt.Sprintf("checkpoint-%d", steps[len(steps)-1])), nil
}
