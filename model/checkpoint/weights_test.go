package checkpoint

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// fill returns values by which tensors can be told apart.
func fill(t Info) ([]float32, error) {
	v := make([]float32, t.Len())
	for i := range v {
		v[i] = float32(len(t.Name)) + float32(i)/4
	}
	return v, nil
}

// Shards of every size hold the same tensors as one file, and each kind of
// directory takes the other's place.
func TestShards(t *testing.T) {
	list := []Info{{Name: "a", Shape: []int{4}}, {Name: "bb", Shape: []int{2, 3}, DType: "F16"}, {Name: "ccc", Shape: []int{5}, DType: "BF16"}, {Name: "dddd", Shape: []int{9}}}
	dir := t.TempDir()
	for _, c := range []struct {
		most  int64
		files int
	}{{1 << 20, 1}, {1, 4}, {28, 3}, {38, 2}, {1 << 20, 1}} {
		require.NoError(t, WriteWeights(dir, list, map[string]string{"format": "pt"}, c.most, fill))
		w, err := OpenWeights(dir)
		require.NoError(t, err)
		require.Len(t, w.files, c.files, "at most %d bytes", c.most)
		require.Len(t, w.Tensors(), len(list))
		for _, x := range list {
			want, _ := fill(x)
			got := make([]float32, x.Len())
			require.NoError(t, w.ReadF32(x.Name, x.Shape, got))
			require.Equal(t, want, got)
		}
		require.ErrorContains(t, w.ReadF32("e", nil, nil), `tensor "e" is missing`)
		for _, r := range w.files {
			size := int64(0)
			for _, x := range r.Tensors() {
				size += x.bytes()
			}
			require.True(t, size <= c.most || len(r.Tensors()) == 1)
		}
		require.NoError(t, w.Close())
	}
	// The index as transformers writes it.
	require.NoError(t, WriteWeights(dir, list, nil, 28, fill))
	b, err := os.ReadFile(filepath.Join(dir, IndexFile))
	require.NoError(t, err)
	require.JSONEq(t, `{"metadata": {"total_size": 74}, "weight_map": {"a": "model-00001-of-00003.safetensors", "bb": "model-00001-of-00003.safetensors",
		"ccc": "model-00002-of-00003.safetensors", "dddd": "model-00003-of-00003.safetensors"}}`, string(b))
}

func TestBadShards(t *testing.T) {
	list := []Info{{Name: "a", Shape: []int{4}}, {Name: "b", Shape: []int{4}}}
	make2 := func() string {
		dir := t.TempDir()
		require.NoError(t, WriteWeights(dir, list, nil, 16, fill))
		return dir
	}
	for name, c := range map[string]struct {
		spoil func(dir string) error
		want  string
	}{
		"missing shard": {func(dir string) error { return os.Remove(filepath.Join(dir, shardFile(2, 2))) }, "weight_map names model-00002-of-00002.safetensors, which is not there"},
		"cut shard":     {func(dir string) error { return os.Truncate(filepath.Join(dir, shardFile(2, 2)), 20) }, "model-00002-of-00002.safetensors: truncated"},
		"exchanged": {func(dir string) error {
			return os.Rename(filepath.Join(dir, shardFile(2, 2)), filepath.Join(dir, shardFile(1, 2)))
		}, `weight_map: tensor "a" is said to be in model-00001-of-00002.safetensors, which does not have it`},
		"not json": {func(dir string) error { return os.WriteFile(filepath.Join(dir, IndexFile), []byte("{"), 0o644) }, "not a valid index"},
		"no map":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, IndexFile), []byte("{}"), 0o644) }, "weight_map is missing"},
		"elsewhere": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, IndexFile), []byte(`{"weight_map":{"a":"../x.safetensors"}}`), 0o644)
		}, `tensor "a" is said to be in "../x.safetensors", which is no safetensors file beside the index`},
		"pickle alone": {func(dir string) error {
			for _, f := range []string{IndexFile, shardFile(1, 2), shardFile(2, 2)} {
				if err := os.Remove(filepath.Join(dir, f)); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o644)
		}, "only pytorch_model.bin: convert it with transformers"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := make2()
			require.NoError(t, c.spoil(dir))
			_, err := OpenWeights(dir)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, dir)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := OpenWeights(t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// What BF16 and F16 can say comes back to the bit; what F16 cannot is refused.
func TestWrittenHalves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	inf := float32(math.Inf(1))
	exact := []float32{0, 1, -2.5, 65504, inf, -inf, 0.0009765625}
	for _, dtype := range []string{"F16", "BF16"} {
		v := exact
		if dtype == "BF16" {
			v = []float32{0, 1, -2.5, 3.3895314e38, inf, 9.1835e-41, 1e-38}
			for i := range v {
				v[i] = math.Float32frombits(math.Float32bits(v[i]) &^ 0xffff)
			}
		}
		w, err := Create(path, []Info{{Name: "a", Shape: []int{len(v)}, DType: dtype}}, nil)
		require.NoError(t, err)
		require.NoError(t, w.WriteF32("a", v))
		require.NoError(t, w.Commit())
		r, err := Open(path)
		require.NoError(t, err)
		require.Equal(t, dtype, r.Tensors()[0].DType)
		got := make([]float32, len(v))
		require.NoError(t, r.ReadF32("a", []int{len(v)}, got))
		require.Equal(t, v, got)
		require.NoError(t, r.Close())
	}
	for x, fits := range map[float32]bool{65519: true, -65519: true, 65520: false, -1e6: false, inf: true} {
		w, err := Create(path, []Info{{Name: "a", Shape: []int{1}, DType: "F16"}}, nil)
		require.NoError(t, err)
		err = w.WriteF32("a", []float32{x})
		if fits {
			require.NoError(t, err)
			require.NoError(t, w.Commit())
			continue
		}
		require.ErrorContains(t, err, `tensor "a": element 0 is`)
		require.ErrorContains(t, w.Commit(), "more than F16 can hold")
	}
}

// FuzzShards: an index, whatever it says, names files beside it or is refused.
func FuzzShards(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":4},"weight_map":{"a":"x.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"/x.safetensors","b":"..\\x.safetensors"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), IndexFile)
		require.NoError(t, os.WriteFile(path, b, 0o644))
		where, err := Shards(path)
		if err != nil {
			return
		}
		require.NotEmpty(t, where)
		for _, name := range where {
			require.Equal(t, filepath.Base(name), name)
		}
	})
}
