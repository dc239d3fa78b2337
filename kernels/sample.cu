// sample: draws a token for each row from its logits and moves the row on, as
// engine.SampleArgs says.
//
// Computes:  log-prob of the drawn token and entropy under softmax(z); the token by
//            inverse transform in vocabulary order under softmax((z + bias)/T) cut by
//            top-k, top-p and min-p in this order; its log-prob there. The uniform
//            number is Philox4x32-10's.
// Shapes:    logits [rows, vocab] fp32, params [rows, 4] fp32, keys [rows, 6] int32,
//            row-major with strides; marker [marker_len] int32; after [vocab] fp32;
//            forced, tokens, positions [rows] int32; log_prob, sampling_log_prob,
//            entropy [rows] fp32. marker_len 0: marker and after are not read.
// Requires:  vocab ≥ 1, marker tokens within the vocabulary. Logits are overwritten
//            where a bias applies. Rows at a negative position are left alone.
// Launch:    a block of 256 threads for each row, two of which fit on a multiprocessor;
//            16640 bytes of shared memory and 640 more for each 4096 logits of the
//            vocabulary: 40 KB at 152k.
// Numerics:  fp32 in fixed order. Raw log-prob and entropy are head.cuh's, to the
//            bit those of LogProb. A row depends on nothing but its own data.
// Source:    no sort. The row is read once, and leaves a maximum and a sum for each
//            segment of 64 logits in shared memory. From these a token is drawn by
//            reading one segment more. A filter first bounds what it can keep: the k
//            largest logits lie in the k segments with the largest maxima; weights
//            below a small share of the total do not count for top-p. What lies
//            above the bound, mostly a few hundred logits, is gathered in shared
//            memory (or read where it is, if it is too much), and the cut is found by
//            splitting an interval of float bits in eight, by counts or by sums of
//            weights, which are monotone even with rounding as their order is fixed.
//            One block for a row: at 256 rows of 152k logits that is one wave of
//            two blocks on each of an H100's multiprocessors, bound by the bandwidth
//            of the one pass; with few rows a pass over one row, 600 KB, takes a
//            multiprocessor a few microseconds, less than merging over blocks would.
// Checked by:  kernels/sample_emulated_test.go. The figures under Source are estimates:
//              not measured on a device.
#include "sample_row.cuh"

namespace updraft {

// Columns of params and keys (engine.SampleArgs).
enum { kTemperature, kTopP, kMinP, kHelpBias };
enum { kTopK, kSeedLo, kSeedHi, kStep, kPrompt, kSample };

// --- Search for a cut -------------------------------------------------------

// order maps floats to integers that ascend as they do; −0 and 0 are one.
DEVICE u32 order(float f) {
  u32 b = float_bits(f + 0.0f);
  return b >> 31 ? ~b : b | 0x80000000u;
}
DEVICE float unorder(u32 k) { return bits_float(k >> 31 ? k & 0x7fffffffu : ~k); }

// Set is what a search looks through: n floats in shared memory, or where n is
// negative the row.
struct Set {
  u32 at;
  int n;
};

// Goal is what a search is for: the largest float such that the elements not below
// it, among those greater than `least`, measure the target or more. An element
// measures 1, or by_weight its weight. Where share is not negative the target is
// that share of all the elements and of `besides`.
struct Goal {
  float least, target, share, besides;
  bool by_weight;
};

constexpr float kTiny = 1.17549435e-38f;  // a target that the first weight reaches

// Found is that float, what the elements not below it measure, and what those above
// it do. Where all of them measure less than the target, there is no such float, and
// `with` is what they measure.
struct Found {
  bool ok;
  float value, with, above, target;
};

// search looks among the elements of a set in [floor, r.top].
DEVICE Found search(const Row& r, Set set, float floor, const Goal& goal) {
  u32 low = order(floor), high = order(r.top) + 1;
  Found f{false, floor, 0, 0, goal.target};
  bool first = true;
#pragma unroll 1
  while (first || high - low > 1) {
    u32 step = (high - low + kWays - 1) / kWays;
    float m[kWays] = {};
    auto take = [&](float v) {
      float w = goal.by_weight ? r.weight(v) : 1.0f;
      w = v > goal.least ? w : 0.0f;
      u32 k = order(v);
#pragma unroll
      for (u32 i = 0; i < kWays; i++) m[i] += k >= low + i * step ? w : 0.0f;
    };
    if (set.n >= 0) {
#pragma unroll 1
      for (int i = (int)thread_x(); i < set.n; i += kThreads) take(ld_shared<float>(set.at + i * 4));
    } else {
      float lowest = unorder(low);
#pragma unroll 1
      for (int s = (int)thread_x() >> 2; s < r.segments; s += kQuads) {
        if (!(r.maximum(s) >= lowest)) continue;
        float v[kQuadValues];
        r.load(v, s);
#pragma unroll
        for (int i = 0; i < kQuadValues; i++) take(v[i]);
      }
    }
    // Add up over the block: each warp adds the warps' sums, one for each lane.
#pragma unroll
    for (int i = 0; i < kWays; i++) {
#pragma unroll
      for (u32 mask = 16; mask > 0; mask >>= 1) m[i] += shuffle_xor(m[i], mask);
      if (lane() == 0) st_shared<float>(r.scratch + (warp() * kWays + i) * 4, m[i]);
    }
    block_sync();  // shows the warps' sums to all
    float sum = 0;
#pragma unroll
    for (u32 w = 0; w < kWarps; w++) sum += ld_shared<float>(r.scratch + (w * kWays + lane() % kWays) * 4);
    block_sync();  // they have been read: the next step may overwrite them

    if (first) {
      f.with = shuffle(sum, 0);
      if (goal.share >= 0) f.target = max(goal.share * (f.with + goal.besides), kTiny);
      if (!(f.with >= f.target)) return f;
      first = false;
    }
    u32 from = low, end = high;
#pragma unroll
    for (u32 i = 1; i < kWays; i++) {
      float reached = shuffle(sum, i);
      u32 bound = from + i * step;
      if (bound >= end) continue;
      if (reached >= f.target) {
        low = bound;
        f.with = reached;
      } else {
        end = bound;
        f.above = reached;
      }
    }
    high = end;
  }
  f.ok = true;
  f.value = unorder(low);
  return f;
}

// gather copies the logits that are not below floor to the list, in an order that
// the row alone decides, and returns the set to search: the row itself where there
// are more than the list holds.
DEVICE Set gather(const Row& r, float floor) {
  int mine = 0;
#pragma unroll 1
  for (int s = (int)thread_x() >> 2; s < r.segments; s += kQuads) {
    if (!(r.maximum(s) >= floor)) continue;
    float v[kQuadValues];
    r.load(v, s);
#pragma unroll
    for (int i = 0; i < kQuadValues; i++) mine += v[i] >= floor;
  }
  Scan places = block_scan(r, (float)mine);  // whole numbers below 2^24: exact
  if (places.all > (float)kList) return Set{0, -1};
  u32 to = r.list + (u32)places.before * 4;
#pragma unroll 1
  for (int s = (int)thread_x() >> 2; s < r.segments; s += kQuads) {
    if (!(r.maximum(s) >= floor)) continue;
    float v[kQuadValues];
    r.load(v, s);
#pragma unroll
    for (int i = 0; i < kQuadValues; i++) {
      if (v[i] >= floor) {
        st_shared<float>(to, v[i]);
        to += 4;
      }
    }
  }
  block_sync();  // shows the list to all
  return Set{r.list, (int)places.all};
}

// --- Drawing ----------------------------------------------------------------

// Kept is what is left to draw from: logits above value, and of those equal to it
// the first `equals`, up to index last; of these the weights not below least.
struct Kept {
  float value, equals;
  int last;
  float least;
};

DEVICE float kept_weight(const Row& r, const Kept& k, float v, int index) {
  float w = r.weight(v);
  bool in = (v > k.value || (v == k.value && index <= k.last)) && w >= k.least;
  return in ? w : 0.0f;
}

// Measure says what pick adds up: weights of what is kept, or the number of logits
// equal to k.value.
DEVICE float measure(const Row& r, const Kept& k, bool ties, float v, int index) {
  return ties ? (v == k.value ? 1.0f : 0.0f) : kept_weight(r, k, v, index);
}

// sum_segments sets the segments' sums.
DEVICE void sum_segments(const Row& r, const Kept& k, bool ties) {
#pragma unroll 1
  for (int s = (int)thread_x() >> 2; s < r.segments; s += kQuads) {
    float sum = 0;
    bool in = r.maximum(s) >= k.value;
    if (ballot(in) != 0) {
      float v[kQuadValues];
      r.load(v, s);
#pragma unroll
      for (int i = 0; i < kQuadValues; i++) sum += measure(r, k, ties, v[i], s * kSegment + quad_column(i));
      sum = quad_sum(sum);
    }
    if ((lane() & 3) == 0) st_shared<float>(r.sums + s * 4, in ? sum : 0.0f);
  }
  block_sync();  // shows the sums to all
}

struct Picked {
  int index;
  float total;
};

// pick returns the first index at which the running sum exceeds the target: share
// times the whole, or where share is negative −share − ½, for whole numbers. What
// measures nothing is never picked unless everything does.
DEVICE Picked pick(const Row& r, const Kept& k, bool ties, float share) {
  // A run of segments for each thread.
  int run = (r.segments + kThreads - 1) / kThreads;
  int from = min((int)thread_x() * run, r.segments), to = min(from + run, r.segments);
  float sum = 0;
#pragma unroll 1
  for (int s = from; s < to; s++) sum += ld_shared<float>(r.sums + s * 4);
  Scan scan = block_scan(r, sum);
  float target = share < 0 ? -share - 0.5f : share * scan.all;
  if (!(target < scan.all)) target = bits_float(float_bits(scan.all) - 1);  // u·total was rounded up
  int first = block_min(r, scan.through > target && sum > 0 ? (int)thread_x() : kThreads);
  // The segment within the run of the first thread that passes the target.
  if ((int)thread_x() == first) {
    float at = scan.before, before = at;
    int segment = from;
#pragma unroll 1
    for (int s = from; s < to; s++) {
      float w = ld_shared<float>(r.sums + s * 4);
      if (!(w > 0)) continue;
      segment = s;
      before = at;
      at += w;
      if (at > target) break;
    }
    st_shared<int>(r.scratch, segment);
    st_shared<float>(r.scratch + 4, before);
  }
  block_sync();  // shows the segment to the first warp
  // The logit within the segment: two neighbours for each lane.
  if (warp() == 0) {
    int segment = first < kThreads ? ld_shared<int>(r.scratch) : 0;
    float before = first < kThreads ? ld_shared<float>(r.scratch + 4) : 0.0f;
    int i = segment * kSegment + (int)lane() * 2;
    float one = i < r.vocab ? measure(r, k, ties, r.z[i], i) : 0.0f;
    float two = i + 1 < r.vocab ? measure(r, k, ties, r.z[i + 1], i + 1) : 0.0f;
    float through = one + two;
#pragma unroll
    for (u32 d = 1; d < 32; d <<= 1) {
      float below = shuffle(through, (lane() - d) & 31);
      if (lane() >= d) through += below;
    }
    float below = shuffle(through, (lane() - 1) & 31);
    below = before + (lane() == 0 ? 0.0f : below);
    bool any = one + two > 0;
    u32 passed = ballot(any && before + through > target), some = ballot(any);
    // Where rounding lets the sum end below the target, the last that has a weight.
    u32 chosen = passed != 0 ? (u32)__builtin_ctz(passed) : some != 0 ? 31 - (u32)__builtin_clz(some) : 0;
    bool second = !(one > 0) || (two > 0 && !(below + one > target));
    if (lane() == chosen) st_shared<int>(r.scratch + 8, min(i + (any && second), r.vocab - 1));
  }
  block_sync();  // shows the choice to all
  Picked p{ld_shared<int>(r.scratch + 8), scan.all};
  block_sync();  // it has been read: scratch may be used again
  return p;
}

// whole rounds up, within [1, most].
DEVICE float whole(float x, float most) {
  if (!(x < most)) return most;
  float n = (float)(int)x;
  return max(n < x ? n + 1 : n, 1.0f);
}

// filter applies top-k where top_k > 0, then top-p where top_p < 1. total is the sum
// of all weights. Its stages share one search, to keep the code small: the bound of
// top-k, top-k, top-p.
DEVICE Kept filter(const Row& r, int top_k, float top_p, float total) {
  enum { kBound, kTopKCut, kTopPCut, kDone };
  float none = minus_infinity();
  Kept k{none, (float)r.vocab, r.vocab, 0.0f};
  float floor = none, edge = 0;
  Set set{r.maxima, r.segments};
#pragma unroll 1
  for (int stage = top_k > 0 ? kBound : kTopPCut; stage < (top_p < 1 ? kDone : kTopPCut); stage++) {
    Goal goal{none, (float)top_k, -1, 0, false};
    if (stage == kTopPCut) {
      goal = Goal{k.value, max(top_p * total, kTiny), -1, 0, true};
      if (top_k > 0) {
        goal.share = max(top_p, 0.0f);
        goal.besides = edge;
      } else {
        // Weights below (1−p)·total/(4·vocab) are together at most a quarter of what is
        // to go: none of them is kept.
        floor = r.top + log_of((1.0f - top_p) * total / (4.0f * (float)r.vocab)) / r.inverse;
      }
    }
    if (stage == kTopKCut || top_k == 0) set = gather(r, floor);
    Found f = search(r, set, floor, goal);
    float equals, weight = 1;
    if (stage == kBound) {
      // The k-th largest maximum of the segments is not above the k-th largest logit.
      if (f.ok) floor = f.value;
      continue;
    } else if (stage == kTopKCut) {
      if (!f.ok) continue;  // there are not k logits above −Inf
      equals = goal.target - f.above;
      edge = equals * r.weight(f.value);
    } else if (f.ok) {
      weight = r.weight(f.value);
      equals = whole((f.target - f.above) / weight, (float)r.vocab);
    } else {
      // Some of those on the cut of top-k, the first of them; or, if there is no such
      // cut, all that rounding kept from reaching the target.
      weight = r.weight(k.value);
      equals = whole((f.target - f.with) / weight, k.equals);
      if (k.value == none || equals >= k.equals) continue;
      f = Found{true, k.value, (float)r.vocab * weight, 0, 0};
    }
    // Keep what lies above the cut and the first `equals` of what lies on it.
    k = Kept{f.value, equals, r.vocab, 0.0f};
    if (f.with - f.above < (equals + 0.5f) * weight) continue;  // that is all of it
    sum_segments(r, k, true);
    k.last = pick(r, k, true, -equals).index;
  }
  return k;
}

// uniform returns a number in [0, 1) with 24 random bits: the first word of
// Philox4x32-10 (engine.Philox).
DEVICE float uniform(int position, const int* keys) {
  u32 c0 = (u32)position, c1 = (u32)keys[kSample], c2 = (u32)keys[kPrompt], c3 = (u32)keys[kStep];
  u32 k0 = (u32)keys[kSeedLo], k1 = (u32)keys[kSeedHi];
#pragma unroll
  for (int i = 0; i < 10; i++) {
    u32 high0 = mul_hi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    u32 high1 = mul_hi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (float)(c0 >> 8) * (1.0f / (1 << 24));
}

DEVICE void sample(float* logits, const float* params, const int* keys, const int* marker, const float* after,
                   int* forced, int* tokens, int* positions, float* log_prob, float* sampling_log_prob,
                   float* entropy, int vocab, int marker_len, int logits_stride, int params_stride, int keys_stride) {
  int b = (int)block_x(), position = positions[b];
  if (position < 0) return;
  Row r = make_row(logits + (long long)b * logits_stride, vocab);
  params += (long long)b * params_stride;
  keys += (long long)b * keys_stride;
  float temperature = params[kTemperature], top_p = params[kTopP], min_p = params[kMinP], bias = params[kHelpBias];
  int top_k = keys[kTopK] > 0 && keys[kTopK] < vocab ? keys[kTopK] : 0;
  int place = forced[b], token = tokens[b];
  r.inverse = temperature == 0 ? 1.0f : 1.0f / temperature;

  SoftStats stats = reduce_row(r, r.inverse == 1);

  float raw, drawn_log_prob = 0;
  int next = 0;
  if (place > 0 && place < marker_len) {
    token = marker[place];
    raw = r.z[token];
    next = (place + 1) % marker_len;
  } else {
    bool biased = marker_len > 0 && bias != 0 && token >= 0 && token < vocab && after[token] == 1;
    int first = biased ? marker[0] : -1;
    float unbiased = 0;
    if (biased) {
      unbiased = r.z[first];
      block_sync();  // all have read it
      if (thread_x() == 0) r.z[first] = unbiased + bias;
      block_sync();  // shows it to all
      reduce_segment(r, first / kSegment);
    }
    float top = minus_infinity();
#pragma unroll 1
    for (int s = (int)thread_x(); s < r.segments; s += kThreads) top = max(top, r.maximum(s));
    r.top = block_max(r, top);

    // NaN and infinities leave no distribution to draw from.
    bool distribution = r.top - r.top == 0 && r.inverse - r.inverse == 0 && stats.s == stats.s;
    if (temperature == 0 || !distribution) {
      token = most_likely(r);
      if (!distribution && temperature != 0) drawn_log_prob = bits_float(0x7fffffff);
    } else {
#pragma unroll 1
      for (int s = (int)thread_x(); s < r.segments; s += kThreads) {
        float m = r.maximum(s);
        float sum = m == minus_infinity() ? 0.0f : ld_shared<float>(r.sums + s * 4) * r.weight(m);
        st_shared<float>(r.sums + s * 4, sum);
      }
      block_sync();  // shows the sums, now relative to top, to all
      Kept k{minus_infinity(), (float)vocab, vocab, 0.0f};
      if (top_k > 0 || top_p < 1 || min_p > 0) {
        if (top_k > 0 || top_p < 1) {
          float sum = 0;
#pragma unroll 1
          for (int s = (int)thread_x(); s < r.segments; s += kThreads) sum += ld_shared<float>(r.sums + s * 4);
          k = filter(r, top_k, top_p, block_scan(r, sum).all);
        }
        k.least = min(min_p, 1.0f);  // the largest weight is 1, and stays
        sum_segments(r, k, false);
      }
      Picked p = pick(r, k, false, uniform(position, keys));
      token = p.index;
      drawn_log_prob = (r.z[token] - r.top) * r.inverse - log_of(p.total);
      bool plain = r.inverse == 1 && top_k == 0 && !(top_p < 1) && !(min_p > 0) && !biased;
      if (plain) drawn_log_prob = soft_log_prob(stats, r.z[token]);
    }
    raw = r.z[token];
    if (token == first) {
      raw = unbiased;
      next = 1 % marker_len;
    }
  }
  if (thread_x() != 0) return;
  log_prob[b] = soft_log_prob(stats, raw);
  sampling_log_prob[b] = drawn_log_prob;
  entropy[b] = soft_entropy(stats);
  forced[b] = next;
  tokens[b] = token;
  positions[b] = position + 1;
}

}  // namespace updraft

using namespace updraft;

KERNEL(256, 2, sample_f32, (float* logits, const float* params, const int* keys, const int* marker, const float* after,
                            int* forced, int* tokens, int* positions, float* log_prob, float* sampling_log_prob,
                            float* entropy, int vocab, int marker_len, int logits_stride, int params_stride,
                            int keys_stride)) {
  sample(logits, params, keys, marker, after, forced, tokens, positions, log_prob, sampling_log_prob, entropy, vocab,
         marker_len, logits_stride, params_stride, keys_stride);
}
