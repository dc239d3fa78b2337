// checks.cc: what the compiler's instrumentation of the kernels calls. The
// sanitizers' own runtimes are not linked: these functions stand in their place.
#include <cstring>

#include "machine_run.h"

namespace {

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

}  // namespace

// A misaligned access through a pointer, which a GPU refuses and a CPU does not.
extern "C" void __ubsan_handle_type_mismatch_v1(TypeMismatch* m, uintptr_t address) {
  const char* file = std::strrchr(m->where.file, '/');
  emu::fail("%s:%u: access at %p, which is no multiple of %u", file != nullptr ? file + 1 : m->where.file, m->where.line,
            (void*)address, 1u << m->log_alignment);
}
