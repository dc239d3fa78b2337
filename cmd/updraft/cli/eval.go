package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/report"
	"github.com/updraft-ml/updraft/model"
)

// evalFlags are the settings of an evaluation.
type evalFlags struct {
	model, base, taskTuned, collaborationAware, daGRPO string

	task, dataset, validation, trainData, outputDir, config string
	budget                                                  string
	testPrompts, validationPrompts, routerPrompts           int
	validationSplit, evalSplit                              float64
	splitSeed                                               uint64
	maxLength, resamples, micro                             int
	margin                                                  float64
	seed                                                    uint64
	dryRun                                                  bool
	cloud                                                   cloudFlags
	dataFlags
	deviceFlags
	precisionFlags
}

func (f *evalFlags) register(a *app, fs *pflag.FlagSet) {
	fs.StringVar(&f.model, "model", "", "model to evaluate: "+modelHelp+" (alias --model-name-or-path)")
	fs.StringVar(&f.base, "base", "", "the model before post-training: adds base and base-help-bias")
	fs.StringVar(&f.taskTuned, "task-tuned", "", "a model tuned without the cloud (train --reward accuracy-only --no-filter --cloud-budget 0): adds task-tuning, naive-offloading, router, confidence, self-check and oracle")
	fs.StringVar(&f.collaborationAware, "collaboration-aware", "", "a model tuned with the cloud and without the filter: adds collaboration-aware")
	fs.StringVar(&f.daGRPO, "da-grpo", "", "a model tuned by da-grpo: adds da-grpo")
	fs.StringVar(&f.outputDir, "output-dir", "", "directory for predictions.jsonl and report.html; default: nothing is written")
	fs.Var(newChoice(&f.task, a.tasks[0].Name, taskNames(a.tasks)...), "task", "task: "+orList(taskNames(a.tasks)))
	f.registerData(fs)
	fs.StringVar(&f.dataset, "dataset", "", "JSONL file of test prompts; default: the task's own test part")
	fs.Float64Var(&f.evalSplit, "eval-split", 0, "share of --dataset that updraft train held out: that alone is measured, and the rest teaches the router; 0: all of --dataset is measured")
	fs.Uint64Var(&f.splitSeed, "split-seed", 42, "--seed of that updraft train, which chose the share")
	fs.StringVar(&f.validation, "validation-dataset", "", "JSONL file of prompts for calibration; default: a held-out share of --dataset, or the task's validation part")
	fs.Float64Var(&f.validationSplit, "validation-split", 0.2, "share of --dataset (of what was held out of it) used for calibration instead of testing, chosen by the seed, where there is no --validation-dataset")
	fs.StringVar(&f.trainData, "train-dataset", "", "JSONL file of prompts that teach the router; default: what --eval-split leaves, or the task's training part (with --dataset alone there is none, and no router)")
	fs.StringVar(&f.config, "config", "", "YAML file with the same keys as these flags; flags override it")
	fs.BoolVar(&f.dryRun, "dry-run", false, "check everything, show the configuration and the memory plan, and touch nothing")
	fs.StringVar(&f.budget, "cloud-budget", "0.30", "share of prompts in [0,1) that may go to the cloud")
	fs.IntVar(&f.testPrompts, "test-prompts", 1000, "test prompts at most; 0: all")
	fs.IntVar(&f.validationPrompts, "validation-prompts", 1000, "validation prompts at most; 0: all")
	fs.IntVar(&f.routerPrompts, "router-prompts", 2000, "training prompts that teach the router")
	fs.IntVar(&f.maxLength, "max-completion-length", 0, "tokens of a response at most; 0: what the context leaves, at most 512")
	fs.Float64Var(&f.margin, "calibration-margin", 1, "standard errors of the validation share that calibration stays below the budget; 0: none")
	fs.IntVar(&f.resamples, "bootstrap-resamples", 2000, "resamples of each interval")
	fs.IntVar(&f.micro, "micro-batch-tokens", 4096, "packed tokens of one forward")
	fs.Uint64Var(&f.seed, "seed", 42, "seed of prompts, router and bootstrap, at least 1")
	f.cloud.register(fs)
	f.deviceFlags.register(fs, deviceAuto)
	f.registerType(fs)
}

func (a *app) eval() *cobra.Command {
	var f evalFlags
	cmd := &cobra.Command{
		Use:   "eval",
		Short: "Measure a model under a cloud budget, beside the baselines",
		Long: `Eval measures a post-trained model on held-out prompts: overall, device and solo
accuracy, calls per prompt by itself and calibrated to the budget, the whole curve
of accuracy against budget with PGR and APGR, help precision and recall. With
--task-tuned it adds the baselines that divide the work from outside the model, each
calibrated on the same validation prompts.

It prints a table; with --output-dir it writes predictions.jsonl (one line per
method and prompt) and report.html.`,
		Example: `  updraft eval --model runs/gapg --task-tuned runs/task-tuned --base runs/base --output-dir runs/eval
  updraft eval --model runs/gapg --task-tuned runs/tuned --dataset questions.jsonl --eval-split 0.3 --output-dir runs/eval
  updraft eval --model runs/gapg --dataset problems.jsonl --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runEval(cmd, &f) },
	}
	f.register(a, cmd.Flags())
	return cmd
}

// comparison lists the given models by method, and the rows that they allow.
func (f *evalFlags) comparison(router bool) (dirs map[string]string, methods []string) {
	dirs = map[string]string{gapg.MethodGAPG: f.model}
	methods = []string{gapg.MethodGAPG, gapg.MethodCloud}
	if f.base != "" {
		dirs[gapg.MethodBase] = f.base
		methods = append(methods, gapg.MethodBase, gapg.MethodBaseHelpBias)
	}
	if f.taskTuned != "" {
		dirs[gapg.MethodTaskTuning] = f.taskTuned
		methods = append(methods, gapg.MethodTaskTuning, gapg.MethodNaive, gapg.MethodConfidence, gapg.MethodSelfCheck, gapg.MethodOracle)
		if router {
			methods = append(methods, gapg.MethodRouter)
		}
	}
	if f.collaborationAware != "" {
		dirs[gapg.MethodCollaborationAware] = f.collaborationAware
		methods = append(methods, gapg.MethodCollaborationAware)
	}
	if f.daGRPO != "" {
		dirs[gapg.MethodDAGRPO] = f.daGRPO
		methods = append(methods, gapg.MethodDAGRPO)
	}
	return dirs, methods
}

var modelFlags = map[string]string{
	gapg.MethodGAPG: "model", gapg.MethodBase: "base", gapg.MethodTaskTuning: "task-tuned",
	gapg.MethodCollaborationAware: "collaboration-aware", gapg.MethodDAGRPO: "da-grpo",
}

func (f *evalFlags) check() (gapg.Budget, error) {
	budget, err := gapg.ParseBudget(f.budget)
	if err != nil {
		return budget, inputf("--cloud-budget: %w", err)
	}
	for _, x := range []struct {
		flag         string
		value, least int
	}{
		{"test-prompts", f.testPrompts, 0}, {"validation-prompts", f.validationPrompts, 0}, {"router-prompts", f.routerPrompts, 1},
		{"max-completion-length", f.maxLength, 0}, {"bootstrap-resamples", f.resamples, 1}, {"micro-batch-tokens", f.micro, 1},
	} {
		if x.value < x.least {
			return budget, inputf("--%s %d: must be at least %d", x.flag, x.value, x.least)
		}
	}
	if !(f.margin >= 0) {
		return budget, inputf("--calibration-margin %g: must not be negative", f.margin)
	}
	if !(f.validationSplit > 0 && f.validationSplit < 1) {
		return budget, inputf("--validation-split %g: must be between 0 and 1", f.validationSplit)
	}
	switch {
	case !(f.evalSplit >= 0 && f.evalSplit < 1):
		return budget, inputf("--eval-split %g: must be at least 0 and below 1", f.evalSplit)
	case f.evalSplit > 0 && f.dataset == "":
		return budget, inputf("--eval-split %g: is a share of --dataset, which is not set", f.evalSplit)
	case f.evalSplit > 0 && f.trainData != "":
		return budget, inputf("--eval-split and --train-dataset: the router learns from one of the two")
	case f.seed == 0 || f.splitSeed == 0:
		return budget, inputf("--seed and --split-seed: must be at least 1")
	}
	return budget, nil
}

func (a *app) runEval(cmd *cobra.Command, f *evalFlags) error {
	ctx := cmd.Context()
	budget, err := f.check()
	if err != nil {
		return err
	}
	src, err := a.openSource(ctx, "model", f.model)
	if err != nil {
		return err
	}
	if err := f.chooseTask(a, cmd, &f.task); err != nil {
		return err
	}
	b, err := a.bind(f.task, src, &f.dataFlags)
	if err != nil {
		return err
	}
	answers, err := f.cloud.open(b)
	if err != nil {
		return err
	}
	if answers == nil {
		return inputf("--cloud none: an evaluation needs the cloud's answers; name one, such as simulated:0.938")
	}
	train, validation, test, err := f.evalData(b)
	if err != nil {
		return err
	}
	room, longest, err := f.lengths(b, src.cfg.MaxPositionEmbeddings, train, validation, test)
	if err != nil {
		return err
	}
	be, err := f.open(a)
	if err != nil {
		return err
	}
	defer be.Close()
	o, err := f.choose(be, model.Options{MaxRows: rows(f.micro, longest, f.micro)})
	if err != nil {
		return err
	}
	dirs, methods := f.comparison(len(train) > 0)
	sources := map[string]*source{}
	for _, method := range sortedKeys(dirs) {
		s, err := a.openSource(ctx, modelFlags[method], dirs[method])
		if err != nil {
			return err
		}
		if s.cfg.VocabSize != src.cfg.VocabSize {
			return inputf("--%s %s: vocab_size %d differs from --model's %d; compare models of one vocabulary", modelFlags[method], dirs[method], s.cfg.VocabSize, src.cfg.VocabSize)
		}
		sources[method] = s
	}
	so := model.SchedulerOptions{MaxBatch: min(256, max(len(test), len(validation))), MaxTokens: longest}
	plan := planOn(be, src.cfg, o, &so)
	if f.dryRun {
		cost, err := f.cloud.dryEstimate(answers, "", forecast{sure: slices.Concat(test, validation)})
		if err != nil {
			return err
		}
		return a.dryRun(cmd, plan, fmt.Sprintf("%d test, %d validation, %d router prompts; methods %v", len(test), len(validation), min(len(train), f.routerPrompts), methods), cost)
	}
	store := cloud.NewMemory()
	if f.outputDir != "" {
		if err := newRunDirectory(f.outputDir); err != nil {
			return err
		}
		if err := writable("output-dir", f.outputDir); err != nil {
			return err
		}
		if err := keepConfig(cmd, f.outputDir, false); err != nil {
			return err
		}
		if store, err = cloud.Open(filepath.Join(f.outputDir, ledgerFile), cloud.OpenOptions{}); err != nil {
			return input(err)
		}
	}
	defer store.Close()
	if err := f.cloud.ready(a, store); err != nil {
		return err
	}
	if err := f.cloud.announce(a, answers, store, forecast{sure: slices.Concat(test, validation)}); err != nil {
		return err
	}
	if err := f.fits(be, src.cfg, o, &so, plan); err != nil {
		return err
	}
	view := &phases{a: a}
	defer view.finish()
	e := &gapg.Experiment{
		Trained: map[string]gapg.OpenModel{}, Task: b.judge, Tokenizer: b.tok, Budget: budget, Seed: f.seed,
		Train: train, Validation: validation, Test: test, Methods: methods, EndToken: b.end, Marker: b.marker, MarkerAfter: b.after,
		MaxNewTokens: room, RouterPrompts: f.routerPrompts, Resamples: f.resamples, Margin: f.margin, Logger: a.log, OnProgress: view.progress,
	}
	if f.margin == 0 {
		e.Margin = -1
	}
	if e.Cloud, err = f.cloud.desk(answers, store, "eval"); err != nil {
		return err
	}
	for method, s := range sources {
		open := func(ctx context.Context) (*model.Model, error) { return s.load(ctx, be, o) }
		if method == gapg.MethodBase {
			e.Open = open
		} else {
			e.Trained[method] = open
		}
	}
	a.log.Info("evaluating", "device", be.Name(), "budget", budget.Share(), "rho", fmt.Sprintf("%.4g", budget.Rho()), "test_prompts", len(test), "validation_prompts", len(validation))
	r, err := e.Run(ctx)
	view.finish()
	if err != nil {
		return err
	}
	if f.outputDir != "" {
		if err := writeResult(cmd, f.outputDir, r, be.Name(), []string{"Cloud: " + f.cloud.label() + "."}); err != nil {
			return err
		}
	}
	return a.printResult(cmd, r, f.outputDir, f.cloud.label())
}

// evalSummary is what updraft eval --json prints.
type evalSummary struct {
	Task        string             `json:"task"`
	Seed        uint64             `json:"seed"`
	Budget      float64            `json:"budget"`
	TestPrompts int                `json:"test_prompts"`
	Unresolved  int                `json:"unresolved"`
	Cloud       string             `json:"cloud"`
	Seconds     float64            `json:"seconds"`
	Methods     []report.Method    `json:"methods"`
	Comparisons []comparisonJSON   `json:"comparisons"`
	Curves      map[string][]point `json:"curves"`
}

// point is a point of the accuracy-against-budget curve.
type point struct {
	Ratio    float64 `json:"cloud_ratio"`
	Accuracy float64 `json:"overall_accuracy"`
}

func (a *app) printResult(cmd *cobra.Command, r *gapg.Result, dir, cloud string) error {
	out := cmd.OutOrStdout()
	if a.json {
		s := r.Summary()
		e := evalSummary{Task: s.Task, Seed: s.Seed, Budget: s.Budget, TestPrompts: s.TestPrompts, Unresolved: r.Unresolved, Cloud: cloud, Seconds: s.Seconds,
			Methods: s.Methods, Comparisons: []comparisonJSON{}, Curves: map[string][]point{}}
		for _, c := range r.Comparisons {
			e.Comparisons = append(e.Comparisons, comparisonJSON{A: c.A, B: c.B, Prompts: c.Prompts, Diff: c.Difference})
		}
		for _, c := range r.Curves {
			for _, p := range c.Points {
				e.Curves[c.Method] = append(e.Curves[c.Method], point{p.Ratio, p.Accuracy})
			}
		}
		return printJSON(out, e)
	}
	if err := report.WriteTable(out, r.Methods, report.TableOptions{Width: a.screen.width}); err != nil {
		return err
	}
	if s := finding(r); s != "" {
		fmt.Fprintf(out, "\n%s\n", s)
	}
	fmt.Fprintf(out, "cloud: %s\n", cloud)
	if dir != "" {
		fmt.Fprintf(out, "report: %s\n", filepath.Join(dir, reportFile))
	}
	return nil
}
