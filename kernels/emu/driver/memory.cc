// memory.cc: allocations of device memory, which start as NaN, and of page-locked
// host memory.
#include <cstdlib>
#include <cstring>

#include "arena.h"
#include "driver.h"

namespace emu {

namespace {

struct Allocation {
  size_t size;
  Context* context;
};

std::map<uint64_t, Allocation> allocations;  // by address
std::map<Context*, size_t> used;
std::map<uint64_t, size_t> host;  // page-locked host memory: address and size

}  // namespace

bool device_memory(const void* p, size_t n) { return arena.inside((uint64_t)p) && arena.allocated((uint64_t)p, n); }

bool in_allocation(Context* c, uint64_t p, size_t n) {
  auto i = allocations.upper_bound(p);
  if (i == allocations.begin()) return false;
  --i;
  uint64_t offset = p - i->first;
  return offset <= i->second.size && n <= i->second.size - offset && i->second.context == c;
}

size_t memory_used(Context* c) { return used[c]; }

int allocate(Context* c, uint64_t* p, size_t n) {
  if (n == 0) return kInvalidValue;
  if (++c->allocations == c->settings.fail_allocation) return kOutOfMemory;
  if (n > c->settings.memory - used[c]) return kOutOfMemory;
  *p = arena.allocate(n);
  if (*p == 0) return kOutOfMemory;
  allocations[*p] = Allocation{n, c};
  used[c] += n;
  return kSuccess;
}

int release(Context* c, uint64_t p) {
  auto i = allocations.find(p);
  if (i == allocations.end() || i->second.context != c) return kInvalidValue;
  used[c] -= i->second.size;
  arena.release(p);
  allocations.erase(i);
  return kSuccess;
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
      arena.release(i->first);
      i = allocations.erase(i);
    } else {
      ++i;
    }
  }
  used[c] = 0;
}

}  // namespace emu
