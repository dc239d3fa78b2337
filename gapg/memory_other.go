//go:build !linux

package gapg

// residentMemory returns 0: nobody knows.
func residentMemory() int64 { return 0 }
