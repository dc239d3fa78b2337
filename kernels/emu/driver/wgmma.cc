// wgmma.cc: products of a warpgroup, each warp for its 16 rows of D, and the registers
// that warpgroups hand each other.
#include <algorithm>
#include <cstring>

#include "async_state.h"

namespace emu {

namespace {

// An accumulator that may not be read: a signalling NaN, so that arithmetic with it
// does not give the same bits.
constexpr u32 kPoison = 0x7fa0dead;

WarpAsync& async_of(const Warp& w) { return async.warps[w.threads[0]->index / kLanes]; }

// --- Products ---------------------------------------------------------------

Tile decode(u64 d, bool transposed, u32 extent, const char* name) {
  Tile t;
  t.start = (u32)(d & 0x3fff) << 4;
  t.leading = (u32)(d >> 16 & 0x3fff) << 4;
  t.stride = (u32)(d >> 32 & 0x3fff) << 4;
  t.transposed = transposed;
  t.extent = extent;
  constexpr u64 kReserved = 3ull << 14 | 3ull << 30 | 7ull << 46 | 0x3ffull << 52;
  if ((d & kReserved) != 0) fail("descriptor of %s: reserved bits are set in %016llx", name, (unsigned long long)d);
  if (d >> 62 != 1) fail("descriptor of %s: swizzle mode %u, where 1 (128 bytes) is expected", name, (u32)(d >> 62));
  // With atoms aligned, a base offset would only turn the swizzle away from where the copies put it.
  if ((d >> 49 & 7) != 0) fail("descriptor of %s: base offset %u of atoms that are aligned", name, (u32)(d >> 49 & 7));
  if (transposed ? t.start % kAtom != 0 : t.start % kAtom > kRow - 32 || t.start % 32 != 0) {
    fail("descriptor of %s: starts at %u, inside of an atom", name, t.start);
  }
  if (t.stride == 0 || t.stride % kAtom != 0) fail("descriptor of %s: a stride of %u bytes between atoms", name, t.stride);
  if (transposed && extent % 64 != 0) fail("operand %s in MN-major order has %u values, not a multiple of 64", name, extent);
  if (transposed && extent > 64 && (t.leading == 0 || t.leading % kAtom != 0)) {
    fail("descriptor of %s: a leading offset of %u bytes between slabs", name, t.leading);
  }
  return t;
}

// values reads `count` rows of 16 values along K, from row `first` on.
void values(const Tile& t, u32 first, u32 count, float* out, const char* name) {
  auto take = [&](u32 mn, u32 k, uint16_t (&v)[8]) {
    u32 a = t.chunk(mn, k);
    std::memcpy(v, shared_at(a, 16), 16);
    for (u32 i = 0; i < 4; i++) {
      if (u32 w = async.writer[(a - async.block->base) / 4 + i]) {
        fail("wgmma reads operand %s at %u, which thread %u wrote without a fence_proxy_async() after", name, a, w - 1);
      }
    }
  };
  auto widen = [](uint16_t h) {
    u32 bits = (u32)h << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
  };
  uint16_t v[8];
  if (t.transposed) {
    for (u32 k = 0; k < 16; k++) {
      for (u32 i = 0; i < count; i += 8) {
        take(first + i, k, v);
        for (u32 e = 0; e < 8; e++) out[(i + e) * 16 + k] = widen(v[e]);
      }
    }
    return;
  }
  for (u32 i = 0; i < count; i++) {
    for (u32 k = 0; k < 16; k += 8) {
      take(first + i, k, v);
      for (u32 e = 0; e < 8; e++) out[i * 16 + k + e] = widen(v[e]);
    }
  }
}

}  // namespace

// multiply does the next product of a warp: its 16 rows of D.
void multiply(u32 warp) {
  WarpAsync& w = async.warps[warp];
  const Product& p = w.products[w.done++];
  float a[16 * 16];
  static float b[256 * 16];
  values(p.a, warp % 4 * 16, 16, a, "A");
  values(p.b, 0, p.n, b, "B");
  for (u32 lane = 0; lane < kLanes; lane++) {
    float* d = &p.d->values[lane * p.d->registers];
    for (u32 r = 0; r < p.d->registers; r++) {
      u32 row = lane / 4 + r % 4 / 2 * 8, column = r / 4 * 8 + lane % 4 * 2 + r % 2;
      double sum = d[r];
      for (u32 k = 0; k < 16; k++) sum += (double)a[row * 16 + k] * b[column * 16 + k];
      d[r] = (float)sum;
    }
  }
}

namespace {

bool products_now() {
  switch (options().landing) {
    case Options::kLate:
      return true;
    case Options::kAtOnce:
      return false;
    default:
      return random_number() >> 16 & 1;
  }
}

// count_reading adds to the atoms that a product reads the number of products that do.
void count_reading(const Product& p, int by) {
  auto count = [by](u32 atom) {
    u32 i = (atom - async.block->base) / kAtom;
    if (i < async.reading.size()) async.reading[i] += (u32)by;
  };
  p.a.atoms(count);
  p.b.atoms(count);
}

void check_poison(const Accumulators& d) {
  for (u32 lane = 0; lane < kLanes; lane++) {
    for (u32 r = 0; r < d.registers; r++) {
      u32 bits;
      std::memcpy(&bits, &d.lanes[lane][r], 4);
      if (bits != kPoison) fail("accumulator %u of lane %u was written while a wgmma may be writing it", r, lane);
    }
  }
}

void issue(Warp& w) {
  u32 index = w.threads[0]->index / kLanes;
  WarpAsync& own = async.warps[index];
  const WgmmaOperand& first = *(const WgmmaOperand*)w.operands[0];
  for (u32 i = 1; i < kLanes; i++) {
    const WgmmaOperand& o = *(const WgmmaOperand*)w.operands[i];
    if (o.a != first.a || o.b != first.b) fail("lanes of a warp differ in a wgmma's operands");
  }
  Issued what{first.a, first.b, w.detail};
  std::vector<Issued>& group = async.warpgroups[index / 4];
  if (own.issued == group.size()) group.push_back(what);
  if (!(group[own.issued++] == what)) fail("the warps of a warpgroup differ in their wgmma number %u", own.issued - 1);

  u32 n = w.detail & 0xffff;
  Product p{decode(first.a, w.detail >> 16 & 1, 64, "A"), decode(first.b, w.detail >> 17 & 1, n, "B"), n, nullptr};
  Accumulators& d = own.accumulators[first.accumulators];
  if (!d.owned) {
    if (own.fences <= d.returned) fail("wgmma on accumulators that were touched since the last wgmma_fence()");
    d.registers = n / 2;
    d.values.resize(kLanes * d.registers);
    d.owned = true;
    for (u32 lane = 0; lane < kLanes; lane++) {
      d.lanes[lane] = ((const WgmmaOperand*)w.operands[lane])->accumulators;
      std::memcpy(&d.values[lane * d.registers], d.lanes[lane], d.registers * 4);
      for (u32 r = 0; r < d.registers; r++) std::memcpy(&d.lanes[lane][r], &kPoison, 4);
    }
  } else {
    if (d.registers != n / 2) fail("wgmma of another shape on accumulators that have not been waited for");
    check_poison(d);
  }
  p.d = &d;
  count_reading(p, 1);
  own.products.push_back(p);
  own.open++;
  if (products_now()) {
    while (own.done < own.products.size()) multiply(index);
  }
}

void commit(Warp& w) {
  WarpAsync& own = async_of(w);
  own.groups.push_back(own.open);
  own.open = 0;
}

void wait_for(Warp& w) {
  u32 index = w.threads[0]->index / kLanes;
  WarpAsync& own = async.warps[index];
  while (own.groups.size() > w.detail) {
    u32 n = own.groups.front();
    own.groups.pop_front();
    while (own.done < n) multiply(index);
    for (u32 i = 0; i < n; i++) count_reading(own.products[i], -1);
    own.products.erase(own.products.begin(), own.products.begin() + n);
    own.done -= n;
  }
  for (auto& entry : own.accumulators) {
    Accumulators& d = entry.second;
    bool busy = std::any_of(own.products.begin(), own.products.end(), [&](const Product& p) { return p.d == &d; });
    if (!d.owned || busy) continue;
    check_poison(d);
    for (u32 lane = 0; lane < kLanes; lane++) std::memcpy(d.lanes[lane], &d.values[lane * d.registers], d.registers * 4);
    d.owned = false;
    d.returned = own.fences;
  }
}

}  // namespace

void check_not_read(u32 address, u32 bytes, const char* what) {
  u32 first = (address - async.block->base) / kAtom, last = (address + bytes - 1 - async.block->base) / kAtom;
  for (u32 i = first; i <= last; i++) {
    if (async.reading[i] != 0) fail("%s at %u under a wgmma that was not waited for", what, async.block->base + i * kAtom);
  }
}

void wgmma(WgmmaOperand* o, u32 n, bool trans_a, bool trans_b) { meet(kWgmma, o, n | (u32)trans_a << 16 | (u32)trans_b << 17); }
void wgmma_fence() { meet(kWgmmaFence, nullptr); }
void wgmma_commit() { meet(kWgmmaCommit, nullptr); }
void wgmma_wait(u32 groups) { meet(kWgmmaWait, nullptr, groups); }

// move_registers: one lane of a warp does it between two meetings of all.
static void move_registers(u32 per_thread, bool claim) {
  meet(kRegisters, nullptr, per_thread | (u32)claim << 16);
  WarpAsync& w = async.warps[self->index / kLanes];
  if (self->lane == 0) {
    async.used = true;
    if (async.capped == 0) fail("registers are moved in a kernel without a cap at its launch");
    if (claim ? per_thread < w.registers : per_thread > w.registers) {
      fail("registers_%s<%u>() by a warp that has %u", claim ? "claim" : "release", per_thread, w.registers);
    }
    if (claim) {
      u32 want = (per_thread - w.registers) * kLanes;
      while (async.free_registers < want) {
        async.claiming.push_back(self);
        suspend();
      }
      async.free_registers -= want;
    } else {
      async.free_registers += (w.registers - per_thread) * kLanes;
      for (Thread* t : async.claiming) wake(t);
      async.claiming.clear();
    }
    w.registers = per_thread;
    w.moves++;
  }
  meet(kRegisters, nullptr, per_thread | (u32)claim << 16);
}
void registers_release(u32 per_thread) { move_registers(per_thread, false); }
void registers_claim(u32 per_thread) { move_registers(per_thread, true); }

void async_finish_thread() {
  if (!async.used || self->lane != 0) return;
  const WarpAsync& w = async.warps[self->index / kLanes];
  if (w.open > 0) fail("the warp ends with wgmmas that were not committed");
  if (!w.products.empty()) fail("the warp ends with wgmmas that were not waited for");
}

void async_perform(Warp& w) {
  async.used = true;
  switch (w.op) {
    case kWgmma:
      return issue(w);
    case kWgmmaCommit:
      return commit(w);
    case kWgmmaWait:
      return wait_for(w);
    case kWgmmaFence:
      async_of(w).fences++;
      return;
    default:
      return;
  }
}

}  // namespace emu
