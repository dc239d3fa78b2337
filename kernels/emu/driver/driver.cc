// driver.cc: the emulated driver's devices, contexts, memory, streams and events:
// the functions of libcuda.so.1 that package cuda uses, with the same names,
// arguments, checks and codes.
#include "driver.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

Driver driver;

static thread_local Context* current;
static std::string failure_text;  // for cuGetErrorString

int enter(Context** context) {
  if (!driver.started) return kNotInitialized;
  if (current == nullptr || current->users == 0) return kInvalidContext;
  *context = current;
  return current->error;
}

int fail_context(Context* c, int code, const std::string& message) {
  c->error = code;
  failure_text = message;
  return code;
}

static bool bad_device(int d) { return d < 0 || d >= Settings::read().devices || d >= kMostDevices; }

}  // namespace emu

using namespace emu;

// --- The driver and its devices ---------------------------------------------

UD_API cuInit(unsigned flags) {
  UD_LOCK;
  if (flags != 0) return kInvalidValue;
  Settings s = Settings::read();
  failure_text = s.fault;
  if (!s.fault.empty()) return kInvalidValue;
  if (s.init != 0) return s.init;
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
      {kInvalidState, "CUDA_ERROR_ILLEGAL_STATE"},
      {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {kOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
      {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED"},
      {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {kCaptureUnjoined, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
      {kCapturedEvent, "CUDA_ERROR_CAPTURED_EVENT"},
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
    case 20:  // COMPUTE_MODE
      *value = s.compute_mode;
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
  Settings s = Settings::read();
  if (s.retain != 0) return s.retain;
  *c = &driver.contexts[d];
  if ((*c)->users++ == 0) {
    (*c)->settings = s;
    (*c)->error = (*c)->launches = (*c)->allocations = 0;
    failure_text.clear();
  }
  return kSuccess;
}

UD_API cuDevicePrimaryCtxRelease_v2(int d) {
  UD_LOCK;
  if (bad_device(d)) return kInvalidDevice;
  Context* c = &driver.contexts[d];
  if (c->users == 0) return kInvalidContext;
  if (--c->users > 0) return kSuccess;
  drain_all(c);
  forget(c);
  for (const Context& other : driver.contexts) {
    if (other.users > 0) return kSuccess;
  }
  forget_stacks();
  return kSuccess;
}

UD_API cuCtxSetCurrent(Context* c) {
  UD_LOCK;
  current = c;
  return kSuccess;
}

UD_API cuCtxSynchronize() {
  UD_ENTER;
  return drain_all(context);
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
  if (int code = drain_all(context)) return code;  // as the real one: work may use it
  return release(context, p);
}

UD_API cuMemHostAlloc(void** p, size_t n, unsigned) {
  UD_ENTER;
  return allocate_host(p, n);
}

UD_API cuMemFreeHost(void* p) {
  UD_ENTER;
  if (int code = drain_all(context)) return code;
  return release_host(p);
}
