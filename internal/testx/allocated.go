package testx

import (
	"runtime"
	"testing"
)

// AllocatesWithin fails t where opening a file of size bytes allocates more than base
// and each bytes for every one of them, freed ones included, whatever sizes the file
// claims. What other goroutines allocate meanwhile is counted too.
func AllocatesWithin(t testing.TB, size, base, each int, open func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	open()
	runtime.ReadMemStats(&after)
	if n, most := after.TotalAlloc-before.TotalAlloc, uint64(base+each*size); n > most {
		t.Fatalf("a file of %d bytes made %d allocated, more than %d", size, n, most)
	}
}
