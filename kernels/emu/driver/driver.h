// driver.h: the objects of the emulated driver.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "machine_run.h"

#define UD_API extern "C" __attribute__((visibility("default"))) int

namespace emu {

// Result codes (CUresult).
enum Code {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kNoBinary = 209,
  kInvalidPTX = 218,
  kUnsupportedPTX = 222,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kOutOfResources = 701,
  kLaunchFailed = 719,
};

// Settings are what UPDRAFT_EMULATOR says: "name=value,name=value". See doc.go
// of package emu for the names.
struct Settings {
  int major = 8, minor = 0;  // compute capability
  int devices = 1;
  int version = 12000;
  int multiprocessors = 4;
  size_t memory = (size_t)4 << 30;
  Options options;

  static Settings read();

  // shared_of_block returns the most dynamic shared memory of a block, in bytes.
  int shared_of_block() const { return (major == 8 && minor != 0 ? 99 : major == 8 ? 163 : 227) << 10; }
};

struct Context;

// Event marks a point in a stream's work.
struct Event {
  bool recorded = false;
  double milliseconds = 0;  // when it was reached
};

struct Stream {
  Context* context;
};

struct Function {
  Kernel* kernel;
  int max_shared = 48 << 10;
};

struct Module {
  std::set<std::string> entries;
  std::map<std::string, Function> functions;
};

// Context is a device's primary context and all that was made in it. A launch
// that fails leaves its code behind for every call that follows, as in CUDA,
// until the context has been released and retained again.
struct Context {
  int device;
  int users = 0;  // retains less releases
  Settings settings;
  int error = 0;
  std::string message;
  std::set<std::unique_ptr<Stream>> streams;
};

constexpr int kMostDevices = 8;

struct Driver {
  std::recursive_mutex mutex;
  bool started = false;
  Context contexts[kMostDevices];
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::set<Module*> modules;
};

extern Driver driver;

// enter checks what every call needs: a started driver and a context that is
// current on this thread and has not failed. It returns a code.
int enter(Context** context);

// message is what cuGetErrorString adds for the last failed launch.
int fail_context(Context* c, int code, const std::string& message);

// Memory: see memory.cc.
int allocate(Context* c, uint64_t* p, size_t n);
int release(Context* c, uint64_t p);
bool in_allocation(Context* c, uint64_t p, size_t n);
size_t memory_used(Context* c);
void release_all(Context* c);
std::string check_guards();  // what was written beside allocations, or nothing

}  // namespace emu

#define UD_LOCK std::lock_guard<std::recursive_mutex> lock_(emu::driver.mutex)
#define UD_ENTER                                    \
  UD_LOCK;                                          \
  emu::Context* context = nullptr;                  \
  if (int code_ = emu::enter(&context)) return code_
