package cpu

import "github.com/updraft-ml/updraft/simd"

// kernelName names the instruction set that package simd chose.
func kernelName() string { return simd.Kernels() }
