// race.h: which accesses to memory are ordered before which.
//
// Every 4 bytes have a record of the last write and of two reads since. An access
// is recorded as a stamp:
//
//   generation  new for each block and each barrier of a whole block. In a block,
//               accesses of earlier generations are ordered before all of later ones
//   thread      in its block
//   mask        which of the four bytes
//   arrivals    of the thread at barriers of parts of the block, in this generation,
//               counted from 1; fences and releases count too
//   syncs       of the warp by warp_sync, in this generation
//
// Within a generation, an access is ordered before one of another thread
//   - of the same warp, when there was a warp_sync between: its syncs are fewer;
//   - when barriers of parts connect them: warp w's known[v] says that accesses of
//     warp v with fewer arrivals than that are ordered before what w does now.
// Between blocks of a launch only fences with atomics, acquire and release order
// accesses: race.cc. Launches are ordered.
//
// Where a record cannot say (a thread's read that was dropped for others', more
// than 1022 arrivals in a generation), accesses count as ordered: races may be
// missed, none is invented.
#pragma once

#include <vector>

#include "../machine.h"

namespace emu {

typedef u64 Stamp;

constexpr int kGenerationShift = 34, kThreadShift = 24, kMaskShift = 20, kArrivalsShift = 10;
constexpr u64 kMost = 1023;  // arrivals, syncs

inline u64 generation_of(Stamp s) { return s >> kGenerationShift; }
inline u32 thread_of(Stamp s) { return (u32)(s >> kThreadShift) & 1023; }
inline u32 arrivals_of(Stamp s) { return (u32)(s >> kArrivalsShift) & 1023; }
inline u32 syncs_of(Stamp s) { return (u32)s & 1023; }
inline Stamp make_stamp(u64 generation, u32 thread, u64 arrivals) {
  return generation << kGenerationShift | (u64)thread << kThreadShift | arrivals << kArrivalsShift;
}

struct Cell {
  Stamp write, reads[2];
};

enum Space { kShared, kGlobal };

// known_between_blocks reports whether an access to global memory in another
// generation, perhaps of another block, is ordered before what self does now.
bool known_between_blocks(Stamp old);

// written_now reports whether a write was one of this launch.
bool written_now(Stamp write);

// unordered reports whether an earlier access conflicts with one stamped now.
template <Space space>
inline bool unordered(Stamp old, Stamp now) {
  if (((old & now) >> kMaskShift & 15) == 0) return false;
  if (generation_of(old) != generation_of(now)) return space == kGlobal && !known_between_blocks(old);
  u32 a = thread_of(old), b = thread_of(now);
  if (a == b) return false;
  if (a / kLanes == b / kLanes && syncs_of(old) < syncs_of(now)) return false;
  return arrivals_of(old) >= self->warp->known[a / kLanes];
}

// note_write and note_read record an access and return an earlier one that
// conflicts with it, or 0.
template <Space space>
inline Stamp note_write(Cell& c, Stamp now) {
  Stamp bad = 0;
  if (c.write != now) {
    if (unordered<space>(c.write, now)) bad = c.write;
    for (Stamp r : c.reads) {
      if (unordered<space>(r, now)) bad = r;
    }
    c.write = now;
  }
  c.reads[0] = c.reads[1] = 0;
  return bad;
}

template <Space space>
inline Stamp note_read(Cell& c, Stamp now) {
  if (c.reads[0] == now || c.reads[1] == now) return 0;
  Stamp bad = unordered<space>(c.write, now) ? c.write : 0;
  // Of readers, keep the first of those that nothing has been ordered after.
  int place = c.reads[0] == 0 || !unordered<space>(c.reads[0], now) ? 0 : 1;
  c.reads[place] = now;
  return bad;
}

// Knowledge says what is known of other blocks: for each block of the launch, by its
// number, a bound. Missing ones are 0: nothing is known.
typedef std::vector<Stamp> Knowledge;

// BlockRace is what a block's threads have in common.
struct BlockRace {
  u64 released = 0;     // earlier generations were fenced before a barrier
  bool fenced = false;  // by some thread in this generation
  Knowledge known;      // to all threads
  Knowledge pending;    // will be, once the thread fences
  bool threads_know = false;  // some thread's own knowledge is not empty
};

// A machine's events that order accesses, for race.cc to note.
struct Block;
void race_start_launch();
void race_start_block(Block* b);
void race_end_block(Block* b);
void race_block_barrier(Block* b);  // all threads of b have arrived
void race_warp_sync(Warp* w);
void race_fence();
void race_atomic(const u32* p);
void race_acquire(const u32* p);
void race_release(const u32* p);

// Knowledge that a barrier of part of a block carries from those that arrive to
// those that wait.
struct BarrierKnowledge {
  u64 generation = 0;
  u32 known[kLanes] = {};
};
void race_arrive(BarrierKnowledge* k);                      // self arrives
void race_pass(const BarrierKnowledge& k, Thread* waiting);  // waiting goes on

}  // namespace emu
