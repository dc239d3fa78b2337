// pack.cuh: eight neighbouring elements of a row as floats, the unit in which
// the row-wise kernels work.
//
// A pack is moved by 16-byte accesses where its address allows it and it is
// whole, and element by element otherwise: the values, and so the results, are
// the same.
#pragma once
#include "device.cuh"

namespace updraft {

constexpr int kPack = 8;

DEVICE bool aligned16(const void* p) { return ((u64)p & 15) == 0; }

// load_pack reads the first n (at most 8) elements at p; the others are zero.
DEVICE void load_pack(float (&v)[kPack], const float* p, int n) {
  if (n >= kPack && aligned16(p)) {
    float4 a = *(const float4*)p, b = *(const float4*)(p + 4);
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
    v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) v[i] = i < n ? p[i] : 0.0f;
}

DEVICE void load_pack(float (&v)[kPack], const bf16* p, int n) {
  if (n >= kPack && aligned16(p)) {
    uint4 a = *(const uint4*)p;
    v[0] = low_float(a.x), v[1] = high_float(a.x), v[2] = low_float(a.y), v[3] = high_float(a.y);
    v[4] = low_float(a.z), v[5] = high_float(a.z), v[6] = low_float(a.w), v[7] = high_float(a.w);
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) v[i] = i < n ? to_float(p[i]) : 0.0f;
}

// store_pack writes the first n elements; to bf16 they are rounded to nearest even.
DEVICE void store_pack(float* p, const float (&v)[kPack], int n) {
  if (n >= kPack && aligned16(p)) {
    *(float4*)p = float4{v[0], v[1], v[2], v[3]};
    *(float4*)(p + 4) = float4{v[4], v[5], v[6], v[7]};
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    if (i < n) p[i] = v[i];
  }
}

DEVICE void store_pack(bf16* p, const float (&v)[kPack], int n) {
  if (n >= kPack && aligned16(p)) {
    *(uint4*)p = uint4{pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
    return;
  }
#pragma unroll
  for (int i = 0; i < kPack; i++) {
    if (i < n) p[i] = to_bf16(v[i]);
  }
}

// Place is a pack of a matrix: the first of its columns, and how many of the
// row's columns are left from there.
struct Place {
  int row, col, left;
};

// place gives the calling thread's pack in a matrix of rows × cols; packs are
// counted along the rows, one for each thread of the grid (in x). It returns
// false for the threads that are left over.
DEVICE bool place(Place& p, u32 threads, int rows, int cols) {
  u32 packs = (u32)(cols + kPack - 1) / kPack;
  u32 i = block_x() * threads + thread_x();
  if (i >= packs * (u32)rows) return false;
  p.row = (int)(i / packs);
  p.col = (int)(i % packs) * kPack;
  p.left = cols - p.col;
  return true;
}

}  // namespace updraft
