package model_test

import (
	"context"
	"fmt"
	"log"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model"
)

// A checkpoint in Hugging Face's layout, for generation only.
func ExampleLoad() {
	ctx := context.Background()
	be, err := cpu.New(cpu.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer be.Close()
	m, err := model.Load(ctx, be, "checkpoints/base", model.Options{MaxContext: 4096})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	c := m.Config()
	fmt.Println(c.ModelType, c.NumParameters())
}

// Eight samples of one prompt. The prompt is computed once, and the samples
// are the same in any batch.
func ExampleScheduler() {
	generate := func(be engine.Backend, cfg model.Config) error {
		m, err := model.New(be, cfg, 1, model.Options{})
		if err != nil {
			return err
		}
		defer m.Close()
		s, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: 32, MaxTokens: 64})
		if err != nil {
			return err
		}
		defer s.Close()
		h, err := s.Submit(model.Request{
			Prompt: []int32{1, 2, 3}, N: 8, MaxNewTokens: 16, Seed: 42,
			Sampling: model.Sampling{Temperature: 1},
		})
		if err != nil {
			return err
		}
		if err := s.Run(context.Background()); err != nil {
			return err
		}
		for _, c := range h.Completions()[:2] {
			fmt.Println(c.Sample, len(c.Tokens), c.Finish)
		}
		return nil
	}
	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer be.Close()
	err = generate(be, model.Config{
		ModelType: "llama", HiddenSize: 32, IntermediateSize: 64, NumHiddenLayers: 2, NumAttentionHeads: 4,
		VocabSize: 40, MaxPositionEmbeddings: 64, TieWordEmbeddings: true,
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 0 16 length
	// 1 16 length
}

// One step of supervised training: forward, loss, backward, clipping, update.
func ExampleModel_Backward() {
	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer be.Close()
	m, err := model.New(be, model.Config{
		ModelType: "qwen3", HiddenSize: 32, IntermediateSize: 64, NumHiddenLayers: 2, NumAttentionHeads: 4, HeadDim: 8,
		VocabSize: 40, MaxPositionEmbeddings: 64, TieWordEmbeddings: true,
	}, 1, model.Options{Trainable: true, MaxRows: 256})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()

	ctx := context.Background()
	batch := model.Batch{Groups: []model.Group{{Prompt: []int32{1, 2}, Responses: [][]int32{{3, 4, 5}, {6, 7}}}}}
	parts, err := batch.Split(m.Options().MaxRows)
	if err != nil {
		log.Fatal(err)
	}
	weights := make([]float32, batch.Tokens())
	for i := range weights {
		weights[i] = 1
	}
	for range 20 {
		m.ZeroGrad()
		var loss float64
		for _, p := range parts {
			out, err := m.Forward(ctx, &p.Batch)
			if err != nil {
				log.Fatal(err)
			}
			l, d := model.WeightedNLL(out, weights[p.From:p.To], float64(len(weights)))
			if err := m.Backward(ctx, d, nil); err != nil {
				log.Fatal(err)
			}
			loss += l
		}
		norm, err := m.GradNorm(ctx)
		if err != nil {
			log.Fatal(err)
		}
		m.AdamWStep(model.AdamW{LR: 0.01, GradScale: float32(min(1, 1/norm))})
		if m.StepCount() == 20 {
			fmt.Println(loss < 0.5)
		}
	}
	// Output: true
}
