package cuda

import (
	"errors"
	"fmt"
	"unsafe"
)

// Device is a device with its primary context retained: memory can be allocated
// and kernels run on it.
type Device struct {
	drv    *Driver
	dev    int32
	ctx    handle
	info   DeviceInfo
	mods   moduleCache
	closed bool
}

// OpenDevice retains the primary context of device ordinal. That takes a few
// hundred MiB of the device's memory until Close. Where another process has the
// device to itself, the error (DeviceUnavailable) says what can be done.
func (d *Driver) OpenDevice(ordinal int) (*Device, error) {
	info, err := d.Info(ordinal)
	if err != nil {
		return nil, err
	}
	dev, err := d.device(ordinal)
	if err != nil {
		return nil, err
	}
	ctx, code := d.api.cuDevicePrimaryCtxRetain(dev)
	if err := d.check("cuDevicePrimaryCtxRetain", code); err != nil {
		return nil, d.unavailable(info, dev, err)
	}
	g := &Device{drv: d, dev: dev, ctx: ctx, info: info}
	d.leaks.add(g, "device", 0)
	return g, nil
}

// unavailable adds to a refused start what the device's compute mode tells of it.
func (d *Driver) unavailable(info DeviceInfo, dev int32, err error) error {
	mode, code := d.api.cuDeviceGetAttribute(attrComputeMode, dev)
	switch {
	case code != 0:
	case errors.Is(err, OutOfMemory):
		return fmt.Errorf("cuda: device %d (%s) has too little free memory even to start on it: end other programs that use it (nvidia-smi lists them): %w",
			info.Ordinal, info.Name, err)
	case mode == computeModeExclusive:
		return fmt.Errorf("cuda: device %d (%s) is in use by another process, and its compute mode lets one in at a time: wait for it, take another device, or set the mode with nvidia-smi -c DEFAULT: %w",
			info.Ordinal, info.Name, err)
	case mode == computeModeProhibited:
		return fmt.Errorf("cuda: device %d (%s) has the compute mode \"prohibited\": take another device, or set the mode with nvidia-smi -c DEFAULT: %w",
			info.Ordinal, info.Name, err)
	}
	return fmt.Errorf("cuda: device %d (%s) does not start: see what nvidia-smi says: %w", info.Ordinal, info.Name, err)
}

// Close unloads the modules of Device.Module and gives the context back.
// Everything else made on the device must have been freed before; a second Close
// does nothing.
func (g *Device) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	err := g.mods.close()
	g.drv.leaks.remove(g)
	return errors.Join(err, g.check("cuDevicePrimaryCtxRelease_v2", g.drv.api.cuDevicePrimaryCtxRelease(g.dev)))
}

// Info describes the device.
func (g *Device) Info() DeviceInfo { return g.info }

// MemInfo returns the device's free and total memory in bytes.
func (g *Device) MemInfo() (free, total uint64, err error) {
	free, total, code := g.drv.api.cuMemGetInfo(g.ctx)
	return free, total, g.check("cuMemGetInfo_v2", code)
}

// Sync waits for all work on the device.
func (g *Device) Sync() error {
	return g.check("cuCtxSynchronize", g.drv.api.cuCtxSynchronize(g.ctx))
}

func (g *Device) check(call string, c Code) error { return g.drv.check(call, c) }

// Buffer is a range of device memory, 256-byte aligned.
type Buffer struct {
	dev    *Device
	ptr    devicePtr
	size   int
	pooled bool // a Pool's, freed through it
}

// Alloc allocates size bytes, at least 1, with undefined contents. The error is
// OutOfMemory (errors.Is) when the device has too little left.
func (g *Device) Alloc(size int) (*Buffer, error) {
	if size < 1 {
		panic("cuda: alloc: size below 1")
	}
	p, code := g.drv.api.cuMemAlloc(g.ctx, uint64(size))
	if err := g.check("cuMemAlloc_v2", code); err != nil {
		return nil, err
	}
	b := &Buffer{dev: g, ptr: p, size: size}
	g.drv.leaks.add(b, "buffer", size)
	return b, nil
}

// Free gives the memory back; the driver waits for work that uses it. A second
// Free does nothing.
func (b *Buffer) Free() error {
	if b.ptr == 0 {
		return nil
	}
	if b.pooled {
		panic("cuda: free: a pool's buffer is freed through its pool")
	}
	p := b.ptr
	b.ptr = 0
	b.dev.drv.leaks.remove(b)
	return b.dev.check("cuMemFree_v2", b.dev.drv.api.cuMemFree(b.dev.ctx, p))
}

// Size returns the size in bytes.
func (b *Buffer) Size() int { return b.size }

// Ptr returns the device address of the byte at offset, as a kernel's argument.
func (b *Buffer) Ptr(offset int) uint64 { return b.at(offset, 0) }

// at returns the address of n bytes at offset, which must be inside.
func (b *Buffer) at(offset, n int) devicePtr {
	if b.ptr == 0 {
		panic("cuda: use of a freed buffer")
	}
	if offset < 0 || n < 0 || offset > b.size-n {
		panic("cuda: range outside of the buffer")
	}
	return b.ptr + devicePtr(offset)
}

// HostBuffer is page-locked host memory, which asynchronous copies need.
type HostBuffer struct {
	dev *Device
	ptr unsafe.Pointer
	mem []byte
}

// AllocHost allocates size bytes of page-locked host memory, at least 1.
func (g *Device) AllocHost(size int) (*HostBuffer, error) {
	if size < 1 {
		panic("cuda: alloc: size below 1")
	}
	p, code := g.drv.api.cuMemHostAlloc(g.ctx, uint64(size))
	if err := g.check("cuMemHostAlloc", code); err != nil {
		return nil, err
	}
	b := &HostBuffer{dev: g, ptr: p, mem: unsafe.Slice((*byte)(p), size)}
	g.drv.leaks.add(b, "host buffer", size)
	return b, nil
}

// Bytes returns the memory. It must not be used after Free, nor written or read
// while a copy from or to it is under way.
func (b *HostBuffer) Bytes() []byte { return b.mem }

// Free gives the memory back. No copy may be under way. A second Free does nothing.
func (b *HostBuffer) Free() error {
	if b.mem == nil {
		return nil
	}
	b.mem = nil
	b.dev.drv.leaks.remove(b)
	return b.dev.check("cuMemFreeHost", b.dev.drv.api.cuMemFreeHost(b.dev.ctx, b.ptr))
}

// slice returns the address of n bytes at offset, which must be inside.
func (b *HostBuffer) slice(offset, n int) unsafe.Pointer {
	if b.mem == nil {
		panic("cuda: use of a freed buffer")
	}
	if offset < 0 || n < 0 || offset > len(b.mem)-n {
		panic("cuda: range outside of the buffer")
	}
	return unsafe.Add(b.ptr, offset)
}

// Scalar is an element type that host memory and device memory share.
type Scalar interface {
	~int8 | ~uint8 | ~int16 | ~uint16 | ~int32 | ~uint32 | ~int64 | ~uint64 | ~float32 | ~float64
}

// Bytes returns the memory of s as bytes, without copying.
func Bytes[T Scalar](s []T) []byte {
	var t T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(t)))
}
