package model

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// Files of a checkpoint directory that this package reads and writes.
const (
	ConfigFile    = "config.json"
	WeightsFile   = checkpoint.WeightsFile
	OptimizerFile = "optimizer.safetensors"
	// GenerationFile is carried from Load to Save as it is.
	GenerationFile = "generation_config.json"
)

// Load reads a checkpoint directory in Hugging Face's layout (config.json and
// model.safetensors, or its shards and their index, in F32, BF16 or F16) onto be,
// in the types that o says. Of an adapter directory in PEFT's layout it reads the
// base model and adds the adapter to its weights.
func Load(ctx context.Context, be engine.Backend, dir string, o Options) (*Model, error) {
	if o.LoRA != nil {
		o.LoRA = o.LoRA.over(dir)
	}
	if IsAdapter(dir) {
		return loadAdapted(ctx, be, dir, o)
	}
	cfg, err := ReadConfig(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, err
	}
	w, err := checkpoint.OpenWeights(dir)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	generation, err := readGeneration(dir)
	if err != nil {
		return nil, err
	}
	m, err := load(be, cfg, o, func(m *Model) error { return m.readWeights(ctx, w) })
	if err != nil {
		return nil, err
	}
	m.generation = generation
	return m, nil
}

// load makes a model and has read fill its weights.
func load(be engine.Backend, cfg Config, o Options, read func(*Model) error) (*Model, error) {
	m, err := allocate(be, cfg, o)
	if err != nil {
		return nil, err
	}
	if err := read(m); err != nil {
		m.Close()
		return nil, err
	}
	if err := m.prepare(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// LoadWeights replaces m's weights by those of a checkpoint directory of the
// same shape, or, with Options.LoRA, its adapters by those of an adapter
// directory. The optimizer stays as it is.
func (m *Model) LoadWeights(ctx context.Context, dir string) error {
	if m.tuning != nil {
		return m.LoadAdapter(ctx, dir)
	}
	w, err := checkpoint.OpenWeights(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := m.readWeights(ctx, w); err != nil {
		return err
	}
	m.RefreshWeights()
	return m.be.Sync()
}

func (m *Model) readWeights(ctx context.Context, w *checkpoint.Weights) error {
	if err := m.readFrom(ctx, w); err != nil {
		return err
	}
	return checkNames(w, &m.cfg)
}

// readFrom uploads every parameter from s.
func (m *Model) readFrom(ctx context.Context, s weightSource) error {
	var buf []float32
	for _, p := range m.layout.params {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = grown(buf, p.len())
		if err := s.ReadF32(p.Name, p.Shape(), buf); err != nil {
			return err
		}
		t, err := m.source(p)
		if err != nil {
			return err
		}
		m.be.UploadF32(t, buf)
	}
	return nil
}

// grown returns a slice of n elements in buf's memory where that suffices.
func grown[T any](buf []T, n int) []T {
	if cap(buf) < n {
		buf = make([]T, n)
	}
	return buf[:n]
}

// Save writes the model in F32: SaveAs without options.
func (m *Model) Save(ctx context.Context, dir string) error {
	return m.SaveAs(ctx, dir, SaveOptions{})
}

// SaveAs writes config.json and the weights into an existing directory, each file
// atomically, and the generation_config.json that Load found.
// checkpoint.WriteDir makes a whole directory atomic.
func (m *Model) SaveAs(ctx context.Context, dir string, o SaveOptions) error {
	return m.stored().save(ctx, dir, o)
}

// SaveGGUF writes the model as a GGUF file: matrices as dtype (F32, F16, BF16 or
// Q8_0), norms and biases as F32. extra is further metadata, the tokenizer's
// above all.
func (m *Model) SaveGGUF(ctx context.Context, path, dtype string, extra []checkpoint.GGUFValue) error {
	return m.stored().saveGGUF(ctx, path, dtype, extra)
}

// stored is the model as something to write.
func (m *Model) stored() *stored {
	return &stored{cfg: m.cfg, generation: m.generation, read: func(p Param, v []float32) error {
		t, err := m.state(Weights, p)
		if err != nil {
			return err
		}
		return m.be.Wait(m.be.DownloadF32(v, t))
	}}
}

// Names in optimizer.safetensors: each parameter's moments under its own name
// with a prefix. Where they are codes, codesPrefix follows it, and the scales of
// all matrices' blocks, which are counted from the first element of the first
// matrix, are one tensor.
const (
	momentPrefix1 = "exp_avg."
	momentPrefix2 = "exp_avg_sq."
	codesPrefix   = "codes."
	scalesName    = "scales"

	optimizerFormat  = "updraft-optimizer-1"
	optimizerFormat8 = "updraft-optimizer-8bit-1"
)

// saved is a tensor of a file.
type saved struct {
	name  string
	shape []int
	at    engine.Tensor
}

// optimizerState lists the tensors of both moments.
func (m *Model) optimizerState() (format string, list []saved) {
	format = optimizerFormat
	for i, s := range []*moment{&m.moment1, &m.moment2} {
		prefix := []string{momentPrefix1, momentPrefix2}[i]
		for _, p := range m.trained.params {
			name := prefix + p.Name
			if p.off < s.from {
				name = prefix + codesPrefix + p.Name
			}
			t, _ := s.view(p.off, p.off+p.len())
			list = append(list, saved{name, p.Shape(), t})
		}
		if s.from > 0 {
			format = optimizerFormat8
			n := momentBlocks(s.from)
			list = append(list, saved{prefix + scalesName, []int{n}, engine.Vector(s.scales, 0, n)})
		}
	}
	return format, list
}

// SaveOptimizer writes Adam's moments and the number of steps taken.
func (m *Model) SaveOptimizer(ctx context.Context, path string) error {
	if !m.opts.Trainable {
		return errNotTrainable
	}
	format, list := m.optimizerState()
	return m.write(ctx, path, map[string]string{"format": format, "step": strconv.Itoa(m.steps)}, list)
}

// write streams tensors into one file.
func (m *Model) write(ctx context.Context, path string, meta map[string]string, list []saved) error {
	var infos []checkpoint.Info
	for _, s := range list {
		dtype := "F32"
		if s.at.Buf.DType() == engine.U8 {
			dtype = "U8"
		}
		infos = append(infos, checkpoint.Info{Name: s.name, Shape: s.shape, DType: dtype})
	}
	w, err := checkpoint.Create(path, infos, meta)
	if err != nil {
		return err
	}
	defer w.Abort()
	var floats []float32
	var codes []int32
	for i, s := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		var ticket engine.Ticket
		if infos[i].DType == "U8" {
			codes = grown(codes, s.at.Len())
			ticket = m.be.DownloadI32(codes, s.at)
		} else {
			floats = grown(floats, s.at.Len())
			ticket = m.be.DownloadF32(floats, s.at)
		}
		if err := m.be.Wait(ticket); err != nil {
			return fmt.Errorf("model: %s: %w", path, err)
		}
		if infos[i].DType == "U8" {
			err = w.WriteU8(s.name, codes)
		} else {
			err = w.WriteF32(s.name, floats)
		}
		if err != nil {
			return err
		}
	}
	return w.Commit()
}

// LoadOptimizer reads what SaveOptimizer wrote, from a model with the same
// Options.Moments.
func (m *Model) LoadOptimizer(ctx context.Context, path string) error {
	if !m.opts.Trainable {
		return errNotTrainable
	}
	r, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	format, list := m.optimizerState()
	got := r.Metadata()["format"]
	step, err := strconv.Atoi(r.Metadata()["step"])
	if err != nil || step < 0 || got != optimizerFormat && got != optimizerFormat8 {
		return fmt.Errorf("model: %s: not an optimizer state of Updraft's: its metadata has no format and step", path)
	}
	if got != format {
		kinds := map[string]string{optimizerFormat: "float32", optimizerFormat8: "8-bit"}
		return fmt.Errorf("model: %s: %s moments, where this run has %s ones: go on with the optimizer that the run began with", path, kinds[got], kinds[format])
	}
	if got, want := len(r.Tensors()), len(list); got != want {
		return fmt.Errorf("model: %s: %d tensors where this model has %d: it belongs to another model", path, got, want)
	}
	m.clearCodes(Moment1)
	m.clearCodes(Moment2)
	var floats []float32
	var codes []int32
	for _, s := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.at.Buf.DType() == engine.U8 {
			codes = grown(codes, s.at.Len())
			if err := r.ReadU8(s.name, s.shape, codes); err != nil {
				return err
			}
			m.be.UploadI32(s.at, codes)
			continue
		}
		floats = grown(floats, s.at.Len())
		if err := r.ReadF32(s.name, s.shape, floats); err != nil {
			return err
		}
		m.be.UploadF32(s.at, floats)
	}
	m.steps = step
	return nil
}
