package testx

import (
	"runtime"
	"unsafe"
)

const faultless = runtime.GOOS == "windows" || runtime.GOOS == "plan9" || runtime.GOOS == "js" || runtime.GOOS == "wasip1"

// after reads the element behind s; before overwrites the one in front.
func after(s []float32) float32 {
	return *(*float32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), 4*len(s)))
}

func before(s []float32) {
	*(*float32)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(s)), -4)) = 1
}
