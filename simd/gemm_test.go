package simd

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

const eps32 = 1.0 / (1 << 24) // unit roundoff of float32

// gemmRef returns C and the tolerance of each element: a chain of k steps errs
// by at most (k+1)·u·(|start| + Σ|a·b|)·(1+o(1)), with one more roundoff per
// step where the multiply-add is not fused.
func gemmRef(m, n, k int, a []float32, rsa, csa int, b []float32, ldb int, start func(i, j int) float64) (c, tol []float64) {
	for i := range m {
		for j := range n {
			s := start(i, j)
			abs := math.Abs(s)
			for p := range k {
				v := float64(a[i*rsa+p*csa]) * float64(b[p*ldb+j])
				s += v
				abs += math.Abs(v)
			}
			c = append(c, s)
			tol = append(tol, 2*float64(k+2)*eps32*abs+math.SmallestNonzeroFloat32*float64(k+1))
		}
	}
	return c, tol
}

func requireBits(t *testing.T, want, got []float32, msg string, args ...any) {
	t.Helper()
	require.Equal(t, len(want), len(got))
	for i := range want {
		if math.Float32bits(want[i]) != math.Float32bits(got[i]) {
			t.Fatalf("%s: element %d: want %g (%08x), got %g (%08x)", fmt.Sprintf(msg, args...), i,
				want[i], math.Float32bits(want[i]), got[i], math.Float32bits(got[i]))
		}
	}
}

// product is one call's operands, in page-guarded memory of exactly the length
// that the contract asks for.
type product struct {
	m, n, k, rsa, csa, ldb, ldc int
	a, b, c, bias, packed       []float32
}

func newProduct(t testing.TB, r *rand.Rand, m, n, k int, transA bool, padA, padB, padC int, side testx.Side) *product {
	p := &product{m: m, n: n, k: k, rsa: k + padA, csa: 1, ldb: n + padB, ldc: n + padC}
	lenA := (m-1)*p.rsa + k
	if transA {
		p.rsa, p.csa = 1, m+padA
		lenA = (k-1)*p.csa + m
	}
	if m == 0 || k == 0 {
		lenA = 0
	}
	p.a = testx.GuardCopy(t, randFloats(r, lenA), side)
	p.b = testx.GuardCopy(t, randFloats(r, max(0, (k-1)*p.ldb+n)), side)
	p.c = testx.GuardCopy(t, randFloats(r, max(0, (m-1)*p.ldc+n)), side)
	p.bias = testx.GuardCopy(t, randFloats(r, n), side)
	p.packed = testx.Guard(t, PackedLen(n, k), side)
	PackNN(p.packed, p.b, n, k, p.ldb)
	return p
}

// forms runs f over the ways to compute the product, all of which must give
// the same bits for the same start.
func (p *product) forms(f func(name string, st start, run func(c []float32))) {
	f("gemm", startZero, func(c []float32) { Gemm(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.b, p.ldb, c, p.ldc, false) })
	f("packed", startZero, func(c []float32) { GemmPacked(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, false) })
	f("gemm acc", startC, func(c []float32) { Gemm(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.b, p.ldb, c, p.ldc, true) })
	f("packed acc", startC, func(c []float32) { GemmPacked(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, true) })
	f("gemm bias", startBias, func(c []float32) { GemmBias(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.b, p.ldb, c, p.ldc, p.bias) })
	f("packed bias", startBias, func(c []float32) { GemmPackedBias(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.packed, c, p.ldc, p.bias) })
}

func (p *product) check(t *testing.T) {
	t.Helper()
	c0 := slices.Clone(p.c)
	a0, b0, bias0 := slices.Clone(p.a), slices.Clone(p.b), slices.Clone(p.bias)
	first := map[start][]float32{}
	p.forms(func(name string, st start, run func([]float32)) {
		copy(p.c, c0)
		run(p.c)
		want, tol := gemmRef(p.m, p.n, p.k, p.a, p.rsa, p.csa, p.b, p.ldb, func(i, j int) float64 {
			switch st {
			case startC:
				return float64(c0[i*p.ldc+j])
			case startBias:
				return float64(p.bias[j])
			}
			return 0
		})
		for i := range p.m {
			for j := range p.n {
				got, q := float64(p.c[i*p.ldc+j]), i*p.n+j
				if !(math.Abs(got-want[q]) <= tol[q]) {
					t.Fatalf("%s %d×%d×%d: c[%d,%d] = %g, want %g ± %g", name, p.m, p.k, p.n, i, j, got, want[q], tol[q])
				}
			}
			// The gap between rows is not C's.
			if i+1 < p.m {
				requireBits(t, c0[i*p.ldc+p.n:(i+1)*p.ldc], p.c[i*p.ldc+p.n:(i+1)*p.ldc], "%s: padding of c", name)
			}
		}
		if f := first[st]; f == nil {
			first[st] = slices.Clone(p.c)
		} else {
			requireBits(t, f, p.c, "%s %d×%d×%d differs from the unpacked form", name, p.m, p.k, p.n)
		}
	})
	requireBits(t, a0, p.a, "a written")
	requireBits(t, b0, p.b, "b written")
	requireBits(t, bias0, p.bias, "bias written")
}

func TestGemmSmallShapes(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(1)
		for _, m := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 20} {
			for _, n := range []int{0, 1, 7, 15, 16, 17, 32, 33, 47, 64, 65, 100} {
				for _, k := range []int{0, 1, 2, 3, 5, 8, 17} {
					newProduct(t, r, m, n, k, (m+n+k)%2 == 0, m%3, n%4, k%3, testx.Side((m+k)%2)).check(t)
				}
			}
		}
	})
}

func TestGemmBlockedShapes(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(2)
		for _, s := range [][3]int{{1, 40, 700}, {6, 33, 641}, {47, 20, 330}, {48, 37, 321}, {61, 16, 700}, {330, 17, 333}, {400, 5, 350}, {71, 1000, 12}, {520, 140, 9}, {515, 133, 330}} {
			for _, trans := range []bool{false, true} {
				if testing.Short() && !trans && s[0]*s[1]*s[2] > 10e6 {
					continue
				}
				newProduct(t, r, s[0], s[1], s[2], trans, 3, 5, 1, testx.AtEnd).check(t)
			}
		}
	})
}

// TestGemmRowInvariance: row i of a product is bit-equal to the product of that
// row alone, at every M, start and form.
func TestGemmRowInvariance(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(3)
		for m := 1; m <= 40; m++ {
			for _, nk := range [][2]int{{1, 9}, {16, 64}, {37, 21}, {80, 33}, {64, 333}} {
				if testing.Short() && m > 16 && nk[1] > 100 {
					continue
				}
				rowInvariance(t, r, m, nk[0], nk[1], m%2 == 0)
			}
		}
		// Beyond the thresholds of blocking.
		for _, m := range []int{24, 25, 47, 48, 49, 100, 331} {
			rowInvariance(t, r, m, 35, 650, m%2 == 0)
		}
		tall := 524
		if testing.Short() {
			tall = 514
		}
		for m := 512; m < tall; m++ {
			rowInvariance(t, r, m, 131, 7, true)
		}
	})
}

func rowInvariance(t *testing.T, r *rand.Rand, m, n, k int, trans bool) {
	p := newProduct(t, r, m, n, k, trans, 1, 2, 3, testx.AtEnd)
	c0 := slices.Clone(p.c)
	p.forms(func(name string, st start, run func([]float32)) {
		copy(p.c, c0)
		run(p.c)
		whole := slices.Clone(p.c)
		for i := range m {
			q := *p
			q.m, q.a = 1, p.a[min(i*p.rsa, len(p.a)):]
			row := slices.Clone(c0[i*p.ldc:][:n])
			q.forms(func(form string, _ start, run func([]float32)) {
				if form == name {
					run(row)
				}
			})
			requireBits(t, row, whole[i*p.ldc:][:n], "%s %d×%d×%d row %d", name, m, k, n, i)
		}
	})
}

// TestGemmColumnAndBlockInvariance: an element does not depend on where its
// column stands, how many there are, how K is cut by the caller, or strides.
func TestGemmColumnAndBlockInvariance(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(4)
		for _, m := range []int{1, 2, 3, 4, 7, 29, 50} {
			const n, k = 83, 75
			p := newProduct(t, r, m, n, k, false, 2, 0, 0, testx.AtEnd)
			Gemm(m, n, k, p.a, p.rsa, 1, p.b, p.ldb, p.c, p.ldc, false)
			for j := range n {
				col := make([]float32, m)
				Gemm(m, 1, k, p.a, p.rsa, 1, p.b[j:], p.ldb, col, 1, false)
				for i, v := range col {
					require.Equal(t, math.Float32bits(p.c[i*p.ldc+j]), math.Float32bits(v), "m=%d column %d", m, j)
				}
			}
			for _, cut := range []int{1, 7, 16, 74} {
				c := make([]float32, m*n)
				Gemm(m, n, cut, p.a, p.rsa, 1, p.b, p.ldb, c, n, false)
				Gemm(m, n, k-cut, p.a[cut:], p.rsa, 1, p.b[cut*p.ldb:], p.ldb, c, n, true)
				requireBits(t, p.c, c, "m=%d, K cut at %d", m, cut)
			}
			// Transposed A, wider strides, panels split among callers.
			at := make([]float32, k*(m+5))
			Transpose(k, m, at, m+5, p.a, p.rsa)
			c := make([]float32, m*(n+9))
			Gemm(m, n, k, at, 1, m+5, p.b, p.ldb, c, n+9, false)
			split := make([]float32, m*n)
			for j := 0; j < n; j += 2 * PanelWidth {
				GemmPacked(m, min(2*PanelWidth, n-j), k, p.a, p.rsa, 1, p.packed[j*k:], split[j:], n, false)
			}
			for i := range m {
				requireBits(t, p.c[i*p.ldc:][:n], c[i*(n+9):][:n], "strided, row %d", i)
				requireBits(t, p.c[i*p.ldc:][:n], split[i*n:][:n], "split, row %d", i)
			}
		}
	})
}

// TestGemmOddStrides: A with both strides beyond one, and with a stride of zero
// (one row or one column for all), gives the bits of its dense copy.
func TestGemmOddStrides(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(8)
		for _, m := range []int{1, 5, 7, 70} {
			for _, s := range [][2]int{{3, 300}, {200, 2}, {0, 1}, {1, 0}, {0, 0}} {
				const n, k = 52, 40
				a, b := randFloats(r, (m-1)*s[0]+(k-1)*s[1]+1), randFloats(r, k*n)
				dense := make([]float32, m*k)
				for i := range m {
					for p := range k {
						dense[i*k+p] = a[i*s[0]+p*s[1]]
					}
				}
				want, got := make([]float32, m*n), make([]float32, m*n)
				Gemm(m, n, k, dense, k, 1, b, n, want, n, false)
				Gemm(m, n, k, a, s[0], s[1], b, n, got, n, false)
				requireBits(t, want, got, "m=%d strides %v", m, s)
			}
		}
	})
}

// TestGemmChain checks the definition itself: the bits are those of fused
// multiply-adds in ascending k.
func TestGemmChain(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(5)
		const m, n, k = 13, 50, 40
		p := newProduct(t, r, m, n, k, false, 0, 0, 0, testx.AtEnd)
		Gemm(m, n, k, p.a, k, 1, p.b, n, p.c, n, false)
		fused := make([]float32, m*n)
		for i := range m {
			for j := range n {
				var f float32
				for q := range k {
					x, y := p.a[i*k+q], p.b[q*n+j]
					f = fma32(x, y, f)
				}
				fused[i*n+j] = f
			}
		}
		requireBits(t, fused, p.c, "chain")
	})
}

// fma32 is x·y+z rounded once to float32: the product is exact in float64, and
// the sum is rounded to odd there so that the second rounding is harmless.
func fma32(x, y, z float32) float32 {
	p, c := float64(x)*float64(y), float64(z)
	s := p + c
	// Error of the sum, by Knuth's two-sum.
	bb := s - p
	e := (p - (s - bb)) + (c - bb)
	if e != 0 && math.Float64bits(s)&1 == 0 {
		if (e > 0) == (s > 0) {
			s = math.Float64frombits(math.Float64bits(s) + 1)
		} else {
			s = math.Float64frombits(math.Float64bits(s) - 1)
		}
	}
	return float32(s)
}

func TestGemmSpecialValues(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	sub := math.Float32frombits(3) // subnormal
	variants(t, func(t *testing.T) {
		for _, m := range []int{1, 2, 5, 60} {
			const n, k = 21, 3
			a, b, c := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
			for i := range m {
				a[i*k], a[i*k+1] = 1, 1
			}
			b[0], b[1], b[2], b[3], b[4] = inf, nan, sub, inf, -inf
			b[n+3] = -inf
			Gemm(m, n, k, a, k, 1, b, n, c, n, false)
			for i := range m {
				row := c[i*n:][:n]
				require.Equal(t, inf, row[0])
				require.True(t, row[1] != row[1])
				require.Equal(t, sub, row[2])
				require.True(t, row[3] != row[3], "Inf−Inf")
				require.Equal(t, -inf, row[4])
				require.Equal(t, make([]float32, n-5), row[5:])
			}
		}
	})
}

func TestPackNT(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(6)
		for _, n := range []int{0, 1, 8, 15, 16, 17, 33, 48} {
			for _, k := range []int{0, 1, 5, 8, 16, 19} {
				ldw := k + n%3
				w := testx.GuardCopy(t, randFloats(r, max(0, (n-1)*ldw+k)), testx.AtEnd)
				dst := testx.Guard(t, PackedLen(n, k), testx.AtEnd)
				for i := range dst {
					dst[i] = 7
				}
				PackNT(dst, w, n, k, ldw)
				bt, want := make([]float32, k*n), make([]float32, len(dst))
				for j := range n {
					for p := range k {
						bt[p*n+j] = w[j*ldw+p]
					}
				}
				for q := range dst {
					panel, p, l := q/max(1, k*16), q/16%max(1, k), q%16
					if j := panel*16 + l; j < n {
						want[q] = w[j*ldw+p]
					}
				}
				require.Equal(t, want, dst, "n=%d k=%d", n, k)
				for i := range dst {
					dst[i] = 7
				}
				PackNN(dst, bt, n, k, n)
				require.Equal(t, want, dst, "PackNN n=%d k=%d", n, k)
			}
		}
	})
}

func TestTranspose(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(7)
		for rows := range 26 {
			for cols := range 26 {
				ldd, lds := cols+rows%3, rows+cols%2
				src := testx.GuardCopy(t, randFloats(r, max(0, (cols-1)*lds+rows)), testx.Side(rows%2))
				dst := testx.Guard(t, max(0, (rows-1)*ldd+cols), testx.Side(cols%2))
				Transpose(rows, cols, dst, ldd, src, lds)
				for i := range rows {
					for j := range ldd {
						if i == rows-1 && j >= cols {
							break
						}
						want := float32(0)
						if j < cols {
							want = src[j*lds+i]
						}
						require.Equal(t, want, dst[i*ldd+j], "%d×%d at %d,%d", rows, cols, i, j)
					}
				}
			}
		}
	})
}

func TestGemmPanics(t *testing.T) {
	f := func(n int) []float32 { return make([]float32, n) }
	for want, call := range map[string]func(){
		errGemmShape:  func() { Gemm(-1, 1, 1, f(1), 1, 1, f(1), 1, f(1), 1, false) },
		errGemmA:      func() { Gemm(2, 2, 2, f(3), 2, 1, f(4), 2, f(4), 2, false) },
		errGemmB:      func() { Gemm(2, 2, 2, f(4), 2, 1, f(3), 2, f(4), 2, false) },
		errGemmC:      func() { Gemm(2, 2, 2, f(4), 2, 1, f(4), 2, f(3), 2, false) },
		errGemmStride: func() { Gemm(2, 2, 2, f(4), 2, 1, f(4), 2, f(4), 1, false) },
		errGemmBias:   func() { GemmBias(2, 2, 2, f(4), 2, 1, f(4), 2, f(4), 2, f(1)) },
		errPackShape:  func() { PackedLen(-1, 2) },
		errPackStride: func() { PackNT(f(99), f(99), 2, 3, 2) },
		errPackSrc:    func() { PackNT(f(99), f(5), 2, 3, 3) },
		errPackDst:    func() { PackNN(f(47), f(9), 3, 3, 3) },
	} {
		require.PanicsWithValue(t, want, call)
	}
	require.PanicsWithValue(t, errGemmB, func() { GemmPacked(1, 1, 2, f(2), 2, 1, f(31), f(1), 1, false) })
	require.PanicsWithValue(t, errGemmStride, func() { Gemm(1, 2, 2, f(4), 2, -1, f(4), 2, f(4), 2, false) })
	require.PanicsWithValue(t, errGemmStride, func() { Gemm(1, 2, 2, f(4), 2, 1, f(4), 1, f(4), 2, false) })
}

func TestGemmDoesNotAllocate(t *testing.T) {
	variants(t, func(t *testing.T) {
		const m, n, k = 64, 40, 50
		a, b, c := make([]float32, m*k), make([]float32, k*n), make([]float32, m*n)
		packed := make([]float32, PackedLen(n, k))
		require.Zero(t, testing.AllocsPerRun(10, func() {
			Gemm(m, n, k, a, k, 1, b, n, c, n, false)
			Gemm(3, n, k, a, k, 1, b, n, c, n, true)
			PackNN(packed, b, n, k, n)
			GemmPacked(m, n, k, a, k, 1, packed, c, n, false)
		}))
	})
}

// TestGemmConcurrent: calls in flight together do not share scratch memory.
func TestGemmConcurrent(t *testing.T) {
	variants(t, func(t *testing.T) {
		const m, n, k = 60, 50, 70
		p := newProduct(t, newRand(9), m, n, k, true, 0, 0, 0, testx.AtEnd)
		want := make([]float32, m*n)
		Gemm(m, n, k, p.a, p.rsa, p.csa, p.b, n, want, n, false)
		var wg sync.WaitGroup
		got := make([][]float32, 8)
		for g := range got {
			got[g] = make([]float32, m*n)
			wg.Go(func() {
				for range 20 {
					Gemm(m, n, k, p.a, p.rsa, p.csa, p.b, n, got[g], n, false)
				}
			})
		}
		wg.Wait()
		for _, c := range got {
			requireBits(t, want, c, "concurrent call")
		}
	})
}
