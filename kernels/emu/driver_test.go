package emu_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/kernels/emu"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

func library(t *testing.T) string { return probeLibrary(t, func(s string) string { return s }) }

// openWith opens the driver with settings as in the environment variable.
func openWith(t *testing.T, settings string) (*cuda.Driver, error) {
	t.Setenv(emu.Variable, settings)
	return cuda.Open(cuda.WithLibrary(library(t)), cuda.WithLeakTracing())
}

func device(t *testing.T, settings string) *cuda.Device {
	kerneltest.Open(t, library(t), emu.Mode{}).Close() // skips where nothing can be loaded
	d, err := openWith(t, settings)
	require.NoError(t, err)
	g, err := d.OpenDevice(0)
	require.NoError(t, err)
	t.Cleanup(func() { g.Close() })
	return g
}

func stream(t *testing.T, g *cuda.Device) *cuda.Stream {
	s, err := g.NewStream()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func alloc(t *testing.T, g *cuda.Device, size int) *cuda.Buffer {
	b, err := g.Alloc(size)
	require.NoError(t, err)
	t.Cleanup(func() { b.Free() })
	return b
}

func TestDriverSettings(t *testing.T) {
	g := device(t, "capability=8.6,devices=2,memory=100000,multiprocessors=7")
	info := g.Info()
	require.Equal(t, [4]int{8, 6, 7, 99 << 10}, [4]int{info.Major, info.Minor, info.SMs, info.SharedPerBlock})
	free, total, err := g.MemInfo()
	require.NoError(t, err)
	require.Equal(t, [2]uint64{100000, 100000}, [2]uint64{free, total})
	b := alloc(t, g, 60000)
	_, err = g.Alloc(60000)
	require.ErrorIs(t, err, cuda.OutOfMemory)
	free, _, err = g.MemInfo()
	require.NoError(t, err)
	require.Equal(t, uint64(40000), free)
	require.NoError(t, b.Free())
	alloc(t, g, 60000)

	for settings, reason := range map[string]string{
		"devices=0":     "finds no device",
		"version=11080": "CUDA 11.8",
		"init=803":      "different versions",
		"nonsense=1":    "invalid",
	} {
		_, err := openWith(t, settings)
		require.ErrorContains(t, err, reason, settings)
	}
	d, err := openWith(t, "devices=2")
	require.NoError(t, err)
	_, err = d.OpenDevice(2)
	require.ErrorIs(t, err, cuda.InvalidDevice)
}

func TestModules(t *testing.T) {
	for _, c := range []struct {
		settings, ptx string
		want          cuda.Code
	}{
		{"", probePTX("8.0", "sm_80"), 0},
		{"capability=9.0", probePTX("8.0", "sm_80"), 0},
		{"capability=9.0", probePTX("8.0", "sm_90a"), 0},
		{"", probePTX("8.0", "sm_86"), cuda.NoBinaryForGPU},
		{"capability=10.0", probePTX("8.0", "sm_90a"), cuda.NoBinaryForGPU},
		{"", probePTX("8.1", "sm_80"), cuda.UnsupportedPTX},
		{"version=12010", probePTX("8.1", "sm_80"), 0},
		{"", "no PTX", cuda.InvalidPTX},
		{"", ".version 8.0\n.target sm_80\n.visible .entry unknown(\n)\n{\n}\n", cuda.InvalidPTX},
		{"", ".version 8.0\n.target sm_80\n.visible .entry reverse(\n\t.param .u64 a\n)\n{\n}\n", cuda.InvalidPTX},
	} {
		g := device(t, c.settings)
		m, err := g.LoadModule("probe", c.ptx)
		if c.want == 0 {
			require.NoError(t, err, "%+v", c)
			_, err = m.Function("absent", "")
			require.ErrorIs(t, err, cuda.NotFound)
			require.NoError(t, m.Close())
		} else {
			require.ErrorIs(t, err, c.want, "%+v", c)
			var l *cuda.LoadError
			require.ErrorAs(t, err, &l)
			require.NotEmpty(t, l.Log)
		}
		require.NoError(t, g.Close())
	}
}

// reverse launches the kernel of that name on s.
func reverse(t *testing.T, g *cuda.Device, s *cuda.Stream, to, from *cuda.Buffer) error {
	spec := probe("reverse")
	m, err := g.Module("probe", spec.PTX)
	require.NoError(t, err)
	f, err := m.Function(spec.Entry, spec.Params)
	require.NoError(t, err)
	require.NoError(t, f.AllowShared(spec.Shared))
	n, err := f.BlocksPerSM(spec.Block, spec.Shared)
	require.NoError(t, err)
	require.Equal(t, 32, n)
	return s.Launch(f, cuda.LaunchConfig{Block: [3]int{spec.Block}, Shared: spec.Shared}, new(cuda.Args).Buffer(to, 0).Buffer(from, 0))
}

// With late streams nothing runs before it is waited for, and then in order; so a
// host that reads too early sees it.
func TestStreams(t *testing.T) {
	for _, late := range []bool{true, false} {
		g := device(t, map[bool]string{true: "streams=late", false: "streams=at-once"}[late])
		s, other := stream(t, g), stream(t, g)
		a, b := alloc(t, g, 256), alloc(t, g, 256)
		host, err := g.AllocHost(256)
		require.NoError(t, err)
		x := ramp(64)
		copy(host.Bytes(), cuda.Bytes(x))
		require.NoError(t, s.UploadAsync(a, 0, host, 0, 256))
		require.NoError(t, reverse(t, g, s, b, a))
		done, err := g.NewEvent()
		require.NoError(t, err)
		require.NoError(t, s.Record(done))
		require.NoError(t, other.Wait(done))
		clear(host.Bytes()) // while the upload may be under way: a mistake
		require.NoError(t, other.DownloadAsync(host, 0, b, 0, 256))
		require.Equal(t, late, host.Bytes()[0] == 0 && host.Bytes()[3] == 0, "late=%v", late)
		polls := 0
		for ok := false; !ok; polls++ {
			ok, err = done.Done()
			require.NoError(t, err)
		}
		require.Equal(t, late, polls > 1)
		require.NoError(t, other.Sync())
		want := byte(0)
		if !late {
			want = cuda.Bytes(x[63:])[3]
		}
		require.Equal(t, want, host.Bytes()[3])
		// The same without the mistake.
		require.NoError(t, s.Upload(a, 0, cuda.Bytes(x)))
		require.NoError(t, reverse(t, g, s, b, a))
		got := make([]float32, 64)
		require.NoError(t, s.Download(cuda.Bytes(got), b, 0))
		require.Equal(t, x[0], got[63])
		require.NoError(t, done.Close())
		require.NoError(t, host.Free())
		require.NoError(t, g.Close())
	}
}

func TestGraphs(t *testing.T) {
	g := device(t, "")
	s, other := stream(t, g), stream(t, g)
	a, b := alloc(t, g, 256), alloc(t, g, 256)
	fork, join, late := event(t, g), event(t, g), event(t, g)
	require.NoError(t, s.Upload(a, 0, cuda.Bytes(ramp(64))))
	graph, err := s.Capture(func() error {
		// A second stream takes part, and is joined again.
		require.NoError(t, s.Record(fork))
		require.NoError(t, other.Wait(fork))
		require.NoError(t, reverse(t, g, other, b, a))
		require.NoError(t, other.Record(join))
		require.NoError(t, s.Wait(join))
		require.Error(t, s.Sync(), "a capture is not waited for")
		_, err := join.Done()
		require.Error(t, err)
		return s.Copy(a, 0, b, 0, 256)
	})
	require.NoError(t, err)
	require.Equal(t, 2, graph.Nodes())
	got := make([]float32, 64)
	first := func() float32 {
		require.NoError(t, s.Download(cuda.Bytes(got), a, 0))
		return got[0]
	}
	x := ramp(64)
	require.Equal(t, x[0], first(), "nothing has run")
	require.NoError(t, s.LaunchGraph(graph))
	require.Equal(t, x[63], first())
	require.NoError(t, s.LaunchGraph(graph))
	require.Equal(t, x[0], first())
	require.NoError(t, graph.Close())

	_, err = s.Capture(func() error {
		require.NoError(t, s.Record(fork))
		require.NoError(t, other.Wait(fork))
		return other.Fill(b, 0, 256, 0) // never joined
	})
	require.ErrorContains(t, err, "UNJOINED")
	require.NoError(t, other.Sync())
	require.NoError(t, s.Record(late))
	_, err = s.Capture(func() error {
		require.NoError(t, other.Record(late))
		return s.Wait(late) // on work outside of the capture
	})
	require.Error(t, err)
	require.NoError(t, s.Sync())
}

func event(t *testing.T, g *cuda.Device) *cuda.Event {
	e, err := g.NewEvent()
	require.NoError(t, err)
	t.Cleanup(func() { e.Close() })
	return e
}

// A failed launch fails every call after it, until the context is made anew.
func TestFailures(t *testing.T) {
	g := device(t, "fail-launch=2,fail-allocation=3")
	s := stream(t, g)
	a, b := alloc(t, g, 256), alloc(t, g, 256)
	_, err := g.Alloc(256)
	require.ErrorIs(t, err, cuda.OutOfMemory)
	alloc(t, g, 256)
	require.NoError(t, s.Fill(a, 0, 256, 0))
	require.NoError(t, reverse(t, g, s, b, a))
	require.NoError(t, s.Sync())
	require.NoError(t, reverse(t, g, s, b, a), "a launch does not wait")
	require.ErrorContains(t, s.Sync(), "kernel reverse: made to fail")
	require.ErrorIs(t, s.Sync(), cuda.LaunchFailed)
	require.ErrorIs(t, s.Fill(a, 0, 256, 0), cuda.LaunchFailed)
	_, err = g.Alloc(1)
	require.ErrorIs(t, err, cuda.LaunchFailed)
	require.ErrorIs(t, g.Close(), cuda.LaunchFailed, "the modules cannot be unloaded; the context ends all the same")

	g = device(t, "")
	s = stream(t, g)
	b = alloc(t, g, 256)
	require.NoError(t, s.Fill(b, 0, 256, 0))
	require.NoError(t, s.Sync())
	_, err = openWith(t, "retain=2")
	require.NoError(t, err)
	d, err := openWith(t, "retain=2,devices=2")
	require.NoError(t, err)
	_, err = d.OpenDevice(1)
	require.ErrorIs(t, err, cuda.OutOfMemory)
}

// What was freed is nobody's: a kernel that uses it is told.
func TestUseAfterFree(t *testing.T) {
	g := device(t, "")
	s := stream(t, g)
	a, b := alloc(t, g, 256), alloc(t, g, 256)
	require.NoError(t, s.Fill(a, 0, 256, 0))
	spec := probe("reverse")
	m, err := g.Module("probe", spec.PTX)
	require.NoError(t, err)
	f, err := m.Function(spec.Entry, spec.Params)
	require.NoError(t, err)
	args := new(cuda.Args).Buffer(b, 0).Buffer(a, 0)
	require.NoError(t, a.Free())
	require.NoError(t, s.Launch(f, cuda.LaunchConfig{Block: [3]int{spec.Block}, Shared: spec.Shared}, args))
	require.ErrorContains(t, s.Sync(), "outside of device memory")
}

// Settings are read when a device is opened, and a change of the sources makes
// another library.
func TestLibraryIsCached(t *testing.T) {
	first := library(t)
	info, err := os.Stat(first)
	require.NoError(t, err)
	require.Equal(t, first, library(t))
	again, err := os.Stat(first)
	require.NoError(t, err)
	require.Equal(t, info.Size(), again.Size())
	require.NotEqual(t, first, probeLibrary(t, func(s string) string { return s + "\n// changed" }))
	_, err = emu.Library(emu.Options{Sources: "testdata", Edit: func(_, s string) string { return s + "\nnonsense" }})
	require.ErrorContains(t, err, "probe.cu")
	_, err = emu.Library(emu.Options{Sources: "testdata", Modules: []string{"absent"}})
	require.ErrorContains(t, err, "absent")
}

func TestModeString(t *testing.T) {
	m := emu.Mode{Landing: emu.AtOnce, Seed: 3, Resident: 2, Capability: "9.0", Memory: 5, CutSums: true, FailOnConflicts: true, Extra: "devices=2"}
	require.Equal(t, "landing=at-once,seed=3,resident=2,capability=9.0,memory=5,mma=cut,bank-conflicts=fail,devices=2", fmt.Sprint(m))
	require.Empty(t, emu.Mode{}.String())
}

// A device that is closed leaves none of its stacks in the process's address space:
// each takes two mappings, of which a process may have 65,530, and a test of many
// defects has a library for each.
func TestStacksAreGivenBack(t *testing.T) {
	mappings := func() int {
		b, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		return strings.Count(string(b), "\n")
	}
	lib := library(t)
	kerneltest.Open(t, lib, emu.Mode{}).Close() // what stays of the library is there
	before := mappings()
	for range 2 {
		d := kerneltest.Open(t, lib, emu.Mode{})
		require.NoError(t, checks["vectors"](d))
		require.Greater(t, mappings(), before+50)
		d.Close()
		require.Less(t, mappings(), before+25)
	}
}
