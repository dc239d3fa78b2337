//go:build noasm || !(amd64 || arm64)

package simd

var allVariants = []variant{{name: "generic", enable: func() func() { return func() {} }}}
