// oneDNN's matrix products: C = A·Bᵀ.
//
// gemm: dnnl_sgemm on the plain weights. packed: the matmul primitive with the weights in the layout that oneDNN asks for,
// reordered when the work is prepared and not timed, which is how inference with it is meant.
#include "../gemm.hpp"

#include <dnnl.hpp>

#include <unordered_map>

using namespace dnnl;

// After a call libgomp's worker spins for a while, then sleeps (GOMP_SPINCOUNT, set by run). No reply is given before: what
// is measured next must have the cores to itself. Calls inside one request follow each other at once.
static const auto settle = std::chrono::milliseconds(6);

struct OneDNN : peer::Gemm {
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    matmul product;
    std::unordered_map<int, memory> operands;

    explicit OneDNN(const peer::Request &r) : Gemm(r) {
        using tag = memory::format_tag;
        auto f32 = memory::data_type::f32;
        memory::desc src({m, k}, f32, tag::ab), any({k, n}, f32, tag::any), dst({m, n}, f32, tag::ab);
        matmul::primitive_desc pd(cpu, src, any, dst);
        memory plain({{k, n}, f32, tag::ba}, cpu, b.data()), packed(pd.weights_desc(), cpu);
        reorder(plain, packed).execute(queue, plain, packed);
        queue.wait();
        product = matmul(pd);
        operands = {{DNNL_ARG_SRC, memory(src, cpu, a.data())}, {DNNL_ARG_WEIGHTS, packed}, {DNNL_ARG_DST, memory(dst, cpu, c.data())}};
        std::cerr << m << "x" << n << "x" << k << " packed: " << pd.impl_info_str() << "\n";
    }
    std::vector<std::string> variants() const override { return {"gemm", "packed"}; }
    void repeat(const std::string &variant) override {
        if (variant == "gemm") {
            dnnl_sgemm('N', 'T', m, n, k, 1, a.data(), k, b.data(), k, 0, c.data(), n);
        } else if (variant == "packed") {
            product.execute(queue, operands);
            queue.wait();
        } else {
            throw peer::Error("unknown variant " + variant);
        }
    }
    void end(const std::string &) override { std::this_thread::sleep_for(settle); }
};

static std::string isa() {
    switch (get_effective_cpu_isa()) {
    case cpu_isa::avx2: return "AVX2";
    case cpu_isa::avx2_vnni: return "AVX2 VNNI";
    case cpu_isa::avx512_core: return "AVX-512";
    case cpu_isa::avx512_core_vnni: return "AVX-512 VNNI";
    case cpu_isa::avx512_core_bf16: return "AVX-512 BF16";
    case cpu_isa::avx512_core_fp16: return "AVX-512 FP16";
    case cpu_isa::avx512_core_amx: return "AVX-512 AMX";
    default: return "instruction set " + std::to_string(int(get_effective_cpu_isa()));
    }
}

int main() {
    auto v = dnnl_version();
    std::string version = std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
    std::string detail = isa() + ", " + std::to_string(peer::threads()) + " OpenMP threads";
    return peer::serve("onednn", version, detail, {"gemm"}, [](const peer::Request &r) { return std::make_unique<OneDNN>(r); });
}
