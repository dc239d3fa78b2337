package engine

import "math/bits"

// Philox is the counter-based generator Philox4x32-10 (Salmon, Moraes, Dror
// and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): ten rounds
// map a 128-bit counter and a 64-bit key to 128 random bits.
func Philox(counter [4]uint32, key [2]uint32) [4]uint32 {
	for range 10 {
		hi0, lo0 := bits.Mul32(0xD2511F53, counter[0])
		hi1, lo1 := bits.Mul32(0xCD9E8D57, counter[2])
		counter = [4]uint32{hi1 ^ counter[1] ^ key[0], lo1, hi0 ^ counter[3] ^ key[1], lo0}
		key[0] += 0x9E3779B9
		key[1] += 0xBB67AE85
	}
	return counter
}

// Uniform maps 32 random bits to [0, 1) with 24 bits of precision.
func Uniform(u uint32) float32 { return float32(u>>8) * (1.0 / (1 << 24)) }
