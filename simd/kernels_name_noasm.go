//go:build noasm || !amd64

package simd

func kernels() string { return "generic" }
