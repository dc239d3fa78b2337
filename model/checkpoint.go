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
// model.safetensors; BF16 and F16 weights are widened) onto be.
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
	m, err := allocate(be, cfg, o)
	if err != nil {
		return nil, err
	}
	if err := m.readWeights(ctx, r, path); err != nil {
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
	known := make(map[string]bool)
	var buf []float32
	for _, p := range m.layout.params {
		if err := ctx.Err(); err != nil {
			return err
		}
		known[p.Name] = true
		buf = grown(buf, p.len())
		if err := r.ReadF32(p.Name, p.Shape(), buf); err != nil {
			return err
		}
		m.be.UploadF32(engine.Vector(m.weights, p.off, p.len()), buf)
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

// grown returns a slice of n elements in buf's memory where that suffices.
func grown(buf []float32, n int) []float32 {
	if cap(buf) < n {
		buf = make([]float32, n)
	}
	return buf[:n]
}

// Save writes config.json and model.safetensors into an existing directory,
// each atomically. checkpoint.WriteDir makes a whole directory atomic.
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
	return m.write(ctx, filepath.Join(dir, WeightsFile), map[string]string{"format": "pt"}, []Role{Weights}, []string{""})
}

// Prefixes of the moments' names in optimizer.safetensors.
const (
	momentPrefix1 = "exp_avg."
	momentPrefix2 = "exp_avg_sq."
)

// SaveOptimizer writes Adam's moments and the number of steps taken.
func (m *Model) SaveOptimizer(ctx context.Context, path string) error {
	if !m.opts.Trainable {
		return errNotTrainable
	}
	meta := map[string]string{"format": "updraft-optimizer-1", "step": strconv.Itoa(m.steps)}
	return m.write(ctx, path, meta, []Role{Moment1, Moment2}, []string{momentPrefix1, momentPrefix2})
}

// write streams the parameters of the given roles into one file.
func (m *Model) write(ctx context.Context, path string, meta map[string]string, roles []Role, prefixes []string) error {
	var infos []checkpoint.Info
	for i := range roles {
		for _, p := range m.layout.params {
			infos = append(infos, checkpoint.Info{Name: prefixes[i] + p.Name, Shape: p.Shape()})
		}
	}
	w, err := checkpoint.Create(path, infos, meta)
	if err != nil {
		return err
	}
	defer w.Abort()
	var buf []float32
	for i, r := range roles {
		b, err := m.role(r)
		if err != nil {
			return err
		}
		for _, p := range m.layout.params {
			if err := ctx.Err(); err != nil {
				return err
			}
			buf = grown(buf, p.len())
			if err := m.be.Wait(m.be.DownloadF32(buf, engine.Vector(b, p.off, p.len()))); err != nil {
				return fmt.Errorf("model: %s: %w", path, err)
			}
			if err := w.WriteF32(prefixes[i]+p.Name, buf); err != nil {
				return err
			}
		}
	}
	return w.Commit()
}

// LoadOptimizer reads what SaveOptimizer wrote.
func (m *Model) LoadOptimizer(ctx context.Context, path string) error {
	if !m.opts.Trainable {
		return errNotTrainable
	}
	r, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	step, err := strconv.Atoi(r.Metadata()["step"])
	if err != nil || step < 0 || r.Metadata()["format"] != "updraft-optimizer-1" {
		return fmt.Errorf("model: %s: not an optimizer state of Updraft's: its metadata has no format and step", path)
	}
	if got, want := len(r.Tensors()), 2*len(m.layout.params); got != want {
		return fmt.Errorf("model: %s: %d tensors where this model has %d: it belongs to another model", path, got, want)
	}
	var buf []float32
	for prefix, b := range map[string]engine.Buffer{momentPrefix1: m.moment1, momentPrefix2: m.moment2} {
		for _, p := range m.layout.params {
			if err := ctx.Err(); err != nil {
				return err
			}
			buf = grown(buf, p.len())
			if err := r.ReadF32(prefix+p.Name, p.Shape(), buf); err != nil {
				return err
			}
			m.be.UploadF32(engine.Vector(b, p.off, p.len()), buf)
		}
	}
	m.steps = step
	return nil
}
