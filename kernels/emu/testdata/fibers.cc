// fibers: the switch between stacks by itself, for machines that the tests emulate.
// Three fibers take turns; each computes with values that live in registers across
// the switches, in loops that a compiler cannot unroll, and must find them again.
#include <cstdio>
#include <cstdlib>

#include "fiber.h"

static void *fibers[3], *main_stack;
static volatile int steps = 1000;
static double sums[3];
static long counts[3];
static int running, finished;

static void next() {
  int from = running;
  running = (running + 1) % 3;
  emu::emu_switch_stack(&fibers[from], fibers[running]);
}

static void work() {
  int id = running;
  double a = id + 1, b = 0.5 * id, c = 0, d = 1;
  long x = id, y = 3, z = 5;
  for (int i = 0; i < steps; i++) {
    a += b;
    c += a * d;
    d = -d;
    x += y;
    y ^= z + i;
    next();
  }
  sums[id] = a + b + c + d;
  counts[id] = x + y + z;
  if (++finished == 3) emu::emu_switch_stack(&fibers[id], main_stack);
  for (;;) next();
}

// expected computes the same without fibers.
static bool expected(int id) {
  double a = id + 1, b = 0.5 * id, c = 0, d = 1;
  long x = id, y = 3, z = 5;
  for (int i = 0; i < steps; i++) {
    a += b;
    c += a * d;
    d = -d;
    x += y;
    y ^= z + i;
  }
  return sums[id] == a + b + c + d && counts[id] == x + y + z;
}

int main() {
  emu::Stacks stacks;
  for (int i = 0; i < 3; i++) fibers[i] = emu::prepare_stack(stacks.top((size_t)i), work);
  int local = 0;
  if (emu::on_stack(&local) || !emu::on_stack((char*)stacks.top(1) - 8)) return 1;
  emu::emu_switch_stack(&main_stack, fibers[0]);
  for (int i = 0; i < 3; i++) {
    if (!expected(i)) return 2;
  }
  std::puts("fibers switch");
  return 0;
}
