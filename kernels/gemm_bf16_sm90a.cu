// gemm_bf16_sm90a: matrix products of bf16 matrices by wgmma and TMA.
//
// Computes:  C[m][n] = sum over k of A[m][k] · B[n][k], + bias[n], + R[m][n],
//            for the three products of a linear layer Y = X·Wᵀ:
//              NT  A = X M×K, B = W N×K as they lie            (forward)
//              NN  A = dY M×K, B = Wᵀ: W lies K×N              (gradient of X)
//              TN  A = dYᵀ: dY lies K×M, B = Xᵀ: X lies K×N    (gradient of W)
//
// Entries:   wgmma_{nt,nn,tn}_{f32,bf16}_BMxBN, with C and R fp32 or bf16 and tiles
//            of BM×BN; the same with _any for BMxBN, which takes operands that TMA
//            does not. kernels/gemm_sm90a.go lists them and says which to take.
// Shapes:    a, b   tensor maps of A and B as they lie, bf16, row-major, with boxes
//                   of 64 columns in 128-byte swizzle, rows as in gemm_sm90a.go. _any
//                   has pointers in their place and row strides lda, ldb in elements
//            counters, splits   K is cut into that many parts, in tn alone; see Launch
//            C      M×N, rows ldc elements apart; bias N, fp32, or null
//            R      M×N, of C's type, rows ldr elements apart, or null. R may be C
//                   itself (C += ...), and overlaps it in no other way
// Requires:  M, N ≥ 1 and K ≥ 0, any. TMA wants rows of A and B at multiples of 16 bytes
//            (8 elements); C's rows at multiples of 16 bytes are faster. C overlaps
//            neither A nor B. What lies beyond the edges is neither read nor written.
// Launch:    persistent: any grid in x up to the number of tiles (as many blocks as
//            fit on the device at once pay). With splits > 1 (tn) a block for each tile and
//            part, and counters: BM/16 u32 for each tile, all zero before and after; else
//            splits is 1 and counters is not used. Block 128·(1 + BM/64): a warpgroup that
//            loads and BM/64 that multiply. Shared: kStages tiles of A and of B, 64
//            deep, and their barriers, 1024-byte aligned; see gemm_sm90a.go.
//            Registers: docs/gpu.md.
// Numerics:  fp32 accumulation by wgmma m64nNk16, k ascending in steps of 16 from
//            zero, one chain per element of C; then + bias, then + R, each
//            rounded to fp32; then one rounding to bf16 where C is. With splits, a chain
//            for each part (steps of 64, as many for each but the last ones), added to R and
//            then to C in ascending order. Deterministic. Without, an element's bits depend on its row of A, its column of B, and K alone, and
//            are the same from every entry: the entries differ in which elements share
//            an instruction and in how operands reach shared memory.
// Source:    warp-specialised persistent kernels as in CUTLASS 3 ("cooperative"), with
//            setmaxnreg where the accumulators want it. Departures: C leaves straight
//            from the registers, a quad of lanes trading bf16 pairs so that each stores
//            16 bytes; few rows of A (decode) take narrow tiles of the same chain with
//            A's rows on wgmma's M, rather than swapped operands: rows of zeros cost no
//            traffic, and narrow tiles spread W over more multiprocessors than tiles
//            of 64 of its rows would.
// Checked by:  kernels/gemm_sm90a_test.go (emulated device, against float64).
//              Measured by: bench/gpu. See docs/gpu.md: no figure has been taken yet.
#include "hopper.cuh"

namespace updraft {

constexpr int kTileK = 64;      // 128 bytes: one swizzled row
constexpr int kRowBytes = 128;
constexpr int kSlab = 64 * kRowBytes;  // of 64 rows
constexpr int kGroupM = 8;      // tile rows that walk N together, for reuse in L2
constexpr int kProducer = 128;  // threads that load

enum Orientation { kNT, kNN, kTN };

// Shape fixes a kernel at compile time. kTMA tells whether TMA loads the operands.
template <Orientation kOrientation, int kM, int kN, int kDepth, bool kByTMA>
struct Shape {
  static constexpr int kBM = kM, kBN = kN, kStages = kDepth;
  static constexpr bool kTMA = kByTMA;
  // Whether a tile row of A (of B) is a k, with values along M (N), or an m (n), with
  // values along K.
  static constexpr bool kTransA = kOrientation == kTN, kTransB = kOrientation != kNT;
  static constexpr bool kSplit = kOrientation == kTN;  // K may be cut: see Numerics
  static constexpr int kConsumers = kBM / 64;
  static constexpr int kBytesA = kBM * kRowBytes, kStageBytes = (kBM + kBN) * kRowBytes;
  // 64×256 accumulators are 128 registers a thread: more than an even share.
  static constexpr bool kMoveRegisters = kBN == 256;
  static_assert(kBM % 64 == 0 && (!kTransB || kBN % 64 == 0), "a tile in MN-major order is made of slabs of 64");
};

// Operand is A or B in global memory: a tensor map, or a pointer and what it spans.
struct Operand {
  const TensorMap* map;
  const bf16* data;
  int ld, columns, rows;  // of the matrix as it lies
};

// Ring is the place in the ring of stages.
struct Ring {
  u32 shared;
  int stage;
  u32 parity;  // of how often it has gone round
};

template <typename S>
DEVICE u32 stage_data(const Ring& r) {
  return r.shared + (u32)r.stage * S::kStageBytes;
}
// full(s) completes when stage s has been loaded, empty(s) when it has been multiplied.
template <typename S>
DEVICE u32 full(const Ring& r, int s) {
  return r.shared + S::kStages * S::kStageBytes + 16 * (u32)s;
}
template <typename S>
DEVICE u32 empty(const Ring& r, int s) {
  return full<S>(r, s) + 8;
}
template <typename S>
DEVICE void advance(Ring& r) {
  if (++r.stage == S::kStages) {
    r.stage = 0;
    r.parity ^= 1;
  }
}

// Work is what is to be computed: M×N sums over K, each cut into a number of parts.
struct Work {
  int M, N, K, splits;
};

// Item is a part of a tile: the sums from k0 up to k1.
struct Item {
  int tile, part;
  int m0, n0, k0, k1;
};

template <typename S>
DEVICE int count_items(const Work& w) {
  return (w.M + S::kBM - 1) / S::kBM * ((w.N + S::kBN - 1) / S::kBN) * (S::kSplit ? w.splits : 1);
}

// item_at gives number i. Blocks that run together cover kGroupM tile rows and walk
// along N, so that their operands stay in L2; the parts of a tile are neighbours.
template <typename S>
DEVICE Item item_at(int i, const Work& w) {
  int tile = S::kSplit ? i / w.splits : i, part = S::kSplit ? i % w.splits : 0;
  int tiles_m = (w.M + S::kBM - 1) / S::kBM, tiles_n = (w.N + S::kBN - 1) / S::kBN;
  int group = tile / (kGroupM * tiles_n), in_group = tile % (kGroupM * tiles_n);
  int group_m = min(tiles_m - group * kGroupM, kGroupM);
  int depth = w.K;
  if (S::kSplit) {
    int steps = (w.K + kTileK - 1) / kTileK;
    depth = (steps + w.splits - 1) / w.splits * kTileK;
  }
  return Item{tile, part, (group * kGroupM + in_group % group_m) * S::kBM, in_group / group_m * S::kBN,
              min(part * depth, w.K), min(part * depth + depth, w.K)};
}

// copy_rows does with ordinary loads and stores what TMA does with a box of 64
// columns: the warpgroup brings `rows` rows from row y and column x to dst, zeros
// beyond the edges, swizzled.
DEVICE void copy_rows(u32 dst, const Operand& o, int x, int y, int rows) {
  for (int i = (int)thread_x(); i < rows * 8; i += kProducer) {
    int r = i >> 3, c = i & 7;
    const bf16* p = o.data + (long long)(y + r) * o.ld + x + c * 8;
    u32 v[8];
#pragma unroll
    for (int e = 0; e < 8; e++) v[e] = y + r < o.rows && x + c * 8 + e < o.columns ? (u32)ld_nc<u16>((const u16*)p + e) : 0;
    st_shared<uint4>(dst + r * kRowBytes + (u32)((c ^ (r & 7)) << 4),
                     uint4{v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16, v[6] | v[7] << 16});
  }
}

// load_tile brings `extent` rows of A, or columns of B, from number mn0 on, and the
// kTileK values of each from k0 on, to dst.
template <typename S, bool kTrans>
DEVICE void load_tile(u32 dst, const Operand& o, int extent, int mn0, int k0, u32 bar) {
  if (!kTrans) {
    if (S::kTMA) {
      tma_load_2d(dst, o.map, k0, mn0, bar);
    } else {
      copy_rows(dst, o, k0, mn0, extent);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < extent / 64; i++) {
    if (S::kTMA) {
      tma_load_2d(dst + i * kSlab, o.map, mn0 + 64 * i, k0, bar);
    } else {
      copy_rows(dst + i * kSlab, o, mn0 + 64 * i, k0, kTileK);
    }
  }
}

// produce fills the stages, item after item: one thread by TMA, or the warpgroup.
template <typename S>
DEVICE void produce(Ring ring, const Operand& a, const Operand& b, const Work& w) {
  for (int i = (int)block_x(); i < count_items<S>(w); i += (int)grid_x()) {
    Item item = item_at<S>(i, w);
    for (int k0 = item.k0; k0 < item.k1; k0 += kTileK) {
      // Protects the stage from being overwritten while it is multiplied. The first
      // time round nobody has: the phase before the first counts as complete.
      mbarrier_wait(empty<S>(ring, ring.stage), ring.parity ^ 1);
      u32 loaded = full<S>(ring, ring.stage), data = stage_data<S>(ring);
      if (S::kTMA) mbarrier_expect_tx(loaded, S::kStageBytes);
      load_tile<S, S::kTransA>(data, a, S::kBM, item.m0, k0, loaded);
      load_tile<S, S::kTransB>(data + S::kBytesA, b, S::kBN, item.n0, k0, loaded);
      if (!S::kTMA) {
        fence_proxy_async();  // ordinary stores, which wgmma is to read
        mbarrier_arrive(loaded);
      }
      advance<S>(ring);
    }
  }
}

// multiply_stage starts the four wgmmas of a stage for the 64 rows of a consumer.
template <typename S>
DEVICE void multiply_stage(float (&acc)[S::kBN / 2], u32 data, int consumer) {
#pragma unroll
  for (int kk = 0; kk < kTileK / 16; kk++) {
    u32 a = data + consumer * kSlab + kk * (S::kTransA ? 16 * kRowBytes : 32);
    u32 b = data + S::kBytesA + kk * (S::kTransB ? 16 * kRowBytes : 32);
    // lbo: the next slab of 64 along M (A has one) or N; not used in K-major order.
    wgmma_bf16<S::kBN, S::kTransA, S::kTransB>(acc, wgmma_descriptor(a, S::kTransA ? kSlab : 16, 8 * kRowBytes),
                                               wgmma_descriptor(b, S::kTransB ? kSlab : 16, 8 * kRowBytes));
  }
}

// Epilogue is where C's elements go and what is added to them.
template <typename Out>
struct Epilogue {
  Out* C;
  const float* bias;
  const Out* R;
  int M, N, ldc, ldr;
  u32* counters;
};

DEVICE float value(float f) { return f; }
DEVICE float value(bf16 v) { return to_float(v); }

// finish adds bias and R to the pair of elements at (m, n), where they are inside. (Of
// the bias it reads the last ones instead; R may be C, where they are others' to write.)
template <typename Out>
DEVICE float2 finish(const Epilogue<Out>& e, int m, int n, float x, float y) {
  if (e.bias) {
    x = x + ld_nc<float>(e.bias + min(n, e.N - 1));
    y = y + ld_nc<float>(e.bias + min(n + 1, e.N - 1));
  }
  if (e.R && m < e.M) {
    const Out* r = e.R + (long long)m * e.ldr + n;
    if (n < e.N) x = x + value(r[0]);
    if (n + 1 < e.N) y = y + value(r[1]);
  }
  return float2{x, y};
}

// store writes a row's elements of up to four neighbouring groups of 8 columns, from n0.
// Lane t of a quad has the pairs 8j + 2t of group j: fp32 pairs fill a 32-byte sector
// by quad as they are.
DEVICE void store(const Epilogue<float>& e, int m, int n0, const float2 (&v)[4], int groups) {
  if (m >= e.M) return;
  float* row = e.C + (long long)m * e.ldc;
  bool paired = (e.ldc & 1) == 0 && ((u64)e.C & 7) == 0;
#pragma unroll
  for (int j = 0; j < groups; j++) {
    int n = n0 + 8 * j + 2 * (int)(lane() & 3);
    if (n + 1 < e.N && paired) {
      *(float2*)(row + n) = v[j];
    } else {
      if (n < e.N) row[n] = v[j].x;
      if (n + 1 < e.N) row[n + 1] = v[j].y;
    }
  }
}

// trade exchanges one of a lane's two values with the lane whose number differs in
// `bit`: the lane without the bit keeps its first, the other its second.
DEVICE void trade(u32& first, u32& second, u32 bit) {
  bool high = lane() & bit;
  u32 got = shuffle_xor(high ? first : second, bit);
  first = high ? got : first;
  second = high ? second : got;
}

// bf16: the quad transposes its 4×4 pairs, so that lane t has all of group t.
DEVICE void store(const Epilogue<bf16>& e, int m, int n0, const float2 (&v)[4], int groups) {
  u32 p[4];
#pragma unroll
  for (int j = 0; j < 4; j++) p[j] = pack_bf16(v[j].x, v[j].y);
  trade(p[0], p[2], 2);
  trade(p[1], p[3], 2);
  trade(p[0], p[1], 1);
  trade(p[2], p[3], 1);
  warp_sync();  // R may be C: the quad has read what its lanes write now
  int group = (int)(lane() & 3), n = n0 + 8 * group;
  if (group >= groups || m >= e.M || n >= e.N) return;
  bf16* row = e.C + (long long)m * e.ldc;
  if (n + 8 <= e.N && (e.ldc & 7) == 0 && ((u64)e.C & 15) == 0) {
    *(uint4*)(row + n) = uint4{p[0], p[1], p[2], p[3]};
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (n + i < e.N) row[n + i].bits = (u16)(p[i / 2] >> (i % 2 * 16));
  }
}

// The parts of a tile are added in their order: a counter for each warp's rows of a tile
// says whose turn it is. It is 0 before and after every launch. Parts are launched with a
// block for each, which waits for blocks of a lower index only.
DEVICE void wait_turn(const u32* counter, u32 turn) {
  if (lane() == 0) {
    while (ld_acquire(counter) != turn) {
    }
  }
  warp_sync();  // no lane reads C before the turn has come
}

DEVICE void pass_turn(u32* counter, u32 turn, u32 turns) {
  fence();
  warp_sync();  // all of the warp's rows are written
  if (lane() == 0) st_release(counter, turn + 1 == turns ? 0 : turn + 1);
}

// write adds what is to be added to the accumulators and stores them.
template <typename S, typename Out>
DEVICE void write(const float (&acc)[S::kBN / 2], const Epilogue<Out>& e, int m0, int n0) {
  u32 w = warp() & 3, g = lane() >> 2, q = lane() & 3;
  constexpr int kGroups = S::kBN / 8 < 4 ? S::kBN / 8 : 4;  // of 8 columns, stored at once
#pragma unroll
  for (int j0 = 0; j0 < S::kBN / 8; j0 += kGroups) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      int m = m0 + (int)(w * 16 + g) + half * 8;
      float2 v[4] = {};
#pragma unroll
      for (int j = 0; j < kGroups; j++) {
        const float* pair = &acc[4 * (j0 + j) + 2 * half];
        v[j] = finish(e, m, n0 + 8 * (j0 + j) + 2 * (int)q, pair[0], pair[1]);
      }
      store(e, m, n0 + 8 * j0, v, kGroups);
    }
  }
}

// consume multiplies what is loaded, item after item, and writes C.
template <typename S, typename Out>
DEVICE void consume(Ring ring, int consumer, const Epilogue<Out>& e, const Work& w) {
  for (int i = (int)block_x(); i < count_items<S>(w); i += (int)grid_x()) {
    Item item = item_at<S>(i, w);
    float acc[S::kBN / 2] = {};
    int last = 0;  // the stage multiplied before
    for (int k0 = item.k0; k0 < item.k1; k0 += kTileK) {
      mbarrier_wait(full<S>(ring, ring.stage), ring.parity);
      wgmma_fence();
      multiply_stage<S>(acc, stage_data<S>(ring), consumer);
      wgmma_commit();
      // All but this stage's are done: a warp frees the stage before, for its part.
      wgmma_wait<1>();
      if (k0 > item.k0 && lane() == 0) mbarrier_arrive(empty<S>(ring, last));
      last = ring.stage;
      advance<S>(ring);
    }
    wgmma_wait_all(acc);
    if (item.k1 > item.k0 && lane() == 0) mbarrier_arrive(empty<S>(ring, last));

    // Store, while the loading warpgroup is at the next item already.
    bool turns = S::kSplit && w.splits > 1;
    u32* counter = turns ? e.counters + (item.tile * S::kConsumers + consumer) * 4 + (int)(warp() & 3) : nullptr;
    Epilogue<Out> part = e;
    if (turns && item.part > 0) {
      part.R = e.C;
      part.ldr = e.ldc;
      wait_turn(counter, (u32)item.part);
    }
    write<S>(acc, part, item.m0 + consumer * 64, item.n0);
    if (turns) pass_turn(counter, (u32)item.part, (u32)w.splits);
  }
}

template <typename S, typename Out>
DEVICE void gemm(const Operand& a, const Operand& b, const Epilogue<Out>& e, const Work& w) {
  Ring ring{shared_base(), 0, 0};
  if (thread_x() == 0) {
    for (int s = 0; s < S::kStages; s++) {
      mbarrier_init(full<S>(ring, s), S::kTMA ? 1 : kProducer);
      mbarrier_init(empty<S>(ring, s), S::kConsumers * 4);  // warps
    }
    mbarrier_init_fence();
    if (S::kTMA) {
      tma_prefetch(a.map);
      tma_prefetch(b.map);
    }
  }
  block_sync();  // the barriers are there for all
  int warpgroup = (int)(warp() >> 2);
  if (warpgroup == 0) {
    if (S::kMoveRegisters) registers_release<40>();
    if (!S::kTMA || thread_x() == 0) produce<S>(ring, a, b, w);
  } else {
    if (S::kMoveRegisters) registers_claim<232>();
    consume<S>(ring, warpgroup - 1, e, w);
  }
}

}  // namespace updraft

using namespace updraft;

// Stages: as many as leave a multiprocessor two blocks of the small tiles, in 227 KB.
#define BY_TMA(name, orientation, out, m, n, stages, min_blocks)                                              \
  KERNEL(128 + 2 * m, min_blocks, wgmma_##name##_##m##x##n,                                                    \
         (TensorMap a, TensorMap b, out* C, const float* bias, const out* R, int M, int N, int K, int ldc,     \
          int ldr, u32* counters, int splits)) {                                                               \
    gemm<Shape<orientation, m, n, stages, true>>(                                                              \
        Operand{PARAM_ADDRESS(wgmma_##name##_##m##x##n, 0, a), nullptr, 0, 0, 0},                              \
        Operand{PARAM_ADDRESS(wgmma_##name##_##m##x##n, 1, b), nullptr, 0, 0, 0},                              \
        Epilogue<out>{C, bias, R, M, N, ldc, ldr, counters}, Work{M, N, K, splits});                           \
  }

#define BY_HAND(name, orientation, out)                                                                       \
  KERNEL(256, 2, wgmma_##name##_any,                                                                           \
         (const bf16* A, const bf16* B, out* C, const float* bias, const out* R, int M, int N, int K, int lda, \
          int ldb, int ldc, int ldr, u32* counters, int splits)) {                                             \
    using S = Shape<orientation, 64, 64, 4, false>;                                                            \
    gemm<S>(Operand{nullptr, A, lda, S::kTransA ? M : K, S::kTransA ? K : M},                                  \
            Operand{nullptr, B, ldb, S::kTransB ? N : K, S::kTransB ? K : N},                                  \
            Epilogue<out>{C, bias, R, M, N, ldc, ldr, counters}, Work{M, N, K, splits});                       \
  }

BY_TMA(nt_f32, kNT, float, 64, 16, 8, 2)
BY_TMA(nt_f32, kNT, float, 64, 32, 8, 2)
BY_TMA(nt_f32, kNT, float, 64, 64, 6, 2)
BY_TMA(nt_f32, kNT, float, 128, 128, 6, 1)
BY_TMA(nt_f32, kNT, float, 128, 256, 4, 1)
BY_TMA(nt_bf16, kNT, bf16, 64, 16, 8, 2)
BY_TMA(nt_bf16, kNT, bf16, 64, 32, 8, 2)
BY_TMA(nt_bf16, kNT, bf16, 64, 64, 6, 2)
BY_TMA(nt_bf16, kNT, bf16, 128, 128, 6, 1)
BY_TMA(nt_bf16, kNT, bf16, 128, 256, 4, 1)
BY_TMA(nn_bf16, kNN, bf16, 64, 64, 6, 2)
BY_TMA(nn_bf16, kNN, bf16, 128, 128, 6, 1)
BY_TMA(nn_bf16, kNN, bf16, 128, 256, 4, 1)
BY_TMA(tn_f32, kTN, float, 64, 64, 6, 2)
BY_TMA(tn_f32, kTN, float, 128, 128, 6, 1)
BY_TMA(tn_f32, kTN, float, 128, 256, 4, 1)
BY_HAND(nt_f32, kNT, float)
BY_HAND(nt_bf16, kNT, bf16)
BY_HAND(nn_bf16, kNN, bf16)
BY_HAND(tn_f32, kTN, float)
