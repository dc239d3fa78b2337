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

// echo is a task: say the prompt back.
type echo struct{}

func (echo) Name() string { return "echo" }
func (echo) Judge(_ context.Context, p gapg.Prompt, response string) (gapg.Verdict, error) {
	return gapg.Verdict{Answer: response, Correct: response == p.Text}, nil
}
func (echo) JudgeCloud(context.Context, gapg.Prompt, string) (bool, error) { return false, nil }

// polite is a reward: the right letter counts, any letter beats silence.
func polite(_ context.Context, g *gapg.Group, i int) (parts gapg.RewardParts, err error) {
	if v := g.Rollouts[i].Verdict; v.Correct {
		parts.Accuracy = 1
	} else if v.Answer != "" {
		parts.Other = 0.1
	}
	return parts, nil
}

// ranks is an advantage estimator: how many of its group a response beats, less
// how many beat it.
type ranks struct{}

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
	letters, _ := tokenizer.NewCharacter("abc", []string{"<end>"})
	end, _ := letters.ID("<end>")
	m, _ := model.New(device, model.Config{ModelType: "llama", HiddenSize: 16, IntermediateSize: 32, NumHiddenLayers: 1, NumAttentionHeads: 2,
		VocabSize: letters.Size(), MaxPositionEmbeddings: 32, TieWordEmbeddings: true}, 1, model.Options{Trainable: true, MaxRows: 256})
	defer m.Close()

	trainer, _ := gapg.NewTrainer(
		gapg.Config{Algorithm: ranks{}, Reward: gapg.RewardFunc(polite), PromptsPerStep: 6, NumGenerations: 16, MaxCompletionLength: 1, LearningRate: 0.01},
		gapg.Setup{Model: m, Tokenizer: letters, EndToken: end, Task: echo{}, Prompts: []gapg.Prompt{{Text: "a"}, {Text: "b"}, {Text: "c"}}})
	defer trainer.Close()
	for range 60 {
		last, err = trainer.Step(context.Background())
	}
	fmt.Println("right more than nine times in ten:", last.AccuracyDevice > 0.9, err)
	// Output: right more than nine times in ten: true
}
