package testx

import "runtime"

// Allocated returns the bytes that f allocates on the heap, freed ones included. What
// other goroutines allocate meanwhile is counted too.
func Allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
