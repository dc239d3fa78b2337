package kernels_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// typeName names a type in messages.
func typeName(t kernels.Type) string { return [2]string{"F32", "BF16"}[t] }

var rowShapes = [][2]int{{1, 1}, {3, 7}, {5, 16}, {4, 33}, {2, 300}}

func TestRowsEmulated(t *testing.T) { kerneltest.EachMode(t, checkRows) }

func checkRows(d *kerneltest.Device) error {
	return run(d, map[string]func(*kerneltest.Device) error{
		"fill": checkFill, "copy": checkCopy, "convert": checkConvert, "gather": checkGather,
		"rope": checkRope, "swiglu": checkSwiGLU,
	})
}

// checkFill fills a matrix of bytes inside of a buffer of others.
func checkFill(d *kerneltest.Device) error {
	for _, size := range []int{1, 2, 4} {
		for _, l := range placings {
			for _, s := range rowShapes {
				rows, cols, stride := s[0], s[1], s[1]+l.pad
				n := l.off + (rows-1)*stride + cols
				want := bytes.Repeat([]byte{0xa5}, n*size)
				buf := kerneltest.InOut(d, want)
				for r := range rows {
					for c := range cols {
						copy(want[(l.off+r*stride+c)*size:], []byte{0x44, 0x33, 0x22, 0x11}[:size])
					}
				}
				k := kernels.Fill(size)
				if err := d.Launch(k.Spec, [3]int{k.Grid(rows, cols)}, buf.At(l.off*size), 0x11223344, rows, cols, stride); err != nil {
					return err
				}
				if !bytes.Equal(kerneltest.Values[byte](d, buf), want) {
					return fmt.Errorf("%d bytes, %v, %v: wrong bytes", size, l, s)
				}
			}
		}
	}
	return nil
}

func checkCopy(d *kerneltest.Device) error {
	for _, size := range []int{1, 2, 4} {
		for i := range len(placings) * len(placings) {
			l, from := placings[i%len(placings)], placings[i/len(placings)]
			for _, s := range rowShapes {
				rows, cols := s[0], s[1]
				length := func(l placing) int { return l.off + (rows-1)*(cols+l.pad) + cols }
				src := make([]byte, length(from)*size)
				for j := range src {
					src[j] = byte(j*7 + 1)
				}
				want := bytes.Repeat([]byte{0xa5}, length(l)*size)
				buf := kerneltest.InOut(d, want)
				for r := range rows {
					copy(want[(l.off+r*(cols+l.pad))*size:], src[(from.off+r*(cols+from.pad))*size:][:cols*size])
				}
				k := kernels.CopyBits(size)
				if err := d.Launch(k.Spec, [3]int{k.Grid(rows, cols)}, buf.At(l.off*size), kerneltest.In(d, src).At(from.off*size),
					rows, cols, cols+l.pad, cols+from.pad); err != nil {
					return err
				}
				if !bytes.Equal(kerneltest.Values[byte](d, buf), want) {
					return fmt.Errorf("%d bytes, %v, %v: wrong bytes", size, l, s)
				}
			}
		}
	}
	return nil
}

// checkConvert: one rounding, exactly, also of what lies at the edges.
func checkConvert(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(1, 2))
	for i, l := range placings {
		for _, s := range rowShapes {
			v := normal(r, s[0]*s[1])
			for j, x := range []float32{0, float32(math.Copysign(0, -1)), 1 + 1.0/256, 1 + 3.0/256, float32(math.Inf(1)), math.MaxFloat32,
				math.SmallestNonzeroFloat32, float32(math.Inf(-1))} {
				if j < len(v) {
					v[j] = x
				}
			}
			src := matIn(d, kernels.F32, l, s[0], s[1], v)
			dst := matOut(d, kernels.BF16, placings[(i+s[0])%len(placings)], s[0], s[1])
			k := kernels.ToBF16()
			if err := d.Launch(k.Spec, [3]int{k.Grid(s[0], s[1])}, dst.p(), src.p(), s[0], s[1], dst.stride, src.stride); err != nil {
				return err
			}
			want := make([]float32, len(v))
			for j, x := range v {
				want[j] = half.FromBF16(half.BF16(x))
			}
			if err := dst.exactly("to bf16", want); err != nil {
				return err
			}
			back := matOut(d, kernels.F32, l, s[0], s[1])
			k = kernels.ToF32()
			if err := d.Launch(k.Spec, [3]int{k.Grid(s[0], s[1])}, back.p(), dst.p(), s[0], s[1], back.stride, dst.stride); err != nil {
				return err
			}
			if err := back.exactly("to f32", want); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkGather(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(3, 4))
	const vocab = 5
	for _, types := range [][2]kernels.Type{{kernels.F32, kernels.F32}, {kernels.F32, kernels.BF16}, {kernels.BF16, kernels.BF16}} {
		for i, l := range placings {
			for _, cols := range []int{1, 9, 48} {
				ids := []int32{4, 0, -1, 2, 4, vocab}
				table := matIn(d, types[1], l, vocab, cols, normal(r, vocab*cols))
				dst := matOut(d, types[0], placings[(i+cols)%len(placings)], len(ids), cols)
				k := kernels.Gather(types[0], types[1])
				err := d.Launch(k.Spec, [3]int{k.Grid(len(ids), cols)}, dst.p(), table.p(), ints(d, ids), len(ids), cols, vocab,
					dst.stride, table.stride)
				if err != nil {
					return err
				}
				got, err := dst.after()
				if err != nil {
					return err
				}
				for t, id := range ids {
					for c, v := range got[t*cols:][:cols] {
						switch {
						case id >= vocab && v == v:
							return fmt.Errorf("an id beyond the table gave %v", v)
						case id < 0 && v != 0, id >= 0 && id < vocab && v != table.v[int(id)*cols+c]:
							return fmt.Errorf("row %d, column %d: %v", t, c, v)
						}
					}
				}
			}
		}
	}
	return nil
}

func checkRope(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(5, 6))
	const limit = 9
	for _, ty := range []kernels.Type{kernels.F32, kernels.BF16} {
		for i, l := range placings {
			for _, s := range [][2]int{{1, 1}, {3, 3}, {2, 16}, {3, 32}} {
				heads, half := s[0], s[1]
				positions := []int32{3, -1, 0, limit - 1, limit}
				rows, cols, inverse := len(positions), heads*2*half, i%2 == 1
				x := matInOut(d, ty, l, rows, cols, normal(r, rows*cols))
				cos, sin := make([]float32, limit*half), make([]float32, limit*half)
				for p := range limit {
					for j := range half {
						s, c := math.Sincos(float64(p) * math.Pow(100, -float64(j)/float64(half)))
						cos[p*half+j], sin[p*half+j] = float32(c), float32(s)
					}
				}
				mc, ms := matIn(d, kernels.F32, placings[(i+1)%3], limit, half, cos), matIn(d, kernels.F32, l, limit, half, sin)
				k := kernels.RoPE(ty)
				err := d.Launch(k.Spec, [3]int{k.Grid(rows, heads, half)}, x.p(), ints(d, positions), mc.p(), ms.p(), rows, heads, half,
					limit, x.stride, mc.stride, ms.stride, inverse)
				if err != nil {
					return err
				}
				want, mag := make([]float64, rows*cols), make([]float64, rows*cols)
				for j := range want {
					p, h := positions[j/cols], j%cols/(2*half)
					at, c := j/cols*cols+h*2*half, j%cols%(2*half)
					pair := c % half
					if p < 0 {
						want[j] = float64(x.v[j])
						continue
					}
					if p >= limit {
						want[j] = math.NaN()
						continue
					}
					a, b := float64(x.v[at+pair]), float64(x.v[at+half+pair])
					co, si := float64(cos[int(p)*half+pair]), float64(sin[int(p)*half+pair])
					if inverse {
						si = -si
					}
					if want[j] = a*co - b*si; c >= half {
						want[j], mag[j] = b*co+a*si, math.Abs(b*co)+math.Abs(a*si)
					} else {
						mag[j] = math.Abs(a*co) + math.Abs(b*si)
					}
				}
				// Two roundings: of a product, and of the fused sum.
				tol := tolerance(2, mag, want)
				for j := range tol {
					if math.IsNaN(want[j]) {
						tol[j] = 0
					}
				}
				if err := x.near("x", want, tol); err != nil {
					return fmt.Errorf("%s, %v, heads and half %v, inverse %v: %w", typeName(ty), l, s, inverse, err)
				}
			}
		}
	}
	return nil
}

// gates include the sigmoid's tails.
func gates(r *rand.Rand, n int) []float32 {
	v := normal(r, n)
	for i, x := range []float32{0, 20, -20, 60, -60, 100, -100, 1e-8, -1e-30} {
		if 2*i < n {
			v[2*i] = x
		}
	}
	return v
}

// swigluC allows the exponential (3 ulp, 6 u), a division, a sum and two products.
const swigluC = 12

func checkSwiGLU(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(7, 8))
	for _, ty := range []kernels.Type{kernels.F32, kernels.BF16} {
		for i, l := range placings {
			for _, s := range rowShapes {
				rows, cols := s[0], s[1]
				n := rows * cols
				other := placings[(i+rows)%len(placings)]
				gate, up, dy := matInOut(d, ty, l, rows, cols, gates(r, n)), matInOut(d, ty, other, rows, cols, normal(r, n)), matIn(d, ty, l, rows, cols, normal(r, n))
				y := matOut(d, ty, other, rows, cols)
				k := kernels.SwiGLU(ty)
				if err := d.Launch(k.Spec, [3]int{k.Grid(rows, cols)}, y.p(), gate.p(), up.p(), rows, cols, y.stride, gate.stride, up.stride); err != nil {
					return err
				}
				var wy, wg, wu, mg []float64
				for j := range n {
					g, u, q := float64(gate.v[j]), float64(up.v[j]), float64(dy.v[j])
					sig, not := 1/(1+math.Exp(-g)), 1/(1+math.Exp(g))
					wy = append(wy, g*sig*u)
					wg = append(wg, q*u*sig*(1+g*not))
					mg = append(mg, math.Abs(q*u*sig)*(1+math.Abs(g)*not))
					wu = append(wu, q*g*sig)
				}
				// e^-87 is where the exponential becomes zero.
				flush := func(tol, want []float64) []float64 {
					for j := range tol {
						if math.Abs(want[j]) < 1e-34 {
							tol[j] += 1e-34
						}
					}
					return tol
				}
				abs := func(v []float64) []float64 {
					out := make([]float64, len(v))
					for j, x := range v {
						out[j] = math.Abs(x)
					}
					return out
				}
				fail := func(err error) error { return fmt.Errorf("%s, %v, %v: %w", typeName(ty), l, s, err) }
				if err := y.near("y", wy, flush(tolerance(swigluC, abs(wy), wy), wy)); err != nil {
					return fail(err)
				}
				k = kernels.SwiGLUBackward(ty) // in place
				if err := d.Launch(k.Spec, [3]int{k.Grid(rows, cols)}, gate.p(), up.p(), dy.p(), gate.p(), up.p(), rows, cols,
					gate.stride, up.stride, dy.stride, gate.stride, up.stride); err != nil {
					return err
				}
				err := errors.Join(gate.near("dgate", wg, flush(tolerance(swigluC, mg, wg), wg)),
					up.near("dup", wu, flush(tolerance(swigluC, abs(wu), wu), wu)))
				if err != nil {
					return fail(err)
				}
			}
		}
	}
	return nil
}

func TestRowsEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "rows", []kerneltest.Defect{
		{Name: "fill beyond the row", Old: "r.n = min((int)Raw<T>::kCount, cols - r.col);", New: "r.n = Raw<T>::kCount;"},
		{Name: "fill of half of the bytes", Old: "(bits & 0xffff) * 0x10001u", New: "(bits & 0xffff)"},
		{Name: "copy without alignment", Old: "aligned16(dst) && aligned16(src)", New: "aligned16(dst)"},
		{Name: "source's stride for both", Old: "dst += (long long)r.row * dst_stride + r.col;\n  src", New: "dst += (long long)r.row * (dst_stride ? src_stride : 0) + r.col;\n  src"},
		{Name: "gather beyond the table", Old: "id >= 0 && id < limit", New: "id >= 0 && id <= limit"},
		{Name: "gather leaves rows without an id", Old: "id < 0 ? 0.0f : bits_float", New: "id < -1 ? 0.0f : bits_float"},
		{Name: "rope the wrong way", Old: "inverse ? -s[i] : s[i]", New: "inverse ? s[i] : -s[i]"},
		{Name: "rope ignores negative positions", Old: "if (position < 0) return;", New: "if (position < 0) position = 1;"},
		{Name: "rope rotates the rotated", Old: "b[i] = fma(b[i], c[i], a[i] * sine);\n    a[i] = first;", New: "a[i] = first;\n    b[i] = fma(b[i], c[i], a[i] * sine);"},
		{Name: "rope beyond half", Old: "int left = half - j;", New: "int left = 2 * half - j;"},
		{Name: "swiglu backward swapped", Old: "g[i] = both.x;\n    u[i] = both.y;", New: "g[i] = both.y;\n    u[i] = both.x;"},
		{Name: "swiglu of up", Old: "swiglu(g[i], u[i])", New: "swiglu(u[i], g[i])"},
		{Name: "exponential not reduced", Old: "g[i] = swiglu(g[i], u[i]);", New: "g[i] = g[i] / (1.0f + exp2_fast(g[i] * -1.44269504f)) * u[i];"},
	}, checkRows)
}
