package checkpoint

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/updraft-ml/updraft/internal/half"
)

// Writer writes a safetensors file tensor by tensor. Until Commit the
// file has a temporary name beside its final one.
type Writer struct {
	file    *atomicFile
	w       *bufio.Writer
	pending []Info
	buf     []byte
	err     error
}

// Create begins a file that will hold the given tensors in this order. Their
// DType is F32, BF16, F16 or U8; where it is empty, F32.
func Create(path string, tensors []Info, metadata map[string]string) (*Writer, error) {
	header, err := encodeHeader(tensors, metadata)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	f, err := newAtomicFile(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: f, w: bufio.NewWriterSize(f.File, 1<<20), pending: tensors, buf: make([]byte, 0, 1<<16)}
	if _, err := w.w.Write(header); err != nil {
		w.Abort()
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	return w, nil
}

// encodeHeader returns the length and the JSON header, padded with spaces so
// that the tensors begin at a multiple of eight bytes. The keys are in order,
// so that equal contents give equal files.
func encodeHeader(tensors []Info, metadata map[string]string) ([]byte, error) {
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	entries := make(map[string]any, len(tensors)+1)
	if len(metadata) > 0 {
		entries["__metadata__"] = metadata
	}
	var at int64
	for _, t := range tensors {
		if _, twice := entries[t.Name]; twice || t.Name == "__metadata__" || t.Name == "" {
			return nil, fmt.Errorf("tensor name %q cannot be written", t.Name)
		}
		dtype := cmp.Or(t.DType, "F32")
		switch dtype {
		case "F32", "BF16", "F16", "U8":
		default:
			return nil, fmt.Errorf("tensor %q: type %s cannot be written", t.Name, dtype)
		}
		end := at + t.bytes()
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		entries[t.Name] = entry{dtype, shape, [2]int64{at, end}}
		at = end
	}
	j, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	for len(j)%8 != 0 {
		j = append(j, ' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(j))), j...), nil
}

// WriteF32 writes the next tensor, rounded to the type that was announced: F32,
// BF16 or F16. Its name and length must be those announced. A finite value that
// F16 cannot hold is an error.
func (w *Writer) WriteF32(name string, v []float32) error {
	switch dtype := w.next(name, len(v)); dtype {
	case "F32":
		return writeTensor(w, v, func(b []byte, x float32) []byte {
			return binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		})
	case "BF16":
		return writeTensor(w, v, func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint16(b, half.BF16(x)) })
	case "F16":
		if err := FitsF16(name, v); err != nil {
			w.err = fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
			return w.err
		}
		return writeTensor(w, v, func(b []byte, x float32) []byte { return binary.LittleEndian.AppendUint16(b, half.F16(x)) })
	}
	panic(notAnnounced)
}

// WriteU8 writes the next tensor, of bytes.
func (w *Writer) WriteU8(name string, v []int32) error {
	if w.next(name, len(v)) != "U8" {
		panic(notAnnounced)
	}
	return writeTensor(w, v, func(b []byte, x int32) []byte { return append(b, byte(x)) })
}

const notAnnounced = "checkpoint: write: not the tensor that was announced"

// next returns the type of the tensor that is due.
func (w *Writer) next(name string, n int) string {
	if len(w.pending) == 0 || w.pending[0].Name != name || w.pending[0].Len() != n {
		panic(notAnnounced)
	}
	return cmp.Or(w.pending[0].DType, "F32")
}

// writeTensor encodes v by add, a piece at a time.
func writeTensor[T any](w *Writer, v []T, add func([]byte, T) []byte) error {
	if w.err != nil {
		return w.err
	}
	w.pending = w.pending[1:]
	for len(v) > 0 {
		n := min(len(v), cap(w.buf)/4)
		b := w.buf[:0]
		for _, x := range v[:n] {
			b = add(b, x)
		}
		if _, err := w.w.Write(b); err != nil {
			w.err = fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
			return w.err
		}
		v = v[n:]
	}
	return nil
}

// FitsF16 reports the first finite value of a tensor that F16, which ends at
// 65504, would turn into an infinity.
func FitsF16(name string, v []float32) error {
	const end = 65520 // halfway to the next step: rounds to infinity
	for i, x := range v {
		if a := math.Abs(float64(x)); a >= end && !math.IsInf(a, 0) {
			return fmt.Errorf("tensor %q: element %d is %g, more than F16 can hold: write BF16 or F32", name, i, x)
		}
	}
	return nil
}

// Commit flushes the file to the disk and gives it its name. On failure the
// old file of that name, if any, is still there.
func (w *Writer) Commit() error {
	if w.err != nil {
		w.Abort()
		return w.err
	}
	if len(w.pending) > 0 {
		w.Abort()
		return fmt.Errorf("checkpoint: %s: tensor %q was announced and not written", w.file.path, w.pending[0].Name)
	}
	if err := w.w.Flush(); err != nil {
		w.Abort()
		return fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
	}
	return w.file.commit()
}

// Abort removes the unfinished file. After Commit it does nothing.
func (w *Writer) Abort() { w.file.abort() }

// WriteFile replaces the file at path by what write writes, atomically.
func WriteFile(path string, write func(io.Writer) error) error {
	f, err := newAtomicFile(path)
	if err != nil {
		return err
	}
	defer f.abort()
	b := bufio.NewWriter(f.File)
	if err := write(b); err != nil {
		return err
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	return f.commit()
}

// atomicFile is a temporary file that becomes path.
type atomicFile struct {
	*os.File
	path string
}

func newAtomicFile(path string) (*atomicFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-*")
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	return &atomicFile{f, path}, nil
}

func (f *atomicFile) commit() error {
	name := f.Name()
	err := f.Chmod(0o644)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(name, f.path)
	}
	f.File = nil
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("checkpoint: %s: %w", f.path, err)
	}
	return syncDir(filepath.Dir(f.path))
}

func (f *atomicFile) abort() {
	if f.File == nil {
		return
	}
	name := f.Name()
	f.Close()
	os.Remove(name)
	f.File = nil
}
