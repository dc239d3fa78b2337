package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// GGUF is an open GGUF file (llama.cpp's format, versions 2 and 3): metadata
// and a list of tensors, which ReadF32 dequantises. It holds no tensor.
type GGUF struct {
	path    string
	f       io.ReaderAt
	close   func() error
	values  map[string]any
	keys    []string // in the file's order
	tensors []Info
	byName  map[string]int
	data    int64
}

// Numbers of the format: github.com/ggml-org/ggml, docs/gguf.md.
const (
	ggufMagic     = 0x46554747 // "GGUF"
	ggufAlignment = 32         // unless general.alignment says otherwise
	ggufMaxDims   = 4
)

// Types of metadata values.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// OpenGGUF reads the metadata of a GGUF file and checks the list of its tensors
// against the file's size.
func OpenGGUF(path string) (*GGUF, error) {
	f, size, err := openFile(path, ".gguf")
	if err != nil {
		return nil, err
	}
	g, err := newGGUF(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	g.path, g.close = path, f.Close
	return g, nil
}

func newGGUF(f io.ReaderAt, size int64) (*GGUF, error) {
	g := &GGUF{f: f, values: map[string]any{}, byName: map[string]int{}}
	r := &ggufReader{r: bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<16), size: size}
	tensors, values := g.header(r)
	for range values {
		key := r.string()
		v := r.value(r.u32())
		if r.err != nil {
			return nil, r.failure("metadata")
		}
		if _, twice := g.values[key]; twice {
			return nil, fmt.Errorf("metadata key %q stands there twice", key)
		}
		g.values[key] = v
		g.keys = append(g.keys, key)
	}
	for range tensors {
		if err := g.tensor(r); err != nil {
			return nil, err
		}
	}
	if r.err != nil {
		return nil, r.failure("header")
	}
	alignment := int64(ggufAlignment)
	if n, ok := g.Int("general.alignment"); ok {
		if n < 1 || n > 1<<20 || n&(n-1) != 0 {
			return nil, fmt.Errorf("general.alignment is %d: must be a power of two", n)
		}
		alignment = n
	}
	g.data = (r.at + alignment - 1) / alignment * alignment
	for _, t := range g.tensors {
		if t.begin%alignment != 0 {
			return nil, fmt.Errorf("tensor %q begins at byte %d, which is no multiple of %d", t.Name, t.begin, alignment)
		}
		if t.end > size-g.data {
			return nil, fmt.Errorf("truncated: tensor %q ends at byte %d of %d: copy the file again", t.Name, g.data+t.end, size)
		}
	}
	return g, nil
}

func (g *GGUF) header(r *ggufReader) (tensors, values uint64) {
	if magic := r.u32(); r.err == nil && magic != ggufMagic {
		r.err = errors.New("not a GGUF file")
	}
	switch version := r.u32(); {
	case r.err != nil:
	case version > 1<<16:
		r.err = errors.New("a big-endian GGUF file: convert it to little-endian")
	case version != 2 && version != 3:
		r.err = fmt.Errorf("GGUF version %d: Updraft reads 2 and 3", version)
	}
	tensors, values = r.u64(), r.u64()
	// Each takes a dozen bytes at least, so that a lie about the number ends here.
	if r.err == nil && (tensors > uint64(r.size)/12 || values > uint64(r.size)/12) {
		r.err = fmt.Errorf("truncated: %d tensors and %d metadata values in %d bytes: copy the file again", tensors, values, r.size)
	}
	if r.err != nil {
		return 0, 0
	}
	return tensors, values
}

// tensor reads one entry of the list.
func (g *GGUF) tensor(r *ggufReader) error {
	t := Info{Name: r.string()}
	dims := r.u32()
	if r.err == nil && (dims == 0 || dims > ggufMaxDims) {
		return fmt.Errorf("tensor %q has %d dimensions", t.Name, dims)
	}
	elements := int64(1)
	for range dims {
		n := r.u64()
		if r.err != nil {
			return r.failure("list of tensors")
		}
		if n > math.MaxInt32 || n > 0 && elements > math.MaxInt64/8/int64(n) {
			return fmt.Errorf("tensor %q has an implausible shape", t.Name)
		}
		elements *= int64(n)
		t.Shape = append(t.Shape, int(n))
	}
	kind, offset := r.u32(), r.u64()
	if r.err != nil {
		return r.failure("list of tensors")
	}
	slices.Reverse(t.Shape) // the file names the fastest dimension first
	q := quantOf(kind)
	t.DType = q.name
	if q.bytes > 0 {
		if cols := t.Shape[len(t.Shape)-1]; cols%q.block != 0 {
			return fmt.Errorf("tensor %q: rows of %d elements are no whole blocks of %s", t.Name, cols, q.name)
		}
		if offset > math.MaxInt64/2 {
			return fmt.Errorf("tensor %q begins at byte %d", t.Name, offset)
		}
		t.begin = int64(offset)
		t.end = t.begin + elements/int64(q.block)*int64(q.bytes)
	}
	if _, twice := g.byName[t.Name]; twice {
		return fmt.Errorf("tensor %q stands there twice", t.Name)
	}
	g.byName[t.Name] = len(g.tensors)
	g.tensors = append(g.tensors, t)
	return nil
}

// Tensors lists the tensors in the file's order. Shapes have rows first; DType
// is ggml's name of the type, such as Q4_K.
func (g *GGUF) Tensors() []Info { return slices.Clone(g.tensors) }

// Has reports whether the file has a tensor of that name.
func (g *GGUF) Has(name string) bool { _, ok := g.byName[name]; return ok }

// Keys lists the metadata keys in the file's order.
func (g *GGUF) Keys() []string { return slices.Clone(g.keys) }

// Int returns an integer of the metadata.
func (g *GGUF) Int(key string) (int64, bool) { v, ok := g.values[key].(int64); return v, ok }

// Float returns a number of the metadata.
func (g *GGUF) Float(key string) (float64, bool) {
	switch v := g.values[key].(type) {
	case float64:
		return v, true
	case int64:
		return float64(v), true
	}
	return 0, false
}

// Bool returns a truth value of the metadata.
func (g *GGUF) Bool(key string) (bool, bool) { v, ok := g.values[key].(bool); return v, ok }

// String returns a string of the metadata.
func (g *GGUF) String(key string) (string, bool) { v, ok := g.values[key].(string); return v, ok }

// Strings returns a list of strings of the metadata, nil where there is none.
func (g *GGUF) Strings(key string) []string { v, _ := g.values[key].([]string); return v }

// Ints returns a list of integers of the metadata, nil where there is none.
func (g *GGUF) Ints(key string) []int64 { v, _ := g.values[key].([]int64); return v }

// Floats returns a list of numbers of the metadata, nil where there is none.
func (g *GGUF) Floats(key string) []float64 { v, _ := g.values[key].([]float64); return v }

// Close closes the file.
func (g *GGUF) Close() error {
	if g.close == nil {
		return nil
	}
	return g.close()
}

// ReadF32 reads one tensor of the given shape into dst, dequantising it.
func (g *GGUF) ReadF32(name string, shape []int, dst []float32) error {
	i, ok := g.byName[name]
	if !ok {
		return fmt.Errorf("checkpoint: %s: tensor %q is missing", g.path, name)
	}
	t := g.tensors[i]
	if !slices.Equal(t.Shape, shape) {
		return fmt.Errorf("checkpoint: %s: tensor %q has shape %v, the metadata says %v", g.path, name, t.Shape, shape)
	}
	if len(dst) != t.Len() {
		panic("checkpoint: read: destination differs from the shape in length")
	}
	q := quantNamed(t.DType)
	if q.bytes == 0 {
		return fmt.Errorf("checkpoint: %s: tensor %q is of type %s: Updraft reads %s; requantise the file with one of them", g.path, name, t.DType, readableQuants())
	}
	buf := make([]byte, min(int64(q.bytes)*8192, max(t.end-t.begin, 1)))
	for at := t.begin; at < t.end; {
		b := buf[:min(int64(len(buf)), t.end-at)]
		if _, err := g.f.ReadAt(b, g.data+at); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("checkpoint: %s: tensor %q: %w", g.path, name, err)
		}
		at += int64(len(b))
		for ; len(b) > 0; b = b[q.bytes:] {
			q.decode(dst[:q.block], b[:q.bytes])
			dst = dst[q.block:]
		}
	}
	return nil
}

// ggufReader reads little-endian values and keeps the first error.
type ggufReader struct {
	r    *bufio.Reader
	at   int64
	size int64
	err  error
	buf  [8]byte
}

func (r *ggufReader) failure(where string) error {
	if errors.Is(r.err, io.EOF) || errors.Is(r.err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("truncated in its %s: copy the file again", where)
	}
	return r.err
}

func (r *ggufReader) bytes(n int) []byte {
	b := r.buf[:n]
	if r.err == nil {
		_, r.err = io.ReadFull(r.r, b)
		r.at += int64(n)
	}
	if r.err != nil {
		clear(b)
	}
	return b
}

func (r *ggufReader) u32() uint32 { return binary.LittleEndian.Uint32(r.bytes(4)) }
func (r *ggufReader) u64() uint64 { return binary.LittleEndian.Uint64(r.bytes(8)) }

// room fails unless n elements of at least width bytes each can follow.
func (r *ggufReader) room(n uint64, width int64) bool {
	if r.err == nil && n > uint64(max(0, r.size-r.at)/width) {
		r.err = io.ErrUnexpectedEOF
	}
	return r.err == nil
}

func (r *ggufReader) string() string {
	n := r.u64()
	if !r.room(n, 1) {
		return ""
	}
	b := make([]byte, n)
	_, r.err = io.ReadFull(r.r, b)
	r.at += int64(n)
	return string(b)
}

// scalar reads a value that is neither a string nor an array: int64, float64 or
// bool.
func (r *ggufReader) scalar(kind uint32) any {
	switch kind {
	case ggufU8:
		return int64(r.bytes(1)[0])
	case ggufI8:
		return int64(int8(r.bytes(1)[0]))
	case ggufU16:
		return int64(binary.LittleEndian.Uint16(r.bytes(2)))
	case ggufI16:
		return int64(int16(binary.LittleEndian.Uint16(r.bytes(2))))
	case ggufU32:
		return int64(r.u32())
	case ggufI32:
		return int64(int32(r.u32()))
	case ggufU64:
		return int64(min(r.u64(), math.MaxInt64))
	case ggufI64:
		return int64(r.u64())
	case ggufF32:
		return float64(math.Float32frombits(r.u32()))
	case ggufF64:
		return math.Float64frombits(r.u64())
	case ggufBool:
		return r.bytes(1)[0] != 0
	}
	if r.err == nil {
		r.err = fmt.Errorf("a metadata value of unknown type %d", kind)
	}
	return nil
}

// width is the least bytes of a value.
func ggufWidth(kind uint32) int64 {
	switch kind {
	case ggufU16, ggufI16:
		return 2
	case ggufU32, ggufI32, ggufF32:
		return 4
	case ggufU64, ggufI64, ggufF64, ggufString:
		return 8
	}
	return 1
}

func (r *ggufReader) value(kind uint32) any {
	switch kind {
	case ggufString:
		return r.string()
	case ggufArray:
		return r.array()
	}
	return r.scalar(kind)
}

// array reads a list as []int64, []float64, []string or []bool; a list of lists
// is read and dropped, for no key that is known has one.
func (r *ggufReader) array() any {
	kind, n := r.u32(), r.u64()
	if kind == ggufArray {
		if r.err == nil {
			r.err = errors.New("a metadata value is a list of lists")
		}
		return nil
	}
	if !r.room(n, ggufWidth(kind)) {
		return nil
	}
	var ints []int64
	var floats []float64
	var words []string
	var truths []bool
	for i := uint64(0); i < n && r.err == nil; i++ {
		switch v := r.value(kind).(type) {
		case int64:
			ints = append(ints, v)
		case float64:
			floats = append(floats, v)
		case string:
			words = append(words, v)
		case bool:
			truths = append(truths, v)
		}
	}
	switch kind {
	case ggufString:
		return words
	case ggufF32, ggufF64:
		return floats
	case ggufBool:
		return truths
	}
	return ints
}
