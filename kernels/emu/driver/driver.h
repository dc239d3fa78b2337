// driver.h: the objects of the emulated driver.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
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
  kInvalidState = 401,
  kIllegalAddress = 700,
  kOutOfResources = 701,
  kLaunchFailed = 719,
  kNotSupported = 801,
  kCaptureUnsupported = 900,
  kCaptureUnjoined = 904,
  kCapturedEvent = 907,
};

// Settings are what UPDRAFT_EMULATOR says: "name=value,name=value". See doc.go
// of package emu for the names.
struct Settings {
  int major = 8, minor = 0;  // compute capability
  int devices = 1;
  int version = 12000;
  int multiprocessors = 4;
  int compute_mode = 0;
  size_t memory = (size_t)4 << 30;
  int late_streams = 1;
  Options options;
  // What fails: cuInit and cuDevicePrimaryCtxRetain with a code; the launch and
  // the allocation of a number, counted from 1 in each context.
  int init = 0, retain = 0, fail_launch = 0, fail_allocation = 0;

  std::string fault;  // what cannot be read of them

  static Settings read();

  // shared_of_block returns the most dynamic shared memory of a block, in bytes.
  int shared_of_block() const { return (major == 8 && minor != 0 ? 99 : major == 8 ? 163 : 227) << 10; }
};

struct Context;
struct Stream;

// Work is a piece of a stream's: it returns a code.
typedef std::function<int()> Work;

// Graph is captured work, in the order of issue, which fits every order that its
// events ask for. An executable one is a copy.
struct Graph {
  Context* context;
  Stream* origin;
  std::vector<Work> nodes;
};

// Event marks a point in a stream's work.
struct Event {
  Context* context;
  Stream* stream = nullptr;  // of the last record
  uint64_t issued = 0;       // records so far
  uint64_t reached = 0;      // of which the device has come to so many
  double milliseconds = 0;   // when it came to the last
  Graph* capture = nullptr;  // that the last record went into
  uint64_t captured = 0;     // nodes of its stream in it by then
};

// Stream is a queue of work. It runs when it is issued or, with streams=late,
// when somebody waits for it: as late as a device may.
struct Stream {
  Context* context;
  int priority;
  std::deque<Work> queue = {};
  Graph* capture = nullptr;
  uint64_t captured = 0, joined = 0;  // its nodes in the capture; those that others wait for
};

struct Function {
  Kernel* kernel;
  int max_shared = 48 << 10;
};

struct Module {
  Context* context;
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
  int launches = 0, allocations = 0;
};

constexpr int kMostDevices = 8;

struct Driver {
  std::recursive_mutex mutex;
  bool started = false;
  Context contexts[kMostDevices];
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::set<Graph*> graphs;  // executable ones too
  std::set<Module*> modules;
};

extern Driver driver;

// enter checks what every call needs: a started driver and a context that is
// current on this thread and has not failed. It returns a code.
int enter(Context** context);

// fail_context makes code the result of every later call; cuGetErrorString gives
// the message.
int fail_context(Context* c, int code, const std::string& message);

// Streams: see stream.cc.
bool bad_stream(const Stream* s);
int submit(Stream* s, Work w);  // issues work, or captures it
int drain_all(Context* c);      // runs everything that was issued
void forget(Context* c);        // everything that was made in a context that ends

// Memory: see memory.cc.
int allocate(Context* c, uint64_t* p, size_t n);
int release(Context* c, uint64_t p);
bool in_allocation(Context* c, uint64_t p, size_t n);
size_t memory_used(Context* c);
int allocate_host(void** p, size_t n);
int release_host(void* p);
bool in_host_allocation(const void* p, size_t n);
void release_all(Context* c);

}  // namespace emu

#define UD_LOCK std::lock_guard<std::recursive_mutex> lock_(emu::driver.mutex)
#define UD_ENTER                                    \
  UD_LOCK;                                          \
  emu::Context* context = nullptr;                  \
  if (int code_ = emu::enter(&context)) return code_
