package main

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/kernels"
)

// kernel is a GEMM that is loaded.
type kernel struct {
	spec kernels.GEMM
	fn   *cuda.Function
}

// bench holds what all checks and timings use.
type bench struct {
	dev     *cuda.Device
	stream  *cuda.Stream
	modules []*cuda.Module
	kernels []kernel
}

func newBench(dev *cuda.Device) (*bench, error) {
	b := &bench{dev: dev}
	fail := func(err error) (*bench, error) { return nil, errors.Join(err, b.close()) }
	info := dev.Info()
	for _, spec := range []kernels.GEMM{kernels.GEMMBF16F32(), kernels.GEMMBF16BF16()} {
		have := kernels.Arch{Major: info.Major, Minor: info.Minor}
		if !have.AtLeast(spec.Arch) {
			return fail(fmt.Errorf("%s has compute capability %d.%d; the kernels need %d.%d or later (Ampere)",
				info.Name, info.Major, info.Minor, spec.Arch.Major, spec.Arch.Minor))
		}
		mod, err := dev.LoadModule(spec.Module, spec.PTX)
		if err != nil {
			return fail(err)
		}
		b.modules = append(b.modules, mod)
		fn, err := mod.Function(spec.Entry, spec.Params)
		if err != nil {
			return fail(err)
		}
		if err := fn.AllowShared(spec.Shared); err != nil {
			return fail(err)
		}
		b.kernels = append(b.kernels, kernel{spec, fn})
	}
	var err error
	if b.stream, err = dev.NewStream(); err != nil {
		return fail(err)
	}
	return b, nil
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

// functions reports what the driver's compiler made of the kernels.
func (b *bench) functions() map[string]functionReport {
	m := map[string]functionReport{}
	for _, k := range b.kernels {
		info, err := k.fn.Info()
		if err != nil {
			continue // an older driver may not tell; nothing depends on it
		}
		blocks, _ := k.fn.BlocksPerSM(k.spec.Block, k.spec.Shared)
		m[k.spec.Entry] = functionReport{FunctionInfo: info, BlocksPerSM: blocks}
	}
	return m
}

// launch issues C = A·Bᵀ on packed or padded operands at offsets in buffers.
func (b *bench) launch(k kernel, args *cuda.Args, c, x, y *cuda.Buffer, cOff int, m, n, kk, ldc, lda, ldb int) error {
	if err := k.spec.Check(m, n, kk, ldc, lda, ldb); err != nil {
		return err
	}
	args.Reset().Buffer(c, cOff).Buffer(x, 0).Buffer(y, 0).
		Int32(int32(m)).Int32(int32(n)).Int32(int32(kk)).Int32(int32(ldc)).Int32(int32(lda)).Int32(int32(ldb))
	return b.stream.Launch(k.fn, cuda.LaunchConfig{
		Grid: [3]int{k.spec.Grid(m, n)}, Block: [3]int{k.spec.Block}, Shared: k.spec.Shared,
	}, args)
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
