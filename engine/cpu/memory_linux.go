package cpu

import (
	"math"

	"golang.org/x/sys/unix"
)

// memoryLimit returns the bytes of memory and swap of the machine.
func memoryLimit() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return math.MaxUint64
	}
	return (uint64(info.Totalram) + uint64(info.Totalswap)) * uint64(max(info.Unit, 1))
}
