package hugepages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	size  = 2 << 20 // bytes, on the processors that there are kernels for
	least = 2 * size
)

// Advise asks for huge pages under fresh memory, where there are whole ones. Where
// the system does not give them, nothing changes.
func Advise(raw []byte) {
	if len(raw) < least {
		return
	}
	from := int(-uintptr(unsafe.Pointer(unsafe.SliceData(raw))) & (size - 1))
	n := (len(raw) - from) &^ (size - 1)
	_ = unix.Madvise(raw[from:from+n], unix.MADV_HUGEPAGE)
}
