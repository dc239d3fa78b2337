//go:build !noasm

package simd

import "github.com/klauspost/cpuid/v2"

// features says which instruction sets the kernels use.
type features struct {
	avx2 bool // AVX2 and FMA3
}

// use is set once, before main; only tests change it (export_test.go).
var use = detect()

func detect() features {
	return features{avx2: cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3)}
}
