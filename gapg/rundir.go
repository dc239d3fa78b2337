package gapg

import (
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

// runLog is what every kind of run keeps in its directory beside checkpoints:
// metrics.jsonl and TensorBoard events.
type runLog struct {
	log    *report.MetricsLog
	events *report.EventWriter
}

// openIn opens the logs in dir. With resume, load restores the newest
// checkpoint and says where the log stood.
func (r *runLog) openIn(dir string, resume bool, load func(step int) (report.Mark, error)) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if resume {
		if err := recoverCheckpoints(dir); err != nil {
			return err
		}
	}
	steps, err := checkpoints(dir)
	if err != nil {
		return err
	}
	metrics := filepath.Join(dir, report.MetricsFile)
	var log *report.MetricsLog
	var mark report.Mark // of a run killed before its first checkpoint: begin again
	switch {
	case resume:
		if len(steps) > 0 {
			if mark, err = load(steps[len(steps)-1]); err != nil {
				return err
			}
		}
		log, err = report.ResumeMetrics(metrics, mark)
	case len(steps) > 0:
		return fmt.Errorf("output directory %s: already holds checkpoint-%d; resume it or choose another directory", dir, steps[len(steps)-1])
	default:
		log, err = report.CreateMetrics(metrics)
	}
	if err != nil {
		return err
	}
	events, err := report.NewEventWriter(dir, report.EventOptions{Resume: mark.Step})
	if err != nil {
		return errors.Join(err, log.Close())
	}
	r.log, r.events = log, events
	return nil
}

func (r *runLog) close() error {
	err := errors.Join(r.log.Close(), r.events.Close())
	r.log, r.events = nil, nil
	return err
}

func (r *runLog) write(step int, line map[string]float64) error {
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

const checkpointPrefix = "checkpoint-"

func checkpointDir(dir string, step int) string {
	return filepath.Join(dir, checkpointPrefix+strconv.Itoa(step))
}

// checkpoints returns the steps of the whole checkpoints in dir, ascending.
func checkpoints(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), checkpointPrefix); ok && e.IsDir() {
			if step, err := strconv.Atoi(n); err == nil {
				steps = append(steps, step)
			}
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// recoverCheckpoints undoes what a kill in the midst of writing a checkpoint
// left behind.
func recoverCheckpoints(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), "."+checkpointPrefix); ok {
			step, _, _ := strings.Cut(rest, ".")
			if err := checkpoint.RecoverDir(filepath.Join(dir, checkpointPrefix+step)); err != nil {
				return err
			}
		}
	}
	return nil
}

// pruneCheckpoints removes the oldest checkpoints beyond limit; best is never
// counted nor removed.
func pruneCheckpoints(dir string, limit, best int) error {
	steps, err := checkpoints(dir)
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(s int) bool { return s == best })
	for len(steps) > limit {
		if err := os.RemoveAll(checkpointDir(dir, steps[0])); err != nil {
			return fmt.Errorf("old checkpoint: %w", err)
		}
		steps = steps[1:]
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
	return checkpointDir(dir, steps[len(steps)-1]), nil
}
