// attention.cuh: what packed attention, its backward and decode attention share.
//
// That a query's output has the same bits in all of them follows from this file:
// each takes a query through the same scores(), softmax_split(), values() and
// merge(), split by split.
//
// A split is kSplit keys at a multiple of kSplit in the sequence's logical
// position. For one query and one split, with c = scale·log2 e,
//
//   s_k = q·k              mma.sync m16n8k16, ascending in D, fp32
//   m   = c · max s_k      over the keys that the query sees
//   p_k = 2^(c·s_k − m)    one fma, one exp2_fast; 0 for a key that is not seen
//   l   = Σ p_k            fp32, in the order of softmax_split()
//   o   = Σ bf16(p_k)·v_k  mma.sync m16n8k16, ascending in k, fp32
//
// and splits are merged in ascending order by merge(), starting from m = −inf,
// l = 0, O = 0. In the end O is multiplied by 1/l and rounded once.
// (Online softmax: Milakov and Gimelshein 2018; in tiles: FlashAttention-2, Dao
// 2023. Departure: a split's weights are relative to its own maximum, not to the
// running one, so that splits can be computed apart.)
//
// Nothing here depends on the place of a query among the rows of a tile: a row
// of an mma is independent of its other rows, and a key that a row does not see
// has the weight 0, which adds nothing to a sum that started from +0.
#pragma once

#include "device.cuh"

namespace updraft {

constexpr int kSplit = 64;  // kernels.AttentionSplit
constexpr int kPage = 32;   // engine.PageSize
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.69314718055994531f;
constexpr float kInfinity = __builtin_inff();

// again returns its argument; the compiler does not know that. What is derived
// from it inside a loop, such as the addresses of a tile's fragments, is then
// computed there, an addition each at most, and not held in registers from before
// the loop on.
DEVICE u32 again(u32 v) {
  asm volatile("" : "+r"(v));
  return v;
}

// A tile in shared memory has rows of D bf16 and 16 bytes more: an odd number of
// 16-byte chunks, so that eight successive rows' chunks c lie in eight different
// groups of banks.
template <int D>
constexpr u32 kRowBytes = D * 2 + 16;

template <int D>
DEVICE u32 tile_offset(u32 row, u32 chunk) {
  return row * kRowBytes<D> + chunk * 16;
}

// Source is a matrix' head, or a head of a cache: where a row of it starts is the
// business of load_tile's caller. Only its first d columns exist.
struct Source {
  const bf16* base;
  int d;
  bool aligned;  // every row starts at a multiple of 16 bytes
};

DEVICE bool aligned16(const void* p, int stride) { return (((u64)p | (u64)stride * 2) & 15) == 0; }

// load8 reads eight elements at any address.
DEVICE uint4 load8(const bf16* p) {
  return uint4{p[0].bits | (u32)p[1].bits << 16, p[2].bits | (u32)p[3].bits << 16, p[4].bits | (u32)p[5].bits << 16,
               p[6].bits | (u32)p[7].bits << 16};
}

// load_tile starts the copy of Rows rows of up to D columns to shared address
// dst by kThreads threads. row(r) gives the first element of row r relative to
// src.base, or a negative number for a row that is not there and arrives as
// zero, as do columns beyond src.d. The caller commits and waits; rows that are
// not aligned are stored at once.
template <int D, int Rows, int Threads, typename RowOf>
DEVICE void load_tile(u32 dst, const Source& src, const RowOf& row) {
  constexpr int kChunks = D / 8;
  constexpr int kEach = (Rows * kChunks + Threads - 1) / Threads;
  int thread = (int)again(thread_x());
  if (src.aligned) {
#pragma unroll
    for (int i = 0; i < kEach; i++) {
      int at = thread + i * Threads;
      if (Rows * kChunks % Threads != 0 && at >= Rows * kChunks) break;
      int r = at / kChunks, c = at % kChunks;
      long long first = row(r);
      bool in = first >= 0 && c * 8 < src.d;
      // An address that is not read must still be a valid one: use the first.
      cp_async16(dst + tile_offset<D>(r, c), in ? src.base + first + c * 8 : src.base, in ? 16 : 0);
    }
    return;
  }
#pragma unroll 1
  for (int at = thread; at < Rows * kChunks; at += Threads) {
    int r = at / kChunks, c = at % kChunks;
    long long first = row(r);
    uint4 v = {0, 0, 0, 0};
    if (first >= 0 && c * 8 < src.d) v = load8(src.base + first + c * 8);
    st_shared<uint4>(dst + tile_offset<D>(r, c), v);
  }
}

// load_a reads the A fragment of rows [row, row+16) and columns [16·kk, +16).
template <int D>
DEVICE void load_a(u32 (&a)[4], u32 tile, u32 row, u32 kk) {
  u32 j = lane() >> 3;
  ldmatrix_x4(a, tile + tile_offset<D>(row + (j & 1) * 8 + (lane() & 7), kk * 2 + (j >> 1)));
}

// load_b reads two B fragments whose columns are the tile's rows [row, row+8) and
// [row+8, row+16): b[0], b[1] and b[2], b[3].
template <int D>
DEVICE void load_b(u32 (&b)[4], u32 tile, u32 row, u32 kk) {
  u32 j = lane() >> 3;
  ldmatrix_x4(b, tile + tile_offset<D>(row + (j >> 1) * 8 + (lane() & 7), kk * 2 + (j & 1)));
}

// load_b_trans reads two B fragments whose k is the tile's rows [row, row+16) and
// whose columns are its columns [16·cc, +8) and [16·cc+8, +8).
template <int D>
DEVICE void load_b_trans(u32 (&b)[4], u32 tile, u32 row, u32 cc) {
  u32 j = lane() >> 3;
  ldmatrix_x4_trans(b, tile + tile_offset<D>(row + (j & 1) * 8 + (lane() & 7), cc * 2 + (j >> 1)));
}

DEVICE void mma_pair(float (&d0)[4], float (&d1)[4], const u32 (&a)[4], const u32 (&b)[4]) {
  u32 b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
  mma_bf16_16816(d0, a, b0);
  mma_bf16_16816(d1, a, b1);
}

template <int N>
DEVICE void clear(float (&d)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) d[n][0] = d[n][1] = d[n][2] = d[n][3] = 0;
}

// products sets s to the products of 16 rows of tile a, from a_row on, with
// 16·Pairs rows of tile b, from b_row on: sums over D, ascending.
template <int D, int Pairs>
DEVICE void products(float (&s)[2 * Pairs][4], u32 a, u32 a_row, u32 b, u32 b_row) {
  clear(s);
#pragma unroll
  for (int kk = 0; kk < D / 16; kk++) {
    u32 fa[4];
    load_a<D>(fa, a, a_row, kk);
#pragma unroll
    for (int n = 0; n < Pairs; n++) {
      u32 fb[4];
      load_b<D>(fb, b, b_row + n * 16, kk);
      mma_pair(s[2 * n], s[2 * n + 1], fa, fb);
    }
  }
}

// pack_weights turns a 16×64 result into four A fragments, rounded to bf16: lane
// by lane, the layout of a D fragment's two neighbours is that of an A fragment.
DEVICE void pack_weights(u32 (&p)[kSplit / 16][4], const float (&s)[kSplit / 8][4]) {
#pragma unroll
  for (int k = 0; k < kSplit / 16; k++) {
    p[k][0] = pack_bf16(s[2 * k][0], s[2 * k][1]);
    p[k][1] = pack_bf16(s[2 * k][2], s[2 * k][3]);
    p[k][2] = pack_bf16(s[2 * k + 1][0], s[2 * k + 1][1]);
    p[k][3] = pack_bf16(s[2 * k + 1][2], s[2 * k + 1][3]);
  }
}

// Softmax is the state of two queries, rows lane/4 and lane/4 + 8 of a 16-row
// tile, the same in the four lanes that share the rows: m in units of log2.
struct Softmax {
  float m[2], l[2];
};

// softmax_split turns scores, −inf where the key is not seen, into weights
// relative to the split's maximum, and gives that and the weights' sum. A query
// that sees no key of the split has m = −inf and weights of 0.
DEVICE Softmax softmax_split(float (&s)[kSplit / 8][4], float c) {
  Softmax out;
#pragma unroll
  for (int h = 0; h < 2; h++) {
    float m = -kInfinity;
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) m = max(m, max(s[n][2 * h], s[n][2 * h + 1]));
    m = max(m, shuffle_xor(m, 1));
    m = max(m, shuffle_xor(m, 2));
    m = m * c;
    float base = m == -kInfinity ? 0.0f : m, l = 0;
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) {
#pragma unroll
      for (int e = 2 * h; e < 2 * h + 2; e++) {
        s[n][e] = exp2_fast(fma(s[n][e], c, -base));
        l = l + s[n][e];
      }
    }
    l = l + shuffle_xor(l, 1);
    l = l + shuffle_xor(l, 2);
    out.m[h] = m;
    out.l[h] = l;
  }
  return out;
}

// merge adds a further split's m and l to a query's and gives the factors for
// what was summed before and for the split's own sum o: O = merged(O, o, ...).
// For a split that the query does not see it changes nothing: −0 · 0 is −0, and
// x + −0 is x, the sign of zero included.
DEVICE void merge(float& m, float& l, float split_m, float split_l, float& before, float& own) {
  float both = max(m, split_m);
  before = exp2_fast(m - both);
  own = split_m == -kInfinity ? -0.0f : exp2_fast(split_m - both);
  l = fma(own, split_l, before * l);
  m = both;
}

DEVICE float merged(float O, float o, float before, float own) { return fma(own, o, before * O); }

// log_sum gives the natural log of Σ e^(scale·q·k).
DEVICE float log_sum(float m, float l) { return (m + log2_fast(l)) * kLn2; }

// weighted_values adds to acc the product of 16 rows of weights with columns
// [16·pair, +16) of a tile of 64 rows, ascending in the tile's rows.
template <int D>
DEVICE void weighted_values(float (&acc)[2][4], const u32 (&p)[kSplit / 16][4], u32 tile, int pair) {
#pragma unroll
  for (int k = 0; k < kSplit / 16; k++) {
    u32 b[4];
    load_b_trans<D>(b, tile, k * 16, pair);
    mma_pair(acc[0], acc[1], p[k], b);
  }
}

// store_pair writes columns col and col+1 of a row whose first d exist. d is
// even, and `paired` says that the row starts at a multiple of 4 bytes.
DEVICE void store_pair(bf16* row, int col, int d, bool paired, float x, float y) {
  if (col >= d) return;
  u32 v = pack_bf16(x, y);
  if (paired) {
    *(u32*)(row + col) = v;
  } else {
    row[col].bits = (u16)v;
    row[col + 1].bits = (u16)(v >> 16);
  }
}

DEVICE bool aligned4(const void* p, int stride) { return (((u64)p | (u64)stride * 2) & 3) == 0; }

}  // namespace updraft
