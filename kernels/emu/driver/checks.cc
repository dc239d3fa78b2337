// checks.cc: what the compiler's instrumentation of the kernels calls: for every
// access to memory, -fsanitize=thread calls a function, and -fsanitize=alignment
// one for those that are misaligned. The sanitizers' own runtimes are not linked;
// these functions stand in their place.
//
// An access is to the thread's own stack, or to device memory, where it is checked
// for range and races; or a read of a constant table in the library.
#include <cstring>

#include "arena.h"
#include "machine_run.h"

extern "C" const char __ehdr_start[], _end[];  // of the library, by the linker

namespace emu {

namespace {

[[noreturn]] void report(const char* does, const void* p, Stamp other) {
  fail("race: it %s global memory at %p, which thread %u%s has used with nothing between that orders them", does, p, thread_of(other),
       generation_of(other) == generation_of(self->stamp) ? "" : " of another block, or before a fence,");
}

[[noreturn]] void outside(const char* does, const void* p, size_t n) {
  fail("it %s %zu bytes at %p, outside of device memory", does, n, p);
}

template <bool write>
inline void note(u64 p, size_t n) {
  Stamp now = self->stamp;
  for (u64 word = p / 4 * 4; word < p + n; word += 4) {
    u64 first = word < p ? p - word : 0, last = word + 4 > p + n ? p + n - word : 4;
    Stamp stamp = now | ((1u << last) - (1u << first)) << kMaskShift;
    Cell& c = *arena.cell(word);
    Stamp other = write ? note_write<kGlobal>(c, stamp) : note_read<kGlobal>(c, stamp);
    if (other != 0) report(write ? "writes" : "reads", (const void*)word, other);
  }
}

template <bool write>
inline void access(const void* pointer, size_t n) {
  u64 p = (u64)pointer;
  if (arena.inside(p)) {
    if (!arena.allocated(p, n)) outside(write ? "writes" : "reads", pointer, n);
    note<write>(p, n);
    return;
  }
  if (on_stack(pointer)) return;
  if (!write && (const char*)pointer >= __ehdr_start && (const char*)pointer < _end) return;
  if (self == nullptr) return;  // the library's own start
  outside(write ? "writes" : "reads", pointer, n);
}

// aligned_access is for the hooks whose accesses the compiler takes to be aligned;
// it knows better of a thread's own variables, which it places itself.
template <bool write, u32 n>
inline void aligned_access(const void* p) {
  if ((u64)p % n != 0 && !on_stack(p)) fail("it %s %u bytes at %p, which is no multiple of %u", write ? "writes" : "reads", n, p, n);
  access<write>(p, n);
}

}  // namespace

void read_global(const void* p, size_t n) {
  if (n > 0) access<false>(p, n);
}
void write_global(const void* p, size_t n) {
  if (n > 0) access<true>(p, n);
}

void read_constant(const void* p, u32 bytes) {
  if (!arena.inside((u64)p) || !arena.allocated((u64)p, bytes)) return;  // the read itself will say so
  for (u32 i = 0; i < bytes; i += 4) {
    Stamp w = arena.cell((u64)p / 4 * 4 + i)->write;
    if (written_now(w)) fail("ld_nc reads global memory at %p, which thread %u has written in the same launch", p, thread_of(w));
  }
}

}  // namespace emu

#define HOOKS(n)                                                                     \
  extern "C" void __tsan_read##n(void* p) { emu::aligned_access<false, n>(p); }      \
  extern "C" void __tsan_write##n(void* p) { emu::aligned_access<true, n>(p); }      \
  extern "C" void __tsan_unaligned_read##n(void* p) { emu::access<false>(p, n); }    \
  extern "C" void __tsan_unaligned_write##n(void* p) { emu::access<true>(p, n); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_read_range(void* p, size_t n) { emu::access<false>(p, n); }
extern "C" void __tsan_write_range(void* p, size_t n) { emu::access<true>(p, n); }
extern "C" void __tsan_init() {}

// What the compiler tells -fsanitize=alignment's handler (ABI of libubsan).
struct SourceLocation {
  const char* file;
  uint32_t line, column;
};
struct TypeMismatch {
  SourceLocation where;
  const void* type;
  unsigned char log_alignment, kind;
};

static const char* base_name(const SourceLocation* where) {
  const char* slash = std::strrchr(where->file, '/');
  return slash != nullptr ? slash + 1 : where->file;
}

extern "C" void __ubsan_handle_type_mismatch_v1(const TypeMismatch* m, uintptr_t address) {
  emu::fail("%s:%u: access at %p, which is no multiple of %u", base_name(&m->where), m->where.line,
            (void*)address, 1u << m->log_alignment);
}

// An index outside of an array of a thread's own.
extern "C" void __ubsan_handle_out_of_bounds(const SourceLocation* where, uintptr_t index) {
  emu::fail("%s:%u: index %lld is outside of the array", base_name(where), where->line, (long long)index);
}
extern "C" void __ubsan_handle_shift_out_of_bounds(const SourceLocation* where, uintptr_t, uintptr_t) {
  emu::fail("%s:%u: a shift by more than the value has bits", base_name(where), where->line);
}
extern "C" void __ubsan_handle_divrem_overflow(const SourceLocation* where, uintptr_t, uintptr_t) {
  emu::fail("%s:%u: a division by zero", base_name(where), where->line);
}
