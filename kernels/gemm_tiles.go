package kernels

import (
	"fmt"
	"sync"
)

// shape is the part of a bf16 product that a block computes and how, with the
// numbers of gemm_bf16.cu, gemm_bf16_grad.cu and gemm_bf16_sm90a.cu.
type shape struct {
	name           string
	m, n, k        int // rows and columns of the result, and the part of K in a stage
	stages         int
	warpsM, warpsN int // of MMA: how the warps share the tile
	// perSM is the number of blocks that a multiprocessor's registers are made to
	// hold (the kernel's min_blocks); its shared memory may hold fewer.
	perSM int
	// rate is the share of a multiprocessor's multiply-adds that the tile reaches by
	// itself: small tiles load more operands for each product. Estimates.
	rate float64
}

// tile is a kernel for a shape.
type tile struct {
	Spec
	shape
	Family
	result Type // of WGMMA: the one that it gives; a kernel of MMA gives both
}

var (
	tile128x256 = shape{"128x256", 128, 256, 32, 4, 2, 4, 1, 1}
	tile128x128 = shape{"128x128", 128, 128, 32, 3, 2, 2, 2, 0.95}
	tile64x64   = shape{"64x64", 64, 64, 64, 3, 2, 2, 4, 0.7}
	tile64x32   = shape{"64x32", 64, 32, 64, 4, 4, 1, 4, 0.5}
	tile32x32   = shape{"32x32", 32, 32, 128, 4, 2, 2, 2, 0.35}
	tile16x64   = shape{"16x64", 16, 64, 128, 4, 1, 4, 2, 0.25}
	tile16x16   = shape{"16x16", 16, 16, 128, 8, 1, 1, 3, 0.25}
	tileAny     = shape{"any", 64, 64, 64, 3, 2, 2, 2, 0.3}
)

// productTable has every kernel of this file's plans.
type productTable struct {
	tiles [GradWeight + 1][]tile
	f32   [GradWeight + 1]Spec // none for ForwardGated
	bias  [BF16 + 1]Spec
}

// products makes the table when it is first asked for: a program that uses no GPU
// does not touch the PTX.
var products = sync.OnceValue(func() *productTable {
	forward, grad := ptx("gemm_bf16"), ptx("gemm_bf16_grad")
	plain, bias := ptx("gemm_f32"), ptx("bias_grad")
	var p productTable
	p.tiles[Forward] = tilesOf(Forward, "gemm_bf16", forward, "pppppiiiiiiii",
		tile128x256, tile128x128, tile64x64, tile64x32, tile32x32, tile16x64, tile16x16, tileAny)
	p.tiles[ForwardGated] = tilesOf(ForwardGated, "gemm_bf16", forward, "ppppiiiiiii",
		tile128x256, tile128x128, tile64x64, tile16x64)
	for _, op := range []ProductOp{GradInput, GradWeight} {
		p.tiles[op] = tilesOf(op, "gemm_bf16_grad", grad, "pppppiiiiiiiii", tile128x256, tile128x128, tile64x64, tileAny)
	}
	p.tiles[Forward] = append(p.tiles[Forward], wgmmaTiles(Forward, F32, wgmmaForward...)...)
	p.tiles[Forward] = append(p.tiles[Forward], wgmmaTiles(Forward, BF16, wgmmaForward...)...)
	p.tiles[GradInput] = append(p.tiles[GradInput], wgmmaTiles(GradInput, BF16, wgmmaGrad...)...)
	p.tiles[GradWeight] = append(p.tiles[GradWeight], wgmmaTiles(GradWeight, F32, wgmmaGrad...)...)
	for _, op := range []ProductOp{Forward, GradInput, GradWeight} {
		p.f32[op] = Spec{Entry: "gemm_f32_" + op.String(), Module: "gemm_f32", PTX: plain, Arch: Arch{8, 0},
			Params: "pppppiiiiiii", Block: 256, Shared: 2 * 2 * f32Depth * (f32Tile + 4) * 4}
	}
	for t, entry := range []string{F32: "bias_grad_f32", BF16: "bias_grad_bf16"} {
		p.bias[t] = Spec{Entry: entry, Module: "bias_grad", PTX: bias, Arch: Arch{8, 0}, Params: "pppiii", Block: 256, Shared: 1024}
	}
	return &p
})

// Of gemm_f32.cu: the edge of a block's tile, and the part of K that it holds; of
// bias_grad.cu: the columns and rows that a block sums.
const (
	f32Tile, f32Depth     = 64, 16
	biasColumns, biasRows = 32, 1024
)

func tilesOf(op ProductOp, module, text, params string, shapes ...shape) []tile {
	var all []tile
	for _, s := range shapes {
		all = append(all, tile{
			Spec: Spec{
				Entry: fmt.Sprintf("gemm_bf16_%s_%s", op, s.name), Module: module, PTX: text, Arch: Arch{8, 0}, Params: params,
				Block: s.warpsM * s.warpsN * 32, Shared: s.stages * (s.m + s.n) * s.k * 2,
			},
			shape: s, Family: MMA,
		})
	}
	return all
}

// blocks returns the number of tiles of an m×n result.
func (t *tile) blocks(m, n int) int { return tiles(m, t.m) * tiles(n, t.n) }

// counters returns how many counters the parts of a split m×n result take turns by.
func (t *tile) counters(m, n int) int {
	if t.Family == WGMMA {
		return t.blocks(m, n) * t.m / 16 // one for each warp's rows
	}
	return t.blocks(m, n)
}

// resident returns how many blocks a multiprocessor holds at once.
func (t *tile) resident(a Arch) int {
	_, shared := chipFigures(a)
	const reserved = 1 << 10 // shared memory of each block that is not the kernel's
	return max(1, min(t.perSM, shared/(t.Shared+reserved)))
}

// maxSplits is the most parts that the K of a weight's gradient is cut into.
const maxSplits = 16

// fits reports whether t can compute p, and is of the family that serves f.
func (p *Product) fits(t *tile, f Family) bool {
	return t.Family == p.family(f) && (t.Family == MMA || t.result == p.Result) && (t.name != tileAny.name) == p.aligned()
}

// choose returns the tile that should be fastest for p, and in how many parts to
// cut K. It is a model of the time, not a measurement: see tile.cycles.
func (p *Product) choose(c Chip) (best *tile, splits int) {
	most, least := 1, 0.0
	if p.Op == GradWeight && p.Result == F32 {
		most = maxSplits
	}
	all := products().tiles[p.Op]
	for i := range all {
		t := &all[i]
		if !p.fits(t, c.Family) {
			continue
		}
		for s := 1; s <= most; s++ {
			if s > 1 && (s > tiles(p.K, t.k) || t.counters(p.M, p.N) > p.NumCounters) {
				break
			}
			if cost := t.cycles(c, p.M, p.N, p.K, s); best == nil || cost < least {
				best, splits, least = t, s, cost
			}
		}
	}
	return best, splits
}

// family returns the wanted family if it has kernels for such products, else MMA. It
// looks at the operation and the type alone, so that all sizes get the same family;
// a forward's every type is there in each.
func (p *Product) family(want Family) Family {
	all := products().tiles[p.Op]
	for i := range all {
		if t := &all[i]; t.Family == want && (want == MMA || t.result == p.Result) {
			return want
		}
	}
	return MMA
}

// Estimates of what a multiprocessor does, in cycles; orders of magnitude from
// NVIDIA's data sheets, to be replaced by measurements (docs/gpu.md).
const (
	cyclesStart     = 1500 // a block's first copies, and its launch
	cyclesMMA       = 33   // from one mma of a chain to the next
	bytesCycleL2    = 40   // from the L2 cache to one multiprocessor
	bytesCycleStore = 32   // of a result read and written back
)

// chipFigures returns the multiply-adds in bf16 that a multiprocessor does in a
// cycle by mma.sync, and its shared memory in bytes.
func chipFigures(a Arch) (rate float64, shared int) {
	switch {
	case a == Arch{8, 0}:
		return 1024, 164 << 10
	case a.Major == 8:
		return 512, 100 << 10
	case a.Major == 9 || a.Major == 10:
		return 1300, 228 << 10
	}
	return 512, 100 << 10
}

// cycles estimates the time of a product of m×n×k with K cut into s parts: rounds of
// blocks, each bound by its multiply-adds, by the rows that it loads (those that
// exist; of a few rows of A, W's are what counts), or by its chain.
func (t *tile) cycles(c Chip, m, n, k, s int) float64 {
	rate, _ := chipFigures(c.Arch)
	step := cyclesMMA
	if t.Family == WGMMA {
		rate, step = rateWGMMA, cyclesWGMMA
	}
	blocks := t.blocks(m, n) * s
	perSM := tiles(blocks, max(c.SMs, 1))
	rounds := float64(tiles(perSM, t.resident(c.Arch)))
	part := float64(tiles(tiles(k, t.k), s) * t.k)

	compute := float64(perSM*t.m*t.n) * part / (rate * t.rate)
	load := float64(perSM*(min(m, t.m)+min(n, t.n))*2) * part / bytesCycleL2
	chain := rounds * part / 16 * float64(step)
	cost := rounds*cyclesStart + max(compute, load, chain)
	if s > 1 {
		cost += float64(s*t.m*t.n*8) / bytesCycleStore // the parts take turns
	}
	return cost
}

// ProductSpecs returns every entry point that Product.Plan and BiasGrad.Plan choose
// from, for tests and for loading them ahead.
func ProductSpecs() []Spec {
	p := products()
	var all []Spec
	for _, ts := range p.tiles {
		for i := range ts {
			all = append(all, ts[i].Spec)
		}
	}
	return append(all, p.f32[Forward], p.f32[GradInput], p.f32[GradWeight], p.bias[F32], p.bias[BF16])
}
