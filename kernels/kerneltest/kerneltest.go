// Package kerneltest runs kernels in tests, on the emulated driver (package emu),
// through the same route as on a GPU: the embedded PTX is loaded, the Spec says
// the shape of the launch, package cuda launches. It is for tests alone.
//
// A kernel's test is a function that computes something on a Device and compares
// it, returning an error; EachMode runs it in every mode of the emulator, and
// Defects requires that it fails for broken variants of the kernel's source:
//
//	func checkScale(d *kerneltest.Device) error {
//		in, out := kerneltest.In(d, []float32{1, 2, 3}), d.Out(4*3)
//		if err := d.Launch(kernels.Scale().Spec, [3]int{1}, out, in, 3); err != nil {
//			return err
//		}
//		return compare(kerneltest.Values[float32](d, out))
//	}
//
//	func TestScale(t *testing.T) { kerneltest.EachMode(t, checkScale) }
//
//	func TestScaleDefects(t *testing.T) {
//		kerneltest.Defects(t, "scale", []kerneltest.Defect{
//			{Name: "edge off by one", Old: "i < n", New: "i <= n"},
//		}, checkScale)
//	}
//
// Every buffer is exactly as large as asked for, between guard zones that the
// emulator checks after each launch; outputs start as NaN.
package kerneltest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/emu"
)

// Library builds the emulated driver or skips the test where that cannot be.
func Library(t testing.TB, o emu.Options) string {
	t.Helper()
	path, err := emu.Library(o)
	if errors.Is(err, errors.ErrUnsupported) {
		testx.Have(t, "c++", false)
	}
	require.NoError(t, err)
	return path
}

// EachMode runs check in every mode of emu.Modes, and requires that it passes.
// Settings, if given, are added to each mode.
func EachMode(t *testing.T, check func(*Device) error, settings ...string) {
	t.Helper()
	library := Library(t, emu.Options{})
	for _, m := range emu.Modes() {
		m.Extra = strings.Join(settings, ",")
		d := Open(t, library, m)
		require.NoError(t, check(d), "mode %q", m)
		d.Close()
	}
}

// Defect is a mistake to sow into a kernel: Old, which occurs once in the
// source, becomes New.
type Defect struct{ Name, Old, New string }

// Defects requires of each defect in module's source, headers included, that check
// fails in one of the modes at least.
func Defects(t *testing.T, module string, defects []Defect, check func(*Device) error, settings ...string) {
	t.Helper()
	DefectsIn(t, module, Source(t, module), defects, check, settings...)
}

// Source returns the text of a module with the headers that it shares with others
// in their places; device.cuh and hopper.cuh, which are not kernels' own, stay
// included.
func Source(t testing.TB, module string) string {
	t.Helper()
	seen := map[string]bool{"device.cuh": true, "hopper.cuh": true}
	var text strings.Builder
	var add func(name string)
	add = func(name string) {
		src, err := os.ReadFile(filepath.Join(kernelDir(t), name))
		require.NoError(t, err)
		for line := range strings.Lines(string(src)) {
			header, ok := strings.CutPrefix(strings.TrimSpace(line), `#include "`)
			header = strings.TrimSuffix(header, `"`)
			switch {
			case ok && !seen[header]:
				seen[header] = true
				add(header)
			case ok && header != "device.cuh" && header != "hopper.cuh": // here already
			case line != "#pragma once\n":
				text.WriteString(line)
			}
		}
	}
	add(module + ".cu")
	return text.String()
}

// DefectsIn is Defects in a text that stands for the module's source: one from which
// entry points that check does not use are left out compiles faster. Where check
// launches kernels of further modules, they follow in module, after spaces. With
// -short every fourth defect is sown.
func DefectsIn(t *testing.T, module, source string, defects []Defect, check func(*Device) error, settings ...string) {
	t.Helper()
	modules := strings.Fields(module)
	// A defect may leave a name unused, and is to compile all the same.
	source = "#pragma GCC diagnostic ignored \"-Wunused-variable\"\n#pragma GCC diagnostic ignored \"-Wunused-parameter\"\n#pragma GCC diagnostic ignored \"-Wunused-but-set-variable\"\n" + source
	attempt := func(t *testing.T, text string) (err error) {
		library := Library(t, emu.Options{Modules: modules, Edit: func(module, own string) string {
			if module != modules[0] {
				return own
			}
			return text
		}})
		for _, m := range emu.Modes() {
			m.Extra = strings.Join(settings, ",")
			device := Open(t, library, m)
			err = check(device)
			device.Close()
			if err != nil {
				break
			}
		}
		return err
	}
	require.NoError(t, attempt(t, source), "the check fails without any defect")
	for i, d := range defects {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(d.Name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(source, d.Old), "the defect does not apply: %s", d.Old)
			err := attempt(t, strings.Replace(source, d.Old, d.New, 1))
			require.Error(t, err, "the defect was not caught")
			t.Log(err)
		})
	}
}

func kernelDir(t testing.TB) string {
	dir, err := emu.KernelDir()
	require.NoError(t, err)
	return dir
}

// Device is an emulated device. Its methods end the test when the driver fails,
// but for Launch, whose errors are the kernel's.
type Device struct {
	t         testing.TB
	device    *cuda.Device
	stream    *cuda.Stream
	modules   map[string]*cuda.Module
	functions map[string]*cuda.Function
	buffers   []*Buffer
	failed    bool // by a launch: nothing works any more
}

// Open opens device 0 of an emulated driver, until Close or the test's end. The
// mode is in the environment from then on, so tests that use it are not parallel.
func Open(t testing.TB, library string, m emu.Mode) *Device {
	t.Helper()
	require.NoError(t, os.Setenv(emu.Variable, m.String()))
	driver, err := cuda.Open(cuda.WithLibrary(library))
	var none *cuda.UnavailableError
	if errors.As(err, &none) && strings.Contains(none.Reason, "without cgo") {
		testx.Have(t, "cgo", false)
	}
	require.NoError(t, err)
	d := &Device{t: t, modules: map[string]*cuda.Module{}, functions: map[string]*cuda.Function{}}
	d.device, err = driver.OpenDevice(0)
	require.NoError(t, err)
	d.stream, err = d.device.NewStream()
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return d
}

// CUDA returns the device, for what this package does not offer.
func (d *Device) CUDA() *cuda.Device { return d.device }

// Close frees everything. A second Close does nothing.
func (d *Device) Close() {
	if d.device == nil {
		return
	}
	var errs []error
	for _, b := range d.buffers {
		errs = append(errs, b.memory.Free())
	}
	for _, m := range d.modules {
		errs = append(errs, m.Close())
	}
	errs = append(errs, d.stream.Close(), d.device.Close())
	d.device = nil
	if !d.failed {
		require.NoError(d.t, errors.Join(errs...))
	}
}

// Buffer is device memory.
type Buffer struct {
	memory   *cuda.Buffer
	constant []byte // what it must still hold after a launch, or nil
	offset   int
}

// At returns the buffer from a byte offset on, as an argument of Launch.
func (b *Buffer) At(offset int) *Buffer { return &Buffer{memory: b.memory, offset: b.offset + offset} }

// Addr returns the buffer's address, for plans of launches.
func (b *Buffer) Addr() uint64 { return b.memory.Ptr(b.offset) }

// In makes a buffer with the contents of slice, a []T of a fixed-size T. A launch
// that changes it is an error.
func In[T cuda.Scalar](d *Device, slice []T) *Buffer {
	b := InOut(d, slice)
	b.constant = bytes.Clone(cuda.Bytes(slice))
	return b
}

// InOut makes a buffer with the contents of slice, which launches may change.
func InOut[T cuda.Scalar](d *Device, slice []T) *Buffer {
	d.t.Helper()
	b := d.Out(max(1, len(cuda.Bytes(slice))))
	require.NoError(d.t, d.stream.Upload(b.memory, 0, cuda.Bytes(slice)))
	return b
}

// Out makes a buffer of a size in bytes, of NaN.
func (d *Device) Out(size int) *Buffer {
	d.t.Helper()
	m, err := d.device.Alloc(size)
	require.NoError(d.t, err)
	b := &Buffer{memory: m}
	d.buffers = append(d.buffers, b)
	return b
}

// Values returns the contents of a buffer as a slice of T.
func Values[T cuda.Scalar](d *Device, b *Buffer) []T {
	d.t.Helper()
	var zero T
	v := make([]T, (b.memory.Size()-b.offset)/int(unsafe.Sizeof(zero)))
	require.NoError(d.t, d.stream.Download(cuda.Bytes(v), b.memory, b.offset))
	return v
}

// LaunchPlanned is Launch for a planned launch.
func (d *Device) LaunchPlanned(l kernels.Launch) error {
	d.t.Helper()
	var arguments []any
	for i := range l.Spec.Params {
		if l.Spec.Params[i] != 't' {
			arguments = append(arguments, l.Args[i])
			continue
		}
		m := l.Maps[l.Args[i]]
		t, err := d.device.TensorMap(cuda.Matrix{Ptr: m.Addr, Columns: m.Columns, Rows: m.Rows, Stride: m.Stride,
			BoxColumns: m.BoxColumns, BoxRows: m.BoxRows})
		require.NoError(d.t, err, "%s", l.Spec.Entry)
		arguments = append(arguments, &t)
	}
	return d.Launch(*l.Spec, [3]int{l.Grid}, arguments...)
}

// Launch runs an entry point and waits for it. Arguments are *Buffer (nil: a null
// pointer), int, int32, int64, uint64 (an address too), float32 or float64,
// converted to what s.Params says. It returns what the kernel did wrong.
func (d *Device) Launch(s kernels.Spec, grid [3]int, arguments ...any) error {
	d.t.Helper()
	f := d.function(s)
	require.Len(d.t, arguments, len(s.Params), "%s: arguments for parameters %q", s.Entry, s.Params)
	var a cuda.Args
	for i, x := range arguments {
		d.argument(&a, s, i, x)
	}
	err := d.stream.Launch(f, cuda.LaunchConfig{Grid: grid, Block: [3]int{s.Block}, Shared: s.Shared}, &a)
	if err == nil {
		err = d.stream.Sync()
	}
	if err != nil {
		d.failed = true
		return err
	}
	for _, b := range d.buffers {
		if b.constant != nil && !bytes.Equal(b.constant, Values[byte](d, b)[:len(b.constant)]) {
			return fmt.Errorf("%s changed a buffer of %d bytes that it may only read", s.Entry, len(b.constant))
		}
	}
	return nil
}

func (d *Device) argument(a *cuda.Args, s kernels.Spec, i int, x any) {
	d.t.Helper()
	integer := func(v int64) {
		switch s.Params[i] {
		case 'i':
			require.True(d.t, v >= -1<<31 && v < 1<<32, "%s: argument %d: %d does not fit 32 bits", s.Entry, i, v)
			a.Int32(int32(v))
		case 'l':
			a.Int64(v)
		default:
			d.t.Fatalf("%s: argument %d is an integer, parameter %q", s.Entry, i, s.Params[i])
		}
	}
	switch v := x.(type) {
	case *Buffer:
		if v == nil {
			a.Pointer(0)
		} else {
			a.Buffer(v.memory, v.offset)
		}
	case *cuda.TensorMap:
		a.TensorMap(v)
	case nil:
		a.Pointer(0)
	case bool:
		n := int64(0)
		if v {
			n = 1
		}
		integer(n)
	case int:
		integer(int64(v))
	case int32:
		integer(int64(v))
	case uint32:
		integer(int64(v))
	case int64:
		integer(v)
	case uint64:
		if s.Params[i] == 'p' {
			a.Pointer(v)
		} else {
			integer(int64(v))
		}
	case float32:
		a.Float32(v)
	case float64:
		a.Float32(float32(v))
	default:
		d.t.Fatalf("%s: argument %d: %T", s.Entry, i, x)
	}
}

func (d *Device) function(s kernels.Spec) *cuda.Function {
	d.t.Helper()
	if f := d.functions[s.Entry]; f != nil {
		return f
	}
	m := d.modules[s.Module]
	if m == nil {
		var err error
		m, err = d.device.LoadModule(s.Module, s.PTX)
		require.NoError(d.t, err)
		d.modules[s.Module] = m
	}
	f, err := m.Function(s.Entry, s.Params)
	require.NoError(d.t, err)
	require.NoError(d.t, f.AllowShared(s.Shared))
	d.functions[s.Entry] = f
	return f
}
