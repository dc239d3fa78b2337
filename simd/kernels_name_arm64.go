//go:build !noasm

package simd

func kernels() string {
	if use.neon {
		return "neon"
	}
	return "generic"
}
