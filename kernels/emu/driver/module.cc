// module.cc: modules, functions and launches of the emulated driver. A module is
// loaded from the same PTX text that a GPU gets; its entry points are then those
// of the same names that were compiled into this library.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "driver.h"

using namespace emu;

namespace {

// word returns what follows a directive in a PTX text, up to the end of its line.
std::string after(const std::string& text, const std::string& directive) {
  size_t at = text.find("\n" + directive + " ");
  if (at == std::string::npos) return "";
  at += directive.size() + 2;
  return text.substr(at, text.find_first_of("\n,", at) - at);
}

// capability reads "sm_80" or "sm_90a"; 0 when it is none.
int capability(const std::string& target, bool* exact) {
  int v = 0;
  if (std::sscanf(target.c_str(), "sm_%d", &v) != 1) return 0;
  *exact = target.back() == 'a';
  return v;
}

// parameter_sizes lists the sizes of an entry's parameters, as the PTX has them.
std::vector<u32> parameter_sizes(const std::string& text, const std::string& entry) {
  std::vector<u32> sizes;
  size_t at = text.find(".entry " + entry + "(");
  size_t end = text.find(')', at);
  while ((at = text.find(".param .", at)) < end) {
    at += 8;
    if (text.compare(at, 6, "align ") == 0) {  // .param .align 128 .b8 name[128]: passed by value
      sizes.push_back((u32)std::atoi(text.c_str() + text.find('[', at) + 1));
    } else {
      sizes.push_back((u32)std::atoi(text.c_str() + at + 1) / 8);
    }
  }
  return sizes;
}

struct Log {
  char* buffer = nullptr;
  size_t size = 0;

  Log(unsigned n, const int* options, void** values) {
    for (unsigned i = 0; i < n; i++) {
      if (options[i] == 5) buffer = (char*)values[i];                    // CU_JIT_ERROR_LOG_BUFFER
      if (options[i] == 6) size = (size_t)(unsigned)(uintptr_t)values[i];  // its size
    }
  }
  int write(int code, const std::string& text) const {
    if (buffer != nullptr && size > 0) std::snprintf(buffer, size, "%s", text.c_str());
    return code;
  }
};

}  // namespace

UD_API cuModuleLoadDataEx(Module** m, const void* image, unsigned n, int* options, void** values) {
  UD_ENTER;
  Log log(n, options, values);
  std::string text = "\n" + std::string((const char*)image);
  int major = 0, minor = 0;
  if (std::sscanf(after(text, ".version").c_str(), "%d.%d", &major, &minor) != 2) {
    return log.write(kInvalidPTX, "ptxas application ptx input, line 1; fatal   : Missing .version directive at start of file");
  }
  // CUDA 11.x loads up to PTX 7.x, 12.x up to 8.x with the same minor number.
  int version = context->settings.version;
  if (major * 10 + minor > version / 1000 * 10 - 40 + version % 1000 / 10) {
    return log.write(kUnsupportedPTX, "ptxas application ptx input; fatal   : Unsupported .version " + after(text, ".version"));
  }
  std::string target = after(text, ".target");
  bool exact = false;
  int want = capability(target, &exact), have = context->settings.major * 10 + context->settings.minor;
  if (want == 0) return log.write(kInvalidPTX, "ptxas application ptx input; fatal   : no .target");
  if (want > have || (exact && want != have)) {
    return log.write(kNoBinary, "ptxas fatal   : a module for " + target + " does not run on sm_" + std::to_string(have));
  }
  auto* module = new Module{context, {}};
  for (size_t at = 0; (at = text.find(".entry ", at)) != std::string::npos;) {
    at += 7;
    std::string name = text.substr(at, text.find('(', at) - at);
    Kernel* k = find_kernel(name.c_str());
    if (k == nullptr) {
      delete module;
      return log.write(kInvalidPTX, "emulator: the library was built without a kernel " + name);
    }
    std::vector<u32> sizes = parameter_sizes(text, name);
    if (sizes != std::vector<u32>(k->sizes, k->sizes + k->parameters)) {
      delete module;
      return log.write(kInvalidPTX, "emulator: the parameters of " + name + " in the PTX are not those of its source");
    }
    module->functions[name] = Function{k};
  }
  driver.modules.insert(module);
  *m = module;
  return kSuccess;
}

UD_API cuModuleUnload(Module* m) {
  UD_ENTER;
  if (driver.modules.erase(m) == 0) return kInvalidHandle;
  delete m;
  return kSuccess;
}

UD_API cuModuleGetFunction(Function** f, Module* m, const char* name) {
  UD_ENTER;
  if (driver.modules.count(m) == 0) return kInvalidHandle;
  auto i = m->functions.find(name);
  if (i == m->functions.end()) return kNotFound;
  *f = &i->second;
  return kSuccess;
}

UD_API cuFuncSetAttribute(Function* f, int attribute, int value) {
  UD_ENTER;
  if (attribute != 8 || value < 0 || value > context->settings.shared_of_block()) return kInvalidValue;
  f->max_shared = value;
  return kSuccess;
}

UD_API cuFuncGetAttribute(int* value, int attribute, Function* f) {
  UD_ENTER;
  switch (attribute) {
    case 0:  // MAX_THREADS_PER_BLOCK
      *value = (int)f->kernel->threads;
      return kSuccess;
    case 1:  // SHARED_SIZE_BYTES, static
    case 3:  // LOCAL_SIZE_BYTES
    case 4:  // NUM_REGS: the emulator has none
      *value = 0;
      return kSuccess;
    case 8:  // MAX_DYNAMIC_SHARED_SIZE_BYTES
      *value = f->max_shared;
      return kSuccess;
  }
  return kInvalidValue;
}

UD_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, Function* f, int block, size_t shared) {
  UD_ENTER;
  if (block < 1 || block > 1024) return kInvalidValue;
  size_t by_shared = (size_t)(context->settings.shared_of_block() + 1024) / (shared + 1024), by_threads = 2048 / (size_t)block;
  (void)f;
  *n = (int)std::min({by_shared, by_threads, (size_t)32});
  return kSuccess;
}

UD_API cuLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      Stream* stream, void** params, void** extra) {
  UD_ENTER;
  if (bad_stream(stream)) return kInvalidHandle;
  if (extra != nullptr || gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535) return kInvalidValue;
  if ((int)shared > f->max_shared) return kInvalidValue;
  // A kernel states its block exactly; the real driver refuses larger ones only.
  if (bx != f->kernel->threads || by != 1 || bz != 1) return kInvalidValue;
  Kernel* kernel = f->kernel;
  std::vector<u64> slots;
  std::vector<size_t> first;  // the slot in which each argument starts
  for (u32 i = 0; i < kernel->parameters; i++) {
    first.push_back(slots.size());
    slots.resize(slots.size() + (kernel->sizes[i] + 7) / 8);
    std::memcpy(&slots[first[i]], params[i], kernel->sizes[i]);
  }
  return submit(stream, [=]() mutable {
    if (++context->launches == context->settings.fail_launch) {
      return fail_context(context, kLaunchFailed, std::string("kernel ") + kernel->name + ": made to fail by fail-launch");
    }
    std::vector<void*> arguments;
    for (size_t i : first) arguments.push_back(&slots[i]);
    std::string failure = run(Launch{kernel, {gx, gy, gz}, shared, arguments.data()}, context->settings.options);
    return failure.empty() ? (int)kSuccess : fail_context(context, kLaunchFailed, failure);
  });
}
