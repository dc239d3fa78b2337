//go:build !linux

package cpu

import "math"

// memoryLimit returns no limit: there the allocation itself is left to fail.
func memoryLimit() uint64 { return math.MaxUint64 >> 16 }
