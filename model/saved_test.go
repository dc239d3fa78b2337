package model

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine/cpu"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// A checkpoint of each type comes back to the bit, from one file and from shards,
// with every key of config.json and the generation settings.
func TestSavedTypes(t *testing.T) {
	be, err := cpu.New(cpu.Options{Threads: 1})
	require.NoError(t, err)
	defer be.Close()
	for _, kind := range kinds {
		dir := t.TempDir()
		m, err := New(be, ggufConfig(kind), 7, Options{})
		require.NoError(t, err)
		defer m.Close()
		for _, p := range m.Params() { // what both halves can say
			v, err := m.ReadParam(ctx, Weights, p.Name)
			require.NoError(t, err)
			for i := range v {
				v[i] = half.FromF16(half.F16(half.FromBF16(half.BF16(v[i]))))
				v[i] = half.FromBF16(half.BF16(v[i]))
			}
			require.NoError(t, m.WriteParam(ctx, Weights, p.Name, v))
		}
		m.RefreshWeights()
		require.NoError(t, m.Save(ctx, dir))

		// Keys that Updraft does not know, and the files beside the weights.
		var keys map[string]any
		b, err := os.ReadFile(filepath.Join(dir, ConfigFile))
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &keys))
		keys["transformers_version"], keys["layer_types"], keys["attention_dropout"] = "5.1", []any{"full_attention"}, 0.25
		b, err = json.Marshal(keys)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, ConfigFile), b, 0o644))
		generation := `{"eos_token_id": [1, 2],  "temperature": 0.70}`
		require.NoError(t, os.WriteFile(filepath.Join(dir, GenerationFile), []byte(generation), 0o644))

		for _, o := range []SaveOptions{{}, {DType: "BF16"}, {DType: "F16"}, {DType: "BF16", MaxShardBytes: 4096}} {
			from, err := Load(ctx, be, dir, Options{})
			require.NoError(t, err)
			to := t.TempDir()
			require.NoError(t, from.SaveAs(ctx, to, o))
			// Without a device the files are the same.
			file, err := OpenCheckpoint(dir)
			require.NoError(t, err)
			same := t.TempDir()
			require.NoError(t, file.SaveAs(ctx, same, o))
			require.NoError(t, file.SaveGGUF(ctx, filepath.Join(same, "m.gguf"), "BF16", nil))
			require.NoError(t, from.SaveGGUF(ctx, filepath.Join(to, "m.gguf"), "BF16", nil))
			require.NoError(t, file.Close())
			requireSameFiles(t, to, same)
			file, err = OpenCheckpoint(filepath.Join(to, "m.gguf"))
			require.NoError(t, err)
			require.NoError(t, file.SaveGGUF(ctx, filepath.Join(same, "m.gguf"), "BF16", nil))
			require.NoError(t, file.Close())
			requireSameFiles(t, to, same)
			_, err = os.Stat(filepath.Join(to, checkpoint.IndexFile))
			require.Equal(t, o.MaxShardBytes > 0, err == nil)
			again, err := Load(ctx, be, to, Options{})
			require.NoError(t, err)
			for _, p := range m.Params() {
				want, err := m.ReadParam(ctx, Weights, p.Name)
				require.NoError(t, err)
				got, err := again.ReadParam(ctx, Weights, p.Name)
				require.NoError(t, err)
				require.Equal(t, want, got, "%s %s", o.DType, p.Name)
			}
			require.NoError(t, again.LoadWeights(ctx, to))
			b, err := os.ReadFile(filepath.Join(to, ConfigFile))
			require.NoError(t, err)
			var saved map[string]any
			require.NoError(t, json.Unmarshal(b, &saved))
			keys["torch_dtype"] = map[string]string{"": "float32", "BF16": "bfloat16", "F16": "float16"}[o.DType]
			require.Equal(t, keys, saved)
			b, err = os.ReadFile(filepath.Join(to, GenerationFile))
			require.NoError(t, err)
			require.Equal(t, generation, string(b))
			require.NoError(t, from.Close())
			require.NoError(t, again.Close())
		}
		require.ErrorContains(t, m.SaveAs(ctx, dir, SaveOptions{DType: "Q8_0"}), "not Q8_0")
	}
}

func requireSameFiles(t *testing.T, a, b string) {
	t.Helper()
	entries, err := os.ReadDir(a)
	require.NoError(t, err)
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join(a, e.Name()))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(b, e.Name()))
		require.NoError(t, err)
		require.True(t, string(want) == string(got), "%s differs", e.Name())
	}
}

func TestQuantisedConfig(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "llama.config.json"))
	require.NoError(t, err)
	var keys map[string]any
	require.NoError(t, json.Unmarshal(b, &keys))
	keys["quantization_config"] = map[string]any{"quant_method": "fp8"}
	b, err = json.Marshal(keys)
	require.NoError(t, err)
	_, err = parseConfig(b)
	require.ErrorContains(t, err, "quantization_config: Updraft reads safetensors weights that are not quantised")
}
