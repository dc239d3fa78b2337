// head: what the fused language-model head does to the logits of a block of rows
// and one chunk of the vocabulary, between the matrix products that make them and
// use them.
//
// Computes:  with z = scale·(x·w), given x·w for columns from..from+cols,
//            head_stats     merges the chunk into the state of each row; with the
//                           last chunk LSE = log Σ e^z, LogProb = z_target − LSE,
//                           Entropy = LSE − Σ p·z
//            head_gradient  dz = scale·(dlogprob·(onehot(target) − p)
//                                − dentropy·p·(log p + entropy)), p = e^(z − LSE)
// Shapes:    products Z [rows, cols] fp32, cols ≤ 4096, rows z_stride elements
//            apart; state [rows] of four floats, 16-byte aligned; targets [rows]
//            int32; LogProb, Entropy, LSE, dlogprob, dentropy [rows] fp32; dz
//            [rows, cols] fp32 or bf16, rows dz_stride apart.
// Requires:  chunks in ascending order, each starting at a multiple of 4096. dz may
//            lie in Z's memory where each of its rows starts where Z's row does.
//            dentropy may be null; entropy is then not read. A target outside of
//            the vocabulary gives NaN, and no gradient of its own.
// Launch:    a block of 256 threads for each row; 128 bytes of shared memory in
//            head_stats, none in head_gradient.
// Numerics:  fp32; the order of sums is head.cuh's, a function of the column alone.
//            dz is rounded once where it is bf16.
// Source:    online softmax (Milakov and Gimelshein 2018); the logits of a chunk
//            stay in L2 between the kernels, and no more of them is ever held.
// Checked by:  kernels/head_emulated_test.go.
#include "head.cuh"
#include "pack.cuh"

namespace updraft {

constexpr int kThreads = 256;
static_assert(kThreads / 32 == kChunkWarps, "a block reduces a chunk");

DEVICE void head_stats(float4* state, float* log_prob, float* entropy, float* lse, const float* z, const int* targets,
                       int cols, int from, int vocab, int z_stride, float scale) {
  int row = (int)block_x();
  z += (long long)row * z_stride;
  u32 shared = shared_base();

  // Load and reduce: a segment for each quad.
  int segment = (int)(thread_x() >> 2) * kSegment;
  float v[kQuadValues];
  load_quad(v, z + segment, cols - segment);
#pragma unroll
  for (int i = 0; i < kQuadValues; i++) {
    // A logit that does not exist stays −Inf whatever the scale's sign is.
    if (segment + quad_column(i) < cols) v[i] *= scale;
  }
  SoftStats a = warp_stats(segment_stats(v));
  if (lane() == 0) st_shared<float4>(shared + warp() * 16, float4{a.m, a.s, a.t, 0});
  block_sync();  // shows the warps' sums to the first warp
  if (warp() != 0) return;
  float4 part = ld_shared<float4>(shared + (lane() & 7) * 16);
  a = chunk_stats(SoftStats{part.x, part.y, part.z});
  if (lane() != 0) return;

  // Merge with the chunks before, and store.
  float target = bits_float(0x7fffffff);
  if (from > 0) {
    float4 old = state[row];
    a = soft_merge(SoftStats{old.x, old.y, old.z}, a);
    target = old.w;
  }
  int id = targets[row];
  if (id >= from && id < from + cols) target = z[id - from] * scale;
  state[row] = float4{a.m, a.s, a.t, target};
  if (from + cols < vocab) return;
  log_prob[row] = soft_log_prob(a, target);
  entropy[row] = soft_entropy(a);
  lse[row] = soft_lse(a);
}

template <typename T>
DEVICE void head_gradient(T* dz, const float* z, const int* targets, const float* lse, const float* entropy,
                          const float* dlog_prob, const float* dentropy, int cols, int from, int dz_stride,
                          int z_stride, float scale) {
  int row = (int)block_x();
  z += (long long)row * z_stride;
  dz += (long long)row * dz_stride;
  int target = targets[row] - from;
  float sum = lse[row], dl = dlog_prob[row];
  float dh = dentropy ? dentropy[row] : 0.0f, h = dentropy ? entropy[row] : 0.0f;

  constexpr int kRounds = kVocabChunk / (kThreads * kPack);
  float v[kRounds][kPack];
#pragma unroll
  for (int r = 0; r < kRounds; r++) {
    int c = (r * kThreads + (int)thread_x()) * kPack;
    load_pack(v[r], z + c, cols - c);
#pragma unroll
    for (int i = 0; i < kPack; i++) {
      float log_p = v[r][i] * scale - sum, p = exp_of(log_p);
      float g = p == 0 ? 0.0f : -p * fma(dh, log_p + h, dl);  // where p is zero its logarithm may be −Inf
      if (c + i == target) g += dl;
      v[r][i] = g * scale;
    }
  }
  block_sync();  // the whole row has been read: dz may lie in its place
#pragma unroll
  for (int r = 0; r < kRounds; r++) {
    int c = (r * kThreads + (int)thread_x()) * kPack;
    store_pack(dz + c, v[r], cols - c);
  }
}

}  // namespace updraft

using namespace updraft;

KERNEL(256, 0, head_stats_f32, (float4 * state, float* log_prob, float* entropy, float* lse, const float* z,
                                const int* targets, int cols, int from, int vocab, int z_stride, float scale)) {
  head_stats(state, log_prob, entropy, lse, z, targets, cols, from, vocab, z_stride, scale);
}

#define GRADIENT(type, T)                                                                                             \
  KERNEL(256, 0, head_gradient_##type, (T * dz, const float* z, const int* targets, const float* lse,                 \
                                        const float* entropy, const float* dlog_prob, const float* dentropy, int cols, \
                                        int from, int dz_stride, int z_stride, float scale)) {                         \
    head_gradient(dz, z, targets, lse, entropy, dlog_prob, dentropy, cols, from, dz_stride, z_stride, scale);          \
  }
GRADIENT(f32, float)
GRADIENT(bf16, bf16)
