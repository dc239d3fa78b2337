// gemm_bf16_grad: matrix products of the backward in bf16.
//
// Computes:  gemm_bf16_nn_*  C = A·B + R    (DX = or += DY·W)
//            gemm_bf16_tn_*  C = Aᵀ·B + R   (DW += DYᵀ·X)
// Shapes:    A   bf16, row-major, rows lda elements apart: M×K in nn, K×M in tn
//            B   K×N, bf16, row-major, rows ldb apart
//            C   M×N, row-major, rows ldc apart; bf16 where result_bf16 is not 0,
//                else fp32
//            R   M×N of C's type, rows ldr apart; null: nothing is added. May be C
//            counters  u32, one for each tile, all 0 (and 0 again afterwards); used
//                where splits > 1
// Requires:  M, N ≥ 1, K ≥ 0, any; strides at least the row. C overlaps nothing
//            else, but R may be C. A and B 16-byte aligned with strides that are
//            multiples of 8, but in the kernels named _any, which take all. splits ≥ 1;
//            more than one only where C is fp32. Rows and columns beyond M, N and K are
//            neither read nor written.
// Launch:    a block for each tile and split, ceil(M/TileM)·ceil(N/TileN)·splits in x;
//            the name says TileM x TileN. Threads, shared bytes and tile are in
//            gemm.go, registers in docs/gpu.md.
// Numerics:  fp32 accumulation by mma.sync m16n8k16, k ascending in steps of 16; then
//            + R in fp32, and one rounding to bf16 where C is bf16. With splits, K is
//            cut into that many runs of whole steps, each of them is one chain, and they
//            are added to R in ascending order by blocks that take turns. Deterministic;
//            an element's bits depend on its own row and column of the factors, on K and
//            on splits.
// Source:    as gemm_bf16.cu; factors that are stored along M or N are loaded as they
//            lie, and ldmatrix.trans turns them. Turns after CUTLASS' semaphore.
// Checked by:  kernels/gemm_bf16_test.go on the emulated driver, against float64;
//              bench/gpu on a device. Measured by: bench/gpu. See docs/gpu.md.
#include "gemm_tile.cuh"
#include "turns.cuh"

namespace updraft {

template <class T, bool AlongK, bool Aligned>
DEVICE void backward(void* C, const bf16* A, const bf16* B, const void* R, u32* counters, int M, int N, int K, int ldc,
                     int lda, int ldb, int ldr, int result_bf16, int splits) {
  Place at = place<T>(M, N);
  Factor<T::kM, T::kK, T::kThreads, AlongK, Aligned, 0> a{A, lda, at.m, M, 0};
  Factor<T::kN, T::kK, T::kThreads, false, Aligned, 0> b{B, ldb, at.n, N, 0};
  int steps = (K + T::kK - 1) / T::kK;
  int begin = (int)((long long)steps * at.split / splits) * T::kK;
  int end = min((int)((long long)steps * (at.split + 1) / splits) * T::kK, K);
  Accumulators<T> acc = {};
  multiply<T>(acc, a, b, begin, end);
  if (splits > 1) wait_turn(counters + at.tile, (u32)at.split);
  const void* add = at.split > 0 ? C : R;
  int ld = at.split > 0 ? ldc : ldr;
  if (result_bf16) {
    Result<bf16>{(bf16*)C, (const bf16*)add, nullptr, M, N, ldc, ld}.template store<T>(acc, at);
  } else {
    Result<float>{(float*)C, (const float*)add, nullptr, M, N, ldc, ld}.template store<T>(acc, at);
  }
  if (splits > 1) pass_turn(counters + at.tile, (u32)at.split, (u32)splits);
}

}  // namespace updraft

// The tiles: M, N, K, stages, warps along M and along N. gemm.go has the same table.
#define BACKWARD(name, along_k, aligned, min_blocks, ...)                                                           \
  KERNEL((updraft::Tile<__VA_ARGS__>::kThreads), min_blocks, gemm_bf16_##name,                                      \
         (void* C, const updraft::bf16* A, const updraft::bf16* B, const void* R, updraft::u32* counters, int M,    \
          int N, int K, int ldc, int lda, int ldb, int ldr, int result_bf16, int splits)) {                         \
    updraft::backward<updraft::Tile<__VA_ARGS__>, along_k, aligned>(C, A, B, R, counters, M, N, K, ldc, lda, ldb,   \
                                                                    ldr, result_bf16, splits);                      \
  }

BACKWARD(nn_128x256, true, true, 1, 128, 256, 32, 4, 2, 4)
BACKWARD(nn_128x128, true, true, 2, 128, 128, 32, 3, 2, 2)
BACKWARD(nn_64x64, true, true, 4, 64, 64, 64, 3, 2, 2)
BACKWARD(nn_any, true, false, 2, 64, 64, 64, 3, 2, 2)
BACKWARD(tn_128x256, false, true, 1, 128, 256, 32, 4, 2, 4)
BACKWARD(tn_128x128, false, true, 2, 128, 128, 32, 3, 2, 2)
BACKWARD(tn_64x64, false, true, 4, 64, 64, 64, 3, 2, 2)
BACKWARD(tn_any, false, false, 2, 64, 64, 64, 3, 2, 2)
