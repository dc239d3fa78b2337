package checkpoint

import (
	"bytes"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
)

// Every type is dequantised to the bits that the format's own Python package
// computes (testdata/make_gguf.py).
func TestGGUFQuants(t *testing.T) {
	g, err := OpenGGUF(filepath.Join("testdata", "quants.gguf"))
	require.NoError(t, err)
	defer g.Close()
	seen := 0
	for _, x := range g.Tensors() {
		if strings.HasSuffix(x.Name, ".expected") {
			continue
		}
		seen++
		require.Equal(t, x.Name, x.DType)
		got, want := make([]float32, x.Len()), make([]float32, x.Len())
		require.NoError(t, g.ReadF32(x.Name, x.Shape, got))
		require.NoError(t, g.ReadF32(x.Name+".expected", x.Shape, want))
		for i := range want {
			require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]), "%s[%d]: %v, want %v", x.Name, i, got[i], want[i])
		}
	}
	require.Equal(t, 10, seen)
	require.Equal(t, []string{"a", "", "ü"}, g.Strings("made.list"))
	require.Equal(t, []int64{1, -2, 3}, g.Ints("made.numbers"))
	yes, ok := g.Bool("made.bool")
	require.True(t, ok && yes)
	half, ok := g.Float("made.float")
	require.True(t, ok)
	require.Equal(t, 0.5, half)
	_, ok = g.Int("made.none")
	require.False(t, ok)
	arch, _ := g.String("general.architecture")
	require.Equal(t, "llama", arch)
	require.ErrorContains(t, g.ReadF32("none", []int{1}, make([]float32, 1)), `tensor "none" is missing`)
	require.ErrorContains(t, g.ReadF32("F16", []int{1}, make([]float32, 1)), "has shape [2 32]")
}

// What is written is read back: to the bit, or within the type's rounding.
func TestGGUFRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.gguf")
	values := []GGUFValue{{"general.architecture", "llama"}, {"a.bool", true}, {"a.u32", uint32(7)}, {"a.u64", uint64(1 << 40)}, {"a.float", float32(0.25)},
		{"a.words", []string{"x", "yz"}}, {"a.ints", []int32{-1, 2}}, {"a.floats", []float32{1, 0.5}}}
	v := make([]float32, 3*64)
	for i := range v {
		v[i] = float32(math.Sin(float64(i))) * 3
	}
	v[70] = 0
	infos := []Info{{Name: "v", Shape: []int{5}, DType: "F32"}}
	for _, d := range []string{"F32", "F16", "BF16", "Q8_0"} {
		infos = append(infos, Info{Name: d, Shape: []int{3, 64}, DType: d})
	}
	w, err := CreateGGUF(path, values, infos)
	require.NoError(t, err)
	require.NoError(t, w.WriteF32("v", v[:5]))
	for _, x := range infos[1:] {
		require.NoError(t, w.WriteF32(x.Name, v))
	}
	require.NoError(t, w.Commit())
	g, err := OpenGGUF(path)
	require.NoError(t, err)
	defer g.Close()
	require.Equal(t, []string{"general.architecture", "a.bool", "a.u32", "a.u64", "a.float", "a.words", "a.ints", "a.floats"}, g.Keys())
	n, _ := g.Int("a.u64")
	require.EqualValues(t, 1<<40, n)
	require.Equal(t, []float64{1, 0.5}, g.Floats("a.floats"))
	require.Equal(t, []int64{-1, 2}, g.Ints("a.ints"))
	for name, ulp := range map[string]float64{"F32": 0, "F16": 0x1p-11, "BF16": 0x1p-8, "Q8_0": 0} {
		got := make([]float32, len(v))
		require.NoError(t, g.ReadF32(name, []int{3, 64}, got))
		for i := range v {
			tol := ulp * math.Abs(float64(v[i]))
			if name == "Q8_0" { // half a step, and the scale's rounding to F16 over 127 steps
				tol = 3.0 / 127 * (0.5 + 127*0x1p-11)
			}
			require.LessOrEqual(t, math.Abs(float64(got[i]-v[i])), tol, "%s[%d]", name, i)
		}
	}
	_, err = CreateGGUF(path, nil, []Info{{Name: "x", Shape: []int{33}, DType: "Q8_0"}})
	require.ErrorContains(t, err, "no whole blocks")
	_, err = CreateGGUF(path, nil, []Info{{Name: "x", Shape: []int{32}, DType: "Q4_K"}})
	require.ErrorContains(t, err, "cannot be written")
	_, err = CreateGGUF(path, []GGUFValue{{"k", 1}}, nil)
	require.ErrorContains(t, err, "cannot be written")
}

// A damaged file gives one clear line.
func TestGGUFDamage(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join("testdata", "quants.gguf"))
	require.NoError(t, err)
	open := func(b []byte) error { _, err := newGGUF(bytes.NewReader(b), int64(len(b))); return err }
	require.NoError(t, open(whole))
	for n := 0; n < len(whole); n += 97 {
		require.Error(t, open(whole[:n]), "cut at %d", n)
	}
	edit := func(at int, v uint32) []byte {
		b := bytes.Clone(whole)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	require.ErrorContains(t, open(edit(0, 1)), "not a GGUF file")
	require.ErrorContains(t, open(edit(4, 1)), "version 1")
	require.ErrorContains(t, open(edit(4, 3<<24)), "big-endian")
	require.ErrorContains(t, open(edit(8, 1<<30)), "truncated")
	require.ErrorContains(t, open(edit(16, 1<<30)), "truncated")
}

func FuzzGGUF(f *testing.F) {
	whole, err := os.ReadFile(filepath.Join("testdata", "quants.gguf"))
	require.NoError(f, err)
	f.Add(whole)
	f.Add(whole[:400])
	f.Fuzz(func(t *testing.T, b []byte) {
		var g *GGUF
		var err error
		testx.AllocatesWithin(t, len(b), 1<<20, 64, func() { g, err = newGGUF(bytes.NewReader(b), int64(len(b))) })
		if err != nil {
			require.NotContains(t, err.Error(), "\n")
			return
		}
		for _, x := range g.Tensors() {
			if x.Len() < 1<<16 {
				g.ReadF32(x.Name, x.Shape, make([]float32, x.Len()))
			}
		}
	})
}
