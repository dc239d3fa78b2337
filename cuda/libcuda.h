// libcuda.h: the functions of the driver that package cuda uses, with their
// exact versioned symbols, found by dlsym. Our own declarations: CUresult and
// CUdevice are int, CUdeviceptr is 64 bits. An opaque handle, a pointer in the
// driver, is an integer of its size here, which every ABI of Linux on 64 bits
// passes alike: so Go never takes a handle for a pointer of its own.
#ifndef UPDRAFT_LIBCUDA_H
#define UPDRAFT_LIBCUDA_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef uintptr_t ud_handle;
typedef uint64_t ud_ptr;

#define UD_SYMBOLS(X)                                                              \
  X(cuInit, (unsigned))                                                            \
  X(cuDriverGetVersion, (int *))                                                   \
  X(cuGetErrorName, (int, const char **))                                          \
  X(cuGetErrorString, (int, const char **))                                        \
  X(cuDeviceGetCount, (int *))                                                     \
  X(cuDeviceGet, (int *, int))                                                     \
  X(cuDeviceGetName, (char *, int, int))                                           \
  X(cuDeviceGetAttribute, (int *, int, int))                                       \
  X(cuDeviceTotalMem_v2, (size_t *, int))                                          \
  X(cuDevicePrimaryCtxRetain, (ud_handle *, int))                                  \
  X(cuDevicePrimaryCtxRelease_v2, (int))                                           \
  X(cuCtxSetCurrent, (ud_handle))                                                  \
  X(cuCtxSynchronize, (void))                                                      \
  X(cuMemGetInfo_v2, (size_t *, size_t *))                                         \
  X(cuMemAlloc_v2, (ud_ptr *, size_t))                                             \
  X(cuMemFree_v2, (ud_ptr))                                                        \
  X(cuMemHostAlloc, (void **, size_t, unsigned))                                   \
  X(cuMemFreeHost, (void *))                                                       \
  X(cuMemcpyHtoDAsync_v2, (ud_ptr, const void *, size_t, ud_handle))               \
  X(cuMemcpyDtoHAsync_v2, (void *, ud_ptr, size_t, ud_handle))                     \
  X(cuMemcpyDtoDAsync_v2, (ud_ptr, ud_ptr, size_t, ud_handle))                     \
  X(cuMemsetD8Async, (ud_ptr, unsigned char, size_t, ud_handle))                   \
  X(cuMemsetD32Async, (ud_ptr, unsigned, size_t, ud_handle))                       \
  X(cuCtxGetStreamPriorityRange, (int *, int *))                                   \
  X(cuStreamCreateWithPriority, (ud_handle *, unsigned, int))                      \
  X(cuStreamDestroy_v2, (ud_handle))                                               \
  X(cuStreamSynchronize, (ud_handle))                                              \
  X(cuStreamWaitEvent, (ud_handle, ud_handle, unsigned))                           \
  X(cuStreamBeginCapture_v2, (ud_handle, int))                                     \
  X(cuStreamEndCapture, (ud_handle, ud_handle *))                                  \
  X(cuGraphGetNodes, (ud_handle, ud_handle *, size_t *))                           \
  X(cuGraphInstantiateWithFlags, (ud_handle *, ud_handle, unsigned long long))     \
  X(cuGraphLaunch, (ud_handle, ud_handle))                                         \
  X(cuGraphExecDestroy, (ud_handle))                                               \
  X(cuGraphDestroy, (ud_handle))                                                   \
  X(cuEventCreate, (ud_handle *, unsigned))                                        \
  X(cuEventDestroy_v2, (ud_handle))                                                \
  X(cuEventRecord, (ud_handle, ud_handle))                                         \
  X(cuEventQuery, (ud_handle))                                                     \
  X(cuEventSynchronize, (ud_handle))                                               \
  X(cuEventElapsedTime, (float *, ud_handle, ud_handle))                           \
  X(cuModuleLoadDataEx, (ud_handle *, const void *, unsigned, int *, void **))     \
  X(cuModuleUnload, (ud_handle))                                                   \
  X(cuModuleGetFunction, (ud_handle *, ud_handle, const char *))                   \
  X(cuFuncSetAttribute, (ud_handle, int, int))                                     \
  X(cuFuncGetAttribute, (int *, int, ud_handle))                                   \
  X(cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *, ud_handle, int, size_t))  \
  X(cuTensorMapEncodeTiled, (void *, int, uint32_t, ud_ptr, const uint64_t *, const uint64_t *, const uint32_t *, \
                             const uint32_t *, int, int, int, int))                \
  X(cuLaunchKernel, (ud_handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, \
                     ud_handle, void **, void **))

typedef struct {
#define UD_FIELD(name, params) int(*name) params;
  UD_SYMBOLS(UD_FIELD)
#undef UD_FIELD
} ud_lib;

// ud_open opens the library. On failure it returns NULL and a message to free.
static void *ud_open(const char *path, char **message) {
  void *h = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (h == NULL) {
    const char *m = dlerror();
    size_t n = 0;
    if (m == NULL) m = "dlopen failed";
    while (m[n]) n++;
    *message = malloc(n + 1);
    for (size_t i = 0; i <= n; i++) (*message)[i] = m[i];
  }
  return h;
}

// ud_resolve fills lib, or returns the first symbol that the library lacks.
static const char *ud_resolve(void *h, ud_lib *lib) {
#define UD_LOOK(name, params) \
  if ((*(void **)&lib->name = dlsym(h, #name)) == NULL) return #name;
  UD_SYMBOLS(UD_LOOK)
#undef UD_LOOK
  return NULL;
}

// What follows are trampolines: C function pointers cannot be called from Go.
// UD_IN makes a context current first, on the thread that the call runs on.
#define UD_IN(ctx)                     \
  do {                                 \
    int r_ = l->cuCtxSetCurrent(ctx);  \
    if (r_ != 0) return r_;            \
  } while (0)

static int ud_init(ud_lib *l) { return l->cuInit(0); }
static int ud_version(ud_lib *l, int *v) { return l->cuDriverGetVersion(v); }
static const char *ud_error_name(ud_lib *l, int code) {
  const char *s = NULL;
  return l->cuGetErrorName(code, &s) == 0 ? s : NULL;
}
static const char *ud_error_string(ud_lib *l, int code) {
  const char *s = NULL;
  return l->cuGetErrorString(code, &s) == 0 ? s : NULL;
}
static int ud_count(ud_lib *l, int *n) { return l->cuDeviceGetCount(n); }
static int ud_device(ud_lib *l, int *d, int i) { return l->cuDeviceGet(d, i); }
static int ud_name(ud_lib *l, char *s, int n, int d) { return l->cuDeviceGetName(s, n, d); }
static int ud_attr(ud_lib *l, int *v, int a, int d) { return l->cuDeviceGetAttribute(v, a, d); }
static int ud_total(ud_lib *l, size_t *n, int d) { return l->cuDeviceTotalMem_v2(n, d); }
static int ud_retain(ud_lib *l, ud_handle *c, int d) { return l->cuDevicePrimaryCtxRetain(c, d); }
static int ud_release(ud_lib *l, int d) { return l->cuDevicePrimaryCtxRelease_v2(d); }

static int ud_ctx_sync(ud_lib *l, ud_handle c) { UD_IN(c); return l->cuCtxSynchronize(); }
static int ud_mem_info(ud_lib *l, ud_handle c, size_t *f, size_t *t) { UD_IN(c); return l->cuMemGetInfo_v2(f, t); }
static int ud_alloc(ud_lib *l, ud_handle c, ud_ptr *p, size_t n) { UD_IN(c); return l->cuMemAlloc_v2(p, n); }
static int ud_free(ud_lib *l, ud_handle c, ud_ptr p) { UD_IN(c); return l->cuMemFree_v2(p); }
static int ud_host_alloc(ud_lib *l, ud_handle c, void **p, size_t n) { UD_IN(c); return l->cuMemHostAlloc(p, n, 0); }
static int ud_host_free(ud_lib *l, ud_handle c, void *p) { UD_IN(c); return l->cuMemFreeHost(p); }

static int ud_h2d(ud_lib *l, ud_handle c, ud_ptr d, const void *s, size_t n, ud_handle st, int wait) {
  UD_IN(c);
  int r = l->cuMemcpyHtoDAsync_v2(d, s, n, st);
  return r == 0 && wait ? l->cuStreamSynchronize(st) : r;
}
static int ud_d2h(ud_lib *l, ud_handle c, void *d, ud_ptr s, size_t n, ud_handle st, int wait) {
  UD_IN(c);
  int r = l->cuMemcpyDtoHAsync_v2(d, s, n, st);
  return r == 0 && wait ? l->cuStreamSynchronize(st) : r;
}
static int ud_d2d(ud_lib *l, ud_handle c, ud_ptr d, ud_ptr s, size_t n, ud_handle st) {
  UD_IN(c);
  return l->cuMemcpyDtoDAsync_v2(d, s, n, st);
}
static int ud_memset(ud_lib *l, ud_handle c, ud_ptr d, unsigned char v, size_t n, ud_handle st) {
  UD_IN(c);
  return l->cuMemsetD8Async(d, v, n, st);
}

static int ud_memset32(ud_lib *l, ud_handle c, ud_ptr d, unsigned v, size_t words, ud_handle st) {
  UD_IN(c);
  return l->cuMemsetD32Async(d, v, words, st);
}

static int ud_priorities(ud_lib *l, ud_handle c, int *least, int *greatest) { UD_IN(c); return l->cuCtxGetStreamPriorityRange(least, greatest); }
// 1 is CU_STREAM_NON_BLOCKING: no implicit order with the legacy default stream.
static int ud_stream_new(ud_lib *l, ud_handle c, ud_handle *s, int priority) { UD_IN(c); return l->cuStreamCreateWithPriority(s, 1, priority); }
static int ud_stream_free(ud_lib *l, ud_handle c, ud_handle s) { UD_IN(c); return l->cuStreamDestroy_v2(s); }
static int ud_stream_sync(ud_lib *l, ud_handle c, ud_handle s) { UD_IN(c); return l->cuStreamSynchronize(s); }
static int ud_stream_wait(ud_lib *l, ud_handle c, ud_handle s, ud_handle e) { UD_IN(c); return l->cuStreamWaitEvent(s, e, 0); }

// 2 is CU_STREAM_CAPTURE_MODE_RELAXED: the only mode in which a capture may end
// on another thread than it began on, as goroutines' calls do.
static int ud_capture(ud_lib *l, ud_handle c, ud_handle s) { UD_IN(c); return l->cuStreamBeginCapture_v2(s, 2); }
static int ud_capture_end(ud_lib *l, ud_handle c, ud_handle s, ud_handle *g) { UD_IN(c); return l->cuStreamEndCapture(s, g); }
static int ud_graph_nodes(ud_lib *l, ud_handle c, ud_handle g, size_t *n) { UD_IN(c); return l->cuGraphGetNodes(g, NULL, n); }
static int ud_graph_new(ud_lib *l, ud_handle c, ud_handle g, ud_handle *x) { UD_IN(c); return l->cuGraphInstantiateWithFlags(x, g, 0); }
static int ud_graph_launch(ud_lib *l, ud_handle c, ud_handle x, ud_handle s) { UD_IN(c); return l->cuGraphLaunch(x, s); }
static int ud_graph_exec_free(ud_lib *l, ud_handle c, ud_handle x) { UD_IN(c); return l->cuGraphExecDestroy(x); }
static int ud_graph_free(ud_lib *l, ud_handle c, ud_handle g) { UD_IN(c); return l->cuGraphDestroy(g); }

static int ud_event_new(ud_lib *l, ud_handle c, ud_handle *e) { UD_IN(c); return l->cuEventCreate(e, 0); }
static int ud_event_free(ud_lib *l, ud_handle c, ud_handle e) { UD_IN(c); return l->cuEventDestroy_v2(e); }
static int ud_event_record(ud_lib *l, ud_handle c, ud_handle e, ud_handle s) { UD_IN(c); return l->cuEventRecord(e, s); }
static int ud_event_query(ud_lib *l, ud_handle c, ud_handle e) { UD_IN(c); return l->cuEventQuery(e); }
static int ud_event_sync(ud_lib *l, ud_handle c, ud_handle e) { UD_IN(c); return l->cuEventSynchronize(e); }
static int ud_event_time(ud_lib *l, ud_handle c, float *ms, ud_handle a, ud_handle b) { UD_IN(c); return l->cuEventElapsedTime(ms, a, b); }

// ud_load loads a NUL-terminated PTX text; the compiler's error log goes to log.
static int ud_load(ud_lib *l, ud_handle c, ud_handle *m, const void *image, char *log, unsigned size) {
  UD_IN(c);
  int options[] = {5, 6};  // CU_JIT_ERROR_LOG_BUFFER and its _SIZE_BYTES
  void *values[] = {log, (void *)(uintptr_t)size};
  return l->cuModuleLoadDataEx(m, image, 2, options, values);
}
static int ud_unload(ud_lib *l, ud_handle c, ud_handle m) { UD_IN(c); return l->cuModuleUnload(m); }
static int ud_function(ud_lib *l, ud_handle c, ud_handle *f, ud_handle m, const char *n) { UD_IN(c); return l->cuModuleGetFunction(f, m, n); }
static int ud_func_set(ud_lib *l, ud_handle c, ud_handle f, int a, int v) { UD_IN(c); return l->cuFuncSetAttribute(f, a, v); }
static int ud_func_get(ud_lib *l, ud_handle c, int *v, int a, ud_handle f) { UD_IN(c); return l->cuFuncGetAttribute(v, a, f); }
static int ud_occupancy(ud_lib *l, ud_handle c, int *n, ud_handle f, int block, size_t shared) {
  UD_IN(c);
  return l->cuOccupancyMaxActiveBlocksPerMultiprocessor(n, f, block, shared);
}

// ud_tensor_map describes a matrix of bf16 and a box of it to the copy engine, in
// 128 bytes at map. 9 is CU_TENSOR_MAP_DATA_TYPE_BFLOAT16; then come no interleaving (0),
// CU_TENSOR_MAP_SWIZZLE_128B (3), CU_TENSOR_MAP_L2_PROMOTION_L2_128B (2) and zeros
// for what is out of bounds (0). The driver wants the map at a multiple of 64 bytes.
static int ud_tensor_map(ud_lib *l, ud_handle c, uint64_t *map, ud_ptr p, const uint64_t *dims, uint64_t stride, const uint32_t *box) {
  uint64_t aligned[16] __attribute__((aligned(128)));
  const uint32_t ones[2] = {1, 1};
  UD_IN(c);
  int r = l->cuTensorMapEncodeTiled(aligned, 9, 2, p, dims, &stride, box, ones, 0, 3, 2, 0);
  for (int i = 0; r == 0 && i < 16; i++) map[i] = aligned[i];
  return r;
}

// ud_launch passes n arguments, argument i at the start of slot first[i] of 8 bytes;
// the driver knows how many bytes the kernel takes there, and copies them before it
// returns. UD_MAX_ARGS is checked by the caller.
#define UD_MAX_ARGS 32
static int ud_launch(ud_lib *l, ud_handle c, ud_handle f, const uint32_t *shape, ud_handle st, uint64_t *slots,
                     const uint8_t *first, int n) {
  void *params[UD_MAX_ARGS];
  UD_IN(c);
  for (int i = 0; i < n; i++) params[i] = &slots[first[i]];
  return l->cuLaunchKernel(f, shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], st, params, NULL);
}

#endif
