package half

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// format describes a 16-bit format to the tests, which derive values from its
// definition in float64 and share no code with the conversions.
type format struct {
	name          string
	expBits, bias int
	mantissaBits  int
	narrow        func(float32) uint16
	widen         func(uint16) float32
	encode        func([]uint16, []float32)
	decode        func([]float32, []uint16)
}

var formats = []format{
	{"bf16", 8, 127, 7, BF16, FromBF16, EncodeBF16, DecodeBF16},
	{"f16", 5, 15, 10, F16, FromF16, EncodeF16, DecodeF16},
}

// value computes what a bit pattern means: (-1)^s · m · 2^e.
func (f format) value(h uint16) float64 {
	exp := int(h >> f.mantissaBits & (1<<f.expBits - 1))
	mantissa := float64(h & (1<<f.mantissaBits - 1))
	scale := float64(int(1) << f.mantissaBits)
	var v float64
	switch {
	case exp == 1<<f.expBits-1 && mantissa != 0:
		return math.NaN()
	case exp == 1<<f.expBits-1:
		v = math.Inf(1)
	case exp == 0:
		v = math.Ldexp(mantissa/scale, 1-f.bias)
	default:
		v = math.Ldexp(1+mantissa/scale, exp-f.bias)
	}
	if h&0x8000 != 0 {
		v = -v
	}
	return v
}

// infinity is the bit pattern of +Inf; the finite magnitudes lie below it, in order.
func (f format) infinity() uint16 { return (1<<f.expBits - 1) << f.mantissaBits }

// nearest rounds |x| by searching the ordered magnitudes, ties to even. Infinity
// stands for the value that would follow the largest finite one.
func (f format) nearest(x float64) uint16 {
	inf := f.infinity()
	lo, hi := uint16(0), inf // value(lo) <= x
	at := func(h uint16) float64 {
		if h == inf {
			return math.Ldexp(1, 1<<f.expBits-1-f.bias)
		}
		return f.value(h)
	}
	if x >= at(inf) {
		return inf
	}
	for hi-lo > 1 {
		if mid := lo + (hi-lo)/2; at(mid) <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	below, above := x-at(lo), at(hi)-x
	if below < above || below == above && lo%2 == 0 {
		return lo
	}
	return hi
}

func TestAllPatterns(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			for i := range 1 << 16 {
				h := uint16(i)
				got, want := float64(f.widen(h)), f.value(h)
				if math.IsNaN(want) {
					back := f.narrow(f.widen(h))
					if !math.IsNaN(got) || !math.IsNaN(f.value(back)) || back&0x8000 != h&0x8000 {
						t.Fatalf("%#04x: a NaN became %v, and narrowed %#04x", h, got, back)
					}
					continue
				}
				if got != want || math.Signbit(got) != math.Signbit(want) {
					t.Fatalf("%#04x: widened to %v, is %v", h, got, want)
				}
				if back := f.narrow(f.widen(h)); back != h {
					t.Fatalf("%#04x: came back as %#04x", h, back)
				}
			}
		})
	}
}

// Every boundary between two neighbours: the midpoint and the floats beside it.
func TestAllMidpoints(t *testing.T) {
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			for h := range f.infinity() {
				next := f.value(h + 1)
				if h+1 == f.infinity() {
					next = math.Ldexp(1, 1<<f.expBits-1-f.bias)
				}
				mid := float32((f.value(h) + next) / 2) // exact: one bit more than the format's
				for _, c := range []struct {
					x    float32
					want uint16
				}{
					{math.Nextafter32(mid, 0), h},
					{mid, h + h&1},
					{math.Nextafter32(mid, float32(math.Inf(1))), h + 1},
				} {
					if got := f.narrow(c.x); got != c.want {
						t.Fatalf("%v: %#04x, want %#04x", c.x, got, c.want)
					}
					if got := f.narrow(-c.x); got != c.want|0x8000 {
						t.Fatalf("%v: %#04x, want %#04x", -c.x, got, c.want|0x8000)
					}
				}
			}
		})
	}
}

func TestRandomFloatsRoundToNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, f := range formats {
		t.Run(f.name, func(t *testing.T) {
			for range 300_000 {
				x := math.Float32frombits(r.Uint32())
				got := f.narrow(x)
				if x != x {
					require.True(t, math.IsNaN(f.value(got)))
					continue
				}
				want := f.nearest(math.Abs(float64(x)))
				if math.Signbit(float64(x)) {
					want |= 0x8000
				}
				if got != want {
					t.Fatalf("%v: %#04x, want %#04x", x, got, want)
				}
			}
		})
	}
}

func TestKnownValues(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		f         float32
		bf16, f16 uint16
	}{
		{0, 0x0000, 0x0000},
		{float32(math.Copysign(0, -1)), 0x8000, 0x8000},
		{1, 0x3f80, 0x3c00},
		{-2, 0xc000, 0xc000},
		{65504, 0x4780, 0x7bff},
		{65519.996, 0x4780, 0x7bff},
		{65520, 0x4780, 0x7c00},
		{math.MaxFloat32, 0x7f80, 0x7c00},
		{inf, 0x7f80, 0x7c00},
		{-inf, 0xff80, 0xfc00},
		{0x1p-24, 0x3380, 0x0001},
		{0x1p-25, 0x3300, 0x0000},
		{0x1.8p-24, 0x33c0, 0x0002},
		{math.SmallestNonzeroFloat32, 0x0000, 0x0000},
		{1.00390625, 0x3f80, 0x3c04}, // 1 + 2^-8: a tie in bf16, to even
		{1.01171875, 0x3f82, 0x3c0c}, // 1 + 3·2^-8: a tie, up to even
	} {
		require.Equal(t, c.bf16, BF16(c.f), "%v", c.f)
		require.Equal(t, c.f16, F16(c.f), "%v", c.f)
	}
	// A NaN whose payload is in the bits that are dropped.
	require.True(t, math.IsNaN(float64(FromBF16(BF16(math.Float32frombits(0x7f800001))))))
	require.True(t, math.IsNaN(float64(FromF16(F16(math.Float32frombits(0xff800001))))))
	require.Equal(t, uint16(0xffc0), BF16(math.Float32frombits(0xff800001)))
}

func TestSlices(t *testing.T) {
	for _, f := range formats {
		src := []float32{1, -0.3, 70000, 1e-7}
		enc := make([]uint16, len(src))
		f.encode(enc, src)
		dec := make([]float32, len(src))
		f.decode(dec, enc)
		for i, x := range src {
			require.Equal(t, f.narrow(x), enc[i])
			require.Equal(t, f.widen(enc[i]), dec[i])
		}
		require.PanicsWithValue(t, "half: lengths differ", func() { f.encode(enc[:1], src) })
		require.PanicsWithValue(t, "half: lengths differ", func() { f.decode(dec[:1], enc) })
	}
}

func BenchmarkEncodeBF16(b *testing.B) {
	src, dst := make([]float32, 4096), make([]uint16, 4096)
	b.SetBytes(4 * 4096)
	for b.Loop() {
		EncodeBF16(dst, src)
	}
}
