package kernels

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table of tiles is that of the sources: the entry points' names, tile, stages,
// warps, and the blocks that the compiler was told to make room for.
func TestTilesAgreeWithSources(t *testing.T) {
	entry := regexp.MustCompile(`(?m)^(FORWARD|GATED|BACKWARD)\((\w+), ([^)]*)\)`)
	seen := map[string]bool{}
	entry9 := regexp.MustCompile(`(?m)^BY_(TMA|HAND)\((\w+), k(\w\w), (\w+)(?:, (\d+), (\d+), (\d+), (\d+))?\)`)
	src, err := os.ReadFile("gemm_bf16_sm90a.cu")
	require.NoError(t, err)
	for _, m := range entry9.FindAllStringSubmatch(string(src), -1) {
		name := "wgmma_" + m[2] + "_any"
		if m[1] == "TMA" {
			name = fmt.Sprintf("wgmma_%s_%sx%s", m[2], m[5], m[6])
		}
		for _, tiles := range products().tiles {
			for _, x := range tiles {
				if x.Entry != name {
					continue
				}
				seen[name] = true
				require.Equal(t, strings.ToLower(m[3])+"_"+x.result.String(), m[2])
				require.Equal(t, map[Type]string{F32: "float", BF16: "bf16"}[x.result], m[4], name)
				if m[1] == "TMA" {
					require.Equal(t, fmt.Sprint(m[5:9]), fmt.Sprint([]int{x.m, x.n, x.stages, x.perSM}), name)
				} else {
					require.Contains(t, string(src), fmt.Sprintf("Shape<orientation, %d, %d, %d, false>", x.m, x.n, x.stages))
					require.Contains(t, string(src), fmt.Sprintf("KERNEL(%d, %d, wgmma_##name##_any", x.Block, x.perSM))
				}
			}
		}
		require.True(t, seen[name], name)
	}
	for _, file := range []string{"gemm_bf16.cu", "gemm_bf16_grad.cu"} {
		src, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range entry.FindAllStringSubmatch(string(src), -1) {
			name := map[string]string{"FORWARD": "gemm_bf16_nt_", "GATED": "gemm_bf16_gated_", "BACKWARD": "gemm_bf16_"}[m[1]] + m[2]
			numbers := regexp.MustCompile(`\b\d+\b`).FindAllString(m[3], -1)
			for _, tiles := range products().tiles {
				for _, x := range tiles {
					if x.Entry != name {
						continue
					}
					seen[name] = true
					require.Equal(t, fmt.Sprint([]int{x.perSM, x.m, x.n, x.k, x.stages, x.warpsM, x.warpsN}), fmt.Sprint(numbers), name)
					require.Equal(t, x.name == tileAny.name, strings.Contains(m[3], "false, "+strconv.Itoa(x.perSM)), name)
					require.Equal(t, strings.TrimSuffix(file, ".cu"), x.Module)
				}
			}
			require.True(t, seen[name], name)
		}
	}
	total := 0
	for _, tiles := range products().tiles {
		total += len(tiles)
	}
	require.Len(t, seen, total)
}

// aligned is a product whose operands are where a model has them.
func aligned(op ProductOp, m, n, k int) Product {
	p := Product{Op: op, Factors: BF16, Result: BF16, M: m, N: n, K: k,
		A: Matrix{1 << 12, k}, B: Matrix{1 << 20, k}, C: Matrix{1 << 28, n}, Counters: 256, NumCounters: 1 << 12}
	switch op {
	case ForwardGated:
		p.Y = Matrix{1 << 30, n / 2}
	case GradInput:
		p.B.Stride = n
	case GradWeight:
		p.A.Stride, p.B.Stride, p.Result = m, n, F32
		p.R = p.C
	}
	return p
}

var (
	a100 = Chip{Arch: Arch{8, 0}, SMs: 108}
	l4   = Chip{Arch: Arch{8, 9}, SMs: 58}
	h100 = Chip{Arch: Arch{9, 0}, SMs: 132}
)

// The choice is a model, so its test asks for what any sensible one must give.
func TestChoiceOfTiles(t *testing.T) {
	for _, c := range []Chip{a100, l4, h100} {
		for _, x := range []struct {
			p     Product
			least int // rows or columns of W of a tile
			most  int
		}{
			{aligned(Forward, 8192, 8192, 8192), 128, 256},
			{aligned(Forward, 16384, 9728, 896), 128, 256},
			{aligned(ForwardGated, 16384, 9728, 896), 128, 256},
			{aligned(GradInput, 16384, 896, 9728), 128, 256},
			{aligned(Forward, 1, 896, 896), 16, 16},
			{aligned(Forward, 8, 896, 4864), 16, 16},
			{aligned(Forward, 1, 151936, 896), 16, 64},
			{aligned(ForwardGated, 1, 9728, 896), 64, 64},
		} {
			best, splits := x.p.choose(c)
			require.GreaterOrEqual(t, best.n, x.least, "%v %+v: %s", c, x.p, best.Entry)
			require.LessOrEqual(t, best.n, x.most, "%v %+v: %s", c, x.p, best.Entry)
			require.Equal(t, 1, splits)
			// A tile with room for all rows, or the largest there is.
			if x.p.M <= 16 {
				require.Equal(t, 16, best.m)
			}
		}
		// A small weight of many rows fills the chip only in parts; a large one has large tiles.
		small, large := aligned(GradWeight, 896, 896, 16384), aligned(GradWeight, 9728, 896, 16384)
		_, splits := small.choose(c)
		if c.SMs > 64 {
			require.Greater(t, splits, 1, "%v", c)
		}
		best, _ := large.choose(c)
		require.GreaterOrEqual(t, best.m, 128)
		small.NumCounters = 0
		_, splits = small.choose(c)
		require.Equal(t, 1, splits)
	}
}

// What is planned fits the kernel: every block has a tile, and the flags are set.
func TestPlan(t *testing.T) {
	for op := Forward; op <= GradWeight; op++ {
		for _, m := range []int{1, 16, 17, 300, 5000} {
			p := aligned(op, m*8, 1000, 640)
			l, err := p.Plan(h100)
			require.NoError(t, err)
			require.Contains(t, l.Spec.Entry, "_"+op.String()+"_")
			require.NotContains(t, l.Spec.Entry, "_any")
			best, splits := p.choose(h100)
			require.Equal(t, best.Entry, l.Spec.Entry)
			require.Equal(t, best.blocks(p.M, p.N)*splits, l.Grid)
			require.Equal(t, p.C.Addr, l.Args[0])
			again, err := p.Plan(h100)
			require.NoError(t, err)
			require.Equal(t, l, again)
		}
	}
	p := aligned(Forward, 5, 7, 9)
	p.A.Stride, p.B.Stride, p.C.Stride = 9, 11, 7
	l, err := p.Plan(a100)
	require.NoError(t, err)
	require.Equal(t, "gemm_bf16_nt_any", l.Spec.Entry)
	require.Equal(t, []uint64{p.C.Addr, p.A.Addr, p.B.Addr, 0, 0, 5, 7, 9, 7, 9, 11, 0, 1}, l.Args[:len(l.Spec.Params)])
	require.Zero(t, testing.AllocsPerRun(10, func() { _, _ = p.Plan(a100) }))
	// One row lies nowhere else than at its start.
	p = aligned(Forward, 1, 8, 16)
	p.A.Stride = 17
	l, err = p.Plan(a100)
	require.NoError(t, err)
	require.NotContains(t, l.Spec.Entry, "_any")
	p = aligned(GradWeight, 8, 16, 24)
	p.Factors = F32
	l, err = p.Plan(a100)
	require.NoError(t, err)
	require.Equal(t, "gemm_f32_tn", l.Spec.Entry)
	g := BiasGrad{Type: BF16, T: 1025, N: 33, DY: Matrix{512, 40}}
	l, err = g.Plan()
	require.NoError(t, err)
	require.Equal(t, 4, l.Grid)
	require.Equal(t, 2, g.NumCounters())
	require.Equal(t, "bias_grad_bf16", l.Spec.Entry)
}

// On sm_90a every forward is wgmma's, whatever its size and alignment; a plan's maps
// are what the driver takes.
func TestPlanWGMMA(t *testing.T) {
	chip := Chip{Arch: Arch{9, 0}, SMs: 132, Family: WGMMA}
	for _, result := range []Type{F32, BF16} {
		for _, m := range []int{1, 8, 64, 256, 16384} {
			for _, odd := range []int{0, 1} {
				p := aligned(Forward, m, 896, 4864)
				p.Result, p.B.Stride = result, 4864+odd
				l, err := p.Plan(chip)
				require.NoError(t, err)
				require.Contains(t, l.Spec.Entry, "wgmma_nt_"+result.String())
				require.Equal(t, odd == 1, strings.HasSuffix(l.Spec.Entry, "_any"))
				require.LessOrEqual(t, l.Grid, 2*132, "persistent")
			}
		}
	}
	p := aligned(Forward, 1, 896, 4864)
	l, err := p.Plan(chip)
	require.NoError(t, err)
	require.Equal(t, "wgmma_nt_bf16_64x16", l.Spec.Entry, "W is spread over many blocks")
	require.Equal(t, 56, l.Grid)
	require.Equal(t, [2]Map{
		{Matrix: Matrix{p.A.Addr, 4864}, Columns: 4864, Rows: 1, BoxColumns: 64, BoxRows: 64},
		{Matrix: Matrix{p.B.Addr, 4864}, Columns: 4864, Rows: 896, BoxColumns: 64, BoxRows: 16},
	}, l.Maps)
	require.Equal(t, []uint64{0, 1, p.C.Addr, 0, 0, 1, 896, 4864, 896, 0, p.Counters, 1}, l.Args[:len(l.Spec.Params)])

	p = aligned(Forward, 8192, 8192, 8192)
	l, err = p.Plan(chip)
	require.NoError(t, err)
	require.Equal(t, "wgmma_nt_bf16_128x256", l.Spec.Entry)
	require.Equal(t, 132, l.Grid)

	// Along M and N together: slabs of 64 columns and rows.
	p = aligned(GradWeight, 896, 896, 16384)
	l, err = p.Plan(chip)
	require.NoError(t, err)
	require.Contains(t, l.Spec.Entry, "wgmma_tn_f32_")
	require.Equal(t, Map{Matrix: p.A, Columns: 896, Rows: 16384, BoxColumns: 64, BoxRows: 64}, l.Maps[0])
	best, splits := p.choose(chip)
	require.Greater(t, splits, 1, "a small weight of many rows")
	require.Equal(t, best.blocks(896, 896)*splits, l.Grid)
	require.LessOrEqual(t, best.counters(896, 896), p.NumCounters)

	// A gradient in a type that has no such kernel is mma.sync's: no bits hang on it.
	p = aligned(GradInput, 64, 64, 64)
	p.Result = F32
	l, err = p.Plan(chip)
	require.NoError(t, err)
	require.Contains(t, l.Spec.Entry, "gemm_bf16_nn_")
	p = aligned(ForwardGated, 64, 64, 64)
	_, err = p.Plan(chip)
	require.ErrorContains(t, err, "no such kernel")
}

func TestPlanRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		edit func(*Product)
		says string
	}{
		"no rows":        {func(p *Product) { p.M = 0 }, "M = 0"},
		"negative K":     {func(p *Product) { p.K = -1 }, "K = -1"},
		"C overlaps":     {func(p *Product) { p.C.Stride = p.N - 1 }, "smaller than its row"},
		"A overlaps":     {func(p *Product) { p.A.Stride = p.K - 1 }, "smaller than its row"},
		"B overlaps":     {func(p *Product) { p.B.Stride = p.K - 1 }, "smaller than its row"},
		"R overlaps":     {func(p *Product) { p.R = Matrix{512, p.N - 1} }, "smaller than its row"},
		"bf16 of F32":    {func(p *Product) { p.Factors = F32 }, "result in F32"},
		"too many rows":  {func(p *Product) { p.M = math.MaxInt32 }, "too large"},
		"too many tiles": {func(p *Product) { p.M, p.N, p.C.Stride = 1<<30, 1<<30, 1<<30 }, "too large"},
		"bias backward":  {func(p *Product) { *p = aligned(GradInput, 8, 8, 8); p.Bias = 256 }, "belongs to the forward"},
		"gated odd":      {func(p *Product) { *p = aligned(ForwardGated, 8, 12, 8) }, "GatedFits"},
		"gated F32":      {func(p *Product) { *p = aligned(ForwardGated, 8, 16, 8); p.Result = F32 }, "GatedFits"},
		"gated shifted":  {func(p *Product) { *p = aligned(ForwardGated, 8, 16, 8); p.Y.Addr += 2 }, "GatedFits"},
		"Y overlaps":     {func(p *Product) { *p = aligned(ForwardGated, 8, 16, 8); p.Y.Stride = 4 }, "Y has stride 4"},
	} {
		p := aligned(Forward, 16, 24, 32)
		x.edit(&p)
		_, err := p.Plan(h100)
		require.ErrorContains(t, err, x.says, name)
		_, err = p.Candidates(MMA, 1)
		require.ErrorContains(t, err, x.says, name)
	}
	for _, g := range []BiasGrad{{T: 0, N: 1, DY: Matrix{0, 1}}, {T: 1, N: 2, DY: Matrix{0, 1}}, {T: 1, N: 0}} {
		_, err := g.Plan()
		require.ErrorContains(t, err, "bias gradient")
	}
}
