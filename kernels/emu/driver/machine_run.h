// machine_run.h: the part of the emulator that only the driver sees.
#pragma once

#include <string>
#include <vector>

#include "../machine.h"
#include "fiber.h"
#include "race.h"

namespace emu {

// Options say how the emulator chooses where a GPU may do one thing or another.
struct Options {
  enum Landing { kLate, kAtOnce, kRandomly };
  int landing = kLate;     // of asynchronous copies
  u32 seed = 0;            // 0: threads run in order; else in random order
  u32 resident = 1;        // blocks that run at once
  int conflicts_fail = 0;  // bank conflicts of ldmatrix
  int mma_cuts = 0;        // mma loses what a tensor core may lose
};

struct Launch {
  Kernel* kernel;
  u32 grid[3];
  u32 shared;  // bytes of dynamic shared memory
  void** arguments;
};

// run executes a launch. It returns the empty string, or what went wrong.
std::string run(const Launch& launch, const Options& options);

// forget_stacks gives back what launches keep of the process's address space.
void forget_stacks();

// find_kernel returns a registered entry point or nullptr.
Kernel* find_kernel(const char* name);

// Copies are the asynchronous copies of a thread that it has not waited for.
struct Copy {
  u32 dst, size, bytes;
  const void* src;
  bool landed;
};
struct Copies {
  std::vector<Copy> open;                 // not yet committed
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
};

struct NamedBarrier {
  u32 expected = 0, arrived = 0;
  std::vector<Thread*> waiting;
  BarrierKnowledge knowledge;
};

// Block is a block that is resident.
struct Block {
  u32 number;  // in the launch
  u32 index[3];
  u32 threads, alive;
  Kernel* kernel;
  u32 base, size;  // of shared memory: the address of its first byte, bytes
  std::vector<unsigned char> shared;
  std::vector<Cell> cells;        // of each 4 bytes of it
  std::vector<uint16_t> pending;  // of each 4 bytes: asynchronous copies that will write them
  std::vector<Thread> all_threads;
  std::vector<Warp> all_warps;
  std::vector<Copies> copies;
  std::vector<SwitchNote> notes;
  Thread* thread;
  Warp* warp;
  NamedBarrier barriers[16];
  BlockRace race;
};

// What the parts of a run ask of each other.
const Options& options();
const void* argument(u32 i);  // of the launch
u32 random_number();
void wake(Thread* t);
void suspend();         // returns when another thread has woken self
void progress();        // something happened that a waiting loop may wait for
void perform(Warp& w);  // the instruction in which w's lanes have met
void finish_copies();   // fails unless self has waited for its copies

// device_memory reports whether all of n bytes at p are allocated device memory.
bool device_memory(const void* p, size_t n);

// read_global and write_global check and note an access of self to n bytes.
void read_global(const void* p, size_t n);
void write_global(const void* p, size_t n);

// shared_at returns where bytes at a shared address lie, a multiple of bytes.
unsigned char* shared_at(u32 address, u32 bytes);

// read_shared and write_shared check and note an access of self.
void read_shared(u32 address, u32 bytes);
void write_shared(u32 address, u32 bytes);

// expect_shared says that something asynchronous will write bytes at a shared
// address: until it is settled, no thread may read or write there.
void expect_shared(u32 address, u32 bytes);
void settle_shared(u32 address, u32 bytes);

}  // namespace emu
