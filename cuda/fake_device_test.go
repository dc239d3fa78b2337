//go:build linux && cgo

package cuda

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFakeOneDevice(t *testing.T) {
	d, err := Open(WithLibrary(fake(t, "-DFAKE_DEVICES=1")))
	require.NoError(t, err)
	_, err = d.OpenDevice(-1)
	require.ErrorContains(t, err, "there is no device -1; the only one is 0")
}

// A device that another process has, or that is closed to all, says so in a line.
func TestFakeDeviceInUse(t *testing.T) {
	for _, c := range []struct {
		defines []string
		code    Code
		says    string
	}{
		{[]string{"-DFAKE_RETAIN=46", "-DFAKE_MODE=3"}, DeviceUnavailable, "is in use by another process, and its compute mode lets one in at a time"},
		{[]string{"-DFAKE_RETAIN=46", "-DFAKE_MODE=2"}, DeviceUnavailable, `has the compute mode "prohibited"`},
		{[]string{"-DFAKE_RETAIN=46"}, DeviceUnavailable, "does not start"},
		{[]string{"-DFAKE_RETAIN=2"}, OutOfMemory, "has too little free memory even to start"},
	} {
		d, err := Open(WithLibrary(fake(t, c.defines...)))
		require.NoError(t, err)
		_, err = d.OpenDevice(1)
		require.ErrorContains(t, err, "cuda: device 1 (Fake GPU 1) "+c.says)
		require.ErrorIs(t, err, c.code)
		require.NotContains(t, err.Error(), "\n")
	}
	infos, err := Probe(WithLibrary(fake(t, "-DFAKE_MODE=3")))
	require.NoError(t, err)
	require.True(t, infos[0].Exclusive)
}

// The library's path from the environment is the only one that is tried.
func TestFakeLibraryFromEnvironment(t *testing.T) {
	t.Setenv(LibraryEnv, fake(t))
	d, err := Open()
	require.NoError(t, err)
	require.Equal(t, 12040, d.Version())
	t.Setenv(LibraryEnv, "/nowhere/libcuda.so.1")
	_, err = Open()
	require.ErrorContains(t, err, "/nowhere/libcuda.so.1 was not found")
}

func TestFakePriorities(t *testing.T) {
	_, g := openFake(t)
	for _, p := range []Priority{Normal, High} {
		s, err := g.NewStreamWith(p)
		require.NoError(t, err)
		require.NoError(t, s.Sync())
		require.NoError(t, s.Close())
	}
}

func TestFakeGraph(t *testing.T) {
	_, g := openFake(t)
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	b, err := g.Alloc(16)
	require.NoError(t, err)
	defer b.Free()
	require.NoError(t, s.Fill32(b, 0, 4, 1))
	x, err := s.Capture(func() error { return errors.Join(s.Fill32(b, 4, 1, 7), s.Fill32(b, 8, 1, 8), s.Fill32(b, 0, 0, 8)) })
	require.NoError(t, err)
	require.Equal(t, 2, x.Nodes())
	got := make([]uint32, 4)
	read := func() []uint32 {
		require.NoError(t, s.Download(Bytes(got), b, 0))
		return got
	}
	require.Equal(t, []uint32{1, 1, 1, 1}, read(), "capturing runs nothing")
	require.NoError(t, s.LaunchGraph(x))
	require.Equal(t, []uint32{1, 7, 8, 1}, read())
	require.NoError(t, s.Fill32(b, 0, 4, 2))
	require.NoError(t, s.LaunchGraph(x))
	require.Equal(t, []uint32{2, 7, 8, 2}, read())
	require.NoError(t, x.Close())
	require.NoError(t, x.Close(), "a second Close does nothing")
	require.PanicsWithValue(t, "cuda: use of a closed graph", func() { _ = s.LaunchGraph(x) })
	require.PanicsWithValue(t, "cuda: fill: words must begin at a multiple of 4 bytes", func() { _ = s.Fill32(b, 2, 1, 0) })

	// What cannot be captured is an error, and the stream is as good as before.
	_, err = s.Capture(func() error { return s.Fill(b, 0, 1, 0) })
	require.ErrorContains(t, err, "cuMemsetD8Async: error 900")
	require.NoError(t, s.Sync())
}

func TestFakePool(t *testing.T) {
	d, g := openFake(t)
	p := g.NewPool()
	free := func() uint64 {
		free, _, err := g.MemInfo()
		require.NoError(t, err)
		return free
	}
	all := free()
	a, err := p.Alloc(1000)
	require.NoError(t, err)
	require.Equal(t, 1000, a.Size())
	require.PanicsWithValue(t, "cuda: range outside of the buffer", func() { a.Ptr(1001) })
	b, err := p.Alloc(1)
	require.NoError(t, err)
	require.Equal(t, []int{1536, 0}, []int{p.Used(), p.Cached()})
	first := a.Ptr(0)
	p.Free(a)
	require.Len(t, d.Leaks(), 2, "the device and b")
	c, err := p.Alloc(513) // rounds to the same block
	require.NoError(t, err)
	require.Equal(t, first, c.Ptr(0))
	require.Equal(t, all-1536, free())
	require.PanicsWithValue(t, "cuda: use of a freed buffer", func() { p.Free(a) })
	require.PanicsWithValue(t, "cuda: free: a pool's buffer is freed through its pool", func() { _ = b.Free() })
	require.PanicsWithValue(t, "cuda: alloc: size below 1", func() { _, _ = p.Alloc(0) })

	// Out of memory gives the free blocks back first.
	big, err := p.Alloc(600 << 20)
	require.NoError(t, err)
	p.Free(big)
	other, err := p.Alloc(700 << 20)
	require.NoError(t, err)
	require.Zero(t, p.Cached())
	_, err = p.Alloc(700 << 20)
	require.ErrorIs(t, err, OutOfMemory)
	for _, x := range []*Buffer{b, c, other} {
		p.Free(x)
	}
	require.NoError(t, p.Trim())
	require.Equal(t, all, free())
	require.Zero(t, p.Used())
}

// A module is compiled once for a device and goes with it.
func TestFakeModuleCache(t *testing.T) {
	d, err := Open(WithLibrary(fake(t)), WithLeakTracing(), WithCallCounts())
	require.NoError(t, err)
	g, err := d.OpenDevice(0)
	require.NoError(t, err)
	a, err := g.Module("test", argumentsPTX)
	require.NoError(t, err)
	b, err := g.Module("test", argumentsPTX)
	require.NoError(t, err)
	require.Same(t, a, b)
	c, err := g.Module("test", argumentsPTX+"\n")
	require.NoError(t, err)
	require.NotSame(t, a, c)
	require.Equal(t, 2, d.CallCounts()["cuModuleLoadDataEx"])
	_, err = g.Module("broken", "no directive")
	require.ErrorIs(t, err, InvalidPTX)
	require.NoError(t, g.Close())
	require.Empty(t, d.Leaks())
	require.Equal(t, 2, d.CallCounts()["cuModuleUnload"])
}
