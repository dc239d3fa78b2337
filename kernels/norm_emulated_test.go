package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// normC allows a square root, a division and a few products around a sum.
const normC = 8

// norm runs the forward; x is of type tx.
func norm(d *kerneltest.Device, y, x *mat, w, rstd *mat, rows, groups, dim int, eps float32) error {
	k := kernels.RMSNorm(y.t, x.t, dim)
	var r *kerneltest.Buffer
	stride := 0
	if rstd != nil {
		r, stride = rstd.p(), rstd.stride
	}
	return d.Launch(k.Spec, [3]int{k.Grid(rows * groups)}, y.p(), x.p(), w.p(), r, rows*groups, groups, dim, y.stride, x.stride, stride, eps)
}

// rms64 returns y, rstd and the size of y's parts.
func rms64(x, w []float32, groups int, eps float64) (y, rstd []float64) {
	dim := len(w)
	for i := 0; i < len(x); i += dim {
		sum := 0.0
		for _, v := range x[i:][:dim] {
			sum += float64(v) * float64(v)
		}
		r := 1 / math.Sqrt(sum/float64(dim)+eps)
		rstd = append(rstd, r)
		for j, v := range x[i:][:dim] {
			y = append(y, float64(v)*r*float64(w[j]))
		}
	}
	return y, rstd
}

func magnitudes(v []float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = math.Abs(x)
	}
	return out
}

var normShapes = [][3]int{{1, 1, 1}, {3, 1, 9}, {5, 3, 16}, {2, 2, 129}, {9, 1, 1024}, {2, 1, 1025}, {3, 1, 2056}}

func TestNormEmulated(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error { return checkNorm(d, normShapes) })
}

func checkNorm(d *kerneltest.Device, shapes [][3]int) error {
	r := rand.New(rand.NewPCG(11, 12))
	for _, types := range [][2]kernels.Type{{kernels.F32, kernels.F32}, {kernels.BF16, kernels.F32}, {kernels.BF16, kernels.BF16}} {
		for i, s := range shapes {
			rows, groups, dim, l := s[0], s[1], s[2], placings[i%len(placings)]
			x := matInOut(d, types[1], l, rows, groups*dim, normal(r, rows*groups*dim))
			w := matIn(d, kernels.F32, placing{off: l.off}, 1, dim, normal(r, dim))
			y, rstd := matOut(d, types[0], placings[(i+1)%3], rows, groups*dim), matOut(d, kernels.F32, l, rows, groups)
			const eps = 1e-5
			if err := norm(d, y, x, w, rstd, rows, groups, dim, eps); err != nil {
				return err
			}
			fail := func(err error) error {
				return fmt.Errorf("%s from %s, %v: %w", typeName(types[0]), typeName(types[1]), s, err)
			}
			wy, wr := rms64(x.v, w.v, groups, float64(float32(eps)))
			c := testx.ChainC(dim)/2 + normC
			if err := y.near("y", wy, tolerance(c, magnitudes(wy), wy)); err != nil {
				return fail(err)
			}
			if err := rstd.near("rstd", wr, tolerance(c, wr, wr)); err != nil {
				return fail(err)
			}
			// In place and without rstd: the same bits.
			want, _ := y.after()
			if types[0] == types[1] {
				if err := norm(d, x, x, w, nil, rows, groups, dim, eps); err != nil {
					return err
				}
				if err := x.exactly("in place", want); err != nil {
					return fail(err)
				}
			}
		}
	}
	return nil
}

// A line's bits do not depend on the rows beside it, their number, or alignment.
func TestNormEmulatedInvariance(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		r := rand.New(rand.NewPCG(13, 14))
		for _, dim := range []int{72, 1100} {
			const rows = 10
			v, weights := normal(r, rows*dim), normal(r, dim)
			var whole []float32
			for _, l := range placings {
				x, w := matIn(d, kernels.F32, l, rows, dim, v), matIn(d, kernels.F32, placing{off: l.off}, 1, dim, weights)
				y := matOut(d, kernels.F32, l, rows, dim)
				if err := norm(d, y, x, w, nil, rows, 1, dim, 1e-6); err != nil {
					return err
				}
				got, err := y.after()
				if err != nil {
					return err
				}
				if whole == nil {
					whole = got
				}
				if err := testx.Identical(got, whole); err != nil {
					return fmt.Errorf("placing %v: %w", l, err)
				}
				one := matOut(d, kernels.F32, l, 1, dim)
				if err := norm(d, one, matIn(d, kernels.F32, l, 1, dim, v[7*dim:][:dim]), w, nil, 1, 1, dim, 1e-6); err != nil {
					return err
				}
				if err := one.exactly("a row alone", whole[7*dim:][:dim]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func TestNormBackwardEmulated(t *testing.T) {
	kerneltest.EachMode(t, func(d *kerneltest.Device) error {
		return checkNormBackward(d, append([][3]int{{70, 2, 24}}, normShapes...))
	})
}

func checkNormBackward(d *kerneltest.Device, shapes [][3]int) error {
	r := rand.New(rand.NewPCG(15, 16))
	f32, bf16 := kernels.F32, kernels.BF16
	for _, types := range [][3]kernels.Type{{f32, f32, f32}, {f32, bf16, f32}, {bf16, bf16, f32}, {f32, bf16, bf16}, {bf16, bf16, bf16}} {
		for i, s := range shapes {
			for _, mode := range []string{"overwrite", "accumulate", "in place", "without DW"} {
				if mode == "in place" && types[0] != types[1] || mode == "accumulate" && types[0] != f32 || mode == "without DW" && i%2 == 1 {
					continue
				}
				if err := normBackward(d, r, types, s, placings[i%3], placings[(i+1)%3], mode); err != nil {
					return fmt.Errorf("%v, %v, %s: %w", types, s, mode, err)
				}
			}
		}
	}
	return nil
}

func normBackward(d *kerneltest.Device, r *rand.Rand, types [3]kernels.Type, s [3]int, l, other placing, mode string) error {
	rows, groups, dim := s[0], s[1], s[2]
	n, lines := rows*groups*dim, rows*groups
	dy, x := matInOut(d, types[1], l, rows, groups*dim, normal(r, n)), matIn(d, types[2], other, rows, groups*dim, normal(r, n))
	w := matIn(d, kernels.F32, placing{off: l.off}, 1, dim, normal(r, dim))
	_, rs := rms64(x.v, w.v, groups, 1e-5)
	rstd := matIn(d, kernels.F32, other, rows, groups, toF32(rs))
	dx := matInOut(d, types[0], other, rows, groups*dim, normal(r, n))
	if mode == "in place" {
		dx = dy
	}
	k := kernels.RMSNormBackward(types[0], types[1], types[2], dim, lines)
	var partial *kerneltest.Buffer
	if mode != "without DW" {
		partial = d.Out(k.PartialBytes())
	}
	accumulate := mode == "accumulate"
	err := d.Launch(k.Spec, [3]int{k.Grid()}, dx.p(), partial, dy.p(), x.p(), w.p(), rstd.p(), lines, groups, dim, k.LinesPerSlice,
		dx.stride, dy.stride, x.stride, rstd.stride, accumulate)
	if err != nil {
		return err
	}
	wx, tx, ww, mw := make([]float64, n), make([]float64, n), make([]float64, dim), make([]float64, dim)
	for line := range lines {
		var sum, mag float64
		rs := float64(rstd.v[line])
		for j := range dim {
			at := line*dim + j
			p := float64(w.v[j]) * float64(dy.v[at]) * float64(x.v[at]) * rs / float64(dim)
			sum, mag = sum+p, mag+math.Abs(p)
			g := float64(dy.v[at]) * float64(x.v[at]) * rs
			ww[j], mw[j] = ww[j]+g, mw[j]+math.Abs(g)
		}
		for j := range dim {
			at := line*dim + j
			a, b := float64(w.v[j])*float64(dy.v[at]), float64(x.v[at])*rs
			wx[at] = rs * (a - b*sum)
			tx[at] = rs * (normC*math.Abs(a) + (testx.ChainC(dim)+normC)*math.Abs(b)*mag)
			if accumulate {
				wx[at] += float64(dx.v[at])
				tx[at] += math.Abs(float64(dx.v[at]))
			}
		}
	}
	if err := dx.near("dx", wx, tolerance(1, tx, wx)); err != nil {
		return err
	}
	if partial == nil {
		return nil
	}
	dw := matInOut(d, kernels.F32, placing{off: l.off}, 1, dim, normal(r, dim))
	sum := kernels.RMSNormWeight()
	if err := d.Launch(sum.Spec, [3]int{sum.Grid(dim)}, dw.p(), partial, k.Slices, dim); err != nil {
		return err
	}
	for j := range ww {
		ww[j] += float64(dw.v[j])
		mw[j] += math.Abs(float64(dw.v[j]))
	}
	return dw.near("dw", ww, tolerance(testx.ChainC(lines)+4, mw, ww))
}

func toF32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

func TestNormEmulatedCatchesDefects(t *testing.T) {
	shapes := [][3]int{{9, 2, 20}, {70, 1, 40}, {3, 1, 1030}}
	kerneltest.Defects(t, "norm", []kerneltest.Defect{
		{Name: "a barrier too few", Old: "  block_sync();\n  return sum;", New: "  return sum;"},
		{Name: "no barrier before the sums are read", Old: "warp() * 4, v);\n  block_sync();", New: "warp() * 4, v);"},
		{Name: "half of the butterfly", Old: "mask = 16; mask > 0", New: "mask = 8; mask > 0"},
		{Name: "a warp's sum left out", Old: "for (u32 w = 0; w < kWarps; w++) sum", New: "for (u32 w = 1; w < kWarps; w++) sum"},
		{Name: "eps left out", Old: "sum / (float)d + eps", New: "sum / (float)d + 0 * eps"},
		{Name: "group mistaken for row", Old: "rstd[(long long)row * rstd_stride + group] = scale", New: "rstd[(long long)group * rstd_stride + row] = scale"},
		{Name: "lines beyond the last", Old: "int last = min(first + per_slice, lines);", New: "int last = lines;"},
		{Name: "mean without rstd", Old: "scale * scale * line_sum", New: "scale * line_sum"},
		{Name: "DW without rstd", Old: "fma(b[i] * scale, a[i], dw[r][i])", New: "fma(b[i], a[i], dw[r][i])"},
		{Name: "shares of DW read too early", Old: "  block_sync();\n  for (int c = (int)thread_x(); c < d; c += kThreads) {", New: "  for (int c = (int)thread_x(); c < d; c += kThreads) {"},
		{Name: "a slice left out", Old: "for (int s = (int)warp(); s < slices", New: "for (int s = (int)warp(); s < slices - 1"},
		{Name: "DW overwritten", Old: "dw[c] += total", New: "dw[c] = total"},
		{Name: "accumulates always", Old: "if (accumulate) {", New: "if (accumulate + 1) {"},
	}, func(d *kerneltest.Device) error {
		if err := checkNorm(d, shapes); err != nil {
			return err
		}
		return checkNormBackward(d, shapes)
	})
}

func TestNormPlans(t *testing.T) {
	warp, block := kernels.RMSNorm(kernels.BF16, kernels.F32, 1024), kernels.RMSNorm(kernels.BF16, kernels.F32, 1025)
	require.Equal(t, 3, warp.Grid(17))
	require.Equal(t, 17, block.Grid(17))
	require.NotEqual(t, warp.Entry, block.Entry)
	for _, lines := range []int{0, 1, 63, 64, 65, 1000, 16384, 16384 * 14, 131072 * 14} {
		b := kernels.RMSNormBackward(kernels.F32, kernels.BF16, kernels.F32, 64, lines)
		require.GreaterOrEqual(t, b.Slices*b.LinesPerSlice, lines)
		require.Less(t, (b.Slices-1)*b.LinesPerSlice, max(lines, 1))
		require.LessOrEqual(t, b.Slices, 512)
		require.Zero(t, b.LinesPerSlice%8)
		require.Equal(t, b.Slices*64*4, b.PartialBytes())
	}
	for _, d := range []int{0, kernels.NormMax + 1} {
		require.Panics(t, func() { kernels.RMSNorm(kernels.F32, kernels.F32, d) })
	}
	require.Panics(t, func() { kernels.RMSNorm(kernels.F32, kernels.BF16, 8) })
	require.Panics(t, func() { kernels.RMSNormBackward(kernels.BF16, kernels.F32, kernels.F32, 8, 1) })
}
