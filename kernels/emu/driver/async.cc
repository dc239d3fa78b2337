// async.cc: what sm_90a does while threads go on: copies by the tensor engine, and
// barriers in shared memory that count them. (wgmma.cc has the products.)
//
// When it happens: a copy lands at once, or at a random moment, or when no thread can
// run without it. A product happens, for each warp and in the order of issue, at the
// other extreme: at its wait where copies land at once, when it is issued where they
// land late. So a product meets a stage that was refilled too early, and one that was
// not there yet.
#include <algorithm>
#include <cstring>

#include "async_state.h"

namespace emu {

Async async;

namespace {

Mbarrier& barrier_at(u32 bar) {
  shared_at(bar, 8);
  auto i = async.barriers.find(bar);
  if (i == async.barriers.end()) fail("shared address %u holds no mbarrier", bar);
  return i->second;
}

void complete_if_due(Mbarrier& b) {
  if (b.pending != 0 || b.tx != 0) return;
  b.phase++;
  b.pending = b.count;
  b.completed = b.arriving;
  b.arriving = BarrierKnowledge{};
  for (size_t i = b.waiting.size(); i-- > 0;) wake(b.waiting[i]);
  b.waiting.clear();
}

void arrive(u32 bar, Mbarrier& b) {
  if (b.pending == 0) fail("mbarrier %u: more arrivals in a phase than its count of %u", bar, b.count);
  race_arrive(&b.arriving);
  b.pending--;
  complete_if_due(b);
}

// --- Copies -----------------------------------------------------------------

// expect says, or with -1 takes back, that c will write where it goes to.
void expect(const BoxCopy& c, int by) {
  u32 first = (c.dst - async.block->base) / 4;
  for (u32 i = first; i < first + c.bytes() / 4; i++) async.block->pending[i] = (uint16_t)(async.block->pending[i] + by);
}

void land(size_t i) {
  BoxCopy c = async.copies[i];
  expect(c, -1);
  async.copies.erase(async.copies.begin() + (long)i);
  for (u32 r = 0; r < c.map.box_rows; r++) {
    int64_t y = (int64_t)c.y + r;
    bool row_in = y >= 0 && y < (int64_t)c.map.rows;
    for (u32 chunk = 0; chunk < c.map.box_columns / 8; chunk++) {
      uint16_t v[8] = {};
      for (u32 e = 0; e < 8; e++) {
        int64_t x = (int64_t)c.x + chunk * 8 + e;
        if (!row_in || x < 0 || x >= (int64_t)c.map.columns) continue;
        const char* p = (const char*)c.map.address + y * (int64_t)c.map.stride + x * 2;
        if (!device_memory(p, 2)) fail("a tensor map leads to %p, outside of device memory", (const void*)p);
        std::memcpy(&v[e], p, 2);
      }
      u32 a = c.dst + r * kRow + chunk * 16;
      std::memcpy(shared_at(swizzled(a), 16), v, 16);
    }
  }
  Mbarrier& b = barrier_at(c.bar);
  b.tx -= c.bytes();
  complete_if_due(b);
}

}  // namespace

// --- What kernels call ------------------------------------------------------

void check_parameter(const char* entry, u32 i, const void* p, u32 size) {
  const Kernel* k = self->block->kernel;
  if (std::strcmp(k->name, entry) != 0) fail("a parameter of %s is asked for in %s", entry, k->name);
  if (i >= k->parameters || k->sizes[i] != size || std::memcmp(argument(i), p, size) != 0) fail("the parameter asked for is not number %u", i);
}

void tensor_prefetch(const void* map) {
  EncodedMap m;
  std::memcpy(&m, map, sizeof m);
  if (m.mark != kTensorMapMark) fail("not a tensor map");
}

void tensor_load(u32 dst, const void* map, int x, int y, u32 bar) {
  tensor_prefetch(map);
  BoxCopy c;
  std::memcpy(&c.map, map, sizeof c.map);
  c.x = x;
  c.y = y;
  c.dst = dst;
  c.bar = bar;
  if (c.map.swizzle != 3 || c.map.box_columns != 64) {
    fail("a box of %u columns in swizzle %u: only boxes of 64 in 128-byte swizzle are known here", c.map.box_columns, c.map.swizzle);
  }
  if (dst % kAtom != 0) fail("a box is copied to %u, which is no multiple of %u", dst, kAtom);
  if (!barrier_at(bar).fenced) fail("mbarrier %u is used by a copy without mbarrier_init_fence()", bar);
  u32 end = dst + c.bytes();
  for (u32 a = dst; a < end; a += kRow) shared_at(a, 16);
  check_not_read(dst, c.bytes(), "a copy is started");
  expect(c, 1);
  async.copies.push_back(c);
  if (options().landing == Options::kAtOnce) land(async.copies.size() - 1);
  progress();
}

void mbarrier_init(u32 bar, u32 count) {
  async.used = true;
  shared_at(bar, 8);
  if (count == 0 || count >= 1u << 20) fail("mbarrier %u: a count of %u", bar, count);
  Mbarrier& b = async.barriers[bar];
  if (b.count != 0) fail("mbarrier %u is initialised again", bar);
  b.count = b.pending = count;
  b.initialised_by = self->index;
}

void mbarrier_init_fence() {
  for (auto& e : async.barriers) {
    if (e.second.initialised_by == self->index) e.second.fenced = true;
  }
}

void mbarrier_arrive(u32 bar) { arrive(bar, barrier_at(bar)); }

void mbarrier_expect_tx(u32 bar, u32 bytes) {
  Mbarrier& b = barrier_at(bar);
  b.tx += bytes;
  if (b.tx >= 1 << 20) fail("mbarrier %u: a tx-count of %lld", bar, (long long)b.tx);
  arrive(bar, b);
}

void mbarrier_wait(u32 bar, u32 parity) {
  if (parity > 1) fail("mbarrier %u: a parity of %u", bar, parity);
  Mbarrier& b = barrier_at(bar);
  while ((b.phase & 1) == parity) {
    b.waiting.push_back(self);
    suspend();
  }
  race_pass(b.completed, self);
}

void fence_proxy_async() {
  for (u32 i : async.unfenced[self->index]) {
    if (async.writer[i] == self->index + 1) async.writer[i] = 0;
  }
  async.unfenced[self->index].clear();
}

// --- What machine.cc calls --------------------------------------------------

void async_start_block(Block* b) {
  async = Async{};
  async.block = b;
  if (b->base != kBaseSm90a) return;
  u32 warps = (b->threads + kLanes - 1) / kLanes;
  async.warps.resize(warps);
  async.warpgroups.resize((warps + 3) / 4);
  async.writer.assign((b->size + 3) / 4, 0);
  async.reading.assign(b->size / kAtom + 1, 0);
  async.unfenced.resize(b->threads);
  // What the compiler may use: an even share of 65,536, in steps of 8.
  u32 blocks = b->kernel->min_blocks;
  if (blocks > 0) async.capped = std::min(65536 / blocks / b->threads / 8 * 8, (u32)255);
  for (WarpAsync& w : async.warps) w.registers = async.capped;
}

void async_ordinary_write(u32 offset, u32 bytes) {
  if (async.writer.empty()) return;  // not for sm_90a
  check_not_read(offset + async.block->base, bytes, "shared memory is written");
  for (u32 i = offset / 4; i <= (offset + bytes - 1) / 4; i++) {
    async.writer[i] = (uint16_t)(self->index + 1);
    async.unfenced[self->index].push_back(i);
  }
}

bool async_step(bool idle) {
  if (!async.used) return false;
  if (idle) {
    if (async.copies.empty()) return false;
    land(options().landing == Options::kRandomly ? random_number() % async.copies.size() : 0);
    return true;
  }
  if (options().landing != Options::kRandomly || random_number() >> 16 & 3) return false;
  u32 i = random_number() % (u32)(async.copies.size() + async.warps.size());
  if (i < async.copies.size()) {
    land(i);
  } else if (WarpAsync& w = async.warps[i - async.copies.size()]; w.done < w.products.size()) {
    multiply(i - (u32)async.copies.size());
  }
  return true;
}

void async_finish_block() {
  if (!async.used) return;
  for (const auto& e : async.barriers) {
    if (e.second.tx != 0) fail("mbarrier %u ends with a tx-count of %lld", e.first, (long long)e.second.tx);
  }
  if (!async.copies.empty()) fail("the block ends while a box is being copied");
  for (size_t i = 0; i < async.warps.size(); i++) {
    const WarpAsync &w = async.warps[i], &first = async.warps[i / 4 * 4];
    if (w.issued != first.issued) fail("the warps of a warpgroup did %u and %u wgmmas", first.issued, w.issued);
    if (w.registers != first.registers || w.moves != first.moves) fail("the warps of a warpgroup differ in their registers");
  }
}

std::string async_waiting(const Thread* t) {
  for (const auto& e : async.barriers) {
    const Mbarrier& b = e.second;
    if (std::count(b.waiting.begin(), b.waiting.end(), t) == 0) continue;
    return "waits for mbarrier " + std::to_string(e.first) + ", phase " + std::to_string(b.phase) + ": " + std::to_string(b.pending) +
           " arrivals and a tx-count of " + std::to_string(b.tx) + " are to come";
  }
  if (std::count(async.claiming.begin(), async.claiming.end(), t) != 0) return "waits for registers that nobody releases";
  return "";
}

}  // namespace emu
