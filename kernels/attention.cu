// attention: causal softmax attention over packed segments with shared prefixes
// and grouped query heads, bf16.
//
// Computes:  O = softmax(scale · Q·Kᵀ)·V over the keys that a row sees, and
//            LSE = log Σ exp(scale · q·k); query head h reads key-value head
//            h/(H/KV). See attention.cuh for the arithmetic.
//
// Shapes:    O, Q    T×(H·d), bf16, rows o_stride, q_stride elements apart
//            K, V    T×(KV·d), bf16, rows k_stride, v_stride elements apart
//            LSE     T×H, fp32, rows lse_stride elements apart; null: not kept
//            tiles   8 ints for each tile of queries, see packed.cuh
//            d is the head size, at most D of attention_bf16_d<D>; columns
//            between d and D count as zeros.
// Requires:  d a multiple of 16; group = H/KV from 1 to 64. Rows that start
//            at multiples of 16 bytes are copied asynchronously, others element
//            by element. O and LSE overlap nothing else.
// Launch:    grid tiles·KV, block 128, shared memory 192·(2D + 16) + 16: see
//            attention.go. Registers: see docs/gpu.md.
// Numerics:  as attention.cuh says; deterministic. A row's bits depend on its own
//            query and on the keys and values that it sees, in their logical order,
//            and on nothing else. A NaN or Inf among keys or values reaches the
//            rows that see it and no others.
// Source:    FlashAttention-2 (Dao 2023): query tiles stay, keys and values pass
//            through shared memory, the next tile's copy under way during each of
//            the two products. Departures: attention.cuh's splits; the query heads
//            of a key-value head share a tile, so that short segments fill it.
// Checked by:  kernels/attention_test.go (emulated, against float64).
//              Measured by: bench/gpu. See docs/gpu.md.
#include "attention.cuh"
#include "packed.cuh"

namespace updraft {

constexpr int kThreads = 128;  // four warps of 16 queries below one another

DEVICE bool not_finite(u32 half) { return (half & 0x7f80) == 0x7f80; }

// clean replaces what is not finite in a pair by zero.
DEVICE u32 clean(u32 v) {
  u32 keep = (not_finite(v) ? 0 : 0xffffu) | (not_finite(v >> 16) ? 0 : 0xffff0000u);
  return v & keep;
}

// clean_values goes through the chunks of a tile that the calling thread copied,
// tells whether one held something not finite, and replaces that where asked to.
template <int D>
DEVICE bool clean_values(u32 tile, bool replace) {
  bool found = false;
#pragma unroll
  for (int i = 0; i < kSplit * (D / 8) / kThreads; i++) {
    int at = (int)thread_x() + i * kThreads;
    u32 a = tile + tile_offset<D>(at / (D / 8), at % (D / 8));
    uint4 v = ld_shared<uint4>(a);
    uint4 w = {clean(v.x), clean(v.y), clean(v.z), clean(v.w)};
    bool bad = v.x != w.x || v.y != w.y || v.z != w.z || v.w != w.w;
    if (bad && replace) st_shared<uint4>(a, w);
    found = found || bad;
  }
  return found;
}

// State is what a warp holds of its 16 queries: rows lane/4 and lane/4 + 8 of them
// in each lane.
template <int D>
struct State {
  float o[D / 8][4];
  float m[2], l[2];
};

// spread gives an output the value that is not finite of a key that its query
// sees; the tile can then be cleaned, so that the weight 0 of those that do not
// see it has nothing to multiply.
template <int D>
DEVICE void spread(State<D>& st, u32 v, int first, const int (&pos)[2]) {
#pragma unroll 1
  for (int key = 0; key < kSplit; key++) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      u32 pair = ld_shared<u32>(v + tile_offset<D>(key, n) + (lane() & 3) * 4);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        bool seen = first + key <= pos[h];
        if (seen && not_finite(pair)) st.o[n][2 * h] = low_float(pair);
        if (seen && not_finite(pair >> 16)) st.o[n][2 * h + 1] = high_float(pair);
      }
    }
  }
}

// add_split merges a split, whose scores are s, into a warp's state.
template <int D>
DEVICE void add_split(State<D>& st, float (&s)[kSplit / 8][4], u32 v, float c) {
  Softmax x = softmax_split(s, c);
  u32 p[kSplit / 16][4];
  pack_weights(p, s);
  float before[2], own[2];
#pragma unroll
  for (int h = 0; h < 2; h++) merge(st.m[h], st.l[h], x.m[h], x.l[h], before[h], own[h]);
#pragma unroll
  for (int pair = 0; pair < D / 16; pair++) {
    float acc[2][4];
    clear(acc);
    weighted_values<D>(acc, p, v, pair);
#pragma unroll
    for (int n = 0; n < 2; n++) {
#pragma unroll
      for (int e = 0; e < 4; e++) {
        float& o = st.o[2 * pair + n][e];
        o = merged(o, acc[n][e], before[e / 2], own[e / 2]);
      }
    }
  }
}

struct Attention {
  bf16* O;
  const bf16 *Q, *K, *V;
  float* LSE;
  int group, d, o_stride, q_stride, k_stride, v_stride, lse_stride;
  float scale;
};

template <int D>
constexpr u32 kTileBytes = 64 * kRowBytes<D>;

// attention computes one tile for one key-value head. Shared memory: queries, a
// split's keys and its values, and a word that says whether one of these was not
// finite: 192·(2D + 16) + 16 bytes.
template <int D>
DEVICE void attention(Attention a, const Tile& tile, int head) {
  // Place.
  a.O += head * a.group * a.d;
  a.Q += head * a.group * a.d;
  u32 q = shared_base(), k = q + kTileBytes<D>, v = k + kTileBytes<D>, flag = v + kTileBytes<D>;
  int row = (int)(warp() * 16 + (lane() >> 2));  // and row + 8
  Divisor by_group(a.group);
  float c = a.scale * kLog2E;

  // The positions of the thread's queries, the end of the tile's keys, and the last
  // key that the warp sees; −1 where it has no query.
  int pos[2] = {tile.pos0 + by_group(row), tile.pos0 + by_group(row + 8)};
  int end = tile.pos0 + tile.n, top = (int)warp() * 16;
  int warp_last = by_group(top) < tile.n ? min(end - 1, tile.pos0 + by_group(top + 15)) : -1;

  // Load the queries and the first keys.
  load_tile<D, 64, kThreads>(q, Source{a.Q, a.d, aligned16(a.Q, a.q_stride)},
                            QueryRows{tile, by_group, a.group, a.q_stride, a.d});
  Source keys{a.K + head * a.d, a.d, aligned16(a.K + head * a.d, a.k_stride)};
  Source values{a.V + head * a.d, a.d, aligned16(a.V + head * a.d, a.v_stride)};
  load_tile<D, kSplit, kThreads>(k, keys, KeyRows{tile, 0, end, a.k_stride});
  cp_async_commit();
  if (thread_x() == 0) st_shared<u32>(flag, 0);

  State<D> st;
  clear(st.o);
  st.m[0] = st.m[1] = -kInfinity;
  st.l[0] = st.l[1] = 0;

#pragma unroll 1
  for (int first = 0; first < end; first += kSplit) {
    bool masked = first + kSplit - 1 > tile.pos0;  // some row does not see all of the split
    bool busy = first <= warp_last;                // some row of the warp sees some of it
    cp_async_wait<0>();
    block_sync();  // the keys are there for all, and all are done with the values before
    load_tile<D, kSplit, kThreads>(v, values, KeyRows{tile, first, end, a.v_stride});
    cp_async_commit();

    float s[kSplit / 8][4];
    if (busy) products<D, kSplit / 16>(s, again(q), warp() * 16, again(k), 0);

    cp_async_wait<0>();
    if (masked && clean_values<D>(v, false)) st_shared<u32>(flag, 1);
    block_sync();  // the values and the flag are there for all, and all are done with the keys
    if (first + kSplit < end) load_tile<D, kSplit, kThreads>(k, keys, KeyRows{tile, first + kSplit, end, a.k_stride});
    cp_async_commit();

    if (masked) {
      if (ld_shared<u32>(flag) != 0) {
        spread<D>(st, v, first, pos);
        block_sync();  // all have read what is now replaced
        clean_values<D>(v, true);
        block_sync();  // the clean values are there for all
      }
      if (busy) {
#pragma unroll
        for (int n = 0; n < kSplit / 8; n++) {
#pragma unroll
          for (int e = 0; e < 4; e++) {
            int key = first + n * 8 + (int)(lane() & 3) * 2 + (e & 1);
            if (key > pos[e / 2]) s[n][e] = -kInfinity;
          }
        }
      }
    }
    if (busy) add_split<D>(st, s, again(v), c);
  }

  // Store.
  bool paired = aligned4(a.O, a.o_stride);
#pragma unroll
  for (int h = 0; h < 2; h++) {
    int i = by_group(row + h * 8), g = row + h * 8 - i * a.group;
    if (i >= tile.n) continue;
    bf16* out = a.O + (long long)(tile.row0 + i) * a.o_stride + g * a.d;
    float inverse = 1.0f / st.l[h];
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
      store_pair(out, n * 8 + (int)(lane() & 3) * 2, a.d, paired, st.o[n][2 * h] * inverse, st.o[n][2 * h + 1] * inverse);
    }
    if (a.LSE != nullptr && (lane() & 3) == 0) {
      a.LSE[(long long)(tile.row0 + i) * a.lse_stride + head * a.group + g] = log_sum(st.m[h], st.l[h]);
    }
  }
}

}  // namespace updraft

// Neighbouring blocks take the key-value heads of one tile; the host puts the tiles
// with the most keys first.
#define ATTENTION(D)                                                                                               \
  KERNEL(128, 2, attention_bf16_d##D,                                                                              \
         (updraft::bf16 * O, const updraft::bf16* Q, const updraft::bf16* K, const updraft::bf16* V, float* LSE,   \
          const int* tiles, int kv_heads, int group, int d, int o_stride, int q_stride, int k_stride,              \
          int v_stride, int lse_stride, float scale)) {                                                            \
    using namespace updraft;                                                                                       \
    attention<D>(Attention{O, Q, K, V, LSE, group, d, o_stride, q_stride, k_stride, v_stride, lse_stride, scale},  \
                 tile_at(tiles, block_x() / kv_heads), block_x() % kv_heads);                                      \
  }

ATTENTION(64)
ATTENTION(96)
ATTENTION(128)
