package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Config is a decoder's architecture, with the keys of Hugging Face's
// config.json. Keys that Updraft does not know are kept from reading to writing.
type Config struct {
	Architectures         []string     `json:"architectures,omitempty"`
	ModelType             string       `json:"model_type"` // llama, qwen2 or qwen3
	HiddenSize            int          `json:"hidden_size"`
	IntermediateSize      int          `json:"intermediate_size"`
	NumHiddenLayers       int          `json:"num_hidden_layers"`
	NumAttentionHeads     int          `json:"num_attention_heads"`
	NumKeyValueHeads      int          `json:"num_key_value_heads"`
	HeadDim               int          `json:"head_dim"` // absent: hidden_size / num_attention_heads
	HiddenAct             string       `json:"hidden_act"`
	RMSNormEps            float64      `json:"rms_norm_eps"`
	RopeTheta             float64      `json:"rope_theta"`
	RopeScaling           *RopeScaling `json:"rope_scaling"`
	VocabSize             int          `json:"vocab_size"`
	MaxPositionEmbeddings int          `json:"max_position_embeddings"`
	TieWordEmbeddings     bool         `json:"tie_word_embeddings"`
	AttentionBias         bool         `json:"attention_bias"`
	MLPBias               bool         `json:"mlp_bias,omitempty"`
	UseSlidingWindow      bool         `json:"use_sliding_window,omitempty"`
	InitializerRange      float64      `json:"initializer_range,omitempty"`
	BOSTokenID            *int32       `json:"bos_token_id,omitempty"`
	EOSTokenID            TokenIDs     `json:"eos_token_id,omitempty"`
	PADTokenID            *int32       `json:"pad_token_id,omitempty"`
	DType                 string       `json:"torch_dtype,omitempty"`

	extra map[string]json.RawMessage // the file's other keys
}

// MarshalJSON writes the known keys and then the others that the file had.
func (c Config) MarshalJSON() ([]byte, error) {
	type plain Config
	b, err := json.Marshal(plain(c))
	if err != nil || len(c.extra) == 0 {
		return b, err
	}
	more, err := json.Marshal(c.extra) // in the order of the keys
	if err != nil {
		return nil, err
	}
	return append(append(b[:len(b)-1], ','), more[1:]...), nil
}

// knownKeys are the keys of config.json that Config holds, under any spelling.
func knownKeys() map[string]bool {
	known := map[string]bool{"rope_parameters": true, "dtype": true}
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		known[name] = true
	}
	return known
}

// RopeScaling stretches the rotary positions of models that were extended to
// longer contexts: rope_type linear, or llama3 (Llama 3.1's rule, by which low
// frequencies are divided by Factor and high ones kept).
type RopeScaling struct {
	RopeType                      string  `json:"rope_type,omitempty"`
	Type                          string  `json:"type,omitempty"` // the key's older name
	Factor                        float64 `json:"factor,omitempty"`
	LowFreqFactor                 float64 `json:"low_freq_factor,omitempty"`
	HighFreqFactor                float64 `json:"high_freq_factor,omitempty"`
	OriginalMaxPositionEmbeddings float64 `json:"original_max_position_embeddings,omitempty"`
}

func (r *RopeScaling) kind() string {
	switch {
	case r == nil:
		return "default"
	case r.RopeType != "":
		return r.RopeType
	case r.Type != "":
		return r.Type
	}
	return "default"
}

// TokenIDs is one token id or a list of them, as config.json allows either.
type TokenIDs []int32

// UnmarshalJSON reads a number, a list of numbers or null.
func (t *TokenIDs) UnmarshalJSON(b []byte) error {
	*t = nil
	b = bytes.TrimSpace(b)
	if string(b) == "null" {
		return nil
	}
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]int32)(t))
	}
	var one int32
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*t = TokenIDs{one}
	return nil
}

// MarshalJSON writes a single id as a number.
func (t TokenIDs) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]int32(t))
}

// ReadConfig reads and validates a config.json.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("model: %w: a checkpoint directory holds config.json and model.safetensors", err)
	}
	c, err := parseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("model: %s: %w", path, err)
	}
	return c, nil
}

func parseConfig(b []byte) (Config, error) {
	known := knownKeys()
	type plain Config // without its methods
	// Newer transformers keep the rotary settings in rope_parameters.
	var file struct {
		plain
		RopeParameters *struct {
			RopeScaling
			RopeTheta float64 `json:"rope_theta"`
		} `json:"rope_parameters"`
		NewDType string `json:"dtype"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) && te.Field != "" {
			return Config{}, fmt.Errorf("field %s: expected %s, found %s", strings.TrimPrefix(te.Field, "plain."), te.Type, te.Value)
		}
		return Config{}, fmt.Errorf("not valid JSON: %w", err)
	}
	c := Config(file.plain)
	if err := json.Unmarshal(b, &c.extra); err != nil {
		return Config{}, fmt.Errorf("not valid JSON: %w", err)
	}
	maps.DeleteFunc(c.extra, func(key string, _ json.RawMessage) bool { return known[key] })
	if q, ok := c.extra["quantization_config"]; ok && string(q) != "null" {
		return Config{}, errors.New("quantization_config: Updraft reads safetensors weights that are not quantised (F32, BF16 or F16); take the original checkpoint, or a GGUF file")
	}
	if p := file.RopeParameters; p != nil {
		if p.RopeTheta != 0 {
			c.RopeTheta = p.RopeTheta
		}
		if p.kind() != "default" {
			c.RopeScaling = &p.RopeScaling
		}
	}
	if c.DType == "" {
		c.DType = file.NewDType
	}
	c.setDefaults()
	return c, c.Validate()
}

// setDefaults fills in what config.json may leave out, as transformers does.
func (c *Config) setDefaults() {
	if c.ModelType == "" && len(c.Architectures) == 1 {
		switch c.Architectures[0] {
		case "LlamaForCausalLM":
			c.ModelType = "llama"
		case "Qwen2ForCausalLM":
			c.ModelType = "qwen2"
		case "Qwen3ForCausalLM":
			c.ModelType = "qwen3"
		}
	}
	if c.NumKeyValueHeads == 0 {
		c.NumKeyValueHeads = c.NumAttentionHeads
	}
	if c.HeadDim == 0 && c.NumAttentionHeads > 0 {
		c.HeadDim = c.HiddenSize / c.NumAttentionHeads
		if c.ModelType == "qwen3" {
			c.HeadDim = 128
		}
	}
	if c.HiddenAct == "" {
		c.HiddenAct = "silu"
	}
	if c.RMSNormEps == 0 {
		c.RMSNormEps = 1e-6
	}
	if c.RopeTheta == 0 {
		c.RopeTheta = 10000
	}
	if c.InitializerRange == 0 {
		c.InitializerRange = 0.02
	}
	if c.RopeScaling.kind() == "default" {
		c.RopeScaling = nil
	}
}

// architectures maps a model type to the name that Hugging Face gives it.
func architecture(modelType string) string {
	switch modelType {
	case "llama":
		return "LlamaForCausalLM"
	case "qwen2":
		return "Qwen2ForCausalLM"
	case "qwen3":
		return "Qwen3ForCausalLM"
	}
	return ""
}

// Validate reports the first field that keeps c from being a decoder that
// Updraft can run.
func (c *Config) Validate() error {
	arch := architecture(c.ModelType)
	if arch == "" {
		name := c.ModelType
		if name == "" {
			name = strings.Join(c.Architectures, ", ")
		}
		return fmt.Errorf("model_type %q is unknown: Updraft runs llama, qwen2 and qwen3", name)
	}
	if len(c.Architectures) > 0 && !slices.Contains(c.Architectures, arch) {
		return fmt.Errorf("architectures %q does not go with model_type %q: expected %s", c.Architectures, c.ModelType, arch)
	}
	for _, f := range []struct {
		name string
		v    int
	}{
		{"hidden_size", c.HiddenSize},
		{"intermediate_size", c.IntermediateSize},
		{"num_hidden_layers", c.NumHiddenLayers},
		{"num_attention_heads", c.NumAttentionHeads},
		{"num_key_value_heads", c.NumKeyValueHeads},
		{"head_dim", c.HeadDim},
		{"vocab_size", c.VocabSize},
		{"max_position_embeddings", c.MaxPositionEmbeddings},
	} {
		if f.v <= 0 {
			return fmt.Errorf("%s is %d: must be positive", f.name, f.v)
		}
		if f.v > 1<<26 {
			return fmt.Errorf("%s is %d: not plausible", f.name, f.v)
		}
	}
	switch {
	case c.NumAttentionHeads%c.NumKeyValueHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.NumAttentionHeads, c.NumKeyValueHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim %d is odd: rotary positions need an even one", c.HeadDim)
	case !(c.RMSNormEps > 0 && c.RMSNormEps < 1):
		return fmt.Errorf("rms_norm_eps is %g: must be in (0, 1)", c.RMSNormEps)
	case !(c.RopeTheta > 0):
		return fmt.Errorf("rope_theta is %g: must be positive", c.RopeTheta)
	case c.HiddenAct != "silu" && c.HiddenAct != "swish":
		return fmt.Errorf("hidden_act %q is unknown: Updraft runs silu", c.HiddenAct)
	case c.MLPBias:
		return errors.New("mlp_bias true: Updraft runs feed-forward layers without biases")
	case c.UseSlidingWindow:
		return errors.New("use_sliding_window true: Updraft runs full attention only")
	case c.AttentionBias && c.ModelType != "qwen2":
		return fmt.Errorf("attention_bias true with model_type %q: only qwen2's query, key and value biases are known", c.ModelType)
	}
	switch r := c.RopeScaling; r.kind() {
	case "default":
	case "linear":
		if !(r.Factor >= 1) {
			return fmt.Errorf("rope_scaling.factor is %g: must be at least 1", r.Factor)
		}
	case "llama3":
		if !(r.Factor >= 1 && r.LowFreqFactor > 0 && r.HighFreqFactor > r.LowFreqFactor && r.OriginalMaxPositionEmbeddings > 0) {
			return errors.New("rope_scaling: llama3 needs factor ≥ 1, 0 < low_freq_factor < high_freq_factor and original_max_position_embeddings")
		}
	default:
		return fmt.Errorf("rope_scaling.rope_type %q is unknown: Updraft runs default, linear and llama3", r.kind())
	}
	for _, id := range c.EOSTokenID {
		if id < 0 || int(id) >= c.VocabSize {
			return fmt.Errorf("eos_token_id %d is outside the vocabulary of %d", id, c.VocabSize)
		}
	}
	return nil
}

// qkvBias reports whether the query, key and value projections have biases.
func (c *Config) qkvBias() bool { return c.ModelType == "qwen2" }

// qkNorm reports whether queries and keys are normalised per head.
func (c *Config) qkNorm() bool { return c.ModelType == "qwen3" }

// NumParameters returns the number of weights, tied embeddings counted once.
func (c *Config) NumParameters() int64 {
	var n int64
	for _, p := range newLayout(c).params {
		n += int64(p.len())
	}
	return n
}
