//go:build !noasm

package roofline

import "github.com/klauspost/cpuid/v2"

func loops() (all []loop) {
	if cpuid.CPU.Supports(cpuid.AVX2, cpuid.FMA3) {
		all = append(all, loop{"AVX2", fmaAVX2, flopPerRound(8), func(x []float32) { readAVX2(&x[0], len(x)/64) }, 64})
	}
	if cpuid.CPU.Supports(cpuid.AVX512F) {
		all = append(all, loop{"AVX-512", fmaAVX512, flopPerRound(16), func(x []float32) { readAVX512(&x[0], len(x)/128) }, 128})
	}
	if len(all) == 0 {
		all = portable()
	}
	return all
}

// fmaAVX2 does n rounds of twelve independent multiply-adds of 8 floats, n > 0.
//
//go:noescape
func fmaAVX2(n int)

// fmaAVX512 does n rounds of twelve independent multiply-adds of 16 floats, n > 0.
//
//go:noescape
func fmaAVX512(n int)

// readAVX2 loads n blocks of 64 floats, n > 0.
//
//go:noescape
func readAVX2(x *float32, n int)

// readAVX512 loads n blocks of 128 floats, n > 0.
//
//go:noescape
func readAVX512(x *float32, n int)
