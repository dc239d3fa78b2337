// driver.cc: the emulated driver's devices, contexts, memory, streams and events:
// the functions of libcuda.so.1 that package cuda uses, with the same names,
// arguments, checks and codes.
#include "driver.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

Driver driver;

static thread_local Context* current;
static std::string failure_text;  // for cuGetErrorString

Settings Settings::read() {
  Settings s;
  const char* text = std::getenv("UPDRAFT_EMULATOR");
  std::string all = text != nullptr ? text : "";
  for (size_t at = 0; at < all.size();) {
    size_t end = all.find(',', at);
    if (end == std::string::npos) end = all.size();
    std::string item = all.substr(at, end - at);
    at = end + 1;
    size_t eq = item.find('=');
    std::string name = item.substr(0, eq), value = eq == std::string::npos ? "" : item.substr(eq + 1);
    bool known = true;
    if (name == "capability") {
      known = std::sscanf(value.c_str(), "%d.%d", &s.major, &s.minor) == 2;
    } else if (name == "devices") {
      s.devices = std::atoi(value.c_str());
    } else if (name == "version") {
      s.version = std::atoi(value.c_str());
    } else if (name == "multiprocessors") {
      s.multiprocessors = std::atoi(value.c_str());
    } else if (name == "memory") {
      s.memory = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "seed") {
      s.options.seed = (u32)std::strtoul(value.c_str(), nullptr, 10);
    } else if (name == "bank-conflicts" && value == "fail") {
      s.options.conflicts_fail = true;
    } else if (name == "landing" && value == "late") {
      s.options.landing = Options::kLate;
    } else if (name == "landing" && value == "at-once") {
      s.options.landing = Options::kAtOnce;
    } else if (name == "landing" && value == "random") {
      s.options.landing = Options::kRandomly;
    } else {
      known = false;
    }
    if (!known) {
      std::fprintf(stderr, "updraft emulator: UPDRAFT_EMULATOR: unknown setting \"%s\"\n", item.c_str());
      std::abort();
    }
  }
  return s;
}

int enter(Context** context) {
  if (!driver.started) return kNotInitialized;
  if (current == nullptr || current->users == 0) return kInvalidContext;
  *context = current;
  return current->error;
}

int fail_context(Context* c, int code, const std::string& message) {
  c->error = code;
  c->message = message;
  failure_text = message;
  return code;
}

static double now() {
  using namespace std::chrono;
  return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

static bool bad_device(int d) { return d < 0 || d >= Settings::read().devices || d >= kMostDevices; }

static bool bad_stream(Stream* s) { return s == nullptr || driver.streams.count(s) == 0; }

}  // namespace emu

using namespace emu;

// --- The driver and its devices ---------------------------------------------

UD_API cuInit(unsigned flags) {
  UD_LOCK;
  if (flags != 0) return kInvalidValue;
  if (!driver.started) {
    for (int i = 0; i < kMostDevices; i++) driver.contexts[i].device = i;
    driver.started = true;
  }
  return Settings::read().devices > 0 ? kSuccess : kNoDevice;
}

UD_API cuDriverGetVersion(int* v) {
  *v = Settings::read().version;
  return kSuccess;
}

UD_API cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names = {
      {kInvalidValue, "CUDA_ERROR_INVALID_VALUE"},
      {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY"},
      {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED"},
      {kNoDevice, "CUDA_ERROR_NO_DEVICE"},
      {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE"},
      {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT"},
      {kNoBinary, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
      {kInvalidPTX, "CUDA_ERROR_INVALID_PTX"},
      {kUnsupportedPTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
      {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE"},
      {kNotFound, "CUDA_ERROR_NOT_FOUND"},
      {kNotReady, "CUDA_ERROR_NOT_READY"},
      {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {kOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
      {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
  };
  auto i = names.find(code);
  *name = i != names.end() ? i->second : nullptr;
  return i != names.end() ? kSuccess : kInvalidValue;
}

// cuGetErrorString says of a failed kernel what the real driver cannot: what it
// did, and which of its threads.
UD_API cuGetErrorString(int code, const char** text) {
  UD_LOCK;
  switch (code) {
    case kOutOfMemory:
      *text = "out of memory";
      return kSuccess;
    case kLaunchFailed:
    case kIllegalAddress:
    case kInvalidValue:
      if (failure_text.empty()) break;
      *text = failure_text.c_str();
      return kSuccess;
  }
  *text = nullptr;
  return kInvalidValue;
}

UD_API cuDeviceGetCount(int* n) {
  UD_LOCK;
  if (!driver.started) return kNotInitialized;
  *n = Settings::read().devices;
  return kSuccess;
}

UD_API cuDeviceGet(int* d, int ordinal) {
  UD_LOCK;
  if (bad_device(ordinal)) return kInvalidDevice;
  *d = ordinal;
  return kSuccess;
}

UD_API cuDeviceGetName(char* name, int n, int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  std::snprintf(name, (size_t)n, "Updraft emulated GPU");
  return kSuccess;
}

UD_API cuDeviceGetAttribute(int* value, int attribute, int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  const Settings s = Settings::read();
  switch (attribute) {
    case 1:  // MAX_THREADS_PER_BLOCK
      *value = 1024;
      return kSuccess;
    case 10:  // WARP_SIZE
      *value = kLanes;
      return kSuccess;
    case 13:  // CLOCK_RATE, kHz
      *value = 1000000;
      return kSuccess;
    case 16:  // MULTIPROCESSOR_COUNT
      *value = s.multiprocessors;
      return kSuccess;
    case 38:  // L2_CACHE_SIZE
      *value = 4 << 20;
      return kSuccess;
    case 75:  // COMPUTE_CAPABILITY_MAJOR
      *value = s.major;
      return kSuccess;
    case 76:
      *value = s.minor;
      return kSuccess;
    case 81:  // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
      *value = s.shared_of_block() + 1024;
      return kSuccess;
    case 97:  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
      *value = s.shared_of_block();
      return kSuccess;
  }
  return kInvalidValue;
}

UD_API cuDeviceTotalMem_v2(size_t* n, int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  *n = Settings::read().memory;
  return kSuccess;
}

UD_API cuDevicePrimaryCtxRetain(Context** c, int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  *c = &driver.contexts[d];
  if ((*c)->users++ == 0) {
    (*c)->settings = Settings::read();
    (*c)->error = 0;
    failure_text.clear();
  }
  return kSuccess;
}

UD_API cuDevicePrimaryCtxRelease_v2(int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  Context* c = &driver.contexts[d];
  if (c->users == 0) return kInvalidContext;
  if (--c->users == 0) release_all(c);
  return kSuccess;
}

UD_API cuCtxSetCurrent(Context* c) {
  UD_LOCK;
  current = c;
  return kSuccess;
}

UD_API cuCtxSynchronize() {
  UD_ENTER;
  return kSuccess;
}

// --- Memory -----------------------------------------------------------------

UD_API cuMemGetInfo_v2(size_t* free, size_t* total) {
  UD_ENTER;
  *total = context->settings.memory;
  *free = *total - memory_used(context);
  return kSuccess;
}

UD_API cuMemAlloc_v2(uint64_t* p, size_t n) {
  UD_ENTER;
  return allocate(context, p, n);
}

UD_API cuMemFree_v2(uint64_t p) {
  UD_ENTER;
  return release(context, p);
}

UD_API cuMemHostAlloc(void** p, size_t n, unsigned) {
  UD_ENTER;
  *p = std::aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  return *p != nullptr ? kSuccess : kOutOfMemory;
}

UD_API cuMemFreeHost(void* p) {
  UD_ENTER;
  std::free(p);
  return kSuccess;
}

UD_API cuMemcpyHtoDAsync_v2(uint64_t d, const void* s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n)) return kInvalidValue;
  std::memcpy((void*)d, s, n);
  return kSuccess;
}

UD_API cuMemcpyDtoHAsync_v2(void* d, uint64_t s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, s, n)) return kInvalidValue;
  std::memcpy(d, (const void*)s, n);
  return kSuccess;
}

UD_API cuMemcpyDtoDAsync_v2(uint64_t d, uint64_t s, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n) || !in_allocation(context, s, n)) return kInvalidValue;
  std::memmove((void*)d, (const void*)s, n);
  return kSuccess;
}

UD_API cuMemsetD8Async(uint64_t d, unsigned char v, size_t n, Stream* stream) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (!in_allocation(context, d, n)) return kInvalidValue;
  std::memset((void*)d, v, n);
  return kSuccess;
}

// --- Streams and events -----------------------------------------------------

UD_API cuStreamCreate(Stream** s, unsigned) {
  UD_ENTER;
  *s = new Stream{context};
  driver.streams.insert(*s);
  return kSuccess;
}

UD_API cuStreamDestroy_v2(Stream* s) {
  UD_ENTER;
  if (bad_stream(s)) return kInvalidHandle;
  driver.streams.erase(s);
  delete s;
  return kSuccess;
}

UD_API cuStreamSynchronize(Stream* s) {
  UD_ENTER;
  return bad_stream(s) ? kInvalidHandle : kSuccess;
}

UD_API cuStreamWaitEvent(Stream* s, Event* e, unsigned flags) {
  UD_ENTER;
  if (bad_stream(s) || driver.events.count(e) == 0) return kInvalidHandle;
  return flags == 0 ? kSuccess : kInvalidValue;
}

UD_API cuEventCreate(Event** e, unsigned) {
  UD_ENTER;
  *e = new Event;
  driver.events.insert(*e);
  return kSuccess;
}

UD_API cuEventDestroy_v2(Event* e) {
  UD_ENTER;
  if (driver.events.erase(e) == 0) return kInvalidHandle;
  delete e;
  return kSuccess;
}

UD_API cuEventRecord(Event* e, Stream* s) {
  UD_ENTER;
  if (bad_stream(s) || driver.events.count(e) == 0) return kInvalidHandle;
  e->recorded = true;
  e->milliseconds = now();
  return kSuccess;
}

UD_API cuEventQuery(Event* e) {
  UD_ENTER;
  return driver.events.count(e) == 0 ? kInvalidHandle : kSuccess;
}

UD_API cuEventSynchronize(Event* e) {
  UD_ENTER;
  return driver.events.count(e) == 0 ? kInvalidHandle : kSuccess;
}

UD_API cuEventElapsedTime(float* ms, Event* a, Event* b) {
  UD_ENTER;
  if (driver.events.count(a) == 0 || driver.events.count(b) == 0 || !a->recorded || !b->recorded) return kInvalidHandle;
  *ms = (float)(b->milliseconds - a->milliseconds);
  return kSuccess;
}
