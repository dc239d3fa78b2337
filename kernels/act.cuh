// act.cuh: exponentials, logarithm, sigmoid and SwiGLU, for every kernel that
// needs one: what is computed in two places is computed to the same bits.
//
// exp2_fast and log2_fast are the only transcendental functions of a GPU without
// libdevice. exp_of reduces its argument exactly first, so that its error does
// not grow with the argument, as that of exp2_fast(x·log2 e) would (by |x|/2 ulp).
#pragma once
#include "device.cuh"

namespace updraft {

// exp_of returns e^x for x ≤ 88, within 3 ulp; below e^-87, zero. NaN stays.
//
// With n = round(x·log2 e) and f = x·log2 e − n, computed with log2 e in two
// parts, e^x = 2^n·2^f. Adding 1.5·2^23 rounds to an integer, which is then in
// the sum's low bits, from where a shift moves it to the place of the exponent.
DEVICE float exp_of(float x) {
  constexpr float kLog2e = 1.44269502f, kLog2eLow = 1.92596299e-8f, kRound = 12582912.0f;
  float sum = fma(x, kLog2e, kRound);
  float f = fma(x, kLog2eLow, fma(x, kLog2e, -(sum - kRound)));
  float e = bits_float(float_bits(exp2_fast(f)) + (float_bits(sum) << 23));
  return x < -87.0f ? 0.0f : e;
}

// log_of returns the natural logarithm.
DEVICE float log_of(float x) { return log2_fast(x) * 0.693147182f; }

// Sigmoid holds σ(x) = 1/(1+e^−x) and 1 − σ(x), neither by cancellation.
struct Sigmoid {
  float yes, no;
};

DEVICE Sigmoid sigmoid(float x) {
  float e = exp_of(x < 0 ? x : -x);
  float large = 1.0f / (1.0f + e), small = e * large;
  return x < 0 ? Sigmoid{small, large} : Sigmoid{large, small};
}

// swiglu returns silu(gate)·up.
DEVICE float swiglu(float gate, float up) { return gate * sigmoid(gate).yes * up; }

// swiglu_backward returns the gradients of gate and up, for that of the result:
// dy·up·σ·(1 + gate·(1−σ)) and dy·gate·σ.
DEVICE float2 swiglu_backward(float dy, float gate, float up) {
  Sigmoid s = sigmoid(gate);
  return float2{dy * up * s.yes * (1.0f + gate * s.no), dy * gate * s.yes};
}

}  // namespace updraft
