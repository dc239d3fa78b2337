package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/cmd/updraft/cli/basemodel"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// demoFlags are the settings of the demonstration. Everything else is fixed, so
// that a seed says which run it is.
type demoFlags struct {
	seed              uint64
	budget, outputDir string
	model             string
	all               bool
	steps             int
	test, validation  int
	router            int
	deviceFlags
	precisionFlags
}

func (f *demoFlags) register(fs *pflag.FlagSet) {
	fs.Uint64Var(&f.seed, "seed", 1, "seed of prompts, training and intervals, at least 1")
	fs.BoolVar(&f.all, "all", false, "every method: collaboration-aware tuning and da-grpo are trained too (some 6 minutes on two cores)")
	fs.StringVar(&f.budget, "cloud-budget", "0.30", "share of prompts in [0,1) that may go to the cloud (alias --budget)")
	fs.StringVar(&f.outputDir, "output-dir", filepath.Join("runs", "demo"), "directory for report.html, predictions.jsonl and the metrics; an earlier demo there is replaced")
	fs.StringVar(&f.model, "model", "", "another base model, made by updraft sft; default: the embedded one")
	fs.IntVar(&f.steps, "max-steps", task.DemoTraining().MaxSteps, "training steps of each trained method")
	fs.IntVar(&f.test, "test-prompts", demoTest, "held-out problems that every figure is measured on")
	fs.IntVar(&f.validation, "validation-prompts", demoValidation, "problems that calibration uses")
	fs.IntVar(&f.router, "router-prompts", demoRouter, "training problems that teach the router")
	f.deviceFlags.register(fs, deviceCPU) // its model is too small for a GPU to gain anything
	f.registerType(fs)
}

// What the demonstration measures on; task.DemoTraining is how it trains.
const (
	demoTest       = 1000
	demoValidation = 1200
	demoRouter     = 2000
	demoRows       = 4096
)

// demoConfig is the training of every model in the demonstration.
func demoConfig(f *demoFlags, budget gapg.Budget) gapg.Config {
	c := task.DemoTraining()
	c.Budget, c.MaxSteps, c.Seed = budget, f.steps, f.seed
	return c
}

func (a *app) demo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch a small model learn when to ask, and compare every method",
		Long: `Demo post-trains a small embedded language model (0.7 million weights, made by
updraft sft) on Countdown: combine three numbers into a target. It learns by GAPG to
answer what it can solve and to ask a simulated cloud for the rest, and is compared
on 1,000 problems that no training saw with task tuning, random offloading, a
router, a confidence cascade, a self-check, the cloud alone and an oracle.

Nothing is precomputed and nothing is downloaded. It takes under three minutes on
two cores and ends in report.html.`,
		Example: `  updraft demo
  updraft demo --all --seed 2
  updraft demo --cloud-budget 0.10 --output-dir runs/ten --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runDemo(cmd, &f) },
	}
	f.register(cmd.Flags())
	return cmd
}

func (f *demoFlags) check() (gapg.Budget, error) {
	budget, err := gapg.ParseBudget(f.budget)
	if err != nil {
		return budget, inputf("--cloud-budget: %w", err)
	}
	for _, x := range []struct {
		flag  string
		value int
	}{{"max-steps", f.steps}, {"test-prompts", f.test}, {"validation-prompts", f.validation}, {"router-prompts", f.router}} {
		if x.value < 1 {
			return budget, inputf("--%s %d: must be at least 1", x.flag, x.value)
		}
	}
	if f.seed == 0 {
		return budget, inputf("--seed 0: must be at least 1")
	}
	return budget, nil
}

// clearDemo removes what an earlier demo left in dir, and refuses the directory
// of anything else.
func clearDemo(dir string) error {
	const mark = "demo"
	entries, err := parseConfig(filepath.Join(dir, configFile))
	if err != nil || len(entries) == 0 {
		return newRunDirectory(dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return inputf("--output-dir %s: %w", dir, cause(err))
	}
	if first, _, _ := strings.Cut(string(text), "\n"); !strings.HasSuffix(first, " "+mark) {
		return newRunDirectory(dir)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		switch name := filepath.Base(path); {
		case name == configFile, name == predictionsFile, name == reportFile, name == ledgerFile, name == "base", name == "metrics":
			if err := os.RemoveAll(path); err != nil {
				return inputf("--output-dir %s: %w", dir, cause(err))
			}
		}
	}
	return nil
}

func (a *app) runDemo(cmd *cobra.Command, f *demoFlags) error {
	ctx := cmd.Context()
	budget, err := f.check()
	if err != nil {
		return err
	}
	if f.model == "" {
		if _, err := basemodel.Files(); err != nil {
			return input(err)
		}
	}
	if err := clearDemo(f.outputDir); err != nil {
		return err
	}
	if err := writable("output-dir", f.outputDir); err != nil {
		return err
	}
	be, err := f.open(a)
	if err != nil {
		return err
	}
	defer be.Close()
	o, err := f.choose(be, model.Options{Trainable: true, MaxRows: demoRows})
	if err != nil {
		return err
	}
	if err := keepConfig(cmd, f.outputDir, false); err != nil {
		return err
	}
	dir := f.model
	if dir == "" {
		dir = filepath.Join(f.outputDir, "base")
		if err := basemodel.Write(dir); err != nil {
			return err
		}
	}
	src, err := a.openSource(ctx, "model", dir)
	if err != nil {
		return err
	}
	b, err := a.bind("countdown", src, nil)
	if err != nil {
		return err
	}
	answers, err := b.openSimulated("simulated")
	if err != nil {
		return err
	}
	train, err := b.prompts("train", "", task.SplitTrain, f.seed, 0)
	if err != nil {
		return err
	}
	validation, err := b.prompts("validation", "", task.SplitValidation, f.seed, f.validation)
	if err != nil {
		return err
	}
	test, err := b.prompts("test", "", task.SplitTest, f.seed, f.test)
	if err != nil {
		return err
	}
	store, err := cloud.Open(filepath.Join(f.outputDir, ledgerFile), cloud.OpenOptions{})
	if err != nil {
		return input(err)
	}
	defer store.Close()
	methods := gapg.DefaultMethods()
	if f.all {
		methods = gapg.AllMethods()
	}
	view := &phases{a: a, total: countPhases(methods)}
	defer view.finish()
	logs := &demoLogs{dir: filepath.Join(f.outputDir, "metrics")}
	defer logs.close()
	e := &gapg.Experiment{
		Open: func(ctx context.Context) (*model.Model, error) {
			return src.load(ctx, be, o)
		},
		Task: b.judge, Tokenizer: b.tok, Budget: budget, Seed: f.seed, Train: train, Validation: validation, Test: test,
		Methods: methods, Config: demoConfig(f, budget), EndToken: b.end, Marker: b.marker, MarkerAfter: b.after, MaxNewTokens: task.DemoEvalTokens,
		RouterPrompts: f.router, Logger: a.log, OnProgress: view.progress, OnStep: logs.step,
	}
	if e.Cloud, err = (&cloudFlags{concurrency: 8}).desk(answers, store, "demo"); err != nil {
		return err
	}
	a.log.Info("demo", "device", be.Name(), "parameters", src.cfg.NumParameters(), "budget", budget.Share(), "rho", fmt.Sprintf("%.4g", budget.Rho()),
		"train_prompts", len(train), "validation_prompts", len(validation), "test_prompts", len(test), "seed", f.seed)
	r, err := e.Run(ctx)
	view.finish()
	if err != nil {
		return err
	}
	if logs.err != nil {
		return logs.err
	}
	if err := writeResult(cmd, f.outputDir, r, be.Name(), []string{"Cloud: " + simulatedLabel("simulated") + "."}); err != nil {
		return err
	}
	if a.json {
		return printJSON(cmd.OutOrStdout(), r.Summary())
	}
	return a.printResult(cmd, r, f.outputDir, simulatedLabel("simulated"))
}

// demoLogs keeps a metrics log of every training.
type demoLogs struct {
	dir  string
	open map[string]*report.MetricsLog
	err  error
}

func (l *demoLogs) step(method string, st *gapg.StepStats) {
	if l.err != nil {
		return
	}
	log := l.open[method]
	if log == nil {
		dir := filepath.Join(l.dir, method)
		if l.err = os.MkdirAll(dir, 0o755); l.err != nil {
			return
		}
		if log, l.err = report.CreateMetrics(filepath.Join(dir, report.MetricsFile)); l.err != nil {
			return
		}
		if l.open == nil {
			l.open = map[string]*report.MetricsLog{}
		}
		l.open[method] = log
	}
	values := map[string]any{}
	for k, v := range st.Metrics() {
		values[k] = v
	}
	for k, v := range st.Timings() {
		values[k] = v
	}
	l.err = log.Write(int64(st.Step), values)
}

func (l *demoLogs) close() {
	for _, log := range l.open {
		log.Close()
	}
}
