// gemm_bf16: matrix products of the forward in bf16, with their epilogues.
//
// Computes:  gemm_bf16_nt_*      C = X·Wᵀ + bias + R
//            gemm_bf16_gated_*   G = X·Wᵀ, then Y = silu(gate)·up, where a row of G
//                                is F gates and then F ups
// Shapes:    X     M×K, bf16, row-major, rows ldx elements apart
//            W     N×K, bf16, row-major, rows ldw apart; N = 2F in the gated ones
//            C     M×N, row-major, rows ldc apart; bf16 where result_bf16 is not 0,
//                  else fp32
//            R     M×N of C's type, rows ldr apart; null: nothing is added. May be C
//            bias  N, fp32; null: nothing is added
//            G     M×2F, bf16, rows ldg apart;  Y  M×F, bf16, rows ldy apart
// Requires:  M, N ≥ 1, K ≥ 0, any; strides at least the row. C (and G, Y) overlap
//            nothing else, but R may be C. X and W 16-byte aligned with strides that
//            are multiples of 8, but in gemm_bf16_nt_any, which takes all. C and R
//            need no alignment (with 16 bytes, or 8 in bf16, it is faster). The
//            gated ones: G and Y 8-byte aligned, ldg, ldy and F multiples of 4.
//            Rows beyond M and N and elements beyond K are neither read nor written.
// Launch:    a block for each tile, ceil(M/TileM)·ceil(N/TileN) in x; the name says
//            TileM x TileN (of W's rows; a gated tile is half gates, half ups).
//            Threads, shared bytes and tile are in gemm.go, registers in docs/gpu.md.
// Numerics:  fp32 accumulation by mma.sync m16n8k16, k ascending in steps of 16, one
//            chain per element, X on the side of 16 rows; then + bias, + R in fp32, and
//            one rounding to bf16 where C is bf16. Deterministic, and an element's bits
//            depend on its own rows of X and W and on K alone: not on M, N, the kernel,
//            its place in the tile, or the strides. Gate and up are rounded to bf16
//            before silu(gate)·up is taken, as if it were computed from G.
// Source:    multistage pipelining with cp.async as in CUTLASS 2.8; the swizzles are
//            the usual XOR of a 16-byte chunk's index with its row. Departures: one
//            source for square tiles and for the narrow ones of decoding, which is
//            what makes their bits equal; no split of K; results go through shared
//            memory for whole rows.
//
// Few rows (decoding): W is read once, so what counts is bytes in flight. By Little's
// law, 3.35 TB/s with 700 ns of latency need 2.3 MB, 18 KB for each of an H100's 132
// SMs (an A100: 11 KB). gemm_bf16_nt_16x16 has 7 stages of 16 rows × 256 bytes on the
// way: 28 KB a block, and three blocks fit on an SM; gemm_bf16_nt_16x64 3 stages of
// 64 × 256 bytes: 48 KB a block. X is held on the 16-row side as in the large tiles,
// although with W there fewer rows would be idle: at 16 rows the tensor cores need
// 16 flops for a byte of W, a tenth of what mma.sync gives per byte of memory
// traffic, and so no operand changes its side between decoding and training. The
// chain of K/16 dependent mma (about 33 cycles each) bounds a long K from below:
// K = 8960 takes 10 µs.
// To be confirmed on a device: that mma.sync rounds an element alike in every row and
// column of its tile (bench/gpu compares a row alone with the row among others).
//
// Checked by:  kernels/gemm_bf16_test.go on the emulated driver, against float64;
//              bench/gpu on a device. Measured by: bench/gpu. See docs/gpu.md.
#include "act.cuh"
#include "gemm_tile.cuh"

namespace updraft {

template <class T, bool Aligned>
DEVICE void forward(void* C, const bf16* X, const bf16* W, const float* bias, const void* R, int M, int N, int K,
                    int ldc, int ldx, int ldw, int ldr, int result_bf16) {
  Place at = place<T>(M, N);
  Factor<T::kM, T::kK, T::kThreads, true, Aligned, 0> x{X, ldx, at.m, M, 0};
  Factor<T::kN, T::kK, T::kThreads, true, Aligned, 0> w{W, ldw, at.n, N, 0};
  Accumulators<T> acc = {};
  multiply<T>(acc, x, w, 0, K);
  if (result_bf16) {
    Result<bf16>{(bf16*)C, (const bf16*)R, bias, M, N, ldc, ldr}.template store<T>(acc, at);
  } else {
    Result<float>{(float*)C, (const float*)R, bias, M, N, ldc, ldr}.template store<T>(acc, at);
  }
}

// gated: of each warp's columns the first half are gates and the second half the ups
// that belong to them.
template <class T>
DEVICE void gated(bf16* G, bf16* Y, const bf16* X, const bf16* W, int M, int F, int K, int ldg, int ldy, int ldx,
                  int ldw) {
  constexpr int kHalf = T::kWarpN / 2;
  Place at = place<T>(M, 2 * F);
  Factor<T::kM, T::kK, T::kThreads, true, true, 0> x{X, ldx, at.m, M, 0};
  Factor<T::kN, T::kK, T::kThreads, true, true, kHalf> w{W, ldw, at.n / 2, F, F};
  Accumulators<T> acc = {};
  multiply<T>(acc, x, w, 0, K);

  // Store. A lane has four gates and their ups.
  constexpr int kChunks = kHalf / 4, kDown = 32 / kChunks;
  int row = (int)(lane() / kChunks), chunk = (int)(lane() % kChunks);
  int m0 = at.m + (int)(warp() % T::kWarpsM) * T::kWarpM;
  int n = at.n / 2 + (int)(warp() / T::kWarpsM) * kHalf + chunk * 4;
  Slab<T> slab;
#pragma unroll
  for (int i = 0; i < T::kWarpM / 16; i += Slab<T>::kRows / 16) {
    slab.put(acc, i);
#pragma unroll 1
    for (int from = row; from < Slab<T>::kRows; from += kDown) {
      int m = m0 + i * 16 + from;
      if (m >= M || n >= F) continue;
      float4 g = slab.get(from, chunk), u = slab.get(from, chunk + kChunks);
      uint2 gates{pack_bf16(g.x, g.y), pack_bf16(g.z, g.w)};
      uint2 ups{pack_bf16(u.x, u.y), pack_bf16(u.z, u.w)};
      bf16* c = G + (long long)m * ldg + n;
      *(uint2*)c = gates;
      *(uint2*)(c + F) = ups;
      uint2 y{pack_bf16(swiglu(low_float(gates.x), low_float(ups.x)), swiglu(high_float(gates.x), high_float(ups.x))),
              pack_bf16(swiglu(low_float(gates.y), low_float(ups.y)), swiglu(high_float(gates.y), high_float(ups.y)))};
      *(uint2*)(Y + (long long)m * ldy + n) = y;
    }
  }
}

}  // namespace updraft

// The tiles: M, N, K, stages, warps along M and along N. gemm.go has the same table.
#define FORWARD(name, aligned, min_blocks, ...)                                                                     \
  KERNEL((updraft::Tile<__VA_ARGS__>::kThreads), min_blocks, gemm_bf16_nt_##name,                                   \
         (void* C, const updraft::bf16* X, const updraft::bf16* W, const float* bias, const void* R, int M, int N,  \
          int K, int ldc, int ldx, int ldw, int ldr, int result_bf16)) {                                            \
    updraft::forward<updraft::Tile<__VA_ARGS__>, aligned>(C, X, W, bias, R, M, N, K, ldc, ldx, ldw, ldr, result_bf16); \
  }
#define GATED(name, min_blocks, ...)                                                                                \
  KERNEL((updraft::Tile<__VA_ARGS__>::kThreads), min_blocks, gemm_bf16_gated_##name,                                \
         (updraft::bf16 * G, updraft::bf16 * Y, const updraft::bf16* X, const updraft::bf16* W, int M, int F,       \
          int K, int ldg, int ldy, int ldx, int ldw)) {                                                             \
    updraft::gated<updraft::Tile<__VA_ARGS__>>(G, Y, X, W, M, F, K, ldg, ldy, ldx, ldw);                            \
  }

FORWARD(128x256, true, 1, 128, 256, 32, 4, 2, 4)
FORWARD(128x128, true, 2, 128, 128, 32, 3, 2, 2)
FORWARD(64x64, true, 4, 64, 64, 64, 3, 2, 2)
FORWARD(64x32, true, 4, 64, 32, 64, 4, 4, 1)
FORWARD(32x32, true, 2, 32, 32, 128, 4, 2, 2)
FORWARD(16x64, true, 2, 16, 64, 128, 4, 1, 4)
FORWARD(16x16, true, 3, 16, 16, 128, 8, 1, 1)
FORWARD(any, false, 2, 64, 64, 64, 3, 2, 2)

GATED(128x256, 1, 128, 256, 32, 4, 2, 4)
GATED(128x128, 2, 128, 128, 32, 3, 2, 2)
GATED(64x64, 4, 64, 64, 64, 3, 2, 2)
GATED(16x64, 2, 16, 64, 128, 4, 1, 4)
