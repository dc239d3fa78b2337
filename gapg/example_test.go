package gapg_test

import (
	"cmp"
	"context"
	"fmt"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

type echo struct{} // a task: say the prompt back

func (echo) Name() string { return "echo" }
func (echo) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	return gapg.Verdict{Correct: response == p.Text}, nil
}
func (echo) JudgeCloud(context.Context, gapg.Prompt, string) (bool, error) { return false, nil }

// rare is a reward: being right counts for more where few of the group are.
func rare(_ context.Context, g *gapg.Group, i int) (parts gapg.RewardParts, err error) {
	if g.Rollouts[i].Verdict.Correct {
		parts.Accuracy = 1 / float64(g.DeviceCorrect())
	}
	return parts, nil
}

type ranks struct{} // an advantage: how many of its group a response beats, less how many beat it

func (ranks) Name() string                        { return "ranks" }
func (ranks) Select(b *gapg.Batch) gapg.Selection { return gapg.KeepAll(b) }
func (ranks) Weights(b *gapg.Batch, keep []int) [][][]float32 {
	return gapg.Weigh(b, keep, func(g *gapg.Group, i int) (advantage, norm float64) {
		for _, other := range g.Rollouts {
			advantage += float64(cmp.Compare(g.Rollouts[i].Reward, other.Reward))
		}
		return advantage, 1 / float64(len(keep)*len(g.Rollouts))
	})
}

// Training with a task, a reward and an advantage estimator of one's own.
func Example_trainer() {
	device, _ := cpu.New(cpu.Options{Threads: 1})
	defer device.Close()
	letters, _ := tokenizer.NewCharacter("abc.", nil)
	end, _ := letters.ID(".")
	m, _ := model.New(device, model.Config{ModelType: "llama", HiddenSize: 16, IntermediateSize: 32, NumHiddenLayers: 1, NumAttentionHeads: 2,
		VocabSize: letters.Size(), MaxPositionEmbeddings: 32, TieWordEmbeddings: true}, 1, model.Options{Trainable: true, MaxRows: 256})
	defer m.Close()
	trainer, _ := gapg.NewTrainer(
		gapg.Config{Algorithm: ranks{}, Reward: gapg.RewardFunc(rare), PromptsPerStep: 6, NumGenerations: 16, MaxCompletionLength: 1, LearningRate: 0.01},
		gapg.Setup{Model: m, Tokenizer: letters, EndToken: end, Task: echo{}, Prompts: []gapg.Prompt{{Text: "a"}, {Text: "b"}, {Text: "c"}}})
	defer trainer.Close()
	var last *gapg.StepStats
	for range 60 {
		last, _ = trainer.Step(context.Background())
	}
	fmt.Println("right more than nine times in ten:", last.AccuracyDevice > 0.9)
	// Output: right more than nine times in ten: true
}
