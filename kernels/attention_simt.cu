// attention_simt: attention without tensor cores, packed and over pages, forward
// and backward: for fp32, and for bf16 with head sizes that the other kernels do
// not have. Written to be plain, not fast.
//
// Computes:  what attention.cu, decode_attention.cu and attention_backward.cu
//            compute, with elements of type T (f32 or bf16). And, for these too,
//            attention_delta: delta = Σ dO·O for each row and query head.
//
// Shapes:    as in those files, with T in place of bf16. Lists of tiles, key tiles
//            and runs as in packed.cuh; tiles may have any n·group. delta is T×H
//            fp32, dense.
// Requires:  d from 1 to 256. Any alignment.
// Launch:    attention_simt and attention_dq_simt: grid tiles·KV, block 128.
//            attention_dkv_simt: grid key tiles·KV, block 128. attention_delta: grid
//            ceil(T·H/4), block 128. decode_attention_simt: grid B·KV, block 128.
//            kv_write_simt: grid n, block 128. No shared memory. See attention.go.
// Numerics:  a score is one chain of fma in ascending d; splits, weights and merges
//            as in attention.cuh, a split's output one chain of fma over the keys in
//            ascending order. One warp computes a query by itself, so its bits depend
//            on nothing but what it sees, and are the same packed and over pages.
//            With bf16, weights and their gradients are rounded as in the other
//            kernels. The backward is deterministic: dK and dV are chains over the
//            runs in ascending order, rows ascending within, query heads within a row.
// Source:    the equations of FlashAttention-2 (Dao 2023), row by row.
// Checked by:  kernels/attention_test.go (emulated, against float64).
#include "attention.cuh"
#include "packed.cuh"

namespace updraft {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kColumns = 8;  // of a head, for each lane: lane, lane + 32, ...

DEVICE float value(float v) { return v; }
DEVICE float value(bf16 v) { return to_float(v); }
DEVICE void put(float* p, float v) { *p = v; }
DEVICE void put(bf16* p, float v) { *p = to_bf16(v); }

// rounded gives a weight as it enters a product of elements of type T.
DEVICE float rounded(const float*, float v) { return v; }
DEVICE float rounded(const bf16*, float v) { return to_float(to_bf16(v)); }

DEVICE float warp_sum(float v) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) v = v + shuffle_xor(v, mask);
  return v;
}

template <typename T>
DEVICE float dot(const T* a, const T* b, int d) {
  float s = 0;
  for (int i = 0; i < d; i++) s = fma(value(a[i]), value(b[i]), s);
  return s;
}

// add_row adds w times a row to a warp's sums.
template <typename T>
DEVICE void add_row(float (&sum)[kColumns], float w, const T* row, int d) {
#pragma unroll
  for (int i = 0; i < kColumns; i++) {
    int col = lane() + i * 32;
    if (col < d) sum[i] = fma(w, value(row[col]), sum[i]);
  }
}

template <typename T>
DEVICE void put_row(T* row, const float (&sum)[kColumns], float factor, int d) {
#pragma unroll
  for (int i = 0; i < kColumns; i++) {
    int col = lane() + i * 32;
    if (col < d) put(row + col, sum[i] * factor);
  }
}

// Keys of a packed segment and of a sequence in pages: where position p lies.
template <typename T>
struct PackedKeys {
  const T *K, *V;
  int k_stride, v_stride;
  Tile tile;
  DEVICE const T* key(int p) const { return K + (long long)tile.key_row(p) * k_stride; }
  DEVICE const T* val(int p) const { return V + (long long)tile.key_row(p) * v_stride; }
};

template <typename T>
struct PagedKeys {
  const T *K, *V;
  const int* pages;
  int kv_heads, head, d;
  DEVICE long long at(int p) const { return (((long long)pages[p / kPage] * kv_heads + head) * kPage + p % kPage) * d; }
  DEVICE const T* key(int p) const { return K + at(p); }
  DEVICE const T* val(int p) const { return V + at(p); }
};

// attend computes one query over positions 0..last.
template <typename T, typename Keys>
DEVICE void attend(T* O, float* lse, const T* q, const Keys& keys, int last, int d, float scale) {
  float c = scale * kLog2E, m = -kInfinity, l = 0, o[kColumns] = {};
  for (int first = 0; first <= last; first += kSplit) {
    float s[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int p = first + i * 32 + lane();
      s[i] = p <= last ? dot(q, keys.key(p), d) : -kInfinity;
    }
    float top = max(s[0], s[1]);
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) top = max(top, shuffle_xor(top, mask));
    top = top * c;
    float base = top == -kInfinity ? 0.0f : top;
    float w[2] = {exp2_fast(fma(s[0], c, -base)), exp2_fast(fma(s[1], c, -base))};
    float before, own, sum[kColumns] = {};
    merge(m, l, top, warp_sum(w[0] + w[1]), before, own);
    int seen = min(last - first + 1, kSplit);
    for (int r = 0; r < seen; r++) {
      add_row(sum, rounded(q, shuffle(r < 32 ? w[0] : w[1], r & 31)), keys.val(first + r), d);
    }
#pragma unroll
    for (int i = 0; i < kColumns; i++) o[i] = merged(o[i], sum[i], before, own);
  }
  put_row(O, o, 1.0f / l, d);
  if (lse != nullptr && lane() == 0) *lse = log_sum(m, l);
}

template <typename T>
DEVICE void attention(T* O, const T* Q, const T* K, const T* V, float* LSE, const int* tiles, int kv_heads, int group,
                      int d, int o_stride, int q_stride, int k_stride, int v_stride, int lse_stride, float scale) {
  Tile tile = tile_at(tiles, block_x() / kv_heads);
  int head = block_x() % kv_heads;
  PackedKeys<T> keys{K + head * d, V + head * d, k_stride, v_stride, tile};
  for (int r = warp(); r < tile.n * group; r += kWarps) {
    int i = r / group, h = head * group + r % group;
    long long row = tile.row0 + i;
    attend(O + row * o_stride + h * d, LSE == nullptr ? LSE : LSE + row * lse_stride + h, Q + row * q_stride + h * d,
           keys, tile.pos0 + i, d, scale);
  }
}

// --- Pages ------------------------------------------------------------------

template <typename T>
DEVICE void store_heads(T* k_cache, T* v_cache, const T* K, const T* V, int page, int offset, int head, int heads,
                        int kv_heads, int d) {
  for (int i = thread_x(); i < heads * d; i += kThreads) {
    int h = head + i / d, col = i % d;
    long long to = (((long long)page * kv_heads + h) * kPage + offset) * d + col;
    k_cache[to] = K[h * d + col];
    v_cache[to] = V[h * d + col];
  }
}

template <typename T>
DEVICE void kv_write(T* k_cache, T* v_cache, const T* K, const T* V, const int* rows, const int* slots, int kv_heads,
                     int d, int k_stride, int v_stride) {
  int slot = slots[block_x()];
  long long row = rows[block_x()];
  if (slot < 0) return;
  store_heads(k_cache, v_cache, K + row * k_stride, V + row * v_stride, slot / kPage, slot % kPage, 0, kv_heads,
              kv_heads, d);
}

template <typename T>
DEVICE void decode_attention(T* O, const T* Q, const T* K, const T* V, T* k_cache, T* v_cache, const int* table,
                             const int* positions, int kv_heads, int group, int d, int columns, int table_stride,
                             int o_stride, int q_stride, int k_stride, int v_stride, float scale) {
  int head = block_x() % kv_heads;
  long long b = block_x() / kv_heads;
  int p = positions[b];
  const int* pages = table + b * table_stride;
  if (p < 0 || p / kPage >= columns) {
    for (int i = thread_x(); i < group * d; i += kThreads) put(O + b * o_stride + head * group * d + i, 0.0f);
    return;
  }
  store_heads(k_cache, v_cache, K + b * k_stride, V + b * v_stride, pages[p / kPage], p % kPage, head, 1, kv_heads, d);
  block_sync();  // all warps see what was stored
  PagedKeys<T> keys{k_cache, v_cache, pages, kv_heads, head, d};
  for (int g = warp(); g < group; g += kWarps) {
    int col = (head * group + g) * d;
    attend(O + b * o_stride + col, (float*)nullptr, Q + b * q_stride + col, keys, p, d, scale);
  }
}

// --- Backward ---------------------------------------------------------------

template <typename T>
DEVICE void delta(float* delta, const T* dO, const T* O, int rows, int H, int d, int do_stride, int o_stride) {
  int query = block_x() * kWarps + warp();
  if (query >= rows * H) return;
  long long row = query / H;
  int col = query % H * d;
  float sum = 0;
  for (int i = lane(); i < d; i += 32) {
    sum = fma(value(dO[row * do_stride + col + i]), value(O[row * o_stride + col + i]), sum);
  }
  sum = warp_sum(sum);
  if (lane() == 0) delta[query] = sum;
}

// Backward holds what both passes read. Matrices are those of the forward.
template <typename T>
struct Backward {
  const T *dO, *Q, *K, *V;
  const float *LSE, *delta;
  int kv_heads, group, d, do_stride, q_stride, k_stride, v_stride, lse_stride;
  float scale;

  // weigh gives the weight of a key for a query and the gradient of their score,
  // before scaling.
  DEVICE void weigh(long long row, int h, long long key, int head, float& p, float& ds) const {
    float s = dot(Q + row * q_stride + h * d, K + key * k_stride + head * d, d);
    float dp = dot(dO + row * do_stride + h * d, V + key * v_stride + head * d, d);
    p = exp2_fast(fma(s, scale * kLog2E, -(LSE[row * lse_stride + h] * kLog2E)));
    ds = p * (dp - delta[row * (kv_heads * group) + h]);
  }
};

template <typename T>
DEVICE void dq(T* dQ, const Backward<T>& a, const int* tiles, int dq_stride) {
  Tile tile = tile_at(tiles, block_x() / a.kv_heads);
  int head = block_x() % a.kv_heads;
  for (int r = warp(); r < tile.n * a.group; r += kWarps) {
    int i = r / a.group, h = head * a.group + r % a.group, last = tile.pos0 + i;
    long long row = tile.row0 + i;
    float sum[kColumns] = {};
    for (int first = 0; first <= last; first += 32) {
      float p = 0, ds = 0;
      if (first + (int)lane() <= last) a.weigh(row, h, tile.key_row(first + lane()), head, p, ds);
      for (int k = 0; k < min(last - first + 1, 32); k++) {
        add_row(sum, rounded(a.Q, shuffle(ds, k)), a.K + (long long)tile.key_row(first + k) * a.k_stride + head * a.d, a.d);
      }
    }
    put_row(dQ + row * dq_stride + h * a.d, sum, a.scale, a.d);
  }
}

template <typename T>
DEVICE void dkv(T* dK, T* dV, const Backward<T>& a, const int* key_tiles, const int* runs, int dk_stride, int dv_stride) {
  KeyTile tile = key_tile_at(key_tiles, block_x() / a.kv_heads);
  int head = block_x() % a.kv_heads;
  for (int k = warp(); k < tile.n; k += kWarps) {
    int key = tile.row0 + k;
    float sum_k[kColumns] = {}, sum_v[kColumns] = {};
    for (int i = tile.from; i < tile.to; i++) {
      Run run = run_at(runs, i);
      int queries = run.n * a.group;
      for (int first = 0; first < queries; first += 32) {
        int q = first + (int)lane();
        float p = 0, ds = 0;
        bool seen = q < queries && run.sees(run.row0 + q / a.group, key);
        if (seen) a.weigh(run.row0 + q / a.group, head * a.group + q % a.group, key, head, p, ds);
        u32 all = ballot(seen);
        for (int j = 0; j < 32; j++) {
          if ((all >> j & 1) == 0) continue;
          long long row = run.row0 + (first + j) / a.group;
          int col = (head * a.group + (first + j) % a.group) * a.d;
          add_row(sum_v, rounded(a.Q, shuffle(p, j)), a.dO + row * a.do_stride + col, a.d);
          add_row(sum_k, rounded(a.Q, shuffle(ds, j)), a.Q + row * a.q_stride + col, a.d);
        }
      }
    }
    put_row(dK + (long long)key * dk_stride + head * a.d, sum_k, a.scale, a.d);
    put_row(dV + (long long)key * dv_stride + head * a.d, sum_v, 1.0f, a.d);
  }
}

}  // namespace updraft

#define ATTENTION_SIMT(T, name)                                                                                       \
  KERNEL(128, 0, attention_simt_##name,                                                                               \
         (T * O, const T* Q, const T* K, const T* V, float* LSE, const int* tiles, int kv_heads, int group, int d,    \
          int o_stride, int q_stride, int k_stride, int v_stride, int lse_stride, float scale)) {                     \
    updraft::attention(O, Q, K, V, LSE, tiles, kv_heads, group, d, o_stride, q_stride, k_stride, v_stride,            \
                       lse_stride, scale);                                                                            \
  }                                                                                                                   \
  KERNEL(128, 0, decode_attention_simt_##name,                                                                        \
         (T * O, const T* Q, const T* K, const T* V, T* k_cache, T* v_cache, const int* table, const int* positions,  \
          int kv_heads, int group, int d, int columns, int table_stride, int o_stride, int q_stride, int k_stride,    \
          int v_stride, float scale)) {                                                                               \
    updraft::decode_attention(O, Q, K, V, k_cache, v_cache, table, positions, kv_heads, group, d, columns,            \
                              table_stride, o_stride, q_stride, k_stride, v_stride, scale);                           \
  }                                                                                                                   \
  KERNEL(128, 0, kv_write_simt_##name,                                                                                \
         (T * k_cache, T* v_cache, const T* K, const T* V, const int* rows, const int* slots, int kv_heads, int d,    \
          int k_stride, int v_stride)) {                                                                              \
    updraft::kv_write(k_cache, v_cache, K, V, rows, slots, kv_heads, d, k_stride, v_stride);                          \
  }                                                                                                                   \
  KERNEL(128, 0, attention_delta_##name,                                                                              \
         (float* delta, const T* dO, const T* O, int rows, int H, int d, int do_stride, int o_stride)) {              \
    updraft::delta(delta, dO, O, rows, H, d, do_stride, o_stride);                                                    \
  }                                                                                                                   \
  KERNEL(128, 0, attention_dq_simt_##name,                                                                            \
         (T * dQ, const T* dO, const T* Q, const T* K, const T* V, const float* LSE, const float* delta,              \
          const int* tiles, int kv_heads, int group, int d, int dq_stride, int do_stride, int q_stride, int k_stride, \
          int v_stride, int lse_stride, float scale)) {                                                               \
    updraft::dq(dQ, updraft::Backward<T>{dO, Q, K, V, LSE, delta, kv_heads, group, d, do_stride, q_stride, k_stride,  \
                                         v_stride, lse_stride, scale},                                                \
                tiles, dq_stride);                                                                                    \
  }                                                                                                                   \
  KERNEL(128, 0, attention_dkv_simt_##name,                                                                           \
         (T * dK, T* dV, const T* dO, const T* Q, const T* K, const T* V, const float* LSE, const float* delta,       \
          const int* key_tiles, const int* runs, int kv_heads, int group, int d, int dk_stride, int dv_stride,        \
          int do_stride, int q_stride, int k_stride, int v_stride, int lse_stride, float scale)) {                    \
    updraft::dkv(dK, dV,                                                                                              \
                 updraft::Backward<T>{dO, Q, K, V, LSE, delta, kv_heads, group, d, do_stride, q_stride, k_stride,     \
                                      v_stride, lse_stride, scale},                                                   \
                 key_tiles, runs, dk_stride, dv_stride);                                                              \
  }

ATTENTION_SIMT(float, f32)
ATTENTION_SIMT(updraft::bf16, bf16)
