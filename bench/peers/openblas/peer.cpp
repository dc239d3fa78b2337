// OpenBLAS's sgemm on 2 threads: C = A·Bᵀ on the plain weights.
#include "../gemm.hpp"

#include <cblas.h>

// After a call OpenBLAS's worker spins for 2^THREAD_TIMEOUT cycles, then sleeps. That is kept (the next call finds it
// awake), but no reply is given before the worker sleeps: what is measured next must have the cores to itself. run sets
// the exponent to 23, 4 ms at 2 GHz; calls inside one request follow each other at once and never see it asleep.
static const auto settle = std::chrono::milliseconds(6);

struct OpenBLAS : peer::Gemm {
    using Gemm::Gemm;
    std::vector<std::string> variants() const override { return {"gemm"}; }
    void repeat(const std::string &) override {
        scipy_cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1, a.data(), k, b.data(), k, 0, c.data(), n);
    }
    void end(const std::string &) override { std::this_thread::sleep_for(settle); }
};

int main() {
    scipy_openblas_set_num_threads(peer::threads());
    std::string config = scipy_openblas_get_config(); // "OpenBLAS 0.3.30 NO_AFFINITY ..."
    std::string version = config.substr(config.find(' ') + 1);
    version = version.substr(0, version.find(' '));
    std::string detail = std::string(scipy_openblas_get_corename()) + " kernels, " + std::to_string(scipy_openblas_get_num_threads()) + " threads";
    return peer::serve("openblas", version, detail, {"gemm"}, [](const peer::Request &r) { return std::make_unique<OpenBLAS>(r); });
}
