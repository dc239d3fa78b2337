package kernels

// Norm is a kernel that normalises lines of D elements: groups of the columns of
// a row. Lines are rows·groups.
type Norm struct {
	Spec
	// LinesPerBlock is the number of lines that a block computes.
	LinesPerBlock int
}

// A line is a warp's up to normWarp elements, a block's up to NormMax.
const (
	normWarp = 1024
	// NormMax is the most elements of a line.
	NormMax = 8192
)

// narrow reports whether lines of d elements are given to warps.
func narrow(d int) bool {
	if d < 1 || d > NormMax {
		panic("kernels: norm: a group has more than 8192 columns, or none")
	}
	return d <= normWarp
}

func normSpec(entries [2]string, d int, params string) Spec {
	entry, shared := entries[1], 4*rowThreads/32
	if narrow(d) {
		entry = entries[0]
	}
	return Spec{Entry: typed(entry), Module: "norm", PTX: ptx("norm"), Arch: Arch{8, 0}, Params: params, Block: rowThreads, Shared: shared}
}

// RMSNorm is the forward, Y = X·rstd·W for lines of d elements. W and Rstd are
// F32; Rstd may be null. Y and X are of one type, or X is F32.
// Parameters: Y, X, W, Rstd, lines, groups, d, Y stride, X stride, Rstd stride,
// eps.
func RMSNorm(y, x Type, d int) Norm {
	entries := [2][2][2]string{
		F32:  {F32: {"rmsnorm_f32_f32_warp", "rmsnorm_f32_f32_block"}},
		BF16: {F32: {"rmsnorm_bf16_f32_warp", "rmsnorm_bf16_f32_block"}, BF16: {"rmsnorm_bf16_bf16_warp", "rmsnorm_bf16_bf16_block"}},
	}[y][x]
	n := Norm{normSpec(entries, d, "ppppiiiiiif"), 1}
	if narrow(d) {
		n.LinesPerBlock = rowThreads / 32
	}
	return n
}

// Grid returns the number of blocks, in x.
func (n Norm) Grid(lines int) int { return tiles(lines, n.LinesPerBlock) }

// NormBackward is the backward. Each block computes DX of a slice of the lines and
// the slice's share of DW, which NormWeight adds up.
type NormBackward struct {
	Spec
	Slices, LinesPerSlice int // of as many lines as it was made for
	d                     int
}

// RMSNormBackward is the backward for lines of d elements. All are of one type, or
// DX or X or both are F32 where dy is BF16.
// Parameters: DX, partial (null: no DW), DY, X, W, Rstd, lines, groups, d, lines
// per slice, DX stride, DY stride, X stride, Rstd stride, accumulate (0 or 1).
func RMSNormBackward(dx, dy, x Type, d, lines int) NormBackward {
	var entries [2]string
	switch [3]Type{dx, dy, x} {
	case [3]Type{F32, F32, F32}:
		entries = [2]string{"rmsnorm_backward_f32_f32_f32_warp", "rmsnorm_backward_f32_f32_f32_block"}
	case [3]Type{F32, BF16, F32}:
		entries = [2]string{"rmsnorm_backward_f32_bf16_f32_warp", "rmsnorm_backward_f32_bf16_f32_block"}
	case [3]Type{BF16, BF16, F32}:
		entries = [2]string{"rmsnorm_backward_bf16_bf16_f32_warp", "rmsnorm_backward_bf16_bf16_f32_block"}
	case [3]Type{F32, BF16, BF16}:
		entries = [2]string{"rmsnorm_backward_f32_bf16_bf16_warp", "rmsnorm_backward_f32_bf16_bf16_block"}
	case [3]Type{BF16, BF16, BF16}:
		entries = [2]string{"rmsnorm_backward_bf16_bf16_bf16_warp", "rmsnorm_backward_bf16_bf16_bf16_block"}
	}
	b := NormBackward{Spec: normSpec(entries, d, "ppppppiiiiiiiii"), d: d}
	if narrow(d) {
		b.Shared = 4 * d * rowThreads / 32 // each warp's share of DW
	}
	// At least 64 lines a slice, so that the partial sums are small beside X and DY;
	// at most 512 slices, more blocks than run at once on any GPU.
	const least, most, warps = 64, 512, rowThreads / 32
	b.LinesPerSlice = max(least, tiles(tiles(lines, most), warps)*warps)
	b.Slices = tiles(lines, b.LinesPerSlice)
	return b
}

// Grid returns the number of blocks, in x.
func (b NormBackward) Grid() int { return b.Slices }

// PartialBytes returns the size of partial.
func (b NormBackward) PartialBytes() int { return b.Slices * b.d * 4 }

// NormWeight is DW += the sum of partial over its slices.
// Parameters: DW, partial, slices, d.
type NormWeight struct{ Spec }

// RMSNormWeight returns the kernel.
func RMSNormWeight() NormWeight {
	return NormWeight{Spec{Entry: "rmsnorm_weight", Module: "norm", PTX: ptx("norm"), Arch: Arch{8, 0}, Params: "ppii",
		Block: rowThreads, Shared: 4 * rowThreads}}
}

// Grid returns the number of blocks, in x.
func (NormWeight) Grid(d int) int { return tiles(d, 32) }
