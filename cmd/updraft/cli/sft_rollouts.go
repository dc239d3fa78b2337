package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// rolloutsFile keeps the demonstrations that a warm start made of the model's own
// responses, inside its run directory.
const rolloutsFile = "rollouts.jsonl"

// rolloutFlags are the settings of updraft sft --from-rollouts; --from-solutions
// has those that choose the prompts and the longest response.
type rolloutFlags struct {
	use                       bool
	n, samples, keep, longest int
	helpShare, temperature    float64
	split                     float64
	splitSeed                 uint64
	heldOut                   string
}

func (r *rolloutFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&r.use, "from-rollouts", false, "make demonstrations of the model's own responses to the training prompts")
	fs.IntVar(&r.n, "train-prompts", 0, "from rollouts or solutions: prompts to use at most, chosen by --split-seed; 0: all of the file, or the task's usual number")
	fs.IntVar(&r.samples, "num-generations", 4, "from rollouts: responses sampled for each prompt")
	fs.IntVar(&r.keep, "keep", 1, "from rollouts: right responses kept of each prompt at most")
	fs.Float64Var(&r.helpShare, "help-share", 0.5, "from rollouts: share of the prompts without a right response that become demonstrations of asking")
	fs.Float64Var(&r.temperature, "temperature", 1, "from rollouts: sampling temperature, above 0")
	fs.IntVar(&r.longest, "max-completion-length", 512, "from rollouts or solutions: tokens of a response at most")
	fs.Float64Var(&r.split, "eval-split", 0.1, "from rollouts or solutions: share of --dataset that updraft train holds out, which is never used; 0 where it has an --eval-dataset")
	fs.Uint64Var(&r.splitSeed, "split-seed", 42, "from rollouts or solutions: --seed of that updraft train, which chooses the share")
	fs.StringVar(&r.heldOut, "eval-dataset", "", "from rollouts or solutions: JSONL file of further prompts that are never used")
}

func (r *rolloutFlags) batch() int { return max(32, r.samples) }

// check refuses what cannot be, and sets what suits a model that exists.
func (r *rolloutFlags) check(f *sftFlags, cmd *cobra.Command) error {
	switch {
	case r.use && f.solutions:
		return inputf("--from-rollouts and --from-solutions: give one of the two; the second starts from the run of the first")
	case f.model == "":
		return inputf("--model is not set: --from-rollouts and --from-solutions train a model that exists")
	case f.solutions && f.dataset == "":
		return inputf("--dataset is not set: --from-solutions reads questions with worked solutions")
	case r.samples < 1 || r.keep < 1 || r.longest < 1 || r.n < 0:
		return inputf("--num-generations %d, --keep %d, --max-completion-length %d, --train-prompts %d: must be at least 1, 1, 1 and 0", r.samples, r.keep, r.longest, r.n)
	case !(r.helpShare >= 0 && r.helpShare <= 1):
		return inputf("--help-share %g: must be from 0 to 1", r.helpShare)
	case !(r.temperature > 0):
		return inputf("--temperature %g: must be above 0", r.temperature)
	case !(r.split >= 0 && r.split < 1):
		return inputf("--eval-split %g: must be at least 0 and below 1", r.split)
	}
	if fl := cmd.Flags().Lookup("learning-rate"); fl.Value.String() == fl.DefValue && !fl.Changed {
		return fl.Value.Set("1e-5")
	}
	return nil
}

// prompts are the training prompts without those held out, and the tokens of the
// longest sequence that can come of them in the model's context.
func (r *rolloutFlags) prompts(b *bound, dataset string, context int) (out []gapg.Prompt, longest int, err error) {
	prompts, err := b.prompts("dataset", dataset, task.SplitTrain, r.splitSeed, r.n)
	if err != nil {
		return nil, 0, err
	}
	if dataset != "" && r.split > 0 {
		prompts, _ = gapg.HoldOut(prompts, r.split, r.splitSeed)
	}
	if r.heldOut != "" {
		held, err := b.prompts("eval-dataset", r.heldOut, task.SplitValidation, r.splitSeed, 0)
		if err != nil {
			return nil, 0, err
		}
		never := map[string]bool{}
		for _, p := range held {
			never[p.ID] = true
		}
		prompts = slices.DeleteFunc(prompts, func(p gapg.Prompt) bool { return never[p.ID] })
	}
	if len(prompts) == 0 {
		return nil, 0, inputf("--dataset %s: no prompts are left beside those held out", dataset)
	}
	prompts = atMost(prompts, r.n, r.splitSeed)
	tokens, err := gapg.EncodePrompts(b.tok, prompts, context, r.longest)
	for _, t := range tokens {
		longest = max(longest, len(t)+r.longest)
	}
	return prompts, longest, input(err)
}

// demonstrations samples the model, or reads what a run that is resumed has
// sampled, and sets the number of steps where it is not given.
func (r *rolloutFlags) demonstrations(cmd *cobra.Command, a *app, f *sftFlags, b *bound, m *model.Model, prompts []gapg.Prompt, resume bool) (gapg.Demonstrations, error) {
	path := filepath.Join(f.outputDir, rolloutsFile)
	var demos gapg.Demonstrations
	err := os.ErrNotExist
	if resume {
		demos, err = readRollouts(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		demos, err = r.sample(cmd, a, f, b, m, prompts, path)
	}
	if err != nil {
		return nil, err
	}
	return demos, f.passes(cmd, len(demos))
}

// passes sets the steps of two passes over n demonstrations, where they are not
// given, and a warm-up of a tenth of the steps at most.
func (f *sftFlags) passes(cmd *cobra.Command, n int) error {
	if fl := cmd.Flags().Lookup("max-steps"); fl.Value.String() == fl.DefValue && !fl.Changed {
		const passes = 2
		if err := fl.Value.Set(strconv.Itoa((passes*n + f.batch - 1) / f.batch)); err != nil {
			return err
		}
	}
	if !cmd.Flags().Changed("warmup-steps") {
		f.warmup = max(1, min(f.warmup, f.steps/10))
	}
	return nil
}

func (r *rolloutFlags) sample(cmd *cobra.Command, a *app, f *sftFlags, b *bound, m *model.Model, prompts []gapg.Prompt, path string) (gapg.Demonstrations, error) {
	a.log.Info("sampling responses to learn from", "prompts", len(prompts), "responses", len(prompts)*r.samples)
	source := gapg.RolloutSource{Tokenizer: b.tok, Task: b.judge, EndToken: b.end, Marker: b.marker, MarkerAfter: b.after, Samples: r.samples, Keep: r.keep,
		HelpShare: r.helpShare, MaxNewTokens: r.longest, Temperature: r.temperature, MaxBatch: r.batch(), Seed: f.seed}
	bar := a.progress("sampling", len(prompts)*r.samples, 0)
	source.OnResponse = func(done int) { bar.step(done) }
	demos, counts, err := source.Make(cmd.Context(), m, prompts)
	bar.finish()
	if err != nil {
		return nil, err
	}
	a.log.Info("responses", "sampled", counts.Responses, "right", counts.Right, "prompts", counts.Prompts, "solved", counts.Solved, "unresolved", counts.Unresolved,
		"verified_demonstrations", counts.Verified, "asking_demonstrations", counts.Asking)
	switch {
	case counts.Verified == 0:
		return nil, inputf("--from-rollouts: none of %d responses is right and complete, so there is nothing to keep: raise --max-completion-length or --num-generations, look at --verifier and --instruction, or give demonstrations by --dataset", counts.Responses)
	case counts.Asking == 0:
		a.log.Warn("no demonstration asks for help: the model solved every prompt, or --help-share is 0")
	case counts.Asking > 3*counts.Verified:
		a.log.Warn("most demonstrations ask for help, and the model may learn to ask always; lower --help-share", "verified", counts.Verified, "asking", counts.Asking)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return demos, checkpoint.WriteFile(path, func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for i := range demos {
			if err := enc.Encode(&demos[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func readRollouts(path string) (gapg.Demonstrations, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var out gapg.Demonstrations
	dec := json.NewDecoder(bufio.NewReader(file))
	for {
		var d gapg.Demonstration
		if err := dec.Decode(&d); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: demonstration %d: %w; remove the file to sample again", path, len(out)+1, err)
		}
		out = append(out, d)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no demonstrations; remove the file to sample again", path)
	}
	return out, nil
}
