package checkpoint

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/updraft-ml/updraft/internal/half"
)

// GGUFValue is a metadata entry to write. Value is a string, bool, uint32,
// uint64, float32, []string, []int32 or []float32.
type GGUFValue struct {
	Key   string
	Value any
}

// GGUFWriter writes a GGUF file of version 3, tensor by tensor. Until Commit
// the file has a temporary name beside its final one.
type GGUFWriter struct {
	file    *atomicFile
	w       *bufio.Writer
	pending []Info
	err     error
}

// CreateGGUF begins a file with the given metadata that will hold the given
// tensors in this order. Their DType is F32, F16, BF16 or Q8_0; the last needs
// rows of a multiple of 32 elements.
func CreateGGUF(path string, values []GGUFValue, tensors []Info) (*GGUFWriter, error) {
	head, err := ggufHeader(values, tensors)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	f, err := newAtomicFile(path)
	if err != nil {
		return nil, err
	}
	w := &GGUFWriter{file: f, w: bufio.NewWriterSize(f.File, 1<<20), pending: tensors}
	w.write(head)
	return w, nil
}

func ggufHeader(values []GGUFValue, tensors []Info) ([]byte, error) {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, ggufMagic)
	b = le.AppendUint32(b, 3)
	b = le.AppendUint64(b, uint64(len(tensors)))
	b = le.AppendUint64(b, uint64(len(values)))
	text := func(s string) {
		b = le.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	list := func(kind, n int) {
		b = le.AppendUint32(b, ggufArray)
		b = le.AppendUint32(b, uint32(kind))
		b = le.AppendUint64(b, uint64(n))
	}
	for _, v := range values {
		text(v.Key)
		switch x := v.Value.(type) {
		case string:
			b = le.AppendUint32(b, ggufString)
			text(x)
		case bool:
			b = le.AppendUint32(b, ggufBool)
			b = append(b, 0)
			if x {
				b[len(b)-1] = 1
			}
		case uint32:
			b = le.AppendUint32(b, ggufU32)
			b = le.AppendUint32(b, x)
		case uint64:
			b = le.AppendUint32(b, ggufU64)
			b = le.AppendUint64(b, x)
		case float32:
			b = le.AppendUint32(b, ggufF32)
			b = le.AppendUint32(b, math.Float32bits(x))
		case []string:
			list(ggufString, len(x))
			for _, s := range x {
				text(s)
			}
		case []int32:
			list(ggufI32, len(x))
			for _, i := range x {
				b = le.AppendUint32(b, uint32(i))
			}
		case []float32:
			list(ggufF32, len(x))
			for _, f := range x {
				b = le.AppendUint32(b, math.Float32bits(f))
			}
		default:
			return nil, fmt.Errorf("metadata %s: a value of type %T cannot be written", v.Key, v.Value)
		}
	}
	at := uint64(0)
	for _, t := range tensors {
		switch t.DType {
		case "F32", "F16", "BF16", "Q8_0":
		default:
			return nil, fmt.Errorf("tensor %q: type %s cannot be written", t.Name, t.DType)
		}
		q := quantNamed(t.DType)
		if n := t.Shape[len(t.Shape)-1]; n%q.block != 0 {
			return nil, fmt.Errorf("tensor %q: rows of %d elements are no whole blocks of %s", t.Name, n, t.DType)
		}
		text(t.Name)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for i := len(t.Shape) - 1; i >= 0; i-- {
			b = le.AppendUint64(b, uint64(t.Shape[i]))
		}
		b = le.AppendUint32(b, kindOf(t.DType))
		b = le.AppendUint64(b, at)
		at += padded(uint64(t.Len() / q.block * q.bytes))
	}
	return append(b, make([]byte, padded(uint64(len(b)))-uint64(len(b)))...), nil
}

// padded rounds up to the format's alignment.
func padded(n uint64) uint64 { return (n + ggufAlignment - 1) / ggufAlignment * ggufAlignment }

func (w *GGUFWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
	}
}

// WriteF32 writes the next tensor, converted to the type that was announced. A
// finite value that F16 cannot hold is an error.
func (w *GGUFWriter) WriteF32(name string, v []float32) error {
	if len(w.pending) == 0 || w.pending[0].Name != name || w.pending[0].Len() != len(v) {
		panic("checkpoint: write: not the tensor that was announced")
	}
	q := quantNamed(w.pending[0].DType)
	w.pending = w.pending[1:]
	if q.name == "F16" && w.err == nil {
		if err := FitsF16(name, v); err != nil {
			w.err = fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
		}
	}
	bytes := len(v) / q.block * q.bytes
	buf := make([]byte, 0, 8192*q.bytes)
	for ; len(v) > 0; v = v[q.block:] {
		if len(buf) == cap(buf) {
			w.write(buf)
			buf = buf[:0]
		}
		buf = appendBlock(buf, q.name, v[:q.block])
	}
	w.write(buf)
	w.write(make([]byte, padded(uint64(bytes))-uint64(bytes)))
	return w.err
}

func appendBlock(b []byte, name string, v []float32) []byte {
	le := binary.LittleEndian
	switch name {
	case "F32":
		return le.AppendUint32(b, math.Float32bits(v[0]))
	case "F16":
		return le.AppendUint16(b, half.F16(v[0]))
	case "BF16":
		return le.AppendUint16(b, half.BF16(v[0]))
	}
	// Q8_0: the largest magnitude becomes 127, as ggml's reference rounds.
	largest := float32(0)
	for _, x := range v {
		largest = max(largest, float32(math.Abs(float64(x))))
	}
	d, inverse := largest/127, float32(0)
	if d != 0 {
		inverse = 1 / d
	}
	b = le.AppendUint16(b, half.F16(d))
	for _, x := range v {
		b = append(b, byte(int8(math.Round(float64(x*inverse)))))
	}
	return b
}

// Commit flushes the file to the disk and gives it its name.
func (w *GGUFWriter) Commit() error {
	if w.err == nil && len(w.pending) > 0 {
		w.err = fmt.Errorf("checkpoint: %s: tensor %q was announced and not written", w.file.path, w.pending[0].Name)
	}
	if w.err == nil {
		if err := w.w.Flush(); err != nil {
			w.err = fmt.Errorf("checkpoint: %s: %w", w.file.path, err)
		}
	}
	if w.err != nil {
		w.Abort()
		return w.err
	}
	return w.file.commit()
}

// Abort removes the unfinished file. After Commit it does nothing.
func (w *GGUFWriter) Abort() { w.file.abort() }
