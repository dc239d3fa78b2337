package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/updraft-ml/updraft/internal/half"
)

// maxHeader bounds the header, as the format's own implementation does.
const maxHeader = 100 << 20

// Info describes one tensor of a file.
type Info struct {
	Name  string
	DType string // as safetensors writes it: F32, BF16, F16, ...
	Shape []int

	begin, end int64 // bytes after the header
}

// Len returns the number of elements.
func (i Info) Len() int {
	n := 1
	for _, d := range i.Shape {
		n *= d
	}
	return n
}

// dtypeSize returns the bytes of an element, 0 for unknown types.
func dtypeSize(dtype string) int64 {
	switch dtype {
	case "F64", "I64", "U64":
		return 8
	case "F32", "I32", "U32":
		return 4
	case "F16", "BF16", "I16", "U16":
		return 2
	case "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2":
		return 1
	}
	return 0
}

// Reader reads tensors of one safetensors file. It holds the header only. Tensors
// are read a mebibyte at a time rather than mapped to memory: each is converted
// once and never seen again, so that page faults cost what the copy would (measured
// on 64 MiB in the page cache: 0.9 GB/s mapped, 0.5 to 1.4 GB/s read), and a mapped
// file that another program cuts short ends the process.
type Reader struct {
	path     string
	f        io.ReaderAt
	close    func() error
	data     int64 // where the tensors' bytes begin
	tensors  []Info
	byName   map[string]int
	metadata map[string]string
	buf      []byte
}

// Open reads the header of a safetensors file and checks it against the file's
// size.
func Open(path string) (*Reader, error) {
	f, size, err := openFile(path, ".safetensors")
	if err != nil {
		return nil, err
	}
	r, err := newReader(f, size)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	r.path, r.close = path, f.Close
	return r, nil
}

// openFile opens a file of a kind, named by its suffix, and returns its size.
func openFile(path, kind string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("checkpoint: %w", err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = fmt.Errorf("is a directory: name the %s file in it", kind)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("checkpoint: %s: %w", path, err)
	}
	return f, st.Size(), nil
}

func newReader(f io.ReaderAt, size int64) (*Reader, error) {
	var length [8]byte
	if size < 8 {
		return nil, fmt.Errorf("truncated: %d bytes cannot hold a safetensors header: copy the file again", size)
	}
	if _, err := f.ReadAt(length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return nil, fmt.Errorf("not a safetensors file: its header would take %d bytes", n)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("truncated: the header takes %d bytes, the file has %d: copy the file again", n, size)
	}
	header := make([]byte, n)
	if _, err := f.ReadAt(header, 8); err != nil {
		return nil, err
	}
	r := &Reader{f: f, data: 8 + int64(n), byName: make(map[string]int)}
	if err := r.parse(header, size-r.data); err != nil {
		return nil, err
	}
	return r, nil
}

// parse reads the header of a file with size bytes of tensors.
func (r *Reader) parse(header []byte, size int64) error {
	var entries map[string]json.RawMessage
	if err := json.Unmarshal(header, &entries); err != nil {
		return fmt.Errorf("bad safetensors header: %w", err)
	}
	for name, raw := range entries {
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &r.metadata); err != nil {
				return fmt.Errorf("bad safetensors header: __metadata__: %w", err)
			}
			continue
		}
		info, err := parseEntry(name, raw, size)
		if err != nil {
			return err
		}
		r.tensors = append(r.tensors, info)
	}
	slices.SortFunc(r.tensors, func(a, b Info) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	var at int64
	for i, t := range r.tensors {
		if t.begin != at {
			return fmt.Errorf("bad safetensors header: tensor %q begins at byte %d, not %d", t.Name, t.begin, at)
		}
		at = t.end
		r.byName[t.Name] = i
	}
	if at != size {
		return fmt.Errorf("the tensors end at byte %d, the file at %d: copy the file again", at, size)
	}
	return nil
}

func parseEntry(name string, raw json.RawMessage, size int64) (Info, error) {
	var e struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Info{}, fmt.Errorf("bad safetensors header: tensor %q: %w", name, err)
	}
	width := dtypeSize(e.DType)
	if width == 0 {
		return Info{}, fmt.Errorf("bad safetensors header: tensor %q: unknown dtype %q", name, e.DType)
	}
	info := Info{Name: name, DType: e.DType, begin: e.Offsets[0], end: e.Offsets[1]}
	elements := int64(1)
	for _, d := range e.Shape {
		if d < 0 || d > math.MaxInt32 || d > 0 && elements > math.MaxInt64/8/d {
			return Info{}, fmt.Errorf("bad safetensors header: tensor %q: implausible shape %v", name, e.Shape)
		}
		elements *= d
		info.Shape = append(info.Shape, int(d))
	}
	if info.begin < 0 || info.end < info.begin || info.end-info.begin != elements*width {
		return Info{}, fmt.Errorf("bad safetensors header: tensor %q: bytes %d to %d do not hold %v elements of %s", name, info.begin, info.end, e.Shape, e.DType)
	}
	if info.end > size {
		return Info{}, fmt.Errorf("truncated: tensor %q ends at byte %d of %d: copy the file again", name, info.end, size)
	}
	return info, nil
}

// Tensors lists the file's tensors in the order of their bytes.
func (r *Reader) Tensors() []Info { return slices.Clone(r.tensors) }

// Has reports whether the file has a tensor of that name.
func (r *Reader) Has(name string) bool { _, ok := r.byName[name]; return ok }

// Metadata returns the header's free-form strings.
func (r *Reader) Metadata() map[string]string { return r.metadata }

// ReadF32 reads one tensor of the given shape into dst, widening BF16 and F16.
func (r *Reader) ReadF32(name string, shape []int, dst []float32) error {
	t, err := r.find(name, shape, len(dst), "F32", "BF16", "F16")
	if err != nil {
		return err
	}
	width := int(dtypeSize(t.DType))
	return r.read(t, width, func(b []byte) {
		n := len(b) / width
		switch t.DType {
		case "F32":
			for i := range n {
				dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			}
		case "BF16":
			for i := range n {
				dst[i] = half.FromBF16(binary.LittleEndian.Uint16(b[2*i:]))
			}
		case "F16":
			for i := range n {
				dst[i] = half.FromF16(binary.LittleEndian.Uint16(b[2*i:]))
			}
		}
		dst = dst[n:]
	})
}

// ReadU8 reads one tensor of bytes of the given shape into dst.
func (r *Reader) ReadU8(name string, shape []int, dst []int32) error {
	t, err := r.find(name, shape, len(dst), "U8")
	if err != nil {
		return err
	}
	return r.read(t, 1, func(b []byte) {
		for i, c := range b {
			dst[i] = int32(c)
		}
		dst = dst[len(b):]
	})
}

// find returns a tensor of the given shape, n elements, and one of the types.
func (r *Reader) find(name string, shape []int, n int, types ...string) (Info, error) {
	i, ok := r.byName[name]
	if !ok {
		return Info{}, fmt.Errorf("checkpoint: %s: tensor %q is missing", r.path, name)
	}
	t := r.tensors[i]
	if !slices.Equal(t.Shape, shape) {
		return t, fmt.Errorf("checkpoint: %s: tensor %q has shape %v, the configuration says %v: config.json belongs to another checkpoint", r.path, name, t.Shape, shape)
	}
	if n != t.Len() {
		panic("checkpoint: read: destination differs from the shape in length")
	}
	if !slices.Contains(types, t.DType) {
		return t, fmt.Errorf("checkpoint: %s: tensor %q is of type %s: Updraft reads %s; convert the checkpoint", r.path, name, t.DType, orList(types))
	}
	return t, nil
}

// orList writes "a, b or c".
func orList(list []string) string {
	n := len(list) - 1
	if n < 1 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:n], ", ") + " or " + list[n]
}

// read hands the tensor's bytes to take, whole elements of width bytes at a time.
func (r *Reader) read(t Info, width int, take func(b []byte)) error {
	if r.buf == nil {
		r.buf = make([]byte, 1<<20)
	}
	at := r.data + t.begin
	for left := t.Len(); left > 0; {
		n := min(left, len(r.buf)/width)
		b := r.buf[:n*width]
		if _, err := r.f.ReadAt(b, at); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("checkpoint: %s: tensor %q: %w", r.path, t.Name, err)
		}
		take(b)
		left, at = left-n, at+int64(len(b))
	}
	return nil
}

// Close closes the file.
func (r *Reader) Close() error {
	if r.close == nil {
		return nil
	}
	return r.close()
}
