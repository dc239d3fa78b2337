// probe: small kernels in which emulator_test.go sows defects, one kernel for each
// kind of thing that the emulator watches.
#include "device.cuh"

namespace updraft {

// reverse: y[i] = x[n-1-i], one block of 64 threads, through shared memory.
KERNEL(64, 0, reverse, (float* y, const float* x)) {
  u32 i = thread_x();
  st_shared(shared_base() + 4 * i, x[i]);
  block_sync();  // reverse
  y[i] = ld_shared<float>(shared_base() + 4 * (63 - i));
}

// rotate: in each warp, lane l gets lane l+1's word, through shared memory.
KERNEL(64, 0, rotate, (u32* y, const u32* x)) {
  u32 i = thread_x(), a = shared_base() + 4 * (i - lane());
  st_shared(a + 4 * lane(), x[i]);
  warp_sync();  // rotate
  y[i] = ld_shared<u32>(a + 4 * ((lane() + 1) % 32));
}

// tiles: y = x for n floats, by asynchronous copies in two stages, block by block.
KERNEL(32, 0, tiles, (float* y, const float* x, int n)) {
  u32 base = shared_base(), t = thread_x();
  int first = (int)block_x() * 256;
  // load copies 128 floats, four by a thread, to a stage.
  auto load = [&](int step) {
    int left = n - (first + step * 128 + (int)t * 4);
    u32 bytes = left <= 0 ? 0 : left < 4 ? 4 * (u32)left : 16;
    cp_async16(base + (u32)step * 512 + t * 16, bytes ? x + first + step * 128 + t * 4 : x, bytes);
    cp_async_commit();
  };
  load(0);
  load(1);
  for (int step = 0; step < 2; step++) {
    if (step == 0) cp_async_wait<1>();
    if (step == 1) cp_async_wait<0>();
    block_sync();  // tiles
    for (int i = (int)t; i < 128; i += 32) {
      int at = first + step * 128 + i;
      if (at < n) y[at] = ld_shared<float>(base + (u32)step * 512 + (u32)i * 4);
    }
  }
}

// product: D = A·B for 16x16 A and 16x8 B, row-major in bf16.
KERNEL(32, 0, product, (float* D, const bf16* A, const bf16* B)) {
  u32 base = shared_base(), l = lane();
  cp_async16(base + l * 16, A + l * 8, 16);
  if (l < 16) cp_async16(base + 512 + l * 16, B + l * 8, 16);
  cp_async_commit();
  cp_async_wait<0>();
  block_sync();
  u32 a[4], b[2];
  ldmatrix_x4(a, base + (l % 16) * 32 + l / 16 * 16);
  ldmatrix_x2_trans(b, base + 512 + (l % 16) * 16);
  float d[4] = {};
  mma_bf16_16816(d, a, b);
  u32 g = l / 4, t = l % 4;
  D[g * 8 + 2 * t] = d[0];
  D[g * 8 + 2 * t + 1] = d[1];
  D[(g + 8) * 8 + 2 * t] = d[2];
  D[(g + 8) * 8 + 2 * t + 1] = d[3];
}

// warpsum: y[w] is the sum of warp w's 32 words of x; ones[w] has a bit for each odd one.
KERNEL(64, 0, warpsum, (u32* y, u32* ones, const u32* x)) {
  u32 v = x[thread_x()];
  u32 odd = ballot(v & 1);
  for (u32 m = 16; m > 0; m /= 2) v += shuffle_xor(v, m);
  v = shuffle(v, 31u);
  if (lane() == 0) {
    y[warp()] = v;
    ones[warp()] = odd;
  }
}

// hand: warp 0 writes to shared memory, warp 1 reads it, four rounds; warp 2 has
// ended.
KERNEL(96, 0, hand, (u32* y)) {
  u32 a = shared_base() + 4 * lane();
  if (warp() == 2) return;
  constexpr u32 kStages = 1;
  for (u32 round = 0; round < 4; round++) {
    if (warp() == 0) {
      if (round >= kStages) barrier_sync(2, 64);  // empty
      st_shared(a, round * 32 + lane());
      barrier_arrive(1, 64);  // full
    } else {
      barrier_sync(1, 64);
      y[round * 32 + lane()] = ld_shared<u32>(a);
      if (round + kStages < 4) barrier_arrive(2, 64);  // free
    }
  }
}

// total: *y is the sum of partial sums, one of each block; the last block to come
// adds them in order. *count is 0 before and after.
KERNEL(32, 0, total, (float* y, float* partial, u32* count, const float* x)) {
  float v = x[block_x() * 32 + thread_x()];
  for (u32 m = 16; m > 0; m /= 2) v += shuffle_xor(v, m);
  if (thread_x() == 0) partial[block_x()] = v;
  block_sync();  // written
  u32 before = 0;
  if (thread_x() == 0) {
    fence();  // release
    before = atomic_add(count, 1);
    fence();  // acquire
  }
  if (shuffle(before, 0u) != grid_x() - 1) return;
  block_sync();  // seen
  if (thread_x() == 1) {
    float sum = 0;
    for (u32 i = 0; i < grid_x(); i++) sum += partial[i];
    *y = sum;
    *count = 0;
  }
}

// turns: blocks add to y[0..31] one after another.
KERNEL(32, 0, turns, (float* y, u32* turn, const float* x)) {
  if (thread_x() == 0) {
    while (ld_acquire(turn) != block_x()) {
    }
  }
  block_sync();  // my turn
  y[thread_x()] += x[block_x() * 32 + thread_x()];
  block_sync();  // done
  if (thread_x() == 0) st_release(turn, block_x() + 1);
}

// vectors: y = x, four floats at once.
KERNEL(32, 0, vectors, (float* y, const float* x, int n)) {
  int i = (int)thread_x() * 4;
  if (i < n) *(float4*)(y + i) = ld_nc((const float4*)(x + i));
}

}  // namespace updraft
