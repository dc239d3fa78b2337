// Command cost measures how a training step grows with the group size, the
// prompts of a step, the completion length and the model's width, and where its
// time goes, and prints two Markdown tables.
//
//	go run ./bench/cost > docs/cost.md
//
// The model has random weights and a vocabulary so large that no completion
// ends early, and the reward is a hash of the completion, so that every group
// has a gradient: what is measured is the engine, not a task. A figure is the
// median of -runs steps after one that is not counted.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"time"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
)

// shape is one row.
type shape struct{ Group, Prompts, Length, Width int }

var base = shape{Group: 8, Prompts: 32, Length: 48, Width: 128}

func shapes() (out []struct {
	Axis string
	shape
}) {
	add := func(axis string, change func(*shape, int), values ...int) {
		for _, v := range values {
			s := base
			change(&s, v)
			out = append(out, struct {
				Axis string
				shape
			}{fmt.Sprintf("%s %d", axis, v), s})
		}
	}
	add("G", func(s *shape, v int) { s.Group = v }, 2, 4, 8, 16)
	add("prompts", func(s *shape, v int) { s.Prompts = v }, 8, 16, 32, 64)
	add("length", func(s *shape, v int) { s.Length = v }, 12, 24, 48, 96)
	add("width", func(s *shape, v int) { s.Width = v }, 64, 128, 256)
	return out
}

func main() {
	runs := flag.Int("runs", 5, "steps per figure")
	threads := flag.Int("threads", 0, "threads; 0: one per core")
	flag.Parse()
	if err := run(*runs, *threads); err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(2)
	}
}

func run(runs, threads int) error {
	be, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		return err
	}
	defer be.Close()
	fmt.Printf("Measured %s on %s, median of %d steps.\nBase: G %d, %d prompts, %d tokens per completion, width %d, 4 layers, vocabulary 512, prompts of 11 tokens.\n\n",
		time.Now().Format("2006-01-02"), be.Name(), runs, base.Group, base.Prompts, base.Length, base.Width)
	fmt.Println("| varied | ms per step | per generated token, µs | spread | rollouts | cloud, rewards | forward | backward | optimizer |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	for _, s := range shapes() {
		steps, err := measure(be, s.shape, runs)
		if err != nil {
			return err
		}
		slices.SortFunc(steps, func(a, b *gapg.StepStats) int { return int(a.StepTime - b.StepTime) })
		m := steps[len(steps)/2]
		share := func(d time.Duration) string { return fmt.Sprintf("%.0f %%", 100*d.Seconds()/m.StepTime.Seconds()) }
		fmt.Printf("| %s | %.0f | %.0f | %.0f–%.0f | %s | %s | %s | %s | %s |\n", s.Axis,
			1e3*m.StepTime.Seconds(), 1e6*m.StepTime.Seconds()/float64(m.RolloutTokens),
			1e3*steps[0].StepTime.Seconds(), 1e3*steps[len(steps)-1].StepTime.Seconds(),
			share(m.RolloutTime), share(m.CloudTime), share(m.ForwardTime), share(m.BackwardTime), share(m.OptimizerTime))
	}
	return nil
}

// alwaysTask judges nothing: the reward does not look at verdicts.
type alwaysTask struct{}

func (alwaysTask) Name() string { return "cost" }
func (alwaysTask) Judge(context.Context, gapg.Prompt, string) (gapg.Verdict, error) {
	return gapg.Verdict{Format: true}, nil
}
func (alwaysTask) JudgeCloud(context.Context, gapg.Prompt, string) (bool, error) { return true, nil }

func measure(be *cpu.Backend, s shape, runs int) ([]*gapg.StepStats, error) {
	ctx := context.Background()
	tok, err := task.NewDemoTokenizer()
	if err != nil {
		return nil, err
	}
	cfg := model.Config{ModelType: "llama", HiddenSize: s.Width, IntermediateSize: s.Width * 11 / 4, NumHiddenLayers: 4, NumAttentionHeads: s.Width / 32,
		NumKeyValueHeads: s.Width / 64, HeadDim: 32, RMSNormEps: 1e-6, RopeTheta: 10000, VocabSize: 512, MaxPositionEmbeddings: 256, TieWordEmbeddings: true}
	m, err := model.New(be, cfg, 1, model.Options{Trainable: true, MaxRows: 4096})
	if err != nil {
		return nil, err
	}
	defer m.Close()
	prompts := make([]gapg.Prompt, 1024)
	for i := range prompts {
		prompts[i] = gapg.Prompt{ID: fmt.Sprint(i), Text: fmt.Sprintf("%d %d %d=%d", 10+i%15, 10+i%7, 10+i%3, 10+i%90)}
	}
	hash := gapg.RewardFunc(func(_ context.Context, g *gapg.Group, i int) (gapg.RewardParts, error) {
		h := fnv.New32a()
		for _, id := range g.Rollouts[i].Tokens {
			h.Write([]byte{byte(id), byte(id >> 8)})
		}
		return gapg.RewardParts{Other: float64(h.Sum32()%1000) / 1000}, nil
	})
	desk, err := cloud.NewLedger(nobody{}, cloud.NewMemory(), cloud.LedgerConfig{Run: "cost"})
	if err != nil {
		return nil, err
	}
	t, err := gapg.NewTrainer(gapg.Config{Algorithm: gapg.GAPG{NoFilter: true}, Reward: hash, Budget: gapg.Budget{Num: 3, Den: 10}, NumGenerations: s.Group,
		PromptsPerStep: s.Prompts, MaxCompletionLength: s.Length, LearningRate: 1e-9},
		gapg.Setup{Model: m, Tokenizer: tok, Task: alwaysTask{}, Prompts: prompts, Cloud: desk, EndToken: tok.Special().EOS})
	if err != nil {
		return nil, err
	}
	defer t.Close()
	var out []*gapg.StepStats
	for i := range runs + 1 {
		st, err := t.Step(ctx)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, st)
		}
	}
	return out, nil
}

// nobody is a cloud that is never asked.
type nobody struct{}

func (nobody) Name() string { return "nobody" }
func (nobody) Answer(context.Context, cloud.Question) (cloud.Answer, error) {
	return cloud.Answer{}, nil
}
