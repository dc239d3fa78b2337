package gpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/model"
)

// tinyModel is a decoder of a family with grouped queries, whose rows are whole
// packs of 16 bytes. "untied" is llama with a head of its own.
func tinyModel(kind string) model.Config {
	c := model.Config{
		ModelType: kind, HiddenSize: 48, IntermediateSize: 72, NumHiddenLayers: 2, NumAttentionHeads: 4, NumKeyValueHeads: 2,
		HeadDim: 16, HiddenAct: "silu", VocabSize: 61, MaxPositionEmbeddings: 256, TieWordEmbeddings: true, RMSNormEps: 1e-5,
		RopeTheta: 1e4, InitializerRange: 0.3, EOSTokenID: model.TokenIDs{1},
	}
	if kind == "untied" {
		c.ModelType, c.TieWordEmbeddings = "llama", false
	}
	return c
}

var families = []string{"llama", "qwen2", "qwen3", "untied"}

// variant is a family at a precision.
type variant struct {
	name, kind string
	weights    engine.DType
}

func familiesAndTypes() (all []variant) {
	for _, kind := range families {
		for _, d := range []engine.DType{engine.F32, engine.BF16} {
			all = append(all, variant{kind + "/" + d.String(), kind, d})
		}
	}
	return all
}

// newModel makes a model with the weights that the same call makes on any backend;
// norms and biases are moved off ones and zeros.
func newModel(t testing.TB, be engine.Backend, kind string, o model.Options) *model.Model {
	t.Helper()
	m, err := model.New(be, tinyModel(kind), 7, o)
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(3, 5))
	for _, p := range m.Params() {
		if p.Rows > 0 {
			continue
		}
		v, err := m.ReadParam(t.Context(), model.Weights, p.Name)
		require.NoError(t, err)
		for i := range v {
			v[i] += 0.3 * (rng.Float32() - 0.5)
		}
		require.NoError(t, m.WriteParam(t.Context(), model.Weights, p.Name, v))
	}
	m.RefreshWeights()
	return m
}

func randomTokens(rng *rand.Rand, n, vocab int) []int32 {
	t := make([]int32, n)
	for i := range t {
		t[i] = int32(rng.IntN(vocab))
	}
	return t
}

// rollout samples completions of prompts whose lengths lie around the bounds of
// pages and splits, and returns them as a batch with the log-probs and entropies
// that were recorded.
func rollout(t testing.TB, m *model.Model) (b model.Batch, logp, entropy []float32) {
	t.Helper()
	s, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: 7, MaxTokens: 160, PrefillRows: 160})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	rng := rand.New(rand.NewPCG(1, 11))
	var handles []*model.Handle
	for i, n := range []int{1, 31, 33, 64, 66, 130} {
		p := randomTokens(rng, n, m.Config().VocabSize)
		h, err := s.Submit(model.Request{Prompt: p, PromptIndex: i, N: 2, MaxNewTokens: 12, Seed: 42, Step: 3, Sampling: model.Sampling{Temperature: 1}})
		require.NoError(t, err)
		handles = append(handles, h)
		b.Groups = append(b.Groups, model.Group{Prompt: p})
	}
	require.NoError(t, s.Run(t.Context()))
	for i, h := range handles {
		require.NoError(t, h.Err())
		for _, c := range h.Completions() {
			b.Groups[i].Responses = append(b.Groups[i].Responses, c.Tokens)
			logp, entropy = append(logp, c.LogProbs...), append(entropy, c.Entropies...)
		}
	}
	return b, logp, entropy
}

func forward(t testing.TB, m *model.Model, b *model.Batch) (logp, entropy []float32) {
	t.Helper()
	parts, err := b.Split(m.Options().MaxRows)
	require.NoError(t, err)
	for i := range parts {
		out, err := m.Forward(t.Context(), &parts[i].Batch)
		require.NoError(t, err)
		logp, entropy = append(logp, out.LogProbs...), append(entropy, out.Entropies...)
	}
	return logp, entropy
}

// sameBits counts the elements that differ in bits.
func bitDiffs(a, b []float32) int {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	n := 0
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			n++
		}
	}
	return n
}

// The log-probs and entropies of a rollout are those of the training forward, bit
// for bit, shared and unshared, in large parts and small; a defect of one unit in
// the last place shows.
func TestModelRolloutEqualsForward(t *testing.T) {
	for _, c := range familiesAndTypes() {
		t.Run(c.name, func(t *testing.T) {
			b := open(t, Options{})
			m := newModel(t, b, c.kind, model.Options{MaxRows: 700, Weights: c.weights})
			defer m.Close()
			batch, logp, entropy := rollout(t, m)
			require.Greater(t, len(logp), 60)
			for _, unshare := range []bool{false, true} {
				batch.Unshare = unshare
				p, e := forward(t, m, &batch)
				require.Zero(t, bitDiffs(logp, p), "log-probs, unshared: %v", unshare)
				require.Zero(t, bitDiffs(entropy, e), "entropies, unshared: %v", unshare)
			}
			if testing.Short() {
				return
			}
			small := newModel(t, b, c.kind, model.Options{MaxRows: 160, Weights: c.weights})
			defer small.Close()
			p, _ := forward(t, small, &batch)
			require.Zero(t, bitDiffs(logp, p), "log-probs in small parts")

			const norm = "model.norm.weight"
			v, err := m.ReadParam(t.Context(), model.Weights, norm)
			require.NoError(t, err)
			if v[7] = math.Nextafter32(v[7], 2); c.weights == engine.BF16 {
				v[7] *= 1 + 1.0/(1<<8) // one that survives the rounding of the norm's result
			}
			require.NoError(t, m.WriteParam(t.Context(), model.Weights, norm, v))
			m.RefreshWeights()
			p, _ = forward(t, m, &batch)
			require.Positive(t, bitDiffs(logp, p), "a defect of one ulp must not pass")
		})
	}
}

// With adapters too, after updates of them: products see the weights merged anew.
// The frozen ones come back to the bit.
func TestAdaptersRolloutEqualsForward(t *testing.T) {
	for _, c := range []variant{{"qwen2/F32", "qwen2", engine.F32}, {"qwen3/BF16", "qwen3", engine.BF16}} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t, Options{})
			m := newModel(t, b, c.kind, model.Options{Trainable: true, MaxRows: 700, Weights: c.weights,
				LoRA: &model.LoRA{R: 4, Alpha: 5, TargetModules: []string{model.AllLinear}}})
			defer m.Close()
			batch, logp, _ := rollout(t, m)
			frozen := logp
			for range 2 {
				m.ZeroGrad()
				p, _ := forward(t, m, &batch)
				require.Zero(t, bitDiffs(logp, p), "log-probs")
				d := make([]float32, len(p))
				for i := range d {
					d[i] = -1
				}
				require.NoError(t, m.Backward(t.Context(), d, nil))
				norm, err := m.GradNorm(t.Context())
				require.NoError(t, err)
				require.Positive(t, norm)
				m.AdamWStep(model.AdamW{LR: 0.05})
				first := batch
				batch, logp, _ = rollout(t, m)
				require.NoError(t, m.WithoutAdapters(func() error {
					p, _ := forward(t, m, &first)
					require.Zero(t, bitDiffs(frozen, p), "frozen weights")
					frozen, _ = forward(t, m, &batch)
					return nil
				}))
				require.Positive(t, bitDiffs(frozen, logp), "the adapters do nothing")
			}
		})
	}
}

// steps is a training step: two parts of a batch forward and backward, norm,
// update; a rollout after it.
func step(t testing.TB, m *model.Model, s *model.Scheduler, b *model.Batch, d []float32) {
	t.Helper()
	m.ZeroGrad()
	parts, err := b.Split(m.Options().MaxRows)
	require.NoError(t, err)
	for _, p := range parts {
		_, err := m.Forward(t.Context(), &p.Batch)
		require.NoError(t, err)
		require.NoError(t, m.Backward(t.Context(), d[p.From:p.To], nil))
	}
	_, err = m.GradNorm(t.Context())
	require.NoError(t, err)
	m.AdamWStep(model.AdamW{LR: 0.001})
	for i, g := range b.Groups {
		_, err := s.Submit(model.Request{Prompt: g.Prompt, PromptIndex: i, N: 2, MaxNewTokens: 6, Seed: 1, Sampling: model.Sampling{Temperature: 1}})
		require.NoError(t, err)
	}
	require.NoError(t, s.Run(t.Context()))
}

// A step that has run once makes the driver allocate nothing, load nothing and
// capture nothing when it runs again.
func TestSteadyStep(t *testing.T) {
	b := open(t, Options{})
	m := newModel(t, b, "qwen3", model.Options{Trainable: true, MaxRows: 200, Weights: engine.BF16, Moments: engine.U8})
	defer m.Close()
	s, err := model.NewScheduler(m, model.SchedulerOptions{MaxBatch: 4, MaxTokens: 100})
	require.NoError(t, err)
	defer s.Close()
	rng := rand.New(rand.NewPCG(2, 2))
	var batch model.Batch
	for _, n := range []int{3, 40, 70} {
		batch.Groups = append(batch.Groups, model.Group{Prompt: randomTokens(rng, n, 61),
			Responses: [][]int32{randomTokens(rng, 9, 61), randomTokens(rng, 20, 61)}})
	}
	d := make([]float32, batch.Tokens())
	for i := range d {
		d[i] = float32(i%5) - 2
	}
	for range 2 {
		step(t, m, s, &batch, d)
	}
	before := b.driver.CallCounts()
	step(t, m, s, &batch, d)
	after := b.driver.CallCounts()
	ran := 0
	for call, n := range after {
		switch call {
		case "cuLaunchKernel", "cuGraphLaunch", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2",
			"cuMemsetD32Async", "cuMemsetD8Async", "cuEventRecord", "cuEventQuery", "cuEventSynchronize", "cuStreamSynchronize":
			ran += n - before[call]
		default:
			require.Equal(t, before[call], n, call)
		}
	}
	require.Greater(t, ran, 100)
}

func TestModelDescribesItself(t *testing.T) {
	b := open(t, Options{})
	require.Contains(t, b.Name(), fmt.Sprintf("cuda:0 (%s", b.Device().Name))
}
