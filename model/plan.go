package model

import "github.com/updraft-ml/updraft/engine"

// Plan itemises the device memory of a model and, where wanted, of its
// scheduler, before any of it is allocated.
type Plan struct{ Items []PlanItem }

// PlanItem is one role's memory.
type PlanItem struct {
	Name  string
	Bytes int64
}

// NewPlan plans a model made with o and, unless s is nil, a scheduler over it, on a
// device whose activations are of type act beside weights of o's
// (engine.Backend.Precision).
func NewPlan(cfg Config, act engine.DType, o Options, s *SchedulerOptions) Plan {
	cfg.setDefaults()
	if o.MaxContext == 0 {
		o.MaxContext = cfg.MaxPositionEmbeddings
	}
	l := newLayout(&cfg)
	trained := &l.flat
	var set *adapterSet
	if o.LoRA != nil {
		r, err := o.LoRA.resolve()
		if err != nil {
			return Plan{} // nothing: no such model can be made
		}
		o.LoRA, set = &r, newAdapterSet(r, l)
		trained = &set.flat
	}
	f32 := int64(engine.F32.Size())
	total := int64(l.total) * f32
	var p Plan
	add := func(name string, bytes int64) {
		if bytes > 0 {
			p.Items = append(p.Items, PlanItem{name, bytes})
		}
	}
	vectors := int64(l.total-l.matrices) * f32
	matrices := int64(l.matrices) * int64(o.Weights.Size())
	switch {
	case o.Weights == engine.F32:
		add("weights", total)
	case o.Trainable && set == nil:
		add("masters", total)
		add("weights", matrices)
	default:
		add("weights", vectors+matrices)
	}
	if act == engine.F32 { // what multiplies BF16 by BF16 reads weights where they are
		prepared := matrices
		if !cfg.TieWordEmbeddings { // the input embedding is only gathered from
			prepared -= int64(cfg.VocabSize) * int64(cfg.HiddenSize) * int64(o.Weights.Size())
		}
		if set != nil {
			prepared += set.prepared(o.Weights)
		}
		add("weights in the backend's layout (about)", prepared)
	}
	if set != nil {
		add("frozen copies of adapted weights", int64(set.frozen)*int64(o.Weights.Size()))
		add("adapters", set.bytes(o.Weights, act))
	}
	if o.Trainable {
		all := int64(trained.total) * f32
		add("gradients", all+f32)
		if o.Moments == engine.U8 {
			codes := int64(trained.matrices) + int64(momentBlocks(trained.matrices))*f32
			add("optimizer", 2*(all-int64(trained.matrices)*f32+codes))
		} else {
			add("optimizer", 2*all)
		}
	}
	add("rotary tables", int64(o.MaxContext)*int64(cfg.HeadDim)*f32)
	workspaceBytes := func(s workspaceShape) int64 {
		var a arena
		planWorkspace(&a, &workspace{}, &cfg, s)
		return a.bytes()
	}
	if o.MaxRows > 0 {
		add("activations", workspaceBytes(workspaceShape{rows: o.MaxRows, keep: o.Trainable, recompute: o.Recompute, act: act, rank: o.rank()}))
	}
	if s != nil {
		so := *s
		so.setDefaults(o.MaxContext)
		add("kv cache", 2*int64(cfg.NumHiddenLayers)*int64(so.Pages)*engine.PageSize*int64(cfg.NumKeyValueHeads)*int64(cfg.HeadDim)*int64(act.Size()))
		add("prefill", workspaceBytes(so.prefillShape(act)))
		var a arena
		planDecoder(&a, &decoder{}, &cfg, &so)
		add("decoding", workspaceBytes(so.decodeShape(act))+a.bytes())
	}
	return p
}

// Bytes returns the sum of all items.
func (p Plan) Bytes() int64 {
	var n int64
	for _, i := range p.Items {
		n += i.Bytes
	}
	return n
}
