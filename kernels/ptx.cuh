// ptx.cuh: the device implementation of device.cuh, for clang without any
// NVIDIA header. Instructions that sm_80 and PTX ISA 8.0 have, and no others.
//
// Which asm is volatile: whatever touches memory or meets other threads, so that
// the compiler keeps its order among the others (ptxas, which knows the
// instructions, still schedules freely). Shared memory is touched by such asm
// alone, so accesses to it need no clobber of memory; barriers do, because they
// order the plain accesses to global memory as well.
#pragma once

#define DEVICE __attribute__((device)) __attribute__((always_inline)) inline
#define KERNEL(threads, min_blocks, name, params)         \
  extern "C" __attribute__((global))                      \
  __attribute__((launch_bounds(threads, min_blocks))) void name params

namespace updraft {

// A kernel's dynamic shared memory; its size is a parameter of the launch.
#if __CUDA_ARCH__ >= 900
extern __attribute__((shared)) __attribute__((aligned(1024))) u8 dynamic_shared[];
#else
extern __attribute__((shared)) __attribute__((aligned(128))) u8 dynamic_shared[];
#endif

// --- Indices ----------------------------------------------------------------

DEVICE u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 lane() { return thread_x() & 31; }
DEVICE u32 warp() { return thread_x() >> 5; }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEVICE u32 grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEVICE u32 grid_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEVICE u32 grid_z() { return __nvvm_read_ptx_sreg_nctaid_z(); }

// --- Numbers ----------------------------------------------------------------

DEVICE u32 float_bits(float f) { return __builtin_bit_cast(u32, f); }
DEVICE float bits_float(u32 u) { return __builtin_bit_cast(float, u); }
DEVICE u32 mul_hi(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }

DEVICE u32 pack_bf16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
DEVICE bf16 to_bf16(float f) {
  bf16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r.bits) : "f"(f));
  return r;
}
DEVICE float to_float(bf16 v) { return bits_float((u32)v.bits << 16); }
DEVICE float low_float(u32 pair) { return bits_float(pair << 16); }
DEVICE float high_float(u32 pair) { return bits_float(pair & 0xffff0000u); }

DEVICE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE float sqrt(float x) {
  float r;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float exp2_fast(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float log2_fast(float x) {
  float r;
  asm("lg2.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float rsqrt_fast(float x) {
  float r;
  asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
DEVICE float min(float a, float b) {
  float r;
  asm("min.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
DEVICE float max(float a, float b) {
  float r;
  asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
}
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE u32 min(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 max(u32 a, u32 b) { return a > b ? a : b; }

// --- Barriers ---------------------------------------------------------------

DEVICE void block_sync() { asm volatile("bar.sync 0;" ::: "memory"); }
DEVICE void barrier_sync(u32 id, u32 threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void barrier_arrive(u32 id, u32 threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void warp_sync() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }
DEVICE void fence() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// --- Warp-wide --------------------------------------------------------------

DEVICE u32 shuffle(u32 v, u32 from) {
  u32 r;
  asm volatile("shfl.sync.idx.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(from));
  return r;
}
DEVICE u32 shuffle_xor(u32 v, u32 mask) {
  u32 r;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(r) : "r"(v), "r"(mask));
  return r;
}
DEVICE int shuffle(int v, u32 from) { return (int)shuffle((u32)v, from); }
DEVICE int shuffle_xor(int v, u32 mask) { return (int)shuffle_xor((u32)v, mask); }
DEVICE float shuffle(float v, u32 from) { return bits_float(shuffle(float_bits(v), from)); }
DEVICE float shuffle_xor(float v, u32 mask) { return bits_float(shuffle_xor(float_bits(v), mask)); }
DEVICE u32 ballot(bool v) {
  u32 r;
  asm volatile(
      "{ .reg .pred p;\n\t"
      "setp.ne.u32 p, %1, 0;\n\t"
      "vote.sync.ballot.b32 %0, p, 0xffffffff; }"
      : "=r"(r)
      : "r"((u32)v));
  return r;
}

// --- Loads and stores -------------------------------------------------------

DEVICE u32 shared_base() {
  return (u32)(u64)(__attribute__((address_space(3))) u8*)dynamic_shared;
}

// global tells the compiler, and the instructions below, that a pointer leads
// into global memory.
DEVICE const void __attribute__((address_space(1))) * global(const void* p) {
  return (const __attribute__((address_space(1))) void*)p;
}

// Memory<T> has the instructions for one type; the macros spell them for each.
template <typename T>
struct Memory;

#define UPDRAFT_SCALAR(type, suffix, reg, field)                                                        \
  template <>                                                                                           \
  struct Memory<type> {                                                                                 \
    DEVICE static type shared(u32 a) {                                                                  \
      type v;                                                                                           \
      asm volatile("ld.shared." suffix " %0, [%1];" : "=" reg(v field) : "r"(a));                       \
      return v;                                                                                         \
    }                                                                                                   \
    DEVICE static void shared(u32 a, type v) {                                                          \
      asm volatile("st.shared." suffix " [%0], %1;" ::"r"(a), reg(v field));                            \
    }                                                                                                   \
    DEVICE static type nc(const type* p) {                                                              \
      type v;                                                                                           \
      asm("ld.global.nc." suffix " %0, [%1];" : "=" reg(v field) : "l"(global(p)));                     \
      return v;                                                                                         \
    }                                                                                                   \
    DEVICE static type stream(const type* p) {                                                          \
      type v;                                                                                           \
      asm volatile("ld.global.cs." suffix " %0, [%1];" : "=" reg(v field) : "l"(global(p)) : "memory"); \
      return v;                                                                                         \
    }                                                                                                   \
    DEVICE static void stream(type* p, type v) {                                                        \
      asm volatile("st.global.cs." suffix " [%0], %1;" ::"l"(global(p)), reg(v field) : "memory");      \
    }                                                                                                   \
  };

#define UPDRAFT_PAIR(type, suffix, reg)                                                                  \
  template <>                                                                                            \
  struct Memory<type> {                                                                                  \
    DEVICE static type shared(u32 a) {                                                                   \
      type v;                                                                                            \
      asm volatile("ld.shared.v2." suffix " {%0, %1}, [%2];" : "=" reg(v.x), "=" reg(v.y) : "r"(a));     \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static void shared(u32 a, type v) {                                                           \
      asm volatile("st.shared.v2." suffix " [%0], {%1, %2};" ::"r"(a), reg(v.x), reg(v.y));              \
    }                                                                                                    \
    DEVICE static type nc(const type* p) {                                                               \
      type v;                                                                                            \
      asm("ld.global.nc.v2." suffix " {%0, %1}, [%2];" : "=" reg(v.x), "=" reg(v.y) : "l"(global(p)));   \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static type stream(const type* p) {                                                           \
      type v;                                                                                            \
      asm volatile("ld.global.cs.v2." suffix " {%0, %1}, [%2];"                                          \
                   : "=" reg(v.x), "=" reg(v.y) : "l"(global(p)) : "memory");                            \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static void stream(type* p, type v) {                                                         \
      asm volatile("st.global.cs.v2." suffix " [%0], {%1, %2};"                                          \
                   ::"l"(global(p)), reg(v.x), reg(v.y) : "memory");                                     \
    }                                                                                                    \
  };

#define UPDRAFT_QUAD(type, suffix, reg)                                                                  \
  template <>                                                                                            \
  struct Memory<type> {                                                                                  \
    DEVICE static type shared(u32 a) {                                                                   \
      type v;                                                                                            \
      asm volatile("ld.shared.v4." suffix " {%0, %1, %2, %3}, [%4];"                                     \
                   : "=" reg(v.x), "=" reg(v.y), "=" reg(v.z), "=" reg(v.w) : "r"(a));                   \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static void shared(u32 a, type v) {                                                           \
      asm volatile("st.shared.v4." suffix " [%0], {%1, %2, %3, %4};"                                     \
                   ::"r"(a), reg(v.x), reg(v.y), reg(v.z), reg(v.w));                                    \
    }                                                                                                    \
    DEVICE static type nc(const type* p) {                                                               \
      type v;                                                                                            \
      asm("ld.global.nc.v4." suffix " {%0, %1, %2, %3}, [%4];"                                           \
          : "=" reg(v.x), "=" reg(v.y), "=" reg(v.z), "=" reg(v.w) : "l"(global(p)));                    \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static type stream(const type* p) {                                                           \
      type v;                                                                                            \
      asm volatile("ld.global.cs.v4." suffix " {%0, %1, %2, %3}, [%4];"                                  \
                   : "=" reg(v.x), "=" reg(v.y), "=" reg(v.z), "=" reg(v.w) : "l"(global(p)) : "memory"); \
      return v;                                                                                          \
    }                                                                                                    \
    DEVICE static void stream(type* p, type v) {                                                         \
      asm volatile("st.global.cs.v4." suffix " [%0], {%1, %2, %3, %4};"                                  \
                   ::"l"(global(p)), reg(v.x), reg(v.y), reg(v.z), reg(v.w) : "memory");                 \
    }                                                                                                    \
  };

UPDRAFT_SCALAR(float, "f32", "f", )
UPDRAFT_SCALAR(u32, "b32", "r", )
UPDRAFT_SCALAR(int, "b32", "r", )
UPDRAFT_SCALAR(u64, "b64", "l", )
UPDRAFT_SCALAR(u16, "b16", "h", )
UPDRAFT_SCALAR(bf16, "b16", "h", .bits)
UPDRAFT_PAIR(float2, "f32", "f")
UPDRAFT_PAIR(uint2, "b32", "r")
UPDRAFT_QUAD(float4, "f32", "f")
UPDRAFT_QUAD(uint4, "b32", "r")

#undef UPDRAFT_SCALAR
#undef UPDRAFT_PAIR
#undef UPDRAFT_QUAD

template <typename T>
DEVICE T ld_shared(u32 a) { return Memory<T>::shared(a); }
template <typename T>
DEVICE void st_shared(u32 a, T v) { Memory<T>::shared(a, v); }
template <typename T>
DEVICE T ld_nc(const T* p) { return Memory<T>::nc(p); }
template <typename T>
DEVICE T ld_stream(const T* p) { return Memory<T>::stream(p); }
template <typename T>
DEVICE void st_stream(T* p, T v) { Memory<T>::stream(p, v); }

DEVICE u32 atomic_add(u32* p, u32 v) {
  u32 r;
  asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], %2;" : "=r"(r) : "l"(global(p)), "r"(v) : "memory");
  return r;
}
DEVICE u32 ld_acquire(const u32* p) {
  u32 r;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(r) : "l"(global(p)) : "memory");
  return r;
}
DEVICE void st_release(u32* p, u32 v) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(global(p)), "r"(v) : "memory");
}

// --- Asynchronous copies ----------------------------------------------------

DEVICE void cp_async16(u32 dst, const void* src, u32 bytes) {
  // .cg keeps the copy out of L1, where a tile that is read once does not pay.
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(dst), "l"(global(src)), "r"(bytes)
               : "memory");
}
DEVICE void cp_async4(u32 dst, const void* src, u32 bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(global(src)), "r"(bytes) : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// --- Matrices ---------------------------------------------------------------

DEVICE void ldmatrix_x4(u32 (&r)[4], u32 a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(a));
}
DEVICE void ldmatrix_x4_trans(u32 (&r)[4], u32 a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(a));
}
DEVICE void ldmatrix_x2(u32 (&r)[2], u32 a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(a));
}
DEVICE void ldmatrix_x2_trans(u32 (&r)[2], u32 a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(a));
}

DEVICE void mma_bf16_16816(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  // Pure arithmetic on registers: not volatile, so that the compiler may move
  // it among the loads of the next fragments.
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace updraft
