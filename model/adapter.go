package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

// Files of an adapter directory in PEFT's layout.
const (
	AdapterConfigFile  = "adapter_config.json"
	AdapterWeightsFile = "adapter_model.safetensors"
)

// baseKey is where adapter_model.safetensors holds a digest of the frozen weights,
// among the metadata, which others ignore.
const baseKey = "updraft_base"

// adapterConfig is what adapter_config.json must say for PEFT to make the same
// adapters, and what else it may say.
type adapterConfig struct {
	Type       string          `json:"peft_type"`
	TaskType   string          `json:"task_type"`
	Base       string          `json:"base_model_name_or_path"`
	R          int             `json:"r"`
	Alpha      float64         `json:"lora_alpha"`
	Dropout    float64         `json:"lora_dropout"`
	Targets    json.RawMessage `json:"target_modules"` // a list, or a text
	Bias       string          `json:"bias"`
	FanInOut   bool            `json:"fan_in_fan_out"`
	Inference  bool            `json:"inference_mode"`
	Initialise json.RawMessage `json:"init_lora_weights"` // true, or a way of it
}

// readAdapterConfig reads adapter_config.json and refuses what changes the
// adapters' equation or their places.
func readAdapterConfig(dir string) (LoRA, error) {
	path := filepath.Join(dir, AdapterConfigFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return LoRA{}, fmt.Errorf("model: %w: an adapter directory holds %s and %s", err, AdapterConfigFile, AdapterWeightsFile)
	}
	fail := func(format string, args ...any) (LoRA, error) {
		return LoRA{}, fmt.Errorf("model: %s: %w", path, fmt.Errorf(format, args...))
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return fail("not valid JSON: %w", err)
	}
	var c adapterConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return fail("%w", err)
	}
	switch {
	case c.Type != "LORA":
		return fail("peft_type %q: Updraft reads LORA", c.Type)
	case c.R < 1:
		return fail("r is %d: must be positive", c.R)
	case c.Bias != "none" && c.Bias != "":
		return fail("bias %q: Updraft reads adapters without trained biases", c.Bias)
	case c.FanInOut:
		return fail("fan_in_fan_out true: not of a Llama-style model")
	}
	for _, key := range []string{"use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform",
		"layer_replication", "exclude_modules", "target_parameters", "trainable_token_indices", "megatron_config", "lora_bias",
		"use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "velora_config"} {
		if v := string(keys[key]); v != "" && v != "null" && v != "false" && v != "{}" && v != "[]" {
			return fail("%s is set: Updraft reads plain LoRA adapters, of one rank", key)
		}
	}
	switch init := string(c.Initialise); init {
	case "", "null", "true", "false", `"gaussian"`, `"eva"`, `"orthogonal"`:
	default:
		return fail("init_lora_weights %s: a way that changes the base model's weights too", init)
	}
	l := LoRA{R: c.R, Alpha: c.Alpha, Base: c.Base}
	var one string
	if json.Unmarshal(c.Targets, &one) == nil {
		l.TargetModules = []string{one}
	} else if err := json.Unmarshal(c.Targets, &l.TargetModules); err != nil {
		return fail("target_modules must be a list of names")
	}
	for i, name := range l.TargetModules { // PEFT takes ends of full names
		l.TargetModules[i] = name[strings.LastIndexByte(name, '.')+1:]
	}
	if l, err = l.resolve(); err != nil {
		return fail("%s", strings.TrimPrefix(err.Error(), "model: "))
	}
	return l, nil
}

// IsAdapter reports whether dir holds an adapter and no weights of its own.
func IsAdapter(dir string) bool {
	has := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	return has(AdapterConfigFile) && !has(checkpoint.WeightsFile) && !has(checkpoint.IndexFile)
}

// over returns l with where the frozen weights are, unless it says so itself.
func (l LoRA) over(path string) *LoRA {
	if l.Base == "" {
		l.Base = path
		if abs, err := filepath.Abs(path); err == nil {
			l.Base = abs
		}
	}
	return &l
}

// AdapterBase returns what adapter_config.json in dir names as the base model: a
// directory or a GGUF file, or, in one that Updraft has not written, perhaps a
// name of the Hub's.
func AdapterBase(dir string) (string, error) {
	l, err := readAdapterConfig(dir)
	if err != nil {
		return "", err
	}
	if l.Base == "" {
		return "", fmt.Errorf("model: %s: base_model_name_or_path is not set: name the model that the adapter belongs to", filepath.Join(dir, AdapterConfigFile))
	}
	return l.Base, nil
}

// ConfigAt reads the architecture of what Load reads: of a checkpoint directory, or
// of the base model of an adapter directory.
func ConfigAt(path string) (Config, error) {
	switch {
	case isGGUF(path):
		g, err := checkpoint.OpenGGUF(path)
		if err != nil {
			return Config{}, err
		}
		defer g.Close()
		return ConfigOfGGUF(g)
	case IsAdapter(path):
		base, err := baseOf(path)
		if err != nil {
			return Config{}, err
		}
		return ConfigAt(base)
	}
	return ReadConfig(filepath.Join(path, ConfigFile))
}

func isGGUF(path string) bool { return strings.HasSuffix(strings.ToLower(path), ".gguf") }

// baseOf returns where the base model of an adapter directory lies on this machine.
func baseOf(dir string) (string, error) {
	base, err := AdapterBase(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(base); err != nil || base == dir {
		return "", fmt.Errorf("model: the base model %s of the adapter in %s is not there: put its directory into base_model_name_or_path of %s", base, dir, AdapterConfigFile)
	}
	return base, nil
}

// SaveAdapter writes the adapters in PEFT's layout, in F32, into an existing
// directory: adapter_config.json and adapter_model.safetensors, each atomically.
func (m *Model) SaveAdapter(ctx context.Context, dir string) error {
	if m.tuning == nil {
		return errNoAdapter
	}
	digest, err := m.baseDigest(ctx)
	if err != nil {
		return err
	}
	l := m.opts.LoRA
	targets, err := json.Marshal(l.TargetModules)
	if err != nil {
		return err
	}
	err = writeJSON(filepath.Join(dir, AdapterConfigFile), adapterConfig{
		Type: "LORA", TaskType: "CAUSAL_LM", Base: l.Base, R: l.R, Alpha: l.Alpha, Targets: targets, Bias: "none", Inference: true,
		Initialise: json.RawMessage("true"),
	})
	if err != nil {
		return err
	}
	var list []saved
	for _, p := range m.trained.params {
		list = append(list, saved{p.Name, p.Shape(), viewOf(m.tuning.masters, p)})
	}
	return m.write(ctx, filepath.Join(dir, AdapterWeightsFile), map[string]string{"format": "pt", baseKey: digest}, list)
}

// writeJSON writes v atomically.
func writeJSON(path string, v any) error {
	return checkpoint.WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	})
}

// LoadAdapter replaces m's adapters by those of a directory in PEFT's layout, of
// the same rank, alpha and targets and, where the file says, of the same base.
// The optimizer stays as it is.
func (m *Model) LoadAdapter(ctx context.Context, dir string) error {
	if m.tuning == nil {
		return errNoAdapter
	}
	l, err := readAdapterConfig(dir)
	if err != nil {
		return err
	}
	if have := m.opts.LoRA; l.R != have.R || l.Alpha != have.Alpha || !slices.Equal(l.TargetModules, have.TargetModules) {
		return fmt.Errorf("model: %s: r %d, alpha %g and target modules %s, where this model has %d, %g and %s",
			dir, l.R, l.Alpha, strings.Join(l.TargetModules, ", "), have.R, have.Alpha, strings.Join(have.TargetModules, ", "))
	}
	if err := m.readAdapters(ctx, m.tuning.adapters, dir); err != nil {
		return err
	}
	m.live = nil
	m.refreshTargets(true)
	return m.be.Sync()
}

// loadAdapted loads the base model of an adapter directory and adds the adapter to
// its weights. New adapters that o asks for begin over the sum.
func loadAdapted(ctx context.Context, be engine.Backend, dir string, o Options) (*Model, error) {
	base, err := baseOf(dir)
	if err != nil {
		return nil, err
	}
	from := Load
	if isGGUF(base) {
		from = LoadGGUF
	}
	m, err := from(ctx, be, base, o)
	if err != nil {
		return nil, fmt.Errorf("%w (the base model of the adapter in %s)", err, dir)
	}
	if err := m.addAdapter(ctx, dir); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// addAdapter adds an adapter to the weights for good.
func (m *Model) addAdapter(ctx context.Context, dir string) error {
	l, err := readAdapterConfig(dir)
	if err != nil {
		return err
	}
	// The type that the weights are kept in: of masters, where there are any.
	t, err := newAdapters(m.be, newAdapterSet(l, m.layout), m.matrices().Buf.DType())
	if err != nil {
		return err
	}
	defer t.free()
	if err := m.readAdapters(ctx, t, dir); err != nil {
		return err
	}
	t.refresh()
	for i, ad := range t.list {
		w, err := m.source(ad.target)
		if err != nil {
			return err
		}
		t.addTo(engine.Matrix(w.Buf, w.Off, ad.target.Rows, ad.target.Cols), i)
	}
	m.baseSum = ""
	m.RefreshWeights()
	return m.be.Sync()
}

// readAdapters fills the masters of t from a directory.
func (m *Model) readAdapters(ctx context.Context, t *adapters, dir string) error {
	v, err := t.read(dir, func() (string, error) { return m.baseDigest(ctx) })
	if err != nil {
		return err
	}
	t.upload(v)
	return nil
}

// read returns the masters that a directory holds. digest is asked for the base
// model's where the file has one to compare.
func (s *adapterSet) read(dir string, digest func() (string, error)) ([]float32, error) {
	path := filepath.Join(dir, AdapterWeightsFile)
	r, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if want := r.Metadata()[baseKey]; want != "" {
		got, err := digest()
		if err != nil {
			return nil, err
		}
		if got != want {
			return nil, fmt.Errorf("model: %s: belongs to a base model with other weights than these", path)
		}
	}
	if got, want := len(r.Tensors()), len(s.params); got != want {
		return nil, fmt.Errorf("model: %s: %d tensors where r and target_modules make %d", path, got, want)
	}
	v := make([]float32, s.total)
	for _, p := range s.params {
		if err := r.ReadF32(p.Name, p.Shape(), v[p.off:p.off+p.len()]); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// SaveState writes what LoadWeights reads to go on from here: the whole model, as
// Save does, or its adapters, as SaveAdapter does.
func (m *Model) SaveState(ctx context.Context, dir string) error {
	if m.tuning == nil {
		return m.Save(ctx, dir)
	}
	return m.SaveAdapter(ctx, dir)
}

var errNoAdapter = errors.New("model: no adapter: set Options.LoRA")
