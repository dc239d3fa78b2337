//go:build !unix

package testx

import (
	"testing"
	"unsafe"
)

// guardAlloc surrounds n words by canaries only.
func guardAlloc(_ testing.TB, n int, _ Side) (whole []uint32, lo int) {
	const zone = 256
	return make([]uint32, n+2*zone), zone
}

func asFloats(w []uint32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(w))), len(w))
}
