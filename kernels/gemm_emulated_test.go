package kernels

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
)

// The emulator's modes (emu/emulator.h): when asynchronous copies land.
const (
	late   = 0
	atOnce = 1
	random = 2
)

// buildEmulated compiles emu/gemm_main.cc with the kernel, after edit has
// changed the kernel's text, and returns the program.
func buildEmulated(t *testing.T, edit func(string) string) string {
	t.Helper()
	cxx, err := exec.LookPath("c++")
	// The emulator's fibers are glibc's.
	testx.Have(t, "c++", err == nil && runtime.GOOS == "linux")
	src, err := os.ReadFile("gemm_bf16.cu")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gemm_bf16.cu"), []byte(edit(string(src))), 0o644))
	program := filepath.Join(dir, "gemm")
	// A misaligned access, which a GPU refuses and a CPU does not, becomes a trap.
	msg, err := exec.Command(cxx, "-std=c++17", "-O1", "-Wall", "-Werror", "-Wno-unknown-pragmas",
		"-fsanitize=alignment", "-fsanitize-undefined-trap-on-error",
		"-DUPDRAFT_EMULATE", "-I"+dir, "-I.", "-o", program, "emu/gemm_main.cc").CombinedOutput()
	require.NoError(t, err, "%s", msg)
	return program
}

func unchanged(s string) string { return s }

// problem is one product. Rows of a and b have NaN between their K elements and
// their stride, so that a read beyond K shows.
type problem struct {
	m, n, k       int
	ldc, lda, ldb int
	bf16          bool
	a, b          []uint16
}

func up8(n int) int { return (n + 7) / 8 * 8 }

func newProblem(r *rand.Rand, m, n, k, pad int, bf16 bool) problem {
	p := problem{m: m, n: n, k: k, ldc: n + pad, lda: up8(k) + 8*pad, ldb: up8(k) + 16*pad, bf16: bf16}
	fill := func(rows, ld int) []uint16 {
		x := make([]uint16, (rows-1)*ld+k)
		for i := range x {
			x[i] = 0x7fff
			if i%max(ld, 1) < k {
				x[i] = half.BF16(float32(r.NormFloat64()))
			}
		}
		return x
	}
	p.a, p.b = fill(m, p.lda), fill(n, p.ldb)
	return p
}

const guardBytes = 4096

// run computes p in the program and checks that nothing but C's M×N elements was
// written and that no bank conflict was met. It returns C as float32, packed.
func (p problem) run(program string, landing, seed int) ([]float32, error) {
	var in bytes.Buffer
	kind, size := int32(0), 4
	if p.bf16 {
		kind, size = 1, 2
	}
	head := []int32{kind, int32(p.m), int32(p.n), int32(p.k), int32(p.ldc), int32(p.lda), int32(p.ldb), int32(landing), int32(seed)}
	for _, part := range []any{head, p.a, p.b} {
		if err := binary.Write(&in, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	var errText strings.Builder
	cmd := exec.Command(program)
	cmd.Stdin, cmd.Stderr = &in, &errText
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, errText.String())
	}
	if len(out) != 8+2*guardBytes+p.m*p.ldc*size {
		return nil, io.ErrUnexpectedEOF
	}
	if n := binary.LittleEndian.Uint64(out); n != 0 {
		return nil, fmt.Errorf("%d bank conflicts", n)
	}
	out = out[8:]
	c := out[guardBytes : len(out)-guardBytes]
	untouched := func(b []byte) bool { return len(bytes.Trim(b, "\xa5")) == 0 }
	if !untouched(out[:guardBytes]) || !untouched(out[len(out)-guardBytes:]) {
		return nil, errors.New("a guard zone was written")
	}
	got := make([]float32, 0, p.m*p.n)
	for i := range p.m {
		row := c[i*p.ldc*size : (i+1)*p.ldc*size]
		if !untouched(row[p.n*size:]) {
			return nil, fmt.Errorf("row %d was written beyond N", i)
		}
		for j := range p.n {
			if p.bf16 {
				got = append(got, half.FromBF16(binary.LittleEndian.Uint16(row[2*j:])))
			} else {
				got = append(got, math.Float32frombits(binary.LittleEndian.Uint32(row[4*j:])))
			}
		}
	}
	return got, nil
}

// compare checks got against a float64 product. The emulator rounds to fp32 once
// for each step of 16 along K, which errs by at most 2^-24·Σ|ab|; twice that and
// one step more are allowed. The bf16 result adds half of its last place.
func (p problem) compare(got []float32) error {
	for i := range p.m {
		for j := range p.n {
			var sum, abs float64
			for k := range p.k {
				x := float64(half.FromBF16(p.a[i*p.lda+k])) * float64(half.FromBF16(p.b[j*p.ldb+k]))
				sum += x
				abs += math.Abs(x)
			}
			tol := float64((p.k+15)/16+1) * 0x1p-23 * abs
			if p.bf16 {
				tol += 0x1p-8 * math.Abs(sum)
			}
			if d := math.Abs(float64(got[i*p.n+j]) - sum); !(d <= tol) {
				return fmt.Errorf("C[%d][%d] = %v, want %v within %v", i, j, got[i*p.n+j], sum, tol)
			}
		}
	}
	return nil
}

func (p problem) check(program string, landing, seed int) error {
	got, err := p.run(program, landing, seed)
	if err != nil {
		return err
	}
	return p.compare(got)
}

var emulatedShapes = []struct{ m, n, k, pad int }{
	{1, 1, 0, 0}, {1, 1, 1, 0}, {5, 3, 7, 1}, {16, 8, 16, 0}, {1, 130, 40, 1}, {129, 2, 33, 3},
	{128, 128, 160, 0}, {131, 257, 72, 1}, {64, 128, 250, 2},
}

func TestGEMMEmulated(t *testing.T) {
	program := buildEmulated(t, unchanged)
	r := rand.New(rand.NewPCG(7, 0))
	for _, s := range emulatedShapes {
		for _, bf16 := range []bool{false, true} {
			p := newProblem(r, s.m, s.n, s.k, s.pad, bf16)
			for landing, seed := range []int{late: 0, atOnce: 1, random: 2} {
				require.NoError(t, p.check(program, landing, seed), "%+v bf16=%v landing=%d", s, bf16, landing)
			}
		}
	}
}

// A result's bits depend on its own rows and K alone: not on the rows beside it,
// its place, or the strides.
func TestGEMMEmulatedBatchInvariant(t *testing.T) {
	program := buildEmulated(t, unchanged)
	r := rand.New(rand.NewPCG(8, 0))
	whole := newProblem(r, 150, 140, 96, 0, false)
	want, err := whole.run(program, late, 0)
	require.NoError(t, err)
	for _, row := range []int{0, 17, 127, 149} {
		one := whole
		one.m, one.ldc = 1, whole.ldc+1
		one.a = whole.a[row*whole.lda:][:whole.k]
		got, err := one.run(program, random, row+1)
		require.NoError(t, err)
		require.Equal(t, want[row*whole.n:(row+1)*whole.n], got, "row %d", row)
	}
}

// Each defect, sown into the kernel's text, must fail in at least one mode.
func TestGEMMEmulatedCatchesDefects(t *testing.T) {
	defects := []struct{ name, old, new string }{
		{"wait too weak", "cp_async_wait<kStages - 2>();", "cp_async_wait<kStages - 1>();"},
		{"no barrier", "    block_sync();\n", ""},
		{"K edge off by one", "(K - (k0 + c * 8)) * 2", "(K + 1 - (k0 + c * 8)) * 2"},
		{"row edge off by one", "row0 + r < rows", "row0 + r <= rows"},
		{"store beyond M", "if (m >= M) continue;", "if (m > M) continue;"},
		{"store beyond N", "if (n + 1 < N) row[n + 1] =", "if (n < N) row[n + 1] ="},
		{"bf16 store beyond N", "if (n + 1 < N) row[n + 1].bits", "if (n < N) row[n + 1].bits"},
		{"paired store at odd stride", "bool paired = (ldc & 1) == 0;", "bool paired = true;"},
		{"fragments of B swapped", "f.b[2 * i][1] = r[1];", "f.b[2 * i][1] = r[2];"},
		{"A walks k before rows", "(j & 1) * 8 + row, kk * 2 + (j >> 1)", "(j >> 1) * 8 + row, kk * 2 + (j & 1)"},
		{"bank conflicts", "((c ^ ((r >> 1) & 3)) << 4)", "(c << 4)"},
		{"stage refilled early", "int next = step + kStages - 1;", "int next = step + kStages;"},
		{"wrong group of tiles", "first_m + in_group % group_m", "first_m + in_group % kGroupM"},
	}
	src, err := os.ReadFile("gemm_bf16.cu")
	require.NoError(t, err)
	for _, d := range defects {
		t.Run(d.name, func(t *testing.T) {
			require.Equal(t, 1, strings.Count(string(src), d.old), "the defect does not apply: %s", d.old)
			program := buildEmulated(t, func(s string) string { return strings.Replace(s, d.old, d.new, 1) })
			r := rand.New(rand.NewPCG(9, 0))
			for _, p := range []problem{newProblem(r, 131, 133, 203, 0, false), newProblem(r, 127, 21, 203, 1, true)} {
				for landing, seed := range []int{late: 3, atOnce: 4, random: 5} {
					if err := p.check(program, landing, seed); err != nil {
						t.Log(err)
						return
					}
				}
			}
			t.Fatal("the defect was not caught")
		})
	}
}
