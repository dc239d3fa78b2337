// async.h: what machine.cc asks of async.cc. (../async.h is what kernels ask of it.)
#pragma once

#include <string>

#include "machine_run.h"

namespace emu {

// async_start_block forgets the block before: one runs at a time.
void async_start_block(Block* b);

// async_step lets something that is under way happen, as the options have it. Idle
// means that no thread can run; the result then says whether anything happened.
bool async_step(bool idle);

// async_finish_thread fails unless the thread has waited for what it started.
void async_finish_thread();

// async_finish_block, called in its last thread, fails if something is left undone or
// unequal at the block's end.
void async_finish_block();

// async_ordinary_write notes a store to shared memory: wgmma may read it only after a
// proxy fence, and no wgmma may be reading what was there.
void async_ordinary_write(u32 offset, u32 bytes);

// async_perform does one of the warp-wide instructions of sm_90a.
void async_perform(Warp& w);

// async_waiting says what a thread waits for, for the report of a deadlock, or nothing.
std::string async_waiting(const Thread* t);

}  // namespace emu
