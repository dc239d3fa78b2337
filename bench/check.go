package bench

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/updraft-ml/updraft/engine"
	"github.com/updraft-ml/updraft/internal/half"
)

// compared counts elements that were held against float64.
type compared struct{ n int }

// element fails the workload where got is not want within a tolerance; NaN fails.
func (c *compared) element(what string, got, want, tolerance float64) {
	c.n++
	if d := math.Abs(got - want); !(d <= tolerance) {
		fail("wrong result: %s is %v, want %v within %.3g", what, got, want, tolerance)
	}
}

func (c *compared) String() string { return fmt.Sprintf("%d elements against float64", c.n) }

// checkedElements is how many elements of a matrix are held against float64.
const checkedElements = 256

// chain is the share of Σ|a·b| by which a float32 sum of k products errs at most,
// in whatever order it is taken: k roundings of products and sums (Higham,
// Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).
func chain(k int) float64 { return float64(k+1) * 0x1p-24 / (1 - float64(k+1)*0x1p-24) }

// dot is Σ a·b over k, and what a float32 sum of it may err by.
func dot(k int, a, b func(i int) float64) (sum, tolerance float64) {
	size := 0.0
	for i := range k {
		p := a(i) * b(i)
		sum += p
		size += math.Abs(p)
	}
	return sum, chain(k) * size
}

// stored is a tolerance once the result is stored in a type.
func stored(d engine.DType, want, tolerance float64) float64 {
	if d == engine.BF16 {
		return tolerance + 0x1p-8*(math.Abs(want)+tolerance)
	}
	return tolerance
}

// checkProduct compares elements of C = A·B, M×N, A(i,p) and B(p,j) being given.
func checkProduct(rng *rand.Rand, m, n, k int, a, b func(i, j int) float64, c []float32) string {
	var seen compared
	for range checkedElements {
		i, j := rng.IntN(m), rng.IntN(n)
		want, tolerance := dot(k, func(p int) float64 { return a(i, p) }, func(p int) float64 { return b(p, j) })
		seen.element(fmt.Sprintf("C[%d,%d]", i, j), float64(c[i*n+j]), want, tolerance)
	}
	return seen.String()
}

// sameProduct compares a peer's C = A·Bᵀ with ours, every element: both err by
// chain(k)·Σ|a·b| at most, and Σ|a·b| ≤ ‖a‖·‖b‖.
func sameProduct(m, n, k int, a, b operand, ours []float32) func([]float32) error {
	return func(got []float32) error {
		rows, columns := norms(a), norms(b)
		for i := range m {
			for j := range n {
				tolerance := 2 * chain(k) * rows[i] * columns[j]
				if d := math.Abs(float64(got[i*n+j]) - float64(ours[i*n+j])); !(d <= tolerance) {
					return fmt.Errorf("C[%d,%d] is %v, ours is %v: they may differ by %.3g", i, j, got[i*n+j], ours[i*n+j], tolerance)
				}
			}
		}
		return nil
	}
}

func norms(o operand) []float64 {
	out := make([]float64, o.Rows)
	for i := range out {
		for _, v := range o.row(i) {
			out[i] += float64(v) * float64(v)
		}
		out[i] = math.Sqrt(out[i])
	}
	return out
}

// finite fails where a result holds NaN or infinities, or nothing but zeros: all
// that is checked of operations whose values the engine's tests compare.
func finite(results ...[]float32) string {
	n := 0
	for _, x := range results {
		nonzero := false
		for i, v := range x {
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				fail("wrong result: element %d is %v", i, v)
			}
			nonzero = nonzero || v != 0
		}
		if !nonzero {
			fail("wrong result: nothing but zeros")
		}
		n += len(x)
	}
	return fmt.Sprintf("%d elements finite", n)
}

// sameBits reports whether two lists have the same bits.
func sameBits(a, b []float32) bool {
	for i := range min(len(a), len(b)) {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// logProbTolerance is by how many nats a peer's log-probabilities may differ from
// ours: a hundred times what float32 sums give over the layers of these models,
// since a peer may keep its cache in F16, and a hundredth of how much they differ
// from token to token.
const logProbTolerance = 5e-3

// sameDistribution compares the log-softmax of a row of logits at a token, and the
// entropy, with ours.
func sameDistribution(logits []float32, token int32, logProb, entropy float32) error {
	largest := math.Inf(-1)
	for _, z := range logits {
		largest = max(largest, float64(z))
	}
	sum, mean := 0.0, 0.0
	for _, z := range logits {
		p := math.Exp(float64(z) - largest)
		sum += p
		mean += p * float64(z)
	}
	lse := largest + math.Log(sum)
	for _, x := range []struct {
		what        string
		got, wanted float64
	}{{fmt.Sprintf("log-prob of token %d", token), float64(logits[token]) - lse, float64(logProb)}, {"entropy", lse - mean/sum, float64(entropy)}} {
		if !(math.Abs(x.got-x.wanted) <= logProbTolerance) {
			return fmt.Errorf("%s is %.6f, ours is %.6f: they may differ by %g", x.what, x.got, x.wanted, logProbTolerance)
		}
	}
	return nil
}

// rounded is v as it is stored in a type.
func rounded(d engine.DType, v []float32) []float32 {
	if d != engine.BF16 {
		return v
	}
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = half.FromBF16(half.BF16(x))
	}
	return out
}
