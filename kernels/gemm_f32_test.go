package kernels_test

import (
	"math"
	"testing"

	"github.com/updraft-ml/updraft/internal/testx"
	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

var f32Problems = []problem{
	{op: kernels.Forward, m: 1, n: 1, k: 0, bias: true},
	{op: kernels.Forward, m: 5, n: 3, k: 7, pad: 1, add: other},
	{op: kernels.Forward, m: 66, n: 70, k: 33, pad: 3, odd: true, bias: true, add: itself},
	{op: kernels.GradInput, m: 65, n: 9, k: 50, pad: 1},
	{op: kernels.GradInput, m: 3, n: 67, k: 16, odd: true, add: itself},
	{op: kernels.GradWeight, m: 70, n: 65, k: 21, pad: 1, odd: true, add: itself},
	{op: kernels.GradWeight, m: 2, n: 1, k: 1},
}

func checkF32(d *kerneltest.Device) error { return checkAll(d, f32Problems) }

func TestGEMMF32(t *testing.T) { kerneltest.EachMode(t, checkF32) }

// checkF32Chain requires that each element is one chain of fma in ascending K.
func checkF32Chain(d *kerneltest.Device) error {
	p := problem{op: kernels.Forward, m: 70, n: 66, k: 37}
	got, err := p.compute(d)
	if err != nil {
		return err
	}
	x, w, _, _, _ := p.operands()
	want := make([]float32, p.m*p.n)
	for i := range p.m {
		for j := range p.n {
			var sum float32
			for k := range p.k {
				sum = float32(math.FMA(x.at(i, k), w.at(j, k), float64(sum)))
			}
			want[i*p.n+j] = sum
		}
	}
	return testx.Identical(got[0], want)
}

func TestGEMMF32Chain(t *testing.T) { kerneltest.EachMode(t, checkF32Chain) }
