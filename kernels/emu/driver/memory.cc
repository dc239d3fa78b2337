// memory.cc: device memory, which is the host's. An allocation lies between two
// guard zones that nobody may write; it starts as NaN.
#include <cstdlib>
#include <cstring>

#include "driver.h"

namespace emu {

namespace {

constexpr size_t kGuard = 512;  // bytes before and after an allocation
constexpr unsigned char kGuardByte = 0xa5;

struct Allocation {
  size_t size;
  Context* context;
  unsigned char* memory;  // with its guard zones
};

std::map<uint64_t, Allocation> allocations;  // by address
std::map<Context*, size_t> used;
std::map<uint64_t, size_t> host;  // page-locked host memory: address and size

// guards is what the zones hold, to compare with.
const std::string guards(kGuard, (char)kGuardByte);

bool guard_intact(const Allocation& a) {
  return std::memcmp(a.memory, guards.data(), kGuard) == 0 && std::memcmp(a.memory + kGuard + a.size, guards.data(), kGuard) == 0;
}

// holds returns the allocation with all of n bytes at p, or nullptr.
const Allocation* holds(uint64_t p, size_t n) {
  auto i = allocations.upper_bound(p);
  if (i == allocations.begin()) return nullptr;
  --i;
  uint64_t offset = p - i->first;
  return offset <= i->second.size && n <= i->second.size - offset ? &i->second : nullptr;
}

}  // namespace

bool device_memory(const void* p, size_t n) { return holds((uint64_t)p, n) != nullptr; }

bool in_allocation(Context* c, uint64_t p, size_t n) {
  const Allocation* a = holds(p, n);
  return a != nullptr && a->context == c;
}

size_t memory_used(Context* c) { return used[c]; }

int allocate(Context* c, uint64_t* p, size_t n) {
  if (n == 0) return kInvalidValue;
  if (++c->allocations == c->settings.fail_allocation) return kOutOfMemory;
  if (n > c->settings.memory - used[c]) return kOutOfMemory;
  unsigned char* m = (unsigned char*)std::aligned_alloc(256, (n + 2 * kGuard + 255) / 256 * 256);
  if (m == nullptr) return kOutOfMemory;
  std::memset(m, kGuardByte, kGuard);
  std::memset(m + kGuard, 0xff, n);
  std::memset(m + kGuard + n, kGuardByte, kGuard);
  *p = (uint64_t)(m + kGuard);
  allocations[*p] = Allocation{n, c, m};
  used[c] += n;
  return kSuccess;
}

int release(Context* c, uint64_t p) {
  auto i = allocations.find(p);
  if (i == allocations.end() || i->second.context != c) return kInvalidValue;
  used[c] -= i->second.size;
  std::free(i->second.memory);
  allocations.erase(i);
  return kSuccess;
}

std::string check_guards() {
  for (const auto& i : allocations) {
    if (!guard_intact(i.second)) return "memory beside an allocation of " + std::to_string(i.second.size) + " bytes was written";
  }
  return std::string();
}

int allocate_host(void** p, size_t n) {
  *p = std::aligned_alloc(4096, (n + 4095) / 4096 * 4096);
  if (*p == nullptr) return kOutOfMemory;
  std::memset(*p, 0xff, n);
  host[(uint64_t)*p] = n;
  return kSuccess;
}

int release_host(void* p) {
  if (host.erase((uint64_t)p) == 0) return kInvalidValue;
  std::free(p);
  return kSuccess;
}

bool in_host_allocation(const void* p, size_t n) {
  auto i = host.upper_bound((uint64_t)p);
  if (i == host.begin()) return false;
  --i;
  uint64_t offset = (uint64_t)p - i->first;
  return offset <= i->second && n <= i->second - offset;
}

void release_all(Context* c) {
  for (auto i = allocations.begin(); i != allocations.end();) {
    if (i->second.context == c) {
      std::free(i->second.memory);
      i = allocations.erase(i);
    } else {
      ++i;
    }
  }
  used[c] = 0;
}

}  // namespace emu
