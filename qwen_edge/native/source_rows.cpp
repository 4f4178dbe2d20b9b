#include "source_rows.h"

#include <cmath>
#include <string>

#include "format.h"
#include "no_contraction.h"
#include "parallel_for.h"

namespace qe {
namespace {

// bitsandbytes multiplies by this constant where it could divide by 127.
constexpr float kOneOver127 = 7.874015718698502e-3f;

float float_at(const void* data, uint64_t index) {
  float value;
  std::memcpy(&value, static_cast<const uint8_t*>(data) + 4 * index, 4);
  return value;
}

uint16_t finite_half(float value, uint64_t row) {
  const uint16_t half = float_to_half(value);
  if ((half & 0x7c00) == 0x7c00) {
    throw Error(kFormat, "the scale in row " + std::to_string(row) + " is not finite in fp16");
  }
  return half;
}

float block_scale(const QeLevelBlocks& source, uint64_t block) {
  if (source.scales != nullptr) return float_at(source.scales, block);
  const uint64_t nested_block = static_cast<uint64_t>(source.nested_block);
  const float nested = float_at(source.nested_scales, block / nested_block);
  return float_at(source.nested_map, source.nested_codes[block]) * nested + source.offset;
}

uint8_t code_at(const QeLevelBlocks& source, uint64_t index) {
  const uint8_t byte = source.codes[index / 2];
  return index % 2 == 0 ? byte >> 4 : byte & 15;
}

void level_row(const QeLevelBlocks& source, uint64_t row, float* out) {
  const uint64_t cols = static_cast<uint64_t>(source.cols);
  const uint64_t block = static_cast<uint64_t>(source.block);
  for (uint64_t c = 0; c < cols;) {
    const uint64_t index = row * cols + c;
    const float scale = block_scale(source, index / block);
    uint64_t run = block - index % block;
    if (run > cols - c) run = cols - c;
    for (uint64_t i = 0; i < run; ++i) {
      out[c + i] = source.levels[code_at(source, index + i)] * scale;
    }
    c += run;
  }
}

// Exponent bias 7, three bits of mantissa; the largest finite value is 448.
float fp8_to_float(uint8_t byte) {
  const int exponent = byte >> 3 & 15;
  const int mantissa = byte & 7;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return byte & 0x80 ? -magnitude : magnitude;
}

struct Fp8Values {
  float value[256];
  Fp8Values() {
    for (int i = 0; i < 256; ++i) value[i] = fp8_to_float(static_cast<uint8_t>(i));
  }
};

}  // namespace
}  // namespace qe

QE_API int32_t qe_level_floats(const QeLevelBlocks* source, uint64_t begin, uint64_t rows,
                               int32_t threads, float* out) {
  return qe::guarded([&] {
    qe::parallel_for(static_cast<int64_t>(rows), threads, 16, [&](int64_t r) {
      const uint64_t row = static_cast<uint64_t>(r);
      qe::level_row(*source, begin + row, out + row * static_cast<uint64_t>(source->cols));
    });
  });
}

QE_API int32_t qe_level_codes(const QeLevelBlocks* source, uint64_t begin, uint64_t rows,
                              int32_t group, float divisor, uint8_t* codes, uint16_t* scales) {
  return qe::guarded([&] {
    const uint64_t cols = static_cast<uint64_t>(source->cols);
    const uint64_t block = static_cast<uint64_t>(source->block);
    const uint64_t width = static_cast<uint64_t>(group);
    if (cols % width != 0 || block % width != 0) {
      throw qe::Error(qe::kArgument, "blocks and groups do not go together");
    }
    for (uint64_t i = 0; i < rows * cols; ++i) {
      codes[i] = qe::code_at(*source, begin * cols + i);
    }
    for (uint64_t i = 0; i < rows * (cols / width); ++i) {
      const uint64_t at = (begin * cols + i * width) / block;
      scales[i] = qe::finite_half(qe::block_scale(*source, at) / divisor, begin + i * width / cols);
    }
  });
}

QE_API int32_t qe_fp8_floats(const uint8_t* codes, uint64_t begin, uint64_t rows, int32_t cols,
                             const void* scales, int32_t scale_type, int32_t block_rows,
                             int32_t block_cols, int32_t threads, float* out) {
  return qe::guarded([&] {
    static const qe::Fp8Values values;
    const int64_t blocks = (int64_t{cols} + block_cols - 1) / block_cols;
    const bool is_float = scale_type == static_cast<int32_t>(qe::Type::kF32);
    const auto scale_at = [&](int64_t index) {
      if (is_float) return qe::float_at(scales, static_cast<uint64_t>(index));
      uint16_t half;
      std::memcpy(&half, static_cast<const uint8_t*>(scales) + 2 * index, 2);
      return qe::bfloat16_to_float(half);
    };
    qe::parallel_for(static_cast<int64_t>(rows), threads, 16, [&](int64_t r) {
      const int64_t row = static_cast<int64_t>(begin) + r;
      for (int64_t c = 0; c < cols; ++c) {
        const uint8_t code = codes[r * cols + c];
        if ((code & 0x7f) == 0x7f) {
          throw qe::Error(qe::kFormat, "the weight in row " + std::to_string(row) + ", column " +
                                           std::to_string(c) + " is not a number");
        }
        out[r * cols + c] =
            values.value[code] * scale_at(row / block_rows * blocks + c / block_cols);
      }
    });
  });
}

QE_API int32_t qe_int8_floats(const int8_t* codes, const void* scales, uint64_t rows, int32_t cols,
                              int32_t threads, float* out) {
  return qe::guarded([&] {
    qe::parallel_for(static_cast<int64_t>(rows), threads, 16, [&](int64_t r) {
      const float scale = qe::float_at(scales, static_cast<uint64_t>(r));
      for (int64_t i = r * cols; i < (r + 1) * cols; ++i) {
        if (codes[i] == -128) {
          throw qe::Error(qe::kFormat, "a code is -128, which LLM.int8 does not use");
        }
        out[i] = static_cast<float>(codes[i]) * scale * qe::kOneOver127;
      }
    });
  });
}

QE_API int32_t qe_int8_scales(const void* scales, uint64_t rows, int32_t groups, uint16_t* out) {
  return qe::guarded([&] {
    for (uint64_t r = 0; r < rows; ++r) {
      const uint16_t half = qe::finite_half(qe::float_at(scales, r) * qe::kOneOver127, r);
      for (int32_t g = 0; g < groups; ++g) out[r * static_cast<uint64_t>(groups) + g] = half;
    }
  });
}
