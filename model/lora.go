package model

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/engine"
)

// LoRA has a model train products of thin matrices in the place of its own (Hu et
// al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): a target
// W [N, K] becomes W + Alpha/R · B·A with A [R, K] and B [N, R], and everything but
// A and B is frozen. At the start B is zero and A uniform within ±1/√K. Names
// and defaults are those of PEFT and TRL. There is no dropout.
//
// Products are computed with the sum, which is made anew from the frozen W after
// each update: generation and the training forward run as they do without
// adapters, and to the same bits as each other. A and B have F32 masters; where
// W is BF16, the sum is of Alpha/R · A in BF16 and B in the type of activations, and
// rounded once.
type LoRA struct {
	R             int      // rank; 0: 16
	Alpha         float64  // 0: 32
	TargetModules []string // of LoRAModules, or "all-linear"; none: q_proj and v_proj
	Seed          uint64   // of A
	// Base is where the frozen weights come from, as adapter_config.json names it.
	// Load and LoadGGUF fill it in.
	Base string
}

// AllLinear stands for all of LoRAModules.
const AllLinear = "all-linear"

// LoRAModules are the matrices that may be targets, in every layer.
func LoRAModules() []string {
	return []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
}

// Check says what is wrong with l, if anything.
func (l LoRA) Check() error {
	_, err := l.resolve()
	return err
}

// resolve returns l with defaults filled in and the targets in the order of
// LoRAModules, or says what is wrong.
func (l LoRA) resolve() (LoRA, error) {
	if l.R == 0 {
		l.R = 16
	}
	if l.Alpha == 0 {
		l.Alpha = 32
	}
	if l.R < 1 || l.R > 1<<16 {
		return l, fmt.Errorf("model: LoRA's rank is %d: must be from 1 to %d", l.R, 1<<16)
	}
	if !(l.Alpha > 0) || math.IsInf(l.Alpha, 0) {
		return l, fmt.Errorf("model: LoRA's alpha is %g: must be above 0", l.Alpha)
	}
	want := l.TargetModules
	switch {
	case len(want) == 0:
		want = []string{"q_proj", "v_proj"}
	case slices.Equal(want, []string{AllLinear}):
		want = LoRAModules()
	}
	for _, name := range want {
		if !slices.Contains(LoRAModules(), name) {
			return l, fmt.Errorf("model: LoRA's target module %q is unknown: choose of %s, or %s alone", name, strings.Join(LoRAModules(), ", "), AllLinear)
		}
	}
	l.TargetModules = nil
	for _, name := range LoRAModules() {
		if slices.Contains(want, name) {
			l.TargetModules = append(l.TargetModules, name)
		}
	}
	return l, nil
}

// adapter is one target's A and B.
type adapter struct {
	target  Param // W
	product int   // where the product that W's rows are part of begins, in the layout
	row     int   // W's first row in it
	a, b    Param
	base    int // where W begins among the frozen copies
}

// adapterSet lays out a LoRA's adapters in a flat vector of their own.
type adapterSet struct {
	flat
	lora   LoRA
	list   []adapter
	frozen int // elements of all targets
}

// newAdapterSet lays out the adapters of l, which is resolved, for a model.
func newAdapterSet(l LoRA, of *layout) *adapterSet {
	s := &adapterSet{lora: l}
	products := make(map[int]bool)
	for _, y := range of.layers {
		products[y.qkv], products[y.o], products[y.gateUp], products[y.down] = true, true, true, true
	}
	product := 0
	for _, p := range of.params {
		if products[p.off] {
			product = p.off
		}
		module := strings.TrimSuffix(p.Name, ".weight")
		if p.Rows == 0 || !slices.Contains(l.TargetModules, module[strings.LastIndexByte(module, '.')+1:]) {
			continue
		}
		ad := adapter{target: p, product: product, row: (p.off - product) / p.Cols, base: s.frozen}
		name := "base_model.model." + module
		ad.a = Param{Name: name + ".lora_A.weight", Rows: l.R, Cols: p.Cols, adapter: true}
		ad.a.off = s.add(ad.a)
		s.pad()
		ad.b = Param{Name: name + ".lora_B.weight", Rows: p.Rows, Cols: l.R, adapter: true}
		ad.b.off = s.add(ad.b)
		s.pad()
		s.list = append(s.list, ad)
		s.frozen = align(s.frozen + p.len())
	}
	s.matrices = s.total
	return s
}

// scale is what B·A is multiplied by.
func (s *adapterSet) scale() float32 { return float32(s.lora.Alpha / float64(s.lora.R)) }

// initial returns the masters of new adapters.
func (s *adapterSet) initial() []float32 {
	v := make([]float32, s.total)
	for _, ad := range s.list {
		uniform(v[ad.a.off:ad.a.off+ad.a.len()], s.lora.Seed, uint64(ad.a.off), 1/math.Sqrt(float64(ad.a.Cols)))
	}
	return v
}

// uniform fills v with numbers between ±bound, keyed as those of normal are, by
// counters that normal does not use.
func uniform(v []float32, seed, place uint64, bound float64) {
	for i := range v {
		at := place + uint64(i)
		r := engine.Philox([4]uint32{uint32(at), uint32(at >> 32), 1, 0}, [2]uint32{uint32(seed), uint32(seed >> 32)})
		v[i] = float32(bound * (2*(float64(r[0])+0.5)/(1<<32) - 1))
	}
}

// bytes returns the memory of newAdapters, without the frozen copies.
func (s *adapterSet) bytes(d, act engine.DType) int64 {
	n := int64(s.total) * int64(2*engine.F32.Size())
	if act != engine.F32 {
		n += int64(s.total) * int64(act.Size())
	}
	if d != engine.F32 {
		n += int64(s.total) * int64(d.Size())
	}
	if d != act {
		n += int64(s.largest()) * int64(engine.F32.Size())
	}
	return n + paramAlign*paramAlign*int64(engine.F32.Size())
}

// largest returns the elements of the largest target.
func (s *adapterSet) largest() (n int) {
	for i := range s.list {
		n = max(n, s.list[i].target.len())
	}
	return n
}

// prepared returns about the memory of what a backend lays out as it likes: the
// scaled ones.
func (s *adapterSet) prepared(d engine.DType) int64 {
	return int64(s.total)*int64(d.Size()) + paramAlign*paramAlign*int64(engine.F32.Size())
}

// adapters are an adapterSet's numbers on a device: F32 masters, and from them, by
// refresh, what products are computed with.
type adapters struct {
	*adapterSet
	be engine.Backend

	masters, scaled engine.Buffer // F32, scaled by scale()
	unit            engine.Buffer // scale() times the unit matrix
	// The two rounded, to the types of activations and of the products' matrices;
	// themselves where those are F32.
	low, lowScaled engine.Buffer
	sum            engine.Buffer // one target in F32, where these types differ; else nil

	diagonal engine.Weight      // over unit
	scaledAB [][2]engine.Weight // of each adapter, over lowScaled
}

func newAdapters(be engine.Backend, s *adapterSet, d engine.DType) (*adapters, error) {
	t := &adapters{adapterSet: s, be: be}
	act, err := be.Precision(d)
	if err != nil {
		return nil, fmt.Errorf("model: adapters: %w", err)
	}
	alloc := func(dst *engine.Buffer, d engine.DType, n int) error {
		b, err := be.Alloc(d, n)
		if err != nil {
			return fmt.Errorf("model: adapters: %w", err)
		}
		*dst = b
		return nil
	}
	err = alloc(&t.masters, engine.F32, s.total)
	if err == nil {
		err = alloc(&t.scaled, engine.F32, s.total)
	}
	if err == nil {
		err = alloc(&t.unit, engine.F32, paramAlign*paramAlign)
	}
	if t.low = t.masters; err == nil && act != engine.F32 {
		err = alloc(&t.low, act, s.total)
	}
	if t.lowScaled = t.scaled; err == nil && d != engine.F32 {
		err = alloc(&t.lowScaled, d, s.total)
	}
	if err == nil && d != act {
		err = alloc(&t.sum, engine.F32, s.largest())
	}
	if err == nil {
		err = t.prepare()
	}
	if err != nil {
		t.free()
		return nil, err
	}
	return t, nil
}

func (t *adapters) prepare() error {
	t.diagonal.Tensor = engine.Matrix(t.unit, 0, paramAlign, paramAlign)
	v := make([]float32, paramAlign*paramAlign)
	for i := range paramAlign {
		v[i*paramAlign+i] = t.scale()
	}
	t.be.UploadF32(t.diagonal.Tensor, v)
	if err := t.be.PrepareWeight(&t.diagonal); err != nil {
		return fmt.Errorf("model: adapters: %w", err)
	}
	t.scaledAB = make([][2]engine.Weight, len(t.list))
	for i, ad := range t.list {
		for j, p := range []Param{ad.a, ad.b} {
			w := &t.scaledAB[i][j]
			w.Tensor = viewOf(t.lowScaled, p)
			if err := t.be.PrepareWeight(w); err != nil {
				return fmt.Errorf("model: adapters: %w", err)
			}
		}
	}
	return nil
}

func (t *adapters) free() {
	if t.diagonal.Prepared != nil {
		t.be.Free(t.diagonal.Prepared)
	}
	for _, ab := range t.scaledAB {
		for _, w := range ab {
			if w.Prepared != nil {
				t.be.Free(w.Prepared)
			}
		}
	}
	if t.low == t.masters {
		t.low = nil
	}
	if t.lowScaled == t.scaled {
		t.lowScaled = nil
	}
	for _, b := range []engine.Buffer{t.masters, t.scaled, t.unit, t.low, t.lowScaled, t.sum} {
		if b != nil {
			t.be.Free(b)
		}
	}
}

// upload sets the masters.
func (t *adapters) upload(v []float32) { t.be.UploadF32(engine.Vector(t.masters, 0, t.total), v) }

// refresh makes from the masters what products are computed with. The scaled
// ones are rows of sixteen, times a diagonal matrix: exact but for the rounding of
// each product.
func (t *adapters) refresh() {
	all := func(b engine.Buffer) engine.Tensor { return engine.Matrix(b, 0, t.total/paramAlign, paramAlign) }
	t.be.Linear(engine.LinearArgs{Y: all(t.scaled), X: all(t.masters), W: t.diagonal})
	if t.low != t.masters {
		t.be.Copy(all(t.low), all(t.masters))
	}
	if t.lowScaled != t.scaled {
		t.be.Copy(all(t.lowScaled), all(t.scaled))
	}
	for _, ab := range t.scaledAB {
		t.be.RefreshWeight(ab[0])
		t.be.RefreshWeight(ab[1])
	}
}

// addTo adds adapter i's product to w [N, K], which has the type of the products'
// matrices.
func (t *adapters) addTo(w engine.Tensor, i int) {
	to := w
	if t.sum != nil {
		to = engine.Matrix(t.sum, 0, w.Rows, w.Cols)
		t.be.Copy(to, w)
	}
	t.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: to, DY: viewOf(t.low, t.list[i].b), W: t.scaledAB[i][0], Accumulate: true})
	if t.sum != nil {
		t.be.Copy(w, to)
	}
}

// viewOf views a parameter's elements in a buffer that begins where its offsets
// do.
func viewOf(b engine.Buffer, p Param) engine.Tensor {
	return engine.Matrix(b, p.off, max(p.Rows, 1), p.Cols)
}

// tuning is a model's trained adapters with the frozen elements of their targets.
type tuning struct {
	*adapters
	base engine.Buffer // of the matrices' type
	of   map[int][]int // numbers of the adapters of the product at an offset of the layout
}

func newTuning(be engine.Backend, s *adapterSet, d engine.DType) (*tuning, error) {
	a, err := newAdapters(be, s, d)
	if err != nil {
		return nil, err
	}
	t := &tuning{adapters: a, of: make(map[int][]int)}
	if t.base, err = be.Alloc(d, s.frozen); err != nil {
		a.free()
		return nil, fmt.Errorf("model: frozen weights: %w", err)
	}
	for i, ad := range s.list {
		t.of[ad.product] = append(t.of[ad.product], i)
	}
	return t, nil
}

func (t *tuning) free() {
	t.adapters.free()
	t.be.Free(t.base)
}

// frozen views a target's frozen elements.
func (t *tuning) frozen(ad *adapter) engine.Tensor {
	return engine.Matrix(t.base, ad.base, ad.target.Rows, ad.target.Cols)
}

// target views what products are computed with.
func (m *Model) target(ad *adapter) engine.Tensor { return viewOf(m.multiplied(), ad.target) }

// freeze takes the matrices as they are for the frozen ones.
func (m *Model) freeze() {
	t := m.tuning
	for i := range t.list {
		ad := &t.list[i]
		m.be.Copy(t.frozen(ad), m.target(ad))
	}
}

// merge makes the targets from their frozen elements, with the adapters or
// without.
func (m *Model) merge(with bool) {
	t := m.tuning
	if with {
		t.refresh()
	}
	for i := range t.list {
		ad := &t.list[i]
		m.be.Copy(m.target(ad), t.frozen(ad))
		if with {
			t.addTo(m.target(ad), i)
		}
	}
}

// refreshTargets merges and brings the backend's copies of the targets up to date.
func (m *Model) refreshTargets(with bool) {
	m.merge(with)
	m.products(func(w *engine.Weight) {
		if len(m.tuning.of[w.Off]) > 0 {
			m.be.RefreshWeight(*w)
		}
	})
}

// WithoutAdapters runs f while the model computes with its frozen weights alone,
// as a reference for the KL penalty does. Afterwards the adapters are in force
// again, to the bit. It panics where the model has none.
func (m *Model) WithoutAdapters(f func() error) error {
	if m.tuning == nil {
		panic("model: WithoutAdapters of a model without Options.LoRA")
	}
	m.live = nil
	m.refreshTargets(false)
	defer func() {
		m.live = nil
		m.refreshTargets(true)
	}()
	return f()
}

// adapterBackward adds to the gradients of the adapters of a product [N, K] for
// Y = X·Wᵀ: with s = Alpha/R,
//
//	DB += s · DYᵀ·(X·Aᵀ),   DA += s · (DY·B)ᵀ·X.
func (m *Model) adapterBackward(product int, dy, x engine.Tensor) {
	t := m.tuning
	u := m.work.thin.RowRange(0, x.Rows)
	for _, i := range t.of[product] {
		ad, ab := &t.list[i], &t.scaledAB[i]
		rows := dy.ColRange(ad.row, ad.row+ad.target.Rows)
		m.be.Linear(engine.LinearArgs{Y: u, X: x, W: ab[0]})
		m.be.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: viewOf(m.grads, ad.b), DY: rows, X: u})
		m.be.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: u, DY: rows, W: ab[1]})
		m.be.LinearBackwardWeight(engine.LinearBackwardWeightArgs{DW: viewOf(m.grads, ad.a), DY: u, X: x})
	}
}
