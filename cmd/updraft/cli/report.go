package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/report"
)

// reportFlags are the settings of a report over several runs.
type reportFlags struct {
	output    string
	methods   []string
	resamples int
	seed      uint64
}

func (a *app) report() *cobra.Command {
	var f reportFlags
	cmd := &cobra.Command{
		Use:   "report RUN…",
		Short: "Lay runs over one another, with paired differences",
		Long: `Report reads the directories of runs and makes one page: their metrics over one
another, and, where the runs hold predictions.jsonl (those of updraft eval and demo
do), the differences of overall accuracy between the first run and each other one,
with intervals from a paired bootstrap over the prompts that both have.`,
		Example: `  updraft report runs/gapg runs/da-grpo --output overlay.html
  updraft report runs/seed1 runs/seed2 --method gapg,router --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return inputf("updraft report: name at least one run directory")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.runReport(cmd, &f, args) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.output, "output", "overlay.html", "file to write")
	fs.StringSliceVar(&f.methods, "method", []string{gapg.MethodGAPG}, "methods whose predictions are compared, as named in predictions.jsonl")
	fs.IntVar(&f.resamples, "bootstrap-resamples", 2000, "resamples of each interval")
	fs.Uint64Var(&f.seed, "seed", 42, "seed of the bootstrap")
	return cmd
}

// finishedRun is what a run directory holds.
type finishedRun struct {
	name        string
	dir         string
	budget      float64
	metrics     *report.Metrics
	predictions map[string][]gapg.Prediction // by method
}

func openRun(dir string) (*finishedRun, error) {
	if st, err := os.Stat(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, inputf("run %s: no such directory; check the path", dir)
		}
		return nil, inputf("run %s: %w", dir, cause(err))
	} else if !st.IsDir() {
		return nil, inputf("run %s: is a file; name the run's directory", dir)
	}
	r := &finishedRun{name: filepath.Base(filepath.Clean(dir)), dir: dir, predictions: map[string][]gapg.Prediction{}}
	metrics, err := report.ReadMetrics(filepath.Join(dir, report.MetricsFile))
	switch {
	case err == nil:
		r.metrics = metrics
	case !errors.Is(err, fs.ErrNotExist):
		return nil, input(err)
	}
	predictions, err := gapg.ReadPredictions(filepath.Join(dir, predictionsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, input(err)
	}
	for _, p := range predictions {
		r.predictions[p.Method] = append(r.predictions[p.Method], p)
	}
	if r.metrics == nil && len(predictions) == 0 {
		return nil, inputf("run %s: holds neither %s nor %s; name a directory that updraft train, eval or demo wrote", dir, report.MetricsFile, predictionsFile)
	}
	if entries, err := parseConfig(filepath.Join(dir, configFile)); err == nil {
		for _, e := range entries {
			if e.key == "cloud-budget" && len(e.values) == 1 {
				if b, err := gapg.ParseBudget(e.values[0]); err == nil {
					r.budget = b.Share()
				}
			}
		}
	}
	return r, nil
}

// summary is a run's line.
func (r *finishedRun) summary() report.RunSummary {
	s := report.RunSummary{Name: r.name}
	if r.metrics != nil {
		s.Steps = max(0, r.metrics.LastStep())
		for _, key := range []string{"reward", "eval/accuracy/overall", "eval/accuracy/overall_at_budget", "eval/cloud/ratio", "eval/help/precision", "loss"} {
			if v, ok := r.metrics.Last(key); ok {
				s.Figures = append(s.Figures, report.Entry{Key: key, Value: fmt.Sprintf("%.4g", v)})
			}
		}
	}
	for _, method := range sortedKeys(r.predictions) {
		right := 0
		for _, p := range r.predictions[method] {
			if p.Correct {
				right++
			}
		}
		s.Figures = append(s.Figures, report.Entry{Key: method, Value: fmt.Sprintf("%.1f %%", 100*float64(right)/float64(len(r.predictions[method])))})
	}
	return s
}

// comparisonJSON is a paired difference as --json prints it.
type comparisonJSON struct {
	A       string          `json:"a"`
	B       string          `json:"b"`
	Method  string          `json:"method,omitempty"`
	Prompts int             `json:"prompts"`
	Diff    report.Interval `json:"difference"`
}

func (a *app) runReport(cmd *cobra.Command, f *reportFlags, args []string) error {
	if f.resamples < 1 {
		return inputf("--bootstrap-resamples %d: must be at least 1", f.resamples)
	}
	var runs []*finishedRun
	for _, dir := range args {
		r, err := openRun(dir)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(runs, func(o *finishedRun) bool { return o.name == r.name }) {
			r.name = filepath.ToSlash(filepath.Clean(dir))
		}
		runs = append(runs, r)
	}
	d := report.Data{Task: "", Budget: commonBudget(runs)}
	var overlaid []report.Run
	for _, r := range runs {
		d.Runs = append(d.Runs, r.summary())
		if r.metrics != nil {
			overlaid = append(overlaid, report.Run{Name: r.name, Metrics: r.metrics})
		}
	}
	d.Training = report.TrainingCharts(d.Budget, overlaid...)
	found := []comparisonJSON{}
	for _, other := range runs[1:] {
		for _, method := range f.methods {
			pa, pb := runs[0].predictions[method], other.predictions[method]
			if len(pa) == 0 || len(pb) == 0 {
				continue
			}
			diff, n, err := gapg.PairPredictions(pa, pb, report.BootstrapOptions{Resamples: f.resamples, Seed: f.seed})
			if err != nil {
				a.log.Warn("runs cannot be compared", "a", runs[0].name, "b", other.name, "method", method, "reason", err)
				continue
			}
			found = append(found, comparisonJSON{runs[0].name, other.name, method, n, diff})
			d.Comparisons = append(d.Comparisons, report.Comparison{A: runs[0].name, B: other.name, Metric: "overall accuracy, " + method, Prompts: n, Difference: diff})
		}
	}
	var names []string
	for _, r := range runs {
		names = append(names, r.name)
	}
	d.Headline = strings.Join(names, ", ")
	if len(runs) > 1 {
		d.Headline = fmt.Sprintf("%d runs: %s", len(runs), d.Headline)
	}
	d = about(cmd, d, "", f.seed)
	d.Versions = slices.DeleteFunc(d.Versions, func(e report.Entry) bool { return e.Key == "device" })
	d.Command += " " + strings.Join(args, " ")
	if err := report.WriteFile(f.output, d); err != nil {
		return inputf("--output %s: cannot write (%w); choose another file", f.output, cause(err))
	}
	out := cmd.OutOrStdout()
	if a.json {
		return printJSON(out, map[string]any{"report": f.output, "runs": names, "comparisons": found})
	}
	for _, c := range found {
		fmt.Fprintf(out, "%s − %s, %s: %+.1f points [%+.1f, %+.1f] over %d common prompts\n", c.A, c.B, c.Method, 100*c.Diff.Mean, 100*c.Diff.Lo, 100*c.Diff.Hi, c.Prompts)
	}
	_, err := fmt.Fprintf(out, "report: %s\n", f.output)
	return err
}

// commonBudget is the runs' budget where they agree, else 0: none is drawn.
func commonBudget(runs []*finishedRun) float64 {
	b := runs[0].budget
	for _, r := range runs {
		if r.budget != b {
			return 0
		}
	}
	return b
}
