// fiber.cc: see fiber.h. A switch saves what the ABI lets a function expect to
// find again: about a dozen registers, no signal mask and hence no system call.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

namespace emu {

#if defined(__x86_64__)

asm(R"(
.text
.globl emu_switch_stack
.hidden emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch_stack, . - emu_switch_stack
)");

void* prepare_stack(void* top, void (*entry)()) {
  uint64_t* p = (uint64_t*)top;
  *--p = 0;  // where entry finds its return address; keeps the stack aligned as after a call
  *--p = (uint64_t)entry;
  for (int i = 0; i < 6; i++) *--p = 0;
  return p;
}

#elif defined(__aarch64__)

asm(R"(
.text
.globl emu_switch_stack
.hidden emu_switch_stack
.type emu_switch_stack, %function
emu_switch_stack:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emu_switch_stack, . - emu_switch_stack
)");

void* prepare_stack(void* top, void (*entry)()) {
  uint64_t* p = (uint64_t*)top - 20;
  for (int i = 0; i < 20; i++) p[i] = 0;
  p[11] = (uint64_t)entry;  // x30
  return p;
}

#else
#error "the emulator's fibers know x86-64 and arm64"
#endif

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_start_switch_fiber(void** fake, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* fake, const void** bottom, size_t* size);

void SwitchNote::leaving(const SwitchNote& to, bool for_ever) {
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, to.bottom, to.size);
}
void SwitchNote::arrived(SwitchNote* from) {
  const void* b;
  size_t s;
  __sanitizer_finish_switch_fiber(fake, &b, &s);
  if (from != nullptr) {
    from->bottom = b;
    from->size = s;
  }
}
#else
void SwitchNote::leaving(const SwitchNote&, bool) {}
void SwitchNote::arrived(SwitchNote*) {}
#endif

const char* stacks_begin;
size_t stacks_size;

void* Stacks::top(size_t i) {
  if (memory_ == nullptr) {
    // Address space alone; pages come when they are touched.
    memory_ = (char*)mmap(nullptr, kMost * kSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) abort();
    stacks_begin = memory_;
    stacks_size = kMost * kSize;
  }
  if (i >= kMost) abort();
  const size_t page = 4096 * (size_t)4;  // a multiple of every page size in use
  for (; ready_ <= i; ready_++) {
    if (mprotect(memory_ + ready_ * kSize + page, kSize - page, PROT_READ | PROT_WRITE) != 0) abort();
  }
  return memory_ + (i + 1) * kSize;
}

void Stacks::forget() {
  if (memory_ != nullptr) munmap(memory_, kMost * kSize);
  memory_ = nullptr;
  ready_ = stacks_size = 0;
}

Stacks::~Stacks() { forget(); }

}  // namespace emu
