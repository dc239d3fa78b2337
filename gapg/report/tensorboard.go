package report

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// EventOptions says how an event file is made. The zero value is right for a
// new run.
type EventOptions struct {
	// Resume is the step of the checkpoint that a run continues from, 0 for a
	// new run. TensorBoard then forgets, from earlier event files of the same
	// directory, what had been logged after that step.
	Resume int64
	// Now gives the wall time of events; time.Now if nil.
	Now func() time.Time
	// Host names the machine in the file's name; os.Hostname if empty.
	Host string
}

// EventWriter writes scalars to a TensorBoard event file: TFRecord framing
// around Event messages, encoded by hand, with simple_value summaries, which
// every version of TensorBoard reads. Safe for concurrent use.
//
// Sources: tensorflow/core/lib/io/record_writer.h (framing, masked CRC),
// tensorflow/core/util/event.proto and framework/summary.proto (messages).
type EventWriter struct {
	mu   sync.Mutex
	f    *os.File
	w    *bufio.Writer
	path string
	now  func() time.Time
	buf  []byte
}

// NewEventWriter creates an event file of its own in dir, which must exist.
func NewEventWriter(dir string, opt EventOptions) (*EventWriter, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Host == "" {
		if opt.Host, _ = os.Hostname(); opt.Host == "" {
			opt.Host = "localhost"
		}
	}
	now := opt.Now()
	var f *os.File
	var err error
	for n := 0; ; n++ {
		name := fmt.Sprintf("events.out.tfevents.%010d.%s.%d.%d", now.Unix(), filepath.Base(opt.Host), os.Getpid(), n)
		f, err = os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("event file: %w", err)
	}
	e := &EventWriter{f: f, w: bufio.NewWriter(f), path: f.Name(), now: opt.Now}
	// The first event of a file states its version; the reader relies on it.
	err = e.record(appendEvent(nil, now, 0, func(b []byte) []byte {
		return appendBytes(b, 3, []byte("brain.Event:2"))
	}))
	if err == nil && opt.Resume > 0 {
		// SessionLog START: the reader purges events of this step and later.
		err = e.record(appendEvent(nil, now, opt.Resume+1, func(b []byte) []byte {
			return appendBytes(b, 7, appendVarintField(nil, 1, 1))
		}))
	}
	if err == nil {
		err = e.Flush()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return e, nil
}

// Path returns the event file's path.
func (e *EventWriter) Path() string { return e.path }

// Scalars writes one event with all values of a step, tags sorted. Values
// that are NaN or infinite are written as such: TensorBoard shows them.
func (e *EventWriter) Scalars(step int64, values map[string]float64) error {
	if len(values) == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil {
		return fmt.Errorf("event file %s: is closed", e.path)
	}
	e.buf = appendEvent(e.buf[:0], e.now(), step, func(b []byte) []byte {
		var summary, value []byte
		for _, tag := range slices.Sorted(maps.Keys(values)) {
			value = appendBytes(value[:0], 1, []byte(tag))
			value = append(value, 2<<3|5) // simple_value, 32-bit
			value = binary.LittleEndian.AppendUint32(value, math.Float32bits(float32(values[tag])))
			summary = appendBytes(summary, 1, value)
		}
		return appendBytes(b, 5, summary)
	})
	return e.record(e.buf)
}

// Flush hands buffered events to the operating system, so that a running
// TensorBoard sees them.
func (e *EventWriter) Flush() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil {
		return nil
	}
	if err := e.w.Flush(); err != nil {
		return fmt.Errorf("event file %s: %w", e.path, err)
	}
	return nil
}

// Close flushes and closes the file. A second Close does nothing.
func (e *EventWriter) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.f == nil {
		return nil
	}
	err := errors.Join(e.w.Flush(), e.f.Close())
	e.f = nil
	if err != nil {
		return fmt.Errorf("event file %s: close: %w", e.path, err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskedCRC is the checksum of a TFRecord: CRC32C, rotated and offset so that
// a checksum over data with checksums in it stays strong.
func maskedCRC(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + 0xa282ead8
}

// record frames one message: length, checksum of the length, data, checksum
// of the data; all little-endian.
func (e *EventWriter) record(data []byte) error {
	var head [12]byte
	binary.LittleEndian.PutUint64(head[:8], uint64(len(data)))
	binary.LittleEndian.PutUint32(head[8:], maskedCRC(head[:8]))
	var tail [4]byte
	binary.LittleEndian.PutUint32(tail[:], maskedCRC(data))
	for _, b := range [][]byte{head[:], data, tail[:]} {
		if _, err := e.w.Write(b); err != nil {
			return fmt.Errorf("event file %s: %w", e.path, err)
		}
	}
	return nil
}

// appendEvent encodes an Event: wall_time = 1 (double), step = 2 (int64,
// left out when zero, as proto3 does), then the payload that what appends.
func appendEvent(b []byte, at time.Time, step int64, what func([]byte) []byte) []byte {
	b = append(b, 1<<3|1)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(at.UnixMicro())/1e6))
	if step != 0 {
		b = appendVarintField(b, 2, uint64(step))
	}
	return what(b)
}

func appendVarintField(b []byte, field int, v uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, v)
}

func appendBytes(b []byte, field int, data []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(data)))
	return append(b, data...)
}
