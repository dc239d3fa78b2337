package kernels_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// checkBiasGrad compares column sums with float64: a block of 128 rows rounds 128
// times, then eight blocks and the parts once each.
func checkBiasGrad(d *kerneltest.Device) error {
	for _, s := range []struct {
		kind              kernels.Type
		t, n, stride, off int
	}{{f32, 1, 1, 1, 0}, {bf16, 3, 33, 35, 1}, {f32, 130, 32, 32, 0}, {bf16, 1025, 40, 40, 3}, {f32, 2100, 5, 9, 1}} {
		rng := rand.New(rand.NewPCG(4, uint64(s.t)))
		dy := newOperand(rng, s.kind, s.t, s.n, s.stride, s.off)
		db := newOperand(rng, f32, 1, s.n, s.n, 2)
		g := kernels.BiasGrad{Type: s.kind, T: s.t, N: s.n, DY: dy.place(d, false), DB: db.place(d, true).Addr}
		counters := kerneltest.InOut(d, make([]uint32, g.NumCounters()))
		g.Counters = counters.Addr()
		l, err := g.Plan()
		if err != nil {
			return err
		}
		if err := d.LaunchPlanned(l); err != nil {
			return err
		}
		got, err := db.read(d)
		if err != nil {
			return err
		}
		for j, v := range got {
			sum := db.at(0, j)
			abs := math.Abs(sum)
			for i := range s.t {
				sum += dy.at(i, j)
				abs += math.Abs(dy.at(i, j))
			}
			if tol := float64(128+8+(s.t+1023)/1024) * 0x1p-24 * abs; !(math.Abs(float64(v)-sum) <= tol) {
				return fmt.Errorf("%+v: DB[%d] = %v, want %v within %v", s, j, v, sum, tol)
			}
		}
		for _, v := range kerneltest.Values[uint32](d, counters) {
			if v != 0 {
				return fmt.Errorf("%+v: a counter was left at %d", s, v)
			}
		}
	}
	return nil
}

func TestBiasGrad(t *testing.T) { kerneltest.EachMode(t, checkBiasGrad) }
