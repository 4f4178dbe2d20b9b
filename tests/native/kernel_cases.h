// Random inputs for the kernel tests, in buffers that end at a page nobody may touch.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "isa/isa.h"

namespace qe_test {

using namespace qe;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t bits() {
    state_ += 0x9e3779b97f4a7c15ull;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>(z >> 32);
  }
  int between(int low, int high) {  // both included
    return low + static_cast<int>(bits() % static_cast<uint32_t>(high - low + 1));
  }
  float uniform() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }
  float around_zero(float size) { return (2 * uniform() - 1) * size; }

 private:
  uint64_t state_;
};

// size elements whose last byte is the last before an inaccessible page, so that reading or writing
// past the end is a crash. Every byte starts as 0xa5.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t size) : size_(size) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = (size * sizeof(T) + page - 1) / page * page;
    mapped_ = used + page;
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (base_ == MAP_FAILED || mprotect(base_ + used, page, PROT_NONE) != 0) std::abort();
    data_ = reinterpret_cast<T*>(base_ + used - size * sizeof(T));
    std::memset(data_, 0xa5, bytes());
  }
  Guarded(const Guarded& other) : Guarded(other.size_) {
    if (bytes() > 0) std::memcpy(data_, other.data_, bytes());
  }
  Guarded(Guarded&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        mapped_(other.mapped_),
        data_(other.data_),
        size_(other.size_) {}
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    if (base_ != nullptr) munmap(base_, mapped_);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return size_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  uint8_t* base_;
  size_t mapped_;
  T* data_;
  size_t size_;
};

inline Guarded<float> random_floats(Random& random, size_t n, float size) {
  Guarded<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = random.around_zero(size);
  return x;
}

__attribute__((format(printf, 1, 2))) inline std::string format(const char* pattern, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(text, sizeof(text), pattern, arguments);
  va_end(arguments);
  return text;
}

// --- codebooks, from the narrowest range to the widest

constexpr int kCodebooks = 10;
inline const char* codebook_name(int kind) {
  static const char* const names[kCodebooks] = {
      "int4",   "symmetric7", "counting from 100", "range 15", "mxfp4", "range 64", "nf4",
      "iq4_nl", "random",     "two values"};
  return names[kind];
}

inline void fill_codebook(int kind, Random& random, int8_t* codebook) {
  static const int8_t mxfp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  static const int8_t nf4[16] = {-127, -88, -67, -50, -36, -23, -12, 0,
                                 10,   20,  31,  43,  56,  71,  92,  127};
  static const int8_t iq4[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
  const int first = random.between(-128, 112), wide = random.between(-128, 63);
  // Distances on both sides of where sums leave 16 bits.
  static const int distances[] = {15, 16, 17, 20, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255};
  const int distance = distances[random.between(0, 13)], low = random.between(-128, 127 - distance);
  for (int i = 0; i < 16; ++i) {
    int value = 0;
    if (kind == 0) value = i - 8;
    if (kind == 1) value = i < 15 ? i - 7 : 0;
    if (kind == 2) value = 100 + i;
    if (kind == 3) value = first + random.between(0, 15);
    if (kind == 4) value = mxfp4[i];
    if (kind == 5) value = wide + (i < 2 ? 64 * i : random.between(0, 64));
    if (kind == 6) value = nf4[i];
    if (kind == 7) value = iq4[i];
    if (kind == 8) value = random.between(-128, 127);
    if (kind == 9) value = low + (random.between(0, 1) ? distance : 0);
    codebook[i] = static_cast<int8_t>(value);
  }
}

// Random codes, or now and then a single one, so that sums can come near their bounds.
inline void fill_codes(Random& random, uint8_t* codes, size_t size, bool extremes) {
  const bool single = extremes && random.between(0, 2) == 0;
  const int nibble = random.between(0, 15);
  for (size_t i = 0; i < size; ++i) {
    codes[i] = static_cast<uint8_t>(single ? 17 * nibble : random.bits());
  }
}

// --- activations

constexpr int kCodePatterns = 5;
inline int8_t pattern_code(int pattern, Random& random, int i) {
  switch (pattern) {
    case 0:
      return static_cast<int8_t>(random.between(-127, 127));
    case 1:
      return 127;
    case 2:
      return -127;
    case 3:
      return i & 1 ? -127 : 127;
    default:
      return static_cast<int8_t>(random.between(0, 7) ? 0 : random.between(-127, 127));
  }
}

// Rows of activation codes; columns from used on are padding.
struct ActivationRows {
  ActivationRows(Random& random, int n, int used, int cols, bool unit_scale, int pattern)
      : codes(static_cast<size_t>(n) * cols),
        scale(codes.size() / kActivationGroup),
        sum(scale.size()),
        rows{codes.data(), scale.data(), sum.data(), n, cols},
        panel_codes(round_up(n, panel_of(n)) * cols),
        panel_scale(panel_codes.size() / kActivationGroup),
        panel_sum(panel_scale.size()),
        panels{panel_codes.data(), panel_scale.data(), panel_sum.data(), n, cols, panel_of(n)} {
    std::memset(codes.data(), 0, codes.bytes());
    for (int i = 0; i < n; ++i) {
      for (int c = 0; c < used; ++c) {
        codes[static_cast<size_t>(i) * cols + c] = pattern_code(pattern, random, c);
      }
    }
    for (size_t g = 0; g < scale.size(); ++g) {
      sum[g] = 0;
      for (int c = 0; c < kActivationGroup; ++c) sum[g] += codes[kActivationGroup * g + c];
      scale[g] = unit_scale ? 1.0f : 0.001f + 0.05f * random.uniform();
    }
    // What lies beyond the last row of a panel is never to matter.
    std::memset(panel_codes.data(), 0x55, panel_codes.bytes());
    for (size_t i = 0; i < panel_scale.size(); ++i) panel_scale[i] = panel_sum[i] = 99;
    for (int i = 0; i < n; ++i) {
      for (int g = 0; g < cols / kActivationGroup; ++g) {
        const size_t from = rows.at(i, g), to = panels.at(i, g);
        std::memcpy(&panel_codes[kActivationGroup * to], &codes[kActivationGroup * from],
                    kActivationGroup);
        panel_scale[to] = scale[from];
        panel_sum[to] = sum[from];
      }
    }
  }

  QuantizedRows part(int first, int n) const {
    const size_t at = static_cast<size_t>(first) * rows.cols, group = at / kActivationGroup;
    return {rows.codes + at, rows.scale + group, rows.sum + group, n, rows.cols};
  }

  Guarded<int8_t> codes;
  Guarded<float> scale;
  Guarded<int32_t> sum;
  QuantizedRows rows;  // in panels of 1
  Guarded<int8_t> panel_codes;
  Guarded<float> panel_scale;
  Guarded<int32_t> panel_sum;
  QuantizedRows panels;  // the same as an engine lays out as many rows
};

// --- weights

struct Weights {
  Matrix matrix;
  Guarded<uint8_t> bytes;
};

// What follows the scales of a block.
enum class Extra { kNone, kMinimums, kZeros };

// Random codes; scales and minimums are random, or 1 and small integers, and 0 in padded rows. Zero
// points are whole numbers.
inline Weights packed_weights(Random& random, Type type, int rows, int cols, int group, Extra extra,
                              int codebook, bool integers) {
  const bool has_min = extra != Extra::kNone;
  Matrix w;
  w.type = type;
  w.rows = rows;
  w.cols = cols;
  w.group = group;
  w.has_min = has_min;
  w.has_zero = extra == Extra::kZeros;
  if (type == Type::kQ4) fill_codebook(codebook, random, w.codebook);
  Guarded<uint8_t> bytes(w.tiles() * w.tile_bytes());
  const size_t block = block_bytes(type, group, has_min);
  const size_t code_bytes = static_cast<size_t>(group) * (type == Type::kQ4 ? 8 : 16);
  for (size_t at = 0; at < bytes.size(); at += block) {
    fill_codes(random, &bytes[at], code_bytes, integers);
    const int first_row = static_cast<int>(at / w.tile_bytes()) * kTileRows;
    for (int r = 0; r < kTileRows; ++r) {
      const float scale = integers ? 1.0f : random.around_zero(0.1f);
      const float minimum = w.has_zero
                                ? static_cast<float>(type == Type::kQ4 ? random.between(0, 16)
                                                                       : random.between(-128, 128))
                            : integers ? static_cast<float>(random.between(-9, 9))
                                       : random.around_zero(0.5f);
      const bool padding = first_row + r >= rows;
      const uint16_t halves[2] = {float_to_half(padding ? 0 : scale),
                                  float_to_half(padding ? 0 : minimum)};
      std::memcpy(&bytes[at + code_bytes + 2 * r], &halves[0], 2);
      if (has_min) std::memcpy(&bytes[at + code_bytes + kScaleBytes + 2 * r], &halves[1], 2);
    }
  }
  Weights weights{w, std::move(bytes)};
  weights.matrix.data = weights.bytes.data();
  return weights;
}

inline Weights dense_weights(Random& random, Type type, int rows, int cols) {
  Matrix w;
  w.type = type;
  w.rows = rows;
  w.cols = cols;
  const size_t n = static_cast<size_t>(rows) * cols, size = type == Type::kF32 ? 4 : 2;
  Guarded<uint8_t> bytes(n * size);
  for (size_t i = 0; i < n; ++i) {
    const float value = random.around_zero(0.2f);
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t half =
        type == Type::kF16 ? float_to_half(value) : static_cast<uint16_t>(bits >> 16);
    std::memcpy(&bytes[i * size], size == 4 ? static_cast<const void*>(&value) : &half, size);
  }
  Weights weights{w, std::move(bytes)};
  weights.matrix.data = weights.bytes.data();
  return weights;
}

// --- the KV cache

inline const char* kv_type_name(int type) {
  static const char* const names[kKvTypes] = {"F16", "I8", "I4"};
  return names[type];
}

// n_blocks blocks whose first `filled` positions hold the vectors that make(values) writes.
template <typename Make>
Guarded<uint8_t> kv_blocks(KvType type, bool keys, int n_blocks, int head_dim, int filled,
                           Make&& make) {
  const int t = static_cast<int>(type);
  const size_t bytes = kv_block_bytes(type, head_dim);
  const auto store = keys ? scalar_table()->store_key[t] : scalar_table()->store_value[t];
  Guarded<uint8_t> blocks(bytes * n_blocks);
  std::memset(blocks.data(), 0, blocks.bytes());
  Guarded<float> x(head_dim);
  for (int position = 0; position < filled; ++position) {
    make(x);
    store(blocks.data() + position / kKvBlock * bytes, position % kKvBlock, x.data(), head_dim);
  }
  return blocks;
}

}  // namespace qe_test
