package kernels_test

import (
	"regexp"
	"slices"
	"testing"

	"github.com/updraft-ml/updraft/kernels"
	"github.com/updraft-ml/updraft/kernels/kerneltest"
)

// fewer empties all entry points of a module's source but those that are named so:
// what is left compiles in a fraction of the time.
func fewer(t *testing.T, module string, names ...string) string {
	t.Helper()
	// A twin of each macro that makes an entry point has no body.
	macro := regexp.MustCompile(`(?s)#define (FORWARD|GATED|BACKWARD)(\([^)]*\).*?)\{ *\\\n.*?\}\n`)
	entry := regexp.MustCompile(`(?m)^(FORWARD|GATED|BACKWARD)(\((\w+),)`)
	text := macro.ReplaceAllString(kerneltest.Source(t, module), "${0}#define ${1}_EMPTY${2}{}\n")
	return entry.ReplaceAllStringFunc(text, func(line string) string {
		m := entry.FindStringSubmatch(line)
		if slices.Contains(names, m[3]) {
			return line
		}
		return m[1] + "_EMPTY" + m[2]
	})
}

// Each defect, sown into the kernels' text, must fail in at least one mode. They
// are sown where all products share the text, and seen in three tiles.
func TestGEMMForwardDefects(t *testing.T) {
	large, small, both := []string{"128x128"}, []string{"16x16"}, []string{"128x128", "16x16"}
	problems := []problem{
		{op: kernels.Forward, factors: bf16, result: f32, m: 131, n: 68, k: 139, pad: 4, bias: true, add: other, only: both},
		{op: kernels.Forward, factors: bf16, result: bf16, m: 3, n: 134, k: 75, pad: 4, bias: true, add: itself, only: large},
		{op: kernels.Forward, factors: bf16, result: bf16, m: 17, n: 21, k: 1300, pad: 1, bias: true, only: small},
		{op: kernels.Forward, factors: bf16, result: f32, m: 67, n: 64, k: 75, odd: true},
	}
	kerneltest.DefectsIn(t, "gemm_bf16", fewer(t, "gemm_bf16", "128x128", "16x16", "any"), []kerneltest.Defect{
		{Name: "first wait too weak", Old: "cp_async_wait<T::kStages - 2>();\n  block_sync", New: "cp_async_wait<T::kStages - 1>();\n  block_sync"},
		{Name: "wait too weak", Old: "cp_async_wait<T::kStages - 2>();\n        //", New: "cp_async_wait<T::kStages - 1>();\n        //"},
		{Name: "no first barrier", Old: "  block_sync();  // all threads' copies", New: "  // all threads' copies"},
		{Name: "no barrier", Old: "        block_sync();\n      }\n", New: "      }\n"},
		{Name: "no barrier before the epilogue", Old: "  block_sync();  // the stages have been read", New: "  // the stages have been read"},
		{Name: "stage refilled early", Old: "load(step + T::kStages - 1, refill)", New: "load(step + T::kStages - 1, slot)"},
		{Name: "operands of the stage before", Old: "kk + 1 < kSteps ? slot : next", New: "slot"},
		{Name: "operands in turn lost", Old: "mma_bf16_16816(acc[i][j], f[kk & 1].a[i]", New: "mma_bf16_16816(acc[i][j], f[0].a[i]"},
		{Name: "K edge off by one", Old: "(AlongK ? end : rows) - along", New: "(AlongK ? end + 1 : rows) - along"},
		{Name: "tail of K not zero", Old: "cp_async16(dst, n > 0 ? p : data, n * 2);", New: "cp_async16(dst, n > 0 ? p : data, n > 0 ? 16 : 0);"},
		{Name: "row edge off by one", Old: "wanted = row < rows;", New: "wanted = row <= rows;"},
		{Name: "odd tail of K", Old: "2 * i + 1 < n ?", New: "2 * i < n ?"},
		{Name: "bank conflicts", Old: "((chunk ^ x) << 4)", New: "(chunk << 4)"},
		{Name: "bank conflicts of short lines", Old: "(line >> 1) & 3;", New: "line & 3;"},
		{Name: "A walks k before rows", Old: "rows_first ? j & 1 : j >> 1", New: "rows_first ? j >> 1 : j & 1"},
		{Name: "fragments of B swapped", Old: "f.b[i][0][1] = r[1];", New: "f.b[i][0][1] = r[2];"},
		{Name: "wrong group of tiles", Old: "within % group", New: "within % kGroup"},
		{Name: "slab read too early", Old: "    warp_sync();  // the slab is whole\n", New: ""},
		{Name: "slab written too early", Old: "    warp_sync();  // what was here has been read\n", New: ""},
		{Name: "slabs of warps overlap", Old: "warp() * (kRows * T::kWarpN * 4)", New: "warp() * (kRows * T::kWarpN * 2)"},
		{Name: "store beyond M", Old: "if (m + p * kDown >= M) continue;", New: "if (m + p * kDown > M) continue;"},
		{Name: "store of single elements beyond M", Old: "p < 16 && m + p < M", New: "p < 16 && m + p <= M"},
		{Name: "store beyond N", Old: "if (n >= N) return;", New: "if (n > N) return;"},
		{Name: "store of four beyond N", Old: "n0 + T::kWarpN <= N && in_fours(C, ldc)", New: "n0 < N && in_fours(C, ldc)"},
		{Name: "four elements at odd stride", Old: "&& ld % 4 == 0", New: "&& ld % 2 == 0"},
		{Name: "addend at the stride of C", Old: "R + (long long)m * ldr + n;", New: "R + (long long)m * ldc + n;"},
		{Name: "wrong bias", Old: "b.y = n + 1 < N ? bias[n + 1]", New: "b.y = n + 1 < N ? bias[n]"},
		{Name: "bias forgotten", Old: "            if (bias) v = v + b;\n", New: ""},
	}, func(d *kerneltest.Device) error { return checkAll(d, problems) }, noConflicts)
}

func TestGEMMGatedDefects(t *testing.T) {
	problems := []gatedProblem{{m: 19, f: 40, k: 150, pad: 1, only: []string{"16x64"}}, {m: 3, f: 8, k: 20, only: []string{"16x64"}}}
	kerneltest.DefectsIn(t, "gemm_bf16 rows", fewer(t, "gemm_bf16", "16x64"), []kerneltest.Defect{
		{Name: "first up taken for a gate", Old: "line % (2 * Half) >= Half ? gap", New: "line % (2 * Half) > Half ? gap"},
		{Name: "columns of warps", Old: "line / (2 * Half) * Half + line % Half", New: "line / (2 * Half) + line % Half"},
		{Name: "from what was not rounded", Old: "swiglu(low_float(gates.x), low_float(ups.x))", New: "swiglu(g.x, u.x)"},
		{Name: "gate and up swapped", Old: "swiglu(high_float(gates.y), high_float(ups.y))", New: "swiglu(high_float(ups.y), high_float(gates.y))"},
		{Name: "store beyond F", Old: "if (m >= M || n >= F) continue;", New: "if (m >= M || n > F) continue;"},
		{Name: "ups in the place of gates", Old: "*(uint2*)(c + F) = ups;", New: "*(uint2*)(c + F) = gates;"},
	}, func(d *kerneltest.Device) error {
		for _, g := range problems {
			if err := g.check(d); err != nil {
				return err
			}
		}
		return nil
	}, noConflicts)
}

func TestGEMMGradDefects(t *testing.T) {
	only := []string{"64x64", "any"}
	problems := []problem{
		{op: kernels.GradInput, factors: bf16, result: bf16, m: 70, n: 66, k: 75, pad: 1, add: itself, only: only},
		{op: kernels.GradWeight, factors: bf16, result: f32, m: 36, n: 75, k: 150, add: itself, only: only},
		{op: kernels.GradWeight, factors: bf16, result: f32, m: 9, n: 12, k: 400, splits: 5, add: other, only: only},
		{op: kernels.GradWeight, factors: bf16, result: f32, m: 5, n: 12, k: 33, odd: true, only: only},
	}
	kerneltest.DefectsIn(t, "gemm_bf16_grad", fewer(t, "gemm_bf16_grad", "nn_64x64", "tn_64x64", "tn_any"), []kerneltest.Defect{
		{Name: "not transposed", Old: "ldmatrix_x4_trans(f, tile", New: "ldmatrix_x4(f, tile"},
		{Name: "halves of K and of rows swapped", Old: "at(k_half * 8 + r, row / 8 + row_half)", New: "at(row_half * 8 + r, row / 8 + k_half)"},
		{Name: "tail of K not zero", Old: "n = row < end ? count : 0;", New: "n = row <= end ? count : 0;"},
		{Name: "columns beyond the matrix", Old: "(AlongK ? end : rows) - along", New: "(AlongK ? end : rows + 1) - along"},
		{Name: "next piece along the wrong side", Old: "(place ^ (u32)(i << 5)) + kk * 16", New: "(place ^ (u32)(kk << 5)) + i * 16"},
		{Name: "bank conflicts", Old: "kLineBytes >= 128 ? line & 7", New: "kLineBytes >= 128 ? 0"},
		{Name: "later parts forget the earlier", Old: "at.split > 0 ? C : R", New: "R"},
		{Name: "parts overlap", Old: "int begin = (int)((long long)steps * at.split / splits)", New: "int begin = (int)((long long)steps * at.split / splits / 2)"},
		{Name: "a part beyond K", Old: "(at.split + 1) / splits) * T::kK, K)", New: "(at.split + 1) / splits) * T::kK, K + 1)"},
		{Name: "turns not waited for", Old: "while (ld_acquire(counter) != turn)", New: "while (ld_acquire(counter) > turn)"},
		{Name: "counter passed before the result", Old: "  block_sync();  // all threads have written", New: "  // all threads have written"},
		{Name: "counter not reset", Old: "turn + 1 == turns ? 0 : turn + 1", New: "turn + 1"},
	}, func(d *kerneltest.Device) error { return checkAll(d, problems) }, noConflicts)
}

func TestGEMMF32Defects(t *testing.T) {
	kerneltest.Defects(t, "gemm_f32", []kerneltest.Defect{
		{Name: "no barrier", Old: "    block_sync();\n", New: ""},
		{Name: "one buffer", Old: "(u32)(k0 / kDepth & 1)", New: "(u32)(k0 / kDepth & 0)"},
		{Name: "row edge off by one", Old: "row < rows && k < K", New: "row <= rows && k < K"},
		{Name: "K edge off by one", Old: "row < rows && k < K", New: "row < rows && k <= K"},
		{Name: "store beyond M", Old: "if (m >= M || n >= N) continue;", New: "if (m > M || n >= N) continue;"},
		{Name: "store beyond N", Old: "if (m >= M || n >= N) continue;", New: "if (m >= M || n > N) continue;"},
		{Name: "two roundings", Old: "acc[i][j] = fma(xs[i], ys[j], acc[i][j])", New: "acc[i][j] = acc[i][j] + xs[i] * ys[j]"},
	}, func(d *kerneltest.Device) error {
		if err := checkF32(d); err != nil {
			return err
		}
		return checkF32Chain(d)
	})
}

func TestBiasGradDefects(t *testing.T) {
	kerneltest.Defects(t, "bias_grad", []kerneltest.Defect{
		{Name: "rows beyond T", Old: "min(from + kWarpRows, T)", New: "from + kWarpRows"},
		{Name: "column edge off by one", Old: "  if (n < N) {\n", New: "  if (n <= N) {\n"},
		{Name: "store beyond N", Old: "if (warp() == 0 && n < N)", New: "if (warp() == 0 && n <= N)"},
		{Name: "overwritten, not added", Old: "DB[n] = DB[n] + all;", New: "DB[n] = all;"},
		{Name: "no barrier before the reduction", Old: "  block_sync();  // nobody reads", New: "  // nobody reads"},
	}, checkBiasGrad)
}
