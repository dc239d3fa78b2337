// shared.cc: shared memory: every access of a kernel to it, and asynchronous
// copies.
#include <cstring>

#include "async.h"
#include "machine_run.h"

namespace emu {

namespace {

// check fails unless bytes at a shared address, a multiple of align, are the block's.
u32 check(u32 address, u32 bytes, u32 align) {
  Block* b = self->block;
  u32 offset = address - b->base;
  if (address % align != 0) fail("shared address %u is not a multiple of %u", address, align);
  if (offset >= b->size || bytes > b->size - offset) {
    fail("access to %u bytes at %lld of a shared memory of %u", bytes, (long long)address - b->base, b->size);
  }
  return offset;
}

// mask says which of the four bytes of a word an access of up to 4 bytes concerns.
u64 mask(u32 offset, u32 bytes) { return bytes >= 4 ? 15 : ((1u << bytes) - 1) << offset % 4; }

[[noreturn]] void report(const char* does, u32 offset, Stamp other) {
  fail("race: it %s shared memory at %u, which thread %u has used with no barrier between", does, offset, thread_of(other));
}

// access notes a read or write of bytes, a power of two that divides offset.
template <bool write>
void access(u32 offset, u32 bytes) {
  Block* b = self->block;
  Stamp now = self->stamp | mask(offset, bytes) << kMaskShift;
  for (u32 i = offset / 4; i < (offset + bytes + 3) / 4; i++) {
    if (b->pending[i] != 0) {
      fail("it %s shared memory at %u, which an asynchronous copy that is not waited for will write", write ? "writes" : "reads", 4 * i);
    }
    Stamp other = write ? note_write<kShared>(b->cells[i], now) : note_read<kShared>(b->cells[i], now);
    if (other != 0) report(write ? "writes" : "reads", 4 * i, other);
  }
}

}  // namespace

unsigned char* shared_at(u32 address, u32 bytes) { return self->block->shared.data() + check(address, bytes, bytes); }

void read_shared(u32 address, u32 bytes) { access<false>(check(address, bytes, 1), bytes); }
void write_shared(u32 address, u32 bytes) { access<true>(check(address, bytes, 1), bytes); }

Words load_shared(u32 address, u32 bytes) {
  u32 offset = check(address, bytes, bytes);
  access<false>(offset, bytes);
  Words w{0, 0};
  std::memcpy(&w, self->block->shared.data() + offset, bytes);
  return w;
}

void store_shared(u32 address, u32 bytes, Words w) {
  u32 offset = check(address, bytes, bytes);
  access<true>(offset, bytes);
  async_ordinary_write(offset, bytes);
  std::memcpy(self->block->shared.data() + offset, &w, bytes);
}

void expect_shared(u32 address, u32 bytes) {
  u32 offset = check(address, bytes, 4);
  access<true>(offset, bytes);
  for (u32 i = offset / 4; i < (offset + bytes) / 4; i++) self->block->pending[i]++;
}

void settle_shared(u32 address, u32 bytes) {
  u32 offset = address - self->block->base;
  for (u32 i = offset / 4; i < (offset + bytes) / 4; i++) self->block->pending[i]--;
  access<true>(offset, bytes);
}

// --- Asynchronous copies ----------------------------------------------------

static bool lands_now() {
  return options().landing == Options::kAtOnce || (options().landing == Options::kRandomly && (random_number() >> 16 & 1));
}

static void land(Copy& c) {
  unsigned char* d = self->block->shared.data() + (c.dst - self->block->base);
  std::memset(d, 0, c.size);
  std::memcpy(d, c.src, c.bytes);
  c.landed = true;
}

void copy_async(u32 dst, const void* src, u32 bytes, u32 size) {
  if (bytes > size || (size == 4 && bytes % 4 != 0)) fail("an asynchronous copy of %u of %u bytes", bytes, size);
  if ((u64)src % size != 0) fail("an asynchronous copy from %p, which is no multiple of %u", src, size);
  if (bytes > 0) read_global(src, bytes);
  check(dst, size, size);
  expect_shared(dst, size);
  Copy c{dst, size, bytes, src, false};
  if (lands_now()) land(c);
  self->copies->open.push_back(c);
}

void copy_commit() {
  Copies& c = *self->copies;
  c.groups.push_back(std::move(c.open));
  c.open.clear();
}

void copy_wait(u32 groups) {
  Copies& c = *self->copies;
  while (c.groups.size() > groups) {
    for (Copy& x : c.groups.front()) {
      if (!x.landed) {
        read_global(x.src, x.bytes);
        land(x);
      }
      settle_shared(x.dst, x.size);
    }
    c.groups.erase(c.groups.begin());
  }
}

void finish_copies() {
  const Copies& c = *self->copies;
  if (!c.open.empty()) fail("the thread ends with asynchronous copies that were not committed");
  for (const auto& group : c.groups) {
    if (!group.empty()) fail("the thread ends with asynchronous copies that were not waited for");
  }
}

}  // namespace emu
