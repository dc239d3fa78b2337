// emulator.h: the host implementation of device.cuh, for one block at a time.
//
// A block's threads are fibers on one CPU thread, so a run is deterministic for
// a given Options. It is built to disagree with wrong kernels:
//
//   - shared memory starts as NaN (bf16 and fp32 alike);
//   - an asynchronous copy lands as late as a wait permits, or at once, or at a
//     random moment between: a missing wait and a missing barrier each fail in
//     one of the modes;
//   - threads are resumed in random order between barriers;
//   - reads of global memory by copies are checked against the registered
//     regions, shared addresses against the block's size, both for alignment;
//   - lanes that meet in different warp-wide instructions, and barriers that not
//     all threads reach, end the program with a message;
//   - bank conflicts of ldmatrix are counted.
//
// It cannot show speed, nor orderings weaker than those of the CPU, and plain
// loads and stores through pointers are the compiler's own (build with
// -fsanitize=address to check them).
#pragma once

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define DEVICE inline
#define KERNEL(threads) extern "C"

namespace updraft {
namespace emu {

enum Landing { kLate = 0, kAtOnce = 1, kRandom = 2 };

struct Options {
  Landing landing = kLate;
  u32 seed = 0;  // 0 resumes threads in order
};

struct Stats {
  u64 ldmatrix_conflicts = 0;  // 8-row phases in which two rows share a bank
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulator: %s\n", what);
  std::exit(3);
}

struct Copy {
  u32 dst;
  const void* src;
  u32 bytes;
};

struct Thread {
  ucontext_t context;
  u32 index = 0;
  bool done = false;
  std::vector<Copy> open;                   // copies not yet committed
  std::vector<std::vector<Copy>> groups;    // committed, oldest first
};

enum Op { kLdmatrix = 1, kMma = 2 };

struct Slot {
  Op op;
  u32 address;
  u32 a[4], b[2];
};

// Warp lets 32 lanes exchange operands. Slots are double-buffered by generation:
// a lane can write the slots of generation g+2 only after all lanes have arrived
// at g+1, hence have read those of g.
struct Warp {
  u32 arrived = 0;
  u64 generation = 0;
  Slot slots[2][32];
};

struct Region {
  const char* begin;
  const char* end;
};

class Machine {
 public:
  explicit Machine(Options o) : options(o), state(o.seed * 2654435761u | 1) {}

  // run calls kernel once for each thread of each block, blocks in order.
  template <typename Kernel>
  void run(u32 grid, u32 block, u32 shared_bytes, const Kernel& kernel) {
    body = [](const void* k) { (*(const Kernel*)k)(); };
    body_argument = &kernel;
    stacks.resize((size_t)block * kStack);
    for (u32 b = 0; b < grid; b++) run_block(b, block, shared_bytes);
  }

  void yield() { swapcontext(&current->context, &scheduler); }

  void barrier() {
    u64 generation = barrier_generation;
    progress = true;
    if (++barrier_arrived == threads.size()) {
      barrier_arrived = 0;
      barrier_generation++;
      return;
    }
    while (barrier_generation == generation) yield();
  }

  // meet publishes a lane's operands and returns all lanes' once they are there.
  const Slot* meet(const Slot& s) {
    Warp& w = warps[current->index / 32];
    u64 g = w.generation;
    w.slots[g & 1][current->index % 32] = s;
    progress = true;
    if (++w.arrived == 32) {
      w.arrived = 0;
      w.generation++;
    } else {
      while (w.generation == g) yield();
    }
    const Slot* all = w.slots[g & 1];
    for (int i = 0; i < 32; i++) {
      if (all[i].op != s.op) fail("lanes of a warp meet in different instructions");
    }
    return all;
  }

  char* at(u32 address, u32 bytes) {
    if (address % 16 != 0) fail("shared address not 16-byte aligned");
    if (address < kBase || (u64)address + bytes > kBase + shared.size()) fail("shared address out of range");
    return shared.data() + (address - kBase);
  }

  void check_read(const void* p, u32 bytes) {
    if ((u64)p % 16 != 0) fail("global address not 16-byte aligned");
    if (bytes == 0) return;
    for (const Region& r : regions) {
      if ((const char*)p >= r.begin && (const char*)p + bytes <= r.end) return;
    }
    fail("copy reads outside of every registered region");
  }

  void land(const Copy& c) {
    char* d = at(c.dst, 16);
    std::memset(d, 0, 16);
    std::memcpy(d, c.src, c.bytes);
  }

  bool lands_now() {
    return options.landing == kAtOnce || (options.landing == kRandom && (random() >> 16 & 1));
  }

  static constexpr u32 kBase = 1024;  // not zero, so that a forgotten base shows

  Options options;
  Stats stats;
  std::vector<Region> regions;
  Thread* current = nullptr;
  u32 block_index = 0;

 private:
  static void entry(unsigned low, unsigned high) {
    Machine* m = (Machine*)(((u64)high << 32) | low);
    m->body(m->body_argument);
    Thread* t = m->current;
    t->done = true;
    m->progress = true;
    m->yield();
  }

  void run_block(u32 b, u32 block, u32 shared_bytes) {
    block_index = b;
    shared.assign(shared_bytes, (char)0xff);  // a NaN in bf16 and in fp32
    warps.assign((block + 31) / 32, Warp{});
    barrier_arrived = 0;
    barrier_generation = 0;
    threads.clear();
    threads.resize(block);
    std::vector<u32> order(block);
    for (u32 i = 0; i < block; i++) {
      Thread& t = threads[i];
      t.index = i;
      getcontext(&t.context);
      t.context.uc_stack.ss_sp = stacks.data() + i * kStack;
      t.context.uc_stack.ss_size = kStack;
      t.context.uc_link = nullptr;
      makecontext(&t.context, (void (*)())entry, 2, (unsigned)(u64)this, (unsigned)((u64)this >> 32));
      order[i] = i;
    }
    for (u32 left = block; left > 0;) {
      if (options.seed != 0) {
        for (u32 i = block - 1; i > 0; i--) std::swap(order[i], order[random() % (i + 1)]);
      }
      progress = false;
      for (u32 i : order) {
        if (threads[i].done) continue;
        current = &threads[i];
        swapcontext(&scheduler, &current->context);
        if (current->done) left--;
      }
      if (!progress) fail("deadlock: a barrier or a warp-wide instruction is not reached by all threads");
    }
  }

  u32 random() {  // xorshift
    state ^= state << 13;
    state ^= state >> 17;
    return state ^= state << 5;
  }

  static constexpr size_t kStack = 64 << 10;

  void (*body)(const void*) = nullptr;
  const void* body_argument = nullptr;
  u32 state;
  std::vector<char> stacks;  // of all threads of a block
  ucontext_t scheduler;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<char> shared;
  u32 barrier_arrived = 0;
  u64 barrier_generation = 0;
  bool progress = false;
};

inline Machine* machine = nullptr;  // the one that is running

inline float half_of(u32 pair, int which) {
  u32 bits = (which ? pair >> 16 : pair & 0xffff) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

}  // namespace emu

DEVICE u32 thread_x() { return emu::machine->current->index; }
DEVICE u32 block_x() { return emu::machine->block_index; }
DEVICE void block_sync() { emu::machine->barrier(); }
DEVICE u32 shared_base() { return emu::Machine::kBase; }

DEVICE void cp_async16(u32 dst, const void* src, u32 bytes) {
  emu::Machine* m = emu::machine;
  if (bytes > 16) emu::fail("cp_async16 of more than 16 bytes");
  m->check_read(src, bytes);
  m->at(dst, 16);
  emu::Copy c{dst, src, bytes};
  if (m->lands_now()) {
    m->land(c);
  } else {
    m->current->open.push_back(c);
  }
}

DEVICE void cp_async_commit() {
  emu::Thread* t = emu::machine->current;
  t->groups.push_back(std::move(t->open));
  t->open.clear();
}

template <int N>
DEVICE void cp_async_wait() {
  emu::Thread* t = emu::machine->current;
  while (t->groups.size() > (size_t)N) {
    for (const emu::Copy& c : t->groups.front()) emu::machine->land(c);
    t->groups.erase(t->groups.begin());
  }
}

DEVICE void ldmatrix_x4(u32 (&r)[4], u32 addr) {
  emu::Machine* m = emu::machine;
  emu::Slot s{};
  s.op = emu::kLdmatrix;
  s.address = addr;
  const emu::Slot* all = m->meet(s);
  u32 lane = thread_x() % 32;
  for (u32 j = 0; j < 4; j++) {
    std::memcpy(&r[j], m->at(all[8 * j + lane / 4].address, 16) + lane % 4 * 4, 4);
    if (lane == 0) {
      u32 groups = 0;
      for (u32 i = 0; i < 8; i++) groups |= 1u << (all[8 * j + i].address / 16 % 8);
      if (groups != 0xff) m->stats.ldmatrix_conflicts++;
    }
  }
}

DEVICE void mma_bf16_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  emu::Slot s{};
  s.op = emu::kMma;
  std::memcpy(s.a, a, sizeof s.a);
  std::memcpy(s.b, b, sizeof s.b);
  const emu::Slot* all = emu::machine->meet(s);
  u32 lane = thread_x() % 32, g = lane / 4, t = lane % 4;
  for (u32 i = 0; i < 4; i++) {
    u32 high_row = i / 2, n = 2 * t + i % 2;
    double sum = d[i];
    for (u32 k = 0; k < 16; k++) {
      float x = emu::half_of(all[4 * g + k % 8 / 2].a[high_row + k / 8 * 2], k % 2);
      float y = emu::half_of(all[4 * n + k % 8 / 2].b[k / 8], k % 2);
      sum += (double)x * y;
    }
    d[i] = (float)sum;
  }
}

DEVICE u32 pack_bf16(float lo, float hi) {
  auto round = [](float f) -> u32 {
    if (f != f) return 0x7fff;
    u32 b;
    std::memcpy(&b, &f, 4);
    return (b + 0x7fff + (b >> 16 & 1)) >> 16;
  };
  return round(lo) | round(hi) << 16;
}

}  // namespace updraft
