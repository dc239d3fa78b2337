package enginetest

import (
	"fmt"
	"slices"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
)

// sums3 are sums of three numbers, exact in float32, on and beside the middle
// between two neighbours in BF16. Cutting off instead of rounding, rounding
// halves up, and rounding twice, by way of a format of ten to nineteen bits,
// each get one of them wrong.
var sums3 = [][3]float32{
	{1, 1.0 / (1 << 8), 0},
	{1, 1.0 / (1 << 8), 1.0 / (1 << 20)},
	{1, 1.0 / (1 << 8), -1.0 / (1 << 20)},
	{1, 3.0 / (1 << 8), 0},
	{1, 3.0 / (1 << 8), -1.0 / (1 << 20)},
	{-1, -1.0 / (1 << 8), 0},
	{-1, -1.0 / (1 << 8), -1.0 / (1 << 20)},
	{-1, -3.0 / (1 << 8), 1.0 / (1 << 20)},
	{1 << 30, 1 << 22, 1 << 10},
	{1.0 / (1 << 30), 1.0 / (1 << 38), 1.0 / (1 << 50)},
	{1, -1, 0},
	{1.9921875, 1.0 / (1 << 8), 0}, // up to 2
}

// roundedSums returns the sums as activations store them, and the summands.
func (e *env) roundedSums() (want []float64, summands []float32) {
	for _, s := range sums3 {
		sum := s[0] + s[1] + s[2]
		if e.a == engine.BF16 {
			sum = half.FromBF16(half.BF16(sum))
		}
		want = append(want, float64(sum))
		summands = append(summands, s[:]...)
	}
	return want, summands
}

// repeatEach returns each of v n times in a row.
func repeatEach(v []float64, n int) (out []float64) {
	for _, x := range v {
		out = append(out, slices.Repeat([]float64{x}, n)...)
	}
	return out
}

// linearRoundsOnce: a result in BF16 is rounded once, to nearest even.
func linearRoundsOnce(e *env) error {
	const n = 9
	want, summands := e.roundedSums()
	for _, l := range layouts {
		e.layout = l
		x, y := e.data("X", len(want), 3, summands), e.out("Y", len(want), n)
		w := e.prepare(e.matrix("W", n, 3, slices.Repeat([]float32{1}, 3*n)))
		e.Linear(engine.LinearArgs{Y: y.Tensor, X: x.Tensor, W: w})
		if err := e.fetch(); err != nil {
			return err
		}
		if err := y.exactly(repeatEach(want, n)); err != nil {
			return err
		}
	}
	return nil
}

// inputGradientRoundsOnce: the same, and with Accumulate the sum of old and new
// is what is rounded.
func inputGradientRoundsOnce(e *env) error {
	const k = 9
	want, summands := e.roundedSums()
	rows := len(want)
	w := e.prepare(e.matrix("W", 3, k, slices.Repeat([]float32{1}, 3*k)))
	dx := e.out("DX", rows, k)
	e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: dx.Tensor, DY: e.data("DY", rows, 3, summands).Tensor, W: w})
	var old []float32
	for i := range rows {
		old = append(old, slices.Repeat([]float32{summands[3*i]}, k)...)
		summands[3*i] = 0
	}
	sum := e.tensor("DX accumulated", inplace, e.a, e.layout, rows, k, old)
	e.LinearBackwardInput(engine.LinearBackwardInputArgs{DX: sum.Tensor, DY: e.data("DY", rows, 3, summands).Tensor, W: w, Accumulate: true})
	if err := e.fetch(); err != nil {
		return err
	}
	if err := dx.exactly(repeatEach(want, k)); err != nil {
		return err
	}
	return sum.exactly(repeatEach(want, k))
}

// ropeRoundsOnce: one times a cosine that float32 holds and BF16 does not.
func ropeRoundsOnce(e *env) error {
	const d = 8
	want, summands := e.roundedSums()
	rows := len(want)
	var xs, cos []float32
	var out []float64
	var positions []int32
	for i := range rows {
		xs = append(xs, 1, 1, 1, 1, 0, 0, 0, 0)
		cos = append(cos, slices.Repeat([]float32{summands[3*i] + summands[3*i+1] + summands[3*i+2]}, d/2)...)
		out = append(out, want[i], want[i], want[i], want[i], 0, 0, 0, 0)
		positions = append(positions, int32(i))
	}
	x := e.tensor("X", inplace, e.a, e.layout, rows, d, xs)
	e.RoPE(engine.RoPEArgs{X: x.Tensor, Positions: e.ints("Positions", positions).Tensor, HeadDim: d,
		Cos: e.dataF32("Cos", rows, d/2, cos).Tensor, Sin: e.dataF32("Sin", rows, d/2, make([]float32, rows*d/2)).Tensor})
	if err := e.fetch(); err != nil {
		return err
	}
	return x.exactly(out)
}

// conversions: Copy, Upload and Download between F32 and BF16, any strides.
func conversions(e *env) error {
	want, summands := e.roundedSums()
	var src []float32
	for i := range want {
		src = append(src, summands[3*i]+summands[3*i+1]+summands[3*i+2])
	}
	src, want = append(src, e.normal(33-len(src), 1)...), append(want, make([]float64, 33-len(want))...)
	for i, v := range src {
		want[i] = float64(half.FromBF16(half.BF16(v)))
	}
	for i := range 9 {
		e.layout = layouts[i%3]
		wide, narrow := e.dataF32("F32", 3, 11, src), e.tensor("BF16", input, engine.BF16, e.layout, 3, 11, src)
		e.layout = layouts[i/3]
		toNarrow, toWide, same := e.outAs(engine.BF16, "to BF16", 3, 11), e.outF32("to F32", 3, 11), e.outAs(engine.BF16, "BF16 to BF16", 3, 11)
		e.Copy(toNarrow.Tensor, wide.Tensor)
		e.Copy(toWide.Tensor, narrow.Tensor)
		e.Copy(same.Tensor, narrow.Tensor)
		buf := e.alloc(engine.BF16, len(src))
		e.UploadF32(engine.Vector(buf, 0, len(src)), src)
		back := make([]float32, len(src))
		e.DownloadF32(back, engine.Vector(buf, 0, len(src)))
		if err := e.fetch(); err != nil {
			return err
		}
		for _, b := range []*block{toNarrow, toWide, same} {
			if err := b.exactly(want); err != nil {
				return err
			}
		}
		for j, v := range back {
			if float64(v) != want[j] {
				return fmt.Errorf("uploaded as BF16, %g came back as %g, want %g", src[j], v, want[j])
			}
		}
	}
	return nil
}
