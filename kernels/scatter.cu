// scatter: adds rows to the rows of a table that they name, the embedding's
// backward.
//
// Computes:  table[ids[t]] += src[t], t ascending; rows with ids[t] < 0 are left out
// Shapes:    table [limit, cols] fp32, src [rows, cols] fp32, both with row strides
//            in elements; ids [rows] int32, dense.
// Requires:  element-aligned pointers; table overlaps neither of the others. An id
//            beyond the table is left out.
// Launch:    grid (rows, ceil(cols/512)), 128 threads, 4240 bytes of shared memory.
// Numerics:  one chain of fp32 sums an element, in ascending t from the table's old
//            value: deterministic, and exactly what a loop over t gives.
// Source:    none. Ids are neither sorted nor counted: the block of row t goes on
//            only where no earlier row has its id, and then adds all the later rows
//            that have it, so a row of the table has one owner and no scratch is
//            needed. Looking for an earlier row goes backwards and ends at the
//            first, a few hundred rows away for the frequent ids that make up most
//            of a text. With 8192 rows the ids are 32 KB and lie in every L1.
// Checked by:  kernels/rows_emulated_test.go.
#include "pack.cuh"

namespace updraft {

constexpr int kThreads = 128, kColumns = 4;         // per thread
constexpr int kScan = 8 * kThreads;                 // ids looked at between two barriers
constexpr int kMasks = kScan / 32;
constexpr int kAhead = 8;                           // rows of src that are loaded before they are added

// Shared memory: the masks of matches, a word for each warp, the list of matches.
constexpr u32 kAny = kMasks * 4, kList = kAny + kThreads / 32 * 4;

// match looks for id among ids[begin..end), of which it considers the kScan from
// `from` on. It leaves a mask for each 32 of them in shared memory, and returns to
// all threads whether there is any. Its barrier shows the masks to all threads.
DEVICE bool match(const int* ids, int from, int begin, int end, int id) {
  u32 shared = shared_base(), any = 0;
#pragma unroll
  for (int i = 0; i < kScan / kThreads; i++) {
    int t = from + i * kThreads + (int)thread_x();
    u32 mask = ballot(t >= begin && t < end && ids[t] == id);
    if (lane() == 0) st_shared<u32>(shared + (i * (kThreads / 32) + warp()) * 4, mask);
    any |= mask;
  }
  if (lane() == 0) st_shared<u32>(shared + kAny + warp() * 4, any);
  block_sync();
  any = 0;
#pragma unroll
  for (u32 w = 0; w < kThreads / 32; w++) any |= ld_shared<u32>(shared + kAny + w * 4);
  return any != 0;
}

// list_matches writes the matches' distances from `from` to the list, ascending,
// and returns their number. Its barrier shows the list to all threads.
DEVICE int list_matches() {
  u32 shared = shared_base();
  u32 count = 0;
#pragma unroll 4
  for (u32 m = 0; m < kMasks; m++) {
    u32 mask = ld_shared<u32>(shared + m * 4);
    if (m % (kThreads / 32) == warp() && (mask >> lane() & 1)) {
      u32 before = (u32)__builtin_popcount(mask & ((1u << lane()) - 1));
      st_shared<u32>(shared + kList + (count + before) * 4, m * 32 + lane());
    }
    count += (u32)__builtin_popcount(mask);
  }
  block_sync();
  return (int)count;
}

DEVICE void scatter_add(float* table, const float* src, const int* ids, int rows, int cols, int limit,
                        int table_stride, int src_stride) {
  int mine = (int)block_x();
  int id = ids[mine];
  if (id < 0 || id >= limit) return;

  // An earlier row with this id owns it.
  for (int end = mine; end > 0; end -= kScan) {
    if (match(ids, end - kScan, 0, end, id)) return;
    block_sync();  // the answers have been read: they may be overwritten
  }

  int c = ((int)block_y() * kThreads + (int)thread_x()) * kColumns;
  int left = cols - c;
  float* to = table + (long long)id * table_stride + c;
  src += c;
  bool whole = left >= kColumns && aligned16(src) && src_stride % 4 == 0;
  float sum[kColumns];
#pragma unroll
  for (int i = 0; i < kColumns; i++) sum[i] = i < left ? to[i] : 0.0f;

  for (int from = mine; from < rows; from += kScan) {
    if (match(ids, from, from, rows, id)) {
      int count = list_matches();
      for (int k0 = 0; k0 < count; k0 += kAhead) {
        // Load up to kAhead rows, then add them in order.
        float v[kAhead][kColumns];
#pragma unroll
        for (int k = 0; k < kAhead; k++) {
          if (k0 + k >= count) break;
          int t = from + (int)ld_shared<u32>(shared_base() + kList + (k0 + k) * 4);
          const float* p = src + (long long)t * src_stride;
          if (whole) {
            float4 f = *(const float4*)p;
            v[k][0] = f.x, v[k][1] = f.y, v[k][2] = f.z, v[k][3] = f.w;
          } else {
#pragma unroll
            for (int i = 0; i < kColumns; i++) v[k][i] = i < left ? p[i] : 0.0f;
          }
        }
#pragma unroll
        for (int k = 0; k < kAhead; k++) {
          if (k0 + k >= count) break;
#pragma unroll
          for (int i = 0; i < kColumns; i++) sum[i] += v[k][i];
        }
      }
    }
    block_sync();  // masks, answers and list have been read: they may be overwritten
  }

#pragma unroll
  for (int i = 0; i < kColumns; i++) {
    if (i < left) to[i] = sum[i];
  }
}

}  // namespace updraft

using namespace updraft;

KERNEL(128, 0, scatter_add_f32, (float* table, const float* src, const int* ids, int rows, int cols, int limit,
                                 int table_stride, int src_stride)) {
  scatter_add(table, src, ids, rows, cols, limit, table_stride, src_stride);
}
