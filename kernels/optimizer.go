package kernels

import "math"

// optimizerThreads is the block of the kernels of optimizer.cu.
const optimizerThreads = 256

func optimizerSpec(entry, params string, shared int) Spec {
	return Spec{Entry: entry, Module: "optimizer", PTX: ptx("optimizer"), Arch: Arch{8, 0}, Params: params, Block: optimizerThreads, Shared: shared}
}

// SumSquares is the sum of the squares of n F32 elements, in two launches.
type SumSquares struct {
	// Parts is run first, with Blocks blocks.
	// Parameters: partial, X, n (64 bits), packs per block.
	Parts Spec
	// Sum is run then, with one block. Parameters: out, partial, blocks.
	Sum                   Spec
	Blocks, PacksPerBlock int
}

// PlanSumSquares plans for n elements: n alone decides the order of the sum.
func PlanSumSquares(n int) SumSquares {
	// Enough blocks for every multiprocessor, and 64 elements for each thread at least.
	const most, least = 1024, 8 * optimizerThreads
	packs := tiles(n, packed)
	per := max(least, tiles(tiles(packs, most), optimizerThreads)*optimizerThreads)
	if per > math.MaxInt32 {
		panic("kernels: too many elements for one launch")
	}
	return SumSquares{
		Parts: optimizerSpec("sum_squares_f32", "ppli", 4*optimizerThreads/32), Sum: optimizerSpec("sum_partials_f32", "ppi", 4*optimizerThreads/32),
		Blocks: max(1, tiles(packs, per)), PacksPerBlock: per,
	}
}

// PartialBytes returns the size of partial.
func (s SumSquares) PartialBytes() int { return 4 * s.Blocks }

// AdamW is one step over n elements. Its last nine parameters are those that
// AdamWStep returns.
type AdamW struct {
	Spec
	perBlock int
}

// Grid returns the number of blocks, in x.
func (a AdamW) Grid(n int) int { return tiles(n, a.perBlock) }

// AdamWF32 has F32 moments.
// Parameters: P, G, M, V, copy in BF16 (null: none), n (64 bits), constants.
func AdamWF32() AdamW {
	return AdamW{optimizerSpec("adamw_f32", "ppppplfffffffff", 0), optimizerThreads * packed}
}

// AdamWU8 has 8-bit moments.
// Parameters: P, G, M, V, scales of M, scales of V, copy in BF16 (null: none), table
// (MomentTable), n (64 bits), constants.
func AdamWU8() AdamW {
	return AdamW{optimizerSpec("adamw_u8", "pppppppplfffffffff", 4096), 8 * optimizerThreads * packed}
}

// AdamWStep returns the constants of a step, in the order of the parameters:
// gradScale, β1, 1−β1, β2, 1−β2, 1−lr·weightDecay, lr/(1−β1^step), 1/√(1−β2^step)
// and eps. step counts from 1.
func AdamWStep(gradScale, beta1, beta2, lr, weightDecay, eps float32, step int) [9]float32 {
	bias := func(beta float32) float64 {
		return float64(float32(1 - math.Pow(float64(beta), float64(step))))
	}
	return [9]float32{
		gradScale, beta1, float32(1 - float64(beta1)), beta2, float32(1 - float64(beta2)),
		float32(1 - float64(lr)*float64(weightDecay)), float32(float64(lr) / bias(beta1)), float32(1 / math.Sqrt(bias(beta2))), eps,
	}
}

// MomentTable returns the table of AdamWU8, 4 KB that are uploaded once, from the
// values of the codes of the first moment and of the second, which ascend
// (engine.SignedMomentMap, engine.UnsignedMomentMap).
func MomentTable(signed, unsigned [256]float32) []float32 {
	limits := func(values [256]float32) (l [256]float32) {
		for c := range 255 {
			l[c] = (values[c] + values[c+1]) / 2
		}
		l[255] = float32(math.Inf(1))
		if values[0] == 0 {
			l[0] = 0 // a positive second moment never becomes zero
		}
		return l
	}
	a, b := limits(signed), limits(unsigned)
	var t []float32
	for _, part := range [][256]float32{signed, unsigned, a, b} {
		t = append(t, part[:]...)
	}
	return t
}
