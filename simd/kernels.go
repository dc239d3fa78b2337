package simd

// Kernels names the instruction set that the kernels use: "avx512", "avx2", "neon",
// or "generic" for the portable Go code.
func Kernels() string { return kernels() }
