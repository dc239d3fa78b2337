// race.cc: see race.h. What blocks know of each other is kept as bounds: of
// another block, a stamp whose earlier generations, and in whose generation the
// accesses of its thread up to then, are ordered before.
#include "race.h"

#include <algorithm>
#include <unordered_map>

#include "machine_run.h"

namespace emu {

namespace {

struct ThreadRace {
  Stamp fenced = 0;  // its stamp at its last fence
  Knowledge known, pending;
};

struct Race {
  u64 generation = 0;  // the last that was given out
  u64 first = 0;       // of the launch
  std::vector<u32> owner;  // of each of the launch's generations: the block's number
  std::unordered_map<const u32*, Knowledge> words;  // what reading a word teaches
  std::unordered_map<Thread*, ThreadRace> threads;  // that have fenced or acquired
};

Race race;

void join(Knowledge& to, u32 block, Stamp bound) {
  if (bound == 0) return;
  if (to.size() <= block) to.resize(block + 1);
  Stamp& old = to[block];
  if (old == bound) return;
  if (old == 0 || generation_of(old) < generation_of(bound)) {
    old = bound;
  } else if (generation_of(old) == generation_of(bound)) {
    // Two threads' accesses in one generation: more than a bound can say.
    old = thread_of(old) == thread_of(bound) ? std::max(old, bound) : make_stamp(generation_of(old) + 1, 0, 0);
  }
}

void join(Knowledge& to, const Knowledge& from) {
  for (u32 i = 0; i < from.size(); i++) join(to, i, from[i]);
}

// covers reports whether a bound of a block says that its access old is ordered before.
bool covers(Stamp bound, Stamp old) {
  if (generation_of(old) != generation_of(bound)) return generation_of(old) < generation_of(bound);
  u32 a = thread_of(old), b = thread_of(bound);
  return a == b ? arrivals_of(old) <= arrivals_of(bound) : a / kLanes == b / kLanes && syncs_of(old) < syncs_of(bound);
}

Stamp bound_of(const Knowledge& k, u32 block) { return block < k.size() ? k[block] : 0; }

u64 new_generation(u32 block) {
  if (race.owner.size() >= ((u64)1 << 30) - 2) fail("a launch of more blocks and barriers than the emulator can tell apart");
  race.owner.push_back(block);
  return ++race.generation;
}

void start_generation(Block* b) {
  u64 g = new_generation(b->number);
  for (u32 i = 0; i < b->threads; i++) b->thread[i].stamp = make_stamp(g, i, 1);
  for (u32 w = 0; w < b->threads / kLanes; w++) std::fill_n(b->warp[w].known, kLanes, 0);
}

// bump makes the thread's later accesses differ from those before.
void bump(Thread* t) {
  if (arrivals_of(t->stamp) == kMost) start_generation(t->block);  // what was before counts as ordered
  t->stamp += (u64)1 << kArrivalsShift;
}

BlockRace& block_race() { return self->block->race; }
ThreadRace& thread_race() { return race.threads[self]; }

}  // namespace

bool known_between_blocks(Stamp old) {
  u64 g = generation_of(old);
  if (g < race.first) return true;
  u32 owner = race.owner[g - race.first];
  if (owner == self->block->number) return true;
  if (covers(bound_of(block_race().known, owner), old)) return true;
  auto t = race.threads.find(self);
  return t != race.threads.end() && covers(bound_of(t->second.known, owner), old);
}

void race_start_launch() {
  race.first = race.generation + 1;
  race.owner.clear();
  race.words.clear();
  race.threads.clear();
}

bool written_now(Stamp write) { return generation_of(write) >= race.first; }

void race_start_block(Block* b) {
  b->race = BlockRace{};
  start_generation(b);
}

void race_end_block(Block* b) {
  if (race.threads.empty()) return;
  for (u32 i = 0; i < b->threads; i++) race.threads.erase(&b->thread[i]);
}

// share gives what single threads know to the whole block.
static void share(Block* b, BlockRace& r) {
  if (!r.threads_know) return;
  for (u32 i = 0; i < b->threads; i++) {
    auto t = race.threads.find(&b->thread[i]);
    if (t == race.threads.end()) continue;
    join(r.known, t->second.known);
    join(r.pending, t->second.pending);
    t->second.known.clear();
    t->second.pending.clear();
  }
  r.threads_know = false;
}

void race_block_barrier(Block* b) {
  BlockRace& r = b->race;
  share(b, r);
  start_generation(b);
  // A thread that fenced, then met the others, has done it for all of them.
  if (r.fenced) r.released = race.generation;
  r.fenced = false;
}

void race_warp_sync(Warp* w) {
  if (syncs_of(self->stamp) == kMost) start_generation(self->block);
  for (Thread* t : w->threads) t->stamp++;
  share(self->block, block_race());
}

void race_arrive(BarrierKnowledge* k) {
  Warp* w = self->warp;
  u32 own = self->index / kLanes;
  bump(self);
  if (k->generation != generation_of(self->stamp)) *k = BarrierKnowledge{generation_of(self->stamp), {}};
  for (u32 i = 0; i < kLanes; i++) k->known[i] = std::max(k->known[i], w->known[i]);
  k->known[own] = std::max(k->known[own], arrivals_of(self->stamp));
  share(self->block, block_race());
}

void race_pass(const BarrierKnowledge& k, Thread* waiting) {
  if (k.generation != generation_of(waiting->stamp)) return;
  Warp* w = waiting->warp;
  for (u32 i = 0; i < kLanes; i++) w->known[i] = std::max(w->known[i], k.known[i]);
}

void race_fence() {
  BlockRace& b = block_race();
  ThreadRace& t = thread_race();
  b.fenced = true;
  t.fenced = self->stamp;
  bump(self);
  join(t.known, t.pending);
  join(t.known, b.pending);
  t.pending.clear();
  b.threads_know = true;
}

// release_to adds what self knows, and its own block's accesses up to bound, to
// what reading word p teaches.
static void release_to(Knowledge& word, Stamp bound) {
  BlockRace& b = block_race();
  join(word, b.known);
  auto t = race.threads.find(self);
  if (t != race.threads.end()) join(word, t->second.known);
  if (b.released != 0) join(word, self->block->number, make_stamp(b.released, 0, 0));
  join(word, self->block->number, bound);
}

void race_atomic(const u32* p) {
  Knowledge& word = race.words[p];
  ThreadRace& t = thread_race();
  join(t.pending, word);
  block_race().threads_know = true;
  release_to(word, t.fenced);
}

void race_acquire(const u32* p) {
  auto word = race.words.find(p);
  if (word == race.words.end()) return;
  join(thread_race().known, word->second);
  block_race().threads_know = true;
}

void race_release(const u32* p) {
  Knowledge& word = race.words[p];
  word.clear();
  release_to(word, self->stamp);
  bump(self);
}

}  // namespace emu
