//go:build linux && cgo

package cuda

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// openEmulated opens device 0 of the emulated driver, whose streams run late, in a
// mode, and checks at the end that the test has freed everything.
func openEmulated(t *testing.T, m emu.Mode) *Device {
	t.Helper()
	lib, err := emu.Library(emu.Options{Modules: []string{"rows"}})
	testx.Have(t, "c++", !errors.Is(err, errors.ErrUnsupported))
	require.NoError(t, err)
	t.Setenv(emu.Variable, m.String())
	d, err := Open(WithLibrary(lib), WithLeakTracing())
	require.NoError(t, err)
	g, err := d.OpenDevice(0)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := g.Close(); !errors.Is(err, LaunchFailed) { // the test that makes it fail
			require.NoError(t, err)
		}
		require.Empty(t, d.Leaks())
	})
	return g
}

// fillKernel returns the kernel that fills a row of n words at an address.
func fillKernel(t *testing.T, g *Device) (launch func(s *Stream, b *Buffer, offset, n int, word int32) error) {
	t.Helper()
	k := kernels.Fill(4)
	m, err := g.Module(k.Module, k.PTX)
	require.NoError(t, err)
	f, err := m.Function(k.Entry, k.Params)
	require.NoError(t, err)
	return func(s *Stream, b *Buffer, offset, n int, word int32) error {
		a := new(Args).Buffer(b, offset).Int32(word).Int32(1).Int32(int32(n)).Int32(int32(n))
		return s.Launch(f, LaunchConfig{Grid: [3]int{k.Grid(1, n)}, Block: [3]int{k.Block}}, a)
	}
}

// Work runs when it is waited for and no sooner, in its stream's order.
func TestEmulatedStreams(t *testing.T) {
	g := openEmulated(t, emu.Mode{})
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	other, err := g.NewStreamWith(High)
	require.NoError(t, err)
	defer other.Close()
	e, err := g.NewEvent()
	require.NoError(t, err)
	defer e.Close()
	b, err := g.Alloc(64)
	require.NoError(t, err)
	defer b.Free()
	h, err := g.AllocHost(64)
	require.NoError(t, err)
	defer h.Free()
	fill := fillKernel(t, g)

	h.Bytes()[0] = 55
	require.NoError(t, fill(s, b, 0, 16, 7))
	require.NoError(t, s.Fill32(b, 8, 1, 8))
	require.NoError(t, s.Record(e))
	require.NoError(t, other.Wait(e))
	require.NoError(t, other.DownloadAsync(h, 0, b, 0, 64))
	require.EqualValues(t, 55, h.Bytes()[0], "a copy ran before anybody waited")
	require.NoError(t, other.Sync())
	require.Equal(t, []byte{7, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 7}, h.Bytes()[:13])
	done, err := e.Done()
	require.NoError(t, err)
	require.True(t, done)
}

// A graph of kernels, copies and fills repeats what was captured.
func TestEmulatedGraph(t *testing.T) {
	g := openEmulated(t, emu.Mode{})
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	b, err := g.Alloc(64)
	require.NoError(t, err)
	defer b.Free()
	fill := fillKernel(t, g)
	x, err := s.Capture(func() error {
		return errors.Join(fill(s, b, 0, 8, 1), s.Fill32(b, 4, 2, 2), s.Copy(b, 32, b, 0, 32))
	})
	require.NoError(t, err)
	defer x.Close()
	require.Equal(t, 3, x.Nodes())
	got := make([]int32, 16)
	for range 2 {
		require.NoError(t, s.Fill32(b, 0, 16, 9))
		require.NoError(t, s.LaunchGraph(x))
		require.NoError(t, s.Download(Bytes(got), b, 0))
		require.Equal(t, []int32{1, 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1}, got)
	}
	_, err = s.Capture(func() error { return s.Sync() })
	require.Error(t, err, "nothing can be waited for while capturing")
}

// A kernel that fails shows at the next wait and at every call after it, with the
// driver's text, which on this one names the kernel.
func TestEmulatedLaunchFailure(t *testing.T) {
	g := openEmulated(t, emu.Mode{Extra: "fail-launch=2"})
	s, err := g.NewStream()
	require.NoError(t, err)
	b, err := g.Alloc(64)
	require.NoError(t, err)
	fill := fillKernel(t, g)
	require.NoError(t, fill(s, b, 0, 16, 1))
	require.NoError(t, s.Sync())
	require.NoError(t, fill(s, b, 0, 16, 2), "a launch only queues")
	err = s.Sync()
	require.ErrorIs(t, err, LaunchFailed)
	_, again := g.Alloc(64)
	require.ErrorIs(t, again, LaunchFailed, "the context stays broken")
	require.ErrorIs(t, errors.Join(b.Free(), s.Close()), LaunchFailed, "and gives back what it can")
}

// The pool tries again without its free blocks, and says what the driver says.
func TestEmulatedPool(t *testing.T) {
	g := openEmulated(t, emu.Mode{Memory: 64 << 20})
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	p := g.NewPool()
	a, err := p.Alloc(20 << 20)
	require.NoError(t, err)
	require.NoError(t, s.Fill(a, 0, 20<<20, 1)) // still to run when the block is given back
	p.Free(a)
	b, err := p.Alloc(50 << 20)
	require.NoError(t, err)
	require.Zero(t, p.Cached())
	_, err = p.Alloc(20 << 20)
	require.ErrorIs(t, err, OutOfMemory)
	p.Free(b)
	require.NoError(t, p.Trim())
	require.NoError(t, s.Sync())
	free, total, err := g.MemInfo()
	require.NoError(t, err)
	require.Equal(t, total, free)
}

// Modules are refused with the compiler's log.
func TestEmulatedModules(t *testing.T) {
	g := openEmulated(t, emu.Mode{})
	for _, c := range []struct {
		ptx  string
		code Code
	}{
		{"no directive", InvalidPTX},
		{".version 99.0\n.target sm_80\n.address_size 64\n", UnsupportedPTX},
		{".version 8.0\n.target sm_90a\n.address_size 64\n", NoBinaryForGPU},
	} {
		_, err := g.Module("broken", c.ptx)
		var l *LoadError
		require.ErrorAs(t, err, &l)
		require.ErrorIs(t, err, c.code)
		require.NotEmpty(t, l.Log)
		require.NotContains(t, err.Error(), "\n")
	}
}

// What starting can meet.
func TestEmulatedStart(t *testing.T) {
	lib, err := emu.Library(emu.Options{Modules: []string{"rows"}})
	testx.Have(t, "c++", !errors.Is(err, errors.ErrUnsupported))
	require.NoError(t, err)
	for settings, want := range map[string]string{
		"version=11080":                "supports CUDA 11.8, and 12.0 is needed; update the NVIDIA driver",
		"devices=0":                    "finds no device; check CUDA_VISIBLE_DEVICES",
		"retain=46,compute-mode=3":     "is in use by another process",
		"retain=46,compute-mode=2":     `has the compute mode "prohibited"`,
		"retain=2":                     "too little free memory even to start",
		"devices=3,retain=0,version=0": "supports CUDA 0.0",
	} {
		t.Run(settings, func(t *testing.T) {
			t.Setenv(emu.Variable, settings)
			d, err := Open(WithLibrary(lib))
			if err == nil {
				_, err = d.OpenDevice(0)
			}
			require.ErrorContains(t, err, want)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}
