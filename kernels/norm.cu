// norm: root-mean-square normalisation of lines of D columns, and its backward.
// A line is one group of a row: the row itself for a layer's norm, a head for
// QK-norm.
//
// Computes:  forward    rstd = 1/√(Σ x²/D + eps),  Y = (X·rstd)·W
//            backward   c = rstd²·Σ W·DY·X / D,  DX = or += rstd·(W·DY − c·X)
//                       partial[s] = Σ over the lines of slice s of DY·rstd·X
//            weight     DW += Σ_s partial[s], s ascending in eight interleaved sums
// Shapes:    X, Y, DX, DY [rows, groups·D], row-major, row strides in elements;
//            W, DW [D] fp32; Rstd [rows, groups] fp32; partial [slices, D] fp32.
//            Types are in the entries' names: Y_X and DX_DY_X.
// Requires:  D ≤ 1024 in the entries that end in _warp, which give a line to a
//            warp, and D ≤ 8192 in those that end in _block. Rstd may be null in
//            the forward, partial in the backward (DW is then not wanted). Y may
//            be X, DX may be DY, where their types are equal.
// Launch:    256 threads. Forward: ceil(lines/8) blocks (_warp) or as many as
//            lines (_block); 32 bytes of shared memory. Backward: a block for each
//            slice of per_slice lines; 32·D bytes (_warp) or 32 (_block) of shared
//            memory. Weight: ceil(D/32) blocks, 1024 bytes of shared memory.
// Numerics:  fp32. A thread sums its elements in ascending packs by one chain of
//            fma, the threads of a warp by a butterfly, warps in ascending order:
//            D alone decides, neither the number of rows nor strides or alignment.
//            DW depends on the number of lines as well (the slices), not on the
//            device. IEEE division and square root.
// Source:    Zhang and Sennrich 2019. Partial sums by slices as in llm.c's
//            layernorm_backward, without atomics.
// Checked by:  kernels/norm_emulated_test.go. Bound by memory bandwidth.
#include "pack.cuh"

namespace updraft {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kHeld = 4;  // packs of a line that a thread owns, at most

// line_sum adds v over the Lanes threads of a line. In the block's case the
// first barrier shows the warps' sums to all, the second lets the next sum
// overwrite them.
template <int Lanes>
DEVICE float line_sum(float v) {
#pragma unroll
  for (u32 mask = 16; mask > 0; mask >>= 1) v += shuffle_xor(v, mask);
  if (Lanes == 32) return v;
  u32 shared = shared_base();
  if (lane() == 0) st_shared<float>(shared + warp() * 4, v);
  block_sync();
  float sum = 0;
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) sum += ld_shared<float>(shared + w * 4);
  block_sync();
  return sum;
}

template <int Lanes>
DEVICE int line_lane() { return (int)(Lanes == 32 ? lane() : thread_x()); }

// --- Forward ----------------------------------------------------------------

template <typename Y, typename X, int Lanes>
DEVICE void rms_norm(Y* y, const X* x, const float* w, float* rstd, int lines, int groups, int d, int y_stride,
                     int x_stride, int rstd_stride, float eps) {
  int line = Lanes == 32 ? (int)(block_x() * kWarps + warp()) : (int)block_x();
  if (line >= lines) return;  // a whole warp, or none
  int row = line / groups, group = line % groups;
  x += (long long)row * x_stride + (long long)group * d;
  y += (long long)row * y_stride + (long long)group * d;

  // Load, and sum squares.
  float v[kHeld][kPack];
  float sum = 0;
#pragma unroll
  for (int r = 0; r < kHeld; r++) {
    int c = (r * Lanes + line_lane<Lanes>()) * kPack;
    load_pack(v[r], x + c, d - c);
#pragma unroll
    for (int i = 0; i < kPack; i++) sum = fma(v[r][i], v[r][i], sum);
  }
  sum = line_sum<Lanes>(sum);
  float scale = 1.0f / sqrt(sum / (float)d + eps);
  if (rstd && line_lane<Lanes>() == 0) rstd[(long long)row * rstd_stride + group] = scale;

  // Scale and store.
#pragma unroll
  for (int r = 0; r < kHeld; r++) {
    int c = (r * Lanes + line_lane<Lanes>()) * kPack;
    if (c >= d) break;
    float weight[kPack];
    load_pack(weight, w + c, d - c);
#pragma unroll
    for (int i = 0; i < kPack; i++) v[r][i] = v[r][i] * scale * weight[i];
    store_pack(y + c, v[r], d - c);
  }
}

// --- Backward ---------------------------------------------------------------

template <typename DX, typename DY, typename X, int Lanes>
DEVICE void rms_norm_backward(DX* dx, float* partial, const DY* dy, const X* x, const float* w, const float* rstd,
                              int lines, int groups, int d, int per_slice, int dx_stride, int dy_stride, int x_stride,
                              int rstd_stride, int accumulate) {
  constexpr int kAtOnce = kThreads / Lanes;
  int first = (int)block_x() * per_slice;
  int last = min(first + per_slice, lines);
  float dw[kHeld][kPack] = {};

  for (int line = first + (Lanes == 32 ? (int)warp() : 0); line < last; line += kAtOnce) {
    int row = line / groups, group = line % groups;
    const X* xs = x + (long long)row * x_stride + (long long)group * d;
    const DY* dys = dy + (long long)row * dy_stride + (long long)group * d;
    DX* dxs = dx + (long long)row * dx_stride + (long long)group * d;
    float scale = rstd[(long long)row * rstd_stride + group];

    // Reduce: Σ W·DY·X.
    float sum = 0;
#pragma unroll
    for (int r = 0; r < kHeld; r++) {
      int c = (r * Lanes + line_lane<Lanes>()) * kPack;
      if (c >= d) break;
      float a[kPack], b[kPack], weight[kPack];
      load_pack(a, xs + c, d - c);
      load_pack(b, dys + c, d - c);
      load_pack(weight, w + c, d - c);
#pragma unroll
      for (int i = 0; i < kPack; i++) sum = fma(weight[i] * b[i], a[i], sum);
    }
    float mean = scale * scale * line_sum<Lanes>(sum) / (float)d;

    // Store DX and collect DW. The operands are read again (from L1): held, they
    // would cost half of the warps. DX may be DY: a thread writes what it read.
#pragma unroll
    for (int r = 0; r < kHeld; r++) {
      int c = (r * Lanes + line_lane<Lanes>()) * kPack;
      if (c >= d) break;
      float a[kPack], b[kPack], weight[kPack];
      load_pack(a, xs + c, d - c);
      load_pack(b, dys + c, d - c);
      load_pack(weight, w + c, d - c);
#pragma unroll
      for (int i = 0; i < kPack; i++) {
        dw[r][i] = fma(b[i] * scale, a[i], dw[r][i]);
        b[i] = scale * fma(-mean, a[i], weight[i] * b[i]);
      }
      if (accumulate) {
        load_pack(a, dxs + c, d - c);
#pragma unroll
        for (int i = 0; i < kPack; i++) b[i] += a[i];
      }
      store_pack(dxs + c, b, d - c);
    }
  }
  if (!partial) return;
  partial += (long long)block_x() * d;

  if (Lanes != 32) {
#pragma unroll
    for (int r = 0; r < kHeld; r++) {
      int c = (r * Lanes + line_lane<Lanes>()) * kPack;
      if (c < d) store_pack(partial + c, dw[r], d - c);
    }
    return;
  }
  // Each warp has summed an eighth of the slice: add the eighths in order.
  u32 shared = shared_base();
#pragma unroll
  for (int r = 0; r < kHeld; r++) {
    int c = (r * 32 + (int)lane()) * kPack;
#pragma unroll
    for (int i = 0; i < kPack; i++) {
      if (c + i < d) st_shared<float>(shared + (warp() * d + c + i) * 4, dw[r][i]);
    }
  }
  block_sync();
  for (int c = (int)thread_x(); c < d; c += kThreads) {
    float sum = 0;
#pragma unroll
    for (int s = 0; s < kWarps; s++) sum += ld_shared<float>(shared + (s * d + c) * 4);
    partial[c] = sum;
  }
}

// Each warp sums every eighth slice of 32 columns.
DEVICE void rms_norm_weight(float* dw, const float* partial, int slices, int d) {
  int c = (int)block_x() * 32 + (int)lane();
  float sum = 0;
  if (c < d) {
    for (int s = (int)warp(); s < slices; s += kWarps) sum += partial[(long long)s * d + c];
  }
  u32 shared = shared_base();
  st_shared<float>(shared + thread_x() * 4, sum);
  block_sync();
  if (warp() != 0 || c >= d) return;
  float total = 0;
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) total += ld_shared<float>(shared + (w * 32 + lane()) * 4);
  dw[c] += total;
}

}  // namespace updraft

using namespace updraft;

#define NORM(types, Y, X, width, lanes)                                                                              \
  KERNEL(256, 0, rmsnorm_##types##_##width, (Y * y, const X* x, const float* w, float* rstd, int lines, int groups,  \
                                             int d, int y_stride, int x_stride, int rstd_stride, float eps)) {       \
    rms_norm<Y, X, lanes>(y, x, w, rstd, lines, groups, d, y_stride, x_stride, rstd_stride, eps);                    \
  }
#define NORM_BOTH(types, Y, X) NORM(types, Y, X, warp, 32) NORM(types, Y, X, block, 256)
NORM_BOTH(f32_f32, float, float)
NORM_BOTH(bf16_f32, bf16, float)
NORM_BOTH(bf16_bf16, bf16, bf16)

#define BACKWARD(types, DX, DY, X, width, lanes)                                                                     \
  KERNEL(256, 0, rmsnorm_backward_##types##_##width,                                                                 \
         (DX * dx, float* partial, const DY* dy, const X* x, const float* w, const float* rstd, int lines,           \
          int groups, int d, int per_slice, int dx_stride, int dy_stride, int x_stride, int rstd_stride,             \
          int accumulate)) {                                                                                         \
    rms_norm_backward<DX, DY, X, lanes>(dx, partial, dy, x, w, rstd, lines, groups, d, per_slice, dx_stride,         \
                                        dy_stride, x_stride, rstd_stride, accumulate);                               \
  }
#define BACKWARD_BOTH(types, DX, DY, X) BACKWARD(types, DX, DY, X, warp, 32) BACKWARD(types, DX, DY, X, block, 256)
BACKWARD_BOTH(f32_f32_f32, float, float, float)
BACKWARD_BOTH(f32_bf16_f32, float, bf16, float)
BACKWARD_BOTH(bf16_bf16_f32, bf16, bf16, float)
BACKWARD_BOTH(f32_bf16_bf16, float, bf16, bf16)
BACKWARD_BOTH(bf16_bf16_bf16, bf16, bf16, bf16)

KERNEL(256, 0, rmsnorm_weight, (float* dw, const float* partial, int slices, int d)) {
  rms_norm_weight(dw, partial, slices, d);
}
