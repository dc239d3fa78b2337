//go:build linux && cgo

package cuda

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
)

// fake builds the test's driver library with the given definitions.
func fake(t *testing.T, defines ...string) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	testx.Have(t, "cc", err == nil)
	lib := filepath.Join(t.TempDir(), "libcuda.so.1")
	args := append([]string{"-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", lib, "testdata/fakecuda.c"}, defines...)
	msg, err := exec.Command(cc, args...).CombinedOutput()
	require.NoError(t, err, "%s", msg)
	return lib
}

// openFake opens device 0 of a fake driver and checks at the end that the test
// has freed everything.
func openFake(t *testing.T) (*Driver, *Device) {
	t.Helper()
	d, err := Open(WithLibrary(fake(t)), WithLeakTracing())
	require.NoError(t, err)
	g, err := d.OpenDevice(0)
	require.NoError(t, err)
	t.Cleanup(func() {
		free, total, err := g.MemInfo()
		require.NoError(t, err)
		require.Equal(t, total, free, "the driver still holds memory")
		require.NoError(t, g.Close())
		require.NoError(t, g.Close(), "a second Close does nothing")
		require.Empty(t, d.Leaks())
	})
	return d, g
}

func TestFakeInfo(t *testing.T) {
	lib := fake(t)
	infos, err := Probe(WithLibrary(lib))
	require.NoError(t, err)
	require.Len(t, infos, 2)
	require.Equal(t, DeviceInfo{
		Ordinal: 1, Name: "Fake GPU 1", Major: 8, Minor: 1, SMs: 108, Memory: 1 << 30, L2: 40 << 20,
		SharedPerBlock: 163 << 10, ClockKHz: 1410000, DriverVersion: 12040,
	}, infos[1])

	d, err := Open(WithLibrary(lib))
	require.NoError(t, err)
	require.Equal(t, 12040, d.Version())
	_, err = d.OpenDevice(2)
	require.ErrorContains(t, err, "there is no device 2; there are 0 to 1")
	require.ErrorIs(t, err, InvalidDevice)
	require.Nil(t, d.Leaks(), "without tracing nothing is recorded")
}

func TestFakeUnusableDrivers(t *testing.T) {
	for _, c := range []struct{ define, reason, remedy string }{
		{"-DFAKE_OLD", "has no function cuDevicePrimaryCtxRelease_v2", "525"},
		{"-DFAKE_VERSION=11080", "supports CUDA 11.8, and 12.0 is needed", "525"},
		{"-DFAKE_INIT=100", "finds no device", "CUDA_VISIBLE_DEVICES"},
		{"-DFAKE_DEVICES=0", "finds no device", "CUDA_VISIBLE_DEVICES"},
		{"-DFAKE_INIT=803", "different versions", "restart"},
		{"-DFAKE_INIT=999", "cuInit: error 999", "nvidia-smi"},
	} {
		t.Run(c.define, func(t *testing.T) {
			_, err := Open(WithLibrary(fake(t, c.define)))
			var u *UnavailableError
			require.ErrorAs(t, err, &u)
			require.ErrorIs(t, err, errors.ErrUnsupported)
			require.Contains(t, u.Reason, c.reason)
			require.Contains(t, u.Remedy, c.remedy)
			require.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestFakeMemory(t *testing.T) {
	_, g := openFake(t)
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	b, err := g.Alloc(1000)
	require.NoError(t, err)
	c, err := g.Alloc(16)
	require.NoError(t, err)
	free, total, err := g.MemInfo()
	require.NoError(t, err)
	require.EqualValues(t, 1016, total-free)
	require.Equal(t, 1000, b.Size())
	require.Equal(t, b.Ptr(0)+7, b.Ptr(7))

	src := []byte{1, 2, 3, 4}
	require.NoError(t, s.Fill(b, 0, 1000, 9))
	require.NoError(t, s.Upload(b, 996, src))
	require.NoError(t, s.Copy(c, 1, b, 995, 5))
	got := make([]byte, 5)
	require.NoError(t, s.Download(got, c, 1))
	require.Equal(t, []byte{9, 1, 2, 3, 4}, got)
	require.NoError(t, s.Upload(b, 1000, nil))
	require.NoError(t, s.Download(nil, b, 0))

	h, err := g.AllocHost(8)
	require.NoError(t, err)
	copy(h.Bytes(), "abcdefgh")
	require.NoError(t, s.UploadAsync(b, 10, h, 2, 6))
	require.NoError(t, s.DownloadAsync(h, 0, b, 10, 2))
	require.NoError(t, s.Sync())
	require.Equal(t, "cdcdefgh", string(h.Bytes()))
	require.PanicsWithValue(t, "cuda: range outside of the buffer", func() { _ = s.UploadAsync(b, 0, h, 3, 6) })

	const outside = "cuda: range outside of the buffer"
	require.PanicsWithValue(t, outside, func() { _ = s.Upload(b, 997, src) })
	require.PanicsWithValue(t, outside, func() { _ = s.Upload(b, -1, src) })
	require.PanicsWithValue(t, outside, func() { _ = s.Fill(b, 0, -1, 0) })
	require.PanicsWithValue(t, outside, func() { b.Ptr(1001) })
	require.PanicsWithValue(t, "cuda: alloc: size below 1", func() { _, _ = g.Alloc(0) })

	_, err = g.Alloc(2 << 30)
	require.ErrorIs(t, err, OutOfMemory)
	require.EqualError(t, err, "cuda: cuMemAlloc_v2: error 2 CUDA_ERROR_OUT_OF_MEMORY (out of memory)")

	for _, f := range []func() error{b.Free, c.Free, h.Free, b.Free, h.Free} {
		require.NoError(t, f())
	}
	const freed = "cuda: use of a freed buffer"
	require.PanicsWithValue(t, freed, func() { b.Ptr(0) })
	require.PanicsWithValue(t, freed, func() { _ = s.DownloadAsync(h, 0, c, 0, 0) })
	require.NoError(t, s.Close())
	require.PanicsWithValue(t, "cuda: use of a closed stream", func() { _ = s.Sync() })
}

func TestFakeEvents(t *testing.T) {
	_, g := openFake(t)
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	start, err := g.NewEvent()
	require.NoError(t, err)
	defer start.Close()
	end, err := g.NewEvent()
	require.NoError(t, err)
	defer end.Close()

	done, err := start.Done()
	require.NoError(t, err)
	require.False(t, done)
	_, err = end.Since(start)
	require.ErrorIs(t, err, NotReady)

	require.NoError(t, s.Record(start))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Record(end))
	require.NoError(t, end.Sync())
	done, err = end.Done()
	require.NoError(t, err)
	require.True(t, done)
	d, err := end.Since(start)
	require.NoError(t, err)
	require.EqualValues(t, 2_000_000, d.Nanoseconds(), "two pieces of work at a millisecond each")
	require.NoError(t, s.Wait(end))
}

const argumentsPTX = `.version 8.0
.entry arguments(
.entry maps(
.entry xfails(
`

func TestFakeLaunch(t *testing.T) {
	_, g := openFake(t)
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	m, err := g.LoadModule("test", argumentsPTX)
	require.NoError(t, err)
	defer m.Close()
	f, err := m.Function("arguments", "plifp")
	require.NoError(t, err)
	shape, err := g.Alloc(28)
	require.NoError(t, err)
	defer shape.Free()
	results, err := g.Alloc(64)
	require.NoError(t, err)
	defer results.Free()

	var a Args
	a.Buffer(shape, 0).Int64(-1<<40).Int32(-7).Float32(0.25).Buffer(results, 8)
	require.NoError(t, s.Launch(f, LaunchConfig{Grid: [3]int{5, 2}, Block: [3]int{128}, Shared: 4096}, &a))
	gotShape, got := make([]uint32, 7), make([]float64, 3)
	require.NoError(t, s.Download(Bytes(gotShape), shape, 0))
	require.NoError(t, s.Download(Bytes(got), results, 8))
	require.Equal(t, []uint32{5, 2, 1, 128, 1, 1, 4096}, gotShape)
	require.Equal(t, []float64{-1 << 40, -7, 0.25}, got)

	require.Zero(t, testing.AllocsPerRun(100, func() {
		a.Reset().Buffer(shape, 0).Int64(1).Int32(2).Float32(3).Buffer(results, 0)
		if err := s.Launch(f, LaunchConfig{}, &a); err != nil {
			t.Fatal(err)
		}
	}), "a launch allocates")

	const unfit = "cuda: launch: the arguments do not fit the kernel's parameters"
	require.PanicsWithValue(t, unfit, func() { _ = s.Launch(f, LaunchConfig{}, new(Args)) })
	require.PanicsWithValue(t, unfit, func() {
		_ = s.Launch(f, LaunchConfig{}, new(Args).Buffer(shape, 0).Int32(1).Int32(-7).Float32(0).Buffer(results, 0))
	})

	// Shared memory above 48 KB has to be allowed, up to the device's limit.
	const more = "cuda: launch: more shared memory than AllowShared allowed"
	require.PanicsWithValue(t, more, func() { _ = s.Launch(f, LaunchConfig{Shared: 64 << 10}, &a) })
	require.NoError(t, f.AllowShared(64<<10))
	require.NoError(t, s.Launch(f, LaunchConfig{Shared: 64 << 10}, &a))
	err = f.AllowShared(200 << 10)
	require.ErrorContains(t, err, "204800 bytes of shared memory, and the device allows 166912")

	info, err := f.Info()
	require.NoError(t, err)
	require.Equal(t, FunctionInfo{Registers: 226}, info)
	n, err := f.BlocksPerSM(128, 64<<10)
	require.NoError(t, err)
	require.Equal(t, 2, n)

	bad, err := m.Function("xfails", "")
	require.NoError(t, err)
	err = s.Launch(bad, LaunchConfig{}, new(Args))
	require.ErrorContains(t, err, "launch of xfails")
	require.ErrorIs(t, err, LaunchFailed)
}

func TestFakeModuleErrors(t *testing.T) {
	_, g := openFake(t)
	_, err := g.LoadModule("broken", "no directive")
	var l *LoadError
	require.ErrorAs(t, err, &l)
	require.Equal(t, "broken", l.Module)
	require.Contains(t, l.Log, "Missing .version directive at 'no direc'")
	require.ErrorIs(t, err, InvalidPTX)
	require.EqualError(t, err, "cuda: module broken: cuModuleLoadDataEx: error 218 CUDA_ERROR_INVALID_PTX: "+
		"ptxas application ptx input, line 1; fatal : Missing .version directive at 'no direc'")
	require.Contains(t, l.Log, "aborted", "the log is whole")

	m, err := g.LoadModule("test", argumentsPTX)
	require.NoError(t, err)
	_, err = m.Function("absent", "")
	require.ErrorContains(t, err, "module test, function absent")
	require.ErrorIs(t, err, NotFound)
	require.NoError(t, m.Close())
	require.PanicsWithValue(t, "cuda: use of a closed module", func() { _, _ = m.Function("arguments", "") })
}

// Goroutines move between threads; a context is current per thread.
func TestFakeManyGoroutines(t *testing.T) {
	d, err := Open(WithLibrary(fake(t)), WithLeakTracing())
	require.NoError(t, err)
	var g [2]*Device
	for i := range g {
		g[i], err = d.OpenDevice(i)
		require.NoError(t, err)
	}
	s, err := g[0].NewStream()
	require.NoError(t, err)
	b, err := g[0].Alloc(16 * 64)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			want, got := make([]byte, 64), make([]byte, 64)
			for round := range 50 {
				for j := range want {
					want[j] = byte(i*round + j)
				}
				errs := []error{s.Upload(b, i*64, want), g[1].Sync(), s.Download(got, b, i*64)}
				if err := errors.Join(errs...); err != nil || string(want) != string(got) {
					t.Errorf("goroutine %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(b.Free(), s.Close(), g[0].Close(), g[1].Close()))
	require.Empty(t, d.Leaks())
}

func TestFakeLeaksAreNamed(t *testing.T) {
	d, g := openFake(t)
	b, err := g.Alloc(100)
	require.NoError(t, err)
	leaks := d.Leaks()
	require.Len(t, leaks, 2) // the device, then the buffer
	require.Equal(t, "device", leaks[0].Kind)
	require.Contains(t, leaks[1].String(), "buffer of 100 bytes, made at\n")
	require.Contains(t, leaks[1].Stack, "TestFakeLeaksAreNamed")
	require.NoError(t, b.Free())
}

// The whole route that a product takes, with the embedded PTX and the committed
// Spec; only the device's arithmetic is the fake's.
func TestFakeGEMM(t *testing.T) {
	_, g := openFake(t)
	const m, n, k, ld = 3, 2, 5, 8
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	x, y := make([]uint16, m*ld), make([]uint16, n*ld)
	for i := range x {
		x[i] = half.BF16(float32(i%7) - 3)
	}
	for i := range y {
		y[i] = half.BF16(float32(i%5) - 2)
	}
	var bufs [3]*Buffer
	for i, size := range []int{4 * m * n, 2 * len(x), 2 * len(y)} {
		bufs[i], err = g.Alloc(size)
		require.NoError(t, err)
		defer bufs[i].Free()
	}
	require.NoError(t, s.Upload(bufs[1], 0, Bytes(x)))
	require.NoError(t, s.Upload(bufs[2], 0, Bytes(y)))
	p := kernels.Product{
		Op: kernels.Forward, Factors: kernels.BF16, Result: kernels.F32, M: m, N: n, K: k,
		A: kernels.Matrix{Addr: bufs[1].Ptr(0), Stride: ld}, B: kernels.Matrix{Addr: bufs[2].Ptr(0), Stride: ld},
		C: kernels.Matrix{Addr: bufs[0].Ptr(0), Stride: n},
	}
	l, err := p.Plan(kernels.Chip{Arch: kernels.Arch{Major: 8}, SMs: 1})
	require.NoError(t, err)
	mod, err := g.LoadModule(l.Spec.Module, l.Spec.PTX)
	require.NoError(t, err)
	defer mod.Close()
	f, err := mod.Function(l.Spec.Entry, l.Spec.Params)
	require.NoError(t, err)
	require.NoError(t, f.AllowShared(l.Spec.Shared))
	var a Args
	for i, kind := range l.Spec.Params {
		if kind == 'p' {
			a.Pointer(l.Args[i])
		} else {
			a.Int32(int32(l.Args[i]))
		}
	}
	c := LaunchConfig{Grid: [3]int{l.Grid}, Block: [3]int{l.Spec.Block}, Shared: l.Spec.Shared}
	require.NoError(t, s.Launch(f, c, &a))
	got := make([]float32, m*n)
	require.NoError(t, s.Download(Bytes(got), bufs[0], 0))
	for i := range m {
		for j := range n {
			var want float32
			for l := range k {
				want += half.FromBF16(x[i*ld+l]) * half.FromBF16(y[j*ld+l])
			}
			require.Equal(t, want, got[i*n+j])
		}
	}
}

// Every symbol that the header asks for is one that the fake offers too: so the
// tests above went through the real look-up, and a new symbol cannot be missed.
func TestFakeOffersEverySymbol(t *testing.T) {
	header, err := os.ReadFile("libcuda.h")
	require.NoError(t, err)
	source, err := os.ReadFile("testdata/fakecuda.c")
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(string(header)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "X(cu"); ok {
			name, _, _ = strings.Cut(name, ",")
			require.Contains(t, string(source), "int cu"+name+"(")
			n++
		}
	}
	require.Greater(t, n, 30)
}

func TestFakeTensorMap(t *testing.T) {
	_, g := openFake(t)
	s, err := g.NewStream()
	require.NoError(t, err)
	defer s.Close()
	m, err := g.LoadModule("test", argumentsPTX)
	require.NoError(t, err)
	defer m.Close()
	f, err := m.Function("maps", "ittp")
	require.NoError(t, err)
	out, err := g.Alloc(33 * 8)
	require.NoError(t, err)
	defer out.Free()

	x, err := g.TensorMap(Matrix{Ptr: 1 << 40, Columns: 896, Rows: 5, Stride: 904, BoxColumns: 64, BoxRows: 128})
	require.NoError(t, err)
	y, err := g.TensorMap(Matrix{Ptr: 32, Columns: 1, Rows: 1 << 20, Stride: 8, BoxColumns: 64, BoxRows: 64})
	require.NoError(t, err)
	var a Args
	require.NoError(t, s.Launch(f, LaunchConfig{}, a.Int32(-3).TensorMap(&x).TensorMap(&y).Buffer(out, 0)))
	got := make([]uint64, 33)
	require.NoError(t, s.Download(Bytes(got), out, 0))
	// Type bf16, rank, address, size, stride, box, steps; no interleaving, swizzle of
	// 128 bytes, promotion to 128, zeros outside.
	require.Equal(t, []uint64{9, 2, 1 << 40, 896, 5, 1808, 64, 128, 1, 1, 0, 3, 2, 0, 14, 15}, got[:16])
	require.Equal(t, []uint64{9, 2, 32, 1, 1 << 20, 16, 64, 64, 1, 1, 0, 3, 2, 0, 14, 15}, got[16:32])
	require.Equal(t, int32(-3), int32(got[32]))
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if err := s.Launch(f, LaunchConfig{}, a.Reset().Int32(1).TensorMap(&x).TensorMap(&y).Buffer(out, 0)); err != nil {
			t.Fatal(err)
		}
	}), "a launch allocates")

	_, err = g.TensorMap(Matrix{Ptr: 8, Columns: 64, Rows: 1, Stride: 64, BoxColumns: 64, BoxRows: 64})
	require.ErrorContains(t, err, "tensor map of {Ptr:8 Columns:64 ")
	require.PanicsWithValue(t, "cuda: tensor map: an empty matrix or box", func() { _, _ = g.TensorMap(Matrix{Ptr: 16, Columns: 64}) })
}
