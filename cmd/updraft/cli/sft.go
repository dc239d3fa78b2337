package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// sftFlags are the settings of a supervised warm start. Their defaults make the
// demonstration's base model.
type sftFlags struct {
	model, task, dataset, outputDir, config, resume string
	dryRun                                          bool

	shape model.Config

	steps, batch, warmup, micro        int
	learningRate, beta1, beta2, decay  float64
	adamEps, maxGradNorm               float64
	scheduler                          string
	seed                               uint64
	saveSteps, loggingSteps, saveLimit int
	rollouts                           rolloutFlags
	solutions                          bool
	dataFlags
	deviceFlags
	precisionFlags
	lora loraFlags
}

func (f *sftFlags) register(a *app, fs *pflag.FlagSet) {
	fs.StringVar(&f.model, "model", "", modelHelp+"; default: a new model of the shape below")
	fs.StringVar(&f.outputDir, "output-dir", "", "directory of the run: metrics and checkpoints")
	fs.Var(newChoice(&f.task, a.tasks[0].Name, taskNames(a.tasks)...), "task", "task whose own demonstrations are shown: "+orList(taskNames(a.tasks)))
	f.registerData(fs)
	fs.StringVar(&f.dataset, "dataset", "", `JSONL file of demonstrations instead: {"prompt": …, "completion": …}, or messages of a user and an assistant`)
	fs.StringVar(&f.config, "config", "", "YAML file with the same keys as these flags; flags override it")
	fs.StringVar(&f.resume, "resume-from-checkpoint", "false", "go on from the newest checkpoint in --output-dir")
	fs.Lookup("resume-from-checkpoint").NoOptDefVal = "true"
	fs.BoolVar(&f.dryRun, "dry-run", false, "check everything, show the configuration and the memory plan, and touch nothing")

	fs.IntVar(&f.steps, "max-steps", 4500, "training steps")
	fs.IntVar(&f.batch, "per-device-train-batch-size", 64, "demonstrations per step")
	fs.Float64Var(&f.learningRate, "learning-rate", 2e-3, "peak learning rate of AdamW")
	fs.Var(newChoice(&f.scheduler, "linear", "constant", "linear", "cosine"), "lr-scheduler-type", "after the warm-up: constant, linear or cosine to 0 at --max-steps")
	fs.IntVar(&f.warmup, "warmup-steps", 100, "steps of linear warm-up, at least 1")
	fs.Float64Var(&f.beta1, "adam-beta1", 0.9, "AdamW β1")
	fs.Float64Var(&f.beta2, "adam-beta2", 0.98, "AdamW β2")
	fs.Float64Var(&f.adamEps, "adam-epsilon", 1e-8, "AdamW ε")
	fs.Float64Var(&f.decay, "weight-decay", 0.01, "AdamW weight decay")
	fs.Float64Var(&f.maxGradNorm, "max-grad-norm", 1, "clip the gradient's norm; 0: never")
	fs.Uint64Var(&f.seed, "seed", 1, "seed of the weights and the demonstrations, at least 1")
	fs.IntVar(&f.micro, "micro-batch-tokens", 4096, "packed tokens of one forward and backward")
	fs.IntVar(&f.loggingSteps, "logging-steps", 1, "steps between lines of metrics.jsonl")
	fs.IntVar(&f.saveSteps, "save-steps", 500, "steps between checkpoints; 0: the last step alone")
	fs.IntVar(&f.saveLimit, "save-total-limit", 2, "checkpoints kept")

	f.rollouts.register(fs)
	fs.BoolVar(&f.solutions, "from-solutions", false, "learn the worked solutions that --dataset has as its answers, as GSM8K and MATH do")

	s := &f.shape
	fs.IntVar(&s.HiddenSize, "hidden-size", 128, "new model: width")
	fs.IntVar(&s.NumHiddenLayers, "num-hidden-layers", 4, "new model: layers")
	fs.IntVar(&s.NumAttentionHeads, "num-attention-heads", 4, "new model: query heads")
	fs.IntVar(&s.NumKeyValueHeads, "num-key-value-heads", 2, "new model: key and value heads")
	fs.IntVar(&s.HeadDim, "head-dim", 32, "new model: width of a head")
	fs.IntVar(&s.IntermediateSize, "intermediate-size", 352, "new model: width of the feed-forward")
	fs.IntVar(&s.MaxPositionEmbeddings, "max-position-embeddings", 256, "new model: context in tokens")
	fs.Float64Var(&s.RopeTheta, "rope-theta", 10000, "new model: base of the rotary positions")
	fs.Float64Var(&s.RMSNormEps, "rms-norm-eps", 1e-6, "new model: ε of the norms")
	fs.BoolVar(&s.TieWordEmbeddings, "tie-word-embeddings", true, "new model: one matrix for embedding and head")
	f.deviceFlags.register(fs, deviceAuto)
	f.registerType(fs)
	f.registerOptim(fs)
	f.lora.register(fs)
}

func (a *app) sft() *cobra.Command {
	var f sftFlags
	cmd := &cobra.Command{
		Use:   "sft",
		Short: "Warm-start a model on demonstrations",
		Long: `Sft trains a model by next-token prediction on demonstrations: those that the
task's own solver writes (wrong attempts, giving up and asking included), those of
a JSONL file, the worked solutions of a data set of questions (--from-solutions),
or the model's own (--from-rollouts).

A JSONL file has one demonstration per line, {"prompt": …, "completion": …} or
{"messages": […]} of several turns, of which those of the assistant are trained on.

--from-solutions reads --dataset as updraft train does and learns the answers that
are whole solutions, such as those of GSM8K and MATH, behind the prompts that train
writes. Solutions longer than --max-completion-length are left out.

--from-rollouts needs no demonstrations. It samples the model on the training
prompts of --dataset (or the task's own), keeps the responses that the verifier
finds right, and turns a share of the failed ones into the reasoning so far and the
marker that asks for help. OUTPUT/rollouts.jsonl keeps what was made.

Both never use prompts that updraft train holds out for evaluation; --learning-rate
is then 1e-5 and --max-steps two passes unless given.

Without --model it makes a new model; with its defaults on countdown it remakes the
base model of updraft demo (some 40 minutes on two cores). The output directory has
the layout of updraft train; name it as --model there.`,
		Example: `  updraft sft --task countdown --output-dir runs/base
  updraft sft --task countdown --hidden-size 64 --max-steps 1500 --output-dir runs/small
  updraft sft --model SmolLM2 --from-solutions --dataset gsm8k_train.jsonl --verifier numeric --output-dir runs/solutions
  updraft sft --model SmolLM2 --from-rollouts --dataset gsm8k_train.jsonl --verifier numeric --output-dir runs/warm
  updraft sft --model runs/base --dataset demonstrations.jsonl --learning-rate 1e-4 --output-dir runs/mine`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runSFT(cmd, &f) },
	}
	f.register(a, cmd.Flags())
	return cmd
}

func (f *sftFlags) check() error {
	for _, x := range []struct {
		flag         string
		value, least int
	}{
		{"max-steps", f.steps, 1}, {"per-device-train-batch-size", f.batch, 1}, {"warmup-steps", f.warmup, 1}, {"micro-batch-tokens", f.micro, 1},
		{"save-steps", f.saveSteps, 0}, {"logging-steps", f.loggingSteps, 1}, {"save-total-limit", f.saveLimit, 1},
	} {
		if x.value < x.least {
			return inputf("--%s %d: must be at least %d", x.flag, x.value, x.least)
		}
	}
	for _, x := range []struct {
		flag  string
		value float64
		ok    bool
		must  string
	}{
		{"learning-rate", f.learningRate, f.learningRate > 0, "must be above 0"},
		{"adam-beta1", f.beta1, f.beta1 > 0 && f.beta1 < 1, "must be between 0 and 1"},
		{"adam-beta2", f.beta2, f.beta2 > 0 && f.beta2 < 1, "must be between 0 and 1"},
		{"adam-epsilon", f.adamEps, f.adamEps > 0, "must be above 0"},
		{"weight-decay", f.decay, f.decay >= 0, "must not be negative"},
		{"max-grad-norm", f.maxGradNorm, f.maxGradNorm >= 0, "must not be negative"},
	} {
		if !x.ok {
			return inputf("--%s %g: %s", x.flag, x.value, x.must)
		}
	}
	if f.seed == 0 {
		return inputf("--seed 0: must be at least 1")
	}
	return nil
}

// start finds what is trained: a checkpoint, or the shape of a new model.
func (f *sftFlags) start(ctx context.Context, a *app) (*source, error) {
	if f.model != "" {
		return a.openSource(ctx, "model", f.model)
	}
	t, err := a.task(f.task)
	if err != nil {
		return nil, err
	}
	if t.Tokenizer == nil {
		return nil, inputf("--model is not set: the task %s has no vocabulary for a new model; name a checkpoint", f.task)
	}
	tok, err := t.Tokenizer()
	if err != nil {
		return nil, err
	}
	cfg := f.shape
	cfg.ModelType, cfg.HiddenAct, cfg.VocabSize = "llama", "silu", tok.Size()
	special := tok.Special()
	if special.BOS >= 0 {
		cfg.BOSTokenID = &special.BOS
	}
	if special.PAD >= 0 {
		cfg.PADTokenID = &special.PAD
	}
	if special.EOS >= 0 {
		cfg.EOSTokenID = model.TokenIDs{special.EOS}
	}
	if err := cfg.Validate(); err != nil {
		return nil, inputf("the new model's shape: %w", err)
	}
	return &source{cfg: cfg, tok: tok}, nil
}

func (a *app) runSFT(cmd *cobra.Command, f *sftFlags) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	resume, err := resuming(f.resume, f.outputDir)
	if err != nil {
		return err
	}
	src, err := f.start(ctx, a)
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
	var data gapg.Examples
	var prompts []gapg.Prompt
	context := src.cfg.MaxPositionEmbeddings
	switch {
	case f.rollouts.use || f.solutions:
		if err := f.rollouts.check(f, cmd); err != nil {
			return err
		}
		if prompts, context, err = f.rollouts.prompts(b, f.dataset, context); err != nil {
			return err
		}
		if f.solutions {
			if data, err = f.rollouts.worked(cmd, a, f, b, prompts); err != nil {
				return err
			}
		}
	case f.dataset != "":
		data, err = task.ReadDemonstrations(f.dataset, src.tok, b.render(), b.end, src.cfg.MaxPositionEmbeddings)
		if err != nil {
			return missing("dataset", f.dataset, err)
		}
	case b.Examples == nil:
		return inputf("--dataset is not set, and the task %s writes no demonstrations; give a JSONL file", b.Name)
	default:
		if data, err = b.Examples(src.tok, f.seed); err != nil {
			return input(err)
		}
		if _, err := data.Example(0); err != nil {
			return inputf("--model %s: its vocabulary does not fit the task's demonstrations: %w", f.model, err)
		}
	}
	context = longestExample(data, context)
	f.longest = context
	be, err := f.open(a)
	if err != nil {
		return err
	}
	defer be.Close()
	o, err := f.choose(be, model.Options{Trainable: true, MaxRows: rows(f.micro, context, f.batch*context)})
	if err != nil {
		return err
	}
	if o.LoRA, err = f.lora.options(cmd.Flags(), f.seed); err != nil {
		return err
	}
	if f.fresh = src.dir == ""; f.fresh && o.LoRA != nil {
		return inputf("--use-peft needs --model: a new model has nothing to adapt")
	}
	plan := planOn(be, src.cfg, o, nil)
	var so *model.SchedulerOptions
	if f.rollouts.use {
		so = &model.SchedulerOptions{MaxBatch: f.rollouts.batch(), MaxTokens: context}
		plan = planOn(be, src.cfg, o, so)
	}
	if f.dryRun && f.rollouts.use {
		return a.dryRun(cmd, plan, fmt.Sprintf("%d parameters, %d responses to %d prompts to choose demonstrations from", src.cfg.NumParameters(), len(prompts)*f.rollouts.samples, len(prompts)), nil)
	}
	if f.dryRun {
		if err := a.dryRun(cmd, plan, fmt.Sprintf("%d parameters, %d demonstrations", src.cfg.NumParameters(), f.steps*f.batch), nil); err != nil {
			return err
		}
		return f.fits(be, src.cfg, o, nil, plan)
	}
	if !resume {
		if err := newRunDirectory(f.outputDir); err != nil {
			return err
		}
	}
	if err := writable("output-dir", f.outputDir); err != nil {
		return err
	}
	if err := f.fits(be, src.cfg, o, so, plan); err != nil {
		return err
	}
	m, err := f.model0(cmd, src, be, o)
	if err != nil {
		return err
	}
	defer m.Close()
	if f.rollouts.use {
		if data, err = f.rollouts.demonstrations(cmd, a, f, b, m, prompts, resume); err != nil {
			return err
		}
	}
	c := gapg.SFTConfig{MaxSteps: f.steps, BatchSize: f.batch, LearningRate: f.learningRate, LRScheduler: f.scheduler, WarmupSteps: f.warmup,
		AdamBeta1: f.beta1, AdamBeta2: f.beta2, AdamEpsilon: f.adamEps, WeightDecay: f.decay, MaxGradNorm: f.maxGradNorm}
	if f.maxGradNorm == 0 {
		c.MaxGradNorm = -1
	}
	s, err := gapg.NewSFT(c, m, data, a.log)
	if err != nil {
		return input(err)
	}
	run := &gapg.SFTRun{SFT: s, Tokenizer: src.tok, Stop: stopChannel(ctx),
		Config: gapg.RunConfig{Dir: f.outputDir, LoggingSteps: f.loggingSteps, SaveSteps: f.saveSteps, SaveTotalLimit: f.saveLimit}}
	var last *gapg.SFTStats
	var bar *progress
	run.OnStep = func(st *gapg.SFTStats) {
		last = st
		bar.step(st.Step, "loss", fmt.Sprintf("%.4f", st.Loss), "tokens/s", fmt.Sprintf("%.0f", float64(st.Tokens)/max(st.StepTime.Seconds(), 1e-9)))
	}
	a.log.Info("supervised warm start", "device", be.Name(), "memory", bytesText(plan.Bytes()), "parameters", src.cfg.NumParameters())
	if err := keepConfig(cmd, f.outputDir, resume); err != nil {
		return err
	}
	if err := run.Open(ctx, resume); err != nil {
		return input(err)
	}
	bar = a.progress("sft", f.steps, s.Steps())
	err = run.Train(ctx, resume)
	bar.finish()
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
	loss := 0.0
	if last != nil {
		loss = last.Loss
	}
	if a.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"steps": s.Steps(), "loss": loss, "parameters": src.cfg.NumParameters(), "output_dir": f.outputDir, "model": final})
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d steps, loss %.4f nats per token\nmodel: %s\n", s.Steps(), loss, final)
	return err
}

// longestExample returns the tokens of the longest demonstration where they are
// counted, and otherwise the model's context.
func longestExample(data gapg.Examples, context int) int {
	counted, ok := data.(interface{ Len() int })
	if !ok {
		return context
	}
	longest := 1
	for i := range counted.Len() {
		if ex, err := data.Example(i); err == nil {
			longest = max(longest, len(ex.Prompt)+len(ex.Response))
		}
	}
	return longest
}

// model0 is the model before its first step.
func (f *sftFlags) model0(cmd *cobra.Command, src *source, be engine.Backend, o model.Options) (*model.Model, error) {
	if src.dir != "" {
		return src.load(cmd.Context(), be, o)
	}
	m, err := model.New(be, src.cfg, f.seed, o)
	return m, input(err)
}
