package model

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// weightSource is a file of weights under Hugging Face's names and layout.
type weightSource interface {
	ReadF32(name string, shape []int, dst []float32) error
}

// ConfigOfGGUF reads a model's architecture from the metadata of a GGUF file.
func ConfigOfGGUF(g *checkpoint.GGUF) (Config, error) {
	arch, ok := g.String("general.architecture")
	if !ok {
		return Config{}, fmt.Errorf("model: general.architecture is missing: not the file of a model")
	}
	if arch != "llama" && arch != "qwen2" && arch != "qwen3" {
		return Config{}, fmt.Errorf("model: general.architecture %q: Updraft runs llama, qwen2 and qwen3", arch)
	}
	c := Config{ModelType: arch, HiddenAct: "silu", TieWordEmbeddings: !g.Has("output.weight")}
	for _, x := range []struct {
		key      string
		to       *int
		optional bool
	}{
		{"embedding_length", &c.HiddenSize, false}, {"feed_forward_length", &c.IntermediateSize, false}, {"block_count", &c.NumHiddenLayers, false},
		{"attention.head_count", &c.NumAttentionHeads, false}, {"attention.head_count_kv", &c.NumKeyValueHeads, true},
		{"attention.key_length", &c.HeadDim, true}, {"context_length", &c.MaxPositionEmbeddings, false}, {"vocab_size", &c.VocabSize, true},
	} {
		n, ok := g.Int(arch + "." + x.key)
		if !ok && x.optional {
			continue
		}
		if !ok || n < 1 || n > math.MaxInt32 {
			return Config{}, fmt.Errorf("model: %s.%s is missing or no positive number", arch, x.key)
		}
		*x.to = int(n)
	}
	if c.VocabSize == 0 {
		c.VocabSize = len(g.Strings("tokenizer.ggml.tokens"))
	}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	c.RMSNormEps, _ = g.Float(arch + ".attention.layer_norm_rms_epsilon")
	c.RopeTheta, ok = g.Float(arch + ".rope.freq_base")
	if !ok {
		c.RopeTheta = 10000
	}
	if err := c.ropeOfGGUF(g, arch); err != nil {
		return Config{}, err
	}
	c.AttentionBias = arch == "llama" && g.Has("blk.0.attn_q.bias")
	for _, x := range []struct {
		key string
		to  **int32
	}{{"tokenizer.ggml.bos_token_id", &c.BOSTokenID}, {"tokenizer.ggml.padding_token_id", &c.PADTokenID}} {
		if id, ok := g.Int(x.key); ok {
			*x.to = new(int32(id))
		}
	}
	if id, ok := g.Int("tokenizer.ggml.eos_token_id"); ok {
		c.EOSTokenID = TokenIDs{int32(id)}
	}
	c.setDefaults()
	return c, c.Validate()
}

// ropeOfGGUF reads how rotary frequencies are scaled. Llama 3.1's rule is stored
// as a tensor of divisors, from which its only parameter that varies is read off.
func (c *Config) ropeOfGGUF(g *checkpoint.GGUF, arch string) error {
	kind, _ := g.String(arch + ".rope.scaling.type")
	if factor, ok := g.Float(arch + ".rope.scaling.factor"); ok && kind == "linear" && factor != 1 {
		c.RopeScaling = &RopeScaling{RopeType: "linear", Factor: factor}
		return nil
	}
	if kind != "" && kind != "none" && kind != "linear" {
		return fmt.Errorf("model: %s.rope.scaling.type %q: Updraft knows linear and Llama 3.1's", arch, kind)
	}
	if !g.Has("rope_freqs.weight") {
		return nil
	}
	n := cmp.Or(c.HeadDim, c.HiddenSize/c.NumAttentionHeads) / 2
	divisors := make([]float32, n)
	if err := g.ReadF32("rope_freqs.weight", []int{n}, divisors); err != nil {
		return err
	}
	s := &RopeScaling{RopeType: "llama3", Factor: float64(slices.Max(divisors)), LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	for j, d := range ropeDivisors(s, c.RopeTheta, 2*n) {
		if !(math.Abs(float64(d-divisors[j])) <= 1e-3*float64(d)) {
			return fmt.Errorf("model: rope_freqs.weight divides frequency %d by %g: not the rule of Llama 3.1, which would by %g", j, divisors[j], d)
		}
	}
	c.RopeScaling = s
	return nil
}

// ropeDivisors returns by how much s divides each rotary frequency.
func ropeDivisors(s *RopeScaling, theta float64, headDim int) []float32 {
	out := make([]float32, headDim/2)
	for j := range out {
		f := 1 / math.Pow(theta, float64(2*j)/float64(headDim))
		out[j] = float32(f / scaleFrequency(s, f))
	}
	return out
}

// ggufNames are llama.cpp's names of what Hugging Face names otherwise.
var ggufNames = strings.NewReplacer(
	"model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output", "model.layers.", "blk.",
	"self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output",
	"self_attn.q_norm", "attn_q_norm", "self_attn.k_norm", "attn_k_norm", "input_layernorm", "attn_norm", "post_attention_layernorm", "ffn_norm",
	"mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down",
)

// ggufWeights is a GGUF file as a weightSource.
type ggufWeights struct {
	*checkpoint.GGUF
	cfg *Config
}

// ReadF32 implements weightSource.
func (w ggufWeights) ReadF32(name string, shape []int, dst []float32) error {
	if err := w.GGUF.ReadF32(ggufNames.Replace(name), shape, dst); err != nil {
		return err
	}
	if heads := w.cfg.interleaved(name); heads > 0 {
		swapRows(dst, heads, len(dst)/shape[0], false)
	}
	return nil
}

// interleaved returns the heads of a query or key projection whose rows
// llama.cpp stores in another order, 0 for other tensors: for Llama it rotates
// neighbouring elements, where Hugging Face rotates the two halves of a head.
func (c *Config) interleaved(name string) int {
	switch {
	case c.ModelType != "llama":
		return 0
	case strings.Contains(name, "self_attn.q_proj."):
		return c.NumAttentionHeads
	case strings.Contains(name, "self_attn.k_proj."):
		return c.NumKeyValueHeads
	}
	return 0
}

// swapRows puts the rows of cols elements of each head from pairs to halves, or
// back.
func swapRows(v []float32, heads, cols int, toPairs bool) {
	head := len(v) / heads
	half := head / cols / 2
	tmp := make([]float32, head)
	for h := range heads {
		x := v[h*head : (h+1)*head]
		copy(tmp, x)
		for r := range half {
			for s := range 2 {
				pair, split := 2*r+s, s*half+r
				from, to := pair, split
				if toPairs {
					from, to = split, pair
				}
				copy(x[to*cols:(to+1)*cols], tmp[from*cols:(from+1)*cols])
			}
		}
	}
}

// openGGUF opens a GGUF file and holds its list of tensors against its metadata.
func openGGUF(path string) (*checkpoint.GGUF, Config, error) {
	g, err := checkpoint.OpenGGUF(path)
	if err != nil {
		return nil, Config{}, err
	}
	cfg, err := ConfigOfGGUF(g)
	if err != nil {
		g.Close()
		return nil, cfg, fmt.Errorf("%s: %w", path, err)
	}
	known := map[string]bool{"rope_freqs.weight": true}
	for _, p := range newLayout(&cfg).params {
		known[ggufNames.Replace(p.Name)] = true
	}
	for _, t := range g.Tensors() {
		if !known[t.Name] {
			g.Close()
			return nil, cfg, fmt.Errorf("model: %s: tensor %q does not belong to a %s model of the metadata's shape", path, t.Name, cfg.ModelType)
		}
	}
	return g, cfg, nil
}

// LoadGGUF reads a model from a GGUF file onto be, dequantised.
func LoadGGUF(ctx context.Context, be engine.Backend, path string, o Options) (*Model, error) {
	if o.LoRA != nil {
		o.LoRA = o.LoRA.over(path)
	}
	g, cfg, err := openGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	return load(be, cfg, o, func(m *Model) error { return m.readFrom(ctx, ggufWeights{g, &m.cfg}) })
}

// Numbers of general.file_type (llama.h, enum llama_ftype).
var ggufFileTypes = map[string]uint32{"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}

func (c *Config) ggufMetadata(dtype string) ([]checkpoint.GGUFValue, error) {
	fileType, ok := ggufFileTypes[dtype]
	if !ok {
		return nil, fmt.Errorf("model: GGUF files are written as F32, F16, BF16 or Q8_0, not %s", dtype)
	}
	if c.ModelType == "qwen2" && c.NumAttentionHeads*c.HeadDim != c.HiddenSize {
		return nil, fmt.Errorf("model: %d heads of %d are not hidden_size %d: llama.cpp does not load such a qwen2 model; export safetensors", c.NumAttentionHeads, c.HeadDim, c.HiddenSize)
	}
	a := c.ModelType + "."
	out := []checkpoint.GGUFValue{
		{Key: "general.architecture", Value: c.ModelType}, {Key: "general.type", Value: "model"}, {Key: "general.file_type", Value: fileType},
		{Key: "general.quantization_version", Value: uint32(2)},
		{Key: a + "block_count", Value: uint32(c.NumHiddenLayers)}, {Key: a + "context_length", Value: uint32(c.MaxPositionEmbeddings)},
		{Key: a + "embedding_length", Value: uint32(c.HiddenSize)}, {Key: a + "feed_forward_length", Value: uint32(c.IntermediateSize)},
		{Key: a + "attention.head_count", Value: uint32(c.NumAttentionHeads)}, {Key: a + "attention.head_count_kv", Value: uint32(c.NumKeyValueHeads)},
		{Key: a + "attention.key_length", Value: uint32(c.HeadDim)}, {Key: a + "attention.value_length", Value: uint32(c.HeadDim)},
		{Key: a + "attention.layer_norm_rms_epsilon", Value: float32(c.RMSNormEps)}, {Key: a + "rope.freq_base", Value: float32(c.RopeTheta)},
		{Key: a + "rope.dimension_count", Value: uint32(c.HeadDim)}, {Key: a + "vocab_size", Value: uint32(c.VocabSize)},
	}
	switch c.RopeScaling.kind() {
	case "linear":
		out = append(out, checkpoint.GGUFValue{Key: a + "rope.scaling.type", Value: "linear"},
			checkpoint.GGUFValue{Key: a + "rope.scaling.factor", Value: float32(c.RopeScaling.Factor)})
	case "llama3":
		s := c.RopeScaling
		if s.LowFreqFactor != 1 || s.HighFreqFactor != 4 || s.OriginalMaxPositionEmbeddings != 8192 {
			return nil, fmt.Errorf("model: rope_scaling %+v: only Llama 3.1's own factors (1, 4, 8192) are written to GGUF; export safetensors", *s)
		}
	}
	return out, nil
}
