package cuda

import (
	"time"
	"unsafe"
)

// Stream is a queue of work on a device: copies, fills and launches that run in
// the order in which they were issued, and in no order with other streams but
// by events.
type Stream struct {
	dev    *Device
	handle handle
}

// Priority is how urgent a stream's work is where the device has to choose.
type Priority int

// The priorities; a device may know no difference.
const (
	Normal Priority = iota
	High
)

// NewStream makes a stream of normal priority, independent of the driver's
// default stream.
func (g *Device) NewStream() (*Stream, error) { return g.NewStreamWith(Normal) }

// NewStreamWith makes a stream of the given priority.
func (g *Device) NewStreamWith(p Priority) (*Stream, error) {
	least, greatest, code := g.drv.api.cuCtxGetStreamPriorityRange(g.ctx)
	if err := g.check("cuCtxGetStreamPriorityRange", code); err != nil {
		return nil, err
	}
	number := least // a lower number is more urgent
	if p == High {
		number = greatest
	}
	s, code := g.drv.api.cuStreamCreateWithPriority(g.ctx, number)
	if err := g.check("cuStreamCreateWithPriority", code); err != nil {
		return nil, err
	}
	st := &Stream{dev: g, handle: s}
	g.drv.leaks.add(st, "stream", 0)
	return st, nil
}

// Close ends the stream once its work is done; it does not wait. A second Close
// does nothing.
func (s *Stream) Close() error {
	if s.handle == 0 {
		return nil
	}
	h := s.handle
	s.handle = 0
	s.dev.drv.leaks.remove(s)
	return s.dev.check("cuStreamDestroy_v2", s.dev.drv.api.cuStreamDestroy(s.dev.ctx, h))
}

func (s *Stream) use() handle {
	if s.handle == 0 {
		panic("cuda: use of a closed stream")
	}
	return s.handle
}

// Sync waits for all work issued so far. An error of earlier work, such as an
// IllegalAddress in a kernel, shows here or at any later call.
func (s *Stream) Sync() error {
	return s.dev.check("cuStreamSynchronize", s.dev.drv.api.cuStreamSynchronize(s.dev.ctx, s.use()))
}

// Upload copies src to offset of dst, in the stream's order, and waits for it.
func (s *Stream) Upload(dst *Buffer, offset int, src []byte) error {
	p := dst.at(offset, len(src))
	if len(src) == 0 {
		return nil
	}
	return s.dev.check("cuMemcpyHtoDAsync_v2",
		s.dev.drv.api.cuMemcpyHtoDAsync(s.dev.ctx, p, unsafe.Pointer(&src[0]), uint64(len(src)), s.use(), true))
}

// Download copies from offset of src to dst, in the stream's order, and waits
// for it.
func (s *Stream) Download(dst []byte, src *Buffer, offset int) error {
	p := src.at(offset, len(dst))
	if len(dst) == 0 {
		return nil
	}
	return s.dev.check("cuMemcpyDtoHAsync_v2",
		s.dev.drv.api.cuMemcpyDtoHAsync(s.dev.ctx, unsafe.Pointer(&dst[0]), p, uint64(len(dst)), s.use(), true))
}

// UploadAsync copies n bytes and does not wait: src must stay as it is until the
// copy has run.
func (s *Stream) UploadAsync(dst *Buffer, offset int, src *HostBuffer, srcOffset, n int) error {
	p, q := dst.at(offset, n), src.slice(srcOffset, n)
	return s.dev.check("cuMemcpyHtoDAsync_v2",
		s.dev.drv.api.cuMemcpyHtoDAsync(s.dev.ctx, p, q, uint64(n), s.use(), false))
}

// DownloadAsync copies n bytes and does not wait: dst is not to be read until
// the copy has run.
func (s *Stream) DownloadAsync(dst *HostBuffer, dstOffset int, src *Buffer, offset, n int) error {
	p, q := src.at(offset, n), dst.slice(dstOffset, n)
	return s.dev.check("cuMemcpyDtoHAsync_v2",
		s.dev.drv.api.cuMemcpyDtoHAsync(s.dev.ctx, q, p, uint64(n), s.use(), false))
}

// Copy copies n bytes within the device.
func (s *Stream) Copy(dst *Buffer, dstOffset int, src *Buffer, srcOffset, n int) error {
	d, p := dst.at(dstOffset, n), src.at(srcOffset, n)
	return s.dev.check("cuMemcpyDtoDAsync_v2", s.dev.drv.api.cuMemcpyDtoDAsync(s.dev.ctx, d, p, uint64(n), s.use()))
}

// Fill sets n bytes at offset of dst to value.
func (s *Stream) Fill(dst *Buffer, offset, n int, value byte) error {
	p := dst.at(offset, n)
	return s.dev.check("cuMemsetD8Async", s.dev.drv.api.cuMemsetD8Async(s.dev.ctx, p, value, uint64(n), s.use()))
}

// Fill32 sets n 4-byte words at offset of dst, which is a multiple of 4 bytes, to
// value.
func (s *Stream) Fill32(dst *Buffer, offset, n int, value uint32) error {
	p := dst.at(offset, 4*n)
	if p%4 != 0 {
		panic("cuda: fill: words must begin at a multiple of 4 bytes")
	}
	if n == 0 {
		return nil
	}
	return s.dev.check("cuMemsetD32Async", s.dev.drv.api.cuMemsetD32Async(s.dev.ctx, p, value, uint64(n), s.use()))
}

// Event is a point in a stream's work, to wait for and to time by.
type Event struct {
	dev    *Device
	handle handle
}

// NewEvent makes an event.
func (g *Device) NewEvent() (*Event, error) {
	e, code := g.drv.api.cuEventCreate(g.ctx)
	if err := g.check("cuEventCreate", code); err != nil {
		return nil, err
	}
	ev := &Event{dev: g, handle: e}
	g.drv.leaks.add(ev, "event", 0)
	return ev, nil
}

// Close gives the event back. A second Close does nothing.
func (e *Event) Close() error {
	if e.handle == 0 {
		return nil
	}
	h := e.handle
	e.handle = 0
	e.dev.drv.leaks.remove(e)
	return e.dev.check("cuEventDestroy_v2", e.dev.drv.api.cuEventDestroy(e.dev.ctx, h))
}

func (e *Event) use() handle {
	if e.handle == 0 {
		panic("cuda: use of a closed event")
	}
	return e.handle
}

// Record puts e behind the work issued to s so far.
func (s *Stream) Record(e *Event) error {
	return s.dev.check("cuEventRecord", s.dev.drv.api.cuEventRecord(s.dev.ctx, e.use(), s.use()))
}

// Wait makes later work of s wait, on the device, for the point that e recorded.
func (s *Stream) Wait(e *Event) error {
	return s.dev.check("cuStreamWaitEvent", s.dev.drv.api.cuStreamWaitEvent(s.dev.ctx, s.use(), e.use()))
}

// Sync waits until the work before e is done.
func (e *Event) Sync() error {
	return e.dev.check("cuEventSynchronize", e.dev.drv.api.cuEventSynchronize(e.dev.ctx, e.use()))
}

// Done reports, without waiting, whether the work before e is done.
func (e *Event) Done() (bool, error) {
	code := e.dev.drv.api.cuEventQuery(e.dev.ctx, e.use())
	if code == NotReady {
		return false, e.dev.check("cuEventQuery", 0)
	}
	return code == 0, e.dev.check("cuEventQuery", code)
}

// Since returns the device's time from start to e, both done; its resolution is
// about half a microsecond.
func (e *Event) Since(start *Event) (time.Duration, error) {
	ms, code := e.dev.drv.api.cuEventElapsedTime(e.dev.ctx, start.use(), e.use())
	return time.Duration(float64(ms) * float64(time.Millisecond)), e.dev.check("cuEventElapsedTime", code)
}
