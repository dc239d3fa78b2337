package simd

import (
	"fmt"
	"testing"
)

// BenchmarkVec runs each element-wise kernel and reduction on a slice inside
// the second-level cache; bytes are those read and written.
func BenchmarkVec(b *testing.B) {
	const n = 4096
	r := newRand(41)
	for _, k := range vecKernels {
		in := k.inputs(r, n)
		out := make([][]float32, k.outs)
		for i := range out {
			out[i] = make([]float32, n)
		}
		b.Run(k.name, func(b *testing.B) {
			b.SetBytes(int64(4 * n * (k.ins + k.outs)))
			b.ReportAllocs()
			for b.Loop() {
				k.run(out, in)
			}
		})
	}
	x, y, dst := randFloats(r, n), randFloats(r, n), make([]float32, n)
	for _, f := range []struct {
		name  string
		reads int
		run   func()
	}{
		{"Sum", 1, func() { Sum(x) }},
		{"SumSq", 1, func() { SumSq(x) }},
		{"Dot", 2, func() { Dot(x, y) }},
		{"dot3", 3, func() { dot3(x, y, dst) }},
		{"Max", 1, func() { Max(x) }},
		{"ArgMax", 1, func() { ArgMax(x) }},
		{"ExpSub", 2, func() { ExpSub(dst, x, 3) }},
		{"SumExp", 1, func() { SumExp(x, 3) }},
		{"RMSNorm", 3, func() { RMSNorm(dst, x, y, 1e-5) }},
	} {
		b.Run(f.name, func(b *testing.B) {
			b.SetBytes(4 * n * int64(f.reads))
			b.ReportAllocs()
			for b.Loop() {
				f.run()
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	for _, nk := range [][2]int{{384, 128}, {1536, 576}, {64, 64}} {
		n, k := nk[0], nk[1]
		w := randFloats(newRand(42), n*k)
		dst := make([]float32, PackedLen(n, k))
		b.Run(fmt.Sprintf("NT/%dx%d", n, k), func(b *testing.B) {
			b.SetBytes(int64(8 * n * k))
			for b.Loop() {
				PackNT(dst, w, n, k, k)
			}
		})
		b.Run(fmt.Sprintf("NN/%dx%d", n, k), func(b *testing.B) {
			b.SetBytes(int64(8 * n * k))
			for b.Loop() {
				PackNN(dst, w, k, n, k)
			}
		})
	}
}
