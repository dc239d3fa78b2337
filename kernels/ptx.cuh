// ptx.cuh: the device implementation of device.cuh, for clang without any
// NVIDIA header. Instructions that sm_80 and PTX ISA 8.0 have, and no others.
#pragma once

#define DEVICE __attribute__((device)) __attribute__((always_inline)) inline
#define KERNEL(threads)                                   \
  extern "C" __attribute__((global))                      \
  __attribute__((launch_bounds(threads)))

namespace updraft {

// A kernel's dynamic shared memory; its size is a parameter of the launch.
extern __attribute__((shared)) __attribute__((aligned(128))) u8 dynamic_shared[];

DEVICE u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }

DEVICE void block_sync() { asm volatile("bar.sync 0;" ::: "memory"); }

DEVICE u32 shared_base() {
  return (u32)(u64)(__attribute__((address_space(3))) u8*)dynamic_shared;
}

DEVICE void cp_async16(u32 dst, const void* src, u32 bytes) {
  // .cg keeps the copy out of L1, where a tile that is read once does not pay.
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst),
               "l"((const __attribute__((address_space(1))) void*)src), "r"(bytes)
               : "memory");
}

DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int N>
DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

DEVICE void ldmatrix_x4(u32 (&r)[4], u32 addr) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(addr)
               : "memory");
}

DEVICE void mma_bf16_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  // Pure arithmetic on registers: not volatile, so that the compiler may move
  // it among the loads of the next fragments.
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE u32 pack_bf16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}

}  // namespace updraft
