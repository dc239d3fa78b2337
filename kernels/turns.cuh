// turns: blocks that add to the same memory one after the other, in a fixed order.
//
// A counter says whose turn it is. It is 0 before and after every launch, so one
// buffer of counters, zeroed once, serves all launches of a stream. A block waits
// only for blocks of a lower index, which have started before it.
#pragma once

#include "device.cuh"

namespace updraft {

// wait_turn returns in all threads of a block when the counter is at turn; what the
// blocks before it wrote is visible then.
DEVICE void wait_turn(const u32* counter, u32 turn) {
  if (thread_x() == 0) {
    while (ld_acquire(counter) != turn) {
    }
  }
  block_sync();  // nobody reads before thread 0 has seen the turn
}

// pass_turn lets the block of the turn after this one go on, or, after the last of
// turns, makes the counter 0 again.
DEVICE void pass_turn(u32* counter, u32 turn, u32 turns) {
  block_sync();  // all threads have written, which the release makes visible
  if (thread_x() == 0) st_release(counter, turn + 1 == turns ? 0 : turn + 1);
}

}  // namespace updraft
