package enginetest

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
)

func mustAlloc(t *testing.T, b engine.Backend, d engine.DType, n int) engine.Buffer {
	t.Helper()
	buf, err := b.Alloc(d, n)
	require.NoError(t, err)
	return buf
}

func TestDeferredPoisonsDownloads(t *testing.T) {
	b := NewDeferred(NewReference())
	f, i := mustAlloc(t, b, engine.F32, 2), mustAlloc(t, b, engine.I32, 2)
	b.Fill(engine.Vector(f, 0, 2), 3)
	b.Fill(engine.Vector(i, 0, 2), 4)
	fs, is := []float32{1, 1}, []int32{1, 1}
	tf := b.DownloadF32(fs, engine.Vector(f, 0, 2))
	b.DownloadI32(is, engine.Vector(i, 0, 2))
	require.True(t, math.IsNaN(float64(fs[0])) && math.IsNaN(float64(fs[1])))
	require.Equal(t, []int32{poisonI32, poisonI32}, is)
	require.NoError(t, b.Wait(tf))
	require.Equal(t, []float32{3, 3}, fs)
	require.Equal(t, []int32{poisonI32, poisonI32}, is, "a later ticket was not waited for")
	require.NoError(t, b.Sync())
	require.Equal(t, []int32{4, 4}, is)
	require.PanicsWithValue(t, "deferred: ticket of the future", func() { _ = b.Wait(1000) })
}

func TestDeferredCarriesNothingOutBeforeSync(t *testing.T) {
	inner := NewReference()
	b := NewDeferred(inner)
	buf := mustAlloc(t, b, engine.F32, 1)
	view := engine.Vector(buf.(*deferredBuffer).inner, 0, 1)
	b.Fill(engine.Vector(buf, 0, 1), 3)
	require.Equal(t, []float64{0}, inner.Float64s(view))
	require.NoError(t, b.Sync())
	require.Equal(t, []float64{3}, inner.Float64s(view))
}

func TestDeferredFindsMisuse(t *testing.T) {
	b, other := NewDeferred(NewReference()), NewDeferred(NewReference())
	mine, theirs := mustAlloc(t, b, engine.F32, 1), mustAlloc(t, other, engine.F32, 1)
	v := engine.Vector(mine, 0, 1)
	require.PanicsWithValue(t, "deferred: buffer of another backend", func() { b.Fill(engine.Vector(theirs, 0, 1), 1) })
	p := b.Record(func() { b.Fill(v, 1) })
	require.PanicsWithValue(t, "deferred: program of another backend", func() { other.Run(p) })
	require.PanicsWithValue(t, "deferred: not allowed while recording", func() {
		b.Record(func() { b.UploadF32(v, []float32{1}) })
	})
	b.Free(mine)
	require.PanicsWithValue(t, "deferred: buffer used after Free", func() { b.Fill(v, 1) })
	require.PanicsWithValue(t, "deferred: buffer used after Free", func() { b.Free(mine) })
	require.PanicsWithValue(t, "deferred: program uses a buffer after Free", func() { b.Run(p) })
	require.NoError(t, b.Close())
	require.Panics(t, func() { _, _ = b.Alloc(engine.F32, 1) })
}

func TestDeferredListsLeaks(t *testing.T) {
	b := NewDeferred(NewReference())
	w := engine.Weight{Tensor: engine.Matrix(mustAlloc(t, b, engine.F32, 6), 0, 2, 3)}
	require.NoError(t, b.PrepareWeight(&w))
	mustAlloc(t, b, engine.I32, 7)
	b.Free(w.Buf)
	err := b.Close()
	require.ErrorContains(t, err, "1 buffers were not freed")
	require.ErrorContains(t, err, "7 elements of I32, allocated at ")
	require.ErrorContains(t, err, "deferred_test.go:")
}

// A forgotten RefreshWeight shows in the reference backend.
func TestReferenceKeepsPreparedCopies(t *testing.T) {
	b := NewReference()
	w := engine.Weight{Tensor: engine.Matrix(mustAlloc(t, b, engine.F32, 1), 0, 1, 1)}
	x, y := engine.Vector(mustAlloc(t, b, engine.F32, 1), 0, 1), engine.Vector(mustAlloc(t, b, engine.F32, 1), 0, 1)
	b.Fill(x, 2)
	require.NoError(t, b.PrepareWeight(&w))
	b.SetFloat64s(w.Tensor, []float64{1e-30 + 0.1})
	b.Linear(engine.LinearArgs{Y: y, X: x, W: w})
	require.Equal(t, []float64{0}, b.Float64s(y))
	b.RefreshWeight(w)
	b.Linear(engine.LinearArgs{Y: y, X: x, W: w})
	require.Equal(t, []float64{0.2}, b.Float64s(y), "in float64")
}
