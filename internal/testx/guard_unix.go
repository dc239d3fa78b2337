//go:build unix

package testx

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// guardAlloc maps pages for n words between two protected ones and returns the
// accessible words and where the guarded ones start.
func guardAlloc(t testing.TB, n int, side Side) (whole []uint32, lo int) {
	t.Helper()
	page := unix.Getpagesize()
	inner := max(1, (4*n+page-1)/page) * page
	mem, err := unix.Mmap(-1, 0, inner+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatalf("testx: mmap: %v", err)
	}
	// Registered before the canary check, so it runs after it.
	t.Cleanup(func() {
		if err := unix.Munmap(mem); err != nil {
			t.Errorf("testx: munmap: %v", err)
		}
	})
	for _, p := range [][]byte{mem[:page], mem[page+inner:]} {
		if err := unix.Mprotect(p, unix.PROT_NONE); err != nil {
			t.Fatalf("testx: mprotect: %v", err)
		}
	}
	whole = unsafe.Slice((*uint32)(unsafe.Pointer(&mem[page])), inner/4)
	if side == AtEnd {
		lo = len(whole) - n
	}
	return whole, lo
}

func asFloats(w []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(w))), len(w))
}
