package model

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/updraft-ml/updraft/engine"
)

// Options says what a model is for, and thereby what memory it takes.
type Options struct {
	// Trainable allocates gradients, Adam's moments and the activations that
	// Backward needs.
	Trainable bool
	// MaxRows is the number of packed rows of the largest Forward or Hidden.
	// 0: the model only generates.
	MaxRows int
	// MaxContext is the longest sequence, in tokens. 0: the configuration's
	// max_position_embeddings.
	MaxContext int
	// Weights is the type of the matrices that products are computed with: F32,
	// or BF16 on devices that can. Sums, norms' and biases' weights and the
	// residual stream are F32 either way. A trainable model keeps F32 masters of
	// BF16 matrices, which the optimizer updates.
	Weights engine.DType
	// Moments is the type of Adam's moments of the matrices: F32, or U8 for
	// blocks of 8-bit codes (engine.AdamWArgs).
	Moments engine.DType
	// Recompute keeps fewer activations for Backward, which computes norms and
	// SwiGLU once more. Results are the same to the bit.
	Recompute bool
	// LoRA, unless nil, freezes all weights and trains adapters instead.
	LoRA *LoRA
}

// Model is a decoder's parameters on one device, with gradients and optimizer
// state where it is trainable. It is not safe for concurrent use, and neither
// is its backend.
type Model struct {
	be     engine.Backend
	cfg    Config
	opts   Options
	act    engine.DType // of activations
	layout *layout

	// The flat vector of weights in F32, from element wfrom on: all of it, or the
	// vectors alone where the working copy is the only one of the matrices.
	weights engine.Buffer
	wfrom   int
	working engine.Buffer // the matrices in BF16; nil where products use weights itself

	// trained is what training changes, and what gradients and moments are laid out
	// by: the layout's parameters, or those of adapters.
	trained          *flat
	tuning           *tuning       // adapters; nil without Options.LoRA
	grads            engine.Buffer // trained.total F32; nil unless trainable
	moment1, moment2 moment

	embed  engine.Tensor // [V, C]
	head   engine.Weight // [V, C]
	norm   engine.Tensor // [C]
	layers []layer

	cos, sin engine.Tensor // [context, D/2]
	rope     engine.Buffer
	scalar   engine.Buffer // gradient norm

	work   *workspace // Forward, Backward, Hidden; nil where MaxRows is 0
	live   *packed    // the batch whose activations work holds, until Backward
	packed packed

	steps   int    // AdamW steps taken
	baseSum string // digest of the frozen weights; empty until it is needed
	closed  bool

	generation []byte // generation_config.json, carried from Load to Save
}

// layer is one decoder layer's parameters.
type layer struct {
	qkv, o, gateUp, down engine.Weight
	norm1, norm2         engine.Tensor // [C]
	bias                 engine.Tensor // [(H+2KV)*D]; absent without QKV biases
	qNorm, kNorm         engine.Tensor // [D]; absent without QK-norm
}

// New returns a model with random weights: normal with the configuration's
// initializer_range (0.02 where absent), the projections that write to the
// residual stream scaled by 1/√(2L), norms 1 and biases 0. The same seed gives
// the same weights.
func New(be engine.Backend, cfg Config, seed uint64, o Options) (*Model, error) {
	m, err := allocate(be, cfg, o)
	if err != nil {
		return nil, err
	}
	drawWeights(&m.cfg, m.layout, seed, func(at int, v []float32) {
		to, from := m.matrices(), 0
		if at >= m.layout.matrices {
			to, from = m.vectors(), m.layout.matrices
		}
		be.UploadF32(to.ColRange(at-from, at-from+len(v)), v)
	})
	if m.tuning != nil {
		m.freeze()
	}
	if err := m.prepare(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// allocate makes a model whose weights are zero and not yet prepared.
func allocate(be engine.Backend, cfg Config, o Options) (*Model, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if o.MaxContext == 0 {
		o.MaxContext = cfg.MaxPositionEmbeddings
	}
	if o.MaxContext < 1 || o.MaxContext > cfg.MaxPositionEmbeddings {
		return nil, fmt.Errorf("model: context of %d tokens: the model has positions for 1 to %d (max_position_embeddings)", o.MaxContext, cfg.MaxPositionEmbeddings)
	}
	if o.MaxRows < 0 {
		return nil, fmt.Errorf("model: MaxRows is %d: must not be negative", o.MaxRows)
	}
	act, err := be.Precision(o.Weights)
	if err != nil {
		return nil, fmt.Errorf("model: weights in %v: %w", o.Weights, err)
	}
	if o.Moments != engine.F32 && o.Moments != engine.U8 {
		return nil, fmt.Errorf("model: optimizer moments in %v: must be F32 or U8", o.Moments)
	}
	m := &Model{be: be, cfg: cfg, layout: newLayout(&cfg), act: act}
	m.trained = &m.layout.flat
	if o.LoRA != nil {
		l, err := o.LoRA.resolve()
		if err != nil {
			return nil, err
		}
		o.LoRA = &l
	}
	m.opts = o
	if err := m.allocBuffers(); err != nil {
		m.Close()
		return nil, err
	}
	m.bind()
	return m, nil
}

func (m *Model) allocBuffers() error {
	n, matrices := m.layout.total, m.layout.matrices
	if l := m.opts.LoRA; l != nil {
		s := newAdapterSet(*l, m.layout)
		t, err := newTuning(m.be, s, m.opts.Weights)
		if err != nil {
			return err
		}
		t.upload(s.initial())
		m.tuning, m.trained = t, &s.flat
	}
	allocAs := func(d engine.DType, dst *engine.Buffer, n int, what string) error {
		b, err := m.be.Alloc(d, n)
		if err != nil {
			return fmt.Errorf("model: %s: %w", what, err)
		}
		*dst = b
		return nil
	}
	alloc := func(dst *engine.Buffer, n int, what string) error { return allocAs(engine.F32, dst, n, what) }
	if m.opts.Weights != engine.F32 {
		if err := allocAs(m.opts.Weights, &m.working, matrices, "weights"); err != nil {
			return err
		}
		if !m.opts.Trainable || m.tuning != nil {
			m.wfrom = matrices
		}
	}
	if err := alloc(&m.weights, n-m.wfrom, "weights"); err != nil {
		return err
	}
	if m.opts.Trainable {
		n, matrices := m.trained.total, m.trained.matrices
		if err := alloc(&m.grads, n, "gradients"); err != nil {
			return err
		}
		for _, s := range []*moment{&m.moment1, &m.moment2} {
			if m.opts.Moments == engine.U8 {
				s.from = matrices
				if err := allocAs(engine.U8, &s.codes, matrices, "optimizer state"); err != nil {
					return err
				}
				if err := alloc(&s.scales, momentBlocks(matrices), "optimizer state"); err != nil {
					return err
				}
			}
			if err := alloc(&s.values, n-s.from, "optimizer state"); err != nil {
				return err
			}
		}
		if err := alloc(&m.scalar, 1, "gradient norm"); err != nil {
			return err
		}
	}
	half := m.cfg.HeadDim / 2
	if err := alloc(&m.rope, 2*m.opts.MaxContext*half, "rotary tables"); err != nil {
		return err
	}
	m.cos = engine.Matrix(m.rope, 0, m.opts.MaxContext, half)
	m.sin = engine.Matrix(m.rope, m.opts.MaxContext*half, m.opts.MaxContext, half)
	cos, sin := rotaryTables(&m.cfg, m.opts.MaxContext)
	m.be.UploadF32(m.cos, cos)
	m.be.UploadF32(m.sin, sin)

	if m.opts.MaxRows > 0 {
		w, err := newWorkspace(m.be, &m.cfg, workspaceShape{
			rows: m.opts.MaxRows, keep: m.opts.Trainable, recompute: m.opts.Recompute, act: m.act, rank: m.opts.rank(),
		})
		if err != nil {
			return err
		}
		m.work = w
	}
	return nil
}

// rank returns that of the adapters, 0 without any.
func (o *Options) rank() int {
	if o.LoRA == nil {
		return 0
	}
	return o.LoRA.R
}

// multiplied returns the buffer of the matrices that products are computed with.
func (m *Model) multiplied() engine.Buffer {
	if m.working != nil {
		return m.working
	}
	return m.weights
}

// bind points the named views into the flat weights.
func (m *Model) bind() {
	c := &m.cfg
	q, kv := c.NumAttentionHeads*c.HeadDim, c.NumKeyValueHeads*c.HeadDim
	from := m.multiplied()
	mat := func(off, rows, cols int) engine.Weight {
		return engine.Weight{Tensor: engine.Matrix(from, off, rows, cols)}
	}
	vec := func(off, n int) engine.Tensor {
		if off < 0 {
			return engine.Tensor{}
		}
		return engine.Vector(m.weights, off-m.wfrom, n)
	}
	m.head = mat(m.layout.head, c.VocabSize, c.HiddenSize)
	m.embed = mat(m.layout.embed, c.VocabSize, c.HiddenSize).Tensor
	m.norm = vec(m.layout.norm, c.HiddenSize)
	for _, y := range m.layout.layers {
		m.layers = append(m.layers, layer{
			qkv:    mat(y.qkv, q+2*kv, c.HiddenSize),
			o:      mat(y.o, c.HiddenSize, q),
			gateUp: mat(y.gateUp, 2*c.IntermediateSize, c.HiddenSize),
			down:   mat(y.down, c.HiddenSize, c.IntermediateSize),
			norm1:  vec(y.norm1, c.HiddenSize),
			norm2:  vec(y.norm2, c.HiddenSize),
			bias:   vec(y.bias, q+2*kv),
			qNorm:  vec(y.qNorm, c.HeadDim),
			kNorm:  vec(y.kNorm, c.HeadDim),
		})
	}
}

// products calls f with every matrix that a linear map multiplies by.
func (m *Model) products(f func(w *engine.Weight)) {
	for i := range m.layers {
		y := &m.layers[i]
		f(&y.qkv)
		f(&y.o)
		f(&y.gateUp)
		f(&y.down)
	}
	f(&m.head)
}

// matrices views the matrices as they are loaded and saved: in F32 wherever there
// is such a copy.
func (m *Model) matrices() engine.Tensor {
	if m.wfrom > 0 {
		return engine.Vector(m.working, 0, m.layout.matrices)
	}
	return engine.Vector(m.weights, 0, m.layout.matrices)
}

// vectors views norms and biases.
func (m *Model) vectors() engine.Tensor {
	return engine.Vector(m.weights, m.layout.matrices-m.wfrom, m.layout.total-m.layout.matrices)
}

// prepare has the backend lay the weights out as it likes them.
func (m *Model) prepare() error {
	m.roundMatrices()
	if m.tuning != nil {
		m.merge(true)
	}
	var err error
	m.products(func(w *engine.Weight) {
		if err == nil {
			err = m.be.PrepareWeight(w)
		}
	})
	if err != nil {
		return fmt.Errorf("model: prepared weights: %w", err)
	}
	return m.be.Sync()
}

// RefreshWeights brings the working copy and the backend's own up to date after
// the weights changed by WriteParam. AdamWStep, Load and CopyWeights do it
// themselves.
func (m *Model) RefreshWeights() {
	m.roundMatrices()
	if m.tuning != nil {
		m.merge(true)
	}
	m.refreshProducts()
}

// roundMatrices makes the working copy from the masters, where there are both.
func (m *Model) roundMatrices() {
	if m.working != nil && m.wfrom == 0 {
		m.be.Copy(engine.Vector(m.working, 0, m.layout.matrices), m.matrices())
	}
}

func (m *Model) refreshProducts() {
	m.products(func(w *engine.Weight) { m.be.RefreshWeight(*w) })
}

// Config returns the model's configuration.
func (m *Model) Config() Config { return m.cfg }

// Options returns the options that the model was made with, MaxContext filled
// in.
func (m *Model) Options() Options { return m.opts }

// Backend returns the device that the model lives on.
func (m *Model) Backend() engine.Backend { return m.be }

// Params lists the decoder's own parameters in the order of the flat vector.
func (m *Model) Params() []Param { return append([]Param(nil), m.layout.params...) }

// Trained lists the parameters that training changes: those of Params, or, with
// Options.LoRA, the adapters' under PEFT's names.
func (m *Model) Trained() []Param { return append([]Param(nil), m.trained.params...) }

// StepCount returns the number of AdamW steps taken, which survives
// SaveOptimizer and LoadOptimizer.
func (m *Model) StepCount() int { return m.steps }

// Role is a kind of per-parameter state.
type Role uint8

// The roles. All but Weights exist in trainable models only, and of the parameters
// that are trained. The weights of a LoRA's target are those that products are
// computed with.
const (
	Weights Role = iota
	Gradients
	Moment1
	Moment2
)

// state views a parameter's elements in a role, as F32 or BF16. The 8-bit moments
// of a matrix have no such view.
func (m *Model) state(r Role, p Param) (engine.Tensor, error) {
	if r != Weights && !m.opts.Trainable {
		return engine.Tensor{}, errNotTrainable
	}
	if r != Weights && m.tuning != nil && !p.adapter {
		return engine.Tensor{}, errFrozen
	}
	switch r {
	case Weights:
		if p.adapter {
			return engine.Vector(m.tuning.masters, p.off, p.len()), nil
		}
		if p.off < m.layout.matrices {
			return m.matrices().ColRange(p.off, p.off+p.len()), nil
		}
		return engine.Vector(m.weights, p.off-m.wfrom, p.len()), nil
	case Gradients:
		return engine.Vector(m.grads, p.off, p.len()), nil
	}
	s := m.moment(r)
	if p.off < s.from {
		return engine.Tensor{}, errCodes
	}
	return engine.Vector(s.values, p.off-s.from, p.len()), nil
}

// source views what a parameter's weights are made from: those themselves, or the
// frozen elements of a LoRA's target.
func (m *Model) source(p Param) (engine.Tensor, error) {
	if m.tuning != nil && !p.adapter {
		for i := range m.tuning.list {
			if ad := &m.tuning.list[i]; ad.target.off == p.off {
				return engine.Vector(m.tuning.base, ad.base, p.len()), nil
			}
		}
	}
	return m.state(Weights, p)
}

// ErrNonFinite says that generation met a log-probability that is not a number.
var ErrNonFinite = errors.New("the weights are not finite")

var errNotTrainable = errors.New("model: not trainable: set Options.Trainable")

var errFrozen = errors.New("model: this parameter is frozen: Options.LoRA trains adapters alone")

var errCodes = errors.New("model: this moment is kept in 8-bit codes")

func (m *Model) param(name string) (Param, error) {
	for _, p := range m.layout.params {
		if p.Name == name {
			return p, nil
		}
	}
	if m.tuning != nil {
		for _, p := range m.trained.params {
			if p.Name == name {
				return p, nil
			}
		}
	}
	return Param{}, fmt.Errorf("model: no parameter named %q", name)
}

// ReadParam downloads one parameter's elements in the given role: weights from
// the masters where the model has them, moments as the values of their codes.
func (m *Model) ReadParam(ctx context.Context, r Role, name string) ([]float32, error) {
	p, err := m.param(name)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t, err := m.state(r, p)
	if errors.Is(err, errCodes) {
		return m.readCodes(r, p)
	}
	if err != nil {
		return nil, err
	}
	v := make([]float32, p.len())
	return v, m.be.Wait(m.be.DownloadF32(v, t))
}

// WriteParam uploads one parameter's elements in the given role. After weights
// were written, call RefreshWeights once. A matrix's 8-bit moments cannot be
// written. Of a LoRA's target it writes the frozen weights.
func (m *Model) WriteParam(ctx context.Context, r Role, name string, v []float32) error {
	p, err := m.param(name)
	if err != nil {
		return err
	}
	t, err := m.state(r, p)
	if err == nil && r == Weights {
		t, err = m.source(p)
	}
	if err != nil {
		return err
	}
	if len(v) != p.len() {
		return fmt.Errorf("model: parameter %q has %d elements, not %d", name, p.len(), len(v))
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.be.UploadF32(t, v)
	if r == Weights && !p.adapter {
		m.baseSum = ""
	}
	return nil
}

// Clone returns a model with the same weights on the same backend, made with
// options of its own and a fresh optimizer. Weights in BF16 come from the masters
// where m has them. The clone of a model with adapters has them merged into its
// weights; where o.LoRA asks for some, they are new.
func (m *Model) Clone(ctx context.Context, o Options) (*Model, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := allocate(m.be, m.cfg, o)
	if err != nil {
		return nil, err
	}
	c.copyFrom(m)
	if err := c.prepare(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// CopyWeights overwrites m's weights with those of a model of the same shape
// on the same backend.
func (m *Model) CopyWeights(from *Model) error {
	if m.tuning != nil {
		return errors.New("model: CopyWeights to a model with adapters: make a Clone instead")
	}
	if m.be != from.be {
		return errors.New("model: CopyWeights between two backends: save and load instead")
	}
	if len(m.layout.params) != len(from.layout.params) {
		return errors.New("model: CopyWeights between different architectures")
	}
	for i, p := range m.layout.params {
		if p != from.layout.params[i] {
			return fmt.Errorf("model: CopyWeights: %s differs in shape", p.Name)
		}
	}
	m.copyFrom(from)
	m.RefreshWeights()
	return nil
}

// copyFrom copies the weights of a model of the same shape, whatever types
// either keeps them in.
func (m *Model) copyFrom(from *Model) {
	m.be.Copy(m.matrices(), from.matrices())
	m.be.Copy(m.vectors(), from.vectors())
	if m.tuning != nil {
		m.freeze()
	}
}

// Close frees the model's memory. Schedulers over it must be closed first.
func (m *Model) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	m.products(func(w *engine.Weight) {
		if w.Prepared != nil {
			m.be.Free(w.Prepared)
			w.Prepared = nil
		}
	})
	for _, b := range slices.Concat([]engine.Buffer{m.weights, m.working, m.grads, m.rope, m.scalar}, m.moment1.buffers(), m.moment2.buffers()) {
		if b != nil {
			m.be.Free(b)
		}
	}
	if m.tuning != nil {
		m.tuning.free()
	}
	if m.work != nil {
		m.work.free(m.be)
	}
	return m.be.Sync()
}

// drawPiece is the number of weights that drawWeights hands out at most: a new
// model's weights never lie in host memory twice. It is even, as normal draws two
// at a time.
const drawPiece = 1 << 18

// drawWeights draws the flat weights of a new model and hands them out in pieces,
// each in the memory of the last; those left out are zero.
func drawWeights(c *Config, l *layout, seed uint64, put func(at int, v []float32)) {
	residual := 1 / math.Sqrt(2*float64(c.NumHiddenLayers))
	outputs := make(map[int]bool)
	ones := map[int]bool{l.norm: true}
	for _, y := range l.layers {
		outputs[y.o], outputs[y.down] = true, true
		ones[y.norm1], ones[y.norm2] = true, true
		ones[y.qNorm], ones[y.kNorm] = true, true // -1 where absent: no parameter lies there
	}
	buf := make([]float32, min(drawPiece, l.total))
	for _, p := range l.params {
		std := c.InitializerRange
		if outputs[p.off] {
			std *= residual
		}
		for from := 0; from < p.len(); from += len(buf) {
			v := buf[:min(len(buf), p.len()-from)]
			switch {
			case p.Rows > 0:
				normal(v, seed, uint64(p.off+from), std)
			case ones[p.off]:
				for i := range v {
					v[i] = 1
				}
			default:
				clear(v)
			}
			put(p.off+from, v)
		}
	}
}

// normal fills v with normal deviates by Box and Muller's method over Philox,
// keyed by seed and the elements' place, so that a weight does not depend on
// the order of drawing.
func normal(v []float32, seed, place uint64, std float64) {
	for i := 0; i < len(v); i += 2 {
		at := place + uint64(i)
		r := engine.Philox([4]uint32{uint32(at), uint32(at >> 32), 0, 0}, [2]uint32{uint32(seed), uint32(seed >> 32)})
		u := (float64(r[0]) + 0.5) / (1 << 32)
		a := 2 * math.Pi * (float64(r[1]) + 0.5) / (1 << 32)
		radius := std * math.Sqrt(-2*math.Log(u))
		v[i] = float32(radius * math.Cos(a))
		if i+1 < len(v) {
			v[i+1] = float32(radius * math.Sin(a))
		}
	}
}

// rotaryTables returns cos and sin of position·frequency, [positions, D/2]
// each. Frequencies and angles are rounded to float32 as transformers rounds
// them, since the checkpoints were trained with those.
func rotaryTables(c *Config, positions int) (cos, sin []float32) {
	half := c.HeadDim / 2
	freq := make([]float32, half)
	for j := range freq {
		freq[j] = float32(scaleFrequency(c.RopeScaling, 1/math.Pow(c.RopeTheta, float64(2*j)/float64(c.HeadDim))))
	}
	cos, sin = make([]float32, positions*half), make([]float32, positions*half)
	for p := range positions {
		for j, f := range freq {
			angle := float64(float32(p) * f)
			cos[p*half+j] = float32(math.Cos(angle))
			sin[p*half+j] = float32(math.Sin(angle))
		}
	}
	return cos, sin
}

func scaleFrequency(r *RopeScaling, f float64) float64 {
	switch r.kind() {
	case "linear":
		return f / r.Factor
	case "llama3":
		turns := r.OriginalMaxPositionEmbeddings * f / (2 * math.Pi) // in the original context
		switch {
		case turns < r.LowFreqFactor:
			return f / r.Factor
		case turns > r.HighFreqFactor:
			return f
		}
		smooth := (turns - r.LowFreqFactor) / (r.HighFreqFactor - r.LowFreqFactor)
		return (1-smooth)*f/r.Factor + smooth*f
	}
	return f
}
