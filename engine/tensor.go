package engine

// DType is an element type.
type DType uint8

// The element types. BF16 is storage only: sums are always in float32. U8 holds
// the codes of 8-bit moments (see AdamWArgs).
const (
	F32 DType = iota
	BF16
	I32
	U8
)

// Size returns the bytes of one element.
func (d DType) Size() int {
	switch d {
	case BF16:
		return 2
	case U8:
		return 1
	}
	return 4
}

// String returns the name safetensors uses.
func (d DType) String() string {
	switch d {
	case F32:
		return "F32"
	case BF16:
		return "BF16"
	case I32:
		return "I32"
	case U8:
		return "U8"
	}
	return "invalid"
}

// Buffer is an opaque handle to device memory. Only the backend that made it
// may look inside.
type Buffer interface {
	DType() DType
	Len() int // elements
}

// Tensor is a row-major matrix view into a Buffer: element (r, c) lies at
// Off + r*Stride + c. A vector is a matrix of one row. The zero Tensor means
// "absent" where an operation has optional arguments.
type Tensor struct {
	Buf        Buffer
	Off        int
	Rows, Cols int
	Stride     int // elements from one row to the next, at least Cols
}

// Matrix views elements [off, off+rows*cols) of b as a dense rows×cols matrix.
func Matrix(b Buffer, off, rows, cols int) Tensor {
	t := Tensor{Buf: b, Off: off, Rows: rows, Cols: cols, Stride: cols}
	t.check()
	return t
}

// Vector views elements [off, off+n) of b as one row.
func Vector(b Buffer, off, n int) Tensor { return Matrix(b, off, 1, n) }

// Valid reports whether t is present.
func (t Tensor) Valid() bool { return t.Buf != nil }

// Len returns the number of elements.
func (t Tensor) Len() int { return t.Rows * t.Cols }

// Dense reports whether the rows follow one another without gaps.
func (t Tensor) Dense() bool { return t.Stride == t.Cols || t.Rows <= 1 }

// RowRange views rows [from, to).
func (t Tensor) RowRange(from, to int) Tensor {
	if from < 0 || to < from || to > t.Rows {
		panic("engine: row range out of bounds")
	}
	t.Off += from * t.Stride
	t.Rows = to - from
	return t
}

// ColRange views columns [from, to) of every row.
func (t Tensor) ColRange(from, to int) Tensor {
	if from < 0 || to < from || to > t.Cols {
		panic("engine: column range out of bounds")
	}
	t.Off += from
	t.Cols = to - from
	return t
}

func (t Tensor) check() {
	if t.Rows < 0 || t.Cols < 0 || t.Stride < t.Cols || t.Off < 0 {
		panic("engine: malformed tensor")
	}
	if t.Rows > 0 && t.Off+(t.Rows-1)*t.Stride+t.Cols > t.Buf.Len() {
		panic("engine: tensor exceeds its buffer")
	}
}

// Weight is a matrix [N, K] that linear maps multiply by, with whatever copy
// of it a backend keeps in its preferred layout. After the matrix changes,
// Backend.RefreshWeight brings the copy up to date.
type Weight struct {
	Tensor
	Prepared Buffer // owned by the backend; nil where it needs no copy
}
