package kernels

import (
	"fmt"
	"math"
)

// Arch is a compute capability, for example {8, 0}.
type Arch struct {
	Major, Minor int
}

// String gives the name that compilers use, for example sm_80.
func (a Arch) String() string { return fmt.Sprintf("sm_%d%d", a.Major, a.Minor) }

// AtLeast reports whether a chip of capability a runs code made for b.
func (a Arch) AtLeast(b Arch) bool {
	return a.Major > b.Major || a.Major == b.Major && a.Minor >= b.Minor
}

// Spec says how an entry point is launched.
type Spec struct {
	// Entry is the name of the entry point in Module.
	Entry string
	// Module names the PTX file without its suffix; PTX is its text.
	Module, PTX string
	// Arch is the least compute capability that runs it.
	Arch Arch
	// Params has a letter for each parameter in order: p for a device pointer,
	// i for a 32-bit integer, l for a 64-bit one, f for a float.
	Params string
	// Block is the number of threads of a block, in x.
	Block int
	// Shared is the dynamic shared memory of a block in bytes. Above 48 KB the
	// launcher has to raise the function's limit first.
	Shared int
}

// GEMM is C[M×N] = A[M×K]·B[N×K]ᵀ for bf16 A and B, accumulated in fp32. See
// gemm_bf16.cu for the contract in full. Parameters: C, A, B, M, N, K, ldc,
// lda, ldb.
type GEMM struct {
	Spec
	// TileM, TileN and TileK are the part of the product that a block computes
	// at once; Stages is how many such parts are in shared memory.
	TileM, TileN, TileK, Stages int
	// OutBytes is the size of an element of C: 4 for fp32, 2 for bf16.
	OutBytes int
}

// GEMMBF16F32 returns the product with an fp32 result.
func GEMMBF16F32() GEMM { return gemmBF16("gemm_bf16_f32", 4) }

// GEMMBF16BF16 returns the product whose result is rounded once to bf16.
func GEMMBF16BF16() GEMM { return gemmBF16("gemm_bf16_bf16", 2) }

func gemmBF16(entry string, outBytes int) GEMM {
	const tile, tileK, stages = 128, 32, 4
	return GEMM{
		Spec: Spec{
			Entry: entry, Module: "gemm_bf16", PTX: ptx("gemm_bf16"), Arch: Arch{8, 0},
			Params: "pppiiiiii", Block: 128,
			Shared: stages * (tile + tile) * tileK * 2,
		},
		TileM: tile, TileN: tile, TileK: tileK, Stages: stages, OutBytes: outBytes,
	}
}

// Grid returns the number of blocks, in x, for an M×N result.
func (g GEMM) Grid(m, n int) int {
	return (m + g.TileM - 1) / g.TileM * ((n + g.TileN - 1) / g.TileN)
}

// Check returns an error unless the kernel can compute the product of the given
// sizes and row strides, all counted in elements.
func (g GEMM) Check(m, n, k, ldc, lda, ldb int) error {
	switch {
	case m < 1 || n < 1 || k < 0:
		return fmt.Errorf("%s: M = %d, N = %d, K = %d: M and N must be at least 1, K at least 0", g.Entry, m, n, k)
	case ldc < n || lda < k || ldb < k:
		return fmt.Errorf("%s: ldc = %d, lda = %d, ldb = %d: a row stride is smaller than its row (N = %d, K = %d)",
			g.Entry, ldc, lda, ldb, n, k)
	case lda%8 != 0 || ldb%8 != 0:
		return fmt.Errorf("%s: lda = %d, ldb = %d: must be multiples of 8 (rows start at 16-byte boundaries)",
			g.Entry, lda, ldb)
	case max(m, n, k, ldc, lda, ldb) > math.MaxInt32-256 || tiles(m, g.TileM) > math.MaxInt32/tiles(n, g.TileN)/8:
		return fmt.Errorf("%s: M = %d, N = %d, K = %d, ldc = %d, lda = %d, ldb = %d: a size is too large",
			g.Entry, m, n, k, ldc, lda, ldb)
	}
	return nil
}

func tiles(n, tile int) int { return (n + tile - 1) / tile }
