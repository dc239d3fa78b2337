package task

import (
	"fmt"

	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// DemoEvalTokens is the token limit of the demo's evaluation: longer than in
// training, so that an answer after a denied call is not cut.
const DemoEvalTokens = 96

// DemoTraining returns the settings of the built-in demonstration's trainings:
// the paper's reward weights, 32 prompts of 8 responses in each of 75 steps.
// docs/demo.md says how they were found.
func DemoTraining() gapg.Config {
	return gapg.Config{
		Reward:              gapg.PaperWeights(),
		NumGenerations:      8,
		PromptsPerStep:      32,
		MaxSteps:            75,
		MaxCompletionLength: 72,
		LearningRate:        2e-4,
		LRScheduler:         "linear",
		WarmupSteps:         5,
		AdamBeta2:           0.95,
	}
}

// DemoMarker returns the marker's tokens and the tokens after which it may
// begin: at the start of a thought and after a failed attempt.
func DemoMarker(tok *tokenizer.Tokenizer) (marker, after []int32, err error) {
	for _, s := range []string{Marker, ThinkOpen, MarkRetry, MarkGiveUp} {
		id, ok := tok.ID(s)
		if !ok {
			return nil, nil, fmt.Errorf("tokenizer: no token %q, which the demo's traces need", s)
		}
		after = append(after, id)
	}
	return after[:1:1], after[1:], nil
}
