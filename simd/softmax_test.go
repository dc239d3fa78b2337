package simd

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// scoreRows returns rows of scores with some values that a softmax must survive:
// in one case of four infinities and a NaN, seen or not.
func scoreRows(r *rand.Rand, rows int) []float32 {
	s := randFloats(r, rows*SoftmaxWidth)
	for i := range s {
		s[i] *= 5
		if r.IntN(40) == 0 {
			s[i] = float32(math.Inf(-1))
		}
	}
	if rows > 0 && r.IntN(4) == 0 {
		s[r.IntN(len(s))] = float32(math.NaN())
		s[r.IntN(len(s))] = float32(math.Inf(1))
	}
	return s
}

// eachRows runs f over numbers of rows and of keys seen, with step 0 and 1.
func eachRows(t *testing.T, f func(t *testing.T, r *rand.Rand, rows, seen, step int, side testx.Side)) {
	variants(t, func(t *testing.T) {
		r := newRand(61)
		for _, rows := range []int{0, 1, 2, 3, 8, 31, 32} {
			for seen := 1; seen <= SoftmaxWidth+1; seen++ {
				f(t, r, rows, seen, seen%2, testx.Side(rows%2))
			}
		}
	})
}

// TestSoftmaxRows: the bits of Scale, Max and ExpSub, which have tests of their
// own against float64.
func TestSoftmaxRows(t *testing.T) {
	eachRows(t, func(t *testing.T, r *rand.Rand, rows, seen, step int, side testx.Side) {
		s := scoreRows(r, rows)
		got, m, sum := testx.GuardCopy(t, s, side), testx.Guard(t, rows, side), testx.Guard(t, rows, side)
		SoftmaxRows(got, 0.3, seen, step, m, sum)
		for i := range rows {
			row := s[i*SoftmaxWidth:][:SoftmaxWidth]
			n := min(seen+i*step, SoftmaxWidth)
			clear(row[n:])
			Scale(row[:n], 0.3, row[:n])
			wantM := Max(row[:n])
			wantSum := ExpSub(row[:n], row[:n], wantM)
			requireSame(t, row, got[i*SoftmaxWidth:][:SoftmaxWidth])
			requireSame(t, []float32{wantM, wantSum}, []float32{m[i], sum[i]})
		}
	})
}

// requireSame is requireBits, with every NaN equal to every other.
func requireSame(t *testing.T, want, got []float32) {
	t.Helper()
	want, got = slices.Clone(want), slices.Clone(got)
	for _, x := range [][]float32{want, got} {
		for i, v := range x {
			if v != v {
				x[i] = float32(math.NaN())
			}
		}
	}
	requireBits(t, want, got, "row")
}

// TestSoftmaxGradRows: the bits of Scale, ExpSub and the gradient as stated,
// every operation rounded.
func TestSoftmaxGradRows(t *testing.T) {
	eachRows(t, func(t *testing.T, r *rand.Rand, rows, seen, step int, side testx.Side) {
		p, ds, lse, delta := scoreRows(r, rows), scoreRows(r, rows), randFloats(r, rows), randFloats(r, rows)
		gp, gd := testx.GuardCopy(t, p, side), testx.GuardCopy(t, ds, side)
		gl, gdel := testx.GuardCopy(t, lse, side), testx.GuardCopy(t, delta, side)
		SoftmaxGradRows(gp, gd, 0.3, seen, step, gl, gdel)
		requireBits(t, lse, gl, "lse written")
		requireBits(t, delta, gdel, "delta written")
		for i := range rows {
			pr, dr := p[i*SoftmaxWidth:][:SoftmaxWidth], ds[i*SoftmaxWidth:][:SoftmaxWidth]
			n := min(seen+i*step, SoftmaxWidth)
			clear(pr[n:])
			clear(dr[n:])
			Scale(pr[:n], 0.3, pr[:n])
			ExpSub(pr[:n], pr[:n], lse[i])
			for j, v := range pr[:n] {
				dr[j] = float32(0.3*v) * (dr[j] - delta[i])
			}
			requireSame(t, pr, gp[i*SoftmaxWidth:][:SoftmaxWidth])
			requireSame(t, dr, gd[i*SoftmaxWidth:][:SoftmaxWidth])
		}
	})
}

// TestSoftmaxMerge compares with the equation in float64 and demands that the
// exponential is rounded once: half a unit in the last place and the error of the
// float64 exponential.
func TestSoftmaxMerge(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(62)
		for n := range 40 {
			for _, spread := range []float32{0, 1e-6, 1, 30, 90, 300} {
				m, ms := randFloats(r, n), randFloats(r, n)
				for i := range m {
					m[i] *= spread
					ms[i] *= spread
				}
				sum, sums := make([]float32, n), make([]float32, n)
				for i := range sum {
					sum[i], sums[i] = 1+31*r.Float32(), 1+31*r.Float32()
				}
				side := testx.Side(n % 2)
				gm, gsum, gms, gsums := testx.GuardCopy(t, m, side), testx.GuardCopy(t, sum, side), testx.GuardCopy(t, ms, side), testx.GuardCopy(t, sums, side)
				a, b := testx.Guard(t, n, side), testx.Guard(t, n, side)
				SoftmaxMerge(gm, gsum, gms, gsums, a, b)
				requireBits(t, ms, gms, "ms written")
				requireBits(t, sums, gsums, "sums written")
				for i := range n {
					top := max(m[i], ms[i])
					require.Equal(t, top, gm[i])
					for _, w := range []struct{ old, got float32 }{{m[i], a[i]}, {ms[i], b[i]}} {
						want := math.Exp(float64(w.old - top))
						if !(ulps(want, w.got) <= 0.5+1e-6) {
							t.Fatalf("exp(%g) = %g, want %g", w.old-top, w.got, want)
						}
					}
					big, small, e := sum[i], sums[i], b[i]
					if m[i] < ms[i] {
						big, small, e = sums[i], sum[i], a[i]
					}
					require.Equal(t, big+float32(e*small), gsum[i])
				}
			}
		}
	})
}

func TestSoftmaxMergeSpecial(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	variants(t, func(t *testing.T) {
		m, sum := []float32{0, nan, -inf, 1, -1e30}, []float32{1, 1, 1, 1, 1}
		ms, sums := []float32{nan, 0, 0, -inf, 1e30}, []float32{1, 1, 1, 1, 1}
		a, b := make([]float32, 5), make([]float32, 5)
		SoftmaxMerge(m, sum, ms, sums, a, b)
		require.True(t, sum[0] != sum[0] && a[0] != a[0], "a NaN of the split")
		require.True(t, sum[1] != sum[1] && a[1] != a[1], "a NaN of before")
		require.Equal(t, []float32{0, 1, 1e30}, m[2:])
		require.Equal(t, []float32{1, 1, 1}, sum[2:])
		require.Equal(t, []float32{0, 1, 0}, a[2:])
		require.Equal(t, []float32{1, 0, 1}, b[2:])
	})
}

func TestMergeRows(t *testing.T) {
	variants(t, func(t *testing.T) {
		r := newRand(63)
		for _, rows := range []int{0, 1, 2, 5, 32} {
			for d := range 70 {
				side := testx.Side(d % 2)
				o, part, a, b := randFloats(r, rows*d), randFloats(r, rows*d), randFloats(r, rows), randFloats(r, rows)
				for i := range a {
					if i%2 == 0 {
						a[i] = 1
					} else {
						b[i] = 1
					}
				}
				got := testx.GuardCopy(t, o, side)
				MergeRows(got, testx.GuardCopy(t, part, side), d, testx.GuardCopy(t, a, side), testx.GuardCopy(t, b, side))
				for i := range rows {
					or, pr := o[i*d:][:d], part[i*d:][:d]
					if i%2 == 0 {
						Axpy(or, b[i], pr)
					} else {
						Scale(or, a[i], or)
						Add(or, or, pr)
					}
				}
				requireBits(t, o, got, "%d rows of %d", rows, d)
			}
		}
	})
}

func TestSoftmaxPanics(t *testing.T) {
	f := func(n int) []float32 { return make([]float32, n) }
	for _, call := range []func(){
		func() { SoftmaxRows(f(63), 1, 1, 0, f(2), f(2)) },
		func() { SoftmaxRows(f(64), 1, 0, 1, f(2), f(2)) },
		func() { SoftmaxRows(f(64), 1, 1, -1, f(2), f(2)) },
		func() { SoftmaxGradRows(f(64), f(63), 1, 1, 1, f(2), f(2)) },
		func() { MergeRows(f(9), f(10), 5, f(2), f(2)) },
		func() { MergeRows(f(10), f(9), 5, f(2), f(2)) },
	} {
		require.PanicsWithValue(t, errSoftmax, call)
	}
	require.PanicsWithValue(t, errLen, func() { SoftmaxRows(f(64), 1, 1, 0, f(2), f(1)) })
	require.PanicsWithValue(t, errLen, func() { SoftmaxMerge(f(2), f(2), f(2), f(2), f(2), f(1)) })
	require.PanicsWithValue(t, errLen, func() { MergeRows(f(10), f(10), 5, f(2), f(1)) })
}

// FuzzSoftmaxRows compares each variant with the generic kernels on arbitrary
// scores: every output finite in one is so in the other, and near it.
func FuzzSoftmaxRows(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 192, 127}, uint8(3), uint8(0), uint8(1))
	f.Add([]byte("some words of a sentence"), uint8(32), uint8(7), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, rows, seen, step uint8) {
		n, first, by := int(rows)%33, int(seen)%33+1, int(step)%2
		s := floatsFrom(data, n*SoftmaxWidth)
		for i, v := range s {
			if a := math.Abs(float64(v)); a > 50 && a < math.MaxFloat32 {
				s[i] = float32(math.Mod(float64(v), 50))
			}
		}
		run := func() (w, m, sum []float32) {
			w, m, sum = slices.Clone(s), make([]float32, n), make([]float32, n)
			SoftmaxRows(w, 0.5, first, by, m, sum)
			return
		}
		restore := allVariants[0].enable()
		w0, m0, sum0 := run()
		restore()
		variants(t, func(t *testing.T) {
			w, m, sum := run()
			for i := range w {
				want, got := float64(w0[i]), w[i]
				if want != want != (got != got) || want == want && !(ulps(want, got) <= 2*expULP) {
					t.Fatalf("weight %d: %g, generic %g", i, got, want)
				}
			}
			for i := range m {
				if m0[i] != m[i] && (m0[i] == m0[i] || m[i] == m[i]) {
					t.Fatalf("maximum %d: %g, generic %g", i, m[i], m0[i])
				}
				if a, b := float64(sum0[i]), float64(sum[i]); a != a != (b != b) || a == a && !(math.Abs(a-b) <= 20*eps32*a) {
					t.Fatalf("sum %d: %g, generic %g", i, b, a)
				}
			}
		})
	})
}

// BenchmarkSoftmaxRows measures a block of attention's scores: 32 rows of 32.
func BenchmarkSoftmaxRows(b *testing.B) {
	r := newRand(64)
	s, ds := randFloats(r, 32*SoftmaxWidth), randFloats(r, 32*SoftmaxWidth)
	m, sum, ms, sums, x, y := randFloats(r, 32), randFloats(r, 32), randFloats(r, 32), randFloats(r, 32), randFloats(r, 32), randFloats(r, 32)
	for _, f := range []struct {
		name string
		run  func()
	}{
		{"SoftmaxRows", func() { SoftmaxRows(s, 0.1, 32, 0, m, sum) }},
		{"SoftmaxGradRows", func() { SoftmaxGradRows(s, ds, 0.1, 32, 0, m, sum) }},
		{"SoftmaxMerge", func() { SoftmaxMerge(m, sum, ms, sums, x, y) }},
		{"MergeRows/d=32", func() { MergeRows(s, ds, 32, x, y) }},
	} {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/row")
		})
	}
}
