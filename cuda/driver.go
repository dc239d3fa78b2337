package cuda

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// MinDriverVersion is the least CUDA version, as the driver states it, that this
// package works with: 12.0, which is the NVIDIA driver 525. It is the first to
// load PTX of ISA 8.0, which package kernels holds.
const MinDriverVersion = 12000

// LibraryEnv names the environment variable that holds the path of the driver
// library where it lies in an unusual place.
const LibraryEnv = "UPDRAFT_LIBCUDA"

const (
	remedyInstall = "if this machine has an NVIDIA GPU, install its driver, 525 or newer, or name its library in " + LibraryEnv
	remedyUpdate  = "update the NVIDIA driver to 525 or newer"
	remedyHidden  = "an NVIDIA device is there: install its driver, 525 or newer, name its library in " + LibraryEnv + ", or give the container access to it (docker run --gpus all)"
)

// Driver is the opened driver library. It holds no device and needs no closing.
type Driver struct {
	api     api
	version int
	leaks   *tracker
	calls   *callCounts
}

// Option changes what Open does.
type Option func(*config)

type config struct {
	paths []string
	root  string // of the file system in which devices are looked for
	trace bool
	count bool
}

// WithLeakTracing makes the driver record, for everything that has to be freed,
// where it was made. It costs a stack trace for each; tests want it.
func WithLeakTracing() Option { return func(c *config) { c.trace = true } }

// WithCallCounts makes the driver count its calls, for Driver.CallCounts.
func WithCallCounts() Option { return func(c *config) { c.count = true } }

// WithLibrary makes Open load one library and look for no other.
func WithLibrary(path string) Option { return func(c *config) { c.paths = []string{path} } }

// withRoot makes Open look for device files under another directory.
func withRoot(dir string) Option { return func(c *config) { c.root = dir } }

// Open loads the driver and starts it. Where no GPU can be used the error is an
// *UnavailableError. Opening twice is allowed and gives two equal drivers.
func Open(opts ...Option) (*Driver, error) {
	c := config{paths: libraryPaths(), root: "/"}
	if path := os.Getenv(LibraryEnv); path != "" {
		c.paths = []string{path}
	}
	for _, o := range opts {
		o(&c)
	}
	a, missing := load(c.paths)
	if missing != nil {
		missing.DeviceVisible = deviceVisible(c.root)
		if missing.DeviceVisible && missing.Remedy == remedyInstall {
			missing.Remedy = remedyHidden
		}
		return nil, missing
	}
	d := &Driver{api: a, leaks: newTracker(c.trace), calls: newCallCounts(c.count)}
	fail := func(reason, remedy string, err error) (*Driver, error) {
		return nil, &UnavailableError{Reason: reason, Remedy: remedy, DeviceVisible: deviceVisible(c.root), Err: err}
	}
	if err := d.check("cuInit", a.cuInit()); err != nil {
		reason, remedy := initFailure(err)
		return fail(reason, remedy, err)
	}
	v, code := a.cuDriverGetVersion()
	if err := d.check("cuDriverGetVersion", code); err != nil {
		return fail(err.Error(), remedyUpdate, err)
	}
	d.version = v
	if v < MinDriverVersion {
		return fail(fmt.Sprintf("the driver supports CUDA %s, and %s is needed", versionText(v), versionText(MinDriverVersion)), remedyUpdate, nil)
	}
	n, err := d.DeviceCount()
	if err != nil {
		return fail(err.Error(), remedyUpdate, err)
	}
	if n == 0 {
		reason, remedy := initFailure(NoDevice)
		return fail(reason, remedy, NoDevice)
	}
	return d, nil
}

// initFailure puts the start's failures that users meet into words.
func initFailure(err error) (reason, remedy string) {
	switch {
	case errors.Is(err, NoDevice):
		return "the driver is there and finds no device", "check CUDA_VISIBLE_DEVICES and nvidia-smi"
	case errors.Is(err, SystemDriverMismatch):
		return "the driver library and the driver in the kernel are of different versions",
			"restart the machine after the driver's update, or match the container's to the host's"
	case errors.Is(err, SystemNotReady):
		return "the driver says that the system is not ready", "start the NVIDIA fabric manager (nvidia-fabricmanager)"
	case errors.Is(err, StubLibrary):
		return "libcuda.so.1 is the toolkit's stub, not a driver", "take the toolkit's stubs directory off LD_LIBRARY_PATH"
	}
	return "the driver does not start: " + strings.TrimPrefix(err.Error(), "cuda: "), "see what nvidia-smi says"
}

// deviceVisible looks for signs of an NVIDIA device that need no driver library:
// device files, or a display controller with NVIDIA's PCI vendor number.
func deviceVisible(root string) bool {
	for _, p := range []string{"dev/nvidiactl", "dev/nvidia0", "proc/driver/nvidia/version"} {
		if _, err := os.Stat(filepath.Join(root, p)); err == nil {
			return true
		}
	}
	vendors, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*/vendor"))
	for _, v := range vendors {
		vendor, _ := os.ReadFile(v)
		class, _ := os.ReadFile(filepath.Join(filepath.Dir(v), "class"))
		if strings.TrimSpace(string(vendor)) == "0x10de" && strings.HasPrefix(string(class), "0x03") {
			return true
		}
	}
	return false
}

// versionText turns 12040 into "12.4".
func versionText(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }

// check turns a result code into an error, nil for success.
func (d *Driver) check(call string, c Code) error {
	d.calls.add(call)
	if c == 0 {
		return nil
	}
	return &Error{Call: call, Code: c, Name: d.api.cuGetErrorName(c), Text: d.api.cuGetErrorString(c)}
}

// Version returns the CUDA version that the driver supports, for example 12040.
func (d *Driver) Version() int { return d.version }

// DeviceCount returns the number of devices that the driver shows.
func (d *Driver) DeviceCount() (int, error) {
	n, code := d.api.cuDeviceGetCount()
	return n, d.check("cuDeviceGetCount", code)
}

// DeviceInfo describes a device.
type DeviceInfo struct {
	Ordinal        int    `json:"ordinal"`
	Name           string `json:"name"`
	Major          int    `json:"compute_major"` // of the compute capability
	Minor          int    `json:"compute_minor"`
	SMs            int    `json:"sms"`          // multiprocessors
	Memory         uint64 `json:"memory_bytes"` // in all
	L2             int    `json:"l2_bytes"`     // level-2 cache
	SharedPerBlock int    `json:"shared_bytes"` // shared memory that one block can have, opted in
	ClockKHz       int    `json:"clock_khz"`    // peak
	Exclusive      bool   `json:"exclusive"`    // compute mode: one process at a time
	DriverVersion  int    `json:"cuda_version"` // as Driver.Version
}

// String is one line for people.
func (i DeviceInfo) String() string {
	return fmt.Sprintf("cuda:%d %s, compute capability %d.%d, %d SMs, %.1f GiB, driver for CUDA %s",
		i.Ordinal, i.Name, i.Major, i.Minor, i.SMs, float64(i.Memory)/(1<<30), versionText(i.DriverVersion))
}

// Info describes device ordinal, without starting a context on it.
func (d *Driver) Info(ordinal int) (DeviceInfo, error) {
	i := DeviceInfo{Ordinal: ordinal, DriverVersion: d.version}
	dev, err := d.device(ordinal)
	if err != nil {
		return i, err
	}
	var code Code
	if i.Name, code = d.api.cuDeviceGetName(dev); code != 0 {
		return i, d.check("cuDeviceGetName", code)
	}
	if i.Memory, code = d.api.cuDeviceTotalMem(dev); code != 0 {
		return i, d.check("cuDeviceTotalMem_v2", code)
	}
	for _, a := range []struct {
		attr int
		to   *int
	}{
		{attrMajor, &i.Major}, {attrMinor, &i.Minor}, {attrMultiprocessorCount, &i.SMs},
		{attrL2CacheSize, &i.L2}, {attrMaxSharedPerBlockOptin, &i.SharedPerBlock}, {attrClockRate, &i.ClockKHz},
	} {
		if *a.to, code = d.api.cuDeviceGetAttribute(a.attr, dev); code != 0 {
			return i, d.check("cuDeviceGetAttribute", code)
		}
	}
	mode, code := d.api.cuDeviceGetAttribute(attrComputeMode, dev)
	i.Exclusive = mode == computeModeExclusive
	return i, d.check("cuDeviceGetAttribute", code)
}

func (d *Driver) device(ordinal int) (int32, error) {
	dev, code := d.api.cuDeviceGet(ordinal)
	if err := d.check("cuDeviceGet", code); err != nil {
		n, countErr := d.DeviceCount()
		switch {
		case countErr != nil:
			return 0, err
		case n == 1:
			return 0, fmt.Errorf("cuda: there is no device %d; the only one is 0: %w", ordinal, err)
		}
		return 0, fmt.Errorf("cuda: there is no device %d; there are 0 to %d: %w", ordinal, n-1, err)
	}
	return dev, nil
}

// Probe describes every device of this machine. Where there is none that can be
// used, the error is an *UnavailableError whose text is one line for people.
func Probe(opts ...Option) ([]DeviceInfo, error) {
	d, err := Open(opts...)
	if err != nil {
		return nil, err
	}
	n, err := d.DeviceCount()
	if err != nil {
		return nil, err
	}
	infos := make([]DeviceInfo, n)
	for i := range infos {
		if infos[i], err = d.Info(i); err != nil {
			return nil, err
		}
	}
	return infos, nil
}
