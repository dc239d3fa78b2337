//go:build !noasm

package simd

// features says which instruction sets the kernels use.
type features struct {
	neon bool // Advanced SIMD, which every arm64 that Go runs on has
}

// use is set once; only tests change it (variants_arm64_test.go).
var use = features{neon: true}
