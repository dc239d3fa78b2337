// emulator.h: the host implementation of device.cuh. A block's threads are
// fibers; machine.h has what runs them and driver/ the library that launches.
//
// It is built to disagree with wrong kernels; doc.go says what it finds and what
// it cannot.
#pragma once

#include "emu/machine.h"

#define DEVICE inline __attribute__((always_inline))

#ifdef UPDRAFT_SM90A
#define UPDRAFT_SHARED_BASE ::emu::kBaseSm90a
#else
#define UPDRAFT_SHARED_BASE ::emu::kBase
#endif

#define KERNEL(threads, min_blocks, name, params)                                             \
  static void name params;                                                                    \
  static ::emu::Registration emu_kernel_##name(#name, threads, min_blocks, UPDRAFT_SHARED_BASE, name); \
  static void name params

namespace updraft {

// --- Indices ----------------------------------------------------------------

DEVICE u32 thread_x() { return emu::quiet(emu::running()->index); }
DEVICE u32 lane() { return thread_x() % 32; }
DEVICE u32 warp() { return thread_x() / 32; }
DEVICE u32 block_x() { return emu::quiet(emu::running()->block_index[0]); }
DEVICE u32 block_y() { return emu::quiet(emu::running()->block_index[1]); }
DEVICE u32 block_z() { return emu::quiet(emu::running()->block_index[2]); }
DEVICE u32 grid_x() { return emu::quiet(emu::running()->grid[0]); }
DEVICE u32 grid_y() { return emu::quiet(emu::running()->grid[1]); }
DEVICE u32 grid_z() { return emu::quiet(emu::running()->grid[2]); }

// --- Numbers ----------------------------------------------------------------

DEVICE u32 float_bits(float f) {
  u32 u;
  __builtin_memcpy(&u, &f, 4);
  return u;
}
DEVICE float bits_float(u32 u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
DEVICE u32 mul_hi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }

DEVICE bf16 to_bf16(float f) {
  if (f != f) return bf16{0x7fff};
  u32 b = float_bits(f);
  return bf16{(u16)((b + 0x7fff + (b >> 16 & 1)) >> 16)};
}
DEVICE u32 pack_bf16(float lo, float hi) { return to_bf16(lo).bits | (u32)to_bf16(hi).bits << 16; }
DEVICE float to_float(bf16 v) { return bits_float((u32)v.bits << 16); }
DEVICE float low_float(u32 pair) { return bits_float(pair << 16); }
DEVICE float high_float(u32 pair) { return bits_float(pair & 0xffff0000u); }

DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
DEVICE float rsqrt_fast(float x) { return (float)(1 / __builtin_sqrt((double)x)); }
DEVICE float log2_fast(float x) { return __builtin_log2f(x); }
DEVICE float exp2_fast(float x) {
  float r = __builtin_exp2f(x);
  return r < 0x1p-126f ? 0 : r;  // subnormal results are zero, as on the device
}
DEVICE float min(float a, float b) {
  if (a != a) return b;
  if (a == b) return float_bits(a) >> 31 ? a : b;  // -0 is below 0
  return b < a ? b : a;
}
DEVICE float max(float a, float b) {
  if (a != a) return b;
  if (a == b) return float_bits(a) >> 31 ? b : a;
  return b > a ? b : a;
}
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 max(u32 a, u32 b) { return a > b ? a : b; }

// --- Barriers ---------------------------------------------------------------

DEVICE void block_sync() { emu::block_barrier(); }
DEVICE void barrier_sync(u32 id, u32 threads) { emu::named_barrier(id, threads, true); }
DEVICE void barrier_arrive(u32 id, u32 threads) { emu::named_barrier(id, threads, false); }
DEVICE void warp_sync() { emu::meet(emu::kWarpSync, nullptr); }
DEVICE void fence() { emu::full_fence(); }

// --- Warp-wide --------------------------------------------------------------

DEVICE u32 shuffle(u32 v, u32 from) {
  emu::ShuffleOperand o{v, from % 32, 0};
  emu::meet(emu::kShuffle, &o);
  return o.result;
}
DEVICE u32 shuffle_xor(u32 v, u32 mask) {
  emu::ShuffleOperand o{v, (lane() ^ mask) % 32, 0};
  emu::meet(emu::kShuffleXor, &o);
  return o.result;
}
DEVICE int shuffle(int v, u32 from) { return (int)shuffle((u32)v, from); }
DEVICE int shuffle_xor(int v, u32 mask) { return (int)shuffle_xor((u32)v, mask); }
DEVICE float shuffle(float v, u32 from) { return bits_float(shuffle(float_bits(v), from)); }
DEVICE float shuffle_xor(float v, u32 mask) { return bits_float(shuffle_xor(float_bits(v), mask)); }
DEVICE u32 ballot(bool v) {
  emu::ShuffleOperand o{v, 0, 0};
  emu::meet(emu::kBallot, &o);
  return o.result;
}

// --- Loads and stores -------------------------------------------------------

DEVICE u32 shared_base() { return UPDRAFT_SHARED_BASE; }

template <typename T>
DEVICE T ld_shared(u32 a) {
  emu::Words w = emu::load_shared(a, sizeof(T));
  T v;
  __builtin_memcpy(&v, &w, sizeof v);
  return v;
}
template <typename T>
DEVICE void st_shared(u32 a, T v) {
  emu::Words w{};
  __builtin_memcpy(&w, &v, sizeof v);
  emu::store_shared(a, sizeof(T), w);
}
template <typename T>
DEVICE T ld_nc(const T* p) {
  emu::read_constant(p, sizeof(T));
  return *p;
}
template <typename T>
DEVICE T ld_stream(const T* p) { return *p; }
template <typename T>
DEVICE void st_stream(T* p, T v) { *p = v; }

DEVICE u32 atomic_add(u32* p, u32 v) { return emu::atomic_add(p, v); }
DEVICE u32 ld_acquire(const u32* p) { return emu::load_acquire(p); }
DEVICE void st_release(u32* p, u32 v) { emu::store_release(p, v); }

// --- Asynchronous copies ----------------------------------------------------

DEVICE void cp_async16(u32 dst, const void* src, u32 bytes) { emu::copy_async(dst, src, bytes, 16); }
DEVICE void cp_async4(u32 dst, const void* src, u32 bytes) { emu::copy_async(dst, src, bytes, 4); }
DEVICE void cp_async_commit() { emu::copy_commit(); }
template <int N>
DEVICE void cp_async_wait() { emu::copy_wait(N); }

// --- Matrices ---------------------------------------------------------------

DEVICE void ldmatrix(emu::Op op, u32* r, u32 count, u32 a) {
  emu::LdmatrixOperand o{a, r};
  emu::meet(op, &o, count);
}
DEVICE void ldmatrix_x4(u32 (&r)[4], u32 a) { ldmatrix(emu::kLdmatrix, r, 4, a); }
DEVICE void ldmatrix_x2(u32 (&r)[2], u32 a) { ldmatrix(emu::kLdmatrix, r, 2, a); }
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 a) { ldmatrix(emu::kLdmatrixTrans, r, 4, a); }
DEVICE void ldmatrix_x2_trans(u32 (&r)[2], u32 a) { ldmatrix(emu::kLdmatrixTrans, r, 2, a); }

DEVICE void mma_bf16_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  emu::MmaOperand o{d, a, b};
  emu::meet(emu::kMma, &o);
}

}  // namespace updraft
