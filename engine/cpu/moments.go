package cpu

import (
	"math"

	"github.com/updraft-ml/updraft/engine"
)

// momentMaps are the maps of the first and the second moment.
type momentMaps [2]momentMap

// momentMap turns 8-bit codes of a moment to values and back.
type momentMap struct {
	values [256]float32
	upTo   [256]float32 // code c is nearest to what lies in (upTo[c-1], upTo[c]]
	first  [1 << momentKeyBits]uint8
}

// momentKeyBits: sign, exponent and four bits of mantissa lead to the first code
// that is possible; at most five more follow before the next key.
const momentKeyBits = 13

func momentKey(x float32) uint32 { return math.Float32bits(x) >> (32 - momentKeyBits) }

// moments returns the maps, which are made when they are first used.
func (b *Backend) moments() *momentMaps {
	if b.maps == nil {
		b.maps = &momentMaps{}
		b.maps[0].set(engine.SignedMomentMap())
		b.maps[1].set(engine.UnsignedMomentMap())
	}
	return b.maps
}

func (m *momentMap) set(values [256]float32) {
	m.values = values
	for c := range 255 {
		m.upTo[c] = (values[c] + values[c+1]) / 2
	}
	m.upTo[255] = float32(math.Inf(1))
	if values[0] == 0 {
		m.upTo[0] = 0 // a positive second moment never becomes zero
	}
	for key := range m.first {
		// The value of a key that lies lowest: towards zero among positive ones,
		// away from it among negative ones.
		low := uint32(key) << (32 - momentKeyBits)
		if key >= len(m.first)/2 {
			low |= 1<<(32-momentKeyBits) - 1
		}
		x := math.Float32frombits(low)
		if x != x {
			continue // beyond ±1 anyway
		}
		c := 0
		for x > m.upTo[c] {
			c++
		}
		m.first[key] = uint8(c)
	}
}

// decode widens codes, whose scales begin with the first one's block.
func (m *momentMap) decode(dst []float32, codes []uint8, scales []float32) {
	for b := 0; b < len(codes); b += engine.MomentBlock {
		scale := scales[b/engine.MomentBlock]
		block := codes[b:min(b+engine.MomentBlock, len(codes))]
		out := dst[b:][:len(block)]
		for i, c := range block {
			out[i] = m.values[c] * scale
		}
	}
}

// encode stores src as codes and scales.
func (m *momentMap) encode(codes []uint8, scales []float32, src []float32) {
	for b := 0; b < len(src); b += engine.MomentBlock {
		block := src[b:min(b+engine.MomentBlock, len(src))]
		var scale float32
		for _, x := range block {
			if x = float32(math.Abs(float64(x))); x > scale {
				scale = x
			}
		}
		scales[b/engine.MomentBlock] = scale
		out := codes[b:][:len(block)]
		for i, x := range block {
			if scale > 0 {
				x /= scale
			}
			c := m.first[momentKey(x)]
			for x > m.upTo[c] {
				c++
			}
			out[i] = c
		}
	}
}
