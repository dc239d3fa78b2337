package kernels_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// defectTiles are the kernels that the defects are seen in: large tiles and small ones,
// all orientations, both ways of loading.
var defectTiles = []string{"nt_bf16_128x256", "nt_bf16_64x64", "nt_f32_any", "nn_bf16_128x256", "nn_bf16_any", "tn_f32_128x256"}

// defectProblems go more than once round the ring of stages and over several tiles of
// a block.
var defectProblems = []problem{
	{op: kernels.Forward, factors: bf16, result: bf16, m: 131, n: 270, k: 330, pad: 8, bias: true, add: other},
	{op: kernels.Forward, factors: bf16, result: f32, m: 5, n: 67, k: 350, pad: 1, odd: true},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 5, n: 270, k: 330, add: itself},
	{op: kernels.GradInput, factors: bf16, result: bf16, m: 5, n: 71, k: 90, odd: true, add: itself},
	{op: kernels.GradWeight, factors: bf16, result: f32, m: 131, n: 24, k: 330, splits: 2, add: itself},
}

// fewerWGMMA empties the entry points of gemm_bf16_sm90a.cu that are not in defectTiles.
func fewerWGMMA(t *testing.T) string {
	t.Helper()
	macro := regexp.MustCompile(`(?s)#define BY_(TMA|HAND)(\([^)]*\).*?)\{ *\\\n.*?\n  \}\n`)
	entry := regexp.MustCompile(`(?m)^BY_(TMA|HAND)(\((\w+), k\w\w, \w+(?:, (\d+), (\d+))?.*)`)
	text := macro.ReplaceAllString(kerneltest.Source(t, "gemm_bf16_sm90a"), "${0}#define EMPTY_${1}${2}{}\n")
	return entry.ReplaceAllStringFunc(text, func(line string) string {
		m := entry.FindStringSubmatch(line)
		name := m[3] + "_any"
		if m[1] == "TMA" {
			name = m[3] + "_" + m[4] + "x" + m[5]
		}
		if slices.Contains(defectTiles, name) {
			return line
		}
		return "EMPTY_" + m[1] + m[2]
	})
}

// Mistakes in what sm_90a adds: each must be an error of the emulator, or wrong bits.
func TestWGMMADefects(t *testing.T) {
	kerneltest.DefectsIn(t, "gemm_bf16_sm90a", fewerWGMMA(t), []kerneltest.Defect{
		{Name: "multiplies before the tile is there", Old: "mbarrier_wait(full<S>(ring, ring.stage), ring.parity);", New: ""},
		{Name: "waits for the phase before", Old: "mbarrier_wait(full<S>(ring, ring.stage), ring.parity);", New: "mbarrier_wait(full<S>(ring, ring.stage), ring.parity ^ 1);"},
		{Name: "loads before the stage is free", Old: "mbarrier_wait(empty<S>(ring, ring.stage), ring.parity ^ 1);", New: ""},
		{Name: "waits for the first round", Old: "mbarrier_wait(empty<S>(ring, ring.stage), ring.parity ^ 1);", New: "mbarrier_wait(empty<S>(ring, ring.stage), ring.parity);"},
		{Name: "parity is not turned", Old: "    r.parity ^= 1;\n", New: ""},
		{Name: "expects too few bytes", Old: "mbarrier_expect_tx(loaded, S::kStageBytes)", New: "mbarrier_expect_tx(loaded, S::kStageBytes - 16)"},
		{Name: "expects one operand", Old: "mbarrier_expect_tx(loaded, S::kStageBytes)", New: "mbarrier_expect_tx(loaded, S::kBytesA)"},
		{Name: "no proxy fence", Old: "fence_proxy_async();  //", New: "//"},
		{Name: "no wgmma_fence", Old: "      wgmma_fence();\n", New: ""},
		{Name: "no commit", Old: "      wgmma_commit();\n", New: ""},
		{Name: "frees a stage under a product", Old: "wgmma_wait<1>();", New: ""},
		{Name: "waits for one product too few", Old: "wgmma_wait<1>();", New: "wgmma_wait<2>();"},
		{Name: "frees the stage that is being multiplied", Old: "mbarrier_arrive(empty<S>(ring, last));\n      last", New: "mbarrier_arrive(empty<S>(ring, ring.stage));\n      last"},
		{Name: "reads accumulators too early", Old: "    wgmma_wait_all(acc);\n", New: ""},
		{Name: "accumulators touched in flight", Old: "      wgmma_commit();\n", New: "      wgmma_commit();\n      acc[0] = acc[0] + 1;\n"},
		{Name: "one warp frees for all", Old: "S::kConsumers * 4);  // warps", New: "S::kConsumers);"},
		{Name: "a stage is never freed", Old: "if (item.k1 > item.k0 && lane() == 0) mbarrier_arrive(", New: "if (item.k1 < item.k0 && lane() == 0) mbarrier_arrive("},
		{Name: "barriers without a fence", Old: "    mbarrier_init_fence();\n", New: ""},
		{Name: "barriers without a meeting", Old: "  block_sync();  // the barriers are there for all\n", New: ""},
		{Name: "A steps half along K", Old: "(S::kTransA ? 16 * kRowBytes : 32);", New: "(S::kTransA ? 16 * kRowBytes : 16);"},
		{Name: "A of the first consumer", Old: "data + consumer * kSlab +", New: "data + 0 * consumer * kSlab +"},
		{Name: "B's slabs too close", Old: "S::kTransB ? kSlab : 16", New: "S::kTransB ? kSlab / 2 : 16"},
		{Name: "B's offsets swapped", Old: "S::kTransB ? kSlab : 16, 8 * kRowBytes", New: "S::kTransB ? 8 * kRowBytes : 16, S::kTransB ? kSlab : 8 * kRowBytes"},
		{Name: "atoms of four rows", Old: "S::kTransA ? kSlab : 16, 8 * kRowBytes", New: "S::kTransA ? kSlab : 16, 4 * kRowBytes"},
		{Name: "B not transposed", Old: "wgmma_bf16<S::kBN, S::kTransA, S::kTransB>", New: "wgmma_bf16<S::kBN, S::kTransA, false>"},
		{Name: "another swizzle by hand", Old: "(c ^ (r & 7))", New: "(c ^ (r & 3))"},
		{Name: "K edge off by one by hand", Old: "x + c * 8 + e < o.columns", New: "x + c * 8 + e <= o.columns"},
		{Name: "row edge off by one by hand", Old: "y + r < o.rows", New: "y + r <= o.rows"},
		{Name: "the other map", Old: "PARAM_ADDRESS(wgmma_##name##_##m##x##n, 1, b)", New: "PARAM_ADDRESS(wgmma_##name##_##m##x##n, 0, b)"},
		{Name: "more registers than there are", Old: "registers_claim<232>", New: "registers_claim<240>"},
		{Name: "registers are not released", Old: "if (S::kMoveRegisters) registers_release<40>();", New: ""},
		{Name: "column edge off by one", Old: "n + 8 <= e.N &&", New: "n + 7 <= e.N &&"},
		{Name: "row edge off by one", Old: "m >= e.M || n >= e.N", New: "m > e.M || n >= e.N"},
		{Name: "pairs to the wrong lane", Old: "trade(p[1], p[3], 2);", New: "trade(p[1], p[3], 1);"},
		{Name: "turns are not waited for", Old: "      wait_turn(counter, (u32)item.part);\n", New: ""},
		{Name: "turns are passed too early", Old: "  fence();\n  warp_sync();  // all of the warp's rows are written\n", New: ""},
		{Name: "consumers share turns", Old: "(item.tile * S::kConsumers + consumer) * 4", New: "(item.tile * S::kConsumers) * 4"},
		{Name: "a lane writes before the quad has read", Old: "  warp_sync();  // R may be C: the quad has read what its lanes write now\n", New: ""},
		{Name: "parts overlap", Old: "min(part * depth + depth, w.K)", New: "min(part * depth + depth + 64, w.K)"},
	}, func(d *kerneltest.Device) error {
		if err := checkAlignedRows(d, defectTiles); err != nil {
			return err
		}
		for _, p := range defectProblems {
			p.only = defectTiles
			if err := checkWGMMA(d, p); err != nil {
				return err
			}
		}
		return nil
	}, hopper)
}
