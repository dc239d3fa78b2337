package checkpoint

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names of weights in a checkpoint directory in Hugging Face's layout: one file,
// or shards and the index that says which holds what.
const (
	WeightsFile = "model.safetensors"
	IndexFile   = "model.safetensors.index.json"
)

// shardFile is the name of shard i of n, counted from 1.
func shardFile(i, n int) string { return fmt.Sprintf("model-%05d-of-%05d.safetensors", i, n) }

// Weights are the tensors of a checkpoint directory, from one file or several.
type Weights struct {
	path    string // the file or the index, for messages
	files   []*Reader
	holds   map[string]*Reader
	tensors []Info
}

// OpenWeights opens the weights of a checkpoint directory: model.safetensors, or
// the shards that model.safetensors.index.json names. Where there are weights in
// a form that is not read, the error says how to convert them.
func OpenWeights(dir string) (*Weights, error) {
	path := filepath.Join(dir, WeightsFile)
	r, err := Open(path)
	switch {
	case err == nil:
		w := &Weights{path: path, files: []*Reader{r}, holds: make(map[string]*Reader), tensors: r.Tensors()}
		for _, t := range w.tensors {
			w.holds[t.Name] = r
		}
		return w, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	index := filepath.Join(dir, IndexFile)
	if _, missing := os.Stat(index); missing != nil {
		if other := foreignWeights(dir); other != "" {
			return nil, fmt.Errorf("checkpoint: %s: no %s, only %s: convert it with transformers (from_pretrained, then save_pretrained, which writes safetensors)", dir, WeightsFile, other)
		}
		return nil, err
	}
	w := &Weights{path: index, holds: make(map[string]*Reader)}
	if err := w.openShards(dir); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// foreignWeights names a file of weights in PyTorch's pickle format, if there is
// one.
func foreignWeights(dir string) string {
	entries, _ := os.ReadDir(dir) // an unreadable directory has none to name
	for _, e := range entries {
		if name := e.Name(); IsPickle(name) {
			return name
		}
	}
	return ""
}

// IsPickle reports whether a file of that name holds weights in PyTorch's pickle
// format, which Updraft does not read: to read one is to run its program.
func IsPickle(name string) bool {
	switch filepath.Ext(name) {
	case ".bin", ".pt", ".pth", ".ckpt":
		return !strings.HasPrefix(name, "training_args") && !strings.HasPrefix(name, "optimizer") && !strings.HasPrefix(name, "scheduler") && !strings.HasPrefix(name, "rng_state")
	}
	return false
}

// Shards reads an index and returns which file holds each tensor.
func Shards(index string) (map[string]string, error) {
	f, err := os.Open(index)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	defer f.Close()
	var file struct {
		Map map[string]string `json:"weight_map"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxHeader)).Decode(&file); err != nil {
		return nil, fmt.Errorf("checkpoint: %s: not a valid index: %w", index, err)
	}
	if len(file.Map) == 0 {
		return nil, fmt.Errorf("checkpoint: %s: weight_map is missing or empty", index)
	}
	for tensor, name := range file.Map {
		if !filepath.IsLocal(name) || filepath.Base(name) != name || !strings.HasSuffix(name, ".safetensors") {
			return nil, fmt.Errorf("checkpoint: %s: weight_map: tensor %q is said to be in %q, which is no safetensors file beside the index", index, tensor, name)
		}
	}
	return file.Map, nil
}

func (w *Weights) openShards(dir string) error {
	where, err := Shards(w.path)
	if err != nil {
		return err
	}
	readers := make(map[string]*Reader)
	for _, tensor := range slices.Sorted(maps.Keys(where)) {
		name := where[tensor]
		r := readers[name]
		if r == nil {
			if r, err = Open(filepath.Join(dir, name)); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("checkpoint: %s: weight_map names %s, which is not there: copy the file beside the index", w.path, name)
				}
				return err
			}
			readers[name] = r
			w.files = append(w.files, r)
		}
		if !r.Has(tensor) {
			return fmt.Errorf("checkpoint: %s: weight_map: tensor %q is said to be in %s, which does not have it: the index belongs to other files", w.path, tensor, name)
		}
		w.holds[tensor] = r
		w.tensors = append(w.tensors, r.tensors[r.byName[tensor]])
	}
	return nil
}

// Path is the file, or the index of the shards.
func (w *Weights) Path() string { return w.path }

// Tensors lists the tensors.
func (w *Weights) Tensors() []Info { return slices.Clone(w.tensors) }

// ReadF32 reads one tensor of the given shape into dst, widening BF16 and F16.
func (w *Weights) ReadF32(name string, shape []int, dst []float32) error {
	r := w.holds[name]
	if r == nil {
		return fmt.Errorf("checkpoint: %s: tensor %q is missing", w.path, name)
	}
	return r.ReadF32(name, shape, dst)
}

// Close closes the files.
func (w *Weights) Close() error {
	var err error
	for _, r := range w.files {
		err = errors.Join(err, r.Close())
	}
	return err
}

// DefaultShardBytes is the size above which weights are split, as transformers
// has it.
const DefaultShardBytes = 5_000_000_000

// WriteWeights writes tensors into a directory that exists, as OpenWeights reads
// them: one file, or shards of at most maxBytes of tensors (one larger tensor has
// a shard of its own) and their index. Each file appears whole or not at all, the
// index last. fill returns the values of a tensor, and is asked in the given
// order; the types are those that Create takes.
func WriteWeights(dir string, tensors []Info, metadata map[string]string, maxBytes int64, fill func(t Info) ([]float32, error)) error {
	shards := split(tensors, maxBytes)
	if len(shards) == 1 {
		if err := writeShard(filepath.Join(dir, WeightsFile), tensors, metadata, fill); err != nil {
			return err
		}
		return removeStale(dir, IndexFile)
	}
	var index struct {
		Metadata struct {
			Total int64 `json:"total_size"`
		} `json:"metadata"`
		Map map[string]string `json:"weight_map"`
	}
	index.Map = make(map[string]string, len(tensors))
	for i, list := range shards {
		name := shardFile(i+1, len(shards))
		if err := writeShard(filepath.Join(dir, name), list, metadata, fill); err != nil {
			return err
		}
		for _, t := range list {
			index.Map[t.Name] = name
			index.Metadata.Total += t.bytes()
		}
	}
	err := WriteFile(filepath.Join(dir, IndexFile), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(index)
	})
	if err != nil {
		return err
	}
	return removeStale(dir, WeightsFile) // it would be read in place of the index
}

func removeStale(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// bytes is what a tensor that will be written takes in the file.
func (i Info) bytes() int64 { return dtypeSize(cmp.Or(i.DType, "F32")) * int64(i.Len()) }

// split cuts the list, in its order, such that no part exceeds maxBytes unless it
// is one tensor.
func split(tensors []Info, maxBytes int64) [][]Info {
	shards, from := [][]Info{}, 0
	var size int64
	for i, t := range tensors {
		if i > from && size+t.bytes() > maxBytes {
			shards = append(shards, tensors[from:i])
			from, size = i, 0
		}
		size += t.bytes()
	}
	return append(shards, tensors[from:])
}

func writeShard(path string, tensors []Info, metadata map[string]string, fill func(t Info) ([]float32, error)) error {
	w, err := Create(path, tensors, metadata)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, t := range tensors {
		v, err := fill(t)
		if err != nil {
			return err
		}
		if err := w.WriteF32(t.Name, v); err != nil {
			return err
		}
	}
	return w.Commit()
}
