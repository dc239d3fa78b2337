package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/kernels"
)

// kernel is a product Y = X·Wᵀ in bf16 with a result of one type.
type kernel struct {
	name   string
	result kernels.Type
	size   int // bytes of an element of the result
}

// bench holds what all checks and timings use.
type bench struct {
	dev       *cuda.Device
	stream    *cuda.Stream
	chip      kernels.Chip
	modules   map[string]*cuda.Module
	functions map[string]*cuda.Function
	maps      map[kernels.Map]*cuda.TensorMap
	kernels   []kernel
}

// newBench starts on a device. Products are wgmma's where it has that (compute
// capability 9.0), unless without says not to.
func newBench(dev *cuda.Device, without bool) (*bench, error) {
	info := dev.Info()
	b := &bench{
		dev:     dev,
		chip:    kernels.Chip{Arch: kernels.Arch{Major: info.Major, Minor: info.Minor}, SMs: info.SMs},
		modules: map[string]*cuda.Module{}, functions: map[string]*cuda.Function{}, maps: map[kernels.Map]*cuda.TensorMap{},
		kernels: []kernel{{"gemm_bf16_f32", kernels.F32, 4}, {"gemm_bf16_bf16", kernels.BF16, 2}},
	}
	if least := (kernels.Arch{Major: 8}); !b.chip.Arch.AtLeast(least) {
		return nil, fmt.Errorf("%s has compute capability %d.%d; the kernels need %d.%d or later (Ampere)",
			info.Name, info.Major, info.Minor, least.Major, least.Minor)
	}
	if b.chip.Arch == (kernels.Arch{Major: 9}) && !without {
		b.chip.Family = kernels.WGMMA
		b.kernels[0].name, b.kernels[1].name = "wgmma_f32", "wgmma_bf16"
	}
	var err error
	b.stream, err = dev.NewStream()
	return b, err
}

func (b *bench) close() error {
	var errs []error
	if b.stream != nil {
		errs = append(errs, b.stream.Close())
	}
	for _, m := range b.modules {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// function loads an entry point.
func (b *bench) function(spec *kernels.Spec) (*cuda.Function, error) {
	if f := b.functions[spec.Entry]; f != nil {
		return f, nil
	}
	mod := b.modules[spec.Module]
	if mod == nil {
		var err error
		if mod, err = b.dev.LoadModule(spec.Module, spec.PTX); err != nil {
			return nil, err
		}
		b.modules[spec.Module] = mod
	}
	f, err := mod.Function(spec.Entry, spec.Params)
	if err != nil {
		return nil, err
	}
	b.functions[spec.Entry] = f
	return f, f.AllowShared(spec.Shared)
}

// reportFunctions says what the driver's compiler made of the kernels.
func (b *bench) reportFunctions() map[string]functionReport {
	m := map[string]functionReport{}
	for _, spec := range kernels.ProductSpecs() {
		f, err := b.function(&spec)
		if err != nil {
			continue // a check or a timing that needs it says so
		}
		info, err := f.Info()
		if err != nil {
			continue // an older driver may not tell; nothing depends on it
		}
		blocks, _ := f.BlocksPerSM(spec.Block, spec.Shared)
		m[spec.Entry] = functionReport{FunctionInfo: info, BlocksPerSM: blocks}
	}
	return m
}

// launch issues C = A·Bᵀ on packed or padded operands at offsets in buffers.
func (b *bench) launch(k kernel, args *cuda.Args, c, x, y *cuda.Buffer, cOff int, m, n, kk, ldc, lda, ldb int) error {
	p := kernels.Product{
		Op: kernels.Forward, Factors: kernels.BF16, Result: k.result, M: m, N: n, K: kk,
		A: kernels.Matrix{Addr: x.Ptr(0), Stride: lda}, B: kernels.Matrix{Addr: y.Ptr(0), Stride: ldb},
		C: kernels.Matrix{Addr: c.Ptr(cOff), Stride: ldc},
	}
	l, err := p.Plan(b.chip)
	if err != nil {
		return err
	}
	f, err := b.function(l.Spec)
	if err != nil {
		return err
	}
	args.Reset()
	for i, kind := range l.Spec.Params {
		switch kind {
		case 'p':
			args.Pointer(l.Args[i])
		case 't':
			t, err := b.tensorMap(l.Maps[l.Args[i]])
			if err != nil {
				return err
			}
			args.TensorMap(t)
		default:
			args.Int32(int32(l.Args[i]))
		}
	}
	return b.stream.Launch(f, cuda.LaunchConfig{
		Grid: [3]int{l.Grid}, Block: [3]int{l.Spec.Block}, Shared: l.Spec.Shared,
	}, args)
}

// tensorMap encodes a map once: it is not to be timed.
func (b *bench) tensorMap(m kernels.Map) (*cuda.TensorMap, error) {
	if t := b.maps[m]; t != nil {
		return t, nil
	}
	t, err := b.dev.TensorMap(cuda.Matrix{Ptr: m.Addr, Columns: m.Columns, Rows: m.Rows, Stride: m.Stride,
		BoxColumns: m.BoxColumns, BoxRows: m.BoxRows})
	if err != nil {
		return nil, err
	}
	b.maps[m] = &t
	return &t, nil
}

// upload allocates a buffer, at least one byte long, that holds x.
func (b *bench) upload(x []uint16) (*cuda.Buffer, error) {
	buf, err := b.dev.Alloc(max(2*len(x), 1))
	if err != nil {
		return nil, err
	}
	if err := b.stream.Upload(buf, 0, cuda.Bytes(x)); err != nil {
		return nil, errors.Join(err, buf.Free())
	}
	return buf, nil
}

// randomMatrix returns rows×k bf16 values, uniform in [-1, 1), at row stride ld,
// with NaN between the rows: a read of it would show in the product.
func randomMatrix(r *rand.Rand, rows, k, ld int) []uint16 {
	x := make([]uint16, rows*ld)
	for i := range rows {
		row := x[i*ld : (i+1)*ld]
		for j := range row {
			row[j] = 0x7fff
			if j < k {
				row[j] = half.BF16(2*r.Float32() - 1)
			}
		}
	}
	return x
}
