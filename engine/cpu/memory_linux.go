package cpu

import (
	"math"

	"unsafe"

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

const (
	hugePage = 2 << 20 // bytes, on the processors that there are kernels for
	hugeMin  = 2 * hugePage
)

// hugePages asks for huge pages under fresh memory, where there are whole ones: of
// small ones a matrix takes more than the processor's translation buffers hold.
// Where the system does not give them, nothing changes.
func hugePages(raw []byte) {
	if len(raw) < hugeMin {
		return
	}
	from := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (hugePage - 1))
	n := (len(raw) - from) &^ (hugePage - 1)
	_ = unix.Madvise(raw[from:from+n], unix.MADV_HUGEPAGE)
}
