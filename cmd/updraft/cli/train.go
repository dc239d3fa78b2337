package cli

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// ledgerFile holds the cloud's answers and what was asked, inside a run
// directory.
const ledgerFile = "ledger.db"

// trainFlags are the settings of post-training, under TRL's names.
type trainFlags struct {
	model, task, dataset, evalDataset, outputDir string
	config, resume                               string
	dryRun                                       bool

	cloud                  cloudFlags
	budget                 string
	alphaA, alphaC, alphaF float64
	reward, algorithm      string
	scorer                 scorerFlags
	filter, noFilter       bool
	std, perBatch          bool
	lambda, lambdaEta      float64

	generations, batchSize, promptsPerStep, steps, iterations, maxLength int
	temperature, topP, minP                                              float64
	topK                                                                 int

	learningRate, maxGradNorm      float64
	scheduler                      string
	warmup                         int
	beta1, beta2, adamEps, decay   float64
	epsilon, epsilonHigh, klBeta   float64
	klEstimator, queryCloud        string
	seed                           uint64
	micro                          int
	trainPrompts, evalPrompts      int
	preflight                      int
	evalSplit                      float64
	evalLength                     int
	saveSteps, loggingSteps        int
	evalSteps, saveLimit, patience int
	evalOnStart, loadBest          bool
	metric                         string
	dataFlags
	deviceFlags
	precisionFlags
	lora loraFlags
}

func (f *trainFlags) register(a *app, fs *pflag.FlagSet) {
	fs.StringVar(&f.model, "model", "", modelHelp+" (alias --model-name-or-path)")
	fs.StringVar(&f.outputDir, "output-dir", "", "directory of the run: metrics, checkpoints, ledger, report")
	fs.Var(newChoice(&f.task, a.tasks[0].Name, taskNames(a.tasks)...), "task", "task: "+orList(taskNames(a.tasks)))
	f.registerData(fs)
	fs.StringVar(&f.dataset, "dataset", "", "JSONL file of training prompts (countdown: nums, target; questions: see --prompt-column); default: the task's own problems")
	fs.IntVar(&f.trainPrompts, "train-prompts", 0, "training prompts to use, chosen by the seed; 0: all of the file, or the task's usual number")
	fs.IntVar(&f.preflight, "preflight-prompts", 64, "prompts on which accuracy, marker rate, truncation and the cloud's accuracy are measured before the first step; a training that could learn nothing is refused; 0: no check")
	fs.StringVar(&f.config, "config", "", "YAML file with the same keys as these flags; flags override it")
	fs.StringVar(&f.resume, "resume-from-checkpoint", "false", "go on from the newest checkpoint in --output-dir (a run killed at any instant ends as if it had not been)")
	fs.Lookup("resume-from-checkpoint").NoOptDefVal = "true"
	fs.BoolVar(&f.dryRun, "dry-run", false, "check everything, show the configuration and the memory plan, and touch nothing")

	fs.StringVar(&f.budget, "cloud-budget", "0.30", "share of prompts in [0,1) that may go to the cloud; ρ = share/(1−share)")
	fs.Var(newChoice(&f.queryCloud, "help", "help", "all-fail"), "query-cloud", "whom to ask the cloud about: groups where a response asks for help, or all-fail, every group without a right answer")
	fs.Var(newChoice(&f.algorithm, "gapg", algorithmNames(a.algorithms)...), "algorithm", algorithmHelp(a.algorithms))
	fs.Var(newChoice(&f.reward, "hierarchical", rewardNames(a.rewards)...), "reward", "reward: "+orList(rewardNames(a.rewards)))
	fs.Float64Var(&f.alphaA, "alpha-a", 2.0, "reward of a right device answer; αa > αc > αf ≥ 0")
	fs.Float64Var(&f.alphaC, "alpha-c", 0.5, "reward of asking when the cloud is right")
	fs.Float64Var(&f.alphaF, "alpha-f", 0.2, "reward of keeping the format")
	f.scorer.register(fs)
	fs.BoolVar(&f.filter, "filter", true, "gapg: adaptive prompt filtering")
	fs.BoolVar(&f.noFilter, "no-filter", false, "gapg: keep every group (an ablation), the same as --filter=false")
	fs.BoolVar(&f.std, "scale-rewards", false, "gapg: divide advantages by the group's standard deviation (an ablation)")
	fs.BoolVar(&f.perBatch, "normalize-before-filter", false, "gapg: divide by the prompts of the batch before filtering instead of after")
	fs.Float64Var(&f.lambda, "lambda", 0.5, "da-grpo: initial dual variable")
	fs.Float64Var(&f.lambdaEta, "lambda-eta", 0.01, "da-grpo: step of the dual ascent")

	fs.IntVar(&f.generations, "num-generations", 8, "responses per prompt (G), at least 2")
	fs.IntVar(&f.batchSize, "per-device-train-batch-size", 256, "completions per step; a multiple of --num-generations")
	fs.IntVar(&f.promptsPerStep, "prompts-per-step", 0, "prompts per step instead: per-device-train-batch-size / num-generations")
	fs.IntVar(&f.steps, "max-steps", 100, "training steps")
	fs.IntVar(&f.iterations, "num-iterations", 1, "updates per batch of rollouts")
	fs.IntVar(&f.maxLength, "max-completion-length", 512, "tokens of a response at most")
	fs.Float64Var(&f.temperature, "temperature", 1, "sampling temperature, above 0")
	fs.Float64Var(&f.topP, "top-p", 1, "nucleus sampling; 1: off")
	fs.IntVar(&f.topK, "top-k", 0, "sample among the k likeliest tokens; 0: off")
	fs.Float64Var(&f.minP, "min-p", 0, "drop tokens below this share of the likeliest's probability; 0: off")

	fs.Float64Var(&f.learningRate, "learning-rate", 1e-6, "peak learning rate of AdamW")
	fs.Var(newChoice(&f.scheduler, "constant", "constant", "linear", "cosine"), "lr-scheduler-type", "after the warm-up: constant, linear or cosine to 0 at --max-steps")
	fs.IntVar(&f.warmup, "warmup-steps", 0, "steps of linear warm-up")
	fs.Float64Var(&f.maxGradNorm, "max-grad-norm", 1, "clip the gradient's norm; 0: never")
	fs.Float64Var(&f.beta1, "adam-beta1", 0.9, "AdamW β1")
	fs.Float64Var(&f.beta2, "adam-beta2", 0.999, "AdamW β2")
	fs.Float64Var(&f.adamEps, "adam-epsilon", 1e-8, "AdamW ε")
	fs.Float64Var(&f.decay, "weight-decay", 0, "AdamW weight decay")
	fs.Float64Var(&f.epsilon, "epsilon", 0.2, "lower clip range of the importance ratio")
	fs.Float64Var(&f.epsilonHigh, "epsilon-high", 0, "upper clip range; 0: as --epsilon")
	fs.Float64Var(&f.klBeta, "beta", 0, "weight of the KL to the starting model; 0: none is loaded")
	fs.Var(newChoice(&f.klEstimator, "k3", "k1", "k2", "k3"), "kl-estimator", "estimator of that KL: k1, k2 or k3")
	fs.Uint64Var(&f.seed, "seed", 42, "seed of sampling, data order and filter, at least 1")
	fs.IntVar(&f.micro, "micro-batch-tokens", 4096, "packed tokens of one forward and backward: less memory, same result within rounding")

	fs.StringVar(&f.evalDataset, "eval-dataset", "", "JSONL file of evaluation prompts; default: a held-out share of --dataset, or the task's validation part")
	fs.Float64Var(&f.evalSplit, "eval-split", 0.1, "share of --dataset held out, chosen by the seed, for evaluation and for updraft eval --eval-split, where there is no --eval-dataset; 0: none")
	fs.IntVar(&f.evalPrompts, "eval-prompts", 500, "evaluation prompts at most; 0: all")
	fs.IntVar(&f.evalLength, "eval-max-completion-length", 0, "tokens of a response in evaluation; 0: as --max-completion-length")
	fs.IntVar(&f.evalSteps, "eval-steps", 0, "evaluate every so many steps and at the end; 0: never")
	fs.BoolVar(&f.evalOnStart, "eval-on-start", false, "evaluate before the first step too")
	fs.StringVar(&f.metric, "metric-for-best-model", "accuracy/overall_at_budget", "evaluation metric whose largest value marks the best checkpoint; the default is overall accuracy subject to the budget")
	fs.BoolVar(&f.loadBest, "load-best-model-at-end", false, "write the best checkpoint's model to OUTPUT/final, instead of the last one's")
	fs.IntVar(&f.patience, "early-stopping-patience", 0, "stop after so many evaluations without a better value; 0: never")
	fs.IntVar(&f.loggingSteps, "logging-steps", 1, "steps between lines of metrics.jsonl")
	fs.IntVar(&f.saveSteps, "save-steps", 50, "steps between checkpoints; 0: the last step alone")
	fs.IntVar(&f.saveLimit, "save-total-limit", 2, "checkpoints kept beside the best one")
	f.cloud.register(fs)
	f.deviceFlags.register(fs, deviceAuto)
	f.registerType(fs)
	f.registerOptim(fs)
	f.lora.register(fs)
}

func algorithmNames(list []Algorithm) []string {
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	return names
}

func algorithmHelp(list []Algorithm) string {
	s := "algorithm:"
	for i, x := range list {
		if i > 0 {
			s += ";"
		}
		s += " " + x.Name
		if x.Help != "" {
			s += " (" + x.Help + ")"
		}
	}
	return s
}

func rewardNames(list []Reward) []string {
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	return names
}

func (a *app) train() *cobra.Command {
	var f trainFlags
	cmd := &cobra.Command{
		Use:   "train",
		Short: "Post-train a model to answer or to ask, within a cloud budget",
		Long: `Train post-trains a model by GAPG or one of its alternatives: at each step it
samples G responses to each prompt, judges them, asks the cloud (at most once per
prompt, ever) where a response asks for help, and updates the model.

The output directory holds config.yaml (the effective configuration),
metrics.jsonl and TensorBoard events, checkpoint-N directories in Hugging Face's
layout, ledger.db (every cloud call and answer), and report.html, made anew at
each evaluation. At the end the model lies in final.

Before the first step it samples responses to 64 prompts (--preflight-prompts),
says how many are right, ask for help or are cut off, and how often the cloud is
right, and refuses a training that could learn nothing. What the cloud was asked
then counts, and is not asked again.

Ctrl-C finishes the step, saves and exits with 130; a second one stops at once.
At a limit of the cloud (--max-cloud-calls, -tokens, -usd) the run saves and exits
with 3; resume it under a raised limit.
--resume-from-checkpoint goes on, to the same bits as without the stop.

Lengths are in tokens, rates and accuracies shares of 1.`,
		Example: `  updraft train --model runs/base --task countdown --output-dir runs/gapg \
    --learning-rate 2e-4 --lr-scheduler-type linear --warmup-steps 5 --adam-beta2 0.95 \
    --max-steps 90 --max-completion-length 72 --eval-steps 10
  updraft train --model runs/base --output-dir runs/wire --cloud https://api.deepseek.com/v1 \
    --cloud-model deepseek-chat --cloud-key-env DEEPSEEK_API_KEY \
    --cloud-price deepseek-chat=0.27,1.10 --max-cloud-usd 2
  updraft train --model SmolLM2 --dataset svamp.jsonl --prompt-template "{Body} {Question}" --answer-column Answer \
    --verifier numeric --output-dir runs/svamp
  updraft train --model runs/warm --task questions --dataset essays.jsonl --verifier exact \
    --reward-url http://localhost:8000/score --reward-url-weight 0.5 --output-dir runs/judged
  updraft train --config run.yaml --seed 2 --output-dir runs/seed2
  updraft train --output-dir runs/gapg --resume-from-checkpoint
  updraft train --model runs/base --dataset problems.jsonl --output-dir runs/mine --dry-run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runTrain(cmd, &f) },
	}
	f.register(a, cmd.Flags())
	return cmd
}

// trainConfig checks the flags and turns them into gapg's configuration.
func (f *trainFlags) trainConfig(a *app, cmd *cobra.Command) (gapg.Config, error) {
	var c gapg.Config
	fs := cmd.Flags()
	if f.cloud.spec == "none" && !fs.Changed("cloud-budget") {
		f.budget = "0"
	}
	budget, err := gapg.ParseBudget(f.budget)
	if err != nil {
		return c, inputf("--cloud-budget: %w", err)
	}
	if f.cloud.spec == "none" && budget.Num != 0 {
		return c, inputf("--cloud-budget %s: there is no cloud to ask (--cloud none); set --cloud-budget 0 or a cloud", f.budget)
	}
	for _, x := range []struct {
		flag  string
		value int
		least int
		why   string
	}{
		{"num-generations", f.generations, 2, "the group's mean needs at least 2 responses per prompt"},
		{"per-device-train-batch-size", f.batchSize, 1, "must be at least 1"},
		{"prompts-per-step", f.promptsPerStep, 0, "must not be negative"},
		{"max-steps", f.steps, 1, "must be at least 1"},
		{"num-iterations", f.iterations, 1, "must be at least 1"},
		{"max-completion-length", f.maxLength, 1, "must be at least 1"},
		{"top-k", f.topK, 0, "must not be negative"},
		{"warmup-steps", f.warmup, 0, "must not be negative"},
		{"micro-batch-tokens", f.micro, 1, "must be at least 1"},
		{"train-prompts", f.trainPrompts, 0, "must not be negative"},
		{"eval-prompts", f.evalPrompts, 0, "must not be negative"},
		{"preflight-prompts", f.preflight, 0, "must not be negative"},
		{"eval-max-completion-length", f.evalLength, 0, "must not be negative"},
		{"eval-steps", f.evalSteps, 0, "must not be negative"},
		{"early-stopping-patience", f.patience, 0, "must not be negative"},
		{"logging-steps", f.loggingSteps, 1, "must be at least 1"},
		{"save-steps", f.saveSteps, 0, "must not be negative"},
		{"save-total-limit", f.saveLimit, 1, "must be at least 1"},
	} {
		if x.value < x.least {
			return c, inputf("--%s %d: %s", x.flag, x.value, x.why)
		}
	}
	for _, x := range []struct {
		flag   string
		value  float64
		ok     bool
		should string
	}{
		{"temperature", f.temperature, f.temperature > 0, "training samples, so it must be above 0"},
		{"top-p", f.topP, f.topP > 0 && f.topP <= 1, "must be above 0 and at most 1"},
		{"min-p", f.minP, f.minP >= 0 && f.minP < 1, "must be in [0, 1)"},
		{"learning-rate", f.learningRate, f.learningRate > 0, "must be above 0"},
		{"max-grad-norm", f.maxGradNorm, f.maxGradNorm >= 0, "must not be negative"},
		{"adam-beta1", f.beta1, f.beta1 > 0 && f.beta1 < 1, "must be between 0 and 1"},
		{"adam-beta2", f.beta2, f.beta2 > 0 && f.beta2 < 1, "must be between 0 and 1"},
		{"adam-epsilon", f.adamEps, f.adamEps > 0, "must be above 0"},
		{"weight-decay", f.decay, f.decay >= 0, "must not be negative"},
		{"epsilon", f.epsilon, f.epsilon > 0, "must be above 0"},
		{"epsilon-high", f.epsilonHigh, f.epsilonHigh >= 0, "must not be negative"},
		{"beta", f.klBeta, f.klBeta >= 0, "must not be negative"},
		{"lambda", f.lambda, f.lambda >= 0, "must not be negative"},
		{"lambda-eta", f.lambdaEta, f.lambdaEta >= 0, "must not be negative"},
		{"eval-split", f.evalSplit, f.evalSplit >= 0 && f.evalSplit < 1, "must be at least 0 and below 1"},
	} {
		if !x.ok || math.IsInf(x.value, 0) {
			return c, inputf("--%s %g: %s", x.flag, x.value, x.should)
		}
	}
	if known := gapg.EvaluationMetrics(); !slices.Contains(known, f.metric) {
		return c, inputf("--metric-for-best-model %q: must be one of %s%s", f.metric, strings.Join(known, ", "), hint(f.metric, known))
	}
	if f.seed == 0 {
		return c, inputf("--seed 0: must be at least 1")
	}
	prompts := f.promptsPerStep
	switch {
	case prompts == 0 && f.batchSize%f.generations != 0:
		return c, inputf("--per-device-train-batch-size %d: must be a multiple of --num-generations %d; take %d, or set --prompts-per-step",
			f.batchSize, f.generations, max(1, f.batchSize/f.generations)*f.generations)
	case prompts == 0:
		prompts = f.batchSize / f.generations
	case fs.Changed("per-device-train-batch-size") && f.batchSize != prompts*f.generations:
		return c, inputf("--prompts-per-step %d: with --num-generations %d it makes %d completions, but --per-device-train-batch-size is %d; set one of the two",
			prompts, f.generations, prompts*f.generations, f.batchSize)
	}
	f.filter = f.filter && !f.noFilter
	if f.promptsPerStep > 0 {
		f.batchSize = prompts * f.generations // so that the effective configuration is one
	}
	weights := gapg.Hierarchical{Accuracy: f.alphaA, Coordination: f.alphaC, Format: f.alphaF}
	if err := weights.Check(); err != nil {
		return c, inputf("--alpha-a, --alpha-c, --alpha-f: %w", err)
	}
	c = gapg.Config{
		Budget: budget, NumGenerations: f.generations, PromptsPerStep: prompts, NumIterations: f.iterations, MaxSteps: f.steps,
		MaxCompletionLength: f.maxLength, Temperature: f.temperature, TopP: f.topP, TopK: f.topK, MinP: f.minP,
		LearningRate: f.learningRate, LRScheduler: f.scheduler, WarmupSteps: f.warmup, AdamBeta1: f.beta1, AdamBeta2: f.beta2,
		AdamEpsilon: f.adamEps, WeightDecay: f.decay, MaxGradNorm: f.maxGradNorm, QueryCloud: f.queryCloud, Seed: f.seed,
		Loss: gapg.AlgConfig{Epsilon: f.epsilon, EpsilonHigh: f.epsilonHigh, Beta: f.klBeta, KLEstimator: f.klEstimator},
	}
	if f.maxGradNorm == 0 {
		c.MaxGradNorm = -1
	}
	for _, x := range a.algorithms {
		if x.Name == f.algorithm {
			c.Algorithm, err = x.New(AlgorithmSettings{NoFilter: !f.filter, Std: f.std, PerBatch: f.perBatch, Lambda: f.lambda, LambdaEta: f.lambdaEta})
		}
	}
	if err != nil {
		return c, inputf("--algorithm %s: %w", f.algorithm, err)
	}
	for _, x := range a.rewards {
		if x.Name == f.reward {
			c.Reward, err = x.New(weights)
		}
	}
	if err != nil {
		return c, inputf("--reward %s: %w", f.reward, err)
	}
	if c.Reward, err = f.scorer.add(c.Reward); err != nil {
		return c, err
	}
	return c, nil
}

// resuming reads --resume-from-checkpoint: true, false, or the newest checkpoint
// of the run.
func resuming(value, dir string) (bool, error) {
	switch value {
	case "false", "":
		return false, nil
	case "true", "latest":
	default:
		newest, err := gapg.NewestCheckpoint(dir)
		if err != nil || filepath.Clean(value) != filepath.Clean(newest) {
			return false, inputf("--resume-from-checkpoint %s: not the newest checkpoint of --output-dir %s; give the run's directory as --output-dir and remove later checkpoints to go back", value, dir)
		}
		return true, nil
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return false, inputf("--resume-from-checkpoint: --output-dir %q is no run to go on with; check the path", dir)
	}
	return true, nil
}

// trainData are the prompts of a training. What is held out of --dataset does not
// depend on whether the training evaluates: updraft eval --eval-split measures it
// afterwards.
func (f *trainFlags) trainData(b *bound) (train, eval []gapg.Prompt, err error) {
	if train, err = b.prompts("dataset", f.dataset, task.SplitTrain, f.seed, f.trainPrompts); err != nil {
		return nil, nil, err
	}
	evaluates := f.evalSteps > 0 || f.evalOnStart
	if f.evalDataset != "" || f.dataset == "" {
		if evaluates {
			eval, err = b.prompts("eval-dataset", f.evalDataset, task.SplitValidation, f.seed, f.evalPrompts)
		}
		return atMost(train, f.trainPrompts, f.seed), atMost(eval, f.evalPrompts, f.seed), err
	}
	if train, eval = gapg.HoldOut(train, f.evalSplit, f.seed); len(train) == 0 || evaluates && len(eval) == 0 {
		return nil, nil, inputf("--dataset %s: too few prompts to hold out a share of %g for evaluation; give --eval-dataset", f.dataset, f.evalSplit)
	}
	train = atMost(train, f.trainPrompts, f.seed)
	if !evaluates {
		return train, nil, nil
	}
	return train, atMost(eval, f.evalPrompts, f.seed), nil
}

func (f *trainFlags) evalTokens() int {
	if f.evalLength > 0 {
		return f.evalLength
	}
	return f.maxLength
}

// options returns how the model is held in memory, and the rollouts' cache.
func (f *trainFlags) options(c gapg.Config) (model.Options, model.SchedulerOptions) {
	batch := c.PromptsPerStep * c.NumGenerations
	return model.Options{Trainable: true, MaxRows: rows(f.micro, f.longest, batch*f.longest)},
		model.SchedulerOptions{MaxBatch: batch, MaxTokens: f.longest}
}

// forecast is what a training may ask of the cloud: every prompt that it draws,
// of which about the budget's share is wanted, and all of the evaluation's and of
// the check before the first step.
func (f *trainFlags) forecast(c gapg.Config, train, eval []gapg.Prompt) forecast {
	first := gapg.FirstPrompts(train, f.seed, f.preflightCloud(c))
	return forecast{sure: slices.Concat(eval, first), perhaps: gapg.FirstPrompts(train, f.seed, c.MaxSteps*c.PromptsPerStep), share: c.Budget.Share()}
}

func (a *app) runTrain(cmd *cobra.Command, f *trainFlags) error {
	ctx := cmd.Context()
	c, err := f.trainConfig(a, cmd)
	if err != nil {
		return err
	}
	resume, err := resuming(f.resume, f.outputDir)
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
	train, eval, err := f.trainData(b)
	if err != nil {
		return err
	}
	longest := max(f.maxLength, f.evalTokens())
	tokens, err := gapg.EncodePrompts(src.tok, train, src.cfg.MaxPositionEmbeddings, f.maxLength)
	if err != nil {
		return input(err)
	}
	for _, t := range tokens {
		f.longest = max(f.longest, len(t)+f.maxLength)
	}
	if tokens, err = gapg.EncodePrompts(src.tok, eval, src.cfg.MaxPositionEmbeddings, longest); err != nil {
		return input(err)
	}
	if len(eval) > 0 {
		f.evaluates = &model.SchedulerOptions{MaxBatch: min(256, len(eval))}
		for _, t := range tokens {
			f.evaluates.MaxTokens = max(f.evaluates.MaxTokens, len(t)+f.evalTokens())
		}
	}
	be, err := f.open(a)
	if err != nil {
		return err
	}
	defer be.Close()
	o, so := f.options(c)
	if o, err = f.choose(be, o); err != nil {
		return err
	}
	if o.LoRA, err = f.lora.options(cmd.Flags(), f.seed); err != nil {
		return err
	}
	frozen := model.Options{MaxRows: o.MaxRows, Weights: o.Weights} // the reference model
	// Adapters are trained over the reference model's own weights.
	reference := c.Loss.Beta != 0 && o.LoRA == nil
	plan := planOn(be, src.cfg, o, &so)
	if f.evaluates != nil {
		plan.Items = append(plan.Items, evaluation(be, src.cfg, o, f.evaluates))
	}
	plans := []model.Plan{plan}
	if reference {
		plans = append(plans, planOn(be, src.cfg, frozen, nil))
	}
	if f.dryRun {
		cost, err := f.cloud.dryEstimate(answers, filepath.Join(f.outputDir, ledgerFile), f.forecast(c, train, eval))
		if err != nil {
			return err
		}
		if err := a.dryRun(cmd, plan, fmt.Sprintf("%d training prompts, %d evaluation prompts, budget %g of prompts (ρ = %.4g)", len(train), len(eval), c.Budget.Share(), c.Budget.Rho()), cost); err != nil {
			return err
		}
		return f.fits(be, src.cfg, o, &so, plans...)
	}
	if !resume {
		if err := newRunDirectory(f.outputDir); err != nil {
			return err
		}
	}
	if err := writable("output-dir", f.outputDir); err != nil {
		return err
	}
	if err := f.fits(be, src.cfg, o, &so, plans...); err != nil {
		return err
	}
	m, err := src.load(ctx, be, o)
	if err != nil {
		return err
	}
	defer m.Close()
	setup := gapg.Setup{Model: m, Tokenizer: src.tok, Task: b.judge, Prompts: train, EndToken: b.end, Logger: a.log}
	if reference {
		if setup.Reference, err = src.load(ctx, be, frozen); err != nil {
			return err
		}
		defer setup.Reference.Close()
	}
	store, err := cloud.Open(filepath.Join(f.outputDir, ledgerFile), cloud.OpenOptions{})
	if err != nil {
		return input(err)
	}
	defer store.Close()
	if err := f.cloud.ready(a, store); err != nil {
		return err
	}
	if err := f.cloud.announce(a, answers, store, f.forecast(c, train, eval)); err != nil {
		return err
	}
	if setup.Cloud, err = f.cloud.desk(answers, store, "train"); err != nil {
		return err
	}
	t, err := gapg.NewTrainer(c, setup)
	if err != nil {
		return input(err)
	}
	defer t.Close()
	a.log.Info("training", "algorithm", c.Algorithm.Name(), "budget", c.Budget.Share(), "rho", fmt.Sprintf("%.4g", c.Budget.Rho()),
		"device", be.Name(), "memory", bytesText(plan.Bytes()), "parameters", src.cfg.NumParameters(), "prompts", len(train), "eval_prompts", len(eval))

	run := &gapg.Run{Trainer: t, Stop: stopChannel(ctx), Config: gapg.RunConfig{
		Dir: f.outputDir, LoggingSteps: f.loggingSteps, SaveSteps: f.saveSteps, EvalSteps: f.evalSteps, EvalOnStart: f.evalOnStart,
		SaveTotalLimit: f.saveLimit, MetricForBest: f.metric, LoadBest: f.loadBest, Patience: f.patience}}
	view := &trainView{a: a, cmd: cmd, f: f, c: c, device: be.Name(), task: b.judge.Name(), total: c.MaxSteps}
	if len(eval) > 0 {
		e := &gapg.Evaluation{Evaluator: b.evaluator(f.evalTokens()), Model: m, Prompts: eval, Budget: c.Budget}
		if e.Cloud, err = f.cloud.desk(answers, store, "eval"); err != nil {
			return err
		}
		run.Evaluate, run.OnEval = e.Metrics, view.eval
	}
	run.OnStep = view.step
	if err := keepConfig(cmd, f.outputDir, resume); err != nil {
		return err
	}
	if err := run.Open(ctx, resume); err != nil {
		return input(err)
	}
	if t.State().Step == 0 && f.preflight > 0 {
		if view.preflight, err = f.runPreflight(ctx, a, t); err != nil {
			return err
		}
	}
	view.bar = a.progress("train", c.MaxSteps, t.State().Step)
	err = run.Train(ctx, resume)
	view.bar.finish()
	if err != nil {
		if errors.Is(err, gapg.ErrStopped) {
			a.log.Info("stopped after a whole step; go on with --resume-from-checkpoint", "output-dir", f.outputDir)
		}
		return err
	}
	final := filepath.Join(f.outputDir, "final")
	if err := saveModel(ctx, m, src.tok, final); err != nil {
		return err
	}
	if err := view.writeReport(""); err != nil {
		return err
	}
	return view.summary(t, run, store, final)
}
