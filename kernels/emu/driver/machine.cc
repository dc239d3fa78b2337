// machine.cc: runs a launch: blocks in order, the threads of a block as fibers.
//
// A thread runs until it has to wait. It then goes straight to the next one that
// can run: a switch costs some nanoseconds, and no thread is looked at in vain.
// Those that can run lie on a stack, so that a warp goes on as far as it can,
// with its data in the cache, before another one does: the order farthest from
// the lockstep that wrong kernels hope for.
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>

#include "fiber.h"
#include "machine_run.h"

namespace emu {

Thread* self;

namespace {

struct NamedBarrier {
  u32 expected = 0, arrived = 0;
  std::vector<Thread*> waiting;
};

struct Machine {
  Options options;
  Stacks stacks;
  u32 state = 1;  // of the random numbers
  std::string failure;
  void* scheduler = nullptr;  // its stack, while a thread runs
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Copies> copies;
  std::vector<unsigned char> shared;
  std::vector<Thread*> ready;
  Block block;
  u32 alive = 0;
  NamedBarrier barriers[16];
  void** arguments = nullptr;
};

Machine machine;
Kernel* kernels;

Thread* next_thread() {
  std::vector<Thread*>& r = machine.ready;
  if (r.empty()) return nullptr;
  if (machine.options.seed != 0) std::swap(r.back(), r[random_number() % r.size()]);
  Thread* t = r.back();
  r.pop_back();
  return t;
}

// leave goes from the running thread to the next, or to the scheduler when none
// can run.
void leave() {
  Thread* from = self;
  Thread* to = next_thread();
  if (to == from) return;
  self = to;
  emu_switch_stack(&from->stack_pointer, to != nullptr ? to->stack_pointer : machine.scheduler);
}

void finish_thread() {
  Copies& c = *self->copies;
  if (c.uncommitted != 0 || !c.open.empty()) fail("the thread ends with asynchronous copies that were not committed");
  for (const auto& group : c.groups) {
    if (!group.empty()) fail("the thread ends with asynchronous copies that were not waited for");
  }
  self->done = true;
  machine.alive--;
  leave();
  __builtin_trap();  // nothing wakes a thread that has ended
}

void thread_entry() {
  Kernel* k = machine.block.kernel;
  k->call(k->function, machine.arguments);
  finish_thread();
}

void start_block(u32 threads) {
  Machine& m = machine;
  std::fill(m.shared.begin(), m.shared.end(), 0xff);  // a NaN in bf16 and in fp32
  m.threads.assign(threads, Thread{});
  m.warps.assign((threads + kLanes - 1) / kLanes, Warp{});
  m.copies.assign(threads, Copies{});
  for (NamedBarrier& b : m.barriers) b = NamedBarrier{};
  m.ready.clear();
  m.alive = threads;
  for (u32 i = threads; i-- > 0;) {
    Thread& t = m.threads[i];
    t.index = i;
    t.lane = i % kLanes;
    t.warp = &m.warps[i / kLanes];
    t.block = &m.block;
    t.copies = &m.copies[i];
    t.warp->threads[t.lane] = &t;
    t.stack_pointer = prepare_stack(m.stacks.top(i), thread_entry);
    m.ready.push_back(&t);
  }
}

// deadlock describes threads of which none can run.
void deadlock() {
  Machine& m = machine;
  for (Thread& t : m.threads) {
    if (t.done) continue;
    self = &t;
    char where[160];
    if (t.warp->arrived > 0) {
      std::snprintf(where, sizeof where, "%u lanes of warp %u wait in a warp-wide instruction for the others", t.warp->arrived, t.index / kLanes);
    } else {
      std::snprintf(where, sizeof where, "%u of %u threads wait at a barrier that the others do not reach", m.alive, m.block.threads);
    }
    const Block& b = m.block;
    char text[320];
    std::snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u), thread %u: deadlock: %s", b.kernel->name, b.index[0], b.index[1],
                  b.index[2], t.index, where);
    m.failure = text;
    return;
  }
}

void run_block() {
  Machine& m = machine;
  start_block(m.block.threads);
  self = next_thread();
  emu_switch_stack(&m.scheduler, self->stack_pointer);
  if (m.failure.empty() && m.alive > 0) deadlock();
  self = nullptr;
}

}  // namespace

void add_kernel(Kernel* k) {
  k->next = kernels;
  kernels = k;
}

Kernel* find_kernel(const char* name) {
  for (Kernel* k = kernels; k != nullptr; k = k->next) {
    if (std::strcmp(k->name, name) == 0) return k;
  }
  return nullptr;
}

const Options& options() { return machine.options; }

u32 random_number() {  // xorshift
  u32& s = machine.state;
  s ^= s << 13;
  s ^= s >> 17;
  return s ^= s << 5;
}

void fail(const char* format, ...) {
  char what[512], text[768];
  va_list list;
  va_start(list, format);
  std::vsnprintf(what, sizeof what, format, list);
  va_end(list);
  const Block& b = *self->block;
  std::snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u), thread %u: %s", b.kernel->name, b.index[0], b.index[1],
                b.index[2], self->index, what);
  machine.failure = text;
  // The block's other threads are left as they are: nothing of theirs needs an end.
  void* unused;
  emu_switch_stack(&unused, machine.scheduler);
  __builtin_trap();
}

void bad_shared(u32 address, u32 bytes) {
  Block* b = self->block;
  if (address % bytes != 0) fail("shared address %u is not a multiple of %u", address, bytes);
  fail("access of %u bytes at %lld of a shared memory of %u", bytes, (long long)address - b->base, b->size);
}

void wake(Thread* t) { machine.ready.push_back(t); }
void suspend() { leave(); }

void pause() {
  // To the bottom: all others that can run do so first.
  machine.ready.insert(machine.ready.begin(), self);
  leave();
}

std::string run(const Launch& l, const Options& options) {
  Machine& m = machine;
  m.options = options;
  m.state = options.seed * 2654435761u | 1;
  m.failure.clear();
  m.arguments = l.arguments;
  m.shared.resize(l.shared);
  Block& b = m.block;
  b.threads = l.kernel->threads;
  b.base = l.kernel->base;
  b.kernel = l.kernel;
  b.shared = m.shared.data();
  b.size = l.shared;
  for (int i = 0; i < 3; i++) b.grid[i] = l.grid[i];
  for (b.index[2] = 0; b.index[2] < b.grid[2]; b.index[2]++) {
    for (b.index[1] = 0; b.index[1] < b.grid[1]; b.index[1]++) {
      for (b.index[0] = 0; b.index[0] < b.grid[0]; b.index[0]++) {
        run_block();
        if (!m.failure.empty()) return m.failure;
      }
    }
  }
  return std::string();
}

// --- Barriers ---------------------------------------------------------------

void named_barrier(u32 id, u32 threads, bool wait) {
  if (id > 15) fail("barrier %u: there are 16", id);
  if (threads == 0 || threads % kLanes != 0 || threads > self->block->threads) {
    fail("barrier %u of %u threads: not a multiple of 32 within the block's %u", id, threads, self->block->threads);
  }
  NamedBarrier& b = machine.barriers[id];
  if (b.arrived == 0) b.expected = threads;
  if (b.expected != threads) fail("barrier %u of %u threads is met by a thread that counts %u", id, b.expected, threads);
  if (++b.arrived == threads) {
    b.arrived = 0;
    for (size_t i = b.waiting.size(); i-- > 0;) wake(b.waiting[i]);
    b.waiting.clear();
    return;
  }
  if (!wait) return;
  b.waiting.push_back(self);
  suspend();
}

void block_barrier() { named_barrier(0, self->block->threads, true); }

// --- Asynchronous copies ----------------------------------------------------

bool lands_now() {
  return machine.options.landing == Options::kAtOnce ||
         (machine.options.landing == Options::kRandomly && (random_number() >> 16 & 1));
}

static void land(const Copy& c) {
  unsigned char* d = shared_at(c.dst, c.size);
  std::memset(d, 0, c.size);
  std::memcpy(d, c.src, c.bytes);
}

void copy_async(u32 dst, const void* src, u32 bytes, u32 size) {
  if (bytes > size || (size == 4 && bytes % 4 != 0)) fail("an asynchronous copy of %u of %u bytes", bytes, size);
  if ((u64)src % size != 0) fail("an asynchronous copy from %p, which is no multiple of %u", src, size);
  if (bytes > 0 && !device_memory(src, bytes)) fail("an asynchronous copy of %u bytes from %p, outside of device memory", bytes, src);
  shared_at(dst, size);
  Copy c{dst, size, bytes, src};
  self->copies->uncommitted++;
  if (lands_now()) {
    land(c);
  } else {
    self->copies->open.push_back(c);
  }
}

void copy_commit() {
  Copies& c = *self->copies;
  c.groups.push_back(std::move(c.open));
  c.open.clear();
  c.uncommitted = 0;
}

void copy_wait(u32 groups) {
  Copies& c = *self->copies;
  while (c.groups.size() > groups) {
    for (const Copy& x : c.groups.front()) land(x);
    c.groups.erase(c.groups.begin());
  }
}

// --- Global memory ----------------------------------------------------------

u32 atomic_add(u32* p, u32 v) {
  u32 old = *p;
  *p = old + v;
  return old;
}
u32 load_acquire(const u32* p) {
  pause();  // it may be a wait for a thread that has not yet run
  return *(const volatile u32*)p;
}
void store_release(u32* p, u32 v) { *(volatile u32*)p = v; }
void full_fence() {}

}  // namespace emu
