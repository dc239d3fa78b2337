package gpu

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/updraft-ml/updraft/cuda"
	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/kernels"
)

// Options configures New.
type Options struct {
	// Device is the device's number, from 0.
	Device int
	// Driver is the driver to use. nil opens one: Library, or the machine's.
	Driver *cuda.Driver
	// Library is the path of a driver library; "" looks where drivers are.
	Library string
	// NoSM90a leaves out the kernels that only a Hopper GPU runs, so that one runs
	// what every GPU since Ampere runs.
	NoSM90a bool
	// Logger receives what is worth knowing at start; nil for silence.
	Logger *slog.Logger
}

// MinArch is the least compute capability that the kernels run on.
var MinArch = kernels.Arch{Major: 8, Minor: 0}

// Backend computes on one GPU. See engine.Backend for its methods' contract. It
// is not safe for concurrent use; several Backends, on one device or on several,
// are.
type Backend struct {
	driver *cuda.Driver
	dev    *cuda.Device
	stream *cuda.Stream
	pool   *cuda.Pool
	info   cuda.DeviceInfo
	sm90a  bool // use the kernels made for it
	chip   kernels.Chip

	functions  map[string]*cuda.Function
	args       cuda.Args // of the launch being put together
	tensorMaps map[kernels.Map]*cuda.TensorMap
	next       command // what is being submitted; a recording copies it

	up, down *staging
	issued   engine.Ticket
	tables   tables
	scratch  scratch
	turns    scratch // counters, zero between launches
	decode   decodePlan

	decodeRows int // of one plan; less than maxDecodeRows in tests
	flat       int // elements of a dense tensor that one launch takes; fewer in tests

	attentions map[attentionKey]*kernels.Attention
	moments    []int32 // see momentTable; nil until used

	recording *program
	programs  []*program // not yet dropped
	live      map[*buffer]struct{}

	failure error  // the first since the last Sync or Wait
	latest  string // the operation issued last, for errors that show late
	closed  bool
}

var _ engine.Backend = (*Backend)(nil)

// New starts a backend on a device. Where no GPU can be used, the error is a
// *cuda.UnavailableError. Close gives everything back.
func New(o Options) (*Backend, error) {
	drv := o.Driver
	if drv == nil {
		var opts []cuda.Option
		if o.Library != "" {
			opts = append(opts, cuda.WithLibrary(o.Library))
		}
		var err error
		if drv, err = cuda.Open(opts...); err != nil {
			return nil, err
		}
	}
	info, err := drv.Info(o.Device)
	if err != nil {
		return nil, err
	}
	if err := usable(info); err != nil {
		return nil, err
	}
	dev, err := drv.OpenDevice(o.Device)
	if err != nil {
		return nil, err
	}
	stream, err := dev.NewStream()
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	b := &Backend{
		driver: drv, dev: dev, stream: stream, pool: dev.NewPool(), info: info, sm90a: hopper(info) && !o.NoSM90a,
		functions: map[string]*cuda.Function{}, live: map[*buffer]struct{}{},
		decodeRows: maxDecodeRows, flat: maxFlat, attentions: map[attentionKey]*kernels.Attention{},
		up: newStaging(dev, stream), down: newStaging(dev, stream),
	}
	b.chip = kernels.Chip{Arch: kernels.Arch{Major: info.Major, Minor: info.Minor}, SMs: info.SMs}
	if b.sm90a {
		b.chip.Family = kernels.WGMMA
	}
	if o.Logger != nil {
		o.Logger.Debug("gpu backend started", "device", info.String(), "sm_90a", b.sm90a)
	}
	return b, nil
}

// usable returns an error where the kernels do not run on a device.
func usable(i cuda.DeviceInfo) error {
	if (kernels.Arch{Major: i.Major, Minor: i.Minor}).AtLeast(MinArch) {
		return nil
	}
	return &cuda.UnavailableError{
		Reason: fmt.Sprintf("device %d (%s) has compute capability %d.%d, and the kernels need %d.%d (Ampere) or later",
			i.Ordinal, i.Name, i.Major, i.Minor, MinArch.Major, MinArch.Minor),
		Remedy: "take another device, or the CPU", DeviceVisible: true,
	}
}

// hopper reports whether a device runs sm_90a code: the suffix means that no
// other architecture does, later ones included.
func hopper(i cuda.DeviceInfo) bool { return i.Major == 9 && i.Minor == 0 }

// Kernels names the kernels that a backend on a device computes with, or returns
// the error that New would.
func Kernels(i cuda.DeviceInfo) (string, error) { return kernelNames(hopper(i)), usable(i) }

func kernelNames(sm90a bool) string {
	if sm90a {
		return "sm_90a and sm_80 kernels"
	}
	return "sm_80 kernels"
}

// Name says which device computes with which kernels.
func (b *Backend) Name() string {
	return fmt.Sprintf("cuda:%d (%s, %s)", b.info.Ordinal, b.info.Name, kernelNames(b.sm90a))
}

// Device describes the device.
func (b *Backend) Device() cuda.DeviceInfo { return b.info }

// Memory returns the device's free and total memory in bytes; what the backend
// keeps for later allocations counts as free.
func (b *Backend) Memory() (free, total uint64, err error) {
	free, total, err = b.dev.MemInfo()
	return free + uint64(b.pool.Cached()), total, err
}

// Precision says that activations have the type of the weights.
func (b *Backend) Precision(weights engine.DType) (engine.DType, error) {
	if weights != engine.F32 && weights != engine.BF16 {
		return 0, fmt.Errorf("gpu: weights in %v: the GPU computes with F32 and BF16: %w", weights, errors.ErrUnsupported)
	}
	return weights, nil
}

// Async says that operations are carried out after their calls have returned.
func (b *Backend) Async() bool { return true }

// fail keeps the first failure, named after the operation.
func (b *Backend) fail(op string, err error) {
	if err != nil && b.failure == nil {
		b.failure = fmt.Errorf("gpu: %s: %w", op, err)
	}
}

// late keeps a failure that showed while waiting: it is of some operation issued
// before.
func (b *Backend) late(err error) {
	if err == nil || b.failure != nil {
		return
	}
	b.failure = fmt.Errorf("gpu: in %s or an operation before it (CUDA_LAUNCH_BLOCKING=1 in the environment tells which): %w", b.latest, err)
}

// take returns the first failure since it was last called.
func (b *Backend) take() error {
	err := b.failure
	b.failure = nil
	return err
}

var errClosed = errors.New("gpu: backend is closed")

// Sync waits for everything submitted.
func (b *Backend) Sync() error {
	if b.closed {
		return errClosed
	}
	b.late(b.stream.Sync())
	b.late(b.down.drain(b.issued))
	return b.take()
}

// Wait waits until the download of t has come.
func (b *Backend) Wait(t engine.Ticket) error {
	if b.closed {
		return errClosed
	}
	b.late(b.down.drain(t))
	return b.take()
}

// Close waits for the device, frees all memory, buffers that were not freed
// included, and leaves the device. Using the backend afterwards panics; closing it
// again does nothing.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	errs := []error{b.Sync()}
	b.closed = true
	for _, p := range b.programs {
		errs = append(errs, p.drop())
	}
	b.programs = nil
	for x := range b.live {
		x.release()
	}
	b.tables.free(b.pool)
	b.scratch.free(b.pool)
	b.turns.free(b.pool)
	b.decode.mem.free(b.pool)
	errs = append(errs, b.up.close(), b.down.close(), b.pool.Trim(), b.stream.Close(), b.dev.Close())
	return errors.Join(errs...)
}

// outside panics inside a recording, where host memory may not be touched.
func (b *Backend) outside() {
	if b.recording != nil {
		panic("gpu: alloc, free, upload, download and prepare are not allowed while recording")
	}
	b.open()
}

func (b *Backend) open() {
	if b.closed {
		panic("gpu: backend is closed")
	}
}
