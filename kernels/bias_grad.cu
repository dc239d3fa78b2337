// bias_grad: the gradient of a bias, which is a sum over rows.
//
// Computes:  DB[n] += Σ_t DY[t][n]
// Shapes:    DB  N, fp32
//            DY  T×N, row-major, rows ld elements apart; bf16 or fp32 by the name
//            counters  u32, ceil(N/32) of them, all 0 (and 0 again afterwards)
// Requires:  T, N ≥ 1, ld ≥ N; no alignment. DB overlaps nothing else.
// Launch:    grid ceil(N/32)·ceil(T/1024) in x, block 256, 1024 bytes of shared memory.
// Numerics:  fp32. Rows are summed in blocks of 128, ascending in each; eight blocks
//            are added up in ascending order, and their sums to DB in ascending order,
//            by blocks of threads that take turns. Deterministic: the order depends on
//            T alone.
// Source:    none; a column sum. A warp reads 32 neighbouring columns of a row.
// Checked by:  kernels/bias_grad_test.go on the emulated driver, against float64.
//              Bound by memory. Measured by: bench/gpu. See docs/gpu.md.
#include "turns.cuh"

namespace updraft {

constexpr int kColumns = 32;
constexpr int kWarps = 8;
constexpr int kWarpRows = 128;

DEVICE float value(float v) { return v; }
DEVICE float value(bf16 v) { return to_float(v); }

template <typename E>
DEVICE void bias_grad(float* DB, const E* DY, u32* counters, int T, int N, int ld) {
  int across = (N + kColumns - 1) / kColumns;
  int column = (int)block_x() % across, part = (int)block_x() / across;
  int parts = (T + kWarps * kWarpRows - 1) / (kWarps * kWarpRows);
  int n = column * kColumns + (int)lane();

  // Sum: each warp its rows.
  int from = (part * kWarps + (int)warp()) * kWarpRows, to = min(from + kWarpRows, T);
  float sum = 0;
  if (n < N) {
    const E* p = DY + (long long)from * ld + n;
#pragma unroll 8
    for (int t = from; t < to; t++, p += ld) sum = sum + value(*p);
  }

  // Reduce: the warps in ascending order.
  u32 shared = shared_base();
  st_shared(shared + thread_x() * 4, sum);

  // Store, after the parts before this one; all sums are there when the wait ends.
  wait_turn(counters + column, (u32)part);
  if (warp() == 0 && n < N) {
    float all = 0;
#pragma unroll
    for (u32 w = 0; w < kWarps; w++) all = all + ld_shared<float>(shared + (w * 32 + lane()) * 4);
    DB[n] = DB[n] + all;
  }
  pass_turn(counters + column, (u32)part, (u32)parts);
}

}  // namespace updraft

KERNEL(256, 2, bias_grad_bf16, (float* DB, const updraft::bf16* DY, updraft::u32* counters, int T, int N, int ld)) {
  updraft::bias_grad(DB, DY, counters, T, N, ld);
}

KERNEL(256, 2, bias_grad_f32, (float* DB, const float* DY, updraft::u32* counters, int T, int N, int ld)) {
  updraft::bias_grad(DB, DY, counters, T, N, ld);
}
