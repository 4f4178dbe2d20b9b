// The INT4 cache's codes, in the parts that every instruction set shares.
//
// A group of 32 values has one scale, of either sign, and codes -8..7. The value of the largest
// magnitude (of two the positive one, if they differ) is `extreme`; it gets a code near -8, which
// makes use of the code that has no counterpart on the other side. For each ratio the codes are
// x * (-ratio / extreme), to nearest even, clamped; the least squares scale of those codes c is
// sum(c * x) / sum(c * c), and the ratio is taken for which it leaves the least error. So that
// every instruction set decides alike, the sums are taken over integers: x enters as
// x * (kI4Steps / |extreme|), to nearest even.
#pragma once

#include <string.h>

#include "isa.h"

namespace qe {
namespace {

constexpr int kI4Group = 32;
constexpr size_t kI4GroupBytes = 288, kI4CodeBytes = 256;
constexpr float kI4Steps = 4096.0f;
constexpr int kI4Ratios = 3;
constexpr float kI4Ratio[kI4Ratios] = {8.0f, 7.3f, 8.7f};
// Below this a group counts as zeros: its scale would be 0 in fp16 anyway.
constexpr float kI4Least = 1e-30f;

// The error that codes leave is least where this is largest: product is sum(c * x), squares is
// sum(c * c).
inline __attribute__((always_inline)) float explained_i4(int32_t product, int32_t squares) {
  const float p = static_cast<float>(product);
  return p * p / static_cast<float>(squares);
}

// The scale that is stored: fp16, kept finite.
inline __attribute__((always_inline)) uint16_t scale_i4(int32_t product, int32_t squares,
                                                        float extreme) {
  const float ratio = static_cast<float>(product) / static_cast<float>(squares);
  float scale = ratio * ((extreme < 0 ? -extreme : extreme) * (1.0f / kI4Steps));
  scale = scale > 65504.0f ? 65504.0f : scale;
  return float_to_half(scale < -65504.0f ? -65504.0f : scale);
}

// Puts the nibbles of one group, 0..15 each, and its scale into their places.
inline __attribute__((always_inline)) void place_key_i4(uint8_t* group, int slot,
                                                        const uint8_t* nibbles, uint16_t scale) {
  for (int j = 0; j < 4; ++j) {
    uint32_t low, high;
    memcpy(&low, nibbles + 8 * j, 4);
    memcpy(&high, nibbles + 8 * j + 4, 4);
    low |= high << 4;
    memcpy(group + 64 * j + 4 * slot, &low, 4);
  }
  memcpy(group + kI4CodeBytes + 2 * slot, &scale, 2);
}
inline __attribute__((always_inline)) void place_value_i4(uint8_t* group, int slot,
                                                          const uint8_t* nibbles, uint16_t scale) {
  uint8_t* to = group + 64 * (slot / 4) + slot % 4;
  for (int r = 0; r < 16; ++r) {
    to[4 * r] = static_cast<uint8_t>(nibbles[r] | nibbles[16 + r] << 4);
  }
  memcpy(group + kI4CodeBytes + 2 * slot, &scale, 2);
}

// Keys as a matrix whose rows are positions: scores are its products with the queries.
inline __attribute__((always_inline)) Matrix keys_i4(const uint8_t* blocks, int n_blocks,
                                                     int head_dim) {
  Matrix keys;
  keys.data = blocks;
  keys.type = Type::kQ4;
  keys.rows = kKvBlock * n_blocks;
  keys.cols = head_dim;
  keys.group = kI4Group;
  for (int i = 0; i < 16; ++i) keys.codebook[i] = static_cast<int8_t>(i - 8);
  return keys;
}

}  // namespace
}  // namespace qe
