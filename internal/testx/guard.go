package testx

import "testing"

// canary fills what no kernel may write: a quiet NaN with a payload.
const canary = 0x7fc0dead

// Side says which end of a guarded buffer lies against forbidden memory.
type Side int

const (
	// AtEnd puts the last element right before a page that faults on access.
	AtEnd Side = iota
	// AtStart puts the first element right after such a page.
	AtStart
)

// Guard returns a slice of n float32, zeroed, whose end or start touches a page
// that faults on any access, so that a kernel which reads or writes beyond it
// crashes. The bytes between the slice and the far page are canaries, checked
// when the test ends. Where pages cannot be protected, canaries stand on both
// sides. The memory is released when the test ends.
func Guard(t testing.TB, n int, side Side) []float32 {
	t.Helper()
	whole, lo := guardAlloc(t, n, side)
	for i := range whole {
		whole[i] = canary
	}
	s := asFloats(whole[lo : lo+n])
	clear(s)
	t.Cleanup(func() {
		for i, v := range whole {
			if (i < lo || i >= lo+n) && v != canary {
				t.Errorf("testx: element %d of a guarded slice of %d was overwritten", i-lo, n)
				return
			}
		}
	})
	return s[:n:n]
}

// GuardCopy is Guard holding a copy of x.
func GuardCopy(t testing.TB, x []float32, side Side) []float32 {
	t.Helper()
	s := Guard(t, len(x), side)
	copy(s, x)
	return s
}
