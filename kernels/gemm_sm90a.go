package kernels

import "fmt"

// Map is a bf16 matrix in device memory and the box of it that one copy brings to
// shared memory: what a launch's tensor maps (parameter t) are encoded from.
type Map struct {
	Matrix
	Columns, Rows       int
	BoxColumns, BoxRows int
}

// Of gemm_bf16_sm90a.cu: the part of K in a stage, the rows and columns of a slab in
// MN-major order, and a stage's two barriers in bytes.
const (
	wgmmaDepth    = 64
	wgmmaSlab     = 64
	wgmmaBarriers = 16
)

// The tiles of gemm_bf16_sm90a.cu. The rate is that of a multiprocessor's full one.
var (
	wgmma128x256 = shape{name: "128x256", m: 128, n: 256, k: wgmmaDepth, stages: 4, perSM: 1, rate: 1}
	wgmma128x128 = shape{name: "128x128", m: 128, n: 128, k: wgmmaDepth, stages: 6, perSM: 1, rate: 0.95}
	wgmma64x64   = shape{name: "64x64", m: 64, n: 64, k: wgmmaDepth, stages: 6, perSM: 2, rate: 0.9}
	wgmma64x32   = shape{name: "64x32", m: 64, n: 32, k: wgmmaDepth, stages: 8, perSM: 2, rate: 0.7}
	wgmma64x16   = shape{name: "64x16", m: 64, n: 16, k: wgmmaDepth, stages: 8, perSM: 2, rate: 0.4}
	wgmmaAny     = shape{name: tileAny.name, m: 64, n: 64, k: wgmmaDepth, stages: 4, perSM: 2, rate: 0.1}

	wgmmaForward = []shape{wgmma128x256, wgmma128x128, wgmma64x64, wgmma64x32, wgmma64x16, wgmmaAny}
	wgmmaGrad    = []shape{wgmma128x256, wgmma128x128, wgmma64x64, wgmmaAny}
)

// wgmmaTiles lists the kernels for a product whose result is of a type.
func wgmmaTiles(op ProductOp, result Type, shapes ...shape) []tile {
	text := ptx("gemm_bf16_sm90a")
	var all []tile
	for _, s := range shapes {
		params := "ttpppiiiiipi"
		if s.name == tileAny.name {
			params = "pppppiiiiiiipi"
		}
		all = append(all, tile{
			Spec: Spec{
				Entry: fmt.Sprintf("wgmma_%s_%s_%s", op, result, s.name), Module: "gemm_bf16_sm90a", PTX: text, Arch: Arch{9, 0},
				Params: params, Block: 128 + 2*s.m, Shared: s.stages * ((s.m+s.n)*s.k*2 + wgmmaBarriers),
			},
			shape: s, Family: WGMMA, result: result,
		})
	}
	return all
}

// launchWGMMA is launch for a kernel of gemm_bf16_sm90a.cu, on a device that holds a
// number of its blocks at once. Each goes on to further tiles, but for those of a
// split: they wait for each other in the order of their numbers.
func (p *Product) launchWGMMA(t *tile, splits, resident int) Launch {
	l := Launch{Spec: &t.Spec, Grid: t.blocks(p.M, p.N) * splits}
	if splits == 1 {
		l.Grid = min(l.Grid, max(resident, 1))
	}
	m, n, k := uint64(p.M), uint64(p.N), uint64(p.K)
	ldc, ldr := uint64(p.C.Stride), uint64(p.R.Stride)
	if t.name == wgmmaAny.name {
		l.args(p.A.Addr, p.B.Addr, p.C.Addr, p.Bias, p.R.Addr, m, n, k, uint64(p.A.Stride), uint64(p.B.Stride), ldc, ldr,
			p.Counters, uint64(splits))
		return l
	}
	// A row of the box is 64 values, along K or along M or N, whichever lie together.
	box := func(x Matrix, mn, k, tile int, kTogether bool) Map {
		columns, rows, boxRows := mn, k, wgmmaDepth
		if kTogether {
			columns, rows, boxRows = k, mn, tile
		}
		if p.K == 0 {
			columns, rows = 1, 1 // nothing is loaded, but there is no map of nothing
		}
		if rows == 1 {
			x.Stride = tiles(columns, 8) * 8 // of a single row; it need not be one that a map can have
		}
		return Map{Matrix: x, Columns: columns, Rows: rows, BoxColumns: wgmmaSlab, BoxRows: boxRows}
	}
	l.Maps = [2]Map{box(p.A, p.M, p.K, t.m, p.Op != GradWeight), box(p.B, p.N, p.K, t.n, p.Op == Forward)}
	l.args(0, 1, p.C.Addr, p.Bias, p.R.Addr, m, n, k, ldc, ldr, p.Counters, uint64(splits))
	return l
}

// Estimates of what a multiprocessor does with wgmma, in cycles, from data sheets: to
// be replaced by measurements (docs/gpu.md).
const (
	rateWGMMA   = 2048 // multiply-adds in a cycle
	cyclesWGMMA = 16   // at least, for a step of 16 along K: A's 64 rows are read
)
