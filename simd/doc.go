// Package simd holds the float32 slice kernels under the CPU backend: matrix
// products, exponentials, norms, activations, rotary embedding, reductions and
// the AdamW update. Each kernel exists as plain Go (xGeneric, compiled
// everywhere) and, where it pays, as assembly behind the same exported
// function; the choice is made once from the CPU's features.
//
// What it is not: it knows no tensors, no threads and no models. Every call is
// single-threaded, allocates nothing and works on the slices given; callers
// split work by passing sub-ranges. Slices that are too short, negative sizes
// and strides that would make rows overlap panic with a constant string.
// Unless a function says otherwise, an output may be the very same slice as an
// input, but may not overlap one partly.
//
// # Numerical contract
//
// For one set of CPU features:
//
//   - Matrix products: every element of C is one chain of multiply-adds over
//     k = 0, 1, …, K−1 in float32, started from 0, from a bias or from the C
//     that was there. Its bits depend on row i of A, column j of B and the
//     start, and on nothing else: not on M or N, the position in the matrix,
//     strides, packing, cache blocking or the split among threads.
//   - Element-wise kernels: a value gives the same bits in any lane, at any
//     offset and length. Tails run the same instructions on masked vectors, or on
//     vectors of one element.
//   - Reductions: one order of additions that depends on the length alone, not
//     on alignment. For float32 sums element i goes to lane i mod 32; for
//     float64 sums to lane i mod 16; lanes are then added pairwise, halving
//     their number (lane l with lane l+n/2, …) as laneSum32 and laneSum64 show.
//
// The AVX2, AVX-512 and NEON kernels give the same bits: they do the same
// operations on the same lanes. A result therefore does not depend on which of
// them a machine has (TestGoldenBits); only which NaN a NaN is, and the sign of a
// zero that is a maximum, may differ.
//
// The generic kernels keep the same three promises among themselves. Their
// multiply-adds are fused too, by way of float64 (mulAdd in gemm_generic.go);
// element-wise kernels and float32 sums may round differently from assembly, so
// that the two agree within tolerances, not in bits.
//
// Why assembly and not the experimental simd/archsimd of Go 1.26: that package
// needs GOEXPERIMENT at build time, which a library cannot ask of its users.
//
// Build tag noasm leaves only the generic kernels.
//
// The speed of the NEON kernels has not been measured: they have run under an
// emulator of the processor only. They are written for four pipes of latency four,
// with nothing tuned.
//
// Matrices that are multiplied by may be BF16 (gemm_bf16.go): they are widened on
// the way, and the bits are those of the same values in float32.
//
// Start reading at gemm.go (contract and blocking of the matrix product), then
// exp.go.
package simd
