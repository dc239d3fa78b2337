// fiber.h: stacks and the switch between them.
#pragma once

#include <cstddef>

namespace emu {

// A suspended fiber is its stack pointer; what it needs to go on lies there.
//
// switch_stack suspends the caller, whose stack pointer it stores at *from, and
// goes on with the fiber suspended at to.
extern "C" void emu_switch_stack(void** from, void* to);

// prepare_stack returns the stack pointer of a fiber that will start in entry,
// which must not return, on the stack that ends at top (16-byte aligned).
void* prepare_stack(void* top, void (*entry)());

// SwitchNote tells AddressSanitizer, where the library is built for it, of switches:
// each fiber has one. leaving is called before a switch to the stack of another, and
// arrived after the fiber has got control, the first time too.
struct SwitchNote {
  const void* bottom = nullptr;  // of the fiber's stack
  size_t size = 0;
  void* fake = nullptr;  // the sanitizer's

  void leaving(const SwitchNote& to, bool for_ever);
  void arrived(SwitchNote* from);  // whose stack is noted, unless from is null
};

// Stacks is a pool of stacks of one size with an unreadable page below each.
class Stacks {
 public:
  ~Stacks();
  // top returns the end of stack i, making the pool larger where needed.
  void* top(size_t i);
  // forget gives the address space back: a stack with its unreadable page is two of
  // the mappings of which a process has only so many, and one that tests many
  // defects has as many drivers. No fiber may be alive.
  void forget();
  // note returns what a SwitchNote says of stack i, which top has been called for.
  SwitchNote note(size_t i) const { return {memory_ + i * kSize, kSize, nullptr}; }

 private:
  static constexpr size_t kSize = 128 << 10;
  static constexpr size_t kMost = 8192;
  char* memory_ = nullptr;
  size_t ready_ = 0;
};

// The addresses of all stacks. There is one pool.
extern const char* stacks_begin;
extern size_t stacks_size;

inline bool on_stack(const void* p) { return (size_t)((const char*)p - stacks_begin) < stacks_size; }

}  // namespace emu
