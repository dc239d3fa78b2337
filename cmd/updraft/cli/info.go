package cli

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/spf13/cobra"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/gpu"
	"github.com/updraft-ml/updraft/model"
)

// infoFlags are the settings of updraft info: what a memory plan needs.
type infoFlags struct {
	model                           string
	generations, prompts, maxLength int
	micro                           int
	train                           bool
	deviceFlags
	precisionFlags
	lora loraFlags
}

func (a *app) info() *cobra.Command {
	var f infoFlags
	cmd := &cobra.Command{
		Use:   "info",
		Short: "Show the version, devices, chosen kernels and, for a model, the memory plan",
		Long: `Info shows what this program is and what it would compute with: the CPU's features
and the kernels chosen from them, GPUs or why none can be used, and with --model the
memory that a training or a generation of that model takes. Nothing is allocated.
(updraft train --dry-run shows the plan of a whole configuration.)`,
		Example: `  updraft info
  updraft info --model runs/base --num-generations 16 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runInfo(cmd, &f) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.model, "model", "", "model whose memory is forGPU: "+modelHelp)
	fs.BoolVar(&f.train, "train", true, "plan a training; false: generation alone")
	fs.IntVar(&f.generations, "num-generations", 8, "responses per prompt")
	fs.IntVar(&f.prompts, "prompts-per-step", 32, "prompts per step")
	fs.IntVar(&f.maxLength, "max-position-embeddings", 0, "longest sequence in tokens; 0: the model's context")
	fs.IntVar(&f.micro, "micro-batch-tokens", 4096, "packed tokens of one forward and backward")
	f.deviceFlags.register(fs, deviceAuto)
	f.registerType(fs)
	f.registerOptim(fs)
	f.lora.register(fs)
	return cmd
}

// infoJSON is what updraft info --json prints.
type infoJSON struct {
	version
	CPU struct {
		Name     string   `json:"name"`
		Cores    int      `json:"cores"`
		Threads  int      `json:"threads"`
		Features []string `json:"features"`
		Backend  string   `json:"backend"`
	} `json:"cpu"`
	GPUs      []gpuJSON        `json:"gpus"`
	WhyNoGPU  string           `json:"why_no_gpu,omitempty"`
	Model     string           `json:"model,omitempty"`
	Weights   int64            `json:"parameters,omitempty"`
	Memory    map[string]int64 `json:"memory,omitempty"`
	MemorySum int64            `json:"memory_bytes,omitempty"`
	Room      int64            `json:"memory_available_bytes,omitempty"` // on the device
	Advice    string           `json:"memory_advice,omitempty"`
}

// gpuJSON is one GPU and what would compute on it.
type gpuJSON struct {
	cuda.DeviceInfo
	Kernels string `json:"kernels"`
	WhyNot  string `json:"why_not,omitempty"` // where it cannot be used
}

// interesting are the features that kernels exist or are forGPU for.
var interesting = []cpuid.FeatureID{cpuid.SSE2, cpuid.AVX, cpuid.AVX2, cpuid.FMA3, cpuid.F16C, cpuid.AVX512F, cpuid.AVX512BW,
	cpuid.AVX512VL, cpuid.AVX512BF16, cpuid.AVX512VNNI, cpuid.AMXBF16, cpuid.ASIMD, cpuid.ASIMDHP, cpuid.ASIMDDP, cpuid.SVE}

func (a *app) runInfo(cmd *cobra.Command, f *infoFlags) error {
	info := infoJSON{version: buildVersion(), GPUs: []gpuJSON{}}
	info.CPU.Name, info.CPU.Cores, info.CPU.Threads = cpuid.CPU.BrandName, cpuid.CPU.PhysicalCores, runtime.NumCPU()
	info.CPU.Features = []string{}
	for _, id := range interesting {
		if cpuid.CPU.Supports(id) {
			info.CPU.Features = append(info.CPU.Features, id.String())
		}
	}
	slices.Sort(info.CPU.Features)
	be, err := cpu.New(cpu.Options{Threads: f.threads})
	if err != nil {
		return inputf("--threads %d: %w", f.threads, err)
	}
	info.CPU.Backend = be.Name()
	if err := be.Close(); err != nil {
		return err
	}
	devices, err := cuda.Probe()
	var none *cuda.UnavailableError
	switch {
	case errors.As(err, &none):
		info.WhyNoGPU = none.Error()
	case err != nil:
		info.WhyNoGPU = oneLine(err)
	default:
		for _, d := range devices {
			g := gpuJSON{DeviceInfo: d}
			if g.Kernels, err = gpu.Kernels(d); err != nil {
				g.WhyNot = oneLine(err)
			}
			info.GPUs = append(info.GPUs, g)
		}
	}
	var plan model.Plan
	if f.model != "" {
		for _, x := range []struct {
			flag  string
			value int
		}{{"num-generations", f.generations}, {"prompts-per-step", f.prompts}, {"micro-batch-tokens", f.micro}} {
			if x.value < 1 {
				return inputf("--%s %d: must be at least 1", x.flag, x.value)
			}
		}
		src, err := a.openSource(cmd.Context(), "model", f.model)
		if err != nil {
			return err
		}
		context := src.cfg.MaxPositionEmbeddings
		if f.maxLength < 0 || f.maxLength > context {
			return inputf("--max-position-embeddings %d: must be from 1 to the model's %d", f.maxLength, context)
		}
		if f.maxLength > 0 {
			context = f.maxLength
		}
		batch := f.generations * f.prompts
		o := model.Options{MaxContext: context}
		if f.train {
			o.Trainable, o.MaxRows = true, rows(f.micro, context, batch*context)
		}
		usable := slices.IndexFunc(info.GPUs, func(g gpuJSON) bool { return g.WhyNot == "" })
		there := usable >= 0
		// A GPU that is named is planned for where there is none, too.
		forGPU := f.device != deviceCPU && (f.device != deviceAuto || there)
		o = f.types(forGPU, o)
		if f.train {
			if o.LoRA, err = f.lora.options(cmd.Flags(), 1); err != nil {
				return err
			}
		}
		so := &model.SchedulerOptions{MaxBatch: batch, MaxTokens: context}
		n := &need{cfg: src.cfg, o: o, so: so, bf16: true, gpu: forGPU, longest: context}
		free, _, known := hostMemory()
		if forGPU {
			if known = there; there {
				free = info.GPUs[usable].Memory
			}
		}
		plan = n.plan(so)
		if known {
			info.Room = int64(free)
			if info.Advice = "fits"; n.bytes() > free {
				info.Advice = "does not fit: " + n.advise(free)
			}
		}
		info.Model, info.Weights, info.MemorySum, info.Memory = src.dir, src.cfg.NumParameters(), plan.Bytes(), map[string]int64{}
		for _, it := range plan.Items {
			info.Memory[it.Name] = it.Bytes
		}
	}
	out := cmd.OutOrStdout()
	if a.json {
		return printJSON(out, info)
	}
	fmt.Fprintf(out, "updraft %s, %s %s/%s\n", info.version, info.Go, info.OS, info.Arch)
	fmt.Fprintf(out, "CPU      %s, %d cores, %d threads\n", info.CPU.Name, info.CPU.Cores, info.CPU.Threads)
	fmt.Fprintf(out, "features %s\n", strings.Join(info.CPU.Features, " "))
	fmt.Fprintf(out, "kernels  %s\n", info.CPU.Backend)
	for _, g := range info.GPUs {
		uses := g.Kernels
		if g.WhyNot != "" {
			uses = g.WhyNot
		} else if g.Exclusive {
			uses += "; one process at a time"
		}
		fmt.Fprintf(out, "GPU      %s; %s\n", g.DeviceInfo, uses)
	}
	if info.WhyNoGPU != "" {
		fmt.Fprintf(out, "GPU      none: %s\n", info.WhyNoGPU)
	}
	if f.model != "" {
		fmt.Fprintf(out, "model    %s, %d parameters\nmemory   %s\n", info.Model, info.Weights, strings.Join(planLines(plan), "\n         "))
		if info.Advice != "" {
			fmt.Fprintf(out, "device   %s available: %s\n", bytesText(info.Room), info.Advice)
		}
	}
	return nil
}
