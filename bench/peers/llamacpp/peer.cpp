// llama.cpp: prefill and batched decode of a GGUF file on the CPU.
//
// A variant's name is words. f32: everything is float32. f16: llama.cpp's defaults, keys and values in half precision and
// flash attention, which computes in half precision even where the cache is float32. "unified": one buffer of keys and
// values for all sequences instead of one each. "blas": products of 32 rows and more go to OpenBLAS, llama.cpp's own option
// for prompts.
#include "../protocol.hpp"

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <llama.h>

#include <cstring>
#include <dlfcn.h>

using peer::Error;
using peer::Request;

static bool has(const std::string &variant, const char *word) { return (" " + variant + " ").find(" " + std::string(word) + " ") != std::string::npos; }

// The CPU's backend is a library chosen at run time; its functions are asked for by name.
template <class F> static F *cpu_function(const char *name) {
    static auto registered = ggml_backend_dev_backend_reg(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU));
    static void *library = [] {
        Dl_info where;
        void *inside = ggml_backend_reg_get_proc_address(registered, "ggml_threadpool_new");
        return inside && dladdr(inside, &where) ? dlopen(where.dli_fname, RTLD_NOW) : nullptr;
    }();
    void *f = ggml_backend_reg_get_proc_address(registered, name);
    if (!f && library)
        f = dlsym(library, name);
    if (!f)
        throw Error(std::string("the CPU's backend has no ") + name);
    return reinterpret_cast<F *>(f);
}

// The threads of all contexts with or without OpenBLAS; a context without a pool starts threads anew for each graph. They
// poll between graphs, and for long after the last one unless paused. Where OpenBLAS's threads want the cores in between,
// none polls. A context's backend goes on pointing to its pool, so it is never freed.
static ggml_threadpool_t pool(bool blas) {
    static ggml_threadpool_t pools[2];
    if (!pools[blas]) {
        auto params = ggml_threadpool_params_default(peer::threads());
        if (blas)
            params.poll = 0;
        pools[blas] = cpu_function<decltype(ggml_threadpool_new)>("ggml_threadpool_new")(&params);
    }
    return pools[blas];
}

// While one is there, a new context uses OpenBLAS: llama.cpp asks for the registered devices when a context is made. The
// library itself stays, since contexts go on using it.
struct WithBlas {
    ggml_backend_reg_t reg;
    WithBlas() {
        static void *kept = dlopen(LLAMA_BLAS, RTLD_NOW);
        reg = kept ? ggml_backend_load(LLAMA_BLAS) : nullptr;
        if (!reg)
            throw Error("no " LLAMA_BLAS);
    }
    ~WithBlas() { ggml_backend_unload(reg); }
};

struct Context {
    llama_context *ctx;

    Context(llama_model *model, const std::string &variant, int sequences, int length) {
        auto p = llama_context_default_params();
        bool unified = has(variant, "unified"), f32 = has(variant, "f32");
        p.n_ctx = sequences * length; // llama.cpp rounds up
        p.n_batch = p.n_ubatch = std::max(sequences, length);
        p.n_seq_max = sequences;
        p.n_threads = p.n_threads_batch = peer::threads();
        p.type_k = p.type_v = f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
        p.flash_attn_type = f32 ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
        p.kv_unified = unified;
        p.no_perf = true;
        bool blas = has(variant, "blas");
        auto with = blas ? std::make_unique<WithBlas>() : nullptr;
        ctx = llama_init_from_model(model, p);
        if (!ctx)
            throw Error("llama.cpp makes no context for variant " + variant);
        llama_attach_threadpool(ctx, pool(blas), pool(blas));
    }
    ~Context() { llama_free(ctx); }
};

// Tokens with their places; which of them want logits.
struct Batch {
    llama_batch b;
    explicit Batch(int n) : b(llama_batch_init(n, 0, 1)) {}
    ~Batch() { llama_batch_free(b); }
    void add(llama_token token, int pos, int sequence, bool logits) {
        int i = b.n_tokens++;
        b.token[i] = token;
        b.pos[i] = pos;
        b.n_seq_id[i] = 1;
        b.seq_id[i][0] = sequence;
        b.logits[i] = logits;
    }
    void decode(llama_context *ctx) {
        if (llama_decode(ctx, b) != 0)
            throw Error("llama_decode failed");
    }
};

struct Llama : peer::Work {
    llama_model *model;
    int vocab;
    std::map<std::string, std::unique_ptr<Context>> contexts; // by variant

    explicit Llama(const Request &r) {
        model = llama_model_load_from_file(r.str("gguf").c_str(), llama_model_default_params());
        if (!model)
            throw Error("llama.cpp does not load " + r.str("gguf"));
        vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    }
    ~Llama() override {
        contexts.clear();
        llama_model_free(model);
    }
    llama_context *context(const std::string &variant) { return contexts.at(variant)->ctx; }
    virtual std::unique_ptr<Context> make(const std::string &variant) = 0;

    void begin(const std::string &variant) override {
        if (!contexts.count(variant))
            contexts[variant] = make(variant);
    }
    void end(const std::string &variant) override { cpu_function<decltype(ggml_threadpool_pause)>("ggml_threadpool_pause")(pool(has(variant, "blas"))); }
    std::vector<float> output(const std::string &variant) override {
        begin(variant);
        repeat(variant);
        end(variant);
        return logits(variant);
    }
    virtual std::vector<float> logits(const std::string &variant) = 0;
};

struct Prefill : Llama {
    int length;
    Batch batch;

    explicit Prefill(const Request &r) : Llama(r), length(r.num("length")), batch(length) {
        auto ids = peer::read<int32_t>(r.str("tokens"), length);
        for (int i = 0; i < length; i++)
            batch.add(ids[i], i, 0, i == length - 1);
    }
    std::vector<std::string> variants() const override { return {"f32", "f32 blas", "f16", "f16 blas"}; }
    std::unique_ptr<Context> make(const std::string &variant) override { return std::make_unique<Context>(model, variant, 1, length); }
    void repeat(const std::string &variant) override {
        auto ctx = context(variant);
        llama_memory_clear(llama_get_memory(ctx), false);
        batch.decode(ctx);
        llama_synchronize(ctx);
    }
    std::vector<float> logits(const std::string &variant) override {
        const float *last = llama_get_logits_ith(context(variant), -1);
        return std::vector<float>(last, last + vocab);
    }
};

struct Decode : Llama {
    int rows, prompt, fresh;
    std::vector<int32_t> ids;
    std::vector<std::unique_ptr<Batch>> steps; // one token of each row

    explicit Decode(const Request &r) : Llama(r), rows(r.num("batch")), prompt(r.num("prompt")), fresh(r.num("new")) {
        ids = peer::read<int32_t>(r.str("tokens"), rows * length());
        for (int t = prompt; t < length(); t++) {
            steps.push_back(std::make_unique<Batch>(rows));
            for (int row = 0; row < rows; row++)
                steps.back()->add(ids[row * length() + t], t, row, true);
        }
    }
    int length() const { return prompt + fresh; }
    std::vector<std::string> variants() const override {
        if (rows == 1)
            return {"f32", "f16"};
        if (rows < 32)
            return {"f32", "f32 unified", "f16", "f16 unified"};
        return {"f32", "f32 unified", "f32 blas", "f16", "f16 unified", "f16 blas"};
    }
    std::unique_ptr<Context> make(const std::string &variant) override {
        auto c = std::make_unique<Context>(model, variant, rows, length());
        for (int row = 0; row < rows; row++) {
            Batch b(prompt);
            for (int t = 0; t < prompt; t++)
                b.add(ids[row * length() + t], t, row, t == prompt - 1);
            b.decode(c->ctx);
        }
        return c;
    }
    void repeat(const std::string &variant) override {
        auto ctx = context(variant);
        for (int row = 0; row < rows; row++)
            llama_memory_seq_rm(llama_get_memory(ctx), row, prompt, -1);
        for (auto &step : steps)
            step->decode(ctx);
        llama_synchronize(ctx);
    }
    std::vector<float> logits(const std::string &variant) override {
        const float *all = llama_get_logits(context(variant));
        return std::vector<float>(all, all + rows * vocab);
    }
};

// The features that the chosen CPU backend was compiled for.
static std::string features() {
    std::string out;
    for (auto f = cpu_function<ggml_backend_feature *(ggml_backend_reg_t)>("ggml_backend_get_features")(nullptr); f->name; f++)
        if (std::strcmp(f->value, "0") != 0)
            out += std::string(f->name) + " ";
    return out;
}

int main() {
    llama_log_set([](ggml_log_level level, const char *text, void *) {
        if (level >= GGML_LOG_LEVEL_WARN)
            std::fputs(text, stderr);
    }, nullptr);
    ggml_backend_load_all_from_path(LLAMA_LIBRARIES);
    std::string detail = features() + std::to_string(peer::threads()) + " threads";
    return peer::serve("llamacpp", LLAMA_RELEASE, detail, {"prefill", "decode"}, [](const Request &r) -> std::unique_ptr<peer::Work> {
        if (r.str("work") == "prefill")
            return std::make_unique<Prefill>(r);
        if (r.str("work") == "decode")
            return std::make_unique<Decode>(r);
        throw Error("unknown work " + r.str("work"));
    });
}
