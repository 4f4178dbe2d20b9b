// One struct a block type of GGUF: what its bytes are, and how they become floats or codes.
//
// kCount is the number of weights, kBytes the size. `floats` multiplies in the same order as ggml's
// reference, so that the results are equal to the last bit; a file that includes this one must not
// contract products and sums. `codes` writes the codes and the scale of each 32 weights, and the
// minimum where kHasMin.
#pragma once

#include <cstdint>
#include <cstring>

#include "format.h"

namespace qe::gguf {

inline float half_at(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  return half_to_float(bits);
}

// Four-bit codes of 32 weights: byte i holds those of weight i and, in its high bits, i + 16.
inline void nibbles(const uint8_t* bytes, uint8_t* codes) {
  for (int i = 0; i < 16; ++i) {
    codes[i] = bytes[i] & 15;
    codes[i + 16] = bytes[i] >> 4;
  }
}

inline void fifth_bits(const uint8_t* bits, uint8_t* codes) {
  uint32_t word;
  std::memcpy(&word, bits, 4);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>((word >> i & 1) << 4);
}

constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
// Twice the values of FP4 E2M1.
constexpr int8_t kFp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Half of a power of two with the exponent's 8 bits: the values above are doubled.
inline float half_of_e8m0(uint8_t exponent) {
  const uint32_t bits =
      exponent < 2 ? uint32_t{0x00200000} << exponent : static_cast<uint32_t>(exponent - 1) << 23;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Values of a block whose codes count steps from a minimum.
template <typename Block>
void steps_and_minimums(const uint8_t* block, float* y) {
  uint8_t codes[Block::kCount];
  float scale[Block::kCount / 32], minimum[Block::kCount / 32];
  Block::codes(block, codes, scale, minimum);
  for (int i = 0; i < Block::kCount; ++i) {
    y[i] = static_cast<float>(codes[i]) * scale[i / 32] + minimum[i / 32];
  }
}

// Values of a block whose codes stand for the entries of a table.
template <typename Block>
void table_values(const int8_t* table, const uint8_t* block, float* y) {
  uint8_t codes[Block::kCount];
  float scale[Block::kCount / 32];
  Block::codes(block, codes, scale, nullptr);
  for (int i = 0; i < Block::kCount; ++i) {
    y[i] = scale[i / 32] * static_cast<float>(table[codes[i]]);
  }
}

struct Q4_0 {
  static constexpr int kCount = 32, kBytes = 18;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    *scale = half_at(block);
    nibbles(block + 2, codes);
  }
  static void floats(const uint8_t* block, float* y) {
    uint8_t q[32];
    nibbles(block + 2, q);
    const float d = half_at(block);
    for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(q[i] - 8) * d;
  }
};

struct Q4_1 {
  static constexpr int kCount = 32, kBytes = 20;
  static constexpr bool kHasMin = true;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float* minimum) {
    *scale = half_at(block);
    *minimum = half_at(block + 2);
    nibbles(block + 4, codes);
  }
  static void floats(const uint8_t* block, float* y) { steps_and_minimums<Q4_1>(block, y); }
};

struct Q5_0 {
  static constexpr int kCount = 32, kBytes = 22;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    *scale = half_at(block);
    nibbles(block + 6, codes);
    fifth_bits(block + 2, codes);
    for (int i = 0; i < 32; ++i) codes[i] = static_cast<uint8_t>(codes[i] - 16);
  }
  static void floats(const uint8_t* block, float* y) {
    uint8_t q[32];
    float d;
    codes(block, q, &d, nullptr);
    for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(q[i])) * d;
  }
};

struct Q5_1 {
  static constexpr int kCount = 32, kBytes = 24;
  static constexpr bool kHasMin = true;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float* minimum) {
    *scale = half_at(block);
    *minimum = half_at(block + 2);
    nibbles(block + 8, codes);
    fifth_bits(block + 4, codes);
  }
  static void floats(const uint8_t* block, float* y) { steps_and_minimums<Q5_1>(block, y); }
};

struct Q8_0 {
  static constexpr int kCount = 32, kBytes = 34;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    *scale = half_at(block);
    std::memcpy(codes, block + 2, 32);
  }
  static void floats(const uint8_t* block, float* y) {
    const float d = half_at(block);
    for (int i = 0; i < 32; ++i) y[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
  }
};

struct Iq4Nl {
  static constexpr int kCount = 32, kBytes = 18;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    *scale = half_at(block);
    nibbles(block + 2, codes);
  }
  static void floats(const uint8_t* block, float* y) { table_values<Iq4Nl>(kIq4Values, block, y); }
};

struct MxFp4 {
  static constexpr int kCount = 32, kBytes = 17;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    *scale = half_of_e8m0(block[0]);
    nibbles(block + 1, codes);
  }
  static void floats(const uint8_t* block, float* y) { table_values<MxFp4>(kFp4Values, block, y); }
};

// fp16 d; 16 bits and 4 bytes with the high 2 and low 4 bits of eight scales, each 32 more than it
// counts; nibbles as in IQ4_NL.
struct Iq4Xs {
  static constexpr int kCount = 256, kBytes = 136;
  static constexpr bool kHasMin = false;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    uint16_t high;
    std::memcpy(&high, block + 2, 2);
    for (int g = 0; g < 8; ++g) {
      const int low = block[4 + g / 2] >> 4 * (g % 2) & 15;
      scale[g] = half_at(block) * static_cast<float>((low | (high >> 2 * g & 3) << 4) - 32);
      nibbles(block + 8 + 16 * g, codes + 32 * g);
    }
  }
  static void floats(const uint8_t* block, float* y) { table_values<Iq4Xs>(kIq4Values, block, y); }
};

// 16 bytes, each a scale and in its high bits a minimum of 16 weights; 64 bytes of 2-bit codes;
// fp16 d and dmin. In each half of 128 weights, byte i of 32 holds weights i, i + 32, i + 64, i
// + 96.
struct Q2K {
  static constexpr int kCount = 256, kBytes = 84;
  static void floats(const uint8_t* block, float* y) {
    const uint8_t* q = block + 16;
    const float d = half_at(block + 80), dmin = half_at(block + 82);
    for (int i = 0; i < 256; ++i) {
      const float scale = d * static_cast<float>(block[i / 16] & 15);
      const float minimum = dmin * static_cast<float>(block[i / 16] >> 4);
      const int code = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
      y[i] = scale * static_cast<float>(code) - minimum;
    }
  }
};

// 32 bytes of third bits, bit i / 32 of byte i % 32; 64 bytes of low bits as in Q2_K; 16 scales of
// 6 bits, 32 more than they count: 8 bytes with the low 4 bits of scales i and i + 8, 4 bytes with
// the high 2 bits of scales i, i + 4, i + 8 and i + 12; fp16 d. Codes count 4 more than the weight.
struct Q3K {
  static constexpr int kCount = 256, kBytes = 110;
  static constexpr bool kHasMin = false;
  // The scales and the codes of 256 weights.
  static void parts(const uint8_t* block, int* scales, int* codes) {
    const uint8_t* q = block + 32;
    const uint8_t* packed = block + 96;
    for (int i = 0; i < 16; ++i) {
      const int low = packed[i % 8] >> i / 8 * 4 & 15;
      const int high = packed[8 + i % 4] >> i / 4 * 2 & 3;
      scales[i] = (low | high << 4) - 32;
    }
    for (int i = 0; i < 256; ++i) {
      const int low = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
      const int high = block[i % 32] >> i / 32 & 1;
      codes[i] = (low | high << 2) - 4;
    }
  }
  // Scales times codes, -124 to 128, with d for a scale; negated where there is a 128.
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float*) {
    int scales[16], product[256];
    parts(block, scales, product);
    for (int g = 0; g < 8; ++g) {
      int sign = 1;
      for (int i = 32 * g; i < 32 * g + 32; ++i) {
        product[i] *= scales[i / 16];
        if (product[i] == 128) sign = -1;
      }
      for (int i = 32 * g; i < 32 * g + 32; ++i) codes[i] = static_cast<uint8_t>(sign * product[i]);
      scale[g] = static_cast<float>(sign) * half_at(block + 108);
    }
  }
  static void floats(const uint8_t* block, float* y) {
    int scales[16], q[256];
    parts(block, scales, q);
    const float d = half_at(block + 108);
    for (int i = 0; i < 256; ++i) {
      y[i] = d * static_cast<float>(scales[i / 16]) * static_cast<float>(q[i]);
    }
  }
};

// The 8 scales and 8 minimums of Q4_K and Q5_K, 6 bits each in 12 bytes: the first four of either
// in the low 6 bits of a byte, of the others 4 bits in the last bytes and 2 above those first ones.
inline void k_scales(const uint8_t* block, float* scale, float* minimum) {
  const float d = half_at(block), dmin = half_at(block + 2);
  const uint8_t* p = block + 4;
  for (int i = 0; i < 8; ++i) {
    const int s = i < 4 ? p[i] & 63 : (p[i + 4] & 15) | p[i - 4] >> 6 << 4;
    const int m = i < 4 ? p[i + 4] & 63 : p[i + 4] >> 4 | p[i] >> 6 << 4;
    scale[i] = d * static_cast<float>(s);
    minimum[i] = dmin * static_cast<float>(m);
  }
}

// Byte i of 32 holds, for each 64 weights, weight i and in its high bits i + 32.
inline uint8_t k_nibble(const uint8_t* bytes, int i) {
  return bytes[i / 64 * 32 + i % 32] >> i % 64 / 32 * 4 & 15;
}

struct Q4K {
  static constexpr int kCount = 256, kBytes = 144;
  static constexpr bool kHasMin = true;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float* minimum) {
    k_scales(block, scale, minimum);
    for (int g = 0; g < 8; ++g) minimum[g] = -minimum[g];
    for (int i = 0; i < 256; ++i) codes[i] = k_nibble(block + 16, i);
  }
  static void floats(const uint8_t* block, float* y) {
    float scale[8], minimum[8];
    k_scales(block, scale, minimum);
    for (int i = 0; i < 256; ++i) {
      y[i] = scale[i / 32] * static_cast<float>(k_nibble(block + 16, i)) - minimum[i / 32];
    }
  }
};

// As Q4_K, with 32 bytes of fifth bits, bit i / 32 of byte i % 32, before the nibbles.
struct Q5K {
  static constexpr int kCount = 256, kBytes = 176;
  static constexpr bool kHasMin = true;
  static void codes(const uint8_t* block, uint8_t* codes, float* scale, float* minimum) {
    k_scales(block, scale, minimum);
    for (int g = 0; g < 8; ++g) minimum[g] = -minimum[g];
    for (int i = 0; i < 256; ++i) {
      const int high = block[16 + i % 32] >> i / 32 & 1;
      codes[i] = static_cast<uint8_t>(k_nibble(block + 48, i) | high << 4);
    }
  }
  static void floats(const uint8_t* block, float* y) { steps_and_minimums<Q5K>(block, y); }
};

// 128 bytes of low nibbles, in each half of 128 weights byte i of 64 holding weights i and i + 64;
// 64 bytes of high bits as in Q2_K; 16 signed scales of 16 weights; fp16 d. Codes count 32 more.
struct Q6K {
  static constexpr int kCount = 256, kBytes = 210;
  static void floats(const uint8_t* block, float* y) {
    const uint8_t* high_bits = block + 128;
    const float d = half_at(block + 208);
    for (int i = 0; i < 256; ++i) {
      const int low = block[i / 128 * 64 + i % 64] >> i % 128 / 64 * 4 & 15;
      const int high = high_bits[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
      const float scale = d * static_cast<float>(static_cast<int8_t>(block[192 + i / 16]));
      y[i] = scale * static_cast<float>((low | high << 4) - 32);
    }
  }
};

}  // namespace qe::gguf
