// Command ablation trains the demo's base model under variations of GAPG and
// writes what each did, as a Markdown table and as JSON lines: reward weights,
// group size, budget, filter on and off, division by the standard deviation on
// and off, against the natural call ratio, accuracy, |D1|, |D2| and the groups
// without gradient.
//
//	go run ./bench/ablation -seeds 1,2,3 > docs/ablation.md
//
// Every figure is of the run that prints it: validation problems that training
// never saw, greedy decoding, no calibration.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/gapg"
	"github.com/updraft-ml/updraft/gapg/cloud"
	"github.com/updraft-ml/updraft/gapg/task"
	"github.com/updraft-ml/updraft/model"
	"github.com/updraft-ml/updraft/model/tokenizer"
)

// variant is one row: the demo's training with one thing changed.
type variant struct {
	Name   string
	Change func(*gapg.Config)
}

func variants(budget gapg.Budget) []variant {
	reward := func(a, c, f float64) func(*gapg.Config) {
		return func(g *gapg.Config) {
			g.Reward = gapg.Hierarchical{Accuracy: a, Coordination: c, Format: f}
		}
	}
	algorithm := func(a gapg.Algorithm) func(*gapg.Config) {
		return func(g *gapg.Config) { g.Algorithm = a }
	}
	both := func(f ...func(*gapg.Config)) func(*gapg.Config) {
		return func(g *gapg.Config) {
			for _, change := range f {
				change(g)
			}
		}
	}
	at := func(b gapg.Budget) func(*gapg.Config) { return func(g *gapg.Config) { g.Budget = b } }
	tight := gapg.Budget{Num: 1, Den: 20}
	group := func(n int) func(*gapg.Config) {
		// The rollouts of a step stay 256.
		return func(g *gapg.Config) { g.NumGenerations, g.PromptsPerStep = n, 256/n }
	}
	return []variant{
		{fmt.Sprintf("GAPG (αa 2, αc 0.5, αf 0.2, G 8, budget %s)", budget), func(*gapg.Config) {}},
		{"no filter", algorithm(gapg.GAPG{NoFilter: true})},
		{"divided by the standard deviation", algorithm(gapg.GAPG{Std: true})},
		{"divided by the standard deviation, no filter", algorithm(gapg.GAPG{Std: true, NoFilter: true})},
		{"budget 0.05", at(tight)},
		{"budget 0.05, G 2", both(at(tight), group(2))},
		{"G 2", group(2)},
		{"αc 1.5", reward(2, 1.5, 0.2)},
		{"αc 1.5, no filter", both(reward(2, 1.5, 0.2), algorithm(gapg.GAPG{NoFilter: true}))},
		{"αc 1", reward(2, 1, 0.2)},
		{"αf 0", reward(2, 0.5, 0)},
		{"G 16", group(16)},
		{"αc 0.25", reward(2, 0.25, 0.2)},
	}
}

// outcome is what one training did.
type outcome struct {
	Variant          string  `json:"variant"`
	Seed             uint64  `json:"seed"`
	NaturalRatio     float64 `json:"natural_cloud_ratio"`
	Overall          float64 `json:"overall_accuracy"`
	Solo             float64 `json:"solo_accuracy"`
	Precision        float64 `json:"help_precision"`
	D1               float64 `json:"d1"` // shares of a step's prompts, mean over steps
	D2               float64 `json:"d2"`
	D2Kept           float64 `json:"d2_kept"`
	WithoutGradient  float64 `json:"without_gradient"`
	CapBound         float64 `json:"cap_bound"` // share of steps in which the cap dropped prompts
	MaxLogp          float64 `json:"max_logp_difference"`
	TrainingSeconds  float64 `json:"seconds"`
	TrainingCloudAsk int     `json:"training_cloud_calls"`
}

func main() {
	base := flag.String("base", "cmd/updraft/cli/basemodel/model", "directory of the base model")
	seedList := flag.String("seeds", "1,2,3", "seeds, comma-separated")
	steps := flag.Int("steps", 75, "training steps")
	share := flag.String("budget", "0.30", "cloud budget of the rows that do not change it")
	only := flag.String("only", "", "run the variants whose name contains this")
	parallel := flag.Int("parallel", 2, "trainings side by side, one thread each")
	jsonl := flag.String("jsonl", "", "also append each training's figures to this file")
	flag.Parse()
	if err := run(*base, *seedList, *steps, *share, *only, *jsonl, *parallel); err != nil {
		fmt.Fprintln(os.Stderr, "ablation:", err)
		os.Exit(2)
	}
}

func run(base, seedList string, steps int, share, only, jsonl string, parallel int) error {
	budget, err := gapg.ParseBudget(share)
	if err != nil {
		return err
	}
	var seeds []uint64
	for s := range strings.SplitSeq(seedList, ",") {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return fmt.Errorf("-seeds %q: %w", seedList, err)
		}
		seeds = append(seeds, n)
	}
	var log *os.File
	if jsonl != "" {
		if log, err = os.OpenFile(jsonl, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
			return err
		}
		defer log.Close()
	}
	fmt.Printf("| variant | natural call ratio | overall | solo | help precision | D1 | D2 | D2 kept | without gradient | steps where the cap drops |\n|---|---|---|---|---|---|---|---|---|---|\n")
	// A training uses one thread, so that several run side by side. Rows are
	// printed in order, each as soon as its last training is done.
	type training struct {
		out  outcome
		err  error
		done chan struct{}
	}
	var rows []variant
	var queue []func()
	results := map[string][]*training{}
	for _, v := range variants(budget) {
		if !strings.Contains(v.Name, only) {
			continue
		}
		rows = append(rows, v)
		for _, seed := range seeds {
			t := &training{done: make(chan struct{})}
			results[v.Name] = append(results[v.Name], t)
			queue = append(queue, func() {
				t.out, t.err = train(base, v, seed, steps, budget)
				close(t.done)
			})
		}
	}
	var next atomic.Int64
	for range parallel {
		go func() {
			for i := next.Add(1) - 1; i < int64(len(queue)); i = next.Add(1) - 1 {
				queue[i]()
			}
		}()
	}
	for _, v := range rows {
		var outs []outcome
		for i, t := range results[v.Name] {
			<-t.done
			if t.err != nil {
				return fmt.Errorf("%s, seed %d: %w", v.Name, seeds[i], t.err)
			}
			if log != nil {
				if err := json.NewEncoder(log).Encode(t.out); err != nil {
					return err
				}
			}
			outs = append(outs, t.out)
		}
		row(v.Name, outs)
	}
	return nil
}

// row prints the mean and the range over seeds.
func row(name string, rs []outcome) {
	cell := func(f func(outcome) float64) string {
		lo, hi, sum := f(rs[0]), f(rs[0]), 0.0
		for _, r := range rs {
			x := f(r)
			lo, hi, sum = min(lo, x), max(hi, x), sum+x
		}
		return fmt.Sprintf("%.3f (%.3f–%.3f)", sum/float64(len(rs)), lo, hi)
	}
	fmt.Printf("| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", name,
		cell(func(o outcome) float64 { return o.NaturalRatio }), cell(func(o outcome) float64 { return o.Overall }),
		cell(func(o outcome) float64 { return o.Solo }), cell(func(o outcome) float64 { return o.Precision }),
		cell(func(o outcome) float64 { return o.D1 }), cell(func(o outcome) float64 { return o.D2 }),
		cell(func(o outcome) float64 { return o.D2Kept }), cell(func(o outcome) float64 { return o.WithoutGradient }),
		cell(func(o outcome) float64 { return o.CapBound }))
}

// train makes one training and measures its model on validation problems.
func train(base string, v variant, seed uint64, steps int, budget gapg.Budget) (outcome, error) {
	start, ctx := time.Now(), context.Background()
	out := outcome{Variant: v.Name, Seed: seed}
	be, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		return out, err
	}
	defer be.Close()
	m, err := model.Load(ctx, be, base, model.Options{Trainable: true, MaxRows: 4096})
	if err != nil {
		return out, err
	}
	defer m.Close()
	tok, err := tokenizer.Load(filepath.Join(base, "tokenizer.json"))
	if err != nil {
		return out, err
	}
	universe, err := task.NewUniverse(task.DemoUniverse())
	if err != nil {
		return out, err
	}
	countdown := task.CountdownTask{Compact: true}
	simulated, err := task.SimulatedCloud(cloud.SimulatedConfig{})
	if err != nil {
		return out, err
	}
	desk, err := cloud.NewLedger(simulated, cloud.NewMemory(), cloud.LedgerConfig{Run: "ablation"})
	if err != nil {
		return out, err
	}
	cfg := task.DemoTraining()
	cfg.Budget, cfg.MaxSteps, cfg.Seed = budget, steps, seed
	v.Change(&cfg)
	t, err := gapg.NewTrainer(cfg, gapg.Setup{Model: m, Tokenizer: tok, Task: countdown,
		Prompts: countdown.Prompts(universe.Pass(task.SplitTrain, seed)), Cloud: desk, EndToken: tok.Special().EOS})
	if err != nil {
		return out, err
	}
	defer t.Close()
	for range steps {
		st, err := t.Step(ctx)
		if err != nil {
			return out, err
		}
		n := float64(st.Groups * steps)
		out.D1 += float64(st.D1) / n
		out.D2 += float64(st.D2) / n
		out.D2Kept += float64(st.D2Kept) / n
		out.WithoutGradient += st.FracRewardZeroStd / float64(steps)
		if st.D2Kept < st.D2 {
			out.CapBound += 1 / float64(steps)
		}
		out.MaxLogp = max(out.MaxLogp, st.MaxLogpDifference)
	}
	out.TrainingCloudAsk = t.State().Calls

	problems, err := universe.Distinct(task.SplitValidation, seed, 900)
	if err != nil {
		return out, err
	}
	marker, after, err := task.DemoMarker(tok)
	if err != nil {
		return out, err
	}
	ev := &gapg.Evaluator{Tokenizer: tok, Task: countdown, EndToken: tok.Special().EOS, Marker: marker, MarkerAfter: after, MaxNewTokens: task.DemoEvalTokens}
	prompts := countdown.Prompts(problems)
	records, err := ev.Run(ctx, m, prompts)
	if err != nil {
		return out, err
	}
	calls, failed, right := 0.0, 0.0, 0.0
	for i, r := range records {
		if r.Verdict.Correct {
			out.Solo += 1 / float64(len(records))
		}
		if _, asks := r.AsksAt(0); !asks {
			if r.Verdict.Correct {
				right++
			}
			continue
		}
		calls++
		if !r.Verdict.Correct {
			failed++
		}
		answer, err := simulated.Answer(ctx, cloud.Question{ID: prompts[i].ID, Text: prompts[i].CloudText, Gold: prompts[i].Gold})
		if err != nil {
			return out, err
		}
		if ok, err := countdown.JudgeCloud(ctx, prompts[i], answer.Text); err != nil {
			return out, err
		} else if ok {
			right++
		}
	}
	out.NaturalRatio, out.Overall = calls/float64(len(records)), right/float64(len(records))
	if calls > 0 {
		out.Precision = failed / calls
	}
	out.TrainingSeconds = time.Since(start).Seconds()
	return out, nil
}
