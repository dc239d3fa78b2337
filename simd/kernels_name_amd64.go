//go:build !noasm

package simd

func kernels() string {
	switch {
	case use.avx512:
		return "avx512"
	case use.avx2:
		return "avx2"
	}
	return "generic"
}
