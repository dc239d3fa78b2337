// warp.cc: the warp-wide instructions. The last lane to come performs the
// instruction for the warp: it reads and writes what the lanes' operands point
// to, on their stacks, while they wait.
#include <cmath>
#include <cstring>

#include "async.h"
#include "machine_run.h"

namespace emu {

namespace {

const char* const kNames[] = {"nothing", "warp_sync", "shuffle", "shuffle_xor", "ballot", "ldmatrix", "ldmatrix_trans", "mma",
                              "wgmma_fence", "wgmma", "wgmma_commit", "wgmma_wait", "registers_release or _claim"};

float bf16_at(u32 pair, u32 half) {
  u32 bits = half ? pair & 0xffff0000u : pair << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

void do_shuffle(Warp& w) {
  u32 values[kLanes];
  for (u32 i = 0; i < kLanes; i++) values[i] = ((ShuffleOperand*)w.operands[i])->value;
  for (u32 i = 0; i < kLanes; i++) {
    ShuffleOperand* o = (ShuffleOperand*)w.operands[i];
    o->result = values[o->lane];
  }
}

void do_ballot(Warp& w) {
  u32 bits = 0;
  for (u32 i = 0; i < kLanes; i++) bits |= ((ShuffleOperand*)w.operands[i])->value << i;
  for (u32 i = 0; i < kLanes; i++) ((ShuffleOperand*)w.operands[i])->result = bits;
}

// do_ldmatrix loads w.detail 8x8 matrices of 16-bit elements.
void do_ldmatrix(Warp& w, bool transposed) {
  for (u32 j = 0; j < w.detail; j++) {
    uint16_t m[8][8];
    u32 banks = 0;  // groups of four banks that the rows lie in
    for (u32 row = 0; row < 8; row++) {
      u32 address = ((LdmatrixOperand*)w.operands[8 * j + row])->address;
      Thread* reads = w.threads[8 * j + row];
      std::swap(self, reads);
      std::memcpy(m[row], shared_at(address, 16), 16);
      read_shared(address, 16);
      std::swap(self, reads);
      banks |= 1u << address / 16 % 8;
    }
    if (banks != 0xff && options().conflicts_fail) fail("ldmatrix meets a bank conflict in matrix %u", j);
    for (u32 i = 0; i < kLanes; i++) {
      u32 r = i / 4, c = i % 4 * 2;
      u32 low = transposed ? m[c][r] : m[r][c], high = transposed ? m[c + 1][r] : m[r][c + 1];
      ((LdmatrixOperand*)w.operands[i])->registers[j] = low | high << 16;
    }
  }
}

// cut_to returns x without what lies below unit, a power of two.
double cut_to(double x, double unit) { return std::trunc(x / unit) * unit; }

// cut_sum adds eight products to an accumulator as tensor cores have been measured
// to (Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor
// cores", 2021): all nine are aligned to the largest, what lies more than a bit
// below its last place in fp32 is lost, and the sum is cut to fp32.
double cut_sum(double d, const double* products) {
  double largest = std::fabs(d);
  for (int i = 0; i < 8; i++) largest = std::fmax(largest, std::fabs(products[i]));
  if (!(largest < INFINITY) || largest == 0) {
    for (int i = 0; i < 8; i++) d += products[i];
    return d;
  }
  double unit = std::ldexp(1.0, std::ilogb(largest) - 24), sum = cut_to(d, unit);
  for (int i = 0; i < 8; i++) sum += cut_to(products[i], unit);
  return sum == 0 ? 0 : cut_to(sum, std::ldexp(1.0, std::ilogb(sum) - 23));
}

// do_mma computes D += A·B, 16x8 from 16x16 and 16x8. Products of bf16 are exact
// in double, their sum nearly so, and the result is rounded to float once; or it is
// computed by cut_sum.
void do_mma(Warp& w) {
  double a[16][16], b[16][8], d[16][8];
  for (u32 i = 0; i < kLanes; i++) {
    const MmaOperand* o = (const MmaOperand*)w.operands[i];
    u32 g = i / 4, t = i % 4;
    for (u32 h = 0; h < 2; h++) {
      a[g][2 * t + h] = bf16_at(o->a[0], h);
      a[g + 8][2 * t + h] = bf16_at(o->a[1], h);
      a[g][2 * t + 8 + h] = bf16_at(o->a[2], h);
      a[g + 8][2 * t + 8 + h] = bf16_at(o->a[3], h);
      b[2 * t + h][g] = bf16_at(o->b[0], h);
      b[2 * t + 8 + h][g] = bf16_at(o->b[1], h);
      d[g][2 * t + h] = o->d[h];
      d[g + 8][2 * t + h] = o->d[2 + h];
    }
  }
  for (u32 m = 0; m < 16; m++) {
    for (u32 k = 0; k < 16; k++) {
      if (options().mma_cuts) break;
      for (u32 n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
    }
    for (u32 n = 0; n < 8 && options().mma_cuts; n++) {
      double products[16];
      for (u32 k = 0; k < 16; k++) products[k] = a[m][k] * b[k][n];
      d[m][n] = cut_sum(cut_sum(d[m][n], products), products + 8);
    }
  }
  for (u32 i = 0; i < kLanes; i++) {
    float* out = ((MmaOperand*)w.operands[i])->d;
    u32 g = i / 4, t = i % 4;
    for (u32 h = 0; h < 2; h++) {
      out[h] = (float)d[g][2 * t + h];
      out[2 + h] = (float)d[g + 8][2 * t + h];
    }
  }
}

}  // namespace

void perform(Warp& w) {
  switch (w.op) {
    case kNone:
      return;
    case kWarpSync:
      return race_warp_sync(&w);
    case kShuffle:
    case kShuffleXor:
      return do_shuffle(w);
    case kBallot:
      return do_ballot(w);
    case kLdmatrix:
      return do_ldmatrix(w, false);
    case kLdmatrixTrans:
      return do_ldmatrix(w, true);
    case kMma:
      return do_mma(w);
    default:
      return async_perform(w);
  }
}

void meet(Op op, void* operand, u32 detail) {
  Warp& w = *self->warp;
  if (w.arrived == 0) {
    w.op = op;
    w.detail = detail;
  } else if (w.op != op || w.detail != detail) {
    fail("lanes of a warp meet in different instructions: %s and %s", kNames[w.op], kNames[op]);
  }
  w.operands[self->lane] = operand;
  if (++w.arrived < kLanes) {
    suspend();
    return;
  }
  perform(w);
  w.arrived = 0;
  for (u32 i = kLanes; i-- > 0;) {
    if (w.threads[i] != self) wake(w.threads[i]);
  }
}

}  // namespace emu
