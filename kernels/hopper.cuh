// hopper.cuh: what kernels for sm_90a may ask of a GPU beyond device.cuh.
//
// Like device.cuh it has two implementations with one contract: ptx_sm90a.cuh
// (inline PTX, ISA 8.0) and emu/hopper.h (fibers on a CPU). Section numbers are
// those of the PTX ISA 8.0.
//
// Tensor maps (5.5.2, 9.7.8.24)
//
//   TensorMap              128 opaque bytes that cuTensorMapEncodeTiled made: a
//                          matrix in global memory and the box that is copied from
//                          it. A kernel takes it BY VALUE as a parameter and
//                          touches it through
//   PARAM_ADDRESS(entry, i, p)   the address of parameter p, number i of `entry`
//                          (counted from 0), inside that entry point itself. Named
//                          so, because C++'s &p would have clang copy all of p to
//                          local memory. In parameters and not in global memory,
//                          because a map in global memory needs
//                          fence.proxy.tensormap before its first use (it has a
//                          cache of its own), which only ISA 8.3 has.
//   tma_prefetch(map)      brings the map into that cache
//   tma_load_2d(dst, map, x, y, bar)   one thread: starts the copy of the box whose
//                          first element is x along the row, y the row, to shared
//                          address dst, 1024-byte aligned. Elements outside of the
//                          matrix arrive as zero. The map here has 128-byte rows in
//                          its box and swizzles them: 16-byte chunk c of row r lies
//                          at dst + 128 r + 16 (c xor r mod 8). The bytes of the
//                          whole box, zeros too, are taken off bar's tx-count when
//                          they have landed; only a thread that has seen bar's
//                          phase complete may rely on them
//
// mbarrier (9.7.12.15): an 8-byte object in shared memory, 8-byte aligned. A phase
// completes when its `count` arrivals have been made and its tx-count is zero; the
// next phase starts at once with the same count. The first phase has parity 0.
//
//   mbarrier_init(bar, count)      one thread, once. Then that thread calls
//   mbarrier_init_fence()          and the block meets in a block_sync() before
//                                  anybody uses the barrier
//   mbarrier_arrive(bar)           one arrival; releases the thread's earlier reads
//                                  and writes to those who see the phase complete
//   mbarrier_expect_tx(bar, n)     adds n bytes to the tx-count and arrives
//   mbarrier_wait(bar, parity)     returns once the phase of that parity has
//                                  completed. It cannot tell a phase from the one
//                                  two before it: a waiter lags by less than two
//
// Proxies (8.? "async proxy", 9.7.12.4)
//
//   fence_proxy_async()    orders the thread's ordinary writes to shared memory
//                          before reads of it by wgmma and TMA. Each writing thread
//                          calls it, then the threads meet at a barrier
//
// Matrices: a warpgroup is four warps, the first a multiple of 4 (9.7.14)
//
//   wgmma_descriptor(a, lbo, sbo)  the operand that starts at shared address a, in
//                          128-byte swizzle: rows of 128 bytes, eight of which form
//                          an atom of 1024 bytes, aligned to 1024. See Operand below
//   wgmma_fence()          all of the warpgroup; before the first wgmma and whenever
//                          an accumulator was touched by anything but a wgmma of the
//                          same shape
//   wgmma_bf16<N, ta, tb>(d, a, b)   all of the warpgroup: starts D += A·B, A 64x16,
//                          B 16xN, N in {8, 16, 32, 64, 128, 256}, fp32
//                          accumulation. The operands are
//                          read, and d is written, at any time until a wait that
//                          covers it returns. Warp w of the warpgroup holds rows
//                          16w..16w+15; with g = lane/4 and t = lane%4,
//                            d[4j], d[4j+1]   = D(16w + g,     8j + 2t), (.., 8j + 2t + 1)
//                            d[4j+2], d[4j+3] = D(16w + g + 8, 8j + 2t), (.., 8j + 2t + 1)
//   wgmma_commit()         closes the warpgroup's current group of wgmmas
//   wgmma_wait<P>()        returns when at most P groups of the calling warp are
//                          unfinished. One warp's wait says nothing of the others'
//                          parts
//   wgmma_wait_all(d)      wgmma_wait<0>() and d may be read
//
//   Operand, from shared memory, K-major (t = 0: a row of the tile is 64 values along
//   K): row i of A (column i of B) lies at 128 i within the tile: sbo = 1024 is the
//   distance of row 8 from row 0, lbo is not used (1). The descriptor of step k16
//   starts 32 k16 bytes into the tile. MN-major (t = 1: a row of the tile is 64 values
//   along M or N, and there is a row for each k): sbo = 1024 is the distance of k = 8
//   from k = 0, lbo the distance of values 64.. of M or N from the first 64. Step k16
//   starts 2048 k16 bytes in. N ≥ 64 here.
//
// Registers (9.7.18.5): the kernel has a cap at entry, set by KERNEL's min_blocks
//
//   registers_release<R>(), registers_claim<R>()   all of a warpgroup, once: lowers
//                          or raises its registers a thread to R, a multiple of 8 in
//                          24..256. What all warpgroups hold may not exceed what the
//                          block was launched with; a claim waits for releases
#pragma once

#include "device.cuh"

namespace updraft {

struct alignas(64) TensorMap {
  u64 opaque[16];
};

// wgmma_descriptor: bits 0-13 the address, 16-29 lbo, 32-45 sbo, each without its
// four low bits; 49-51 the base offset, zero for atoms aligned to 1024 bytes; 62-63
// the swizzle, 1 for 128 bytes (9.7.14.5.1, "matrix descriptor format").
DEVICE u64 wgmma_descriptor(u32 address, u32 lbo, u32 sbo) {
  return (u64)((address & 0x3ffff) >> 4) | (u64)(lbo >> 4) << 16 | (u64)(sbo >> 4) << 32 | 1ull << 62;
}

}  // namespace updraft

#ifdef UPDRAFT_EMULATE
#include "emu/hopper.h"
#else
#include "ptx_sm90a.cuh"
#endif
