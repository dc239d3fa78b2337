// What the work "gemm" is given and must make: C = A·Bᵀ, A m×k, B n×k, C m×n, row-major float32.
#pragma once

#include "protocol.hpp"

namespace peer {

struct Gemm : Work {
    long m, n, k;
    std::vector<float> a, b, c;

    explicit Gemm(const Request &r) : m(r.num("m")), n(r.num("n")), k(r.num("k")) {
        if (r.str("work") != "gemm")
            throw Error("unknown work " + r.str("work"));
        if (m < 1 || n < 1 || k < 1)
            throw Error("m, n and k must be positive");
        a = read<float>(r.str("a"), m * k);
        b = read<float>(r.str("b"), n * k);
        c.assign(m * n, 0);
    }
    std::vector<float> output(const std::string &variant) override {
        c.assign(m * n, -1); // what an earlier variant left there is no result of this one
        begin(variant);
        repeat(variant);
        end(variant);
        return c;
    }
};

} // namespace peer
