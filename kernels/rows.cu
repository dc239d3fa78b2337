// rows: what is computed element by element: filling, copying, gathering rows,
// rotary positions and SwiGLU.
//
// Computes:  fill            P = v
//            copy, to_bf16, to_f32   D = S, rounded to nearest even or widened
//            gather          D[t] = table[ids[t]]; zeros where ids[t] < 0
//            rope            x_j, x_{j+half} = x_j·cos − x_{j+half}·sin,
//                                              x_{j+half}·cos + x_j·sin
//            swiglu          Y = silu(gate)·up
//            swiglu_backward dgate = dy·up·σ·(1 + gate·(1−σ)), dup = dy·gate·σ
// Shapes:    matrices are row-major with row strides in elements. ids [T] and
//            positions [T] int32, dense; cos and sin fp32 [limit, half]; x
//            [T, heads·2·half]. Types are in the entries' names, destination first.
// Requires:  element-aligned pointers, no more: whole packs (pack.cuh) at 16-byte
//            boundaries are moved by one access. dgate may be gate and dup may be
//            up; no other overlap. An id or a position beyond its table gives NaN:
//            nothing outside of the table is read.
// Launch:    a thread for each 16 bytes (fill, copy) or pack of eight elements
//            (of eight pairs in rope), 256 threads a block, grid in x; no shared
//            memory.
// Numerics:  fp32, each element on its own; one rounding to bf16 at the end.
// Source:    Su et al. 2021 (rotary positions, half-split as in Hugging Face's
//            checkpoints); Shazeer 2020 (SwiGLU).
// Checked by:  kernels/rows_emulated_test.go. Bound by memory bandwidth.
#include "act.cuh"
#include "pack.cuh"

namespace updraft {

constexpr int kThreads = 256;

// --- Fill and copy ----------------------------------------------------------

// Raw is 16 bytes of a row of elements that are not looked into. T: u8, u16, u32.
template <typename T>
struct Raw {
  static constexpr int kCount = 16 / (int)sizeof(T);
  int row, col, n;  // n: at most kCount
};

template <typename T>
DEVICE bool place(Raw<T>& r, int rows, int cols) {
  u32 pieces = (u32)(cols + Raw<T>::kCount - 1) / Raw<T>::kCount;
  u32 i = block_x() * kThreads + thread_x();
  if (i >= pieces * (u32)rows) return false;
  r.row = (int)(i / pieces);
  r.col = (int)(i % pieces) * Raw<T>::kCount;
  r.n = min((int)Raw<T>::kCount, cols - r.col);
  return true;
}

template <typename T>
DEVICE void fill(T* p, u32 bits, int rows, int cols, int stride) {
  Raw<T> r;
  if (!place(r, rows, cols)) return;
  p += (long long)r.row * stride + r.col;
  if (r.n == Raw<T>::kCount && aligned16(p)) {
    u32 word = sizeof(T) == 4 ? bits : sizeof(T) == 2 ? (bits & 0xffff) * 0x10001u : (bits & 0xff) * 0x1010101u;
    *(uint4*)p = uint4{word, word, word, word};
    return;
  }
  for (int i = 0; i < r.n; i++) p[i] = (T)bits;
}

template <typename T>
DEVICE void copy(T* dst, const T* src, int rows, int cols, int dst_stride, int src_stride) {
  Raw<T> r;
  if (!place(r, rows, cols)) return;
  dst += (long long)r.row * dst_stride + r.col;
  src += (long long)r.row * src_stride + r.col;
  if (r.n == Raw<T>::kCount && aligned16(dst) && aligned16(src)) {
    *(uint4*)dst = *(const uint4*)src;
    return;
  }
  for (int i = 0; i < r.n; i++) dst[i] = src[i];
}

template <typename D, typename S>
DEVICE void convert(D* dst, const S* src, int rows, int cols, int dst_stride, int src_stride) {
  Place p;
  if (!place(p, kThreads, rows, cols)) return;
  float v[kPack];
  load_pack(v, src + (long long)p.row * src_stride + p.col, p.left);
  store_pack(dst + (long long)p.row * dst_stride + p.col, v, p.left);
}

// --- Gather -----------------------------------------------------------------

template <typename D, typename S>
DEVICE void gather(D* dst, const S* table, const int* ids, int rows, int cols, int limit, int dst_stride,
                   int table_stride) {
  Place p;
  if (!place(p, kThreads, rows, cols)) return;
  int id = ids[p.row];
  float v[kPack];
  if (id >= 0 && id < limit) {
    load_pack(v, table + (long long)id * table_stride + p.col, p.left);
  } else {
#pragma unroll
    for (int i = 0; i < kPack; i++) v[i] = id < 0 ? 0.0f : bits_float(0x7fffffff);
  }
  store_pack(dst + (long long)p.row * dst_stride + p.col, v, p.left);
}

// --- Rotary positions -------------------------------------------------------

template <typename T>
DEVICE void rope(T* x, const int* positions, const float* cosines, const float* sines, int rows, int heads, int half,
                 int limit, int x_stride, int cos_stride, int sin_stride, int inverse) {
  // A head's first halves, in packs: pack i of head h rotates pairs 8i..8i+7.
  u32 packs = (u32)(half + kPack - 1) / kPack;
  Place p;
  if (!place(p, kThreads, rows, heads * (int)packs * kPack)) return;
  int head = p.col / kPack / (int)packs, j = p.col / kPack % (int)packs * kPack;
  int position = positions[p.row];
  if (position < 0) return;
  int left = half - j;
  float c[kPack], s[kPack], a[kPack], b[kPack];
  if (position < limit) {
    load_pack(c, cosines + (long long)position * cos_stride + j, left);
    load_pack(s, sines + (long long)position * sin_stride + j, left);
  } else {
#pragma unroll
    for (int i = 0; i < kPack; i++) c[i] = s[i] = bits_float(0x7fffffff);
  }
  x += (long long)p.row * x_stride + (long long)head * 2 * half + j;
  load_pack(a, x, left);
  load_pack(b, x + half, left);
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    float sine = inverse ? -s[i] : s[i];
    float first = fma(a[i], c[i], -(b[i] * sine));
    b[i] = fma(b[i], c[i], a[i] * sine);
    a[i] = first;
  }
  store_pack(x, a, left);
  store_pack(x + half, b, left);
}

// --- SwiGLU -----------------------------------------------------------------

template <typename T>
DEVICE void swiglu(T* y, const T* gate, const T* up, int rows, int cols, int y_stride, int gate_stride,
                   int up_stride) {
  Place p;
  if (!place(p, kThreads, rows, cols)) return;
  float g[kPack], u[kPack];
  load_pack(g, gate + (long long)p.row * gate_stride + p.col, p.left);
  load_pack(u, up + (long long)p.row * up_stride + p.col, p.left);
#pragma unroll
  for (int i = 0; i < kPack; i++) g[i] = swiglu(g[i], u[i]);
  store_pack(y + (long long)p.row * y_stride + p.col, g, p.left);
}

template <typename T>
DEVICE void swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up, int rows, int cols,
                            int dgate_stride, int dup_stride, int dy_stride, int gate_stride, int up_stride) {
  Place p;
  if (!place(p, kThreads, rows, cols)) return;
  float d[kPack], g[kPack], u[kPack];
  load_pack(d, dy + (long long)p.row * dy_stride + p.col, p.left);
  load_pack(g, gate + (long long)p.row * gate_stride + p.col, p.left);
  load_pack(u, up + (long long)p.row * up_stride + p.col, p.left);
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    float2 both = swiglu_backward(d[i], g[i], u[i]);
    g[i] = both.x;
    u[i] = both.y;
  }
  store_pack(dgate + (long long)p.row * dgate_stride + p.col, g, p.left);
  store_pack(dup + (long long)p.row * dup_stride + p.col, u, p.left);
}

}  // namespace updraft

using namespace updraft;

#define FILL(bits, T)                                                                              \
  KERNEL(256, 0, fill_b##bits, (T * p, u32 value, int rows, int cols, int stride)) {               \
    fill(p, value, rows, cols, stride);                                                            \
  }
FILL(8, u8)
FILL(16, u16)
FILL(32, u32)

#define COPY(name, function, D, S)                                                                      \
  KERNEL(256, 0, name, (D * dst, const S* src, int rows, int cols, int dst_stride, int src_stride)) {   \
    function(dst, src, rows, cols, dst_stride, src_stride);                                             \
  }
COPY(copy_b8, copy, u8, u8)
COPY(copy_b16, copy, u16, u16)
COPY(copy_b32, copy, u32, u32)
COPY(copy_bf16_f32, convert, bf16, float)
COPY(copy_f32_bf16, convert, float, bf16)

#define GATHER(name, D, S)                                                                                  \
  KERNEL(256, 0, name, (D * dst, const S* table, const int* ids, int rows, int cols, int limit,             \
                        int dst_stride, int table_stride)) {                                                \
    gather(dst, table, ids, rows, cols, limit, dst_stride, table_stride);                                   \
  }
GATHER(gather_f32_f32, float, float)
GATHER(gather_f32_bf16, float, bf16)
GATHER(gather_bf16_bf16, bf16, bf16)

#define ROPE(name, T)                                                                                        \
  KERNEL(256, 0, name, (T * x, const int* positions, const float* cosines, const float* sines, int rows,     \
                        int heads, int half, int limit, int x_stride, int cos_stride, int sin_stride,        \
                        int inverse)) {                                                                      \
    rope(x, positions, cosines, sines, rows, heads, half, limit, x_stride, cos_stride, sin_stride, inverse); \
  }
ROPE(rope_f32, float)
ROPE(rope_bf16, bf16)

#define SWIGLU(type, T)                                                                                         \
  KERNEL(256, 0, swiglu_##type, (T * y, const T* gate, const T* up, int rows, int cols, int y_stride,           \
                                 int gate_stride, int up_stride)) {                                             \
    swiglu(y, gate, up, rows, cols, y_stride, gate_stride, up_stride);                                          \
  }                                                                                                             \
  KERNEL(256, 0, swiglu_backward_##type, (T * dgate, T * dup, const T* dy, const T* gate, const T* up, int rows, \
                                          int cols, int dgate_stride, int dup_stride, int dy_stride,            \
                                          int gate_stride, int up_stride)) {                                    \
    swiglu_backward(dgate, dup, dy, gate, up, rows, cols, dgate_stride, dup_stride, dy_stride, gate_stride,     \
                    up_stride);                                                                                 \
  }
SWIGLU(f32, float)
SWIGLU(bf16, bf16)
