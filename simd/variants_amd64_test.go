//go:build !noasm

package simd

var allVariants = []variant{
	{name: "generic", enable: func() func() { return setFeatures(features{}) }},
	{name: "avx2", need: "avx2", enable: func() func() { return setFeatures(features{avx2: true}) }},
}

func setFeatures(f features) (restore func()) {
	old := use
	use = f
	return func() { use = old }
}
