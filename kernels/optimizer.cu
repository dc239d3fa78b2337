// optimizer: the sum of squares of a gradient, and one step of AdamW.
//
// Computes:  sum_squares    partial[b] = Σ x² over the b-th part; sum_partials: their sum
//            adamw          g' = scale·g, M = β1·M + (1−β1)·g', V = β2·V + (1−β2)·g'²,
//                           P = P·decay − step·(M/(√V·rsqrt2 + eps)), with the step's
//                           constants decay = 1 − LR·WeightDecay, step = LR/(1−β1^t),
//                           rsqrt2 = 1/√(1−β2^t); and a bf16 copy of the new P
//            adamw_8bit     the same with M and V as codes: value = map[code]·scale
//                           of its 256 elements (engine.AdamWArgs, engine/quantize.go)
// Shapes:    everything dense, n elements: x, P, G, M, V fp32; codes of M and V u8,
//            their scales fp32 [ceil(n/256)]; copy bf16. table [4][256] fp32: values
//            of M's map and of V's, then for each the largest x/scale that goes to
//            each code.
// Requires:  element-aligned pointers. copy may be null. No overlap. Gradients are
//            finite in adamw_8bit.
// Launch:    256 threads. sum_squares: a block for each part (kernels.SumSquares);
//            sum_partials: one block. adamw: 2048 elements a block. adamw_8bit: 16384
//            elements a block, 4096 bytes of shared memory. sums: 32 bytes.
// Numerics:  fp32. sum_squares in four chains a thread, butterflies and ascending
//            order: n alone decides. AdamW rounds every product, as the CPU's kernel
//            does: the same bits as there. Codes are those of the nearest values.
// Source:    Loshchilov and Hutter 2019; Dettmers et al. 2022 (block-wise 8-bit
//            moments). A code is guessed from the maps' construction, in decades of
//            equal steps, and then corrected by the table, which decides.
// Checked by:  kernels/optimizer_emulated_test.go. Bound by memory bandwidth.
#include "pack.cuh"

namespace updraft {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kBlock = 256;  // engine.MomentBlock: a pack for each lane of a warp
constexpr int kRounds = 8;   // moment blocks that a warp updates

// block_sum adds over the block; the first thread's result counts.
DEVICE float block_sum(float v) {
#pragma unroll
  for (u32 mask = 16; mask > 0; mask >>= 1) v += shuffle_xor(v, mask);
  u32 shared = shared_base();
  if (lane() == 0) st_shared<float>(shared + warp() * 4, v);
  block_sync();  // shows the warps' sums to all
  float sum = 0;
#pragma unroll
  for (u32 w = 0; w < kWarps; w++) sum += ld_shared<float>(shared + w * 4);
  return sum;
}

DEVICE void sum_squares(float* partial, const float* x, long long n, int packs_per_block) {
  long long first = (long long)block_x() * packs_per_block;
  float sum[4] = {};
#pragma unroll 4
  for (int i = (int)thread_x(); i < packs_per_block; i += kThreads) {
    long long at = (first + i) * kPack, left = n - at;
    if (left <= 0) break;
    float v[kPack];
    load_pack(v, x + at, (int)(left < kPack ? left : kPack));
#pragma unroll
    for (int j = 0; j < kPack; j++) sum[j % 4] = fma(v[j], v[j], sum[j % 4]);
  }
  float all = block_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  if (thread_x() == 0) partial[block_x()] = all;
}

DEVICE void sum_partials(float* out, const float* partial, int parts) {
  float sum = 0;
  for (int i = (int)thread_x(); i < parts; i += kThreads) sum += partial[i];
  sum = block_sum(sum);
  if (thread_x() == 0) *out = sum;
}

// Step has the constants of a step of AdamW.
struct Step {
  float scale, beta1, rest1, beta2, rest2, decay, step, rsqrt2, eps;
};

// update takes a step for eight elements.
DEVICE void update(float (&p)[kPack], const float (&g)[kPack], float (&m)[kPack], float (&v)[kPack], const Step& s) {
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    float x = s.scale * g[i];
    m[i] = s.beta1 * m[i] + s.rest1 * x;
    v[i] = s.beta2 * v[i] + s.rest2 * x * x;
    float root = sqrt(v[i]) * s.rsqrt2 + s.eps;
    p[i] = p[i] * s.decay - s.step * (m[i] / root);
  }
}

DEVICE void adamw(float* p, const float* g, float* m, float* v, bf16* copy, long long n, const Step& s) {
  long long at = ((long long)block_x() * kThreads + (int)thread_x()) * kPack;
  if (at >= n) return;
  int left = (int)(n - at < kPack ? n - at : kPack);
  float ps[kPack], gs[kPack], ms[kPack], vs[kPack];
  load_pack(ps, p + at, left);
  load_pack(gs, g + at, left);
  load_pack(ms, m + at, left);
  load_pack(vs, v + at, left);
  update(ps, gs, ms, vs, s);
  store_pack(p + at, ps, left);
  store_pack(m + at, ms, left);
  store_pack(v + at, vs, left);
  if (copy) store_pack(copy + at, ps, left);
}

// --- 8-bit moments ----------------------------------------------------------

// The table in shared memory: values of codes, and the largest that goes to each.
constexpr u32 kUpTo = 2 * 256 * 4;

DEVICE void load_codes(u32 (&c)[kPack], const u8* p, int n) {
  if (n >= kPack && ((u64)p & 7) == 0) {
    uint2 a = *(const uint2*)p;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      c[i] = a.x >> (8 * i) & 0xff;
      c[4 + i] = a.y >> (8 * i) & 0xff;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) c[i] = i < n ? p[i] : 0;
}

DEVICE void store_codes(u8* p, const u32 (&c)[kPack], int n) {
  if (n >= kPack && ((u64)p & 7) == 0) {
    *(uint2*)p = uint2{c[0] | c[1] << 8 | c[2] << 16 | c[3] << 24, c[4] | c[5] << 8 | c[6] << 16 | c[7] << 24};
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    if (i < n) p[i] = (u8)c[i];
  }
}

// guess returns the code of x in [-1, 1], or one near it. Of the map without sign
// decade d below one has 128/2^d codes, the last of them 254/2^d, of the one with
// sign half as many on each side of code 127, which is zero.
template <bool Signed>
DEVICE int guess(float x) {
  float a = x < 0 ? -x : x, tens = 1;
  int d = 0;
#pragma unroll
  for (int i = 1; i < 7; i++) {
    // 10^-i is the lower edge of decade i-1.
    constexpr float kEdge[7] = {1, 1e-1f, 1e-2f, 1e-3f, 1e-4f, 1e-5f, 1e-6f};
    constexpr float kTens[7] = {1, 1e1f, 1e2f, 1e3f, 1e4f, 1e5f, 1e6f};
    bool below = a < kEdge[i];
    d = below ? i : d;
    tens = below ? kTens[i] : tens;
  }
  int parts = (Signed ? 64 : 128) >> d;
  int j = (int)((a * tens - 0.1f) * (1 / 0.9f) * (float)parts);
  j = max(0, min(j, parts - 1));
  if (!Signed) return parts - 1 + j;
  int code = 127 + parts + j;
  return x < 0 ? 254 - code : code;
}

// encode returns the code whose value is nearest: c such that x lies above the
// limit of c−1 and not above that of c.
template <bool Signed>
DEVICE u32 encode(float x) {
  u32 limits = shared_base() + kUpTo + (Signed ? 0 : 256 * 4);
  int c = guess<Signed>(x);
  while (c < 255 && x > ld_shared<float>(limits + c * 4)) c++;
  while (c > 0 && !(x > ld_shared<float>(limits + (c - 1) * 4))) c--;
  return (u32)c;
}

// store_moment turns a warp's 256 values to codes, relative to the largest.
template <bool Signed>
DEVICE void store_moment(u8* codes, float* scale, const float (&v)[kPack], int left) {
  float most = 0;
#pragma unroll
  for (int i = 0; i < kPack; i++) most = max(most, i < left ? max(v[i], -v[i]) : 0.0f);
#pragma unroll
  for (u32 mask = 16; mask > 0; mask >>= 1) most = max(most, shuffle_xor(most, mask));
  u32 c[kPack];
#pragma unroll
  for (int i = 0; i < kPack; i++) c[i] = encode<Signed>(most > 0 ? v[i] / most : v[i]);
  store_codes(codes, c, left);
  if (lane() == 0) *scale = most;
}

DEVICE void adamw_8bit(float* p, const float* g, u8* m, u8* v, float* m_scale, float* v_scale, bf16* copy,
                       const float* table, long long n, const Step& s) {
  u32 shared = shared_base();
  for (int i = (int)thread_x(); i < 1024; i += kThreads) st_shared<float>(shared + i * 4, table[i]);
  block_sync();  // shows the table to all
  long long block = (long long)block_x() * (kWarps * kRounds) + warp();
#pragma unroll 1
  for (int r = 0; r < kRounds; r++, block += kWarps) {
    if (block * kBlock >= n) return;  // a whole warp
    long long at = block * kBlock + (int)lane() * kPack;
    int left = (int)(n - at < kPack ? (n - at < 0 ? 0 : n - at) : kPack);
    float ps[kPack], gs[kPack], ms[kPack], vs[kPack];
    u32 c[kPack];
    float scale = m_scale[block];
    load_codes(c, m + at, left);
#pragma unroll
    for (int i = 0; i < kPack; i++) ms[i] = ld_shared<float>(shared + c[i] * 4) * scale;
    scale = v_scale[block];
    load_codes(c, v + at, left);
#pragma unroll
    for (int i = 0; i < kPack; i++) vs[i] = ld_shared<float>(shared + 1024 + c[i] * 4) * scale;
    load_pack(ps, p + at, left);
    load_pack(gs, g + at, left);
    update(ps, gs, ms, vs, s);
    store_pack(p + at, ps, left);
    if (copy) store_pack(copy + at, ps, left);
    warp_sync();  // all lanes have read the scales, which one of them overwrites
    store_moment<true>(m + at, m_scale + block, ms, left);
    store_moment<false>(v + at, v_scale + block, vs, left);
  }
}

}  // namespace updraft

using namespace updraft;

KERNEL(256, 0, sum_squares_f32, (float* partial, const float* x, long long n, int packs_per_block)) {
  sum_squares(partial, x, n, packs_per_block);
}

KERNEL(256, 0, sum_partials_f32, (float* out, const float* partial, int parts)) { sum_partials(out, partial, parts); }

KERNEL(256, 0, adamw_f32, (float* p, const float* g, float* m, float* v, bf16* copy, long long n, float scale,
                           float beta1, float rest1, float beta2, float rest2, float decay, float step, float rsqrt2,
                           float eps)) {
  adamw(p, g, m, v, copy, n, Step{scale, beta1, rest1, beta2, rest2, decay, step, rsqrt2, eps});
}

KERNEL(256, 0, adamw_u8, (float* p, const float* g, u8* m, u8* v, float* m_scale, float* v_scale, bf16* copy,
                          const float* table, long long n, float scale, float beta1, float rest1, float beta2,
                          float rest2, float decay, float step, float rsqrt2, float eps)) {
  adamw_8bit(p, g, m, v, m_scale, v_scale, copy, table, n,
             Step{scale, beta1, rest1, beta2, rest2, decay, step, rsqrt2, eps});
}
