// gemm_bf16: matrix product of two bf16 matrices, both with K contiguous.
//
// Computes:  C[m][n] = sum over k of A[m][k] · B[n][k]          (C = A·Bᵀ)
//
// Shapes:    A   M×K, bf16, row-major, rows lda elements apart
//            B   N×K, bf16, row-major, rows ldb elements apart
//            C   M×N, row-major, rows ldc elements apart; fp32 in
//                gemm_bf16_f32, bf16 in gemm_bf16_bf16
// Requires:  lda and ldb multiples of 8, A and B 16-byte aligned, C aligned to
//            8 bytes (fp32) or 4 (bf16), lda ≥ K, ldb ≥ K, ldc ≥ N. C overlaps
//            neither A nor B. M, N ≥ 1 and K ≥ 0 are arbitrary: rows beyond M
//            and N and elements beyond K are neither read nor written.
// Launch:    grid ceil(M/128)·ceil(N/128) in x, block 128, 65536 bytes of
//            dynamic shared memory (opt in: more than 48 KB). Registers: see
//            docs/gpu.md.
// Numerics:  fp32 accumulation by mma.sync m16n8k16, k ascending in steps of
//            16, one chain per element of C; one rounding to bf16 at the end in
//            gemm_bf16_bf16. Deterministic, and an element's bits depend on its
//            own rows of A and B and on K alone: not on M, N, its place in the
//            tile, or the strides.
// Source:    multistage pipelining with cp.async as in CUTLASS 2.8 ("multistage"
//            GEMM); the shared-memory swizzle is the usual XOR of a 16-byte
//            chunk's index with its row. Departures: 64-byte rows (K tile of 32),
//            so that four stages fit twice on an SM of compute capability 8.0,
//            and once on 8.6 and 8.9; C is written straight from registers.
// Checked by:  kernels/gemm_emulated_test.go (CPU emulation, against float64),
//              bench/gpu (on a device). Measured by: bench/gpu. See docs/gpu.md.
#include "device.cuh"

namespace updraft {

constexpr int kTileM = 128, kTileN = 128, kTileK = 32;
constexpr int kStages = 4;
constexpr int kThreads = 128;  // four warps, two by two
constexpr int kWarpM = 64, kWarpN = 64;
constexpr int kRowBytes = kTileK * 2;
constexpr int kTileBytes = kTileM * kRowBytes;  // of A; B's is equal
constexpr int kStageBytes = 2 * kTileBytes;
constexpr int kGroupM = 8;  // tile rows that walk N together, for reuse in L2

// tile_offset gives the byte offset, within a tile, of 16-byte chunk c (0..3) of
// row r. Two rows share a 128-byte line of banks; XOR with the line's number
// modulo 4 puts any eight successive rows' chunks c into eight different 16-byte
// bank groups, so that neither ldmatrix nor cp.async meets a bank conflict.
DEVICE u32 tile_offset(u32 r, u32 c) {
  return r * kRowBytes + ((c ^ ((r >> 1) & 3)) << 4);
}

// load_tile starts the copy of a tile of 128 rows and kTileK columns, from row
// row0 and column k0 of src, to shared address dst. What lies beyond rows and K
// arrives as zero: a product with it adds nothing.
DEVICE void load_tile(u32 dst, const bf16* src, int ld, int row0, int rows, int k0, int K) {
  u32 t = thread_x();
  int c = t & 3;
  int left = (K - (k0 + c * 8)) * 2;
  int bytes = left < 0 ? 0 : left > 16 ? 16 : left;
#pragma unroll
  for (int i = 0; i < kTileM * 4 / kThreads; i++) {
    int r = (t >> 2) + i * (kThreads / 4);
    bool in = row0 + r < rows && bytes > 0;
    // An address that is not read must still be a valid one: use the first.
    const bf16* p = in ? src + (long long)(row0 + r) * ld + k0 + c * 8 : src;
    cp_async16(dst + tile_offset(r, c), p, in ? bytes : 0);
  }
}

// Fragments holds the operands of one step of 16 along K for a warp's 64×64
// part of C: four of A (16 rows each) and eight of B (8 columns of C each).
struct Fragments {
  u32 a[kWarpM / 16][4];
  u32 b[kWarpN / 8][2];
};

// load_fragments reads step kk (0 or 1) of a stage. Matrix j of a ldmatrix_x4 is
// addressed by lanes 8j..8j+7: for A, j walks down rows, then along k; for B,
// whose rows are C's columns, j walks along k, then down rows, so that one load
// gives both halves of two B fragments.
DEVICE void load_fragments(Fragments& f, u32 stage, int warp_m, int warp_n, int kk) {
  u32 l = lane();
  u32 j = l >> 3, row = l & 7;
#pragma unroll
  for (int i = 0; i < kWarpM / 16; i++) {
    ldmatrix_x4(f.a[i], stage + tile_offset(warp_m + i * 16 + (j & 1) * 8 + row, kk * 2 + (j >> 1)));
  }
#pragma unroll
  for (int i = 0; i < kWarpN / 16; i++) {
    u32 r[4];
    ldmatrix_x4(r, stage + kTileBytes + tile_offset(warp_n + i * 16 + (j >> 1) * 8 + row, kk * 2 + (j & 1)));
    f.b[2 * i][0] = r[0];
    f.b[2 * i][1] = r[1];
    f.b[2 * i + 1][0] = r[2];
    f.b[2 * i + 1][1] = r[3];
  }
}

// store_pair writes two neighbouring elements of a row, in one instruction where
// the row's alignment and the matrix' edge allow it.
DEVICE void store_pair(float* row, int n, int N, bool paired, float x, float y) {
  if (paired && n + 1 < N) {
    *(float2*)(row + n) = float2{x, y};
    return;
  }
  if (n < N) row[n] = x;
  if (n + 1 < N) row[n + 1] = y;
}

DEVICE void store_pair(bf16* row, int n, int N, bool paired, float x, float y) {
  u32 v = pack_bf16(x, y);
  if (paired && n + 1 < N) {
    *(u32*)(row + n) = v;
    return;
  }
  if (n < N) row[n].bits = (u16)v;
  if (n + 1 < N) row[n + 1].bits = (u16)(v >> 16);
}

template <typename Out>
DEVICE void gemm(Out* C, const bf16* A, const bf16* B, int M, int N, int K, int ldc, int lda, int ldb) {
  // Place: blocks that run together cover kGroupM tile rows and walk along N, so
  // that their A and B tiles stay in L2.
  int tiles_m = (M + kTileM - 1) / kTileM, tiles_n = (N + kTileN - 1) / kTileN;
  int group = (int)block_x() / (kGroupM * tiles_n);
  int in_group = (int)block_x() % (kGroupM * tiles_n);
  int first_m = group * kGroupM;
  int group_m = tiles_m - first_m < kGroupM ? tiles_m - first_m : kGroupM;
  int m0 = (first_m + in_group % group_m) * kTileM;
  int n0 = in_group / group_m * kTileN;

  int warp_m = (warp() & 1) * kWarpM, warp_n = (warp() >> 1) * kWarpN;
  u32 shared = shared_base();
  int steps = (K + kTileK - 1) / kTileK;

  float acc[kWarpM / 16][kWarpN / 8][4] = {};

  // Load: fill all stages but one. A group is committed for every stage, empty
  // or not, so that counting groups counts stages.
#pragma unroll
  for (int s = 0; s < kStages - 1; s++) {
    if (s < steps) {
      load_tile(shared + s * kStageBytes, A, lda, m0, M, s * kTileK, K);
      load_tile(shared + s * kStageBytes + kTileBytes, B, ldb, n0, N, s * kTileK, K);
    }
    cp_async_commit();
  }

  // Compute, while later stages load.
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    cp_async_wait<kStages - 2>();
    // Protects two things: all threads' copies into this step's stage are
    // visible to all, and all warps are done with the stage that is refilled next.
    block_sync();
    int next = step + kStages - 1;
    if (next < steps) {
      u32 stage = shared + (u32)(next % kStages) * kStageBytes;
      load_tile(stage, A, lda, m0, M, next * kTileK, K);
      load_tile(stage + kTileBytes, B, ldb, n0, N, next * kTileK, K);
    }
    cp_async_commit();

    u32 stage = shared + (u32)(step % kStages) * kStageBytes;
    Fragments f[2];
    load_fragments(f[0], stage, warp_m, warp_n, 0);
#pragma unroll
    for (int kk = 0; kk < kTileK / 16; kk++) {
      if (kk + 1 < kTileK / 16) load_fragments(f[(kk + 1) & 1], stage, warp_m, warp_n, kk + 1);
#pragma unroll
      for (int i = 0; i < kWarpM / 16; i++) {
#pragma unroll
        for (int j = 0; j < kWarpN / 8; j++) mma_bf16_16816(acc[i][j], f[kk & 1].a[i], f[kk & 1].b[j]);
      }
    }
  }

  // Store.
  u32 l = lane();
  bool paired = (ldc & 1) == 0;
#pragma unroll
  for (int i = 0; i < kWarpM / 16; i++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int m = m0 + warp_m + i * 16 + half * 8 + (int)(l >> 2);
      if (m >= M) continue;
      Out* row = C + (long long)m * ldc;
#pragma unroll
      for (int j = 0; j < kWarpN / 8; j++) {
        int n = n0 + warp_n + j * 8 + (int)(l & 3) * 2;
        store_pair(row, n, N, paired, acc[i][j][2 * half], acc[i][j][2 * half + 1]);
      }
    }
  }
}

}  // namespace updraft

KERNEL(128, 0, gemm_bf16_f32, (float* C, const updraft::bf16* A, const updraft::bf16* B, int M, int N, int K,
                               int ldc, int lda, int ldb)) {
  updraft::gemm(C, A, B, M, N, K, ldc, lda, ldb);
}

KERNEL(128, 0, gemm_bf16_bf16, (updraft::bf16* C, const updraft::bf16* A, const updraft::bf16* B, int M, int N,
                                int K, int ldc, int lda, int ldb)) {
  updraft::gemm(C, A, B, M, N, K, ldc, lda, ldb);
}
