package bench

import "slices"

// shapes returns those of the named shapes that are wanted.
func (r *runner) shapes(names ...string) (all []Shape) {
	for _, n := range names {
		if len(r.o.Shapes) > 0 && !slices.Contains(r.o.Shapes, n) {
			continue
		}
		s := shapeNamed(n)
		if r.o.Miniature {
			s = miniature(s)
		}
		all = append(all, s)
	}
	return all
}

// miniature keeps a shape's kind and nothing of its size.
func miniature(s Shape) Shape {
	c := &s.Config
	c.HiddenSize, c.IntermediateSize, c.NumHiddenLayers, c.NumAttentionHeads, c.NumKeyValueHeads, c.HeadDim = 16, 24, 1, 2, 1, 8
	c.VocabSize = 37
	return s
}

// workloads lists everything that is wanted, in the order of Groups.
func (r *runner) workloads() (all []*workload) {
	groups := map[string]func() []*workload{
		"kernels": func() []*workload { return append(r.gemmWorkloads(), r.kernelWorkloads()...) },
		"prefill": r.prefillWorkloads,
		"decode":  r.decodeWorkloads,
		"train":   r.trainWorkloads,
		"gapg":    r.gapgWorkloads,
		"sharing": r.sharingWorkloads,
		"scaling": r.scalingWorkloads,
		"memory":  r.memoryWorkloads,
	}
	for _, g := range Groups() {
		if len(r.o.Groups) == 0 || slices.Contains(r.o.Groups, g) {
			all = append(all, groups[g]()...)
		}
	}
	return all
}
