package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/gpu"
	"github.com/updraft-ml/updraft/model"
)

// Values of --dtype and --optim.
const (
	dtypeAuto = "auto"
	dtypeF32  = "float32"
	dtypeBF16 = "bfloat16"

	optimAdamW  = "adamw"
	optimAdamW8 = "adamw-8bit"
)

// precisionFlags choose the types that a model computes with and, where it is
// trained, that its optimizer keeps moments in.
type precisionFlags struct {
	dtype, optim string
	recompute    bool
}

// registerType adds --dtype.
func (p *precisionFlags) registerType(fs *pflag.FlagSet) {
	fs.Var(newChoice(&p.dtype, dtypeAuto, dtypeAuto, dtypeF32, dtypeBF16), "dtype",
		"type of the matrices: float32, bfloat16 (with float32 sums and, in training, float32 masters; on the CPU activations stay float32), or auto: bfloat16 on a GPU, float32 on the CPU")
	bf16 := fs.VarPF((*bf16Value)(&p.dtype), spellingBF16, "", "alias of --dtype bfloat16")
	bf16.NoOptDefVal, bf16.Hidden = "true", true
}

// registerOptim adds what a training spends its memory on: --optim and
// --gradient-checkpointing.
func (p *precisionFlags) registerOptim(fs *pflag.FlagSet) {
	fs.Var(optimValue{newChoice(&p.optim, optimAdamW, optimAdamW, optimAdamW8)}, "optim",
		"optimizer: adamw, or adamw-8bit, whose moments take a quarter of the memory")
	fs.BoolVar(&p.recompute, "gradient-checkpointing", false, "keep fewer activations and compute them once more: less memory, the same result")
}

// spellingBF16 is TRL's switch for what is --dtype bfloat16 here. It is read from
// configurations and never written to them.
const spellingBF16 = "bf16"

// bf16Value sets --dtype. False asks for nothing in particular.
type bf16Value string

func (v *bf16Value) String() string   { return strconv.FormatBool(*v == dtypeBF16) }
func (v *bf16Value) Type() string     { return "bool" }
func (v *bf16Value) IsBoolFlag() bool { return true }

func (v *bf16Value) Set(s string) error {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("must be true or false")
	}
	if on {
		*v = dtypeBF16
	}
	return nil
}

// optimValue also takes the names that transformers has for the two.
type optimValue struct{ *choice }

func (v optimValue) Set(s string) error {
	switch strings.ReplaceAll(s, "_", "-") {
	case "adamw-torch", "adamw-torch-fused":
		s = optimAdamW
	case "adamw-8bit", "adamw-bnb-8bit":
		s = optimAdamW8
	}
	return v.choice.Set(s)
}

// onGPU reports whether be is a GPU.
func onGPU(be engine.Backend) bool {
	_, ok := be.(*gpu.Backend)
	return ok
}

// choose fills in the types of o for a device. What auto stands for is from then
// on what --dtype says, so that a run's configuration holds it.
func (p *precisionFlags) choose(be device, o model.Options) (model.Options, error) {
	o = p.types(onGPU(be), o)
	if _, err := be.Precision(o.Weights); err != nil {
		return o, inputf("--dtype %s: %s does not compute with it; take --dtype %s or another --device", p.dtype, be.Name(), dtypeF32)
	}
	return o, nil
}

// types fills in the types of o, on a GPU or elsewhere.
func (p *precisionFlags) types(gpu bool, o model.Options) model.Options {
	if p.dtype == dtypeAuto {
		if p.dtype = dtypeF32; gpu {
			p.dtype = dtypeBF16
		}
	}
	if p.dtype == dtypeBF16 {
		o.Weights = engine.BF16
	}
	if o.Trainable {
		o.Recompute = p.recompute
		if p.optim == optimAdamW8 {
			o.Moments = engine.U8
		}
	}
	return o
}
