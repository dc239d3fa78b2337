// machine.h: what the emulated kernels and the emulator share. One machine runs
// one launch at a time; it belongs to the driver (driver/driver.cc), which is
// compiled once, while this header is compiled into every kernel's object.
//
// It knows bytes and addresses and none of device.cuh's types: every .cu file is
// compiled with a namespace of its own, so that two kernels' helpers of one name
// stay apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace emu {

typedef uint32_t u32;
typedef uint64_t u64;

constexpr u32 kLanes = 32;

// Addresses at which dynamic shared memory starts: a multiple of 128 and of nothing
// more, and not zero, so that a kernel which relies on what it was not promised, or
// forgets the base, shows; in kernels for sm_90a, a multiple of 1024.
constexpr u32 kBase = 1152, kBaseSm90a = 2048;

// Kernel is an entry point; KERNEL makes one in each file's static storage.
struct Kernel {
  const char* name;
  u32 threads;     // of a block
  u32 min_blocks;  // that should fit on a multiprocessor, 0: any
  u32 base;        // address of the dynamic shared memory
  void (*function)();
  void (*call)(void (*function)(), void** arguments);
  u32 parameters;
  const u32* sizes;  // of the parameters, in bytes
  Kernel* next;
};

void add_kernel(Kernel* k);

// The instructions in which the lanes of a warp meet.
enum Op : u32 {
  kNone, kWarpSync, kShuffle, kShuffleXor, kBallot, kLdmatrix, kLdmatrixTrans, kMma,
  kWgmmaFence, kWgmma, kWgmmaCommit, kWgmmaWait, kRegisters  // async.h
};

struct Block;
struct Warp;
struct Copies;  // a thread's asynchronous copies

// Thread is a fiber: a thread of a block that runs.
struct Thread {
  void* stack_pointer;  // while it is suspended
  u32 index;            // in its block
  u32 lane;
  u32 block_index[3], grid[3];
  u64 stamp;  // of its accesses to memory now: driver/race.h
  Warp* warp;
  Block* block;
  Copies* copies;
  bool done;
};

// Warp lets 32 lanes exchange operands. Each lane leaves a pointer to its own;
// the last to come performs the instruction for all and wakes the others.
struct Warp {
  Op op;
  u32 arrived;
  u32 detail;  // what else the lanes must agree in, e.g. the number of matrices
  void* operands[kLanes];
  Thread* threads[kLanes];
  u32 known[kLanes];  // of each warp of the block, which of its accesses are ordered before: driver/race.h
};

extern Thread* self;  // the thread that runs

// quiet reads a word of the emulator's own. The kernels' objects are instrumented
// (driver/checks.cc): an ordinary read would be reported as one of the kernel's.
#if defined(__x86_64__)
inline __attribute__((always_inline)) u32 quiet(const u32& at) {
  u32 v;
  asm("movl %1, %0" : "=r"(v) : "m"(at));
  return v;
}
inline __attribute__((always_inline)) Thread* running() {
  Thread* v;
  asm("movq %1, %0" : "=r"(v) : "m"(self));
  return v;
}
#elif defined(__aarch64__)
inline __attribute__((always_inline)) u32 quiet(const u32& at) {
  u32 v;
  asm("ldr %w0, %1" : "=r"(v) : "m"(at));
  return v;
}
inline __attribute__((always_inline)) Thread* running() {
  Thread* v;
  asm("ldr %0, %1" : "=r"(v) : "m"(self));
  return v;
}
#endif

// fail ends the launch with an error that names the kernel, block and thread.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// meet runs op for the warp once its 32 lanes have come, and returns then.
void meet(Op op, void* operand, u32 detail = 0);

void block_barrier();
void named_barrier(u32 id, u32 threads, bool wait);
void pause();  // lets other threads run: a thread waits for a word of memory

// Words are up to 16 bytes.
struct Words {
  u64 low, high;
};
Words load_shared(u32 address, u32 bytes);
void store_shared(u32 address, u32 bytes, Words w);

// read_constant notes a read of global memory that nobody may write meanwhile.
void read_constant(const void* p, u32 bytes);

void copy_async(u32 dst, const void* src, u32 bytes, u32 size);
void copy_commit();
void copy_wait(u32 groups);

u32 atomic_add(u32* p, u32 v);
u32 load_acquire(const u32* p);
void store_release(u32* p, u32 v);
void full_fence();

// Operands that lanes leave for meet.
struct ShuffleOperand {
  u32 value, lane, result;
};
struct LdmatrixOperand {
  u32 address;
  u32* registers;
};
struct MmaOperand {
  float* d;
  const u32 *a, *b;
};

// Registration announces an entry point before main, or at the library's load.
template <typename... P>
struct Registration {
  Kernel kernel;
  u32 sizes[sizeof...(P) + 1] = {sizeof(P)..., 0};

  Registration(const char* name, u32 threads, u32 min_blocks, u32 base, void (*function)(P...)) {
    kernel = {name, threads, min_blocks, base, (void (*)())function, &call, sizeof...(P), sizes, nullptr};
    add_kernel(&kernel);
  }

 private:
  // The arguments are the emulator's, not the kernel's, so these are not instrumented.
  __attribute__((no_sanitize("thread"))) static void call(void (*function)(), void** arguments) {
    unpack((void (*)(P...))function, arguments, std::make_index_sequence<sizeof...(P)>());
  }
  template <size_t... I>
  __attribute__((no_sanitize("thread"))) static void unpack(void (*function)(P...), void** arguments, std::index_sequence<I...>) {
    function(load<P>(arguments[I])...);
  }
  template <typename T>
  __attribute__((no_sanitize("thread"))) static T load(const void* p) {  // which may lie at any address
    T v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
};

}  // namespace emu
