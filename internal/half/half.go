// Package half converts between float32 and the two 16-bit floating-point
// formats, bfloat16 and IEEE 754 binary16, held as uint16 bit patterns.
//
// It has no arithmetic: values are widened, computed with, and rounded once.
// Widening is exact. Narrowing rounds to nearest, ties to even, as GPUs and
// PyTorch do; overflow gives an infinity, and a NaN stays a NaN of the same sign
// (made quiet, with the upper bits of its payload).
package half

import "math"

// BF16 rounds f to bfloat16: one sign bit, eight of exponent, seven of mantissa.
func BF16(f float32) uint16 {
	b := math.Float32bits(f)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40 // a payload in the lower half alone must not become an infinity
	}
	// Adding just under half of the last place, or half when that place is odd,
	// carries where rounding to even goes up; into the exponent and up to
	// infinity too.
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// FromBF16 returns the value of the bfloat16 h.
func FromBF16(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// F16 rounds f to binary16: one sign bit, five of exponent, ten of mantissa.
func F16(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	b &= 0x7fffffff
	switch {
	case b > 0x7f800000: // NaN
		return sign | 0x7e00 | uint16(b>>13&0x3ff)
	case b >= 0x477ff000: // 65520, halfway beyond the largest finite value, and above
		return sign | 0x7c00
	case b >= 0x38800000: // 2^-14 and above: normal. Move the exponent's bias from 127 to 15.
		b -= (127 - 15) << 23
		return sign | uint16((b+0xfff+b>>13&1)>>13)
	case b > 0x33000000: // above 2^-25, half of the least subnormal, which itself rounds to zero
		// The value is mantissa · 2^(e-150); a unit of a subnormal is 2^-24.
		mantissa := b&0x7fffff | 0x800000
		shift := 126 - b>>23
		half := uint32(1) << (shift - 1)
		return sign | uint16((mantissa+half-1+mantissa>>shift&1)>>shift)
	}
	return sign
}

// FromF16 returns the value of the binary16 h.
func FromF16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, mantissa := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exp {
	case 0x1f: // infinity and NaN
		return math.Float32frombits(sign | 0x7f800000 | mantissa<<13)
	case 0: // zero and subnormals: mantissa · 2^-24, exact in float32
		f := float32(mantissa) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(f))
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | mantissa<<13)
}

// EncodeBF16 rounds src into dst, which has its length.
func EncodeBF16(dst []uint16, src []float32) {
	if len(dst) != len(src) {
		panic("half: lengths differ")
	}
	for i, f := range src {
		dst[i] = BF16(f)
	}
}

// DecodeBF16 widens src into dst, which has its length.
func DecodeBF16(dst []float32, src []uint16) {
	if len(dst) != len(src) {
		panic("half: lengths differ")
	}
	for i, h := range src {
		dst[i] = FromBF16(h)
	}
}

// EncodeF16 rounds src into dst, which has its length.
func EncodeF16(dst []uint16, src []float32) {
	if len(dst) != len(src) {
		panic("half: lengths differ")
	}
	for i, f := range src {
		dst[i] = F16(f)
	}
}

// DecodeF16 widens src into dst, which has its length.
func DecodeF16(dst []float32, src []uint16) {
	if len(dst) != len(src) {
		panic("half: lengths differ")
	}
	for i, h := range src {
		dst[i] = FromF16(h)
	}
}
