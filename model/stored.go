package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/updraft-ml/updraft/model/checkpoint"
)

// SaveOptions say how weights are written.
type SaveOptions struct {
	// DType is F32 (where empty), BF16 or F16. BF16 weights that were read come
	// back to the bit in BF16 and in F32.
	DType string
	// MaxShardBytes is the size of a file above which weights are split; where 0,
	// checkpoint.DefaultShardBytes.
	MaxShardBytes int64
}

// Checkpoint is a model on the disk, to be written in another form. It needs no
// device and holds one tensor at a time.
type Checkpoint struct {
	stored
	close func() error
}

// OpenCheckpoint opens a checkpoint directory as Load reads it, or a .gguf file.
func OpenCheckpoint(path string) (*Checkpoint, error) {
	switch {
	case IsAdapter(path):
		return openAdapted(path)
	case isGGUF(path):
		g, cfg, err := openGGUF(path)
		if err != nil {
			return nil, err
		}
		c := &Checkpoint{stored: stored{cfg: cfg}, close: g.Close}
		w := ggufWeights{g, &c.cfg}
		c.read = func(p Param, v []float32) error { return w.ReadF32(p.Name, p.Shape(), v) }
		return c, nil
	}
	cfg, err := ReadConfig(filepath.Join(path, ConfigFile))
	if err != nil {
		return nil, err
	}
	generation, err := readGeneration(path)
	if err != nil {
		return nil, err
	}
	w, err := checkpoint.OpenWeights(path)
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{stored: stored{cfg: cfg, generation: generation}, close: w.Close}
	if err := checkNames(w, &cfg); err != nil {
		w.Close()
		return nil, err
	}
	c.read = func(p Param, v []float32) error { return w.ReadF32(p.Name, p.Shape(), v) }
	return c, nil
}

// readGeneration reads a directory's generation_config.json, nil where there is
// none.
func readGeneration(dir string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, GenerationFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("model: %w", err)
	}
	return b, nil
}

// checkNames refuses tensors that the configuration has no place for.
func checkNames(w *checkpoint.Weights, c *Config) error {
	known := make(map[string]bool)
	for _, p := range newLayout(c).params {
		known[p.Name] = true
	}
	for _, t := range w.Tensors() {
		// Some exporters write the tied head too.
		if known[t.Name] || t.Name == "lm_head.weight" && c.TieWordEmbeddings {
			continue
		}
		return fmt.Errorf("model: %s: tensor %q does not belong to a %s model of config.json's shape", w.Path(), t.Name, c.ModelType)
	}
	return nil
}

// Config returns the model's configuration.
func (c *Checkpoint) Config() Config { return c.cfg }

// SaveAs writes the model into an existing directory, as Model.SaveAs does.
func (c *Checkpoint) SaveAs(ctx context.Context, dir string, o SaveOptions) error {
	return c.save(ctx, dir, o)
}

// SaveGGUF writes the model as a GGUF file, as Model.SaveGGUF does.
func (c *Checkpoint) SaveGGUF(ctx context.Context, path, dtype string, extra []checkpoint.GGUFValue) error {
	return c.saveGGUF(ctx, path, dtype, extra)
}

// Close closes the files.
func (c *Checkpoint) Close() error { return c.close() }

// stored is a model to write: its configuration and a way to its weights.
type stored struct {
	cfg        Config
	generation []byte // generation_config.json; nil where there is none
	read       func(p Param, v []float32) error
}

// torchTypes are PyTorch's names of the types of SaveOptions.
var torchTypes = map[string]string{"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

func (s *stored) save(ctx context.Context, dir string, o SaveOptions) error {
	o.DType = cmp.Or(o.DType, "F32")
	cfg := s.cfg
	cfg.Architectures = []string{architecture(cfg.ModelType)}
	if cfg.DType = torchTypes[o.DType]; cfg.DType == "" {
		return fmt.Errorf("model: weights are saved as F32, BF16 or F16, not %s", o.DType)
	}
	config, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{ConfigFile: append(config, '\n'), GenerationFile: s.generation} {
		if b == nil {
			continue
		}
		if err := checkpoint.WriteFile(filepath.Join(dir, name), func(w io.Writer) error { _, err := w.Write(b); return err }); err != nil {
			return err
		}
	}
	params := newLayout(&cfg).params
	var list []checkpoint.Info
	for _, p := range params {
		list = append(list, checkpoint.Info{Name: p.Name, Shape: p.Shape(), DType: o.DType})
	}
	var buf []float32
	next := 0
	return checkpoint.WriteWeights(dir, list, map[string]string{"format": "pt"}, cmp.Or(o.MaxShardBytes, checkpoint.DefaultShardBytes),
		func(checkpoint.Info) ([]float32, error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p := params[next]
			next++
			buf = grown(buf, p.len())
			return buf, s.read(p, buf)
		})
}

func (s *stored) saveGGUF(ctx context.Context, path, dtype string, extra []checkpoint.GGUFValue) error {
	c := &s.cfg
	values, err := c.ggufMetadata(dtype)
	if err != nil {
		return err
	}
	params := newLayout(c).params
	divisors := []float32(nil)
	var infos []checkpoint.Info
	if c.RopeScaling.kind() == "llama3" {
		divisors = ropeDivisors(c.RopeScaling, c.RopeTheta, c.HeadDim)
		infos = append(infos, checkpoint.Info{Name: "rope_freqs.weight", Shape: []int{len(divisors)}, DType: "F32"})
	}
	for _, p := range params {
		t := checkpoint.Info{Name: ggufNames.Replace(p.Name), Shape: p.Shape(), DType: "F32"}
		if p.Rows > 0 {
			t.DType = dtype
			if dtype == "Q8_0" && p.Cols%32 != 0 {
				t.DType = "F16" // as llama.cpp does with rows of no whole blocks
			}
		}
		infos = append(infos, t)
	}
	w, err := checkpoint.CreateGGUF(path, append(values, extra...), infos)
	if err != nil {
		return err
	}
	defer w.Abort()
	if divisors != nil {
		if err := w.WriteF32("rope_freqs.weight", divisors); err != nil {
			return err
		}
	}
	var buf []float32
	for _, p := range params {
		if err := ctx.Err(); err != nil {
			return err
		}
		buf = grown(buf, p.len())
		v := buf
		if err := s.read(p, v); err != nil {
			return err
		}
		if heads := c.interleaved(p.Name); heads > 0 {
			swapRows(v, heads, len(v)/p.Shape()[0], true)
		}
		if err := w.WriteF32(ggufNames.Replace(p.Name), v); err != nil {
			return err
		}
	}
	return w.Commit()
}
