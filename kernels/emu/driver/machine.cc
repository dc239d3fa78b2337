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

#include "async.h"
#include "fiber.h"
#include "machine_run.h"

namespace emu {

Thread* self;

namespace {

struct Machine {
  Options options;
  Stacks stacks;
  u32 state = 1;  // of the random numbers
  std::string failure;
  void* scheduler = nullptr;  // its stack, while a thread runs
  SwitchNote scheduler_note;
  bool from_scheduler = false;  // it has just started a thread
  std::vector<Thread*> ready;
  std::vector<std::unique_ptr<Block>> blocks;  // slots for resident ones
  u32 alive = 0;                               // threads
  u64 idle = 0;  // pauses since anything happened
  const Launch* launch = nullptr;
};

Machine machine;
Kernel* kernels;

Thread* next_thread() {
  std::vector<Thread*>& r = machine.ready;
  async_step(false);
  while (r.empty() && async_step(true)) {
  }
  if (r.empty()) return nullptr;
  if (machine.options.seed != 0) std::swap(r.back(), r[random_number() % r.size()]);
  Thread* t = r.back();
  r.pop_back();
  return t;
}

SwitchNote& note_of(Thread* t) { return t->block->notes[t->index]; }

void to_scheduler(bool for_ever) {
  Thread* from = self;
  self = nullptr;
  note_of(from).leaving(machine.scheduler_note, for_ever);
  emu_switch_stack(&from->stack_pointer, machine.scheduler);
  note_of(from).arrived(nullptr);
}

// leave goes from the running thread to the next, or to the scheduler when none
// can run.
void leave(bool for_ever = false) {
  Thread* from = self;
  Thread* to = next_thread();
  if (to == from) return;
  if (to == nullptr) return to_scheduler(for_ever);
  self = to;
  note_of(from).leaving(note_of(to), for_ever);
  emu_switch_stack(&from->stack_pointer, to->stack_pointer);
  note_of(from).arrived(nullptr);
}

void finish_thread() {
  finish_copies();
  async_finish_thread();
  progress();
  self->done = true;
  machine.alive--;
  if (--self->block->alive == 0) {
    async_finish_block();
    race_end_block(self->block);
    to_scheduler(true);  // which puts another block in its place
  } else {
    leave(true);
  }
  __builtin_trap();  // nothing wakes a thread that has ended
}

void thread_entry() {
  note_of(self).arrived(machine.from_scheduler ? &machine.scheduler_note : nullptr);
  machine.from_scheduler = false;
  const Launch& l = *machine.launch;
  l.kernel->call(l.kernel->function, l.arguments);
  finish_thread();
}

// start_block makes the launch's block of a number resident in a slot.
void start_block(u32 slot, u32 number) {
  Machine& m = machine;
  const Launch& l = *m.launch;
  Block& b = *m.blocks[slot];
  b.number = number;
  b.index[0] = number % l.grid[0];
  b.index[1] = number / l.grid[0] % l.grid[1];
  b.index[2] = number / l.grid[0] / l.grid[1];
  b.kernel = l.kernel;
  b.threads = b.alive = l.kernel->threads;
  b.base = l.kernel->base;
  b.size = l.shared;
  b.shared.assign(l.shared, 0xff);  // a NaN in bf16 and in fp32
  b.cells.resize((l.shared + 3) / 4);  // of earlier generations: they conflict with nothing
  b.pending.assign((l.shared + 3) / 4, 0);
  b.all_threads.assign(b.threads, Thread{});
  b.all_warps.assign(b.threads / kLanes, Warp{});
  b.copies.resize(b.threads);
  b.notes.resize(b.threads);
  for (Copies& c : b.copies) {
    c.open.clear();
    c.groups.clear();
  }
  b.thread = b.all_threads.data();
  b.warp = b.all_warps.data();
  for (NamedBarrier& x : b.barriers) x = NamedBarrier{};
  m.alive += b.threads;
  for (u32 i = b.threads; i-- > 0;) {
    Thread& t = b.thread[i];
    t.index = i;
    t.lane = i % kLanes;
    for (int d = 0; d < 3; d++) {
      t.block_index[d] = b.index[d];
      t.grid[d] = l.grid[d];
    }
    t.warp = &b.warp[i / kLanes];
    t.block = &b;
    t.copies = &b.copies[i];
    t.warp->threads[t.lane] = &t;
    size_t stack = (size_t)slot * b.threads + i;
    t.stack_pointer = prepare_stack(m.stacks.top(stack), thread_entry);
    b.notes[i] = m.stacks.note(stack);
    m.ready.push_back(&t);
  }
  race_start_block(&b);
  async_start_block(&b);
}

std::string place(const Block& b, u32 thread) {
  char text[200];
  std::snprintf(text, sizeof text, "kernel %s, block (%u,%u,%u), thread %u: ", b.kernel->name, b.index[0], b.index[1], b.index[2], thread);
  return text;
}

// deadlock describes threads of which none can run.
std::string deadlock() {
  for (const auto& b : machine.blocks) {
    for (const Thread& t : b->all_threads) {
      if (b->alive == 0 || t.done) continue;
      std::string who = place(*b, t.index) + "deadlock: ";
      std::string waiting = async_waiting(&t);
      if (!waiting.empty()) return who + waiting;
      if (t.warp->arrived > 0) {
        return who + std::to_string(t.warp->arrived) + " lanes of warp " + std::to_string(t.index / kLanes) +
               " wait in a warp-wide instruction for the others";
      }
      for (u32 i = 0; i < 16; i++) {
        const NamedBarrier& x = b->barriers[i];
        for (const Thread* w : x.waiting) {
          if (w != &t) continue;
          return who + "barrier " + std::to_string(i) + " waits for " + std::to_string(x.expected) + " threads and only " +
                 std::to_string(x.arrived) + " come";
        }
      }
      return who + "it waits for ever";
    }
  }
  return "deadlock";
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

const void* argument(u32 i) { return machine.launch->arguments[i]; }

u32 random_number() {  // xorshift
  u32& s = machine.state;
  s ^= s << 13;
  s ^= s >> 17;
  return s ^= s << 5;
}

void fail(const char* format, ...) {
  char what[512];
  va_list list;
  va_start(list, format);
  std::vsnprintf(what, sizeof what, format, list);
  va_end(list);
  machine.failure = place(*self->block, self->index) + what;
  // The other threads are left as they are: nothing of theirs needs an end.
  to_scheduler(true);
  __builtin_trap();
}

void wake(Thread* t) {
  machine.ready.push_back(t);
  progress();
}

void suspend() { leave(); }

void progress() { machine.idle = 0; }

void pause() {
  // Every thread has looked a thousand times at what it waits for.
  if (++machine.idle > 1000 * (u64)machine.alive) fail("waits in a loop for memory that no thread will write");
  // To the bottom: all others that can run do so first.
  machine.ready.insert(machine.ready.begin(), self);
  leave();
}

void forget_stacks() { machine.stacks.forget(); }

std::string run(const Launch& l, const Options& options) {
  Machine& m = machine;
  m.options = options;
  m.state = options.seed * 2654435761u | 1;
  m.failure.clear();
  m.launch = &l;
  m.ready.clear();
  m.alive = 0;
  m.idle = 0;
  u64 blocks = (u64)l.grid[0] * l.grid[1] * l.grid[2], next = 0;
  if (blocks >= (u64)1 << 30) return "a grid too large for the emulator";
  // What sm_90a adds keeps its state for one block.
  u64 slots = l.kernel->base == kBaseSm90a ? 1 : std::min<u64>(blocks, options.resident);
  m.blocks.resize(slots);
  race_start_launch();
  for (auto& b : m.blocks) {
    if (b == nullptr) b = std::make_unique<Block>();
    b->alive = 0;
  }
  for (;;) {
    for (u32 i = 0; i < slots && next < blocks; i++) {
      if (m.blocks[i]->alive == 0) start_block(i, (u32)next++);
    }
    self = next_thread();
    if (self == nullptr) break;
    m.from_scheduler = true;
    m.scheduler_note.leaving(note_of(self), false);
    emu_switch_stack(&m.scheduler, self->stack_pointer);
    m.scheduler_note.arrived(nullptr);
    if (!m.failure.empty()) return m.failure;
  }
  return m.alive > 0 ? deadlock() : std::string();
}

// --- Barriers ---------------------------------------------------------------

void named_barrier(u32 id, u32 threads, bool wait) {
  Block* block = self->block;
  if (id > 15) fail("barrier %u: there are 16", id);
  if (threads == 0 || threads % kLanes != 0 || threads > block->threads) {
    fail("barrier %u of %u threads: not a multiple of 32 within the block's %u", id, threads, block->threads);
  }
  NamedBarrier& b = block->barriers[id];
  bool whole = id == 0 && wait && threads == block->threads;
  if (b.arrived == 0) b.expected = threads;
  if (b.expected != threads) fail("barrier %u of %u threads is met by a thread that counts %u", id, b.expected, threads);
  if (!whole) race_arrive(&b.knowledge);
  b.arrived++;
  if (wait) b.waiting.push_back(self);
  if (b.arrived < threads) {
    if (wait) suspend();
    return;
  }
  b.arrived = 0;
  std::vector<Thread*> waiting;
  waiting.swap(b.waiting);
  if (waiting.size() == block->threads) {
    race_block_barrier(block);
  } else {
    for (Thread* t : waiting) race_pass(b.knowledge, t);
    b.knowledge = BarrierKnowledge{};
  }
  for (size_t i = waiting.size(); i-- > 0;) {
    if (waiting[i] != self) wake(waiting[i]);
  }
  waiting.clear();
  b.waiting.swap(waiting);  // keeps its memory
}

void block_barrier() { named_barrier(0, self->block->threads, true); }

// --- Global memory ----------------------------------------------------------

// check_word fails unless p is a word of device memory.
static void check_word(const u32* p) {
  if ((u64)p % 4 != 0) fail("an atomic access at %p, which is no multiple of 4", (const void*)p);
  if (!device_memory(p, 4)) fail("an atomic access at %p, outside of device memory", (const void*)p);
}

u32 atomic_add(u32* p, u32 v) {
  check_word(p);
  race_atomic(p);
  progress();
  u32 old = *p;
  *p = old + v;
  return old;
}

u32 load_acquire(const u32* p) {
  check_word(p);
  pause();  // it may be a wait for a thread that has not yet run
  race_acquire(p);
  return *p;
}

void store_release(u32* p, u32 v) {
  check_word(p);
  race_release(p);
  progress();
  *p = v;
}

void full_fence() { race_fence(); }

}  // namespace emu
