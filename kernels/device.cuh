// device.cuh: everything that a kernel of this directory may ask of a GPU.
//
// The kernels include this header and no other, NVIDIA's least of all. It has
// two implementations with one contract:
//
//   ptx.cuh            inline PTX, compiled by clang for a GPU
//   emu/emulator.h     plain C++: a block's threads are fibers on a CPU
//                      (chosen by -DUPDRAFT_EMULATE)
//
// Both are compiled without contraction: a product and a sum are fused where
// fma() says so and nowhere else, so that two kernels that compute the same
// thing compute the same bits.
//
// Entry points and functions
//
//   KERNEL(threads, min_blocks, name, (parameters)) { ... }
//                          an entry point launched with blocks of `threads`
//                          threads in x, min_blocks of which should fit on a
//                          multiprocessor (0: the compiler's choice).
//                          Parameters are pointers, int, u32, long long, u64, float.
//   DEVICE                 declares a function that kernels call (always inlined)
//
// Indices
//
//   thread_x()             of the thread in its block; lane() and warp() are its
//                          remainder and quotient by 32
//   block_x(), block_y(), block_z(), grid_x(), grid_y(), grid_z()
//
// Barriers
//
//   block_sync()           barrier of all threads of a block; orders shared and
//                          global memory accesses before it against those after
//   barrier_sync(id, n)    named barrier 1..15 of n threads, a multiple of 32
//   barrier_arrive(id, n)  arrives at it without waiting
//   warp_sync()            barrier of the 32 lanes of a warp
//   fence()                orders the thread's accesses before it, as seen by the
//                          whole device, before its accesses after it. A block that
//                          counts itself by atomic_add fences between its writes and
//                          that (a block_sync may lie between); the one that has
//                          counted all fences before it reads what they wrote
//
// Warp-wide, all 32 lanes at once
//
//   shuffle(v, lane), shuffle_xor(v, mask)   v: float, int or u32
//   ballot(bool)           u32 with a bit for each lane
//
// Shared memory has addresses of its own, u32; there are no pointers into it, so
// that the emulator sees every access
//
//   shared_base()          of the block's dynamic shared memory, 128-byte aligned
//                          (1024 in kernels for sm_90a). Undefined at start: the
//                          emulator fills it with NaN
//   ld_shared<T>(a), st_shared<T>(a, v)   T: float, u32, int, u16, bf16, u64,
//                          float2, float4, uint2, uint4; a is a multiple of T's size
//   cp_async16(dst, src, n)  asynchronous copy of 16 bytes from global to shared
//                          memory, both 16-byte aligned; n in [0, 16] bytes are
//                          read, the rest is written as zero
//   cp_async4(dst, src, n)  the same for 4 bytes, 4-byte aligned; n is 0 or 4
//   cp_async_commit()      closes the calling thread's current group of copies
//   cp_async_wait<N>()     returns when at most N of the calling thread's
//                          groups are unfinished; other threads see the data
//                          after a block_sync() that follows
//
// Global memory: plain loads and stores through pointers, and
//
//   ld_nc<T>(p)            a load of what no thread writes while the kernel runs
//   ld_stream<T>(p), st_stream<T>(p, v)   of what is used once (evicted first)
//   atomic_add(p, v)       u32; returns the old value. Counts arrivals. Never used
//                          on floats: sums are ordered
//   ld_acquire(p), st_release(p, v)   u32. A block may wait in a loop for a block
//                          of a lower index, never for one of a higher
//
// Matrices (warp-wide)
//
//   ldmatrix_x4(r, a), ldmatrix_x2(r, a)   loads four (two) 8x8 matrices of 16-bit
//                          values; lanes 8j..8j+7 give the addresses of the rows of
//                          matrix j. Lane l receives in r[j] the elements
//                          (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix j
//   ldmatrix_x4_trans(r, a), ldmatrix_x2_trans(r, a)   the same of each matrix'
//                          transpose: lane l receives (2(l%4), l/4), (2(l%4)+1, l/4)
//   mma_bf16_16816(d, a, b)  D += A·B, A 16x16, B 16x8, D 16x8, fp32
//                          accumulation. With g = lane/4 and t = lane%4,
//                            a[0] = A(g, 2t..2t+1)     a[1] = A(g+8, 2t..2t+1)
//                            a[2] = A(g, 2t+8..2t+9)   a[3] = A(g+8, 2t+8..2t+9)
//                            b[0] = B(2t..2t+1, g)     b[1] = B(2t+8..2t+9, g)
//                            d[0], d[1] = D(g, 2t), D(g, 2t+1)
//                            d[2], d[3] = D(g+8, 2t), D(g+8, 2t+1)
//
// Numbers
//
//   pack_bf16(lo, hi)      two floats rounded to nearest even, lo in the low half;
//                          NaN becomes 0x7fff
//   to_bf16(f), to_float(bf16), low_float(u32), high_float(u32)
//   fma(a, b, c)           rounded once;  + - * / and sqrt(x) are IEEE's
//   exp2_fast(x)           2^x within 2 ulp, subnormal results may be zero;
//                          exp2_fast(-inf) is 0
//   log2_fast(x)           log2 x within 2^-22 absolute for x in [0.5, 2], else 2 ulp
//   rsqrt_fast(x)          1/sqrt(x) within 2 ulp
//   min(a, b), max(a, b)   of floats, ints; a NaN loses
//   float_bits(f), bits_float(u), mul_hi(a, b)   u32
//
// Source of the layouts: PTX ISA 8.0, sections 9.7.8.22 (cp.async) and 9.7.13.4
// (ldmatrix and mma for m16n8k16). What only sm_90a has is in hopper.cuh.
#pragma once

namespace updraft {

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// bf16 is the storage of one bfloat16 value: the upper half of a float.
struct bf16 {
  u16 bits;
};

// Vectors that are loaded or stored by one instruction.
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  u32 x, y;
};
struct alignas(16) uint4 {
  u32 x, y, z, w;
};

}  // namespace updraft

#ifdef UPDRAFT_EMULATE
#include "emu/emulator.h"
#else
#include "ptx.cuh"
#endif
