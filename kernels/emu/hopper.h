// hopper.h: the host implementation of hopper.cuh.
//
// What it keeps honest: phases, arrivals and tx-counts of barriers; when copies and
// products happen between their start and the wait that covers them (late, at once,
// or at random; see doc.go); the swizzle, and every bit of a descriptor; that
// ordinary writes pass a proxy fence before wgmma reads them; that accumulators are
// fenced before the first use and hold NaN until they have been waited for; that a
// stage is not refilled under a product; that the four warps of a warpgroup do the
// same; that registers are there before they are claimed.
//
// What it cannot show: races of copies' reads with other blocks' writes (blocks of kernels
// for sm_90a run one after the other); speed; the order in which wgmma adds 16 products (it adds them
// in double and rounds once); visibility weaker than a CPU's, where code that a fence
// or barrier happens to order here would not be on a GPU.
#pragma once

#include "emu/async.h"

#define PARAM_ADDRESS(entry, i, p) (emu::check_parameter(#entry, i, &(p), sizeof(p)), &(p))

namespace updraft {

DEVICE void tma_prefetch(const TensorMap* map) { emu::tensor_prefetch(map); }
DEVICE void tma_load_2d(u32 dst, const TensorMap* map, int x, int y, u32 bar) { emu::tensor_load(dst, map, x, y, bar); }

DEVICE void mbarrier_init(u32 bar, u32 count) { emu::mbarrier_init(bar, count); }
DEVICE void mbarrier_init_fence() { emu::mbarrier_init_fence(); }
DEVICE void mbarrier_arrive(u32 bar) { emu::mbarrier_arrive(bar); }
DEVICE void mbarrier_expect_tx(u32 bar, u32 bytes) { emu::mbarrier_expect_tx(bar, bytes); }
DEVICE void mbarrier_wait(u32 bar, u32 parity) { emu::mbarrier_wait(bar, parity); }

DEVICE void fence_proxy_async() { emu::fence_proxy_async(); }

DEVICE void wgmma_fence() { emu::wgmma_fence(); }
DEVICE void wgmma_commit() { emu::wgmma_commit(); }
template <int P>
DEVICE void wgmma_wait() {
  emu::wgmma_wait(P);
}
template <int R>
DEVICE void wgmma_wait_all(float (&)[R]) {
  emu::wgmma_wait(0);
}
template <int N, int kTransA, int kTransB>
DEVICE void wgmma_bf16(float (&d)[N / 2], u64 a, u64 b) {
  static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 256, "no such wgmma");
  emu::WgmmaOperand o{d, a, b};
  emu::wgmma(&o, N, kTransA, kTransB);
}

template <int R>
DEVICE void registers_release() {
  static_assert(R % 8 == 0 && R >= 24 && R <= 256, "no such number of registers");
  emu::registers_release(R);
}
template <int R>
DEVICE void registers_claim() {
  static_assert(R % 8 == 0 && R >= 24 && R <= 256, "no such number of registers");
  emu::registers_claim(R);
}

}  // namespace updraft
