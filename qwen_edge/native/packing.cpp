#include "packing.h"

#include <cmath>
#include <cstring>

#include "parallel_for.h"

namespace qe {

void check_layout(const QeLayout& layout) {
  const bool packed = is_packed(layout);
  if (layout.type < 0 || layout.type > static_cast<int32_t>(Type::kQ4)) {
    throw Error(kArgument, "unknown tensor type");
  }
  if (layout.rows <= 0 || layout.cols <= 0) throw Error(kArgument, "a tensor without elements");
  if (packed && layout.group != 32 && layout.group != 64 && layout.group != 128) {
    throw Error(kArgument, "the group size must be 32, 64 or 128");
  }
  if (!packed && layout.group != 0) throw Error(kArgument, "a dense tensor has no groups");
  if (layout.has_min != 0 && !packed) throw Error(kArgument, "a dense tensor has no minimums");
  if (layout.has_zero != 0 && layout.has_min == 0) {
    throw Error(kArgument, "zero points lie in the minimums' place");
  }
}

uint64_t layout_bytes(const QeLayout& layout) {
  const uint64_t rows = static_cast<uint64_t>(layout.rows);
  const uint64_t cols = static_cast<uint64_t>(layout.cols);
  if (!is_packed(layout)) {
    return rows * cols * (layout.type == static_cast<int32_t>(Type::kF32) ? 4 : 2);
  }
  const uint64_t group = static_cast<uint64_t>(layout.group);
  return (rows + kTileRows - 1) / kTileRows * ((cols + group - 1) / group) *
         block_bytes(static_cast<Type>(layout.type), layout.group, layout.has_min != 0);
}

void check_buffer(const QeLayout& layout, const void* data, uint64_t bytes) {
  check_layout(layout);
  if (data == nullptr || bytes != layout_bytes(layout)) {
    throw Error(kArgument, "a tensor's buffer does not have the size of its layout");
  }
}

void write_codes(const QeLayout& layout, const uint8_t* codes, uint8_t* block) {
  if (layout.type == static_cast<int32_t>(Type::kQ8)) {
    for (int c = 0; c < layout.group; ++c) {
      uint8_t* chunk = block + c / 4 * 64 + c % 4;
      for (int r = 0; r < kTileRows; ++r) chunk[4 * r] = codes[c * kTileRows + r];
    }
    return;
  }
  for (int j = 0; j < layout.group / 8; ++j) {
    for (int i = 0; i < 4; ++i) {
      const uint8_t* low = codes + (8 * j + i) * kTileRows;
      const uint8_t* high = low + 4 * kTileRows;
      uint8_t* chunk = block + 64 * j + i;
      for (int r = 0; r < kTileRows; ++r) {
        chunk[4 * r] = static_cast<uint8_t>((low[r] & 15) | high[r] << 4);
      }
    }
  }
}

namespace {

constexpr int kMaxGroup = 128;

uint8_t code_at(const QeLayout& layout, const uint8_t* block, int r, int c) {
  if (layout.type == static_cast<int32_t>(Type::kQ8)) return block[c / 4 * 64 + 4 * r + c % 4];
  const uint8_t pair = block[c / 8 * 64 + 4 * r + c % 4];
  return c & 4 ? pair >> 4 : pair & 15;
}

// The code of the value nearest to 0: what padding is filled with.
uint8_t zero_code(const QeLayout& layout) {
  if (layout.type == static_cast<int32_t>(Type::kQ8)) return 0;
  int best = 0;
  for (int i = 1; i < 16; ++i) {
    if (std::abs(int{layout.codebook[i]}) < std::abs(int{layout.codebook[best]})) best = i;
  }
  return static_cast<uint8_t>(best);
}

void pack_tile(const QeLayout& layout, int64_t tile, const uint8_t* codes, const uint16_t* scales,
               const uint16_t* minimums, uint8_t* packed) {
  const int64_t groups = (layout.cols + layout.group - 1) / layout.group;
  const int64_t first_row = tile * kTileRows;
  uint8_t columns[kMaxGroup * kTileRows];
  for (int64_t g = 0; g < groups; ++g) {
    const BlockView<uint8_t> block = block_at(layout, packed, tile, g);
    uint16_t scale[kTileRows] = {};
    uint16_t minimum[kTileRows] = {};
    std::memset(columns, zero_code(layout), sizeof(columns));
    for (int r = 0; r < kTileRows && first_row + r < layout.rows; ++r) {
      const int64_t row = first_row + r;
      scale[r] = scales[row * groups + g];
      if (block.minimums != nullptr) minimum[r] = minimums[row * groups + g];
      for (int c = 0; c < layout.group && g * layout.group + c < layout.cols; ++c) {
        columns[c * kTileRows + r] = codes[row * layout.cols + g * layout.group + c];
      }
    }
    write_codes(layout, columns, block.codes);
    std::memcpy(block.scales, scale, sizeof(scale));
    if (block.minimums != nullptr) std::memcpy(block.minimums, minimum, sizeof(minimum));
  }
}

void unpack_tile(const QeLayout& layout, int64_t tile, const uint8_t* packed, uint8_t* codes,
                 uint16_t* scales, uint16_t* minimums) {
  const int64_t groups = (layout.cols + layout.group - 1) / layout.group;
  const int64_t first_row = tile * kTileRows;
  for (int64_t g = 0; g < groups; ++g) {
    const BlockView<const uint8_t> block = block_at(layout, packed, tile, g);
    for (int r = 0; r < kTileRows && first_row + r < layout.rows; ++r) {
      const int64_t row = first_row + r;
      std::memcpy(&scales[row * groups + g], block.scales + 2 * r, 2);
      if (block.minimums != nullptr) {
        std::memcpy(&minimums[row * groups + g], block.minimums + 2 * r, 2);
      }
      for (int c = 0; c < layout.group && g * layout.group + c < layout.cols; ++c) {
        codes[row * layout.cols + g * layout.group + c] = code_at(layout, block.codes, r, c);
      }
    }
  }
}

void dequantize_tile(const QeLayout& layout, int64_t tile, const uint8_t* packed, float* output) {
  const int64_t groups = (layout.cols + layout.group - 1) / layout.group;
  const int64_t first_row = tile * kTileRows;
  const bool is_q8 = layout.type == static_cast<int32_t>(Type::kQ8);
  for (int64_t g = 0; g < groups; ++g) {
    const BlockView<const uint8_t> block = block_at(layout, packed, tile, g);
    for (int r = 0; r < kTileRows && first_row + r < layout.rows; ++r) {
      uint16_t half;
      std::memcpy(&half, block.scales + 2 * r, 2);
      const float scale = half_to_float(half) * (layout.unit != 0 ? layout.unit : 1.0f);
      float minimum = 0;
      if (block.minimums != nullptr) {
        std::memcpy(&half, block.minimums + 2 * r, 2);
        minimum = half_to_float(half);
      }
      float* row = output + (first_row + r) * layout.cols + g * layout.group;
      for (int c = 0; c < layout.group && g * layout.group + c < layout.cols; ++c) {
        const uint8_t code = code_at(layout, block.codes, r, c);
        const float value = is_q8              ? static_cast<float>(static_cast<int8_t>(code))
                            : layout.unit != 0 ? layout.levels[code]
                                               : static_cast<float>(layout.codebook[code]);
        row[c] = layout.has_zero != 0 ? (value - minimum) * scale : value * scale + minimum;
      }
    }
  }
}

void dequantize_dense(const QeLayout& layout, const uint8_t* data, float* output) {
  const uint64_t count = static_cast<uint64_t>(layout.rows) * static_cast<uint64_t>(layout.cols);
  if (layout.type == static_cast<int32_t>(Type::kF32)) {
    std::memcpy(output, data, count * sizeof(float));
    return;
  }
  const bool is_half = layout.type == static_cast<int32_t>(Type::kF16);
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, data + 2 * i, 2);
    output[i] = is_half ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

// splitmix64 (Steele, Lea, Flood 2014): any state is a good seed, so each tile can have its own.
struct Random {
  uint64_t state;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
};

// Mean and deviation of a weight whose code is drawn evenly and whose scale is 1.
void code_moments(const QeLayout& layout, float* mean, float* deviation) {
  double sum = 0;
  double squares = 0;
  const bool is_q8 = layout.type == static_cast<int32_t>(Type::kQ8);
  const int count = is_q8 ? 256 : 16;
  for (int code = 0; code < count; ++code) {
    // -128 is replaced by 0 below.
    const double value = is_q8 ? (code == 128 ? 0 : static_cast<int8_t>(code))
                               : static_cast<int>(layout.codebook[code]);
    sum += value;
    squares += value * value;
  }
  *mean = static_cast<float>(sum / count);
  // Without minimums the codebook's own mean cannot be taken out: scales of both signs cancel it.
  const double centre = layout.has_min != 0 ? *mean : 0;
  *deviation = static_cast<float>(std::sqrt(squares / count - centre * centre));
}

// Fills one tile of which `rows` rows are not padding.
void random_tile(const QeLayout& layout, int64_t rows, Random random, float mean, float unit,
                 uint8_t* tile) {
  const int64_t groups = (layout.cols + layout.group - 1) / layout.group;
  const bool is_q8 = layout.type == static_cast<int32_t>(Type::kQ8);
  const size_t code_bytes = static_cast<size_t>(layout.group) * (is_q8 ? 16 : 8);
  for (int64_t g = 0; g < groups; ++g) {
    const BlockView<uint8_t> block = block_at(layout, tile, 0, g);
    for (size_t i = 0; i < code_bytes; i += 8) {
      const uint64_t bits = random.next();
      std::memcpy(block.codes + i, &bits, 8);
    }
    if (is_q8) {
      for (size_t i = 0; i < code_bytes; ++i) {
        if (block.codes[i] == 128) block.codes[i] = 0;
      }
    }
    for (int r = 0; r < kTileRows; ++r) {
      const uint64_t bits = random.next();
      const float spread = 0.75f + static_cast<float>(bits >> 40) * (0.5f / 16777216.0f);
      const float magnitude = r < rows ? unit * spread : 0.0f;
      const uint16_t scale = float_to_half(bits & 1 ? magnitude : -magnitude);
      std::memcpy(block.scales + 2 * r, &scale, 2);
      if (block.minimums == nullptr) continue;
      const uint16_t minimum =
          float_to_half(layout.has_zero != 0 ? std::nearbyint(mean) : -mean * half_to_float(scale));
      std::memcpy(block.minimums + 2 * r, &minimum, 2);
    }
  }
}

void require_packed(const QeLayout& layout) {
  if (!is_packed(layout)) throw Error(kArgument, "a dense tensor has no codes");
}

int64_t tile_count(const QeLayout& layout) { return (layout.rows + kTileRows - 1) / kTileRows; }

}  // namespace

void dequantize(const QeLayout& layout, const uint8_t* data, float* output) {
  if (!is_packed(layout)) return dequantize_dense(layout, data, output);
  for (int64_t tile = 0; tile < tile_count(layout); ++tile) {
    dequantize_tile(layout, tile, data, output);
  }
}

}  // namespace qe

QE_API int32_t qe_pack_codes(const QeLayout* layout, const uint8_t* codes, const uint16_t* scales,
                             const uint16_t* minimums, void* packed, uint64_t packed_bytes) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    qe::require_packed(*layout);
    if (layout->has_min != 0 && minimums == nullptr) {
      throw qe::Error(qe::kArgument, "the minimums are missing");
    }
    for (int64_t tile = 0; tile < qe::tile_count(*layout); ++tile) {
      qe::pack_tile(*layout, tile, codes, scales, minimums, static_cast<uint8_t*>(packed));
    }
  });
}

QE_API int32_t qe_unpack_codes(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                               uint8_t* codes, uint16_t* scales, uint16_t* minimums) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    qe::require_packed(*layout);
    if (layout->has_min != 0 && minimums == nullptr) {
      throw qe::Error(qe::kArgument, "there is no room for the minimums");
    }
    for (int64_t tile = 0; tile < qe::tile_count(*layout); ++tile) {
      qe::unpack_tile(*layout, tile, static_cast<const uint8_t*>(packed), codes, scales, minimums);
    }
  });
}

QE_API int32_t qe_dequantize(const QeLayout* layout, const void* packed, uint64_t packed_bytes,
                             int32_t threads, float* output) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    const uint8_t* data = static_cast<const uint8_t*>(packed);
    if (!qe::is_packed(*layout)) return qe::dequantize_dense(*layout, data, output);
    qe::parallel_for(qe::tile_count(*layout), threads, 4,
                     [&](int64_t tile) { qe::dequantize_tile(*layout, tile, data, output); });
  });
}

QE_API int32_t qe_random_tiles(const QeLayout* layout, uint64_t seed, uint64_t first_tile,
                               float sigma, int32_t threads, void* packed, uint64_t packed_bytes) {
  return qe::guarded([&] {
    qe::check_buffer(*layout, packed, packed_bytes);
    qe::require_packed(*layout);
    float mean;
    float deviation;
    qe::code_moments(*layout, &mean, &deviation);
    if (!(deviation > 0)) throw qe::Error(qe::kArgument, "the codebook has a single value");
    const uint64_t tiles = static_cast<uint64_t>(qe::tile_count(*layout));
    const uint64_t tile_bytes = packed_bytes / tiles;
    qe::parallel_for(static_cast<int64_t>(tiles), threads, 4, [&](int64_t tile) {
      qe::Random seeds{seed + (first_tile + static_cast<uint64_t>(tile)) * 0xd1342543de82ef95u};
      uint8_t* data = static_cast<uint8_t*>(packed) + static_cast<uint64_t>(tile) * tile_bytes;
      qe::random_tile(*layout, layout->rows - tile * qe::kTileRows, qe::Random{seeds.next()}, mean,
                      sigma / deviation, data);
    });
  });
}
