package cli

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/gpu"
	"github.com/updraft-ml/updraft/model"
)

// hostWork is about what a run takes on the CPU besides what is planned: the
// scratch memory of the head (some 16 MiB), the program itself, and a few
// copies of the largest tensor, on its way from or to a file.
func hostWork(cfg model.Config) uint64 {
	return 144<<20 + 3*uint64(engine.F32.Size())*uint64(cfg.HiddenSize)*uint64(max(cfg.VocabSize, cfg.IntermediateSize))
}

// hostMemory returns the bytes of the machine's memory that a new program can have
// and of all of it: what Linux says is available, and no more than the control
// group allows. Where neither is known, ok is false.
func hostMemory() (available, total uint64, ok bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, false
	}
	available, total, ok = parseMeminfo(string(text))
	number := func(path string) (uint64, bool) {
		text, err := os.ReadFile("/sys/fs/cgroup/" + path)
		n, perr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil && perr == nil // "max" is no number
	}
	limit, limited := number("memory.max")
	used, known := number("memory.current")
	if ok && limited && known {
		stat, _ := os.ReadFile("/sys/fs/cgroup/memory.stat")
		available, total = min(available, groupRoom(limit, used, string(stat))), min(total, limit)
	}
	return available, total, ok
}

// parseMeminfo reads MemAvailable and MemTotal of /proc/meminfo.
func parseMeminfo(text string) (available, total uint64, ok bool) {
	found := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 54)
		switch {
		case err != nil:
		case f[0] == "MemAvailable:":
			available, found = n<<10, found+1
		case f[0] == "MemTotal:":
			total, found = n<<10, found+1
		}
	}
	return available, total, found == 2
}

// groupRoom is what a control group has left: its limit less what is in use, of
// which the files' pages that nobody has used lately are given up first.
func groupRoom(limit, used uint64, stat string) uint64 {
	for line := range strings.Lines(stat) {
		if n, ok := strings.CutPrefix(line, "inactive_file "); ok {
			if idle, err := strconv.ParseUint(strings.TrimSpace(n), 10, 64); err == nil {
				used -= min(used, idle)
			}
		}
	}
	return limit - min(limit, used)
}

// room returns the memory that a run on be can have, and all of the device's; ok is
// false where nobody knows.
func room(be device) (free, total uint64, ok bool, err error) {
	if g, ok := be.(*gpu.Backend); ok {
		free, total, err = g.Memory()
		return free, total, err == nil, err
	}
	free, total, ok = hostMemory()
	return free, total, ok, nil
}

// need is what a run takes, and what of it could be changed.
type need struct {
	cfg     model.Config
	o       model.Options
	so      *model.SchedulerOptions // how the model generates; nil: it does not
	others  uint64                  // plans besides: of a reference model, which adapters make needless
	eval    *model.SchedulerOptions // of evaluations in between; nil: none
	gpu     bool
	bf16    bool // the device can compute with it
	longest int  // tokens of the longest sequence; 0: the model's context
	fresh   bool // a new model, which has nothing to adapt
}

func (n *need) bytes() uint64 {
	b := uint64(n.plan(n.so).Bytes())
	if n.o.LoRA == nil {
		b += n.others
	}
	if n.eval != nil {
		b += uint64(n.plan(n.eval).Bytes() - n.plan(nil).Bytes())
	}
	if !n.gpu {
		return b + hostWork(n.cfg)
	}
	var decoding gpu.Decoding
	if n.so != nil {
		decoding = gpu.Decoding{Batch: n.so.MaxBatch, Tokens: n.so.MaxTokens, Heads: n.cfg.NumAttentionHeads, KVHeads: n.cfg.NumKeyValueHeads,
			Dim: n.cfg.HeadDim, Weights: n.o.Weights}
	}
	return b + gpu.WorkMemory(decoding)
}

// plan plans the model and a scheduler over it, unless so is nil.
func (n *need) plan(so *model.SchedulerOptions) model.Plan {
	return model.NewPlan(n.cfg, activations(n.gpu, n.o.Weights), n.o, so)
}

// activations returns the type of activations beside weights of type w, on a GPU or
// on the CPU: what Backend.Precision says there.
func activations(gpu bool, w engine.DType) engine.DType {
	if gpu {
		return w
	}
	return engine.F32
}

// planOn plans a model on be and a scheduler over it, unless so is nil.
func planOn(be device, cfg model.Config, o model.Options, so *model.SchedulerOptions) model.Plan {
	return model.NewPlan(cfg, activations(onGPU(be), o.Weights), o, so)
}

// evaluation is what evaluations in between take.
func evaluation(be device, cfg model.Config, o model.Options, so *model.SchedulerOptions) model.PlanItem {
	return model.PlanItem{Name: "evaluation", Bytes: planOn(be, cfg, o, so).Bytes() - planOn(be, cfg, o, nil).Bytes()}
}

// lever is a flag that makes a run take less.
type lever struct {
	flag  string
	apply func(n *need)
}

// levers lists what can be set and is not. The first ones change how a run is
// computed; the last changes the run.
func (n *need) levers() (how []lever, last *lever) {
	longest := n.longest
	if longest == 0 {
		longest = n.cfg.MaxPositionEmbeddings
	}
	if n.o.MaxRows > longest {
		how = append(how, lever{fmt.Sprintf("--micro-batch-tokens %d", longest), func(n *need) { n.o.MaxRows = longest }})
	}
	if n.bf16 && n.o.Weights == engine.F32 {
		how = append(how, lever{"--dtype " + dtypeBF16, func(n *need) { n.o.Weights = engine.BF16 }})
	}
	if n.o.Trainable {
		if !n.o.Recompute {
			how = append(how, lever{"--gradient-checkpointing", func(n *need) { n.o.Recompute = true }})
		}
		if n.o.Moments == engine.F32 {
			how = append(how, lever{"--optim " + optimAdamW8, func(n *need) { n.o.Moments = engine.U8 }})
		}
		if n.o.LoRA == nil && !n.fresh {
			how = append(how, lever{"--use-peft", func(n *need) { n.o.LoRA = &model.LoRA{} }})
		}
	}
	if n.so != nil && n.so.MaxBatch > 8 {
		fewer := n.so.MaxBatch / 4
		last = &lever{fmt.Sprintf("%d responses at once", fewer), func(n *need) {
			so := *n.so
			so.MaxBatch = fewer
			n.so = &so
		}}
	}
	return how, last
}

// advise says what to set so that the run takes at most free bytes: first what
// saves most.
func (n *need) advise(free uint64) string {
	var set []string
	now, lowered := *n, -1 // where in set the number of responses stands
	for now.bytes() > free {
		how, last := now.levers()
		best, least, flag := now, now.bytes(), ""
		for _, l := range how {
			try := now
			if l.apply(&try); try.bytes() < least {
				best, least, flag = try, try.bytes(), l.flag
			}
		}
		// What saves less than a fiftieth is not worth its mention.
		if flag == "" || least > now.bytes()-now.bytes()/50 {
			if last == nil {
				break
			}
			best, flag = now, last.flag
			if last.apply(&best); best.bytes() >= now.bytes() {
				break
			}
			if lowered >= 0 {
				now, set[lowered] = best, flag
				continue
			}
			lowered = len(set)
		}
		now, set = best, append(set, flag)
	}
	text := strings.Join(set, ", ")
	switch {
	case now.bytes() <= free:
		return fmt.Sprintf("with %s it takes %s", text, bytesText(int64(now.bytes())))
	case len(set) == 0:
		return "take a smaller model or shorter sequences"
	}
	return fmt.Sprintf("even with %s it takes %s; take a smaller model or shorter sequences", text, bytesText(int64(now.bytes())))
}

// fits refuses plans that the device has too little memory for together, before
// anything is allocated, and says what to change. so, unless nil, is how the model
// of cfg and o generates; its plan is the first.
func (d *deviceFlags) fits(be device, cfg model.Config, o model.Options, so *model.SchedulerOptions, plans ...model.Plan) error {
	free, total, ok, err := room(be)
	if err != nil || !ok {
		return err
	}
	_, unsupported := be.Precision(engine.BF16)
	n := &need{cfg: cfg, o: o, so: so, gpu: onGPU(be), bf16: unsupported == nil, eval: d.evaluates, longest: d.longest, fresh: d.fresh}
	for i, p := range plans {
		if i > 0 {
			n.others += uint64(p.Bytes())
		}
	}
	if n.bytes() <= free {
		return nil
	}
	elsewhere := ""
	if n.gpu {
		elsewhere = "; or end other programs on the device, or take --device cpu"
	}
	var most model.PlanItem
	for _, p := range plans {
		for _, it := range p.Items {
			if it.Bytes > most.Bytes {
				most = it
			}
		}
	}
	return inputf("--device %s: the run takes %s and %s of %s are free on %s; most goes to %s (%s): %s%s",
		d.device, bytesText(int64(min(n.bytes(), math.MaxInt64))), bytesText(int64(free)), bytesText(int64(total)), be.Name(), most.Name, bytesText(most.Bytes), n.advise(free), elsewhere)
}
