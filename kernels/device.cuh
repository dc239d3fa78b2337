// device.cuh: everything that a kernel of this directory may ask of a GPU.
//
// The kernels include this header and no other, NVIDIA's least of all. It has
// two implementations with one contract:
//
//   ptx.cuh            inline PTX, compiled by clang for a GPU
//   emu/emulator.h     plain C++: a block's threads are fibers on a CPU
//                      (chosen by -DUPDRAFT_EMULATE)
//
// Contract, the same in both:
//
//   KERNEL(threads)        declares an entry point launched with that block size
//   DEVICE                 declares a function that kernels call
//   thread_x(), block_x()  index of the thread in its block, of the block in
//                          the grid
//   block_sync()           barrier of all threads of a block; orders shared
//                          memory accesses before it against those after it
//   shared_base()          address of the block's dynamic shared memory, in the
//                          shared window, 128-byte aligned. Its contents are
//                          undefined at start (the emulator fills it with NaN)
//   cp_async16(dst, src, n)  asynchronous copy of 16 bytes from global to shared
//                          memory, both 16-byte aligned; n in [0, 16] bytes are
//                          read, the rest is written as zero
//   cp_async_commit()      closes the calling thread's current group of copies
//   cp_async_wait<N>()     returns when at most N of the calling thread's
//                          groups are unfinished; other threads see the data
//                          after a block_sync() that follows
//   ldmatrix_x4(r, addr)   warp-wide: loads four 8x8 matrices of 16-bit values;
//                          lanes 8j..8j+7 give the addresses of the rows of
//                          matrix j. Lane l receives in r[j] the elements
//                          (l/4, 2(l%4)) and (l/4, 2(l%4)+1) of matrix j
//   mma_bf16_16816(d, a, b)  warp-wide: D += A·B, A 16x16, B 16x8, D 16x8, fp32
//                          accumulation. With g = lane/4 and t = lane%4,
//                            a[0] = A(g, 2t..2t+1)     a[1] = A(g+8, 2t..2t+1)
//                            a[2] = A(g, 2t+8..2t+9)   a[3] = A(g+8, 2t+8..2t+9)
//                            b[0] = B(2t..2t+1, g)     b[1] = B(2t+8..2t+9, g)
//                            d[0], d[1] = D(g, 2t), D(g, 2t+1)
//                            d[2], d[3] = D(g+8, 2t), D(g+8, 2t+1)
//   pack_bf16(lo, hi)      two floats rounded to nearest even, lo in the low
//                          half; NaN becomes 0x7fff
//
// Source of the layouts: PTX ISA 8.0, sections 9.7.8.22 (cp.async) and 9.7.13.4
// (ldmatrix and mma for m16n8k16).
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

// float2 is two floats that are loaded or stored by one instruction.
struct alignas(8) float2 {
  float x, y;
};

}  // namespace updraft

#ifdef UPDRAFT_EMULATE
#include "emu/emulator.h"
#else
#include "ptx.cuh"
#endif
