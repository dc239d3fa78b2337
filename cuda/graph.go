package cuda

import "errors"

// Graph is work that was captured from a stream, made ready to run as a whole: a
// launch of it costs the host one call, whatever it holds.
type Graph struct {
	dev    *Device
	handle handle // CUgraphExec
	nodes  int
}

// Capture collects the work that issue gives to s instead of running it. Within
// issue nothing may wait for the device. What the work points at must live as
// long as the graph does; the kernels' arguments are copied.
func (s *Stream) Capture(issue func() error) (*Graph, error) {
	g := s.dev
	if err := g.check("cuStreamBeginCapture_v2", g.drv.api.cuStreamBeginCapture(g.ctx, s.use())); err != nil {
		return nil, err
	}
	failed := issue()
	// A capture is ended in any case: s could not be used otherwise.
	template, code := g.drv.api.cuStreamEndCapture(g.ctx, s.use())
	if err := errors.Join(failed, g.check("cuStreamEndCapture", code)); err != nil {
		if template != 0 {
			err = errors.Join(err, g.check("cuGraphDestroy", g.drv.api.cuGraphDestroy(g.ctx, template)))
		}
		return nil, err
	}
	nodes, code := g.drv.api.cuGraphGetNodes(g.ctx, template)
	err := g.check("cuGraphGetNodes", code)
	var exec handle
	if err == nil {
		exec, code = g.drv.api.cuGraphInstantiate(g.ctx, template)
		err = g.check("cuGraphInstantiateWithFlags", code)
	}
	if err := errors.Join(err, g.check("cuGraphDestroy", g.drv.api.cuGraphDestroy(g.ctx, template))); err != nil {
		return nil, err
	}
	x := &Graph{dev: g, handle: exec, nodes: nodes}
	g.drv.leaks.add(x, "graph", 0)
	return x, nil
}

// Nodes returns the number of kernels, copies and fills in the graph.
func (x *Graph) Nodes() int { return x.nodes }

// Close gives the graph back; runs under way are not disturbed. A second Close
// does nothing.
func (x *Graph) Close() error {
	if x.handle == 0 {
		return nil
	}
	h := x.handle
	x.handle = 0
	x.dev.drv.leaks.remove(x)
	return x.dev.check("cuGraphExecDestroy", x.dev.drv.api.cuGraphExecDestroy(x.dev.ctx, h))
}

// LaunchGraph issues one run of x.
func (s *Stream) LaunchGraph(x *Graph) error {
	if x.handle == 0 {
		panic("cuda: use of a closed graph")
	}
	return s.dev.check("cuGraphLaunch", s.dev.drv.api.cuGraphLaunch(s.dev.ctx, x.handle, s.use()))
}
