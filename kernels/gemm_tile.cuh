// gemm_tile: one block's tile of a bf16 matrix product, for gemm_bf16.cu and
// gemm_bf16_grad.cu, which hold the entry points and their contracts.
//
// Every kernel made from this file computes an element of C by the same chain: one
// fp32 accumulator, mma.m16n8k16 in ascending K from a multiple of 16, A on the side
// of 16 rows, B on that of 8 columns. Tile, orientation and loader change which
// thread does it and when, not what is done: the bits are the same in all of them.
#pragma once

#include "device.cuh"

namespace updraft {

// Tile is the part of C that a block computes, how it is cut among warps, and how
// much of K is in shared memory: Stages steps of K.
template <int M, int N, int K, int Stages, int WarpsM, int WarpsN>
struct Tile {
  static constexpr int kM = M, kN = N, kK = K, kStages = Stages;
  static constexpr int kWarpsM = WarpsM;
  static constexpr int kWarpM = M / WarpsM, kWarpN = N / WarpsN;
  static constexpr int kThreads = WarpsM * WarpsN * 32;
  static constexpr int kStageBytes = (M + N) * K * 2;
  static_assert(kWarpM % 16 == 0 && kWarpN % 16 == 0, "whole fragments");
  static_assert(K % 32 == 0, "two fragments in flight take turns");
};

// Factor is A (or B) as a tile sees it: Rows of its rows, which are C's rows (or
// columns). AlongK says that K is contiguous in memory; else the rows are (the
// matrix is stored transposed). In shared memory a tile lies as in memory: in
// lines of K, or in lines of rows, made of 16-byte chunks.
//
// Half is not 0 where the tile's rows come from two places: of each 2·Half rows the
// first Half lie at `first` and on, the others `gap` rows further (gate and up).
template <int Rows, int TileK, int Threads, bool AlongK, bool Aligned, int Half>
struct Factor {
  static constexpr int kLines = AlongK ? Rows : TileK;
  static constexpr int kLineBytes = (AlongK ? TileK : Rows) * 2;
  static constexpr int kChunks = kLineBytes / 16;
  static_assert(kLineBytes % 64 == 0 && Threads % kChunks == 0 && kLines * kChunks % Threads == 0, "");

  const bf16* data;
  int ld, first, rows, gap;

  // at gives the byte offset of a chunk of a line. A line's chunks are permuted
  // among each other so that any eight successive lines (of 64 bytes: two lines
  // share the 32 banks) have a given chunk in eight different groups of four banks:
  // neither ldmatrix nor a copy meets a bank conflict.
  static DEVICE u32 at(u32 line, u32 chunk) {
    u32 x = kLineBytes >= 128 ? line & 7 : (line >> 1) & 3;
    return line * kLineBytes + ((chunk ^ x) << 4);
  }

  // copy starts to fill the tile at dst with K from k0 on. What lies at end and
  // beyond arrives as zero, in A and in B: a product of the two adds nothing. Rows
  // beyond the matrix are not loaded at all: what their places hold goes only into
  // elements of C that are not stored.
  DEVICE void copy(u32 dst, int k0, int end) const {
    u32 chunk = thread_x() % kChunks;
    int along = (int)chunk * 8 + (AlongK ? k0 : first);  // within a row of memory
    int count = (AlongK ? end : rows) - along;
    count = count < 0 ? 0 : count > 8 ? 8 : count;
#pragma unroll
    for (int i = 0; i < kLines * kChunks / Threads; i++) {
      int line = (int)(thread_x() / kChunks) + i * (Threads / kChunks);
      int row, n = count;
      bool wanted;
      if (AlongK) {
        row = first + line;
        if constexpr (Half > 0) row = first + line / (2 * Half) * Half + line % Half;
        wanted = row < rows;
        if constexpr (Half > 0) row += line % (2 * Half) >= Half ? gap : 0;
      } else {
        row = k0 + line;
        wanted = count > 0;
        n = row < end ? count : 0;
      }
      if (wanted) fill(dst + at(line, chunk), row, along, n);
    }
  }

  // fill copies n elements, from `along` on, of a row of memory, and zeros after them.
  DEVICE void fill(u32 dst, int row, int along, int n) const {
    const bf16* p = data + (long long)row * ld + along;
    if (Aligned) {
      // An address from which nothing is read must still be a good one: the first.
      cp_async16(dst, n > 0 ? p : data, n * 2);
      return;
    }
    u32 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      u32 low = 2 * i < n ? p[2 * i].bits : 0;
      u32 high = 2 * i + 1 < n ? p[2 * i + 1].bits : 0;
      v[i] = low | high << 16;
    }
    st_shared(dst, uint4{v[0], v[1], v[2], v[3]});
  }

  // place gives the offset of the chunk whose address this lane hands to ldmatrix for
  // the 16×16 piece at row `row` and k 0. Matrix j of the four is addressed by
  // lanes 8j..8j+7. For A, j walks down the rows, then along k; for B, whose two
  // fragments of 8 columns come in one piece, along k, then down the rows.
  static DEVICE u32 place(u32 row, bool rows_first) {
    u32 j = lane() >> 3, r = lane() & 7;
    u32 row_half = rows_first ? j & 1 : j >> 1, k_half = rows_first ? j >> 1 : j & 1;
    if (AlongK) return at(row + row_half * 8 + r, k_half);
    return at(k_half * 8 + r, row / 8 + row_half);
  }

  // fragment loads piece i down the rows and kk along K of the tile at address tile.
  static DEVICE void fragment(u32 (&f)[4], u32 tile, u32 place, int i, int kk) {
    if (AlongK) {
      ldmatrix_x4(f, tile + (place ^ (u32)(kk << 5)) + i * 16 * kLineBytes);
    } else {
      ldmatrix_x4_trans(f, tile + (place ^ (u32)(i << 5)) + kk * 16 * kLineBytes);
    }
  }
};

template <class T>
using Accumulators = float[T::kWarpM / 16][T::kWarpN / 8][4];

// Operands of one step of 16 along K, for a warp's part of C.
template <class T>
struct Operands {
  u32 a[T::kWarpM / 16][4];
  u32 b[T::kWarpN / 16][2][2];  // [pair of fragments][fragment][register]
};

// multiply adds the products of K in [begin, end) to acc.
template <class T, class A, class B>
DEVICE void multiply(Accumulators<T>& acc, const A& a, const B& b, int begin, int end) {
  u32 warp_m = warp() % T::kWarpsM * T::kWarpM, warp_n = warp() / T::kWarpsM * T::kWarpN;
  u32 a_place = A::place(warp_m, true), b_place = B::place(warp_n, false);
  u32 shared = shared_base();
  int steps = (end - begin + T::kK - 1) / T::kK;

  auto load = [&](int step, int slot) {
    u32 stage = shared + (u32)slot * T::kStageBytes;
    a.copy(stage, begin + step * T::kK, end);
    b.copy(stage + T::kM * T::kK * 2, begin + step * T::kK, end);
  };
  auto fetch = [&](Operands<T>& f, int slot, int kk) {
    u32 stage = shared + (u32)slot * T::kStageBytes;
#pragma unroll
    for (int i = 0; i < T::kWarpM / 16; i++) A::fragment(f.a[i], stage, a_place, i, kk);
#pragma unroll
    for (int i = 0; i < T::kWarpN / 16; i++) {
      u32 r[4];
      B::fragment(r, stage + T::kM * T::kK * 2, b_place, i, kk);
      f.b[i][0][0] = r[0];
      f.b[i][0][1] = r[1];
      f.b[i][1][0] = r[2];
      f.b[i][1][1] = r[3];
    }
  };

  // Load: fill all stages but one. A group is committed for every stage, empty
  // or not, so that counting groups counts stages.
#pragma unroll 1
  for (int s = 0; s < T::kStages - 1; s++) {
    if (s < steps) load(s, s);
    cp_async_commit();
  }
  cp_async_wait<T::kStages - 2>();
  block_sync();  // all threads' copies into the first stage are visible to all

  // Compute, while later stages load and the next operands come from shared memory.
  constexpr int kSteps = T::kK / 16;
  Operands<T> f[2];
  fetch(f[0], 0, 0);
  int slot = 0, refill = T::kStages - 1;
#pragma unroll 1
  for (int step = 0; step < steps; step++) {
    int next = slot + 1 == T::kStages ? 0 : slot + 1;
#pragma unroll
    for (int kk = 0; kk < kSteps; kk++) {
      if (kk == kSteps - 1) {
        cp_async_wait<T::kStages - 2>();
        // Protects two things: all threads' copies into the next stage are visible
        // to all, and all warps have read this one, which is refilled next.
        block_sync();
      }
      // After the last step this reads a stage that holds nothing new, and its
      // operands are not used.
      fetch(f[(kk + 1) & 1], kk + 1 < kSteps ? slot : next, (kk + 1) % kSteps);
      if (kk == 0) {
        if (step + T::kStages - 1 < steps) load(step + T::kStages - 1, refill);
        cp_async_commit();
      }
#pragma unroll
      for (int i = 0; i < T::kWarpM / 16; i++) {
#pragma unroll
        for (int j = 0; j < T::kWarpN / 8; j++) mma_bf16_16816(acc[i][j], f[kk & 1].a[i], f[kk & 1].b[j / 2][j & 1]);
      }
    }
    refill = slot;
    slot = next;
  }
  block_sync();  // the stages have been read: the epilogue may write there
}

// Place is where in C a block's tile lies, and which part of K is its.
struct Place {
  int m, n;  // the first row and column
  int tile, split;
};

// place finds a block's tile. Blocks that run together cover kGroup tile rows and
// walk along N, so that their rows of A and B stay in L2. All tiles of a split of K
// come before those of the next.
template <class T>
DEVICE Place place(int M, int N) {
  constexpr int kGroup = 8;
  int tiles_m = (M + T::kM - 1) / T::kM, tiles_n = (N + T::kN - 1) / T::kN;
  int tile = (int)block_x() % (tiles_m * tiles_n), split = (int)block_x() / (tiles_m * tiles_n);
  int first = tile / (kGroup * tiles_n) * kGroup;
  int within = tile % (kGroup * tiles_n);
  int group = min(tiles_m - first, kGroup);
  return Place{(first + within % group) * T::kM, within / group * T::kN, tile, split};
}

// Slab stages a warp's accumulators, up to 32 rows at a time, in shared memory, so
// that global memory is written (and R read) in whole rows. It belongs to one warp.
template <class T>
struct Slab {
  static constexpr int kRows = T::kWarpM < 32 ? T::kWarpM : 32;
  static constexpr int kChunks = T::kWarpN / 4;  // of a row: four columns each
  static_assert(T::kThreads / 32 * kRows * T::kWarpN * 4 <= T::kStages * T::kStageBytes, "fits where the stages were");
  u32 base;

  DEVICE Slab() : base(shared_base() + warp() * (kRows * T::kWarpN * 4)) {}

  // at permutes a row's chunks so that the 16 lanes that store together, four rows
  // of two chunks, meet different banks.
  DEVICE u32 at(u32 row, u32 chunk) const {
    u32 x = kChunks >= 8 ? (row & 3) << 1 : row & 2;
    return base + (row * kChunks + (chunk ^ x)) * 16;
  }

  // put stages the rows of the accumulators from 16·first on.
  DEVICE void put(const Accumulators<T>& acc, int first) const {
    u32 g = lane() >> 2, t = lane() & 3;
    warp_sync();  // what was here has been read
#pragma unroll
    for (int i = 0; i < kRows / 16; i++) {
#pragma unroll
      for (int j = 0; j < T::kWarpN / 8; j++) {
        const float(&d)[4] = acc[first + i][j];
        u32 in_chunk = (t & 1) * 8;
        st_shared(at(i * 16 + g, j * 2 + (t >> 1)) + in_chunk, float2{d[0], d[1]});
        st_shared(at(i * 16 + 8 + g, j * 2 + (t >> 1)) + in_chunk, float2{d[2], d[3]});
      }
    }
    warp_sync();  // the slab is whole
  }

  DEVICE float4 get(u32 row, u32 chunk) const { return ld_shared<float4>(at(row, chunk)); }
};

DEVICE float4 operator+(float4 a, float4 b) { return float4{a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w}; }

// Four neighbouring elements, moved at once.
DEVICE float4 load4(const float* p) { return *(const float4*)p; }
DEVICE float4 load4(const bf16* p) {
  uint2 v = *(const uint2*)p;
  return float4{low_float(v.x), high_float(v.x), low_float(v.y), high_float(v.y)};
}
DEVICE void store4(float* p, float4 v) { *(float4*)p = v; }
DEVICE void store4(bf16* p, float4 v) { *(uint2*)p = uint2{pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)}; }

DEVICE float load1(const float* p) { return *p; }
DEVICE float load1(const bf16* p) { return to_float(*p); }
DEVICE void store1(float* p, float v) { *p = v; }
DEVICE void store1(bf16* p, float v) { *p = to_bf16(v); }

// in_fours reports whether load4 and store4 may be used on every fourth element of
// every row.
template <typename E>
DEVICE bool in_fours(const E* p, int ld) {
  return (u64)p % (4 * sizeof(E)) == 0 && ld % 4 == 0;
}

// Result is C = acc + bias + R, in this order, each sum rounded to fp32 and the last
// to C's type, E. bias and R may be null; R may be C.
template <typename E>
struct Result {
  E* C;
  const E* R;
  const float* bias;
  int M, N, ldc, ldr;

  template <class T>
  DEVICE void store(const Accumulators<T>& acc, const Place& at) const {
    constexpr int kDown = 32 / Slab<T>::kChunks;  // rows that a warp stores at once
    constexpr int kPasses = 16 / kDown;
    int row = (int)(lane() / Slab<T>::kChunks), chunk = (int)(lane() % Slab<T>::kChunks);
    int m0 = at.m + (int)(warp() % T::kWarpsM) * T::kWarpM;
    int n0 = at.n + (int)(warp() / T::kWarpsM) * T::kWarpN, n = n0 + chunk * 4;
    bool fours = n0 + T::kWarpN <= N && in_fours(C, ldc) && (!R || in_fours(R, ldr));
    Slab<T> slab;

    float4 b{0, 0, 0, 0};
    if (bias) {
      b.x = n < N ? bias[n] : 0;
      b.y = n + 1 < N ? bias[n + 1] : 0;
      b.z = n + 2 < N ? bias[n + 2] : 0;
      b.w = n + 3 < N ? bias[n + 3] : 0;
    }
#pragma unroll
    for (int i = 0; i < T::kWarpM / 16; i += Slab<T>::kRows / 16) {
      slab.put(acc, i);
#pragma unroll 1
      for (int from = row; from < Slab<T>::kRows; from += 16) {
        int m = m0 + i * 16 + from;
        if (fours) {
          E* c = C + (long long)m * ldc + n;
          const E* r = R + (long long)m * ldr + n;
          // All of R's rows first: one wait for memory, not one for each row.
          float4 add[kPasses];
          if (R) {
#pragma unroll
            for (int p = 0; p < kPasses; p++) {
              if (m + p * kDown < M) add[p] = load4(r + (long long)(p * kDown) * ldr);
            }
          }
#pragma unroll
          for (int p = 0; p < kPasses; p++) {
            if (m + p * kDown >= M) continue;
            float4 v = slab.get(from + p * kDown, chunk);
            if (bias) v = v + b;
            if (R) v = v + add[p];
            store4(c + (long long)(p * kDown) * ldc, v);
          }
          continue;
        }
#pragma unroll 1
        for (int p = 0; p < 16 && m + p < M; p += kDown) {
          float4 v = slab.get(from + p, chunk);
          if (bias) v = v + b;
          one(m + p, n, v.x);
          one(m + p, n + 1, v.y);
          one(m + p, n + 2, v.z);
          one(m + p, n + 3, v.w);
        }
      }
    }
  }

  DEVICE void one(int m, int n, float v) const {
    if (n >= N) return;
    if (R) v = v + load1(R + (long long)m * ldr + n);
    store1(C + (long long)m * ldc + n, v);
  }
};

}  // namespace updraft
