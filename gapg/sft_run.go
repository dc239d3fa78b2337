package gapg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model/checkpoint"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// SFTRun is a supervised warm start with a directory, laid out and resumed like
// that of a Run.
type SFTRun struct {
	SFT       *SFT
	Tokenizer *tokenizer.Tokenizer
	Config    RunConfig // evaluation settings do not apply
	OnStep    func(*SFTStats)
	// Stop, when closed, ends the training after the running step, with a
	// checkpoint.
	Stop <-chan struct{}

	runLog
	tokens int64
}

// sftState is trainer_state.json of a supervised run.
type sftState struct {
	FormatVersion int         `json:"format_version"`
	Algorithm     string      `json:"algorithm"`
	Step          int         `json:"step"`
	Tokens        int64       `json:"tokens"`
	Metrics       report.Mark `json:"metrics"`
}

const sftName = "sft"

// Open makes the directory ready: see Run.Open.
func (r *SFTRun) Open(ctx context.Context, resume bool) error {
	def(&r.Config.LoggingSteps, 1)
	def(&r.Config.SaveTotalLimit, 2)
	err := r.openIn(r.Config.Dir, resume, func(step int) (report.Mark, error) { return r.load(ctx, step) })
	if err == nil && resume {
		if err = pruneCheckpoints(r.Config.Dir, r.Config.SaveTotalLimit, 0); err != nil {
			err = errors.Join(err, r.close())
		}
	}
	return err
}

// Train runs to the configured number of steps. It calls Open unless that was
// done.
func (r *SFTRun) Train(ctx context.Context, resume bool) (err error) {
	if r.log == nil {
		if err := r.Open(ctx, resume); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, r.close()) }()
	s := r.SFT
	for s.steps < s.cfg.MaxSteps {
		st, err := s.Step(ctx)
		if err != nil {
			return err
		}
		r.tokens += int64(st.Tokens)
		if r.OnStep != nil {
			r.OnStep(st)
		}
		if st.Step%r.Config.LoggingSteps == 0 {
			if err := r.write(st.Step, r.line(st)); err != nil {
				return err
			}
		}
		last, stop := s.steps == s.cfg.MaxSteps, isClosed(r.Stop)
		if last || stop || r.Config.SaveSteps > 0 && s.steps%r.Config.SaveSteps == 0 {
			if err := r.save(ctx); err != nil {
				return err
			}
		}
		if stop && !last {
			return ErrStopped
		}
	}
	return nil
}

// line is a step as metrics.jsonl holds it: Timings are its wall-clock figures.
func (r *SFTRun) line(st *SFTStats) map[string]float64 {
	line := map[string]float64{"loss": st.Loss, "grad_norm": st.GradNorm, "learning_rate": st.LearningRate, "num_tokens": float64(r.tokens)}
	maps.Copy(line, st.Timings())
	return line
}

// Timings returns the wall-clock figures of the step, in seconds and tokens per
// second, which a resumed run does not repeat.
func (s *SFTStats) Timings() map[string]float64 {
	t := s.StepTime.Seconds()
	return map[string]float64{"step_time": t, "step/tokens_per_second": float64(s.Tokens) / max(t, 1e-9)}
}

func (r *SFTRun) save(ctx context.Context) error {
	s := r.SFT
	mark, err := r.log.Mark(int64(s.steps))
	if err != nil {
		return err
	}
	err = checkpoint.WriteDir(checkpointDir(r.Config.Dir, s.steps), func(tmp string) error {
		if err := s.m.SaveState(ctx, tmp); err != nil {
			return err
		}
		if err := r.Tokenizer.Save(filepath.Join(tmp, tokenizer.File)); err != nil {
			return err
		}
		if err := s.m.SaveOptimizer(ctx, filepath.Join(tmp, optimizerFile)); err != nil {
			return err
		}
		state, err := json.MarshalIndent(sftState{formatVersion, sftName, s.steps, r.tokens, mark}, "", "  ")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(tmp, stateFile), append(state, '\n'), 0o644)
	})
	if err != nil {
		return fmt.Errorf("checkpoint of step %d: %w", s.steps, err)
	}
	return pruneCheckpoints(r.Config.Dir, r.Config.SaveTotalLimit, 0)
}

func (r *SFTRun) load(ctx context.Context, step int) (report.Mark, error) {
	dir := checkpointDir(r.Config.Dir, step)
	path := filepath.Join(dir, stateFile)
	fail := func(format string, args ...any) (report.Mark, error) {
		return report.Mark{}, fmt.Errorf("%s: "+format, append([]any{path}, args...)...)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return report.Mark{}, fmt.Errorf("checkpoint: %w", err)
	}
	var s sftState
	switch err := json.Unmarshal(data, &s); {
	case err != nil:
		return fail("%w; if it is damaged, move %s away to resume from the checkpoint before it", err, dir)
	case s.FormatVersion != formatVersion:
		return fail("format_version %d; this program reads %d", s.FormatVersion, formatVersion)
	case s.Algorithm != sftName:
		return fail("a checkpoint of %s, not of a supervised warm start", s.Algorithm)
	case s.Step != step:
		return fail("step %d in the directory of step %d", s.Step, step)
	}
	err = r.SFT.m.LoadWeights(ctx, dir)
	if err == nil {
		err = r.SFT.m.LoadOptimizer(ctx, filepath.Join(dir, optimizerFile))
	}
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w; if it is damaged, move %s away to resume from the checkpoint before it", err, dir)
	}
	if err != nil {
		return report.Mark{}, err
	}
	r.SFT.SetSteps(step)
	r.tokens = s.Tokens
	return s.Metrics, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
