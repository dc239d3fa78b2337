// sample_row.cuh: a block's view of a row of logits, for sample.cu: what it keeps of
// the row in shared memory after reading it once, and reductions over the block.
#pragma once
#include "head.cuh"

namespace updraft {

constexpr int kThreads = 256, kWarps = kThreads / 32, kQuads = kThreads / 4;
constexpr int kList = 4096;  // logits that are gathered, at most
constexpr int kWays = 8;     // of a step of the search

// Row is a row of logits and where its reductions lie in shared memory.
struct Row {
  float* z;
  int vocab, segments;  // segments: of whole chunks
  u32 maxima, sums;     // [segments]: maximum of a segment; sum of its weights
  u32 stats;            // [segments/8] float4: SoftStats of eight segments
  u32 list;             // [kList]
  u32 scratch;          // [kWarps][kWays] for reductions and results
  float top, inverse;   // weights are e^((z − top)·inverse)

  DEVICE float maximum(int segment) const { return ld_shared<float>(maxima + segment * 4); }
  DEVICE float weight(float v) const { return exp_of((v - top) * inverse); }
  DEVICE void load(float (&v)[kQuadValues], int segment) const {
    load_quad(v, z + segment * kSegment, vocab - segment * kSegment);
  }
};

DEVICE Row make_row(float* z, int vocab) {
  Row r;
  r.z = z;
  r.vocab = vocab;
  r.segments = (vocab + kVocabChunk - 1) / kVocabChunk * kChunkSegments;
  r.scratch = shared_base();
  r.list = r.scratch + kWarps * kWays * 4;
  r.stats = r.list + kList * 4;
  r.maxima = r.stats + r.segments / 8 * 16;
  r.sums = r.maxima + r.segments * 4;
  r.top = r.inverse = 0;
  return r;
}

// --- Reductions over the block ----------------------------------------------

// Each ends with a barrier, after which scratch may be used again.

DEVICE float block_max(const Row& r, float v) {
#pragma unroll
  for (u32 mask = 16; mask > 0; mask >>= 1) v = max(v, shuffle_xor(v, mask));
  if (lane() == 0) st_shared<float>(r.scratch + warp() * 4, v);
  block_sync();
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) v = max(v, ld_shared<float>(r.scratch + w * 4));
  block_sync();
  return v;
}

DEVICE int block_min(const Row& r, int v) {
#pragma unroll
  for (u32 mask = 16; mask > 0; mask >>= 1) v = min(v, shuffle_xor(v, mask));
  if (lane() == 0) st_shared<int>(r.scratch + warp() * 4, v);
  block_sync();
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) v = min(v, ld_shared<int>(r.scratch + w * 4));
  block_sync();
  return v;
}

// Scan is a thread's inclusive prefix sum, the one before it, and the whole.
struct Scan {
  float before, through, all;
};

DEVICE Scan block_scan(const Row& r, float v) {
  Scan s;
  s.through = v;
#pragma unroll
  for (u32 d = 1; d < 32; d <<= 1) {
    float below = shuffle(s.through, (lane() - d) & 31);
    if (lane() >= d) s.through += below;
  }
  if (lane() == 31) st_shared<float>(r.scratch + warp() * 4, s.through);
  block_sync();
  float from = 0, all = 0;
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) {
    if (w == warp()) from = all;
    all += ld_shared<float>(r.scratch + w * 4);
  }
  block_sync();
  s.through += from;
  // The prefix of the lane below, and not a difference: it must be the same number
  // that the lane below has.
  float below = shuffle(s.through, (lane() - 1) & 31);
  s.before = lane() == 0 ? from : below;
  s.all = all;
  return s;
}

// --- First pass -------------------------------------------------------------

// reduce_row fills maxima, sums (relative to their segment's maximum) and returns
// the row's SoftStats, all over the logits as they are.
DEVICE SoftStats reduce_row(const Row& r, bool same_weights) {
#pragma unroll 1
  for (int segment = (int)thread_x() >> 2; segment < r.segments; segment += kQuads) {
    float v[kQuadValues];
    r.load(v, segment);
    SoftStats a = segment_stats(v);
    float sum = a.s;
    if (!same_weights) {
      float from = a.m == minus_infinity() ? 0.0f : a.m;
      sum = 0;
#pragma unroll
      for (int i = 0; i < kQuadValues; i++) sum += exp_of((v[i] - from) * r.inverse);
      sum = quad_sum(sum);
    }
    if ((lane() & 3) == 0) {
      st_shared<float>(r.maxima + segment * 4, a.m);
      st_shared<float>(r.sums + segment * 4, sum);
    }
    a = warp_stats(a);
    if (lane() == 0) st_shared<float4>(r.stats + segment / 8 * 16, float4{a.m, a.s, a.t, 0});
  }
  block_sync();  // shows the warps' results to all
  // Eight lanes merge a chunk, in place of its first part.
  int groups = r.segments / kChunkSegments;
#pragma unroll 1
  for (int first = (int)warp() * 4; first < groups; first += kWarps * 4) {
    int chunk = first + (int)(lane() >> 3);
    u32 at = r.stats + (chunk * kChunkWarps + (int)(lane() & 7)) * 16;
    SoftStats a = no_logits();
    if (chunk < groups) {
      float4 p = ld_shared<float4>(at);
      a = SoftStats{p.x, p.y, p.z};
    }
    a = chunk_stats(a);
    if (chunk < groups && (lane() & 7) == 0) st_shared<float4>(at, float4{a.m, a.s, a.t, 0});
  }
  block_sync();  // shows the chunks' results to all
  SoftStats all = no_logits();
#pragma unroll 1
  for (int chunk = 0; chunk < groups; chunk++) {
    float4 p = ld_shared<float4>(r.stats + chunk * kChunkWarps * 16);
    SoftStats a{p.x, p.y, p.z};
    all = chunk == 0 ? a : soft_merge(all, a);
  }
  return all;
}

// reduce_segment does for one segment what reduce_row does for all, after one of
// its logits has changed.
DEVICE void reduce_segment(const Row& r, int segment) {
  if (warp() == 0) {
    float v[kQuadValues];
    r.load(v, segment);
    SoftStats a = segment_stats(v);
    float from = a.m == minus_infinity() ? 0.0f : a.m, sum = 0;
#pragma unroll
    for (int i = 0; i < kQuadValues; i++) sum += exp_of((v[i] - from) * r.inverse);
    sum = quad_sum(sum);
    if (lane() == 0) {
      st_shared<float>(r.maxima + segment * 4, a.m);
      st_shared<float>(r.sums + segment * 4, sum);
    }
  }
  block_sync();  // shows the results to all
}

// most_likely returns the lowest index of the largest logit, top.
DEVICE int most_likely(const Row& r) {
  int segment = r.segments;
#pragma unroll 1
  for (int i = (int)thread_x(); i < r.segments; i += kThreads) {
    if (r.maximum(i) == r.top) segment = min(segment, i);
  }
  segment = block_min(r, segment);
  int index = r.vocab;
  if (thread_x() < kSegment) {
    int i = segment * kSegment + (int)thread_x();
    if (i < r.vocab && r.z[i] == r.top) index = i;
  }
  index = block_min(r, index);
  return index < r.vocab ? index : 0;  // there is none where all logits are NaN
}

}  // namespace updraft
