package gpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
)

// alloc allocates a tensor of one row.
func alloc(t testing.TB, b *Backend, d engine.DType, n int) engine.Tensor {
	t.Helper()
	x, err := b.Alloc(d, n)
	require.NoError(t, err)
	return engine.Vector(x, 0, n)
}

// Tensors with more elements than a launch counts are filled and converted in
// pieces.
func TestFlatPieces(t *testing.T) {
	b := open(t, Options{})
	b.flat = 1000
	const n = 4567
	src, got := make([]float32, n), make([]float32, n)
	for i := range src {
		src[i] = float32(i) * 1.37
	}
	x, h, back := alloc(t, b, engine.F32, n), alloc(t, b, engine.BF16, n+3), alloc(t, b, engine.F32, n)
	b.UploadF32(x, src)
	b.Fill(h, 7)
	inner := engine.Vector(h.Buf, 2, n)
	b.Copy(inner, x)
	b.Copy(back, inner)
	require.NoError(t, b.Wait(b.DownloadF32(got, back)))
	for i := range src {
		require.Equal(t, half.FromBF16(half.BF16(src[i])), got[i], i)
	}
	ends := make([]float32, n+3)
	require.NoError(t, b.Wait(b.DownloadF32(ends, h)))
	require.Equal(t, []float32{7, 7, 7}, []float32{ends[0], ends[1], ends[n+2]})
}

// Copies larger than the rings, and of every type, arrive whole.
func TestLargeCopies(t *testing.T) {
	b := open(t, Options{})
	n := 2*stagingBytes/4 + 12345
	src := make([]float32, n)
	for i := range src {
		src[i] = float32(i%100003) - 50000.5
	}
	x := alloc(t, b, engine.F32, n)
	b.UploadF32(x, src)
	got := make([]float32, n)
	require.NoError(t, b.Wait(b.DownloadF32(got, x)))
	require.True(t, equal(src, got), "F32")

	h := alloc(t, b, engine.BF16, n)
	b.UploadF32(h, src)
	require.NoError(t, b.Wait(b.DownloadF32(got, h)))
	for i := range src {
		src[i] = half.FromBF16(half.BF16(src[i]))
	}
	require.True(t, equal(src, got), "BF16")

	ints, back := make([]int32, n), make([]int32, n)
	for i := range ints {
		ints[i] = int32(i * 2654435761)
	}
	y := alloc(t, b, engine.I32, n)
	b.UploadI32(y, ints)
	require.NoError(t, b.Wait(b.DownloadI32(back, y)))
	require.True(t, equal(ints, back), "I32")

	for i := range ints {
		ints[i] &= 0xff
	}
	c := alloc(t, b, engine.U8, n)
	b.UploadI32(c, ints)
	require.NoError(t, b.Wait(b.DownloadI32(back, c)))
	require.True(t, equal(ints, back), "U8")
}

func equal[T comparable](a, b []T) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

// Thousands of small copies share one ring and few events; each download brings
// what was there when it was asked for.
func TestManySmallCopies(t *testing.T) {
	drv := openDriver(t, cuda.WithCallCounts())
	b, err := New(Options{Driver: drv})
	require.NoError(t, err)
	defer b.Close()
	const rounds = 3000
	x := alloc(t, b, engine.I32, 64)
	got := make([][]int32, rounds)
	v := make([]int32, 64)
	for r := range rounds {
		for i := range v {
			v[i] = int32(r*64 + i)
		}
		b.UploadI32(x, v)
		got[r] = make([]int32, 1+r%64)
		b.DownloadI32(got[r], x.ColRange(0, len(got[r])))
	}
	require.NoError(t, b.Sync())
	for r := range rounds {
		for i, g := range got[r] {
			require.EqualValues(t, r*64+i, g, "download %d", r)
		}
	}
	n := drv.CallCounts()
	require.Equal(t, 2, n["cuMemHostAlloc"])
	require.LessOrEqual(t, n["cuEventCreate"], 2*stagingPieces+2)
	require.Equal(t, 1, n["cuStreamSynchronize"])
	b.Free(x.Buf)
}

// Wait delivers no more than it has to, and once.
func TestTicketsInAnyOrder(t *testing.T) {
	b := open(t, Options{})
	x := alloc(t, b, engine.F32, 4)
	var got [3][4]float32
	var tickets [3]engine.Ticket
	for i := range got {
		b.Fill(x, float32(i+1))
		tickets[i] = b.DownloadF32(got[i][:], x)
	}
	require.NoError(t, b.Wait(tickets[1]))
	require.Equal(t, [3][4]float32{{1, 1, 1, 1}, {2, 2, 2, 2}}, got, "the third has not been waited for")
	require.NoError(t, b.Wait(tickets[0]))
	require.NoError(t, b.Wait(tickets[2]))
	require.Equal(t, [4]float32{3, 3, 3, 3}, got[2])
}

// An allocation that fails names what was wanted and what there is; what the pool
// keeps counts as free.
func TestOutOfMemory(t *testing.T) {
	b := open(t, Options{})
	_, total, err := b.Memory()
	require.NoError(t, err)
	_, err = b.Alloc(engine.F32, int(total))
	require.ErrorIs(t, err, cuda.OutOfMemory)
	require.ErrorContains(t, err, fmt.Sprintf("cannot allocate %d bytes (%d elements of F32)", 4*total, total))
	require.ErrorContains(t, err, fmt.Sprintf("of the %d bytes of cuda:0", total))
	require.NotContains(t, err.Error(), "\n")
	_, err = b.Alloc(engine.F32, math.MaxInt/2)
	require.ErrorContains(t, err, "more bytes than the address space holds")

	before, _, err := b.Memory()
	require.NoError(t, err)
	x := alloc(t, b, engine.F32, 10<<20)
	b.Free(x.Buf)
	after, _, err := b.Memory()
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.NoError(t, b.Sync())
}

// What is used after its end panics with a constant string.
func TestUseAfterEnd(t *testing.T) {
	b := open(t, Options{})
	x := alloc(t, b, engine.F32, 4)
	b.Free(x.Buf)
	require.PanicsWithValue(t, "gpu: free: buffer was freed before", func() { b.Free(x.Buf) })
	require.PanicsWithValue(t, "gpu: tensor's buffer was freed", func() { b.Fill(x, 1) })
	other := open(t, Options{})
	y := alloc(t, other, engine.F32, 4)
	require.PanicsWithValue(t, "gpu: buffer of another backend", func() { b.Fill(y, 1) })
	p := other.Record(func() { other.Fill(y, 1) })
	require.PanicsWithValue(t, "gpu: run: program of another backend", func() { b.Run(p) })
	require.NoError(t, other.Close())
	require.PanicsWithValue(t, "gpu: backend is closed", func() { other.Fill(y, 1) })
	require.PanicsWithValue(t, "gpu: backend is closed", func() { other.Run(p) })
	require.ErrorIs(t, other.Sync(), errClosed)
	require.ErrorIs(t, other.Wait(0), errClosed)
}

// A program ends with any of its buffers; others stay.
func TestFreeEndsPrograms(t *testing.T) {
	b := open(t, Options{})
	x, y := alloc(t, b, engine.F32, 4), alloc(t, b, engine.F32, 4)
	px := b.Record(func() { b.Fill(x, 1) })
	py := b.Record(func() { b.Fill(y, 2) })
	both := b.Record(func() { b.Run(px); b.Run(py) })
	require.Equal(t, 2, both.Ops())
	b.Run(both)
	got := make([]float32, 8)
	b.DownloadF32(got[:4], x)
	b.DownloadF32(got[4:], y)
	require.NoError(t, b.Sync())
	require.Equal(t, []float32{1, 1, 1, 1, 2, 2, 2, 2}, got)
	b.Free(x.Buf)
	const ended = "gpu: run: a buffer that the program uses was freed"
	require.PanicsWithValue(t, ended, func() { b.Run(px) })
	require.PanicsWithValue(t, ended, func() { b.Run(both) })
	b.Fill(y, 0)
	b.Run(py)
	require.NoError(t, b.Wait(b.DownloadF32(got[4:], y)))
	require.EqualValues(t, 2, got[7])
}

// Scratch memory and tables that a program was recorded with stay where they are
// until the last program has ended; then they are given back.
func TestScratchOfPrograms(t *testing.T) {
	b := open(t, Options{})
	x := alloc(t, b, engine.F32, 1)
	first, ok := b.scratchFor("test", 1000)
	require.True(t, ok)
	b.Record(func() {
		b.Fill(x, 1)
		again, ok := b.scratchFor("test", 1000)
		require.True(t, ok)
		require.Equal(t, first, again)
		require.NotNil(t, b.list("test", []int32{1, 2, 3}))
	})
	second, ok := b.scratchFor("test", 10000)
	require.True(t, ok)
	require.NotEqual(t, first, second)
	require.Len(t, b.scratch.retired, 1)
	for i := range int32(2 * keepTables) {
		require.NotNil(t, b.list("test", []int32{-i, 7}))
	}
	require.LessOrEqual(t, len(b.tables.lists), keepTables+1)
	require.True(t, b.tables.lists[len(b.tables.lists)-1].ints.pinned, "the program's table was given up")
	b.Free(x.Buf)
	require.Empty(t, b.scratch.retired)
	require.False(t, b.tables.lists[len(b.tables.lists)-1].ints.pinned)
}

// Failures carry the operation; the first counts, and is told once.
func TestFailures(t *testing.T) {
	b := open(t, Options{})
	_, ok := b.scratchFor("LogProb", math.MaxInt/4)
	require.False(t, ok)
	b.fail("Linear", cuda.LaunchFailed)
	err := b.Sync()
	require.ErrorIs(t, err, cuda.OutOfMemory)
	require.ErrorContains(t, err, "gpu: LogProb: cannot allocate")
	require.NoError(t, b.Sync())

	b.begin("Linear")
	b.late(cuda.IllegalAddress)
	err = b.Wait(0)
	require.ErrorIs(t, err, cuda.IllegalAddress)
	require.ErrorContains(t, err, "in Linear or an operation before it")
}

func TestPrecision(t *testing.T) {
	b := open(t, Options{})
	for _, d := range []engine.DType{engine.F32, engine.BF16} {
		a, err := b.Precision(d)
		require.NoError(t, err)
		require.Equal(t, d, a)
	}
}

// A device that is too old, or not there, is a clear line.
func TestUnusableDevices(t *testing.T) {
	_, err := Kernels(cuda.DeviceInfo{Ordinal: 1, Name: "NVIDIA T4", Major: 7, Minor: 5})
	require.EqualError(t, err, "cuda: no GPU can be used: device 1 (NVIDIA T4) has compute capability 7.5, and the kernels need 8.0 (Ampere) or later; take another device, or the CPU")
	for _, c := range []struct {
		major, minor int
		want         string
	}{{8, 0, "sm_80 kernels"}, {9, 0, "sm_90a and sm_80 kernels"}, {12, 0, "sm_80 kernels"}} {
		k, err := Kernels(cuda.DeviceInfo{Major: c.major, Minor: c.minor})
		require.NoError(t, err)
		require.Equal(t, c.want, k)
	}
	_, err = New(Options{Library: "/nowhere/libcuda.so.1"})
	var none *cuda.UnavailableError
	require.ErrorAs(t, err, &none)
	drv := openDriver(t)
	_, err = New(Options{Driver: drv, Device: 99})
	require.ErrorContains(t, err, "there is no device 99")
}
