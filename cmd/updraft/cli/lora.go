package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/model"
)

// loraFlags choose between training a model and training adapters of it, under
// TRL's names.
type loraFlags struct {
	use     bool
	r       int
	alpha   float64
	targets []string
}

func (l *loraFlags) register(fs *pflag.FlagSet) {
	fs.BoolVar(&l.use, "use-peft", false, "train LoRA adapters, and not the model: its weights, gradients and moments shrink to the adapters'; checkpoints hold them in PEFT's layout, final the merged model")
	fs.IntVar(&l.r, "lora-r", 16, "rank of the adapters")
	fs.Float64Var(&l.alpha, "lora-alpha", 32, "adapters are scaled by alpha/r")
	fs.StringSliceVar(&l.targets, "lora-target-modules", []string{"q_proj", "v_proj"},
		fmt.Sprintf("matrices to adapt, of %s, or %s", orList(model.LoRAModules()), model.AllLinear))
}

// options returns what to train; nil: the model itself.
func (l *loraFlags) options(fs *pflag.FlagSet, seed uint64) (*model.LoRA, error) {
	if !l.use {
		for _, name := range []string{"lora-r", "lora-alpha", "lora-target-modules"} {
			if f := fs.Lookup(name); f.Changed && f.Value.String() != f.DefValue {
				return nil, inputf("--%s without --use-peft: set it too, or leave both out", name)
			}
		}
		return nil, nil
	}
	o := &model.LoRA{R: l.r, Alpha: l.alpha, TargetModules: l.targets, Seed: seed}
	switch {
	case l.r < 1:
		return nil, inputf("--lora-r %d: must be at least 1", l.r)
	case !(l.alpha > 0):
		return nil, inputf("--lora-alpha %g: must be above 0", l.alpha)
	case len(l.targets) == 0:
		return nil, inputf("--lora-target-modules is empty; name matrices to adapt, or %s", model.AllLinear)
	}
	if err := o.Check(); err != nil {
		return nil, inputf("--lora-target-modules: %w", err)
	}
	return o, nil
}
