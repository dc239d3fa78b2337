package cuda

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A machine without a GPU must get a clear reason; one with it, a device.
func TestProbeHere(t *testing.T) {
	infos, err := Probe()
	if err == nil {
		require.NotEmpty(t, infos)
		t.Log(infos)
		return
	}
	t.Log(err)
	var u *UnavailableError
	require.ErrorAs(t, err, &u)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.NotEmpty(t, u.Reason)
	require.NotContains(t, err.Error(), "\n")
}

func TestErrorTexts(t *testing.T) {
	e := &Error{Call: "cuMemAlloc_v2", Code: OutOfMemory, Name: "CUDA_ERROR_OUT_OF_MEMORY", Text: "out of memory"}
	require.EqualError(t, e, "cuda: cuMemAlloc_v2: error 2 CUDA_ERROR_OUT_OF_MEMORY (out of memory)")
	require.ErrorIs(t, e, OutOfMemory)
	require.NotErrorIs(t, e, InvalidValue)

	l := &LoadError{Module: "gemm", Log: "line 3: error\n", Err: e}
	require.EqualError(t, l, "cuda: module gemm: cuMemAlloc_v2: error 2 CUDA_ERROR_OUT_OF_MEMORY (out of memory): line 3: error")
	require.ErrorIs(t, l, OutOfMemory)

	old := &LoadError{Module: "gemm", Err: &Error{Call: "cuModuleLoadDataEx", Code: UnsupportedPTX}}
	require.EqualError(t, old, "cuda: module gemm: cuModuleLoadDataEx: error 222; the driver is too old for this PTX: update the NVIDIA driver to 525 or newer")
	old.Err = &Error{Call: "cuModuleLoadDataEx", Code: NoBinaryForGPU}
	require.ErrorContains(t, old, "compute capability 8.0")

	u := &UnavailableError{Reason: "r", Remedy: "do this", Err: e}
	require.EqualError(t, u, "cuda: no GPU can be used: r; do this")
	require.ErrorIs(t, u, errors.ErrUnsupported)
	require.ErrorIs(t, u, OutOfMemory)
	require.EqualError(t, &UnavailableError{Reason: "r"}, "cuda: no GPU can be used: r")
}

func TestInitFailures(t *testing.T) {
	for _, c := range []struct {
		code           Code
		reason, remedy string
	}{
		{NoDevice, "no device", "CUDA_VISIBLE_DEVICES"},
		{SystemDriverMismatch, "different versions", "restart"},
		{SystemNotReady, "not ready", "fabric manager"},
		{StubLibrary, "stub", "LD_LIBRARY_PATH"},
		{Unknown, "error 999", "nvidia-smi"},
	} {
		reason, remedy := initFailure(&Error{Call: "cuInit", Code: c.code})
		require.Contains(t, reason, c.reason)
		require.Contains(t, remedy, c.remedy)
	}
}

func TestDeviceVisible(t *testing.T) {
	root := t.TempDir()
	require.False(t, deviceVisible(root))
	pci := filepath.Join(root, "sys/bus/pci/devices/0000")
	require.NoError(t, os.MkdirAll(pci, 0o755))
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(pci, name), []byte(text), 0o644))
	}
	write("vendor", "0x10de\n")
	write("class", "0x040300\n") // a GPU's sound device alone
	require.False(t, deviceVisible(root))
	write("class", "0x030200\n")
	require.True(t, deviceVisible(root))
	write("vendor", "0x1002\n")
	require.False(t, deviceVisible(root))
	require.NoError(t, os.MkdirAll(filepath.Join(root, "dev"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "dev/nvidiactl"), nil, 0o644))
	require.True(t, deviceVisible(root))
}

func TestNoLibrary(t *testing.T) {
	root := t.TempDir()
	_, err := Open(WithLibrary(filepath.Join(root, "libcuda.so.1")), withRoot(root))
	var u *UnavailableError
	require.ErrorAs(t, err, &u)
	require.False(t, u.DeviceVisible)
	if !canLoad {
		return
	}
	require.Contains(t, u.Reason, "was not found")
	require.Contains(t, u.Remedy, "if this machine has an NVIDIA GPU")
	require.Contains(t, u.Remedy, LibraryEnv)

	// The same where a device is there is worth a warning with another remedy.
	require.NoError(t, os.MkdirAll(filepath.Join(root, "dev"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, "dev/nvidia0"), nil, 0o644))
	_, err = Open(WithLibrary(filepath.Join(root, "libcuda.so.1")), withRoot(root))
	require.ErrorAs(t, err, &u)
	require.True(t, u.DeviceVisible)
	require.Contains(t, u.Remedy, "--gpus all")

	// A file that is no library.
	bad := filepath.Join(root, "libcuda.so.1")
	require.NoError(t, os.WriteFile(bad, []byte("not a library, only a text that is long enough to be looked at"), 0o644))
	_, err = Open(WithLibrary(bad), withRoot(root))
	require.ErrorAs(t, err, &u)
	require.Contains(t, u.Reason, "cannot be loaded")
	require.NotContains(t, err.Error(), "\n")
}

func TestWithoutCgoSaysSo(t *testing.T) {
	if canLoad {
		t.Log("this build can load a driver; the other build's text is tested with CGO_ENABLED=0")
		return
	}
	_, err := Open()
	want := "built without cgo"
	if runtime.GOOS != "linux" {
		want = "on Linux only"
	}
	require.ErrorContains(t, err, want)
}

func TestBytes(t *testing.T) {
	b := Bytes([]uint16{0x0102, 0x0304})
	require.Equal(t, []byte{2, 1, 4, 3}, b)
	require.Empty(t, Bytes[float32](nil))
	require.Len(t, Bytes(make([]float64, 3)), 24)
}

func TestDeviceInfoString(t *testing.T) {
	s := DeviceInfo{Ordinal: 1, Name: "NVIDIA H100", Major: 9, SMs: 132, Memory: 80 << 30, DriverVersion: 12040}.String()
	require.Equal(t, "cuda:1 NVIDIA H100, compute capability 9.0, 132 SMs, 80.0 GiB, driver for CUDA 12.4", s)
	require.False(t, strings.Contains(s, "\n"))
}
