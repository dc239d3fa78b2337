//go:build !noasm

package simd

import "github.com/klauspost/cpuid/v2"

// features says which instruction sets the kernels use.
type features struct {
	avx2   bool // AVX2 and FMA3
	avx512 bool // AVX-512 F, BW, DQ and VL; only together with avx2
}

// use is set once, before main; only tests change it (export_test.go).
var use = detect()

func detect() features {
	avx2 := cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3)
	return features{
		avx2:   avx2,
		avx512: avx2 && cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL),
	}
}
