//go:build noasm || !(amd64 || arm64)

package simd

func kernels() string { return "generic" }
