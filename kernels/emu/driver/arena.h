// arena.h: the memory of all emulated devices: one range of addresses, so that an
// access is checked by looking it up in tables, without a search.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>

#include "race.h"

namespace emu {

// Arena hands out ranges. Between any two lie addresses that belong to none: more
// than a row of a matrix, so that an access one row off meets them.
class Arena {
 public:
  static constexpr uint64_t kSize = (uint64_t)64 << 30;  // addresses, not memory
  static constexpr uint64_t kGranule = 256;              // alignment of ranges
  static constexpr uint64_t kGap = 64 << 10;             // between them

  uint64_t base() const { return base_; }

  // inside reports whether p lies in the arena, allocated or not.
  bool inside(uint64_t p) const { return p - base_ < kSize; }

  // allocated reports whether all of n bytes at p, which must be inside, belong to
  // one range. It is quickest for accesses that do not cross a granule.
  bool allocated(uint64_t p, uint64_t n) const {
    uint64_t offset = p - base_, in = offset % kGranule;
    if (in + n <= kGranule) return in + n <= valid_[offset / kGranule];
    return spans(p, n);
  }

  // cell returns the record of the accesses to the 4 bytes at p.
  Cell* cell(uint64_t p) const { return cells_ + (p - base_) / 4; }

  uint64_t allocate(uint64_t n);  // 0 when there is no room
  void release(uint64_t p);

 private:
  void reserve();
  bool spans(uint64_t p, uint64_t n) const;

  uint64_t base_ = ~(uint64_t)0 - kSize;  // nothing is inside before the first allocation
  uint16_t* valid_ = nullptr;             // of each granule, how many bytes belong to a range
  Cell* cells_ = nullptr;
  uint64_t next_ = 0;                     // where to look for room
  std::map<uint64_t, uint64_t> ranges_;   // by offset: size
};

extern Arena arena;

}  // namespace emu
