// ptx_sm90a.cuh: the device implementation of hopper.cuh. Instructions that sm_90a
// and PTX ISA 8.0 have.
#pragma once

#define UPDRAFT_TEXT(x) #x

// A parameter's own symbol: the compiler names parameter i of an entry point
// entry_param_i. sizeof keeps it from calling the parameter unused.
#define PARAM_ADDRESS(entry, i, p)                                              \
  ({                                                                            \
    (void)sizeof(p);                                                            \
    const TensorMap* address;                                                   \
    asm("{\n\t.reg .b64 symbol;\n\tmov.b64 symbol, " UPDRAFT_TEXT(entry) "_param_" UPDRAFT_TEXT(i) \
        ";\n\tcvta.param.u64 %0, symbol;\n\t}"                                  \
        : "=l"(address));                                                       \
    address;                                                                    \
  })

namespace updraft {

DEVICE void tma_prefetch(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

DEVICE void tma_load_2d(u32 dst, const TensorMap* map, int x, int y, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(dst),
      "l"(map), "r"(x), "r"(y), "r"(bar)
      : "memory");
}

DEVICE void mbarrier_init(u32 bar, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count) : "memory");
}

// TMA completes barriers through the async proxy, to which the initialisation is
// an ordinary write.
DEVICE void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}

DEVICE void mbarrier_arrive(u32 bar) {
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}

DEVICE void mbarrier_expect_tx(u32 bar, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}

DEVICE void mbarrier_wait(u32 bar, u32 parity) {
  // try_wait sleeps for a time of the hardware's choosing: no other pause is due.
  u32 done;
  do {
    asm volatile(
        "{\n\t.reg .pred done;\n\t"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%1], %2;\n\t"
        "selp.u32 %0, 1, 0, done;\n\t}"
        : "=r"(done)
        : "r"(bar), "r"(parity)
        : "memory");
  } while (!done);
}

DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

template <int R>
DEVICE void registers_release() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R));
}

template <int R>
DEVICE void registers_claim() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(R));
}

DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int P>
DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(P) : "memory");
}

// wgmma_wait_all: to the compiler d was written by the wgmmas already; claiming to
// change it here keeps its uses behind the wait.
template <int R>
DEVICE void wgmma_wait_all(float (&d)[R]) {
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}

// The instruction's text and operands: registers in rows of sixteen. Operands after
// the registers: both descriptors, scale-d (1: D is added to), the signs of A and B, and
// the two transposes.
#define UPDRAFT_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define UPDRAFT_D16(i) UPDRAFT_D4(i), UPDRAFT_D4(i + 4), UPDRAFT_D4(i + 8), UPDRAFT_D4(i + 12)
#define UPDRAFT_D64(i) UPDRAFT_D16(i), UPDRAFT_D16(i + 16), UPDRAFT_D16(i + 32), UPDRAFT_D16(i + 48)

template <int N, int kTransA, int kTransB>
DEVICE void wgmma_bf16(float (&d)[N / 2], u64 a, u64 b) {
  static_assert(N == 8 || N == 16 || N == 32 || N == 64 || N == 128 || N == 256, "no such wgmma");
  if constexpr (N == 8) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3}, "
        "%4, %5, 1, 1, 1, %6, %7;"
        : UPDRAFT_D4(0)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
  if constexpr (N == 16) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7}, "
        "%8, %9, 1, 1, 1, %10, %11;"
        : UPDRAFT_D4(0), UPDRAFT_D4(4)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
  if constexpr (N == 32) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, 1, 1, 1, %18, %19;"
        : UPDRAFT_D16(0)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
  if constexpr (N == 64) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, 1, 1, 1, %34, %35;"
        : UPDRAFT_D16(0), UPDRAFT_D16(16)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
  if constexpr (N == 128) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, 1, 1, 1, %66, %67;"
        : UPDRAFT_D64(0)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
  if constexpr (N == 256) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, 1, 1, 1, %130, %131;"
        : UPDRAFT_D64(0), UPDRAFT_D64(64)
        : "l"(a), "l"(b), "n"(kTransA), "n"(kTransB)
        : "memory");
  }
}

#undef UPDRAFT_D4
#undef UPDRAFT_D16
#undef UPDRAFT_D64

}  // namespace updraft
