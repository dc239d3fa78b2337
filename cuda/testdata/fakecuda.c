/* fakecuda.c: a driver library for the tests of package cuda, so that they run
   where there is no GPU. "Device" memory is the host's, work runs when it is
   issued, and a few kernels are known by name. It insists on what the real
   driver insists on and a caller can get wrong: a current context on the calling
   thread, valid handles, limits of shared memory.

   Built with -DFAKE_VERSION=, -DFAKE_DEVICES=, -DFAKE_INIT= (result of cuInit),
   -DFAKE_MODE= (compute mode), -DFAKE_RETAIN= (result of taking a context),
   -DFAKE_OLD (leaves out a function that old drivers lack). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION 12040
#endif
#ifndef FAKE_DEVICES
#define FAKE_DEVICES 2
#endif
#ifndef FAKE_MODE
#define FAKE_MODE 0
#endif
#ifndef FAKE_RETAIN
#define FAKE_RETAIN 0
#endif
#ifndef FAKE_INIT
#define FAKE_INIT 0
#endif

typedef uint64_t ptr;
enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_PTX = 218,
       NOT_FOUND = 500, NOT_READY = 600 };

#define MEMORY ((size_t)1 << 30)
static int contexts[8]; /* reference counts; the address is the handle */
static size_t used;
static __thread int *current;
static int64_t ticks; /* of the device's clock: one for each piece of work */

#define IN_CONTEXT \
  if (current == NULL || *current == 0) return INVALID_CONTEXT

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : FAKE_INIT; }
int cuDriverGetVersion(int *v) { *v = FAKE_VERSION; return 0; }
int cuGetErrorName(int code, const char **s) {
  switch (code) {
    case OUT_OF_MEMORY: *s = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
    case INVALID_PTX: *s = "CUDA_ERROR_INVALID_PTX"; return 0;
    case INVALID_DEVICE: *s = "CUDA_ERROR_INVALID_DEVICE"; return 0;
  }
  *s = NULL;
  return INVALID_VALUE;
}
int cuGetErrorString(int code, const char **s) {
  if (code == OUT_OF_MEMORY) { *s = "out of memory"; return 0; }
  *s = NULL;
  return INVALID_VALUE;
}
int cuDeviceGetCount(int *n) { *n = FAKE_DEVICES; return 0; }
int cuDeviceGet(int *d, int i) { *d = 10 + i; return i >= 0 && i < FAKE_DEVICES ? 0 : INVALID_DEVICE; }
int cuDeviceGetName(char *s, int n, int d) { snprintf(s, n, "Fake GPU %d", d - 10); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) {
  switch (a) {
    case 75: *v = 8; return 0;
    case 76: *v = d - 10; return 0; /* capability 8.0, 8.1 */
    case 16: *v = 108; return 0;
    case 38: *v = 40 << 20; return 0;
    case 97: *v = 163 << 10; return 0;
    case 13: *v = 1410000; return 0;
    case 20: *v = FAKE_MODE; return 0;
  }
  return INVALID_VALUE;
}
int cuDeviceTotalMem_v2(size_t *n, int d) { (void)d; *n = MEMORY; return 0; }
int cuDevicePrimaryCtxRetain(int **c, int d) {
  if (FAKE_RETAIN) return FAKE_RETAIN;
  *c = &contexts[d - 10];
  ++**c;
  return 0;
}
#ifndef FAKE_OLD
int cuDevicePrimaryCtxRelease_v2(int d) { return contexts[d - 10]-- > 0 ? 0 : INVALID_CONTEXT; }
#endif
int cuCtxSetCurrent(int *c) { current = c; return 0; }
int cuCtxSynchronize(void) { IN_CONTEXT; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { IN_CONTEXT; *t = MEMORY; *f = MEMORY - used; return 0; }

int cuMemAlloc_v2(ptr *p, size_t n) {
  IN_CONTEXT;
  if (n > MEMORY - used) return OUT_OF_MEMORY;
  /* Room behind it, of NaN: a test's defect may use a row too many and is to be
     found by its results. */
  size_t whole = 256 + n + (64 << 10), *m = malloc(whole);
  memset(m, 0xff, whole);
  m[0] = n;
  used += n;
  *p = (ptr)(uintptr_t)m + 256;
  return 0;
}
int cuMemFree_v2(ptr p) {
  IN_CONTEXT;
  size_t *m = (size_t *)(uintptr_t)(p - 256);
  used -= m[0];
  free(m);
  return 0;
}
int cuMemHostAlloc(void **p, size_t n, unsigned f) { IN_CONTEXT; (void)f; *p = calloc(1, n); return 0; }
int cuMemFreeHost(void *p) { IN_CONTEXT; free(p); return 0; }

/* A graph is a list of fills; nothing else can be captured here. */
struct fill { ptr d; unsigned v; size_t n; };
struct graph { int n; struct fill fills[8]; };
struct stream { int alive, priority; struct graph *capture; };
struct event { int64_t tick; };
#define ON(s) \
  IN_CONTEXT; \
  if ((s) == NULL || !(s)->alive) return 400; \
  if ((s)->capture != NULL) return 900; /* STREAM_CAPTURE_UNSUPPORTED */ \
  ticks++

int cuMemcpyHtoDAsync_v2(ptr d, const void *s, size_t n, struct stream *st) { ON(st); memcpy((void *)(uintptr_t)d, s, n); return 0; }
int cuMemcpyDtoHAsync_v2(void *d, ptr s, size_t n, struct stream *st) { ON(st); memcpy(d, (void *)(uintptr_t)s, n); return 0; }
int cuMemcpyDtoDAsync_v2(ptr d, ptr s, size_t n, struct stream *st) { ON(st); memmove((void *)(uintptr_t)d, (void *)(uintptr_t)s, n); return 0; }
int cuMemsetD8Async(ptr d, unsigned char v, size_t n, struct stream *st) { ON(st); memset((void *)(uintptr_t)d, v, n); return 0; }

static void fill32(struct fill f) { for (size_t i = 0; i < f.n; i++) ((unsigned *)(uintptr_t)f.d)[i] = f.v; }
int cuMemsetD32Async(ptr d, unsigned v, size_t n, struct stream *st) {
  struct fill f = {d, v, n};
  if (st != NULL && st->capture != NULL && st->capture->n < 8) {
    st->capture->fills[st->capture->n++] = f;
    return 0;
  }
  ON(st);
  fill32(f);
  return 0;
}

int cuCtxGetStreamPriorityRange(int *least, int *greatest) { IN_CONTEXT; *least = 0; *greatest = -5; return 0; }
int cuStreamCreateWithPriority(struct stream **s, unsigned f, int priority) {
  IN_CONTEXT;
  if (f != 1 || priority > 0 || priority < -5) return INVALID_VALUE;
  *s = calloc(1, sizeof **s);
  (*s)->alive = 1;
  (*s)->priority = priority;
  return 0;
}
int cuStreamBeginCapture_v2(struct stream *s, int mode) {
  ON(s);
  if (mode != 2) return INVALID_VALUE;
  s->capture = calloc(1, sizeof *s->capture);
  return 0;
}
int cuStreamEndCapture(struct stream *s, struct graph **g) {
  IN_CONTEXT;
  if (s->capture == NULL) return 401;
  *g = s->capture;
  s->capture = NULL;
  return 0;
}
int cuGraphGetNodes(struct graph *g, void **nodes, size_t *n) { IN_CONTEXT; *n = (size_t)g->n; return nodes ? INVALID_VALUE : 0; }
int cuGraphInstantiateWithFlags(struct graph **x, struct graph *g, unsigned long long f) {
  IN_CONTEXT;
  if (f) return INVALID_VALUE;
  *x = malloc(sizeof **x);
  **x = *g;
  return 0;
}
int cuGraphLaunch(struct graph *x, struct stream *s) {
  ON(s);
  for (int i = 0; i < x->n; i++) fill32(x->fills[i]);
  return 0;
}
int cuGraphExecDestroy(struct graph *x) { IN_CONTEXT; free(x); return 0; }
int cuGraphDestroy(struct graph *g) { IN_CONTEXT; free(g); return 0; }
int cuStreamDestroy_v2(struct stream *s) { IN_CONTEXT; s->alive = 0; return 0; }
int cuStreamSynchronize(struct stream *s) { ON(s); return 0; }
int cuStreamWaitEvent(struct stream *s, struct event *e, unsigned f) { ON(s); (void)e; return f ? INVALID_VALUE : 0; }
int cuEventCreate(struct event **e, unsigned f) { IN_CONTEXT; (void)f; *e = calloc(1, sizeof **e); return 0; }
int cuEventDestroy_v2(struct event *e) { IN_CONTEXT; free(e); return 0; }
int cuEventRecord(struct event *e, struct stream *s) { ON(s); e->tick = ticks; return 0; }
int cuEventQuery(struct event *e) { IN_CONTEXT; return e->tick ? 0 : NOT_READY; }
int cuEventSynchronize(struct event *e) { IN_CONTEXT; (void)e; return 0; }
int cuEventElapsedTime(float *ms, struct event *a, struct event *b) {
  IN_CONTEXT;
  if (!a->tick || !b->tick) return NOT_READY;
  *ms = (float)(b->tick - a->tick); /* a millisecond for each piece of work */
  return 0;
}

struct function { char name[64]; int shared; };

int cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *options, void **values) {
  IN_CONTEXT;
  const char *ptx = image;
  if (strncmp(ptx, "//", 2) != 0 && strncmp(ptx, ".version", 8) != 0) {
    char *log = NULL;
    unsigned size = 0;
    for (unsigned i = 0; i < n; i++) {
      if (options[i] == 5) log = values[i];
      if (options[i] == 6) size = (unsigned)(uintptr_t)values[i];
    }
    if (log) snprintf(log, size, "ptxas application ptx input, line 1; fatal : Missing .version directive at '%.8s'\nptxas fatal : aborted", ptx);
    return INVALID_PTX;
  }
  *m = strdup(ptx); /* reads up to the NUL that the caller owes */
  return 0;
}
int cuModuleUnload(void *m) { IN_CONTEXT; free(m); return 0; }
int cuModuleGetFunction(struct function **f, void *m, const char *name) {
  IN_CONTEXT;
  char entry[96];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  if (strstr(m, entry) == NULL) return NOT_FOUND;
  *f = malloc(sizeof **f);
  snprintf((*f)->name, sizeof (*f)->name, "%s", name);
  (*f)->shared = 48 << 10;
  return 0;
}
int cuFuncSetAttribute(struct function *f, int a, int v) {
  IN_CONTEXT;
  if (a != 8 || v > 163 << 10) return INVALID_VALUE;
  f->shared = v;
  return 0;
}
int cuFuncGetAttribute(int *v, int a, struct function *f) { IN_CONTEXT; (void)f; *v = a == 4 ? 226 : 0; return 0; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, struct function *f, int block, size_t shared) {
  IN_CONTEXT;
  (void)f; (void)block;
  *n = (int)((163 << 10) / (shared + 1024));
  return 0;
}

static float bf16(uint16_t h) {
  uint32_t b = (uint32_t)h << 16;
  float f;
  memcpy(&f, &b, 4);
  return f;
}

/* Keeps what it was told, in the order of the parameters. */
int cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, ptr p, const uint64_t *dims, const uint64_t *strides,
                           const uint32_t *box, const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
  IN_CONTEXT;
  if ((uintptr_t)map % 64 || rank != 2 || p % 16 || strides[0] % 16 || box[0] > 256 || box[1] > 256) return INVALID_VALUE;
  uint64_t words[16] = {(uint64_t)type, rank, p, dims[0], dims[1], strides[0], box[0], box[1], steps[0], steps[1],
                        (uint64_t)interleave, (uint64_t)swizzle, (uint64_t)promotion, (uint64_t)fill, 14, 15};
  memcpy(map, words, sizeof words);
  return 0;
}

int cuLaunchKernel(struct function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, struct stream *s, void **params, void **extra) {
  ON(s);
  if (extra != NULL || (int)shared > f->shared) return INVALID_VALUE;
  if (!strcmp(f->name, "arguments")) { /* (uint32 *shape, long, int, float, double *out) */
    uint32_t shape[7] = {gx, gy, gz, bx, by, bz, shared};
    memcpy(*(void **)params[0], shape, sizeof shape);
    double *o = *(double **)params[4];
    o[0] = (double)*(int64_t *)params[1];
    o[1] = *(int32_t *)params[2];
    o[2] = *(float *)params[3];
    return 0;
  }
  if (!strcmp(f->name, "maps")) { /* (int, map, map, uint64 *out) */
    uint64_t *o = *(uint64_t **)params[3];
    memcpy(o, params[1], 128);
    memcpy(o + 16, params[2], 128);
    o[32] = (uint64_t)*(int *)params[0];
    return 0;
  }
  if (!strncmp(f->name, "gemm_bf16_nt_", 13)) { /* without bias and addend */
    int narrow = *(int *)params[12];
    void *C = *(void **)params[0];
    uint16_t *A = *(uint16_t **)params[1], *B = *(uint16_t **)params[2];
    int v[6];
    for (int i = 0; i < 6; i++) v[i] = *(int *)params[5 + i];
    for (int m = 0; m < v[0]; m++) {
      for (int n = 0; n < v[1]; n++) {
        float sum = 0;
        for (int k = 0; k < v[2]; k++) sum += bf16(A[m * v[4] + k]) * bf16(B[n * v[5] + k]);
        if (narrow) {
          uint32_t b;
          memcpy(&b, &sum, 4);
          ((uint16_t *)C)[m * v[3] + n] = (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
        } else {
          ((float *)C)[m * v[3] + n] = sum;
        }
      }
    }
    return 0;
  }
  return f->name[0] == 'x' ? 719 : 98; /* a launch that fails; a function without an image */
}
