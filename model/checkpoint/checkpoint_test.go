package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// file returns the bytes of a safetensors file.
func file(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func write(t testing.TB, b []byte) string {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	require.NoError(t, os.WriteFile(path, b, 0o644))
	return path
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.safetensors")
	a := []float32{1, -2, float32(math.Inf(1)), math.Float32frombits(0x7fc00123), 0, 5e-45}
	big := make([]float32, 300_001) // several buffers
	for i := range big {
		big[i] = float32(i)
	}
	infos := []Info{{Name: "b", Shape: []int{2, 3}}, {Name: "a", Shape: []int{300_001}}, {Name: "s"}, {Name: "e", Shape: []int{0, 4}}}
	save := func() {
		w, err := Create(path, infos, map[string]string{"format": "pt"})
		require.NoError(t, err)
		require.NoError(t, w.WriteF32("b", a))
		require.NoError(t, w.WriteF32("a", big))
		require.NoError(t, w.WriteF32("s", []float32{7}))
		require.NoError(t, w.WriteF32("e", nil))
		_, err = os.Stat(path)
		require.Error(t, err, "not there before Commit")
		require.NoError(t, w.Commit())
		w.Abort()
	}
	save()
	first, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Zero(t, binary.LittleEndian.Uint64(first)%8)

	r, err := Open(path)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"format": "pt"}, r.Metadata())
	require.True(t, r.Has("s"))
	require.Len(t, r.Tensors(), 4)
	got := make([]float32, 6)
	require.NoError(t, r.ReadF32("b", []int{2, 3}, got))
	for i := range a {
		require.Equal(t, math.Float32bits(a[i]), math.Float32bits(got[i]))
	}
	gotBig := make([]float32, len(big))
	require.NoError(t, r.ReadF32("a", []int{300_001}, gotBig))
	require.Equal(t, big, gotBig)
	require.ErrorContains(t, r.ReadF32("c", nil, nil), `tensor "c" is missing`)
	require.ErrorContains(t, r.ReadF32("b", []int{3, 2}, got), "has shape [2 3], the configuration says [3 2]")
	require.NoError(t, r.Close())

	require.NoError(t, os.Remove(path))
	save()
	second, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(first, second), "equal contents give equal files")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "no temporary file is left")
}

func TestHalves(t *testing.T) {
	path := write(t, file(`{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},"c":{"dtype":"I32","shape":[],"data_offsets":[8,12]}}`,
		0x80, 0x3f, 0x20, 0xc0, 0x00, 0x3c, 0x00, 0xc1, 1, 0, 0, 0))
	r, err := Open(path)
	require.NoError(t, err)
	defer r.Close()
	v := make([]float32, 2)
	require.NoError(t, r.ReadF32("a", []int{2}, v))
	require.Equal(t, []float32{1, -2.5}, v)
	require.NoError(t, r.ReadF32("b", []int{2}, v))
	require.Equal(t, []float32{1, -2.5}, v)
	require.ErrorContains(t, r.ReadF32("c", nil, v[:1]), `tensor "c" is of type I32: Updraft reads F32, BF16 or F16`)
}

func TestBadFiles(t *testing.T) {
	const a = `{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}`
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":         {nil, "truncated: 0 bytes"},
		"short header":  {file(a + "}")[:20], "truncated: the header takes"},
		"huge header":   {[]byte("<!DOCTYPE html>"), "not a safetensors file"},
		"not json":      {file("{{"), "bad safetensors header"},
		"list":          {file("[]"), "bad safetensors header"},
		"no data":       {file(a + "}"), `truncated: tensor "a" ends at byte 4 of 0`},
		"surplus":       {file(a+"}", 0, 0, 0, 0, 0), "the tensors end at byte 4, the file at 5"},
		"dtype":         {file(`{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`, 0, 0, 0, 0), `unknown dtype "F31"`},
		"size":          {file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "do not hold [2] elements"},
		"negative":      {file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "implausible shape"},
		"overflow":      {file(`{"a":{"dtype":"F32","shape":[2147483647,2147483647,2147483647],"data_offsets":[0,4]}}`, 0, 0, 0, 0), "implausible shape"},
		"hole":          {file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 0, 0), "begins at byte 1, not 0"},
		"overlap":       {file(a+`,"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}`, 0, 0, 0, 0), "begins at byte 2, not 4"},
		"unknown field": {file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, 0, 0, 0, 0), `tensor "a"`},
		"metadata":      {file(`{"__metadata__":{"a":1}}`), "__metadata__"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.file)
			_, err := Open(path)
			require.ErrorContains(t, err, c.want)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "\n")
		})
	}
	_, err := Open(filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(t.TempDir())
	require.ErrorContains(t, err, "is a directory")
}

func TestWriterMisuse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.safetensors")
	_, err := Create(path, []Info{{Name: "a"}, {Name: "a"}}, nil)
	require.Error(t, err)
	_, err = Create(filepath.Join(dir, "none", "x"), nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
	w, err := Create(path, []Info{{Name: "a", Shape: []int{2}}}, nil)
	require.NoError(t, err)
	require.Panics(t, func() { w.WriteF32("b", make([]float32, 2)) })
	require.Panics(t, func() { w.WriteF32("a", make([]float32, 3)) })
	require.ErrorContains(t, w.Commit(), `"a" was announced and not written`)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	put := func(s string, fail error) error {
		return WriteFile(path, func(w io.Writer) error {
			io.WriteString(w, s)
			return fail
		})
	}
	require.NoError(t, put("old", nil))
	broken := errors.New("broken")
	require.ErrorIs(t, put("new", broken), broken)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "old", string(b), "a failure leaves the old file")
	require.NoError(t, put("new", nil))
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "new", string(b))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func names(t *testing.T, dir string) string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var s []string
	for _, e := range entries {
		s = append(s, e.Name())
	}
	return strings.Join(s, " ")
}

func TestWriteDir(t *testing.T) {
	root := filepath.Join(t.TempDir(), "run")
	dst := filepath.Join(root, "checkpoint-1")
	put := func(name string, fail error) error {
		return WriteDir(dst, func(tmp string) error {
			if err := os.MkdirAll(filepath.Join(tmp, "sub"), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(tmp, "sub", name), nil, 0o644); err != nil {
				return err
			}
			return fail
		})
	}
	require.NoError(t, put("a", nil))
	require.Equal(t, "a", names(t, filepath.Join(dst, "sub")))
	require.NoError(t, put("b", nil))
	require.Equal(t, "b", names(t, filepath.Join(dst, "sub")), "replaced, not merged")
	broken := errors.New("broken")
	require.ErrorIs(t, put("c", broken), broken)
	require.Equal(t, "b", names(t, filepath.Join(dst, "sub")))
	require.Equal(t, "checkpoint-1", names(t, root), "nothing is left over")
}

// Every state in which a crash can leave WriteDir.
func TestRecoverDir(t *testing.T) {
	root := t.TempDir()
	dst := filepath.Join(root, "c")
	mk := func(name, content string) {
		require.NoError(t, os.MkdirAll(filepath.Join(root, name), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name, content), nil, 0o644))
	}
	check := func(want string) {
		require.NoError(t, RecoverDir(dst))
		require.Equal(t, "c other", names(t, root))
		require.Equal(t, want, names(t, dst))
	}
	mk("other", "x")
	mk("c", "old")
	mk(".c.tmp-1", "half")
	check("old")
	require.NoError(t, os.RemoveAll(dst)) // between the renames
	mk(".c.old-1", "old")
	mk(".c.tmp-1", "new")
	check("old")
	mk(".c.old-1", "older") // after both
	check("old")
	require.NoError(t, RecoverDir(filepath.Join(root, "none", "c")))
}

func FuzzHeader(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"__metadata__":{"x":"y"}}`, 0, 0, 0, 0))
	f.Add(file(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *Reader
		var err error
		testx.AllocatesWithin(t, len(b), 1<<20, 64, func() { r, err = newReader(bytes.NewReader(b), int64(len(b))) })
		if err != nil {
			return
		}
		var total int
		for _, i := range r.Tensors() {
			n := i.Len()
			if total += n * int(dtypeSize(i.DType)); total > len(b) {
				t.Fatalf("tensors of %d bytes in a file of %d", total, len(b))
			}
			err := r.ReadF32(i.Name, i.Shape, make([]float32, n))
			if known := i.DType == "F32" || i.DType == "F16" || i.DType == "BF16"; known != (err == nil) {
				t.Fatalf("%v: %v", i, err)
			}
		}
	})
}
