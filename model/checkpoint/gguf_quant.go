package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/updraft-ml/updraft/internal/half"
)

// quant is one of ggml's types of tensors: blocks of block elements in bytes
// bytes. bytes is 0 for types that are known by name only.
type quant struct {
	name         string
	block, bytes int
	decode       func(dst []float32, b []byte) // one block
}

// quants are ggml's types by number (ggml.h, enum ggml_type). The layouts of
// blocks are those of ggml-quants; sums and products are rounded to float32 as
// there.
var quants = map[uint32]quant{
	0:  {"F32", 1, 4, func(y []float32, b []byte) { y[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) }},
	1:  {"F16", 1, 2, func(y []float32, b []byte) { y[0] = f16(b) }},
	30: {"BF16", 1, 2, func(y []float32, b []byte) { y[0] = half.FromBF16(binary.LittleEndian.Uint16(b)) }},
	2:  {"Q4_0", 32, 18, decodeQ4_0},
	3:  {"Q4_1", 32, 20, decodeQ4_1},
	6:  {"Q5_0", 32, 22, decodeQ5_0},
	7:  {"Q5_1", 32, 24, decodeQ5_1},
	8:  {"Q8_0", 32, 34, decodeQ8_0},
	12: {"Q4_K", 256, 144, decodeQ4_K},
	13: {"Q5_K", 256, 176, decodeQ5_K},
	14: {"Q6_K", 256, 210, decodeQ6_K},
	9:  {name: "Q8_1"}, 10: {name: "Q2_K"}, 11: {name: "Q3_K"}, 15: {name: "Q8_K"}, 16: {name: "IQ2_XXS"}, 17: {name: "IQ2_XS"},
	18: {name: "IQ3_XXS"}, 19: {name: "IQ1_S"}, 20: {name: "IQ4_NL"}, 21: {name: "IQ3_S"}, 22: {name: "IQ2_S"}, 23: {name: "IQ4_XS"},
	24: {name: "I8"}, 25: {name: "I16"}, 26: {name: "I32"}, 27: {name: "I64"}, 28: {name: "F64"}, 29: {name: "IQ1_M"},
	34: {name: "TQ1_0"}, 35: {name: "TQ2_0"}, 39: {name: "MXFP4"},
}

func quantOf(kind uint32) quant {
	if q, ok := quants[kind]; ok {
		return q
	}
	return quant{name: fmt.Sprintf("number %d", kind)}
}

func quantNamed(name string) quant {
	for _, q := range quants {
		if q.name == name {
			return q
		}
	}
	return quant{name: name}
}

// kindOf returns the number of a type that has one.
func kindOf(name string) uint32 {
	for k, q := range quants {
		if q.name == name {
			return k
		}
	}
	panic("checkpoint: unknown type " + name)
}

func readableQuants() string {
	return strings.Join([]string{"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"}, ", ")
}

func f16(b []byte) float32 { return half.FromF16(binary.LittleEndian.Uint16(b)) }

func decodeQ4_0(y []float32, b []byte) {
	d := f16(b)
	for j, q := range b[2:18] {
		y[j] = float32(int(q&15)-8) * d
		y[j+16] = float32(int(q>>4)-8) * d
	}
}

func decodeQ4_1(y []float32, b []byte) {
	d, m := f16(b), f16(b[2:])
	for j, q := range b[4:20] {
		y[j] = float32(float32(q&15)*d) + m
		y[j+16] = float32(float32(q>>4)*d) + m
	}
}

func decodeQ5_0(y []float32, b []byte) {
	d, high := f16(b), binary.LittleEndian.Uint32(b[2:])
	for j, q := range b[6:22] {
		y[j] = float32(int(q&15)|int(high>>j&1)<<4-16) * d
		y[j+16] = float32(int(q>>4)|int(high>>(j+16)&1)<<4-16) * d
	}
}

func decodeQ5_1(y []float32, b []byte) {
	d, m, high := f16(b), f16(b[2:]), binary.LittleEndian.Uint32(b[4:])
	for j, q := range b[8:24] {
		y[j] = float32(float32(int(q&15)|int(high>>j&1)<<4)*d) + m
		y[j+16] = float32(float32(int(q>>4)|int(high>>(j+16)&1)<<4)*d) + m
	}
}

func decodeQ8_0(y []float32, b []byte) {
	d := f16(b)
	for j, q := range b[2:34] {
		y[j] = float32(int8(q)) * d
	}
}

// scaleMin returns scale and minimum j of a K-quant's 6-bit pairs in 12 bytes.
func scaleMin(q []byte, j int) (scale, minimum float32) {
	if j < 4 {
		return float32(q[j] & 63), float32(q[j+4] & 63)
	}
	return float32(q[j+4]&15 | q[j-4]>>6<<4), float32(q[j+4]>>4 | q[j]>>6<<4)
}

func decodeQ4_K(y []float32, b []byte) {
	d, dmin, scales, qs := f16(b), f16(b[2:]), b[4:16], b[16:144]
	for j := range 4 {
		s1, m1 := scaleMin(scales, 2*j)
		s2, m2 := scaleMin(scales, 2*j+1)
		s1, m1, s2, m2 = s1*d, m1*dmin, s2*d, m2*dmin
		for l, q := range qs[32*j : 32*j+32] {
			y[64*j+l] = float32(s1*float32(q&15)) - m1
			y[64*j+32+l] = float32(s2*float32(q>>4)) - m2
		}
	}
}

func decodeQ5_K(y []float32, b []byte) {
	d, dmin, scales, high, qs := f16(b), f16(b[2:]), b[4:16], b[16:48], b[48:176]
	for j := range 4 {
		s1, m1 := scaleMin(scales, 2*j)
		s2, m2 := scaleMin(scales, 2*j+1)
		s1, m1, s2, m2 = s1*d, m1*dmin, s2*d, m2*dmin
		for l, q := range qs[32*j : 32*j+32] {
			y[64*j+l] = float32(s1*float32(q&15|high[l]>>(2*j)&1<<4)) - m1
			y[64*j+32+l] = float32(s2*float32(q>>4|high[l]>>(2*j+1)&1<<4)) - m2
		}
	}
}

func decodeQ6_K(y []float32, b []byte) {
	low, high, scales, d := b[:128], b[128:192], b[192:208], f16(b[208:])
	for n := range 2 {
		y, low, high, scales := y[128*n:], low[64*n:], high[32*n:], scales[8*n:]
		for l := range 32 {
			for k := range 4 { // quarters of 32 elements
				q := low[l+k%2*32] >> (k / 2 * 4) & 15
				v := int(q|high[l]>>(2*k)&3<<4) - 32
				y[32*k+l] = float32(d*float32(int8(scales[l/16+2*k]))) * float32(v)
			}
		}
	}
}
