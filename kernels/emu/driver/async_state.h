// async_state.h: what sm_90a does beside a block's threads, between async.cc (copies,
// barriers, proxies) and wgmma.cc (products, registers).
#pragma once

#include <deque>
#include <map>

#include "../async.h"
#include "async.h"
#include "tensor_map.h"

namespace emu {

constexpr u32 kRow = 128, kAtom = 1024;  // bytes of the 128-byte swizzle

// swizzled gives where the byte of a tile lies that has address a without swizzle.
inline u32 swizzled(u32 a) { return a ^ (a / kRow % 8 << 4); }

struct Mbarrier {
  u32 count = 0, pending = 0;
  int64_t tx = 0;
  u32 phase = 0;
  bool fenced = false;
  u32 initialised_by = 0;
  BarrierKnowledge arriving, completed;  // of the phase that runs, and of the one before
  std::vector<Thread*> waiting;
};

// Copy of a box that has been started and has not landed.
struct BoxCopy {
  EncodedMap map;
  int x, y;
  u32 dst, bar;
  u32 bytes() const { return map.box_columns * map.box_rows * 2; }
};

// Tile is an operand of wgmma in shared memory.
struct Tile {
  u32 start, leading, stride;
  bool transposed;
  u32 extent;  // along M or N

  // chunk gives the address of the 16 bytes that start with value (mn, k).
  u32 chunk(u32 mn, u32 k) const {
    u32 a = transposed ? start + mn / 64 * leading + k / 8 * stride + k % 8 * kRow + mn % 64 * 2
                       : start + mn / 8 * stride + mn % 8 * kRow + k * 2;
    return swizzled(a);
  }
  // atoms calls f with the address of each atom of 1024 bytes that the tile has part in.
  template <typename F>
  void atoms(F f) const {
    if (transposed) {
      for (u32 mn = 0; mn < extent; mn += 64) {
        for (u32 k = 0; k < 16; k += 8) f(start + mn / 64 * leading + k / 8 * stride);
      }
    } else {
      for (u32 mn = 0; mn < extent; mn += 8) f(start / kAtom * kAtom + mn / 8 * stride);
    }
  }
};

// Accumulators is one array of a warp: D's rows, in its lanes' registers.
struct Accumulators {
  float* lanes[kLanes];
  u32 registers = 0;
  std::vector<float> values;  // while wgmmas own them: lane after lane
  bool owned = false;         // by wgmmas that have not been waited for
  u64 returned = 0;           // the warp's number of fences when a wait gave them back
};

struct Product {
  Tile a, b;
  u32 n;
  Accumulators* d;
};

// Issued is what the warps of a warpgroup have to agree in.
struct Issued {
  u64 a, b;
  u32 detail;
  bool operator==(const Issued& o) const { return a == o.a && b == o.b && detail == o.detail; }
};

struct WarpAsync {
  std::deque<Product> products;  // not waited for, in order
  u32 done = 0;                  // of them, by the tensor core
  std::deque<u32> groups;        // sizes, oldest first
  u32 open = 0;                  // products since the last commit
  u64 fences = 0;
  std::map<float*, Accumulators> accumulators;  // by the first lane's
  u32 issued = 0;       // products ever
  u32 registers = 0;    // a thread
  u32 moves = 0;        // of registers
};

struct Async {
  bool used = false;
  std::map<u32, Mbarrier> barriers;
  std::vector<BoxCopy> copies;
  std::vector<WarpAsync> warps;
  std::vector<std::vector<Issued>> warpgroups;
  Block* block = nullptr;
  std::vector<uint16_t> writer;             // of each 4 bytes of shared memory, +1, until a proxy fence
  std::vector<u32> reading;                 // of each atom: parts in wgmmas that were not waited for
  std::vector<std::vector<u32>> unfenced;   // of each thread: which 4 bytes
  u32 capped = 0;                           // registers of a thread at the launch
  u32 free_registers = 0;                   // released, of all threads together
  std::vector<Thread*> claiming;
};

extern Async async;

// multiply does the next product of a warp.
void multiply(u32 warp);

// check_not_read fails if a wgmma that was not waited for reads one of bytes at an address.
void check_not_read(u32 address, u32 bytes, const char* what);

}  // namespace emu
