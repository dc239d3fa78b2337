// async.h: what hopper.h asks of the emulator: driver/async.cc has it, and says
// what is checked. Like machine.h it knows bytes and addresses only.
#pragma once

#include "emu/machine.h"

namespace emu {

// check_parameter fails unless p holds argument i of the running kernel, named entry.
void check_parameter(const char* entry, u32 i, const void* p, u32 size);

void tensor_prefetch(const void* map);
void tensor_load(u32 dst, const void* map, int x, int y, u32 bar);

void mbarrier_init(u32 bar, u32 count);
void mbarrier_init_fence();
void mbarrier_arrive(u32 bar);
void mbarrier_expect_tx(u32 bar, u32 bytes);
void mbarrier_wait(u32 bar, u32 parity);

void fence_proxy_async();

// WgmmaOperand is what a lane leaves for meet; `accumulators` is in number N/2.
struct WgmmaOperand {
  float* accumulators;
  u64 a, b;  // descriptors
};
void wgmma(WgmmaOperand* o, u32 n, bool trans_a, bool trans_b);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(u32 groups);

void registers_release(u32 per_thread);
void registers_claim(u32 per_thread);

}  // namespace emu
