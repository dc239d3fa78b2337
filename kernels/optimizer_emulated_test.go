package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

var optimizerSizes = []int{1, 7, 256, 2049, 16384 + 300}

func checkSumSquares(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(51, 52))
	for _, n := range []int{1, 7, 4100, 16384 + 9} {
		v := normal(r, n)
		var first []float32
		for _, l := range placings {
			k := kernels.PlanSumSquares(n)
			x, partial, out := matIn(d, kernels.F32, placing{off: l.off}, 1, n, v), d.Out(k.PartialBytes()), d.Out(4)
			if err := d.Launch(k.Parts, [3]int{k.Blocks}, partial, x.p(), n, k.PacksPerBlock); err != nil {
				return err
			}
			if err := d.Launch(k.Sum, [3]int{1}, out, partial, k.Blocks); err != nil {
				return err
			}
			want := []float64{0}
			for _, e := range v {
				want[0] += float64(e) * float64(e)
			}
			got := kerneltest.Values[float32](d, out)
			if _, err := testx.Close(got, want, tolerance(testx.ChainC(n), want, want)); err != nil {
				return fmt.Errorf("n = %d: %w", n, err)
			}
			if first == nil {
				first = got
			}
			if err := testx.Identical(got, first); err != nil {
				return fmt.Errorf("n = %d, misaligned: %w", n, err)
			}
		}
	}
	return nil
}

// adamWStep is the step in float32, every product rounded, as on the CPU.
func adamWStep(p, g, m, v []float32, c [9]float32) {
	for i := range p {
		x := c[0] * g[i]
		m[i] = float32(c[1]*m[i]) + float32(c[2]*x)
		v[i] = float32(c[3]*v[i]) + float32(float32(c[4]*x)*x)
		root := float32(float32(math.Sqrt(float64(v[i])))*c[7]) + c[8]
		p[i] = float32(p[i]*c[5]) - float32(c[6]*float32(m[i]/root))
	}
}

func launchArgs(a []any, c [9]float32) []any {
	for _, v := range c {
		a = append(a, v)
	}
	return a
}

func squares(v []float32) []float32 {
	for i := range v {
		v[i] *= v[i]
	}
	return v
}

func roundedBF16(v []float32) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = half.FromBF16(half.BF16(x))
	}
	return out
}

func checkAdamW(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(53, 54))
	for i, n := range optimizerSizes {
		l := placing{off: placings[i%3].off}
		c := kernels.AdamWStep(0.37, 0.9, 0.999, 0.01, 0.1, 1e-8, 1+i*7)
		p, g := matInOut(d, kernels.F32, l, 1, n, normal(r, n)), matIn(d, kernels.F32, l, 1, n, normal(r, n))
		m, v := matInOut(d, kernels.F32, l, 1, n, normal(r, n)), matInOut(d, kernels.F32, l, 1, n, squares(normal(r, n)))
		k := kernels.AdamWF32()
		low := matOut(d, kernels.BF16, l, 1, n)
		to := low.p()
		if i == 1 {
			to = nil
		}
		if err := d.Launch(k.Spec, [3]int{k.Grid(n)}, launchArgs([]any{p.p(), g.p(), m.p(), v.p(), to, n}, c)...); err != nil {
			return err
		}
		adamWStep(p.v, g.v, m.v, v.v, c)
		for name, x := range map[string]*mat{"p": p, "m": m, "v": v} {
			if err := x.exactly(name, x.v); err != nil {
				return fmt.Errorf("n = %d: %w", n, err)
			}
		}
		if to != nil {
			if err := low.exactly("copy", roundedBF16(p.v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// encode is what engine.AdamWArgs says of a block of moments.
func encode(v []float32, table []float32) (codes []byte, scale float32) {
	for _, x := range v {
		scale = max(scale, float32(math.Abs(float64(x))))
	}
	for _, x := range v {
		if scale > 0 {
			x /= scale
		}
		c := 0
		for x > table[c] {
			c++
		}
		codes = append(codes, byte(c))
	}
	return codes, scale
}

func checkAdamW8Bit(d *kerneltest.Device) error {
	r := rand.New(rand.NewPCG(55, 56))
	table := kernels.MomentTable(engine.SignedMomentMap(), engine.UnsignedMomentMap())

	t := kerneltest.In(d, table)
	for i, n := range optimizerSizes {
		off := placings[i%3].off
		l := placing{off: off}
		blocks := (n + engine.MomentBlock - 1) / engine.MomentBlock
		// Gradients over many decades, so that all codes come; some are zero.
		gradient := normal(r, n)
		for j := range gradient {
			gradient[j] *= float32(math.Pow(10, -6*r.Float64()))
			if j%11 == 0 {
				gradient[j] = 0
			}
		}
		p, g := matInOut(d, kernels.F32, l, 1, n, normal(r, n)), matIn(d, kernels.F32, l, 1, n, gradient)
		codes := [2][]byte{make([]byte, off+n), make([]byte, off+n)}
		scales := [2][]float32{make([]float32, blocks), make([]float32, blocks)}
		moments := [2][]float32{make([]float32, n), make([]float32, n)}
		for which := range 2 {
			for b := range blocks {
				if b%3 != 1 { // moments of a block that was never used are zero
					scales[which][b] = float32(math.Abs(r.NormFloat64())) * []float32{1, 0.01}[which]
				}
			}
			for j := range n {
				c := byte(r.IntN(256))
				codes[which][off+j] = c
				moments[which][j] = table[256*which+int(c)] * scales[which][j/engine.MomentBlock]
			}
		}
		c := kernels.AdamWStep(1, 0.9, 0.999, 0.01, 0.1, 1e-8, 3)
		dm, dv := kerneltest.InOut(d, codes[0]), kerneltest.InOut(d, codes[1])
		sm, sv := kerneltest.InOut(d, scales[0]), kerneltest.InOut(d, scales[1])
		low := matOut(d, kernels.BF16, l, 1, n)
		to := low.p()
		if i == 1 {
			to = nil
		}
		k := kernels.AdamWU8()
		args := launchArgs([]any{p.p(), g.p(), dm.At(off), dv.At(off), sm, sv, to, t, n}, c)
		if err := d.Launch(k.Spec, [3]int{k.Grid(n)}, args...); err != nil {
			return err
		}
		adamWStep(p.v, g.v, moments[0], moments[1], c)
		if err := p.exactly("p", p.v); err != nil {
			return fmt.Errorf("8 bits, n = %d: %w", n, err)
		}
		if to != nil {
			if err := low.exactly("copy", roundedBF16(p.v)); err != nil {
				return err
			}
		}
		for which, buf := range []*kerneltest.Buffer{dm, dv} {
			got, gotScales := kerneltest.Values[byte](d, buf)[off:], kerneltest.Values[float32](d, []*kerneltest.Buffer{sm, sv}[which])
			for b := range blocks {
				from, end := b*engine.MomentBlock, min((b+1)*engine.MomentBlock, n)
				want, scale := encode(moments[which][from:end], table[512+256*which:][:256])
				if gotScales[b] != scale {
					return fmt.Errorf("moment %d, block %d: scale %v, want %v", which, b, gotScales[b], scale)
				}
				for j, c := range want {
					if got[from+j] != c {
						return fmt.Errorf("moment %d, element %d: code %d, want %d", which, from+j, got[from+j], c)
					}
				}
			}
		}
	}
	return nil
}

func checkOptimizer(d *kerneltest.Device) error {
	for _, f := range []func(*kerneltest.Device) error{checkSumSquares, checkAdamW, checkAdamW8Bit} {
		if err := f(d); err != nil {
			return err
		}
	}
	return nil
}

func TestOptimizerEmulated(t *testing.T) { kerneltest.EachMode(t, checkOptimizer) }

func TestOptimizerEmulatedCatchesDefects(t *testing.T) {
	kerneltest.Defects(t, "optimizer", []kerneltest.Defect{
		{Name: "sum read early", Old: "  block_sync();  // shows the warps' sums to all\n", New: ""},
		{Name: "half of the butterfly", Old: "for (u32 mask = 16; mask > 0; mask >>= 1) v +=", New: "for (u32 mask = 8; mask > 0; mask >>= 1) v +="},
		{Name: "parts left out", Old: "i < parts; i += kThreads", New: "i < parts - 1; i += kThreads"},
		{Name: "decay after the step", Old: "p[i] = p[i] * s.decay - s.step * (m[i] / root);", New: "p[i] = (p[i] - s.step * (m[i] / root)) * s.decay;"},
		{Name: "a fused product", Old: "s.beta1 * m[i] + s.rest1 * x;", New: "fma(s.beta1, m[i], s.rest1 * x);"},
		{Name: "eps under the root", Old: "sqrt(v[i]) * s.rsqrt2 + s.eps", New: "sqrt(v[i] + s.eps) * s.rsqrt2"},
		{Name: "table read early", Old: "  block_sync();  // shows the table to all\n", New: ""},
		{Name: "scale overwritten early", Old: "    warp_sync();  // all lanes have read the scales, which one of them overwrites\n", New: ""},
		{Name: "guess taken as it is", Old: "  while (c < 255 && x > ld_shared<float>(limits + c * 4)) c++;\n", New: ""},
		{Name: "nearest from below only", Old: "  while (c > 0 && !(x > ld_shared<float>(limits + (c - 1) * 4))) c--;\n", New: ""},
		{Name: "the other moment's map", Old: "shared + 1024 + c[i] * 4", New: "shared + c[i] * 4"},
		{Name: "scale without sign", Old: "max(v[i], -v[i])", New: "v[i]"},
		{Name: "a block's edge", Old: "block * kBlock >= n", New: "block * kBlock + kBlock > n"},
	}, checkOptimizer)
}

func TestOptimizerPlans(t *testing.T) {
	for _, n := range []int{0, 1, 16384, 16385, 1 << 20, 494_032_768, 3_000_000_000} {
		s := kernels.PlanSumSquares(n)
		require.GreaterOrEqual(t, s.Blocks*s.PacksPerBlock*8, n)
		require.LessOrEqual(t, s.Blocks, 1024)
		require.GreaterOrEqual(t, kernels.AdamWF32().Grid(n)*2048, n)
		require.GreaterOrEqual(t, kernels.AdamWU8().Grid(n)*16384, n)
	}
	require.Equal(t, float32(1), kernels.AdamWStep(1, 0.9, 0.999, 0.1, 0, 1e-8, 1)[5])
}
