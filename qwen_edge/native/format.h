// The packed weight layouts, as they lie in the model file and as the kernels read them.
//
// A matrix [rows, cols] is cut into tiles of 16 rows and, along the columns, into groups of
// 32, 64 or 128. A block is one tile by one group; the blocks of a tile follow each other, then
// comes the next tile. Rows are padded to a multiple of 16, columns to a multiple of the group;
// padding holds arbitrary codes with scale 0 (rows) or meets activations that are 0 (columns).
//
// INT4 block: group / 8 chunks of 64 bytes, 16 fp16 scales, and 16 fp16 minimums if the tensor has
// them. In chunk j, byte 4r + i holds row r's column 8j + i in its low nibble and 8j + 4 + i in its
// high nibble. A weight is codebook[code] * scale[row] + minimum[row]; in a tensor with zero points
// these are in the minimums' place, and a weight is (codebook[code] - zero[row]) * scale[row].
// A codebook may stand for 16 levels that signed bytes do not hold: a weight is then
// levels[code] * (unit * scale[row]), and the codebook is unit * levels, rounded. Where activations
// are INT8 the kernels take the codebook for it, everything else takes the levels.
// INT8 block: group / 4 chunks of 64 bytes, then scales and minimums likewise. In chunk j, byte 4r
// + i holds row r's column 4j + i, two's complement. A weight is code * scale[row]; minimums or
// zero points are as in INT4, the code standing in for the codebook's value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qe {

constexpr int kTileRows = 16;
// Activations are quantized in groups of 32 whatever the weights' group is.
constexpr int kActivationGroup = 32;

enum class Type : int32_t { kF32 = 0, kF16 = 1, kBF16 = 2, kQ8 = 3, kQ4 = 4 };

constexpr size_t kScaleBytes = kTileRows * sizeof(uint16_t);

template <int kGroup, bool kHasMin>
struct Q4Block {
  uint8_t codes[kGroup / 8][64];
  uint16_t scale[kTileRows];
  uint16_t minimum[kHasMin ? kTileRows : 1];
};
// A zero-length array is not C++: the layout without minimums is its own type.
template <int kGroup>
struct Q4Block<kGroup, false> {
  uint8_t codes[kGroup / 8][64];
  uint16_t scale[kTileRows];
};
template <int kGroup, bool kHasMin>
struct Q8Block {
  int8_t codes[kGroup / 4][64];
  uint16_t scale[kTileRows];
  uint16_t minimum[kHasMin ? kTileRows : 1];
};
template <int kGroup>
struct Q8Block<kGroup, false> {
  int8_t codes[kGroup / 4][64];
  uint16_t scale[kTileRows];
};
static_assert(sizeof(Q4Block<32, false>) == 288 && sizeof(Q4Block<32, true>) == 320, "layout");
static_assert(sizeof(Q4Block<64, false>) == 544 && sizeof(Q4Block<64, true>) == 576, "layout");
static_assert(sizeof(Q4Block<128, false>) == 1056 && sizeof(Q4Block<128, true>) == 1088, "layout");
static_assert(sizeof(Q8Block<32, false>) == 544 && sizeof(Q8Block<32, true>) == 576, "layout");
static_assert(sizeof(Q8Block<64, false>) == 1056 && sizeof(Q8Block<64, true>) == 1088, "layout");
static_assert(sizeof(Q8Block<128, false>) == 2080 && sizeof(Q8Block<128, true>) == 2112, "layout");

// Bytes of one block (16 rows x group columns).
constexpr size_t block_bytes(Type type, int group, bool has_min) {
  return static_cast<size_t>(group) * (type == Type::kQ4 ? 8 : 16) +
         kScaleBytes * (has_min ? 2 : 1);
}

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// A weight matrix as the kernels see it. Dense types (F32, F16, BF16) are row-major [rows, cols].
struct Matrix {
  const uint8_t* data = nullptr;
  Type type = Type::kF32;
  int rows = 0;
  int cols = 0;
  int group = 0;
  bool has_min = false;   // 16 more halves follow the scales
  bool has_zero = false;  // and they are zero points, not minimums
  alignas(16) int8_t codebook[16] = {};
  float levels[16] = {};
  float unit = 0;  // 0 if the codebook is exact

  int tiles() const { return (rows + kTileRows - 1) / kTileRows; }
  int groups() const { return (cols + group - 1) / group; }
  size_t tile_bytes() const { return groups() * block_bytes(type, group, has_min); }
  // Columns after padding: a multiple of the group, or of 32 for dense types.
  int padded_cols() const {
    return static_cast<int>(round_up(cols, group > 0 ? group : kActivationGroup));
  }
};

// IEEE 754 binary16 to binary32, exact, subnormals included.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31;
  const uint32_t mantissa = half & 0x3ff;
  uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | mantissa << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {
    // A subnormal is mantissa * 2^-24, which binary32 holds exactly.
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &magnitude, 4);
    bits |= sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// binary32 to binary16, to nearest, ties to even; too large becomes infinity.
inline uint16_t float_to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // Adding 0.5 moves the subnormal's bits to the bottom of the mantissa, rounded by the FPU.
    float shifted;
    std::memcpy(&shifted, &magnitude, 4);
    shifted += 0.5f;
    std::memcpy(&bits, &shifted, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

inline float bfloat16_to_float(uint16_t value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

}  // namespace qe
