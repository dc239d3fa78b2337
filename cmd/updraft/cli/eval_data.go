package cli

import (
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
)

// evalData are the prompts of an evaluation.
func (f *evalFlags) evalData(b *bound) (train, validation, test []gapg.Prompt, err error) {
	if test, err = b.prompts("dataset", f.dataset, task.SplitTest, f.seed, 0); err != nil {
		return nil, nil, nil, err
	}
	split, seed := f.validationSplit, f.seed
	if f.evalSplit > 0 {
		if train, test = gapg.HoldOut(test, f.evalSplit, f.splitSeed); len(test) == 0 {
			return nil, nil, nil, inputf("--dataset %s: too few prompts to hold out a share of %g", f.dataset, f.evalSplit)
		}
		// A share of what was held out is a part of that part: the same seed with
		// the product of the shares.
		split, seed = f.evalSplit*f.validationSplit, f.splitSeed
	}
	if f.dataset != "" && f.validation == "" {
		if test, validation = gapg.HoldOut(test, split, seed); len(test) == 0 || len(validation) == 0 {
			return nil, nil, nil, inputf("--dataset %s: too few prompts to take a share of %g for calibration; give --validation-dataset", f.dataset, f.validationSplit)
		}
	} else if validation, err = b.prompts("validation-dataset", f.validation, task.SplitValidation, f.seed, f.validationPrompts); err != nil {
		return nil, nil, nil, err
	}
	if f.dataset == "" && f.testPrompts > 0 {
		if test, err = b.prompts("dataset", "", task.SplitTest, f.seed, f.testPrompts); err != nil {
			return nil, nil, nil, err
		}
	}
	test, validation = atMost(test, f.testPrompts, f.seed), atMost(validation, f.validationPrompts, f.seed)
	switch {
	case f.taskTuned == "":
		train = nil
	case f.dataset == "" || f.trainData != "":
		train, err = b.prompts("train-dataset", f.trainData, task.SplitTrain, f.seed, 0)
	}
	return train, validation, test, err
}

// atMost is n of the prompts, chosen by the seed, since files are often sorted;
// all of them where n is 0.
func atMost(p []gapg.Prompt, n int, seed uint64) []gapg.Prompt {
	if n > 0 && len(p) > n {
		return gapg.FirstPrompts(p, seed, n)
	}
	return p
}

// lengths are the tokens of a response at most (where they are not given, what
// every prompt's context leaves, at most 512) and of the longest sequence.
func (f *evalFlags) lengths(b *bound, context int, parts ...[]gapg.Prompt) (response, sequence int, err error) {
	longest := 0
	for _, part := range parts {
		ids, err := gapg.EncodePrompts(b.tok, part, context, max(1, f.maxLength))
		if err != nil {
			return 0, 0, input(err)
		}
		for _, p := range ids {
			longest = max(longest, len(p))
		}
	}
	if response = f.maxLength; response == 0 {
		response = min(512, context-longest)
	}
	return response, longest + response, nil
}
