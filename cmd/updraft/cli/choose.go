package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/engine/gpu"
	"github.com/updraft-ml/updraft/model"
)

// deviceFlags choose where a command computes.
type deviceFlags struct {
	device  string
	threads int

	// What fits may advise: tokens of the longest sequence, which are at least as
	// many as a forward must hold, where the model's context is not; and that a model
	// is new.
	longest int
	fresh   bool
	// How a model that is trained is evaluated meanwhile; nil: not at all.
	evaluates *model.SchedulerOptions
}

// register adds the flags; device is the default of --device.
func (d *deviceFlags) register(fs *pflag.FlagSet, device string) {
	d.device = device
	fs.Var((*deviceValue)(&d.device), "device", "where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N")
	fs.IntVar(&d.threads, "threads", 0, "threads of the CPU device; 0: one per core")
}

const (
	deviceAuto = "auto"
	deviceCPU  = "cpu"
	deviceCUDA = "cuda"
)

// deviceValue is the value of --device.
type deviceValue string

func (v *deviceValue) String() string { return string(*v) }
func (v *deviceValue) Type() string   { return "name" }

func (v *deviceValue) Set(s string) error {
	names := []string{deviceAuto, deviceCPU, deviceCUDA}
	if s != deviceAuto && s != deviceCPU {
		if _, ok := cudaNumber(s); !ok {
			return fmt.Errorf("must be auto, cpu, cuda or cuda:N with N from 0%s", hint(s, names))
		}
	}
	*v = deviceValue(s)
	return nil
}

// cudaNumber returns the device that cuda or cuda:N means.
func cudaNumber(s string) (int, bool) {
	if s == deviceCUDA {
		return 0, true
	}
	digits, ok := strings.CutPrefix(s, deviceCUDA+":")
	n, err := strconv.Atoi(digits)
	return n, ok && err == nil && n >= 0 && digits == strconv.Itoa(n)
}

// device is a backend with what must be said about it.
type device interface {
	engine.Backend
	Close() error
	Name() string
}

// open starts the device of --device. What auto has chosen is logged, and why.
func (d *deviceFlags) open(a *app) (device, error) {
	switch d.device {
	case deviceCPU:
		return d.openCPU(a)
	case deviceAuto:
		be, why := openAnyGPU(a.log)
		if be != nil {
			a.log.Info("computing on the GPU", "device", be.Name(), "why", why)
			return be, nil
		}
		cpu, err := d.openCPU(a)
		if err == nil {
			a.log.Info("computing on the CPU", "device", cpu.Name(), "why", why)
		}
		return cpu, err
	}
	n, _ := cudaNumber(d.device)
	be, err := gpu.New(gpu.Options{Device: n, Logger: a.log})
	if err != nil {
		return nil, inputf("--device %s: %w", d.device, err)
	}
	return be, nil
}

func (d *deviceFlags) openCPU(a *app) (device, error) {
	be, err := cpu.New(cpu.Options{Threads: d.threads, Logger: a.log})
	if err != nil {
		return nil, inputf("--threads %d: %w", d.threads, err)
	}
	return be, nil
}

// openAnyGPU starts the first GPU that can be used, and says why it was chosen, or
// why none was. Where there seems to be one that cannot be used, it warns.
func openAnyGPU(log *slog.Logger) (be *gpu.Backend, why string) {
	drv, err := cuda.Open()
	if err != nil {
		var none *cuda.UnavailableError
		if errors.As(err, &none) {
			if none.DeviceVisible {
				log.Warn("an NVIDIA device is there and cannot be used", "reason", none.Reason, "remedy", none.Remedy)
			}
			return nil, "no GPU can be used: " + none.Reason
		}
		return nil, oneLine(err)
	}
	n, err := drv.DeviceCount()
	if err != nil {
		return nil, oneLine(err)
	}
	for i := range n {
		be, err := gpu.New(gpu.Options{Device: i, Driver: drv, Logger: log})
		if err == nil {
			return be, fmt.Sprintf("device %d of %d is the first that can be used; --device names another", i, n)
		}
		log.Warn("a GPU cannot be used", "reason", oneLine(err))
	}
	return nil, "no GPU can be used; the warnings say why"
}
