package bench

import (
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/model"
)

// Shape is a model whose speed is measured. Its weights are random: no time here
// depends on their values.
type Shape struct {
	Name   string
	Config model.Config
}

// The named shapes.
const (
	Tiny    = "tiny"            // the demonstration's model
	SmolLM2 = "smollm2-135m"    // HuggingFaceTB/SmolLM2-135M
	Qwen25  = "qwen2.5-0.5b"    // Qwen/Qwen2.5-0.5B
	GPT2    = "gpt2-124m-sized" // a Llama with GPT-2's layers, width, vocabulary and number of parameters
)

// Shapes returns the named shapes, the smallest first.
func Shapes() []Shape {
	llama := model.Config{ModelType: "llama", HiddenAct: "silu", TieWordEmbeddings: true, InitializerRange: 0.02, RMSNormEps: 1e-5, RopeTheta: 10000}
	tiny, smol, gpt, qwen := llama, llama, llama, llama
	tiny.HiddenSize, tiny.IntermediateSize, tiny.NumHiddenLayers = 128, 352, 4
	tiny.NumAttentionHeads, tiny.NumKeyValueHeads, tiny.HeadDim = 4, 2, 32
	tiny.VocabSize, tiny.MaxPositionEmbeddings, tiny.RMSNormEps = 30, 1024, 1e-6
	gpt.HiddenSize, gpt.IntermediateSize, gpt.NumHiddenLayers = 768, 2048, 12
	gpt.NumAttentionHeads, gpt.NumKeyValueHeads, gpt.HeadDim = 12, 12, 64
	gpt.VocabSize, gpt.MaxPositionEmbeddings = 50257, 1024
	smol.HiddenSize, smol.IntermediateSize, smol.NumHiddenLayers = 576, 1536, 30
	smol.NumAttentionHeads, smol.NumKeyValueHeads, smol.HeadDim = 9, 3, 64
	smol.VocabSize, smol.MaxPositionEmbeddings, smol.RopeTheta = 49152, 8192, 100000
	qwen.ModelType, qwen.RMSNormEps, qwen.RopeTheta = "qwen2", 1e-6, 1e6
	qwen.HiddenSize, qwen.IntermediateSize, qwen.NumHiddenLayers = 896, 4864, 24
	qwen.NumAttentionHeads, qwen.NumKeyValueHeads, qwen.HeadDim = 14, 2, 64
	qwen.VocabSize, qwen.MaxPositionEmbeddings = 151936, 32768
	return []Shape{{Tiny, tiny}, {GPT2, gpt}, {SmolLM2, smol}, {Qwen25, qwen}}
}

// shapeNamed returns a named shape.
func shapeNamed(name string) Shape {
	all := Shapes()
	return all[slices.IndexFunc(all, func(s Shape) bool { return s.Name == name })]
}

// checkShapes returns an error for a name that no shape has.
func checkShapes(names []string) error {
	var known []string
	for _, s := range Shapes() {
		known = append(known, s.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return optionf("shape %q: there are %s", n, strings.Join(known, ", "))
		}
	}
	return nil
}

// linear is a linear map y = W·x of a model, W being n×k.
type linear struct {
	name string
	n, k int
}

// linears are the maps that a layer consists of as the engine computes them, with
// Q, K and V and the two halves of the gated feed-forward in one matrix each.
func (s Shape) linears() []linear {
	c := s.Config
	return []linear{
		{"qkv", (c.NumAttentionHeads + 2*c.NumKeyValueHeads) * c.HeadDim, c.HiddenSize},
		{"o", c.HiddenSize, c.NumAttentionHeads * c.HeadDim},
		{"gate-up", 2 * c.IntermediateSize, c.HiddenSize},
		{"down", c.HiddenSize, c.IntermediateSize},
	}
}

// vocabulary is the head's map.
func (s Shape) vocabulary() linear {
	return linear{"vocabulary", s.Config.VocabSize, s.Config.HiddenSize}
}

// body is the number of weights that every token of a layer stack is multiplied by.
func (s Shape) body() float64 {
	n := 0
	for _, l := range s.linears() {
		n += l.n * l.k
	}
	return float64(n * s.Config.NumHiddenLayers)
}

func (s Shape) head() float64 { return float64(s.Config.VocabSize * s.Config.HiddenSize) }

// forwardFLOP counts the products of a forward pass: rows through the layers,
// targets of them through the head, and pairs of a query and a key that it sees.
func (s Shape) forwardFLOP(rows, targets, pairs float64) float64 {
	c := s.Config
	return 2*rows*s.body() + 2*targets*s.head() + 4*pairs*float64(c.NumAttentionHeads*c.HeadDim*c.NumHiddenLayers)
}

// trainFLOP is that of forward and backward, which does each product twice more.
func (s Shape) trainFLOP(rows, targets, pairs float64) float64 {
	return 3 * s.forwardFLOP(rows, targets, pairs)
}

// causalPairs is the number of pairs where n rows follow before keys.
func causalPairs(before, n int) float64 {
	return float64(n)*float64(before) + float64(n)*float64(n+1)/2
}

// cacheBytes is what a key and a value of one position take in all layers.
func (s Shape) cacheBytes() float64 {
	return float64(2 * 4 * s.Config.NumHiddenLayers * s.Config.NumKeyValueHeads * s.Config.HeadDim)
}
