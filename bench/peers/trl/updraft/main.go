//go:build linux

// Command updraft measures what ../grpo.py measures of TRL: the time and the memory of a whole training step for a model of
// random weights in SmolLM2-135M's shape, float32, on the CPU.
//
//	go run ./bench/peers/trl/updraft > updraft.json
//
// The fields of its output are those of grpo.py's.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/updraft-ml/updraft/bench"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/model"
)

type result struct {
	Threads               int       `json:"threads"`
	Prompts               int       `json:"prompts"`
	Generations           int       `json:"generations"`
	Length                int       `json:"length"`
	PromptLength          int       `json:"prompt_length"`
	Micro                 int       `json:"micro_batch_tokens"`
	GradientCheckpointing bool      `json:"gradient_checkpointing"`
	Parameters            int64     `json:"parameters"`
	Seconds               []float64 `json:"seconds"`
	MedianSeconds         float64   `json:"median_seconds"`
	PeakRSS               int64     `json:"peak_rss"`
}

func main() {
	steps := flag.Int("steps", 3, "counted steps, after one that is not")
	micro := flag.Int("micro-batch-tokens", 2560, "packed tokens of one forward and backward: those of TRL's 8 responses")
	recompute := flag.Bool("gradient-checkpointing", false, "compute activations again in the backward pass: less memory, more time")
	shape := flag.String("shape", bench.SmolLM2, "model: "+bench.SmolLM2+" or "+bench.Tiny)
	threads := flag.Int("threads", 2, "threads that compute")
	flag.Parse()
	step := bench.GAPGStep{Prompts: 8, Group: 8, Length: 64, Completion: 256}
	r, err := measure(step, *shape, *steps, *threads, model.Options{MaxRows: *micro, Recompute: *recompute})
	if err == nil {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", " ")
		err = out.Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func measure(step bench.GAPGStep, shape string, steps, threads int, o model.Options) (*result, error) {
	shapes := bench.Shapes()
	i := slices.IndexFunc(shapes, func(s bench.Shape) bool { return s.Name == shape })
	if i < 0 || steps < 1 {
		return nil, fmt.Errorf("no shape %q, or no steps", shape)
	}
	config := shapes[i].Config
	be, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	defer be.Close()
	o.Trainable, o.MaxContext = true, step.Length+step.Completion
	m, err := model.New(be, config, 1, o)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	t, err := step.NewTrainer(m, rand.New(rand.NewPCG(1, 1)))
	if err != nil {
		return nil, err
	}
	defer t.Close()
	r := &result{Threads: threads, Prompts: step.Prompts, Generations: step.Group, Length: step.Completion, PromptLength: step.Length,
		Micro: o.MaxRows, GradientCheckpointing: o.Recompute, Parameters: config.NumParameters()}
	for range steps + 1 {
		start := time.Now()
		st, err := t.Step(context.Background())
		if err == nil {
			err = step.Check(st)
		}
		if err != nil {
			return nil, err
		}
		r.Seconds = append(r.Seconds, time.Since(start).Seconds())
	}
	r.Seconds = r.Seconds[1:]
	sorted := slices.Sorted(slices.Values(r.Seconds))
	r.MedianSeconds = (sorted[(steps-1)/2] + sorted[steps/2]) / 2
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return nil, err
	}
	r.PeakRSS = usage.Maxrss << 10
	return r, nil
}
