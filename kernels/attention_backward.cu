// attention_backward: gradients of packed attention with shared prefixes, bf16.
//
// Computes:  with P = exp(scale·Q·Kᵀ − LSE), dP = dO·Vᵀ, dS = P·(dP − delta),
//            delta = Σ dO·O (attention_delta in attention_simt.cu):
//              attention_dq    dQ = scale · dS·K
//              attention_dkv   dK = scale · dSᵀ·Q, dV = Pᵀ·dO
//            summed over all queries, and query heads, that see a key.
//
// Shapes:    dQ, dO, Q      T×(H·d), bf16     dK, dV, K, V   T×(KV·d), bf16
//            LSE            T×H, fp32, of the forward
//            delta          T×H, fp32, dense
//            each but delta with rows its own stride of elements apart
//            tiles          tiles of queries;  key_tiles, runs   tiles of at most 64
//            keys with the queries that see them: see packed.cuh
// Requires:  d a multiple of 16, at most D; group = H/KV from 1 to 64. Outputs
//            overlap nothing else.
// Launch:    attention_dq: grid tiles·KV; attention_dkv: grid key tiles·KV; block
//            128, shared memory 256·(2D + 16), and 512 more for dkv. See
//            attention.go. Registers: see docs/gpu.md.
// Numerics:  fp32 sums by mma.sync m16n8k16; P and dS are rounded to bf16 before
//            their products. Deterministic: dQ ascends in the keys' logical position;
//            dK and dV in the runs (ascending segments), then rows, then the query
//            heads of a row. A block owns what it writes; nothing is added by two.
// Source:    FlashAttention-2 (Dao 2023), algorithm 2. Departures: dQ has a pass of
//            its own, which recomputes P and dP, instead of atomic additions; in the
//            other pass a warp owns 16 keys and computes Pᵀ and dSᵀ, whose registers
//            are the next products' operands as they are.
// Checked by:  kernels/attention_backward_test.go (emulated, against float64).
//              Measured by: bench/gpu. See docs/gpu.md.
#include "attention.cuh"
#include "packed.cuh"

namespace updraft {

constexpr int kThreads = 128;  // four warps of 16 queries, or keys

template <int D>
constexpr u32 kTileBytes = 64 * kRowBytes<D>;

struct Backward {
  const bf16 *dO, *Q, *K, *V;
  const float *LSE, *delta;
  int kv_heads, group, d, do_stride, q_stride, k_stride, v_stride, lse_stride;
  float scale;
  DEVICE Source source(const bf16* base, int stride) const { return Source{base, d, aligned16(base, stride)}; }
};

// store_tile writes a warp's 16 rows of a result: row(r) is where row r begins, or
// null.
template <int D, typename RowOf>
DEVICE void store_tile(const float (&sum)[D / 16][2][4], float factor, int d, const RowOf& row) {
#pragma unroll
  for (int h = 0; h < 2; h++) {
    bf16* out = row((int)(warp() * 16 + (lane() >> 2)) + h * 8);
    if (out == nullptr) continue;
    bool paired = aligned4(out, 0);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      const float(&v)[4] = sum[n / 2][n % 2];
      store_pair(out, n * 8 + (int)(lane() & 3) * 2, d, paired, v[2 * h] * factor, v[2 * h + 1] * factor);
    }
  }
}

// --- dQ ---------------------------------------------------------------------

struct QueryOut {
  bf16* base;
  QueryRows rows;
  DEVICE bf16* operator()(int r) const {
    long long at = rows(r);
    return at < 0 ? nullptr : base + at;
  }
};

template <int D>
DEVICE void attention_dq(bf16* dQ, int dq_stride, const Backward& a, const Tile& tile, int head) {
  // Place.
  int first_head = head * a.group, group = a.group;
  u32 q = shared_base(), o = q + kTileBytes<D>, k = o + kTileBytes<D>, v = k + kTileBytes<D>;
  int row = (int)(warp() * 16 + (lane() >> 2));  // and row + 8
  Divisor by_group(group);
  int pos[2] = {tile.pos0 + by_group(row), tile.pos0 + by_group(row + 8)};
  int end = tile.pos0 + tile.n, top = (int)warp() * 16;
  int warp_last = by_group(top) < tile.n ? min(end - 1, tile.pos0 + by_group(top + 15)) : -1;
  float c = a.scale * kLog2E;

  // Load.
  load_tile<D, 64, kThreads>(o, a.source(a.dO + first_head * a.d, a.do_stride), QueryRows{tile, by_group, group, a.do_stride, a.d});
  load_tile<D, 64, kThreads>(q, a.source(a.Q + first_head * a.d, a.q_stride), QueryRows{tile, by_group, group, a.q_stride, a.d});
  Source keys = a.source(a.K + head * a.d, a.k_stride), values = a.source(a.V + head * a.d, a.v_stride);
  load_tile<D, 64, kThreads>(v, values, KeyRows{tile, 0, end, a.v_stride});
  cp_async_commit();
  float lse[2] = {0, 0}, delta[2] = {0, 0};
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int i = by_group(row + h * 8), g = row + h * 8 - i * group;
    if (i >= tile.n) continue;
    long long at = tile.row0 + i;
    lse[h] = a.LSE[at * a.lse_stride + first_head + g] * kLog2E;
    delta[h] = a.delta[at * (a.kv_heads * group) + first_head + g];
  }

  float sum[D / 16][2][4];
#pragma unroll
  for (int pair = 0; pair < D / 16; pair++) clear(sum[pair]);

#pragma unroll 1
  for (int first = 0; first < end; first += kSplit) {
    bool masked = first + kSplit - 1 > tile.pos0;
    bool busy = first <= warp_last;
    cp_async_wait<0>();
    block_sync();  // the values are there for all, and all are done with the keys before
    load_tile<D, 64, kThreads>(k, keys, KeyRows{tile, first, end, a.k_stride});
    cp_async_commit();
    float dp[kSplit / 8][4];
    if (busy) products<D, kSplit / 16>(dp, again(o), warp() * 16, again(v), 0);

    cp_async_wait<0>();
    block_sync();  // the keys are there for all, and all are done with the values
    if (first + kSplit < end) load_tile<D, 64, kThreads>(v, values, KeyRows{tile, first + kSplit, end, a.v_stride});
    cp_async_commit();
    if (!busy) continue;
    float s[kSplit / 8][4];
    products<D, kSplit / 16>(s, again(q), warp() * 16, again(k), 0);
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        int key = first + n * 8 + (int)(lane() & 3) * 2 + (e & 1);
        float p = exp2_fast(fma(s[n][e], c, -lse[e / 2]));
        s[n][e] = masked && key > pos[e / 2] ? 0.0f : p * (dp[n][e] - delta[e / 2]);
      }
    }
    u32 ds[kSplit / 16][4];
    pack_weights(ds, s);
#pragma unroll
    for (int pair = 0; pair < D / 16; pair++) weighted_values<D>(sum[pair], ds, again(k), pair);
  }

  store_tile<D>(sum, a.scale, a.d, QueryOut{dQ + first_head * a.d, QueryRows{tile, by_group, group, dq_stride, a.d}});
}

// --- dK and dV --------------------------------------------------------------

// KeyTileRows places the rows of a tile of keys.
struct KeyTileRows {
  KeyTile tile;
  int stride;
  DEVICE long long operator()(int r) const { return r < tile.n ? (long long)(tile.row0 + r) * stride : -1; }
};

struct KeyOut {
  bf16* base;
  KeyTileRows rows;
  DEVICE bf16* operator()(int r) const {
    long long at = rows(r);
    return at < 0 ? nullptr : base + at;
  }
};

// RunRows places 64 queries of a run, from query `first` on: query i is head
// i % group of row i / group.
struct RunRows {
  Run run;
  Divisor by_group;
  int first, group, stride, d;
  DEVICE long long operator()(int r) const {
    int i = by_group(first + r);
    return i < run.n ? (long long)(run.row0 + i) * stride + (first + r - i * group) * d : -1;
  }
};

// Place walks the queries of a tile's runs, 64 at a time: from query `first` of run
// `at` on. A run is read again where it is needed, rather than held.
struct Place {
  const int* runs;
  int at, to, first;
  DEVICE bool done() const { return at >= to; }
  DEVICE Run run() const { return run_at(runs, (int)again(at)); }
  DEVICE void next(int group) {
    first += 64;
    if (first < run().n * group) return;
    first = 0;
    at++;
  }
};

// load_stat starts the copy of one number for each of 64 queries to shared address
// dst, by 64 threads from thread `from` on.
DEVICE void load_stat(u32 dst, const float* base, const RunRows& rows, u32 from) {
  u32 r = thread_x() - from;
  if (r >= 64) return;
  long long at = rows(r);
  cp_async4(dst + r * 4, at < 0 ? base : base + at, at < 0 ? 0 : 4);
}

// load_outs starts the copy of 64 queries' dO and delta.
template <int D>
DEVICE void load_outs(u32 o, u32 delta, const Backward& a, const Place& p, int first_head) {
  Divisor by_group((int)again(a.group));
  load_tile<D, 64, kThreads>(o, a.source(a.dO + first_head * a.d, a.do_stride),
                             RunRows{p.run(), by_group, p.first, a.group, a.do_stride, a.d});
  load_stat(delta, a.delta + first_head, RunRows{p.run(), by_group, p.first, a.group, a.kv_heads * a.group, 1}, 0);
}

template <int D>
DEVICE void attention_dkv(bf16* dK, bf16* dV, int dk_stride, int dv_stride, const Backward& a, const KeyTile& tile,
                          const int* runs, int head) {
  // Place.
  int first_head = head * a.group, group = a.group;
  u32 k = shared_base(), v = k + kTileBytes<D>, q = v + kTileBytes<D>, o = q + kTileBytes<D>;
  u32 lse = o + kTileBytes<D>, delta = lse + 64 * 4;
  int key = tile.row0 + (int)(warp() * 16 + (lane() >> 2));  // and key + 8
  bool busy = (int)warp() * 16 < tile.n;
  float c = a.scale * kLog2E;
  Place place{runs, tile.from, tile.to, 0};

  // Load.
  load_tile<D, 64, kThreads>(v, a.source(a.V + head * a.d, a.v_stride), KeyTileRows{tile, a.v_stride});
  load_tile<D, 64, kThreads>(k, a.source(a.K + head * a.d, a.k_stride), KeyTileRows{tile, a.k_stride});
  load_outs<D>(o, delta, a, place, first_head);
  cp_async_commit();

  float sum_k[D / 16][2][4], sum_v[D / 16][2][4];
#pragma unroll
  for (int pair = 0; pair < D / 16; pair++) {
    clear(sum_k[pair]);
    clear(sum_v[pair]);
  }

#pragma unroll 1
  while (!place.done()) {
    int first = place.first;
    cp_async_wait<0>();
    block_sync();  // dO and delta are there for all, and all are done with the queries before
    {
      int h = (int)again(first_head);
      Divisor by_group((int)again(group));
      load_tile<D, 64, kThreads>(q, a.source(a.Q + h * a.d, a.q_stride), RunRows{place.run(), by_group, first, group, a.q_stride, a.d});
      load_stat(lse, a.LSE + h, RunRows{place.run(), by_group, first, group, a.lse_stride, 1}, 64);
    }
    cp_async_commit();
    float dp[8][4];
    if (busy) products<D, 4>(dp, again(v), warp() * 16, again(o), 0);

    cp_async_wait<0>();
    block_sync();  // queries and LSE are there for all
    u32 p[4][4], ds[4][4];
    if (busy) {
      Divisor by_group((int)again(group));
      Run run = place.run();
      // Some query of the 64 is not there, or does not see all keys of the tile.
      bool masked = first + 64 > run.n * group || run.key_from > tile.row0 || run.key_to < tile.row0 + tile.n ||
                    run.row0 + by_group(first) < tile.row0 + tile.n - 1;
      float s[8][4];
      products<D, 4>(s, again(k), warp() * 16, again(q), 0);
#pragma unroll
      for (int n = 0; n < 8; n++) {
        int col = n * 8 + (int)(lane() & 3) * 2;
        float2 l = ld_shared<float2>(lse + col * 4), x = ld_shared<float2>(delta + col * 4);
#pragma unroll
        for (int e = 0; e < 4; e++) {
          float w = exp2_fast(fma(s[n][e], c, -((e & 1 ? l.y : l.x) * kLog2E)));
          if (masked) {
            int i = by_group(first + col + (e & 1));
            if (i >= run.n || !run.sees(run.row0 + i, key + e / 2 * 8)) w = 0;
          }
          s[n][e] = w;
          dp[n][e] = w * (dp[n][e] - (e & 1 ? x.y : x.x));
        }
      }
      pack_weights(p, s);
      pack_weights(ds, dp);
#pragma unroll
      for (int pair = 0; pair < D / 16; pair++) weighted_values<D>(sum_v[pair], p, again(o), pair);
    }

    block_sync();  // all are done with dO and delta
    place.next(group);
    if (!place.done()) load_outs<D>(o, delta, a, place, (int)again(first_head));
    cp_async_commit();
    if (busy) {
#pragma unroll
      for (int pair = 0; pair < D / 16; pair++) weighted_values<D>(sum_k[pair], ds, again(q), pair);
    }
  }

  store_tile<D>(sum_k, a.scale, a.d, KeyOut{dK + head * a.d, KeyTileRows{tile, dk_stride}});
  store_tile<D>(sum_v, 1.0f, a.d, KeyOut{dV + head * a.d, KeyTileRows{tile, dv_stride}});
}

}  // namespace updraft

#define ATTENTION_BACKWARD(D)                                                                                          \
  KERNEL(128, 2, attention_dq_bf16_d##D,                                                                               \
         (updraft::bf16 * dQ, const updraft::bf16* dO, const updraft::bf16* Q, const updraft::bf16* K,                 \
          const updraft::bf16* V, const float* LSE, const float* delta, const int* tiles, int kv_heads, int group,     \
          int d, int dq_stride, int do_stride, int q_stride, int k_stride, int v_stride, int lse_stride,               \
          float scale)) {                                                                                              \
    using namespace updraft;                                                                                           \
    Backward a{dO,    Q, K,         V,        LSE,      delta,    kv_heads,                                            \
               group, d, do_stride, q_stride, k_stride, v_stride, lse_stride, scale};                                  \
    attention_dq<D>(dQ, dq_stride, a, tile_at(tiles, block_x() / kv_heads), block_x() % kv_heads);                     \
  }                                                                                                                    \
  KERNEL(128, 2, attention_dkv_bf16_d##D,                                                                              \
         (updraft::bf16 * dK, updraft::bf16* dV, const updraft::bf16* dO, const updraft::bf16* Q,                      \
          const updraft::bf16* K, const updraft::bf16* V, const float* LSE, const float* delta, const int* key_tiles,  \
          const int* runs, int kv_heads, int group, int d, int dk_stride, int dv_stride, int do_stride, int q_stride,  \
          int k_stride, int v_stride, int lse_stride, float scale)) {                                                  \
    using namespace updraft;                                                                                           \
    Backward a{dO,    Q, K,         V,        LSE,      delta,    kv_heads,                                            \
               group, d, do_stride, q_stride, k_stride, v_stride, lse_stride, scale};                                  \
    attention_dkv<D>(dK, dV, dk_stride, dv_stride, a, key_tile_at(key_tiles, block_x() / kv_heads), runs,              \
                     block_x() % kv_heads);                                                                            \
  }

ATTENTION_BACKWARD(64)
ATTENTION_BACKWARD(96)
ATTENTION_BACKWARD(128)
