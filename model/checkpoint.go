package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// Files of a checkpoint directory that this package reads and writes.
const (
	ConfigFile    = "config.json"
	WeightsFile   = "model.safetensors"
	OptimizerFile = "optimizer.safetensors"
)

// Load reads a checkpoint directory in Hugging Face's layout (config.json and
// model.safetensors in F32, BF16 or F16) onto be, in the types that o says.
func Load(ctx context.Context, be engine.Backend, dir string, o Options) (*Model, error) {
	cfg, err := ReadConfig(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, WeightsFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(path + ".index.json"); err == nil {
			return nil, fmt.Errorf("model: %s: weights in several files are not supported: merge them into one %s", dir, WeightsFile)
		}
	}
	r, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return load(be, cfg, o, func(m *Model) error { return m.readWeights(ctx, r, path) })
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
// same shape. The optimizer stays as it is.
func (m *Model) LoadWeights(ctx context.Context, dir string) error {
	path := filepath.Join(dir, WeightsFile)
	r, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := m.readWeights(ctx, r, path); err != nil {
		return err
	}
	m.RefreshWeights()
	return m.be.Sync()
}

func (m *Model) readWeights(ctx context.Context, r *checkpoint.Reader, path string) error {
	if err := m.readFrom(ctx, r); err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, p := range m.layout.params {
		known[p.Name] = true
	}
	for _, t := range r.Tensors() {
		// Some exporters write the tied head too.
		if known[t.Name] || t.Name == "lm_head.weight" && m.cfg.TieWordEmbeddings {
			continue
		}
		return fmt.Errorf("model: %s: tensor %q does not belong to a %s model of config.json's shape", path, t.Name, m.cfg.ModelType)
	}
	return nil
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
		t, err := m.state(Weights, p)
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

// Save writes config.json and model.safetensors, in F32, into an existing
// directory, each atomically. checkpoint.WriteDir makes a whole directory atomic.
func (m *Model) Save(ctx context.Context, dir string) error {
	cfg := m.cfg
	cfg.Architectures = []string{architecture(cfg.ModelType)}
	cfg.DType = "float32"
	err := checkpoint.WriteFile(filepath.Join(dir, ConfigFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(cfg)
	})
	if err != nil {
		return err
	}
	var list []saved
	for _, p := range m.layout.params {
		t, err := m.state(Weights, p)
		if err != nil {
			return err
		}
		list = append(list, saved{p.Name, p.Shape(), t})
	}
	return m.write(ctx, filepath.Join(dir, WeightsFile), map[string]string{"format": "pt"}, list)
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
		for _, p := range m.layout.params {
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
