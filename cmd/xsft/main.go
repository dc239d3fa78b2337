package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	steps := flag.Int("steps", 4500, "")
	bs := flag.Int("bs", 64, "")
	lr := flag.Float64("lr", 2e-3, "")
	threads := flag.Int("threads", 2, "")
	out := flag.String("out", "/work/drv/base", "")
	stop := flag.Int("stop", 0, "")
	flag.Parse()
	ctx := context.Background()
	be, err := cpu.New(cpu.Options{Threads: *threads})
	check(err)
	tok, err := task.NewDemoTokenizer()
	check(err)
	u, err := task.NewUniverse(task.DemoUniverse())
	check(err)
	cfg := model.Config{ModelType: "llama", HiddenSize: 128, IntermediateSize: 352, NumHiddenLayers: 4, NumAttentionHeads: 4, NumKeyValueHeads: 2, HeadDim: 32,
		RMSNormEps: 1e-6, RopeTheta: 10000, VocabSize: tok.Size(), MaxPositionEmbeddings: 256, TieWordEmbeddings: true}
	m, err := model.New(be, cfg, 1, model.Options{Trainable: true, MaxRows: 4096})
	check(err)
	s, err := gapg.NewSFT(gapg.SFTConfig{MaxSteps: *steps, BatchSize: *bs, LearningRate: *lr, WarmupSteps: 100, AdamBeta2: 0.98, WeightDecay: 0.01}, m,
		&task.Examples{Universe: u, Demo: task.DefaultDemo(), Seed: 1, Tokenizer: tok}, nil)
	check(err)
	start, tokens := time.Now(), 0
	for i := range *steps {
		if *stop > 0 && i == *stop {
			break
		}
		st, err := s.Step(ctx)
		check(err)
		tokens += st.Tokens
		if (i+1)%50 == 0 {
			fmt.Printf("%d loss %.4f gn %.3f tok %d %.0f tok/s %.0fs step %.0fms\n", i+1, st.Loss, st.GradNorm, tokens, float64(tokens)/time.Since(start).Seconds(), time.Since(start).Seconds(), 1e3*st.StepTime.Seconds())
		}
	}
	check(os.MkdirAll(*out, 0o755))
	check(m.Save(ctx, *out))
	check(tok.Save(*out + "/tokenizer.json"))
}
