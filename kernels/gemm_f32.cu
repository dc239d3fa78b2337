// gemm_f32: matrix products in fp32 without tensor cores, for tests and for parity
// with the CPU.
//
// Computes:  gemm_f32_nt  C = A·Bᵀ + bias + R    (Y = X·Wᵀ)
//            gemm_f32_nn  C = A·B + bias + R     (DX = or += DY·W)
//            gemm_f32_tn  C = Aᵀ·B + bias + R    (DW += DYᵀ·X)
// Shapes:    A     fp32, row-major, rows lda elements apart: M×K, in tn K×M
//            B     fp32, row-major, rows ldb apart: K×N, in nt N×K
//            C     M×N, fp32, row-major, rows ldc apart
//            R     M×N, fp32, rows ldr apart; null: nothing is added. May be C
//            bias  N, fp32; null: nothing is added
// Requires:  M, N ≥ 1, K ≥ 0, any; strides at least the row; no alignment. C overlaps
//            nothing else, but R may be C. Nothing beyond M, N and K is touched.
// Launch:    grid ceil(M/64)·ceil(N/64) in x, block 256, 17408 bytes of shared memory.
// Numerics:  one chain of fma in ascending K for each element, from zero; then + bias,
//            then + R. Deterministic; an element's bits depend on its own row and column
//            and on K alone.
// Source:    the register-blocked product of CUTLASS' SIMT kernels, 4×4 elements for a
//            thread; two tiles of K take turns in shared memory.
// Checked by:  kernels/gemm_f32_test.go on the emulated driver, against float64.
//              Not meant to be fast, not measured.
#include "device.cuh"

namespace updraft {

constexpr int kTile = 64;    // rows and columns of C in a block
constexpr int kDepth = 16;   // of K at once
constexpr int kMine = 4;     // rows and columns of C for a thread
constexpr int kThreads = (kTile / kMine) * (kTile / kMine);
constexpr int kEach = kTile * kDepth / kThreads;  // elements of a factor that a thread loads
// Columns of k lie 68 floats apart: the padding spreads the stores over the banks.
constexpr int kColumn = (kTile + 4) * 4;
constexpr int kFactor = kColumn * kDepth;

// F32Factor is A or B: AlongK says that K is contiguous in memory.
template <bool AlongK>
struct F32Factor {
  const float* data;
  int ld, first, rows, K;

  // place gives the row (of the tile) and the k of a thread's i-th element, so that
  // neighbouring threads read neighbouring elements.
  static DEVICE void place(int i, int& row, int& k) {
    int t = (int)thread_x();
    row = AlongK ? t / kDepth + i * (kThreads / kDepth) : t % kTile;
    k = AlongK ? t % kDepth : t / kTile + i * (kThreads / kTile);
  }

  // load reads the elements from k0 on; zero stands for what lies outside.
  DEVICE void load(float (&v)[kEach], int k0) const {
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      int row, k;
      place(i, row, k);
      row += first;
      k += k0;
      bool inside = row < rows && k < K;
      v[i] = inside ? data[AlongK ? (long long)row * ld + k : (long long)k * ld + row] : 0;
    }
  }

  DEVICE void store(u32 dst, const float (&v)[kEach]) const {
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      int row, k;
      place(i, row, k);
      st_shared(dst + k * kColumn + row * 4, v[i]);
    }
  }
};

template <bool AlongA, bool AlongB>
DEVICE void gemm_f32(float* C, const float* A, const float* B, const float* bias, const float* R, int M, int N, int K,
                     int ldc, int lda, int ldb, int ldr) {
  int tiles_m = (M + kTile - 1) / kTile;
  int m0 = (int)block_x() % tiles_m * kTile, n0 = (int)block_x() / tiles_m * kTile;
  int tm = (int)thread_x() / (kTile / kMine) * kMine, tn = (int)thread_x() % (kTile / kMine) * kMine;
  F32Factor<AlongA> fa{A, lda, m0, M, K};
  F32Factor<AlongB> fb{B, ldb, n0, N, K};
  u32 shared = shared_base();
  float acc[kMine][kMine] = {};

  // Load the first tile.
  float a[kEach], b[kEach];
  fa.load(a, 0);
  fb.load(b, 0);
  for (int k0 = 0; k0 < K; k0 += kDepth) {
    u32 here = shared + (u32)(k0 / kDepth & 1) * (2 * kFactor);
    fa.store(here, a);
    fb.store(here + kFactor, b);
    // The tile is whole. That of the turn before is read no more when this barrier is
    // passed again, which is before it is written again.
    block_sync();
    // Load the next while this one is used.
    fa.load(a, k0 + kDepth);
    fb.load(b, k0 + kDepth);
    int depth = min(kDepth, K - k0);
    for (int k = 0; k < depth; k++) {
      float4 x = ld_shared<float4>(here + k * kColumn + tm * 4);
      float4 y = ld_shared<float4>(here + kFactor + k * kColumn + tn * 4);
      float xs[kMine] = {x.x, x.y, x.z, x.w}, ys[kMine] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < kMine; i++) {
#pragma unroll
        for (int j = 0; j < kMine; j++) acc[i][j] = fma(xs[i], ys[j], acc[i][j]);
      }
    }
  }

  // Store.
#pragma unroll
  for (int i = 0; i < kMine; i++) {
#pragma unroll
    for (int j = 0; j < kMine; j++) {
      int m = m0 + tm + i, n = n0 + tn + j;
      if (m >= M || n >= N) continue;
      float v = acc[i][j];
      if (bias) v = v + bias[n];
      if (R) v = v + R[(long long)m * ldr + n];
      C[(long long)m * ldc + n] = v;
    }
  }
}

}  // namespace updraft

#define GEMM_F32(name, along_a, along_b)                                                                        \
  KERNEL(256, 2, gemm_f32_##name,                                                                               \
         (float* C, const float* A, const float* B, const float* bias, const float* R, int M, int N, int K,     \
          int ldc, int lda, int ldb, int ldr)) {                                                                \
    updraft::gemm_f32<along_a, along_b>(C, A, B, bias, R, M, N, K, ldc, lda, ldb, ldr);                         \
  }

GEMM_F32(nt, true, true)
GEMM_F32(nn, true, false)
GEMM_F32(tn, false, false)
