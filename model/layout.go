package model

import "fmt"

// Param names one tensor of the model as Hugging Face does. A matrix has
// Rows and Cols; a vector (norm or bias) has Rows 0 and Cols elements.
type Param struct {
	Name       string
	Rows, Cols int

	off     int
	adapter bool // of a LoRA: off counts from the adapters' first element
}

// Shape returns the dimensions as safetensors writes them.
func (p Param) Shape() []int {
	if p.Rows == 0 {
		return []int{p.Cols}
	}
	return []int{p.Rows, p.Cols}
}

func (p Param) len() int { return max(p.Rows, 1) * p.Cols }

// flat places parameters in one vector, which serves weights, gradients and both
// moments alike: matrices first, then norms and biases, so that weight decay is
// one AdamW call with it and one without.
type flat struct {
	params   []Param
	matrices int // elements [0, matrices) are subject to weight decay
	total    int
}

func (f *flat) add(p Param) (off int) {
	p.off = f.total
	f.params = append(f.params, p)
	f.total += p.len()
	return p.off
}

func (f *flat) pad() { f.total = align(f.total) }

// layout is the flat vector of a decoder's own parameters. Query, key and value
// rows are adjacent, and so are gate and up, so that each pair or triple is a
// single product.
type layout struct {
	flat
	embed, head, norm int // head is embed where embeddings are tied
	layers            []layerLayout
}

// layerLayout holds the offsets of one decoder layer; absent ones are -1.
type layerLayout struct {
	qkv, o, gateUp, down             int
	norm1, norm2, bias, qNorm, kNorm int
}

// alignment of each product's first element, in elements: one cache line.
const paramAlign = 16

func align(n int) int { return (n + paramAlign - 1) / paramAlign * paramAlign }

func newLayout(c *Config) *layout {
	l := &layout{layers: make([]layerLayout, c.NumHiddenLayers)}
	add := func(name string, rows, cols int) int { return l.add(Param{Name: name, Rows: rows, Cols: cols}) }
	pad := l.pad
	q, kv := c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim

	l.embed = add("model.embed_tokens.weight", c.VocabSize, c.HiddenSize)
	pad()
	for i := range l.layers {
		p, y := fmt.Sprintf("model.layers.%d.", i), &l.layers[i]
		y.qkv = add(p+"self_attn.q_proj.weight", q, c.HiddenSize)
		add(p+"self_attn.k_proj.weight", kv, c.HiddenSize)
		add(p+"self_attn.v_proj.weight", kv, c.HiddenSize)
		pad()
		y.o = add(p+"self_attn.o_proj.weight", c.HiddenSize, q)
		pad()
		y.gateUp = add(p+"mlp.gate_proj.weight", c.IntermediateSize, c.HiddenSize)
		add(p+"mlp.up_proj.weight", c.IntermediateSize, c.HiddenSize)
		pad()
		y.down = add(p+"mlp.down_proj.weight", c.HiddenSize, c.IntermediateSize)
		pad()
	}
	l.head = l.embed
	if !c.TieWordEmbeddings {
		l.head = add("lm_head.weight", c.VocabSize, c.HiddenSize)
		pad()
	}
	l.matrices = l.total

	for i := range l.layers {
		p, y := fmt.Sprintf("model.layers.%d.", i), &l.layers[i]
		y.bias, y.qNorm, y.kNorm = -1, -1, -1
		y.norm1 = add(p+"input_layernorm.weight", 0, c.HiddenSize)
		pad()
		if c.qkvBias() {
			y.bias = add(p+"self_attn.q_proj.bias", 0, q)
			add(p+"self_attn.k_proj.bias", 0, kv)
			add(p+"self_attn.v_proj.bias", 0, kv)
			pad()
		}
		if c.qkNorm() {
			y.qNorm = add(p+"self_attn.q_norm.weight", 0, c.HeadDim)
			pad()
			y.kNorm = add(p+"self_attn.k_norm.weight", 0, c.HeadDim)
			pad()
		}
		y.norm2 = add(p+"post_attention_layernorm.weight", 0, c.HiddenSize)
		pad()
	}
	l.norm = add("model.norm.weight", 0, c.HiddenSize)
	pad()
	return l
}
