package model

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model/checkpoint"
)

func TestConfigFiles(t *testing.T) {
	const base = `"hidden_size":64,"intermediate_size":96,"num_hidden_layers":2,"num_attention_heads":4,"vocab_size":100,"max_position_embeddings":512`
	for name, c := range map[string]struct {
		file  string
		check func(t *testing.T, c Config)
	}{
		"llama": {`{"architectures":["LlamaForCausalLM"],"model_type":"llama",` + base + `,"rope_theta":500000.0,"eos_token_id":[7,8],"num_key_value_heads":2}`, func(t *testing.T, c Config) {
			require.Equal(t, 500000.0, c.RopeTheta)
			require.Equal(t, TokenIDs{7, 8}, c.EOSTokenID)
			require.Equal(t, 16, c.HeadDim)
			require.False(t, c.qkvBias() || c.qkNorm())
		}},
		"qwen2": {`{"architectures":["Qwen2ForCausalLM"],` + base + `,"eos_token_id":7}`, func(t *testing.T, c Config) {
			require.Equal(t, 4, c.NumKeyValueHeads)
			require.True(t, c.qkvBias())
			require.Equal(t, TokenIDs{7}, c.EOSTokenID)
		}},
		"qwen3": {`{"model_type":"qwen3",` + base + `,"eos_token_id":null}`, func(t *testing.T, c Config) {
			require.Equal(t, 128, c.HeadDim)
			require.True(t, c.qkNorm())
			require.Empty(t, c.EOSTokenID)
		}},
		"rope_parameters": {`{"model_type":"llama",` + base + `,"rope_parameters":{"rope_type":"llama3","rope_theta":1e6,"factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":8192}}`, func(t *testing.T, c Config) {
			require.Equal(t, 1e6, c.RopeTheta)
			require.Equal(t, "llama3", c.RopeScaling.kind())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), ConfigFile)
			require.NoError(t, os.WriteFile(path, []byte(c.file), 0o644))
			cfg, err := ReadConfig(path)
			require.NoError(t, err)
			c.check(t, cfg)
			b, err := json.Marshal(cfg)
			require.NoError(t, err)
			again, err := parseConfig(b)
			require.NoError(t, err)
			require.Equal(t, cfg, again, "survives writing")
		})
	}
	for name, c := range map[string]struct{ from, to, want string }{
		"architecture": {`"model_type":"llama"`, `"model_type":"mamba"`, `model_type "mamba" is unknown: Updraft runs llama, qwen2 and qwen3`},
		"none":         {`"model_type":"llama"`, `"architectures":["MambaForCausalLM"]`, "MambaForCausalLM"},
		"mismatch":     {`"model_type":"llama"`, `"model_type":"llama","architectures":["BertModel"]`, "does not go with"},
		"type":         {`"hidden_size":64`, `"hidden_size":"64"`, "field hidden_size: expected int, found string"},
		"json":         {`"hidden_size":64`, `"hidden_size":`, "not valid JSON"},
		"zero":         {`"hidden_size":64`, `"hidden_size":0`, "hidden_size is 0: must be positive"},
		"huge":         {`"vocab_size":100`, `"vocab_size":1000000000`, "not plausible"},
		"heads":        {`"num_attention_heads":4`, `"num_attention_heads":4,"num_key_value_heads":3`, "not a multiple"},
		"head_dim":     {`"num_attention_heads":4`, `"num_attention_heads":4,"head_dim":5`, "head_dim 5 is odd"},
		"act":          {`"vocab_size":100`, `"vocab_size":100,"hidden_act":"gelu"`, `hidden_act "gelu"`},
		"rope":         {`"vocab_size":100`, `"vocab_size":100,"rope_scaling":{"type":"yarn","factor":4}`, `rope_type "yarn" is unknown`},
		"llama3":       {`"vocab_size":100`, `"vocab_size":100,"rope_scaling":{"rope_type":"llama3","factor":4}`, "llama3 needs"},
		"linear":       {`"vocab_size":100`, `"vocab_size":100,"rope_scaling":{"rope_type":"linear","factor":0.5}`, "at least 1"},
		"eps":          {`"vocab_size":100`, `"vocab_size":100,"rms_norm_eps":2`, "rms_norm_eps is 2"},
		"theta":        {`"vocab_size":100`, `"vocab_size":100,"rope_theta":-1`, "rope_theta is -1"},
		"mlp_bias":     {`"vocab_size":100`, `"vocab_size":100,"mlp_bias":true`, "mlp_bias"},
		"bias":         {`"vocab_size":100`, `"vocab_size":100,"attention_bias":true`, "attention_bias"},
		"window":       {`"vocab_size":100`, `"vocab_size":100,"use_sliding_window":true`, "sliding"},
		"eos":          {`"vocab_size":100`, `"vocab_size":100,"eos_token_id":100`, "eos_token_id 100 is outside"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), ConfigFile)
			ok := `{"model_type":"llama",` + base + `}`
			require.Contains(t, ok, c.from)
			require.NoError(t, os.WriteFile(path, []byte(strings.Replace(ok, c.from, c.to, 1)), 0o644))
			_, err := ReadConfig(path)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := ReadConfig(filepath.Join(t.TempDir(), ConfigFile))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// Llama 3's rule: high frequencies stay, low ones are divided by the factor,
// and the two meet without a step.
func TestRopeScaling(t *testing.T) {
	r := &RopeScaling{RopeType: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositionEmbeddings: 8192}
	at := func(turns float64) float64 { return turns * 2 * math.Pi / 8192 }
	require.Equal(t, at(5), scaleFrequency(r, at(5)))
	require.Equal(t, at(0.5)/8, scaleFrequency(r, at(0.5)))
	require.InEpsilon(t, at(4), scaleFrequency(r, at(4-1e-9)), 1e-8)
	require.InEpsilon(t, at(1)/8, scaleFrequency(r, at(1+1e-9)), 1e-8)
	require.Equal(t, 0.25, scaleFrequency(&RopeScaling{Type: "linear", Factor: 2}, 0.5))
}

func TestInitialWeights(t *testing.T) {
	cfg := tinyConfig("qwen2")
	cfg.InitializerRange = 0.02
	l := newLayout(&cfg)
	draw := func(seed uint64) []float32 {
		w := make([]float32, l.total)
		drawWeights(&cfg, l, seed, func(at int, v []float32) { copy(w[at:], v) })
		return w
	}
	a, b, other := draw(3), draw(3), draw(4)
	require.Equal(t, a, b)
	require.NotEqual(t, a, other)
	for _, p := range l.params {
		v := a[p.off : p.off+p.len()]
		var mean, sq float64
		for _, x := range v {
			mean += float64(x) / float64(len(v))
			sq += float64(x) * float64(x) / float64(len(v))
		}
		switch {
		case strings.HasSuffix(p.Name, "bias"):
			require.Zero(t, sq, p.Name)
		case p.Rows == 0:
			require.InDelta(t, 1, sq, 1e-9, p.Name)
		default:
			want := 0.02
			if strings.Contains(p.Name, "o_proj") || strings.Contains(p.Name, "down_proj") {
				want /= 2 // √(2·2 layers)
			}
			require.InEpsilon(t, want, math.Sqrt(sq), 0.15, p.Name)
			require.InDelta(t, 0, mean, 5*want/math.Sqrt(float64(len(v))), p.Name)
		}
	}
}

// Saved and loaded models are the same to the bit, and so is training that
// goes on from them.
func TestSaveAndLoad(t *testing.T) {
	be, rounding := newCPU(t), newRounding(t)
	for _, c := range []struct {
		name, kind string
		be         engine.Backend
		o          Options
	}{
		{"llama", "llama", be, Options{}},
		{"qwen2", "qwen2", be, Options{}},
		{"qwen3", "qwen3", be, Options{}},
		{"untied", "untied", be, Options{}},
		{"8-bit moments", "qwen2", be, Options{Moments: engine.U8}},
		{"BF16", "qwen2", rounding, Options{Weights: engine.BF16}},
		{"BF16, 8-bit moments", "untied", rounding, Options{Weights: engine.BF16, Moments: engine.U8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			be, o := c.be, c.o
			o.Trainable, o.MaxRows = true, 200
			m := newTiny(t, be, c.kind, o)
			b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
			dp := make([]float32, b.Tokens())
			for i := range dp {
				dp[i] = -1
			}
			train := func(m *Model) {
				for range 3 {
					gradients(t, m, &b, dp)
					m.AdamWStep(AdamW{LR: 0.01, WeightDecay: 0.1})
				}
			}
			train(m)
			dir := t.TempDir()
			require.NoError(t, m.Save(ctx, dir))
			path := filepath.Join(dir, OptimizerFile)
			require.NoError(t, m.SaveOptimizer(ctx, path))
			again, err := Load(ctx, be, dir, o)
			require.NoError(t, err)
			defer again.Close()
			require.NoError(t, again.LoadOptimizer(ctx, path))
			require.Equal(t, 3, again.StepCount())
			require.Equal(t, m.cfg.RopeTheta, again.cfg.RopeTheta)
			train(m)
			train(again)
			for _, role := range []Role{Weights, Moment1, Moment2} {
				for _, p := range m.Params() {
					want, err := m.ReadParam(ctx, role, p.Name)
					require.NoError(t, err)
					got, err := again.ReadParam(ctx, role, p.Name)
					require.NoError(t, err)
					require.Zero(t, bitDiffs(want, got), p.Name)
				}
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "llama", Options{Trainable: true, MaxRows: 10})
	save := func(t *testing.T) string {
		dir := t.TempDir()
		require.NoError(t, m.Save(ctx, dir))
		return dir
	}
	load := func(t *testing.T, dir string) error {
		l, err := Load(ctx, be, dir, Options{})
		if err == nil {
			l.Close()
		} else {
			require.NotContains(t, err.Error(), "\n")
		}
		return err
	}
	// rewrite saves m with changed tensors.
	rewrite := func(t *testing.T, change func([]checkpoint.Info) []checkpoint.Info) string {
		dir := save(t)
		var infos []checkpoint.Info
		for _, p := range m.Params() {
			infos = append(infos, checkpoint.Info{Name: p.Name, Shape: p.Shape()})
		}
		infos = change(infos)
		w, err := checkpoint.Create(filepath.Join(dir, WeightsFile), infos, nil)
		require.NoError(t, err)
		for _, i := range infos {
			require.NoError(t, w.WriteF32(i.Name, make([]float32, i.Len())))
		}
		require.NoError(t, w.Commit())
		return dir
	}
	require.NoError(t, load(t, save(t)))
	require.NoError(t, load(t, rewrite(t, func(i []checkpoint.Info) []checkpoint.Info {
		return append(i, checkpoint.Info{Name: "lm_head.weight", Shape: i[0].Shape}) // tied, yet written
	})))
	require.ErrorContains(t, load(t, rewrite(t, func(i []checkpoint.Info) []checkpoint.Info { return i[1:] })), `tensor "model.embed_tokens.weight" is missing`)
	require.ErrorContains(t, load(t, rewrite(t, func(i []checkpoint.Info) []checkpoint.Info {
		return append(i, checkpoint.Info{Name: "model.layers.2.x"})
	})), `tensor "model.layers.2.x" does not belong`)
	require.ErrorContains(t, load(t, rewrite(t, func(i []checkpoint.Info) []checkpoint.Info {
		i[1].Shape = []int{3}
		return i
	})), "has shape [3]")

	dir := save(t)
	path := filepath.Join(dir, WeightsFile)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b[:len(b)-1], 0o644))
	require.ErrorContains(t, load(t, dir), "truncated")
	require.NoError(t, os.Remove(path))
	require.ErrorIs(t, load(t, dir), os.ErrNotExist)
	require.NoError(t, os.WriteFile(path+".index.json", nil, 0o644))
	require.ErrorContains(t, load(t, dir), "not a valid index")
	require.ErrorIs(t, load(t, t.TempDir()), os.ErrNotExist)

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = Load(cancelled, be, save(t), Options{})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorIs(t, m.Save(cancelled, t.TempDir()), context.Canceled)

	dir = save(t)
	require.ErrorContains(t, m.LoadOptimizer(ctx, filepath.Join(dir, WeightsFile)), "not an optimizer state")
	other := newTiny(t, be, "qwen2", Options{Trainable: true})
	require.NoError(t, other.SaveOptimizer(ctx, filepath.Join(dir, OptimizerFile)))
	require.ErrorContains(t, m.LoadOptimizer(ctx, filepath.Join(dir, OptimizerFile)), "belongs to another model")
}

func TestCloneAndCopy(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "qwen3", Options{Trainable: true, MaxRows: 200})
	b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
	c, err := m.Clone(ctx, Options{MaxRows: 200})
	require.NoError(t, err)
	defer c.Close()
	want, _ := forward(t, m, &b)
	got, _ := forward(t, c, &b)
	require.Zero(t, bitDiffs(want, got))

	gradients(t, m, &b, make([]float32, b.Tokens()))
	dp := make([]float32, b.Tokens())
	dp[0] = 1
	gradients(t, m, &b, dp)
	m.AdamWStep(AdamW{LR: 0.01})
	after, _ := forward(t, m, &b)
	require.Positive(t, bitDiffs(want, after))
	got, _ = forward(t, c, &b)
	require.Zero(t, bitDiffs(want, got), "a clone is apart")
	require.NoError(t, c.CopyWeights(m))
	got, _ = forward(t, c, &b)
	require.Zero(t, bitDiffs(after, got))

	require.Error(t, c.CopyWeights(newTiny(t, be, "llama", Options{})))
	require.Error(t, c.CopyWeights(newTiny(t, newCPU(t), "qwen3", Options{})))
	_, err = c.ReadParam(ctx, Gradients, "model.norm.weight")
	require.ErrorIs(t, err, errNotTrainable)
	_, err = c.ReadParam(ctx, Weights, "model.norm")
	require.ErrorContains(t, err, `no parameter named "model.norm"`)
	require.ErrorContains(t, c.WriteParam(ctx, Weights, "model.norm.weight", nil), "not 0")
}

// Hidden is the state from which the head predicts: its log-probs are those
// of a response's first token.
func TestHidden(t *testing.T) {
	be := newCPU(t)
	m := newTiny(t, be, "untied", Options{Trainable: true, MaxRows: 80})
	prompts := testPrompts(m.cfg.VocabSize)
	got, err := m.Hidden(ctx, prompts)
	require.NoError(t, err)
	require.Len(t, got, len(prompts))
	w, err := m.ReadParam(ctx, Weights, "lm_head.weight")
	require.NoError(t, err)
	C := m.cfg.HiddenSize
	for i, p := range prompts {
		out, err := m.Forward(ctx, &Batch{Groups: []Group{{Prompt: p, Responses: [][]int32{{7}}}}})
		require.NoError(t, err)
		var z7, sum float64
		for v := range m.cfg.VocabSize {
			var z float64
			for j, h := range got[i] {
				z += float64(h) * float64(w[v*C+j])
			}
			sum += math.Exp(z)
			if v == 7 {
				z7 = z
			}
		}
		require.InDelta(t, z7-math.Log(sum), float64(out.LogProbs[0]), 1e-4)
	}
	_, err = m.Hidden(ctx, [][]int32{{}})
	require.Error(t, err)
	_, err = m.Hidden(ctx, [][]int32{make([]int32, 81)})
	require.Error(t, err)
}

func TestBatchErrors(t *testing.T) {
	m := newTiny(t, newCPU(t), "llama", Options{MaxRows: 200})
	for name, c := range map[string]struct {
		batch Batch
		want  string
	}{
		"nothing":  {Batch{}, "without response tokens"},
		"prompt":   {Batch{Groups: []Group{{Responses: [][]int32{{1}}}}}, "group 0 has an empty prompt"},
		"token":    {Batch{Groups: []Group{{Prompt: []int32{1}, Responses: [][]int32{{1}, {-1}}}}}, "response 1 of group 0: token -1"},
		"context":  {Batch{Groups: []Group{{Prompt: []int32{1}, Responses: [][]int32{make([]int32, 161)}}}}, "the context is 160"},
		"too long": {Batch{Groups: []Group{{Prompt: []int32{1}, Responses: [][]int32{make([]int32, 150), make([]int32, 51)}}}}, "201 packed rows, the plan has 200"},
	} {
		_, err := m.Forward(ctx, &c.batch)
		require.ErrorContains(t, err, c.want, name)
	}
	_, err := m.Forward(ctx, &Batch{Groups: []Group{{Prompt: []int32{1}, Responses: [][]int32{{}, make([]int32, 160)}}}})
	require.NoError(t, err)
}

func TestSplit(t *testing.T) {
	for _, unshare := range []bool{false, true} {
		b := randomBatch(2, 20, 5, 30, 1, 20, 33, 7, 50)
		b.Unshare, b.Scale = unshare, 0.5
		for _, rows := range []int{80, 100, 150, 300, 5000} {
			parts, err := b.Split(rows)
			require.NoError(t, err)
			var got []int32
			at, most, least := 0, 0, rows
			for _, p := range parts {
				require.Equal(t, at, p.From)
				require.Equal(t, p.To-p.From, p.Batch.Tokens())
				require.LessOrEqual(t, p.Batch.Rows(), rows)
				require.Equal(t, b.Scale, p.Batch.Scale)
				at = p.To
				most, least = max(most, p.Batch.Rows()), min(least, p.Batch.Rows())
				for _, g := range p.Batch.Groups {
					for _, r := range g.Responses {
						got = append(got, r...)
					}
				}
			}
			var want []int32
			for _, g := range b.Groups {
				for _, r := range g.Responses {
					want = append(want, r...)
				}
			}
			require.Equal(t, want, got)
			if rows == 300 && !unshare {
				require.Less(t, most-least, 120, "balanced")
			}
			if rows == 5000 {
				require.Len(t, parts, 1)
				require.Equal(t, b.Rows(), parts[0].Batch.Rows())
			}
		}
		_, err := b.Split(60)
		require.ErrorContains(t, err, "packed rows, the plan has 60")
	}
	parts, err := (&Batch{}).Split(10)
	require.NoError(t, err)
	require.Empty(t, parts)
}

// countingBackend counts what is allocated.
type countingBackend struct {
	engine.Backend
	allocs int
	bytes  int64
}

func (b *countingBackend) Alloc(d engine.DType, n int) (engine.Buffer, error) {
	b.allocs++
	b.bytes += int64(n * d.Size())
	return b.Backend.Alloc(d, n)
}

// The plan is what is allocated, and steps of training and generation allocate
// nothing.
func TestPlanIsWhatIsAllocated(t *testing.T) {
	for _, kind := range kinds {
		for _, o := range []Options{{}, {MaxRows: 100}, {Trainable: true, MaxRows: 300, MaxContext: 90}, {Trainable: true, MaxRows: 300, MaxContext: 90, Recompute: true},
			{Trainable: true, MaxRows: 300, MaxContext: 90, Moments: engine.U8}, {Weights: engine.BF16, MaxRows: 100},
			{Weights: engine.BF16, Trainable: true, MaxRows: 300, MaxContext: 90},
			{Weights: engine.BF16, Moments: engine.U8, Trainable: true, MaxRows: 300, MaxContext: 90, Recompute: true},
			{Trainable: true, MaxRows: 300, MaxContext: 90, LoRA: &LoRA{}},
			{Weights: engine.BF16, Moments: engine.U8, Trainable: true, MaxRows: 300, MaxContext: 90, LoRA: testLoRA()}} {
			for _, open := range []func(testing.TB) engine.Backend{newCPU, newRounding} {
				be := &countingBackend{Backend: open(t)}
				so := SchedulerOptions{MaxBatch: 7, MaxTokens: 80, Marker: []int32{1}, MarkerAfter: []int32{2}}
				m := newTiny(t, be, kind, o)
				s := newScheduler(t, m, so)
				plan := NewPlan(m.cfg, m.act, o, &so)
				var prepared int64
				for _, i := range plan.Items {
					if strings.HasPrefix(i.Name, "weights in") {
						prepared = i.Bytes
					}
					if i.Name == "gradients" { // and their norm
						require.Equal(t, int64(m.trained.total+1)*4, i.Bytes)
					}
				}
				require.Equal(t, m.act == engine.F32, prepared > 0)
				require.Equal(t, plan.Bytes()-prepared, be.bytes, "%s %+v", kind, o)
				if !o.Trainable {
					continue
				}
				step := func() {
					b := randomBatch(8, m.cfg.VocabSize, 2, 9, 5, 6)
					gradients(t, m, &b, make([]float32, b.Tokens()))
					m.AdamWStep(AdamW{LR: 0.01})
					run(t, s, Request{Prompt: []int32{1, 2, 3}, N: 9, MaxNewTokens: 40})
				}
				before := be.allocs
				step()
				step()
				require.Equal(t, before, be.allocs)
			}
		}
	}
}

func TestModelOptions(t *testing.T) {
	be := newCPU(t)
	for _, o := range []Options{{MaxContext: 161}, {MaxContext: -1}, {MaxRows: -1}} {
		_, err := New(be, tinyConfig("llama"), 1, o)
		require.Error(t, err)
	}
	_, err := New(be, Config{ModelType: "gpt2"}, 1, Options{})
	require.ErrorContains(t, err, "gpt2")
	m := newTiny(t, be, "llama", Options{})
	c := m.Config()
	var n int64
	for _, p := range m.Params() {
		n += int64(p.len())
	}
	require.Equal(t, n, c.NumParameters())
	require.Equal(t, 160, m.Options().MaxContext)
	require.Equal(t, be, m.Backend())
}
