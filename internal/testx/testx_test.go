package testx

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRequired(t *testing.T) {
	require.True(t, required("avx512, cuda", "cuda"))
	require.True(t, required("avx2", "avx2"))
	require.False(t, required("avx512", "avx"))
	require.False(t, required("", "avx2"))
}

// recorder is a testing.TB that keeps what a failing helper would report.
type recorder struct {
	testing.TB
	errors   int
	cleanups []func()
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.errors++ }
func (r *recorder) Cleanup(f func())      { r.cleanups = append(r.cleanups, f) }
func (r *recorder) finish() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestGuardSeesOverwrite(t *testing.T) {
	for _, side := range []Side{AtEnd, AtStart} {
		r := &recorder{TB: t}
		s := Guard(r, 10, side)
		require.Len(t, s, 10)
		require.Equal(t, 10, cap(s))
		s[0], s[9] = 1, 2
		r.finish()
		require.Zero(t, r.errors, "writes inside are no error")
	}
	r := &recorder{TB: t}
	before(Guard(r, 10, AtEnd))
	r.finish()
	require.Equal(t, 1, r.errors)
}

func TestGuardCopy(t *testing.T) {
	for n := range 5 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(i) + 0.5
		}
		require.Equal(t, x, GuardCopy(t, x, AtEnd))
		require.Equal(t, x, GuardCopy(t, x, AtStart))
	}
}

func TestGuardFaults(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if faultless {
		Have(t, "page protection", false)
	}
	end := Guard(t, 5, AtEnd)
	require.Panics(t, func() { sink = after(end) })
	start := Guard(t, 5, AtStart)
	require.Panics(t, func() { before(start) })
}

var sink float32
