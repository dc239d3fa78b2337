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
		s[0], s[9] = 1, 2
		r.finish()
		require.Zero(t, r.errors)

		r = &recorder{TB: t}
		whole, lo := guardAlloc(r, 10, side)
		_ = whole[lo : lo+10]
		r.finish()
	}
	r := &recorder{TB: t}
	s := Guard(r, 10, AtEnd)
	before(s)
	r.finish()
	require.Equal(t, 1, r.errors)
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
