// gemm_main: runs gemm_bf16.cu on the emulator, for gemm_emulated_test.go.
//
// Reads requests from stdin until it ends, each nine little-endian int32 (0 for
// gemm_bf16_f32 or 1 for gemm_bf16_bf16, M, N, K, ldc, lda, ldb, landing, seed)
// and then A and B, rows at their strides, the last row without its padding.
// Answers each with a u64, the number of ldmatrix bank conflicts, and the bytes
// of C between two guard zones of kGuard bytes, all of it 0xa5 before the run.
#include "gemm_bf16.cu"

constexpr size_t kGuard = 4096;

static bool read_all(void* p, size_t n) { return std::fread(p, 1, n, stdin) == n; }

// Operand is a 16-byte aligned copy of a matrix, of exactly its size.
struct Operand {
  explicit Operand(size_t n) : bytes(n), data((char*)std::aligned_alloc(16, (n + 16) / 16 * 16)) {}
  ~Operand() { std::free(data); }
  size_t bytes;
  char* data;
};

int main() {
  using namespace updraft;
  int h[9];
  while (read_all(h, sizeof h)) {
    int M = h[1], N = h[2], K = h[3], ldc = h[4], lda = h[5], ldb = h[6];
    Operand A((size_t)((M - 1) * (long long)lda + K) * 2), B((size_t)((N - 1) * (long long)ldb + K) * 2);
    if (!read_all(A.data, A.bytes) || !read_all(B.data, B.bytes)) emu::fail("short request");
    size_t c_bytes = (size_t)M * ldc * (h[0] ? 2 : 4);
    Operand C(c_bytes + 2 * kGuard);
    std::memset(C.data, 0xa5, C.bytes);

    emu::Options options;
    options.landing = (emu::Landing)h[7];
    options.seed = (u32)h[8];
    emu::Machine machine(options);
    machine.regions = {{A.data, A.data + A.bytes}, {B.data, B.data + B.bytes}};
    emu::machine = &machine;
    u32 grid = (u32)((M + kTileM - 1) / kTileM) * (u32)((N + kTileN - 1) / kTileN);
    machine.run(grid, kThreads, kStages * kStageBytes, [&] {
      const bf16 *a = (const bf16*)A.data, *b = (const bf16*)B.data;
      char* c = C.data + kGuard;
      if (h[0]) {
        gemm_bf16_bf16((bf16*)c, a, b, M, N, K, ldc, lda, ldb);
      } else {
        gemm_bf16_f32((float*)c, a, b, M, N, K, ldc, lda, ldb);
      }
    });
    std::fwrite(&machine.stats.ldmatrix_conflicts, 8, 1, stdout);
    std::fwrite(C.data, 1, C.bytes, stdout);
    std::fflush(stdout);
  }
  return 0;
}
