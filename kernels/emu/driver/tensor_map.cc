// tensor_map.cc: cuTensorMapEncodeTiled. It refuses what the real one refuses
// (driver API reference, "Tensor Map Object Management"), and of what that takes it
// knows matrices of 16-bit elements without interleaving.
#include "tensor_map.h"

#include <cstring>

#include "driver.h"

using namespace emu;

UD_API cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, uint64_t address, const uint64_t* dims,
                              const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                              int swizzle, int promotion, int fill) {
  UD_ENTER;
  if (context->settings.major < 9) return kNotSupported;
  if (map == nullptr || (uintptr_t)map % 64 != 0 || address % 16 != 0) return kInvalidValue;
  bool two_bytes = type == 1 || type == 6 || type == 9;  // UINT16, FLOAT16, BFLOAT16
  if (!two_bytes || rank != 2 || interleave != 0) return kNotSupported;
  if (swizzle < 0 || swizzle > 3 || promotion < 0 || promotion > 3 || fill < 0 || fill > 1) return kInvalidValue;
  for (int i = 0; i < 2; i++) {
    if (dims[i] == 0 || dims[i] > (uint64_t)1 << 32 || box[i] == 0 || box[i] > 256) return kInvalidValue;
    if (steps[i] == 0 || steps[i] > 8) return kInvalidValue;
  }
  if (steps[0] != 1 || steps[1] != 1 || fill != 0) return kNotSupported;
  if (strides[0] % 16 != 0 || strides[0] >= (uint64_t)1 << 40 || strides[0] < dims[0] * 2) return kInvalidValue;
  uint32_t row = box[0] * 2;
  if (row % 16 != 0 || (swizzle != 0 && row > 16u << swizzle)) return kInvalidValue;
  EncodedMap m{};
  m.mark = kTensorMapMark;
  m.address = address;
  m.columns = dims[0];
  m.rows = dims[1];
  m.stride = strides[0];
  m.box_columns = box[0];
  m.box_rows = box[1];
  m.swizzle = (uint32_t)swizzle;
  std::memcpy(map, &m, sizeof m);
  return kSuccess;
}
