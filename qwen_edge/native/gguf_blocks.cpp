#include "gguf_blocks.h"

#include <cmath>
#include <string>
#include <vector>

#include "no_contraction.h"
// From here on, products and sums are not contracted.
#include "gguf_decode.h"
#include "parallel_for.h"

namespace qe {
namespace {

using gguf::half_at;

constexpr int64_t kGrain = 16;

template <typename Element>
struct Dense {
  static constexpr int kCount = 1, kBytes = sizeof(Element);
};
struct F32 : Dense<uint32_t> {
  static void floats(const uint8_t* block, float* y) { std::memcpy(y, block, 4); }
};
struct F16 : Dense<uint16_t> {
  static void floats(const uint8_t* block, float* y) { *y = half_at(block); }
};
struct BF16 : Dense<uint16_t> {
  static void floats(const uint8_t* block, float* y) {
    uint16_t bits;
    std::memcpy(&bits, block, 2);
    *y = bfloat16_to_float(bits);
  }
};

[[noreturn]] void refuse_type() { throw Error(kArgument, "no such GGUF type"); }

// Calls body with an object of the type's struct, one that has codes.
template <typename Body>
void with_coded_type(int32_t type, const Body& body) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kQ4_0:
      return body(gguf::Q4_0{});
    case GgufType::kQ4_1:
      return body(gguf::Q4_1{});
    case GgufType::kQ5_0:
      return body(gguf::Q5_0{});
    case GgufType::kQ8_0:
      return body(gguf::Q8_0{});
    case GgufType::kQ4_K:
      return body(gguf::Q4K{});
    case GgufType::kIQ4_NL:
      return body(gguf::Iq4Nl{});
    case GgufType::kIQ4_XS:
      return body(gguf::Iq4Xs{});
    case GgufType::kMXFP4:
      return body(gguf::MxFp4{});
    case GgufType::kQ5_1:
      return body(gguf::Q5_1{});
    case GgufType::kQ3_K:
      return body(gguf::Q3K{});
    case GgufType::kQ5_K:
      return body(gguf::Q5K{});
    default:
      refuse_type();
  }
}

// Likewise for any type.
template <typename Body>
void with_type(int32_t type, const Body& body) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kF32:
      return body(F32{});
    case GgufType::kF16:
      return body(F16{});
    case GgufType::kBF16:
      return body(BF16{});
    case GgufType::kQ2_K:
      return body(gguf::Q2K{});
    case GgufType::kQ6_K:
      return body(gguf::Q6K{});
    default:
      return with_coded_type(type, body);
  }
}

void check_shape(int64_t rows, int64_t cols, int count, int block_bytes, uint64_t bytes) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (rows <= 0 || cols <= 0 || rows > kMost || cols > kMost || cols % count != 0) {
    throw Error(kArgument, "a tensor's rows are not made of whole blocks");
  }
  const uint64_t row_bytes =
      static_cast<uint64_t>(cols / count) * static_cast<uint64_t>(block_bytes);
  if (bytes != row_bytes * static_cast<uint64_t>(rows)) {
    throw Error(kArgument, "a tensor's buffer does not have the size of its shape");
  }
}

uint16_t finite_half(float value, int64_t row, const char* what) {
  const uint16_t half = float_to_half(value);
  if ((half & 0x7c00) == 0x7c00) {
    throw Error(kFormat, std::string("a ") + what + " in row " + std::to_string(row) +
                             " is not a finite number of fp16");
  }
  return half;
}

template <typename Block>
void row_codes(const uint8_t* source, int64_t row, int64_t cols, uint8_t* codes, uint16_t* scales,
               uint16_t* minimums) {
  constexpr int kGroups = Block::kCount / 32;
  for (int64_t b = 0; b < cols / Block::kCount; ++b) {
    float scale[kGroups];
    float minimum[kGroups];
    Block::codes(source + b * Block::kBytes, codes + b * Block::kCount, scale, minimum);
    for (int g = 0; g < kGroups; ++g) {
      scales[b * kGroups + g] = finite_half(scale[g], row, "scale");
      if constexpr (Block::kHasMin) {
        minimums[b * kGroups + g] = finite_half(minimum[g], row, "minimum");
      }
    }
  }
}

// What makes one block of 32 of its codes, its scale and its minimum.
using WriteBlock = void (*)(const uint8_t*, uint16_t, uint16_t, uint8_t*);

void write_nibbles(const uint8_t* codes, uint8_t* bytes) {
  for (int i = 0; i < 16; ++i) {
    bytes[i] = static_cast<uint8_t>((codes[i] & 15) | codes[i + 16] << 4);
  }
}

void write_q4(const uint8_t* codes, uint16_t scale, uint16_t, uint8_t* block) {
  std::memcpy(block, &scale, 2);
  write_nibbles(codes, block + 2);
}

void write_q4_1(const uint8_t* codes, uint16_t scale, uint16_t minimum, uint8_t* block) {
  std::memcpy(block, &scale, 2);
  std::memcpy(block + 2, &minimum, 2);
  write_nibbles(codes, block + 4);
}

void write_q8_0(const uint8_t* codes, uint16_t scale, uint16_t, uint8_t* block) {
  std::memcpy(block, &scale, 2);
  std::memcpy(block + 2, codes, 32);
}

void write_mxfp4(const uint8_t* codes, uint16_t scale, uint16_t, uint8_t* block) {
  if ((scale & 0x7fff) == 0) {
    std::memset(block, 0, gguf::MxFp4::kBytes);
    return;
  }
  int exponent;
  const float magnitude = half_to_float(scale & 0x7fff);
  if (std::frexp(magnitude, &exponent) != 0.5f || !(magnitude <= 65504.0f)) {
    throw Error(kArgument, "a scale is not a power of two");
  }
  // magnitude = 2 ^ (exponent - 1) is half of what the block's byte stands for.
  block[0] = static_cast<uint8_t>(exponent + 127);
  uint8_t signed_codes[32];
  for (int i = 0; i < 32; ++i) signed_codes[i] = codes[i] ^ (scale & 0x8000 ? 8 : 0);
  write_nibbles(signed_codes, block + 1);
}

struct BlockWriter {
  WriteBlock write;
  int bytes;
  bool has_min;
};

BlockWriter writer_of(int32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kQ4_0:
    case GgufType::kIQ4_NL:
      return {write_q4, gguf::Q4_0::kBytes, false};
    case GgufType::kQ4_1:
      return {write_q4_1, gguf::Q4_1::kBytes, true};
    case GgufType::kQ8_0:
      return {write_q8_0, gguf::Q8_0::kBytes, false};
    case GgufType::kMXFP4:
      return {write_mxfp4, gguf::MxFp4::kBytes, false};
    default:
      refuse_type();
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_gguf_to_floats(int32_t type, const void* source, uint64_t bytes, int64_t rows,
                                 int64_t cols, int32_t threads, float* output) {
  return qe::guarded([&] {
    qe::with_type(type, [&](auto block) {
      using Block = decltype(block);
      qe::check_shape(rows, cols, Block::kCount, Block::kBytes, bytes);
      const int64_t blocks = cols / Block::kCount;
      qe::parallel_for(rows, threads, qe::kGrain, [&](int64_t row) {
        const uint8_t* from = static_cast<const uint8_t*>(source) + row * blocks * Block::kBytes;
        float* to = output + row * cols;
        for (int64_t b = 0; b < blocks; ++b) {
          Block::floats(from + b * Block::kBytes, to + b * Block::kCount);
        }
      });
    });
  });
}

QE_API int32_t qe_gguf_to_codes(int32_t type, const void* source, uint64_t bytes, int64_t rows,
                                int64_t cols, int32_t threads, uint8_t* codes, uint16_t* scales,
                                uint16_t* minimums) {
  return qe::guarded([&] {
    qe::with_coded_type(type, [&](auto block) {
      using Block = decltype(block);
      qe::check_shape(rows, cols, Block::kCount, Block::kBytes, bytes);
      if (Block::kHasMin && minimums == nullptr) {
        throw qe::Error(qe::kArgument, "there is no room for the minimums");
      }
      const int64_t row_bytes = cols / Block::kCount * Block::kBytes;
      const int64_t groups = cols / 32;
      qe::parallel_for(rows, threads, qe::kGrain, [&](int64_t row) {
        qe::row_codes<Block>(static_cast<const uint8_t*>(source) + row * row_bytes, row, cols,
                             codes + row * cols, scales + row * groups,
                             Block::kHasMin ? minimums + row * groups : nullptr);
      });
    });
  });
}

QE_API int32_t qe_gguf_from_codes(int32_t type, const uint8_t* codes, const uint16_t* scales,
                                  const uint16_t* minimums, int64_t rows, int64_t cols,
                                  int64_t group, int32_t has_zero, int32_t threads, void* output,
                                  uint64_t bytes) {
  return qe::guarded([&] {
    const qe::BlockWriter writer = qe::writer_of(type);
    qe::check_shape(rows, cols, 32, writer.bytes, bytes);
    if (group <= 0 || group % 32 != 0) {
      throw qe::Error(qe::kArgument, "the group size is not a multiple of 32");
    }
    if (writer.has_min && minimums == nullptr) {
      throw qe::Error(qe::kArgument, "the minimums are missing");
    }
    const int64_t blocks = cols / 32;
    const int64_t groups = (cols + group - 1) / group;
    qe::parallel_for(rows, threads, qe::kGrain, [&](int64_t row) {
      uint8_t* to = static_cast<uint8_t*>(output) + row * blocks * writer.bytes;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t g = row * groups + b * 32 / group;
        uint16_t minimum = writer.has_min ? minimums[g] : 0;
        if (has_zero != 0) {
          minimum = qe::float_to_half(-qe::half_to_float(minimum) * qe::half_to_float(scales[g]));
        }
        writer.write(codes + row * cols + b * 32, scales[g], minimum, to + b * writer.bytes);
      }
    });
  });
}

QE_API int32_t qe_restore_columns(const float* values, const int32_t* order, int64_t rows,
                                  int64_t cols, int32_t threads, float* output) {
  return qe::guarded([&] {
    std::vector<bool> seen(static_cast<size_t>(cols));
    for (int64_t c = 0; c < cols; ++c) {
      if (order[c] < 0 || order[c] >= cols || seen[static_cast<size_t>(order[c])]) {
        throw qe::Error(qe::kFormat, "a column order is not a permutation");
      }
      seen[static_cast<size_t>(order[c])] = true;
    }
    qe::parallel_for(rows, threads, qe::kGrain, [&](int64_t row) {
      for (int64_t c = 0; c < cols; ++c) output[row * cols + order[c]] = values[row * cols + c];
    });
  });
}
