package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
)

// guardBF16 returns n BF16 elements against a page that cannot be touched, after
// them or, where they fill whole words, before.
func guardBF16(t testing.TB, n int, side testx.Side) []uint16 {
	words := testx.Guard(t, (n+1)/2, side)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*uint16)(unsafe.Pointer(&words[0])), n+n%2)[n%2:]
}

// product16 is a product with its second operand in BF16, and as float32.
type product16 struct {
	*product
	packed16 []uint16
}

func newProduct16(t testing.TB, r *rand.Rand, m, n, k int, transA bool, pad int, side testx.Side) product16 {
	p := product16{product: newProduct(t, r, m, n, k, transA, pad, pad, pad, side)}
	w := guardBF16(t, n*k, side) // transposed
	for j := range n {
		for q := range k {
			h := half.BF16(p.b[q*p.ldb+j])
			w[j*k+q], p.b[q*p.ldb+j] = h, half.FromBF16(h)
		}
	}
	PackNN(p.packed, p.b, n, k, p.ldb)
	p.packed16 = guardBF16(t, PackedLenBF16(n, k), side)
	for i := range p.packed16 {
		p.packed16[i] = 0x7fc0 // packing must leave none
	}
	PackNTBF16(p.packed16, w, n, k, k)
	return p
}

// check holds each form to the same product in float32, bit by bit.
func (p product16) check(t *testing.T) {
	t.Helper()
	c0 := slices.Clone(p.c)
	before := slices.Clone(p.packed16)
	for form, run := range map[string]func(c []float32, wide bool){
		"overwrite": func(c []float32, wide bool) {
			if wide {
				GemmPacked(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, false)
			} else {
				GemmPackedBF16(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed16, c, p.ldc, false)
			}
		},
		"add": func(c []float32, wide bool) {
			if wide {
				GemmPacked(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, true)
			} else {
				GemmPackedBF16(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed16, c, p.ldc, true)
			}
		},
		"bias": func(c []float32, wide bool) {
			if wide {
				GemmPackedBias(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, p.bias)
			} else {
				GemmPackedBF16Bias(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed16, c, p.ldc, p.bias)
			}
		},
	} {
		copy(p.c, c0)
		run(p.c, true)
		want := slices.Clone(p.c)
		copy(p.c, c0)
		run(p.c, false)
		requireBits(t, want, p.c, "%s %d×%d×%d", form, p.m, p.k, p.n)
	}
	require.Equal(t, before, p.packed16, "the operand was written")
}

func TestGemmBF16SmallShapes(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(21)
		for m := range 15 {
			for _, n := range []int{0, 1, 7, 16, 17, 33, 47, 64, 65, 100} {
				for _, k := range []int{0, 1, 2, 3, 8, 17} {
					newProduct16(t, r, m, n, k, (m+n+k)%2 == 0, k%3, testx.Side((m+k)%2)).check(t)
				}
			}
		}
	})
}

// TestGemmBF16BlockedShapes is beyond the thresholds of blocking, of widening slices and of
// the generic kernels' steps.
func TestGemmBF16BlockedShapes(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(22)
		for _, s := range [][3]int{{1, 40, 2051}, {13, 33, 2051}, {24, 40, 701}, {25, 33, 641}, {61, 16, 1937}, {50, 40, 1921}, {131, 70, 129}, {130, 17, 961}} {
			for _, trans := range []bool{false, true} {
				newProduct16(t, r, s[0], s[1], s[2], trans, 3, testx.AtEnd).check(t)
			}
		}
	})
}

// TestGemmBF16SpecialValues: what an odd depth pads with takes no part.
func TestGemmBF16SpecialValues(t *testing.T) {
	variants(t, func(t *testing.T) {
		inf, zero := float32(math.Inf(1)), float32(math.Copysign(0, -1))
		for _, m := range []int{1, 3, 30} {
			a, c := make([]float32, m*3), make([]float32, m)
			for i := range m {
				copy(a[3*i:], []float32{1, 1, inf})
			}
			packed := make([]uint16, PackedLenBF16(1, 3))
			PackNTBF16(packed, []uint16{half.BF16(2), half.BF16(3), half.BF16(1)}, 1, 3, 3)
			GemmPackedBF16(m, 1, 3, a, 3, 1, packed, c, 1, false)
			require.Equal(t, slices.Repeat([]float32{inf}, m), c)
			// −0 + 1·−0 stays −0, and another step of zeros would make it 0.
			for i := range m {
				a[3*i], c[i] = 1, zero
			}
			PackNTBF16(packed, []uint16{half.BF16(zero)}, 1, 1, 1)
			GemmPackedBF16(m, 1, 1, a, 3, 1, packed, c, 1, true)
			for _, v := range c {
				require.True(t, math.Signbit(float64(v)))
			}
		}
	})
}

func TestPackBF16(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(23)
		for _, n := range []int{0, 1, 8, 15, 16, 17, 33} {
			for _, k := range []int{0, 1, 2, 5, 15, 16, 17, 33} {
				for pad := range 2 {
					ldw := k + pad
					w := guardBF16(t, max(0, (n-1)*ldw+k), testx.AtEnd)
					for i := range w {
						w[i] = uint16(r.Uint32())
					}
					dst := guardBF16(t, PackedLenBF16(n, k), testx.AtEnd)
					for i := range dst {
						dst[i] = 7
					}
					PackNTBF16(dst, w, n, k, ldw)
					want := make([]uint16, len(dst))
					for i := range want {
						pairs := max(1, (k+1)/2)
						panel, q, l, h := i/(pairs*32), i/32%pairs, i/2%16, i%2
						if j, p := 16*panel+l, 2*q+h; j < n && p < k {
							want[i] = w[j*ldw+p]
						}
					}
					require.True(t, slices.Equal(want, dst), "n=%d k=%d", n, k)

					// W as rows of another operand, n deep, widened.
					wide, rows := testx.Guard(t, PackedLen(k, n), testx.AtEnd), make([]float32, len(w))
					half.DecodeBF16(rows, w)
					expect := make([]float32, len(wide))
					PackNN(expect, rows, k, n, max(ldw, k))
					PackNNBF16(wide, w, k, n, max(ldw, k))
					requireBits(t, expect, wide, "PackNNBF16 n=%d k=%d", n, k)
				}
			}
		}
	})
}

func TestGemmBF16Panics(t *testing.T) {
	f, h := func(n int) []float32 { return make([]float32, n) }, func(n int) []uint16 { return make([]uint16, n) }
	require.PanicsWithValue(t, errGemmB, func() { GemmPackedBF16(1, 1, 1, f(1), 1, 1, h(31), f(1), 1, false) })
	require.PanicsWithValue(t, errGemmC, func() { GemmPackedBF16(2, 1, 1, f(2), 1, 1, h(32), f(1), 1, false) })
	require.PanicsWithValue(t, errGemmBias, func() { GemmPackedBF16Bias(1, 1, 1, f(1), 1, 1, h(32), f(1), 1, nil) })
	require.PanicsWithValue(t, errPackSrc, func() { PackNTBF16(h(32), h(1), 2, 1, 1) })
	require.PanicsWithValue(t, errPackDst, func() { PackNTBF16(h(31), h(1), 1, 1, 1) })
	require.PanicsWithValue(t, errPackStride, func() { PackNTBF16(h(64), h(9), 2, 3, 2) })
	require.PanicsWithValue(t, errPackStride, func() { PackNNBF16(f(64), h(9), 3, 2, 2) })
	require.PanicsWithValue(t, errPackShape, func() { PackedLenBF16(-1, 1) })
}

func TestGemmBF16DoesNotAllocate(t *testing.T) {
	variants(t, func(t *testing.T) {
		const n, k = 40, 51
		w, packed := make([]uint16, n*k), make([]uint16, PackedLenBF16(n, k))
		for _, m := range []int{1, 8, 60} {
			a, c := make([]float32, m*k), make([]float32, m*n)
			require.Zero(t, testing.AllocsPerRun(10, func() {
				PackNTBF16(packed, w, n, k, k)
				GemmPackedBF16(m, n, k, a, k, 1, packed, c, n, false)
			}))
		}
	})
}

// FuzzGemmBF16 checks arbitrary shapes and values.
func FuzzGemmBF16(f *testing.F) {
	f.Add(uint8(3), uint8(20), uint8(7), uint8(0), uint64(1))
	f.Add(uint8(30), uint8(33), uint8(201), uint8(5), uint64(2))
	f.Fuzz(func(t *testing.T, m, n, k, flags uint8, seed uint64) {
		variants(t, func(t *testing.T) {
			newProduct16(t, newRand(seed), int(m), int(n), int(k), flags&1 != 0, int(flags>>2&3), testx.Side(flags>>1&1)).check(t)
		})
	})
}

func BenchmarkGemmBF16(b *testing.B) {
	for _, kn := range gemmBenchKN {
		k, n := kn[0], kn[1]
		for _, m := range []int{1, 8, 64, 256} {
			r := newRand(1)
			a, c, packed := randFloats(r, m*k), make([]float32, m*n), make([]uint16, PackedLenBF16(n, k))
			for i := range packed {
				packed[i] = half.BF16(float32(r.NormFloat64()))
			}
			b.Run(shapeName(m, k, n), func(b *testing.B) {
				b.SetBytes(int64(4*m*k + 2*k*n + 4*m*n))
				rate(b, 2*float64(m)*float64(n)*float64(k), func() { GemmPackedBF16(m, n, k, a, k, 1, packed, c, n, false) })
			})
		}
	}
}
