package gpu

import (
	"math"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// function returns an entry point, loaded when it is first asked for. It returns nil where that failed, which Sync and Wait then
// say.
func (b *Backend) function(op string, s *kernels.Spec) *cuda.Function {
	if f := b.functions[s.Entry]; f != nil {
		return f
	}
	f, err := b.load(s)
	if err != nil {
		b.fail(op, err)
		return nil
	}
	b.functions[s.Entry] = f
	return f
}

func (b *Backend) load(s *kernels.Spec) (*cuda.Function, error) {
	mod, err := b.dev.Module(s.Module, s.PTX)
	if err != nil {
		return nil, err
	}
	return mod.Function(s.Entry, s.Params)
}

// start empties the argument list for the next launch.
func (b *Backend) start() *cuda.Args { return b.args.Reset() }

// launch submits a run of a kernel with the arguments that were put together
// since start. A grid with a zero in it runs nothing.
func (b *Backend) launch(op string, s *kernels.Spec, x, y, z int) {
	if x == 0 || y == 0 || z == 0 {
		return
	}
	f := b.function(op, s)
	if f == nil {
		return
	}
	if err := f.AllowShared(s.Shared); err != nil {
		b.fail(op, err)
		return
	}
	c := &b.next
	*c = command{op: op, fn: f, args: b.args,
		config: cuda.LaunchConfig{Grid: [3]int{x, y, z}, Block: [3]int{s.Block}, Shared: s.Shared}}
	b.submit(c)
}

// run submits a planned launch.
func (b *Backend) run(op string, l *kernels.Launch, err error) {
	if err != nil {
		panic("gpu: " + err.Error())
	}
	a := b.start()
	for i := range len(l.Spec.Params) {
		switch bits := l.Args[i]; l.Spec.Params[i] {
		case 'p':
			a.Pointer(bits)
		case 'i':
			a.Int32(int32(uint32(bits)))
		case 'l':
			a.Int64(int64(bits))
		case 'f':
			a.Float32(math.Float32frombits(uint32(bits)))
		case 't':
			m, err := b.tensorMap(&l.Maps[bits])
			if err != nil {
				b.fail(op, err)
				return
			}
			a.TensorMap(m)
		}
	}
	b.launch(op, l.Spec, l.Grid, 1, 1)
}

// maxTensorMaps bounds what is kept of them: a step of a large model has a few hundred.
const maxTensorMaps = 4096

// tensorMap encodes a map, or finds it among those that were. A map says where a matrix
// lies and nothing of what is there, so it never grows stale.
func (b *Backend) tensorMap(m *kernels.Map) (*cuda.TensorMap, error) {
	if t := b.tensorMaps[*m]; t != nil {
		return t, nil
	}
	t, err := b.dev.TensorMap(cuda.Matrix{Ptr: m.Addr, Columns: m.Columns, Rows: m.Rows, Stride: m.Stride,
		BoxColumns: m.BoxColumns, BoxRows: m.BoxRows})
	if err != nil {
		return nil, err
	}
	if len(b.tensorMaps) >= maxTensorMaps || b.tensorMaps == nil {
		b.tensorMaps = map[kernels.Map]*cuda.TensorMap{}
	}
	b.tensorMaps[*m] = &t
	return &t, nil
}

// kernelType is a view's element type as package kernels names it.
func (v view) kernelType() kernels.Type { return typeOf(v.dtype) }

func typeOf(d engine.DType) kernels.Type {
	if d == engine.BF16 {
		return kernels.BF16
	}
	return kernels.F32
}

func int32Of(v bool) int32 {
	if v {
		return 1
	}
	return 0
}

// add appends a view's address.
func add(a *cuda.Args, views ...view) *cuda.Args {
	for _, v := range views {
		a.Pointer(v.ptr())
	}
	return a
}

// sizes appends 32-bit integers. The tensors of one launch have fewer than 2^31
// rows and columns, and strides below that.
func sizes(a *cuda.Args, n ...int) *cuda.Args {
	for _, v := range n {
		if v != int(int32(v)) {
			panic("gpu: a size is too large for a kernel")
		}
		a.Int32(int32(v))
	}
	return a
}
