// decode_attention: one new token of each running sequence attends over its paged
// keys and values, bf16; what sequences share is read once for all of them.
//
// Computes:  for each row b with position p = positions[b] ≥ 0: stores its key and
//            value at p, then O[b] = softmax(scale · q·Kᵀ)·V over positions 0..p.
//            Rows at a negative position, or beyond their page table, store
//            nothing and have O = 0.
//
// Shapes:    O, Q       B×(H·d), bf16, rows o_stride, q_stride elements apart
//            K, V       B×(KV·d), bf16, rows k_stride, v_stride elements apart
//            k_cache, v_cache   [pages][KV][32][d], bf16
//            table      B×columns int, rows table_stride elements apart: position
//                       p of row b lies in page table[b][p/32]. Entries that no
//                       position ≤ p needs may be anything
//            positions  B int
//            counts, items, order   the plan, see decode_attention_plan
//            sums       [splits][B][H][d] fp32, stats [splits][B][H][2] fp32: what
//                       decode_attention hands to decode_attention_merge;
//                       splits = ceil(columns/2), H = KV·group
//            rows, slots   n int: kv_write stores row rows[i] of K and V at
//                       slots[i] = page·32 + offset, where that is not negative
// Requires:  d a multiple of 16, at most D; caches 16-byte aligned. Rows of one
//            batch write different pages.
// Launch:    plan: grid splits, block 256, shared 16·B. attention: any grid (the
//            blocks share the items), block 128, shared kShared<D>. merge: grid
//            ceil(B·H/4), block 128. kv_write: grid n, block 128. See
//            decode_attention.go. No launch depends on what device memory holds,
//            so a graph replays all of them at any length.
// Numerics:  a split's sums are those of attention.cuh and are merged by the same
//            function in the same order, so O has the bits of packed attention. It
//            does not matter which rows share an item.
// Source:    split-parallel decoding as in FlashDecoding (Dao et al. 2023); reading
//            a shared prompt once for all its continuations as in Hydragen
//            (Juravsky et al. 2024). Departures: sharing is found anew for every
//            split from the page tables, so prompts may nest; one merge order.
// Checked by:  kernels/decode_attention_test.go (emulated, against float64 and
//              packed attention). Measured by: bench/gpu. See docs/gpu.md.
#include "attention.cuh"

namespace updraft {

constexpr int kThreads = 128;
constexpr int kPlanThreads = 256;

DEVICE bool active(int position, int columns) { return position >= 0 && position / kPage < columns; }

// --- Plan -------------------------------------------------------------------

// plan lists the items of split j = block_x(). An item is up to rows_per_item rows
// whose keys of the split are in the same pages, all of them seen and none of them
// being written: rows of one class. Rows with a split of their own are items of
// one. Outputs: counts[j]; items[j·B + i] = first + count·65536 for i < counts[j],
// the item's rows being order[j·B + first] and the count−1 that follow.
//
// A row's leader is the lowest row of its class. In shared memory, B words each:
// the rows' first and second page of the split (−1 − b: a class of its own, or none
// that counts), their leaders, and whether a place in `order` begins an item.
DEVICE void plan(int* counts, int* items, int* order, const int* table, const int* positions, int B, int columns,
                 int table_stride, int rows_per_item) {
  int j = block_x(), first = j * kSplit;
  u32 page0 = shared_base(), page1 = page0 + B * 4, leaders = page1 + B * 4, begins = leaders + B * 4;
  counts += j;
  items += j * B;
  order += j * B;

  for (int b = thread_x(); b < B; b += kPlanThreads) {
    int p = positions[b], one = -1 - b, two = -1 - b;
    if (active(p, columns) && p >= first + kSplit) {
      const int* pages = table + (long long)b * table_stride + first / kPage;
      one = pages[0];
      two = pages[1];
    }
    st_shared<int>(page0 + b * 4, one);
    st_shared<int>(page1 + b * 4, two);
    st_shared<int>(begins + b * 4, 0);
  }
  block_sync();  // all pages are there
  for (int b = thread_x(); b < B; b += kPlanThreads) {
    int one = ld_shared<int>(page0 + b * 4), two = ld_shared<int>(page1 + b * 4), leader = 0;
    while (ld_shared<int>(page0 + leader * 4) != one || ld_shared<int>(page1 + leader * 4) != two) leader++;
    int p = positions[b];
    st_shared<int>(leaders + b * 4, active(p, columns) && p >= first ? leader : -1);
  }
  block_sync();  // all leaders are there
  for (int b = thread_x(); b < B; b += kPlanThreads) {
    int leader = ld_shared<int>(leaders + b * 4);
    if (leader < 0) continue;
    // Classes in ascending order of their leaders, rows ascending within.
    int place = 0, rank = 0, size = 0;
    for (int c = 0; c < B; c++) {
      int other = ld_shared<int>(leaders + c * 4);
      if (other < 0) continue;
      place += other < leader || (other == leader && c < b) ? 1 : 0;
      rank += other == leader && c < b ? 1 : 0;
      size += other == leader ? 1 : 0;
    }
    order[place] = b;
    if (rank % rows_per_item == 0) st_shared<int>(begins + place * 4, min(rows_per_item, size - rank));
  }
  block_sync();  // all beginnings are there
  for (int place = thread_x(); place < B; place += kPlanThreads) {
    int count = ld_shared<int>(begins + place * 4);
    if (count == 0) continue;
    int i = 0;
    for (int c = 0; c < place; c++) i += ld_shared<int>(begins + c * 4) != 0 ? 1 : 0;
    items[i] = place + count * 65536;
  }
  if (thread_x() == 0) {
    int n = 0;
    for (int c = 0; c < B; c++) n += ld_shared<int>(begins + c * 4) != 0 ? 1 : 0;
    *counts = n;
  }
}

// Cursor walks the items of all splits in ascending order, a warp at a time.
struct Cursor {
  const int* counts;
  int splits;
  int base = 0, from = 0;  // items of the splits before split `from`

  // seek finds item i, which must not be less than the one before: its split, and
  // its place there. The split is `splits` where there are not so many items.
  DEVICE void seek(int i, int& split, int& place) {
    while (true) {
      int j = from + (int)lane();
      int count = j < splits ? counts[j] : 0, sum = count;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        int before = shuffle(sum, (lane() - step) & 31);
        if ((int)lane() >= step) sum += before;
      }
      u32 beyond = ballot(base + sum > i);
      if (beyond != 0) {
        int at = __builtin_ctz(beyond);
        split = from + at;
        place = i - base - shuffle(sum - count, at);
        return;
      }
      base += shuffle(sum, 31);
      from += 32;
      if (from >= splits) {
        split = splits;
        place = 0;
        return;
      }
    }
  }
};

// --- Writing ----------------------------------------------------------------

// store_heads stores row b of K and V at an offset in a page, for `heads` heads
// from head on.
DEVICE void store_heads(bf16* k_cache, bf16* v_cache, const bf16* K, const bf16* V, int b, int page, int offset,
                        int head, int heads, int kv_heads, int d, int k_stride, int v_stride) {
  bool k_aligned = aligned16(K, k_stride), v_aligned = aligned16(V, v_stride);
  for (int i = thread_x(); i < heads * d / 8; i += kThreads) {
    int h = head + i * 8 / d, col = i * 8 % d;
    long long to = (((long long)page * kv_heads + h) * kPage + offset) * d + col;
    const bf16 *k = K + (long long)b * k_stride + h * d + col, *v = V + (long long)b * v_stride + h * d + col;
    *(uint4*)(k_cache + to) = k_aligned ? *(const uint4*)k : load8(k);
    *(uint4*)(v_cache + to) = v_aligned ? *(const uint4*)v : load8(v);
  }
}

DEVICE void kv_write(bf16* k_cache, bf16* v_cache, const bf16* K, const bf16* V, const int* rows, const int* slots,
                     int kv_heads, int d, int k_stride, int v_stride) {
  int slot = slots[block_x()];
  if (slot < 0) return;
  store_heads(k_cache, v_cache, K, V, rows[block_x()], slot / kPage, slot % kPage, 0, kv_heads, kv_heads, d, k_stride,
              v_stride);
}

// --- Attention over one split -----------------------------------------------

struct Decode {
  const bf16 *Q, *K, *V;
  bf16 *k_cache, *v_cache;
  const int *table, *positions, *counts, *items, *order;
  float *sums, *stats;
  int B, kv_heads, group, d, columns, table_stride, q_stride, k_stride, v_stride;
  float scale;
};

// CacheRows places the keys of a split: the first `seen` of them.
struct CacheRows {
  int page0, page1, seen, kv_heads, head, d;
  DEVICE long long operator()(int r) const {
    if (r >= seen) return -1;
    int page = r < kPage ? page0 : page1;
    return (((long long)page * kv_heads + head) * kPage + r % kPage) * d;
  }
};

// ItemRows places 16 queries of an item, from query `first` on: query i belongs to
// row i/group of the item.
struct ItemRows {
  const int* rows;
  int first, queries, group, stride, d;
  DEVICE long long operator()(int r) const {
    int i = first + r;
    if (i >= queries) return -1;
    return (long long)rows[i / group] * stride + i % group * d;
  }
};

template <int D>
constexpr u32 kQueryBytes = 16 * kRowBytes<D>;
template <int D>
constexpr u32 kSplitBytes = kSplit * kRowBytes<D>;
// Scores are exchanged in rows of 72 floats: a half-warp's pairs then lie in
// different banks.
constexpr u32 kScoreRow = 72 * 4;
template <int D>
constexpr u32 kShared = kQueryBytes<D> + 2 * kSplitBytes<D> + 16 * kScoreRow;

// attend computes one item for one key-value head, 16 queries at a time. The four
// warps share a tile's products: a quarter of the keys each, then, when the scores
// have been exchanged and each warp has gone through the same softmax, every
// fourth pair of columns.
template <int D>
DEVICE void attend(const Decode& a, int split, int item, int head) {
  u32 q = shared_base(), k = q + kQueryBytes<D>, v = k + kSplitBytes<D>, scores = v + kSplitBytes<D>;
  const int* rows = a.order + (long long)split * a.B + (item & 65535);
  int queries = (item >> 16) * a.group, H = a.kv_heads * a.group;
  int first = split * kSplit, last = a.positions[rows[0]] - first;  // from `first` on
  const int* pages = a.table + (long long)rows[0] * a.table_stride + first / kPage;
  int page0 = pages[0], page1 = last >= kPage ? pages[1] : 0;

  // Load.
  if (last < kSplit) {  // the item is one row, and this is its last split
    store_heads(a.k_cache, a.v_cache, a.K, a.V, rows[0], last < kPage ? page0 : page1, last % kPage, head, 1,
                a.kv_heads, a.d, a.k_stride, a.v_stride);
    block_sync();  // the copies below read what was stored
  }
  CacheRows keys{page0, page1, min(last + 1, kSplit), a.kv_heads, head, a.d};
  bf16 *k_cache = a.k_cache, *v_cache = a.v_cache;
  load_tile<D, kSplit, kThreads>(k, Source{k_cache, a.d, true}, keys);
  load_tile<D, kSplit, kThreads>(v, Source{v_cache, a.d, true}, keys);
  Source source{a.Q + head * a.group * a.d, a.d, aligned16(a.Q, a.q_stride)};
  int stats = (split * a.B) * H + head * a.group;

#pragma unroll 1
  for (int done = 0; done < queries; done += 16) {
    load_tile<D, 16, kThreads>(q, source, ItemRows{rows, done, queries, a.group, a.q_stride, a.d});
    cp_async_commit();
    cp_async_wait<0>();
    block_sync();  // queries, keys and values are there for all

    // Scores of 16 keys.
    {
      float s[2][4];
      products<D, 1>(s, q, 0, k, warp() * 16);
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          u32 row = (lane() >> 2) + h * 8, col = warp() * 16 + n * 8 + (lane() & 3) * 2;
          st_shared<float2>(scores + row * kScoreRow + col * 4, float2{s[n][2 * h], s[n][2 * h + 1]});
        }
      }
    }
    block_sync();  // all scores are there, and all are done with the queries

    float s[kSplit / 8][4];
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        int col = n * 8 + (int)(lane() & 3) * 2;
        float2 x = ld_shared<float2>(scores + ((lane() >> 2) + h * 8) * kScoreRow + col * 4);
        s[n][2 * h] = col <= last ? x.x : -kInfinity;
        s[n][2 * h + 1] = col + 1 <= last ? x.y : -kInfinity;
      }
    }
    Softmax x = softmax_split(s, a.scale * kLog2E);
    u32 p[kSplit / 16][4];
    pack_weights(p, s);

    // Store: each row's sums and statistics.
    long long place[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int i = done + (int)(lane() >> 2) + h * 8;
      place[h] = i < queries ? stats + (long long)rows[i / a.group] * H + i % a.group : -1;
      if (place[h] >= 0 && warp() == 0 && (lane() & 3) == 0) {
        *(float2*)(a.stats + place[h] * 2) = float2{x.m[h], x.l[h]};
      }
    }
#pragma unroll 1
    for (int pair = warp(); pair < a.d / 16; pair += kThreads / 32) {
      float acc[2][4];
      clear(acc);
      weighted_values<D>(acc, p, v, pair);
#pragma unroll
      for (int n = 0; n < 2; n++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
          if (place[h] < 0) continue;
          float* to = a.sums + place[h] * a.d + pair * 16 + n * 8 + (lane() & 3) * 2;
          *(float2*)to = float2{acc[n][2 * h], acc[n][2 * h + 1]};
        }
      }
    }
  }
  block_sync();  // all are done with keys, values and scores
}

template <int D>
DEVICE void decode_attention(const Decode& a) {
  Cursor cursor{a.counts, (a.columns + 1) / 2};
  // Neighbouring blocks take the heads of one item, whose rows they all look up.
#pragma unroll 1
  for (int i = block_x();; i += grid_x()) {
    int split, place;
    cursor.seek(i / a.kv_heads, split, place);
    if (split >= cursor.splits) return;
    attend<D>(a, split, a.items[(long long)split * a.B + place], i % a.kv_heads);
  }
}

// --- Merge ------------------------------------------------------------------

constexpr int kAhead = 4;  // splits whose sums are loaded before they are merged

// merge_splits finishes one query in each warp. Lane l has columns 4l..4l+3; d is
// at most 128.
DEVICE void merge_splits(bf16* O, const float* sums, const float* stats, const int* positions, int B, int H, int d,
                         int columns, int o_stride) {
  int query = block_x() * 4 + warp();
  if (query >= B * H) return;
  int b = query / H, h = query % H, col = lane() * 4;
  if (col >= d) return;
  int p = positions[b];
  float m = -kInfinity, l = 0, o[4] = {0, 0, 0, 0};
  int splits = active(p, columns) ? p / kSplit + 1 : 0;
#pragma unroll 1
  for (int first = 0; first < splits; first += kAhead) {
    float2 x[kAhead];
    float4 v[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      long long at = (long long)min(first + i, splits - 1) * B * H + query;
      x[i] = *(const float2*)(stats + at * 2);
      v[i] = *(const float4*)(sums + at * d + col);
    }
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
      if (first + i >= splits) break;
      float before, own;
      merge(m, l, x[i].x, x[i].y, before, own);
      o[0] = merged(o[0], v[i].x, before, own);
      o[1] = merged(o[1], v[i].y, before, own);
      o[2] = merged(o[2], v[i].z, before, own);
      o[3] = merged(o[3], v[i].w, before, own);
    }
  }
  float inverse = splits > 0 ? 1.0f / l : 0.0f;
  bf16* out = O + (long long)b * o_stride + h * d;
  bool paired = aligned4(out, 0);
  store_pair(out, col, d, paired, o[0] * inverse, o[1] * inverse);
  store_pair(out, col + 2, d, paired, o[2] * inverse, o[3] * inverse);
}

}  // namespace updraft

KERNEL(256, 0, decode_attention_plan,
       (int* counts, int* items, int* order, const int* table, const int* positions, int B, int columns,
        int table_stride, int rows_per_item)) {
  updraft::plan(counts, items, order, table, positions, B, columns, table_stride, rows_per_item);
}

#define DECODE_ATTENTION(D, blocks)                                                                                 \
  KERNEL(128, blocks, decode_attention_bf16_d##D,                                                                   \
         (float* sums, float* stats, const updraft::bf16* Q, const updraft::bf16* K, const updraft::bf16* V,        \
          updraft::bf16* k_cache, updraft::bf16* v_cache, const int* table, const int* positions,                   \
          const int* counts, const int* items, const int* order, int B, int kv_heads, int group, int d,             \
          int columns, int table_stride, int q_stride, int k_stride, int v_stride, float scale)) {                  \
    updraft::decode_attention<D>(updraft::Decode{Q, K, V, k_cache, v_cache, table, positions, counts, items, order, \
                                                 sums, stats, B, kv_heads, group, d, columns, table_stride,         \
                                                 q_stride, k_stride, v_stride, scale});                             \
  }

DECODE_ATTENTION(64, 4)
DECODE_ATTENTION(96, 4)
DECODE_ATTENTION(128, 4)

KERNEL(128, 0, decode_attention_merge_bf16,
       (updraft::bf16 * O, const float* sums, const float* stats, const int* positions, int B, int H, int d,
        int columns, int o_stride)) {
  updraft::merge_splits(O, sums, stats, positions, B, H, d, columns, o_stride);
}

KERNEL(128, 0, kv_write_bf16,
       (updraft::bf16 * k_cache, updraft::bf16* v_cache, const updraft::bf16* K, const updraft::bf16* V,
        const int* rows, const int* slots, int kv_heads, int d, int k_stride, int v_stride)) {
  updraft::kv_write(k_cache, v_cache, K, V, rows, slots, kv_heads, d, k_stride, v_stride);
}
