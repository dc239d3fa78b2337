// tensor_map.h: what the emulated driver writes into a tensor map's 128 bytes.
#pragma once

#include <cstdint>

namespace emu {

constexpr uint64_t kTensorMapMark = 0x70616d2d726f736eu;

// EncodedMap is a row-major matrix of 2-byte elements and the box that is copied.
struct EncodedMap {
  uint64_t mark;
  uint64_t address;
  uint64_t columns, rows, stride;  // stride in bytes
  uint32_t box_columns, box_rows;
  uint32_t swizzle;  // CUtensorMapSwizzle: 3 is 128 bytes
  unsigned char rest[76];
};
static_assert(sizeof(EncodedMap) == 128, "a tensor map has 128 bytes");

}  // namespace emu
