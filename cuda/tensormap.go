package cuda

import "fmt"

const tensorMapWords = 16

// TensorMap describes a matrix in device memory, and boxes of it, to the copy
// engine of devices of compute capability 9.0 and later. It is opaque, is passed
// to kernels by value (Args.TensorMap), and holds an address: it is of use only
// while that memory is allocated.
type TensorMap struct {
	words [tensorMapWords]uint64
}

// Matrix is a row-major bf16 matrix in device memory and the box of it that is
// copied at once. A box' rows have at most 128 bytes, and reach shared memory in
// the 128-byte swizzle; elements outside of the matrix arrive as zero.
type Matrix struct {
	Ptr                 uint64 // of the first element, a multiple of 16
	Columns, Rows       int    // at least 1
	Stride              int    // between rows in elements, a multiple of 8
	BoxColumns, BoxRows int    // at most 64 (a multiple of 8), at most 256
}

// TensorMap encodes m. It touches no device memory. The error says what the
// driver refused.
func (g *Device) TensorMap(m Matrix) (TensorMap, error) {
	var t TensorMap
	if min(m.Columns, m.Rows, m.Stride, m.BoxColumns, m.BoxRows) < 1 {
		panic("cuda: tensor map: an empty matrix or box")
	}
	code := g.drv.api.cuTensorMapEncodeTiled(g.ctx, &t, m.Ptr, [2]uint64{uint64(m.Columns), uint64(m.Rows)}, uint64(m.Stride)*2,
		[2]uint32{uint32(m.BoxColumns), uint32(m.BoxRows)})
	if err := g.check("cuTensorMapEncodeTiled", code); err != nil {
		return t, fmt.Errorf("cuda: tensor map of %+v: %w", m, err)
	}
	return t, nil
}
