#include "arena.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emu {

Arena arena;

namespace {

constexpr uint64_t kPage = 65536;  // a multiple of every page size in use

void* addresses(size_t n) {
  void* p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    std::perror("updraft emulator: no addresses for the devices' memory");
    std::abort();
  }
  return p;
}

uint64_t up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

// forget gives the whole pages within n bytes at p back to the system.
void forget(void* p, uint64_t n) {
  uint64_t first = up((uint64_t)p, kPage), last = ((uint64_t)p + n) / kPage * kPage;
  if (first < last) madvise((void*)first, last - first, MADV_DONTNEED);
}

// poison makes AddressSanitizer, where the library is built for it, refuse accesses
// to n bytes, or allow them.
#ifdef __SANITIZE_ADDRESS__
extern "C" void __asan_poison_memory_region(void const volatile* p, size_t n);
extern "C" void __asan_unpoison_memory_region(void const volatile* p, size_t n);
void poison(uint64_t p, uint64_t n, bool on) { (on ? __asan_poison_memory_region : __asan_unpoison_memory_region)((void*)p, n); }
#else
void poison(uint64_t, uint64_t, bool) {}
#endif

}  // namespace

void Arena::reserve() {
  base_ = (uint64_t)addresses(kSize);
  valid_ = (uint16_t*)addresses(kSize / kGranule * sizeof *valid_);
  cells_ = (Cell*)addresses(kSize / 4 * sizeof *cells_);
}

bool Arena::spans(uint64_t p, uint64_t n) const {
  auto i = ranges_.upper_bound(p - base_);
  if (i == ranges_.begin()) return false;
  --i;
  uint64_t offset = p - base_ - i->first;
  return offset <= i->second && n <= i->second - offset;
}

// allocate looks for room from the end of the last range on: what was freed is
// used again as late as possible, so that a use after it shows.
uint64_t Arena::allocate(uint64_t n) {
  if (valid_ == nullptr) reserve();
  uint64_t need = up(n, kGranule) + 2 * kGap;
  for (int turn = 0; turn < 2; turn++) {
    uint64_t at = next_;
    auto i = ranges_.lower_bound(at);
    for (;; ++i) {
      uint64_t end = i == ranges_.end() ? kSize : i->first;
      if (at + need <= end) {
        uint64_t offset = at + kGap;
        ranges_[offset] = n;
        for (uint64_t g = 0; g * kGranule < n; g++) {
          valid_[offset / kGranule + g] = (uint16_t)(n - g * kGranule < kGranule ? n - g * kGranule : kGranule);
        }
        next_ = at + need - kGap;
        poison(base_ + offset - kGap, need, true);
        poison(base_ + offset, n, false);
        std::memset((void*)(base_ + offset), 0xff, n);
        return base_ + offset;
      }
      if (i == ranges_.end()) break;
      at = up(i->first + i->second, kGranule);
    }
    next_ = 0;
  }
  return 0;
}

void Arena::release(uint64_t p) {
  uint64_t offset = p - base_, n = ranges_.at(offset);
  ranges_.erase(offset);
  poison(p, n, true);
  std::memset(valid_ + offset / kGranule, 0, up(n, kGranule) / kGranule * sizeof *valid_);
  forget((void*)p, n);
  std::memset(cell(p), 0, up(n, 4) / 4 * sizeof(Cell) < kPage ? up(n, 4) / 4 * sizeof(Cell) : 0);
  forget(cell(p), up(n, 4) / 4 * sizeof(Cell));
}

}  // namespace emu
