//go:build !noasm

package simd

func kernels() string {
	if use.avx2 {
		return "avx2"
	}
	return "generic"
}
