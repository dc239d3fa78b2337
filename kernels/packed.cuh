// packed.cuh: how the packed attention kernels find their rows. The lists are made
// by attention.go from a packing's segments.
#pragma once

#include "device.cuh"

namespace updraft {

// Divisor divides by a number from 1 on that it was made for: i/d is the upper half
// of i·ceil(2^32/d), exactly, for i·d < 2^32.
struct Divisor {
  u32 inverse;  // 0 stands for 2^32
  DEVICE explicit Divisor(int d) : inverse(0xffffffffu / (u32)d + 1) {}
  DEVICE int operator()(int i) const { return inverse == 0 ? i : (int)mul_hi((u32)i, inverse); }
};

constexpr int kTileInts = 8;     // of a tile of queries
constexpr int kKeyTileInts = 4;  // of a tile of keys, and of a run

// Tile is a run of n rows of a packed batch, from row0 on, that belong to one
// segment: the first has logical position pos0. The key at logical position p is
// row prefix_row + p where p < prefix_len, and row own_row + p − prefix_len from
// there on. A kernel that takes 64 queries at once, the group of query heads of a
// key-value head for each row, has n·group ≤ 64.
struct Tile {
  int row0, n, pos0, prefix_row, prefix_len, own_row;
  DEVICE int key_row(int p) const { return p < prefix_len ? prefix_row + p : own_row + p - prefix_len; }
};

DEVICE Tile tile_at(const int* tiles, int i) {
  const int* t = tiles + i * kTileInts;
  return Tile{t[0], t[1], t[2], t[3], t[4], t[5]};
}

// KeyTile is n rows of keys, from row0 on, with the runs of queries that see some of
// them: runs from..to−1.
struct KeyTile {
  int row0, n, from, to;
};

DEVICE KeyTile key_tile_at(const int* tiles, int i) {
  const int* t = tiles + i * kKeyTileInts;
  return KeyTile{t[0], t[1], t[2], t[3]};
}

// Run is n rows of queries, from row0 on. They see those of the tile's keys that
// lie in [key_from, key_to) and not after themselves.
struct Run {
  int row0, n, key_from, key_to;
  DEVICE bool sees(int row, int key) const { return key >= key_from && key < key_to && key <= row; }
};

DEVICE Run run_at(const int* runs, int i) {
  const int* t = runs + i * kKeyTileInts;
  return Run{t[0], t[1], t[2], t[3]};
}

// KeyRows places the keys of a split, those from position `end` on left out.
struct KeyRows {
  Tile tile;
  int first, end, stride;
  DEVICE long long operator()(int r) const {
    int p = first + r;
    if (p >= end) return -1;
    return (long long)tile.key_row(p) * stride;
  }
};

// QueryRows places row r of a tile: query r % group of row r / group.
struct QueryRows {
  Tile tile;
  Divisor by_group;
  int group, stride, d;
  DEVICE long long operator()(int r) const {
    int i = by_group(r);
    return i < tile.n ? (long long)(tile.row0 + i) * stride + (r - i * group) * d : -1;
  }
};

}  // namespace updraft
