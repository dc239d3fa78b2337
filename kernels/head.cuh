// head.cuh: the reduction of a row of logits to log-sum-exp and entropy, for
// LogProb and for Sample: one definition, and so the same bits.
//
// A row is reduced in chunks of kVocabChunk logits, a chunk in segments of
// kSegment, whose 16 logits each the four lanes of a quad hold. A segment's sums
// are relative to its own maximum; eight segments of a warp are merged by a
// butterfly, eight warps of a chunk by another, chunks in ascending order. Which
// lane holds what is mma's layout of a row of D (lane q of a quad has columns
// 8j+2q and 8j+2q+1), so that a product can reduce the logits it has just computed.
#pragma once
#include "act.cuh"

namespace updraft {

constexpr int kVocabChunk = 4096;  // engine.VocabChunk
constexpr int kSegment = 64, kChunkSegments = kVocabChunk / kSegment;
constexpr int kQuadValues = kSegment / 4;
constexpr int kChunkWarps = kChunkSegments / 8;

DEVICE float minus_infinity() { return bits_float(0xff800000u); }

// SoftStats is the reduction of some logits: their maximum m and, relative to it,
// s = Σ e^(z−m) and t = Σ (z−m)·e^(z−m). Without logits, or with nothing but −Inf,
// m is −Inf, s and t are zero. A NaN or a +Inf among them makes s NaN.
struct SoftStats {
  float m, s, t;
};

DEVICE SoftStats no_logits() { return SoftStats{minus_infinity(), 0.0f, 0.0f}; }

// soft_merge is symmetric in its arguments, to the bit.
DEVICE SoftStats soft_merge(SoftStats a, SoftStats b) {
  bool less = a.m < b.m;
  SoftStats high = less ? b : a, low = less ? a : b;
  float d = low.m == minus_infinity() ? 0.0f : low.m - high.m;
  float e = exp_of(d);
  return SoftStats{high.m, fma(e, low.s, high.s), fma(e, fma(d, low.s, low.t), high.t)};
}

// soft_shuffle merges with the lane whose number differs in the bits of mask.
DEVICE SoftStats soft_shuffle(SoftStats a, u32 mask) {
  return soft_merge(a, SoftStats{shuffle_xor(a.m, mask), shuffle_xor(a.s, mask), shuffle_xor(a.t, mask)});
}

// quad_column is the column, within its segment, of the calling lane's value i.
DEVICE int quad_column(int i) { return i / 2 * 8 + (int)(lane() & 3) * 2 + i % 2; }

// load_quad reads the calling lane's part of the segment at z, of which `left`
// logits exist (any number): the others are −Inf.
DEVICE void load_quad(float (&v)[kQuadValues], const float* z, int left) {
  bool paired = left >= kSegment && ((u64)z & 7) == 0;
#pragma unroll
  for (int i = 0; i < kQuadValues; i += 2) {
    int c = quad_column(i);
    if (paired) {
      float2 f = *(const float2*)(z + c);
      v[i] = f.x;
      v[i + 1] = f.y;
    } else {
      v[i] = c < left ? z[c] : minus_infinity();
      v[i + 1] = c + 1 < left ? z[c + 1] : minus_infinity();
    }
  }
}

DEVICE float quad_max(float v) {
  v = max(v, shuffle_xor(v, 1));
  return max(v, shuffle_xor(v, 2));
}

DEVICE float quad_sum(float v) {
  v += shuffle_xor(v, 1);
  return v + shuffle_xor(v, 2);
}

// segment_stats reduces a segment; all lanes of a quad receive the result.
DEVICE SoftStats segment_stats(const float (&z)[kQuadValues]) {
  float m = z[0];
#pragma unroll
  for (int i = 1; i < kQuadValues; i++) m = max(m, z[i]);
  m = quad_max(m);
  float from = m == minus_infinity() ? 0.0f : m, s = 0, t = 0;
#pragma unroll
  for (int i = 0; i < kQuadValues; i++) {
    float d = z[i] - from, e = exp_of(d);
    s += e;
    t = fma(e == 0 ? 0.0f : d, e, t);  // where e is zero d may be −Inf
  }
  return SoftStats{m, quad_sum(s), quad_sum(t)};
}

// warp_stats merges the segments of the eight quads of a warp.
DEVICE SoftStats warp_stats(SoftStats a) {
  a = soft_shuffle(a, 4);
  a = soft_shuffle(a, 8);
  return soft_shuffle(a, 16);
}

// chunk_stats merges those of eight warps, which eight neighbouring lanes hold.
DEVICE SoftStats chunk_stats(SoftStats a) {
  a = soft_shuffle(a, 1);
  a = soft_shuffle(a, 2);
  return soft_shuffle(a, 4);
}

DEVICE float soft_log_prob(SoftStats a, float z) { return (z - a.m) - log_of(a.s); }
DEVICE float soft_entropy(SoftStats a) { return log_of(a.s) - a.t / a.s; }
DEVICE float soft_lse(SoftStats a) { return a.m + log_of(a.s); }

}  // namespace updraft
