package kernels

import "math"

// typed names the entry for each choice of types; an empty name is a choice that
// there is no kernel for.
func typed(name string) string {
	if name == "" {
		panic("kernels: no kernel for these element types")
	}
	return name
}

// rowThreads is the block of the kernels of rows.cu and norm.cu.
const rowThreads = 256

func rowSpec(entry, params string) Spec {
	return Spec{Entry: typed(entry), Module: "rows", PTX: ptx("rows"), Arch: Arch{8, 0}, Params: params, Block: rowThreads}
}

// Elementwise is a kernel of rows.cu that computes a matrix element by element.
// Rows, columns and row strides are counted in elements; its parameters stand
// with the function that returns it.
type Elementwise struct {
	Spec
	PerThread int // elements of a row that a thread computes
}

// Grid returns the number of blocks, in x, for a matrix of rows × cols. It panics
// beyond 2³¹−1 threads, 2³⁴ elements at eight each.
func (e Elementwise) Grid(rows, cols int) int {
	return gridOf(rows, tiles(cols, e.PerThread))
}

func gridOf(rows, perRow int) int {
	if perRow > 0 && rows > math.MaxInt32/perRow {
		panic("kernels: too many elements for one launch")
	}
	return tiles(rows*perRow, rowThreads)
}

// packed is the number of elements that most kernels compute in a thread.
const packed = 8

// Fill sets every element, of 1, 2 or 4 bytes, to given bits.
// Parameters: P, bits, rows, cols, stride.
func Fill(elementBytes int) Elementwise {
	entry := [5]string{1: "fill_b8", 2: "fill_b16", 4: "fill_b32"}[elementBytes]
	return Elementwise{rowSpec(entry, "piiii"), 16 / elementBytes}
}

// CopyBits copies elements of 1, 2 or 4 bytes as they are.
// Parameters: dst, src, rows, cols, dst stride, src stride.
func CopyBits(elementBytes int) Elementwise {
	entry := [5]string{1: "copy_b8", 2: "copy_b16", 4: "copy_b32"}[elementBytes]
	return Elementwise{rowSpec(entry, "ppiiii"), 16 / elementBytes}
}

// ToBF16 rounds F32 to BF16, to nearest even. Parameters as CopyBits'.
func ToBF16() Elementwise { return Elementwise{rowSpec("copy_bf16_f32", "ppiiii"), packed} }

// ToF32 widens BF16 to F32. Parameters as CopyBits'.
func ToF32() Elementwise { return Elementwise{rowSpec("copy_f32_bf16", "ppiiii"), packed} }

// Gather is dst[t] = table[ids[t]], zeros where ids[t] < 0. dst is F32 or of the
// table's type. Grid takes dst's shape.
// Parameters: dst, table, ids, rows, cols, rows of the table, dst stride, table
// stride.
func Gather(dst, table Type) Elementwise {
	entry := [2][2]string{F32: {F32: "gather_f32_f32", BF16: "gather_f32_bf16"}, BF16: {BF16: "gather_bf16_bf16"}}[dst][table]
	return Elementwise{rowSpec(entry, "pppiiiii"), packed}
}

// SwiGLU is Y = silu(gate)·up.
// Parameters: Y, gate, up, rows, cols, Y stride, gate stride, up stride.
func SwiGLU(t Type) Elementwise {
	return Elementwise{rowSpec([2]string{"swiglu_f32", "swiglu_bf16"}[t], "pppiiiii"), packed}
}

// SwiGLUBackward computes the gradients of gate and up. dgate may be gate and dup
// may be up.
// Parameters: dgate, dup, dY, gate, up, rows, cols, and the five strides in the
// order of the pointers.
func SwiGLUBackward(t Type) Elementwise {
	return Elementwise{rowSpec([2]string{"swiglu_backward_f32", "swiglu_backward_bf16"}[t], "pppppiiiiiii"), packed}
}

// Rope rotates the heads of X in place by their rows' positions, of which those
// below zero leave the row alone. half is half of a head's size.
// Parameters: X, positions, cosines, sines, rows, heads, half, rows of the tables,
// X stride, cosines stride, sines stride, inverse (0 or 1).
type Rope struct{ Spec }

// RoPE returns the kernel for X of type t.
func RoPE(t Type) Rope { return Rope{rowSpec([2]string{"rope_f32", "rope_bf16"}[t], "ppppiiiiiiii")} }

// Grid returns the number of blocks, in x.
func (Rope) Grid(rows, heads, half int) int { return gridOf(rows, heads*tiles(half, packed)) }

// Scatter is table[ids[t]] += src[t] in ascending t, all F32. Ids below zero or
// beyond the table are left out.
// Parameters: table, src, ids, rows, cols, rows of the table, table stride, src
// stride.
type Scatter struct{ Spec }

// ScatterAdd returns the kernel.
func ScatterAdd() Scatter {
	return Scatter{Spec{Entry: "scatter_add_f32", Module: "scatter", PTX: ptx("scatter"), Arch: Arch{8, 0}, Params: "pppiiiii",
		Block: scatterThreads, Shared: 9*scatterThreads/32*4 + 8*scatterThreads*4}}
}

// scatterThreads and scatterColumns are the threads of a block and the columns of
// each.
const scatterThreads, scatterColumns = 128, 4

// Grid returns the number of blocks in x and y; there are none where it is zero.
func (Scatter) Grid(rows, cols int) (x, y int) {
	return rows, tiles(cols, scatterThreads*scatterColumns)
}
