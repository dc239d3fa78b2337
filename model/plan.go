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

// NewPlan plans a model made with o and, unless s is nil, a scheduler over it.
// Activations are taken to be of the weights' type, as they are on a device that
// multiplies in it.
func NewPlan(cfg Config, o Options, s *SchedulerOptions) Plan {
	cfg.setDefaults()
	if o.MaxContext == 0 {
		o.MaxContext = cfg.MaxPositionEmbeddings
	}
	l := newLayout(&cfg)
	f32 := int64(engine.F32.Size())
	act := o.Weights
	total := int64(l.total) * f32
	var p Plan
	add := func(name string, bytes int64) {
		if bytes > 0 {
			p.Items = append(p.Items, PlanItem{name, bytes})
		}
	}
	vectors := int64(l.total-l.matrices) * f32
	switch {
	case o.Weights == engine.F32:
		prepared := int64(l.matrices) * f32
		if !cfg.TieWordEmbeddings { // the input embedding is only gathered from
			prepared -= int64(cfg.VocabSize) * int64(cfg.HiddenSize) * f32
		}
		add("weights", total)
		add("weights in the backend's layout (about)", prepared)
	case o.Trainable:
		add("weights", total)
		add("matrices in "+o.Weights.String(), int64(l.matrices)*int64(o.Weights.Size()))
	default:
		add("weights", vectors+int64(l.matrices)*int64(o.Weights.Size()))
	}
	if o.Trainable {
		add("gradients", total+f32)
		if o.Moments == engine.U8 {
			add("optimizer", 2*(vectors+int64(l.matrices)+int64(momentBlocks(l.matrices))*f32))
		} else {
			add("optimizer", 2*total)
		}
	}
	add("rotary tables", int64(o.MaxContext)*int64(cfg.HeadDim)*f32)
	workspaceBytes := func(s workspaceShape) int64 {
		var a arena
		planWorkspace(&a, &workspace{}, &cfg, s)
		return a.bytes()
	}
	if o.MaxRows > 0 {
		add("activations", workspaceBytes(workspaceShape{rows: o.MaxRows, keep: o.Trainable, recompute: o.Recompute, act: act}))
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
