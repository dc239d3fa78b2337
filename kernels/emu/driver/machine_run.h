// machine_run.h: the part of the emulator that only the driver sees.
#pragma once

#include <string>
#include <vector>

#include "../machine.h"

namespace emu {

// Options say how the emulator chooses where a GPU may do one thing or another.
struct Options {
  enum Landing { kLate, kAtOnce, kRandomly };
  int landing = kLate;  // of asynchronous copies
  u32 seed = 0;  // 0: threads run in order; else in random order
  int conflicts_fail = 0;  // bank conflicts of ldmatrix
};

struct Launch {
  Kernel* kernel;
  u32 grid[3];
  u32 shared;  // bytes of dynamic shared memory
  void** arguments;
};

// run executes a launch. It returns the empty string, or what went wrong.
std::string run(const Launch& launch, const Options& options);

// find_kernel returns a registered entry point or nullptr.
Kernel* find_kernel(const char* name);

// readable reports whether all of n bytes at p are device memory that is allocated.
// The driver provides it.
bool device_memory(const void* p, size_t n);

// What the parts of a run ask of each other.
const Options& options();
u32 random_number();
void wake(Thread* t);
void suspend();  // returns when another thread has woken self
void perform(Warp& w);  // the instruction in which w's lanes have met
bool lands_now();
void land_all_of(u32 groups_left);

// Copies are the asynchronous copies that a thread has started and that have not
// landed.
struct Copy {
  u32 dst, size, bytes;
  const void* src;
};
struct Copies {
  std::vector<Copy> open;                 // not yet committed
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  u32 uncommitted = 0;                    // copies since the last commit, landed or not
};

}  // namespace emu
