package answer

import (
	"testing"
	"time"
)

// longestCheck is far above what checks take (MATH's: 20 µs in the median) and
// far below what would stall a step. A fuzzing machine is busy, and may let one wait
// for longer; what takes long by itself does so again.
const longestCheck = time.Second

// No input makes a check panic or last, and the order of the two does not matter.
func FuzzMath(f *testing.F) {
	for _, p := range readPairs(f) {
		f.Add(p.given, p.wants)
	}
	f.Fuzz(func(t *testing.T, got, want string) {
		var a bool
		var took time.Duration
		for range 3 {
			start := time.Now()
			a = Math(got, want)
			if took = time.Since(start); took <= longestCheck {
				break
			}
		}
		if took > longestCheck {
			t.Fatalf("%v", took)
		}
		if b := Math(want, got); a != b {
			t.Fatalf("Math(got, want) is %v, Math(want, got) is %v", a, b)
		}
		if clean(got) != "" && !Math(got, got) {
			t.Fatal("an answer is not its own equal")
		}
		Exact(got, want)
		Choice(got, want)
		Numeric(got, want)
		Boxed(got)
	})
}
