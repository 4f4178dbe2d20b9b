// Rows of other programs' formats as floats, or as the codes and scales that packing.h takes. What
// is read may have any alignment; the caller answers for its size.
#pragma once

#include "status.h"

// Sixteen levels and a scale for each block of consecutive weights, as bitsandbytes stores NF4 and
// FP4 (https://github.com/bitsandbytes-foundation/bitsandbytes): two codes a byte, the first in the
// high nibble. Scales are floats, or bytes that stand for
// nested_map[byte] * nested_scales[block / nested_block] + offset.
struct QeLevelBlocks {
  const uint8_t* codes;
  const float* scales;          // one a block, or null
  const uint8_t* nested_codes;  // one a block, where scales is null
  const float* nested_map;      // [256]
  const float* nested_scales;   // one for each nested_block blocks
  int32_t nested_block;
  float offset;
  int32_t block;  // weights, a divisor of cols or not
  int32_t cols;
  float levels[16];
};

// Rows [begin, begin + rows) to out[rows][cols]: level times scale.
QE_API int32_t qe_level_floats(const QeLevelBlocks* source, uint64_t begin, uint64_t rows,
                               int32_t threads, float* out);
// The same rows to codes[rows][cols], a byte each, and scales[rows][cols / group], each fp16 of
// its block's scale divided by `divisor`. Rows and blocks must consist of whole groups.
// Fails with kFormat where a scale is not finite in fp16.
QE_API int32_t qe_level_codes(const QeLevelBlocks* source, uint64_t begin, uint64_t rows,
                              int32_t group, float divisor, uint8_t* codes, uint16_t* scales);

// codes[rows][cols] of FP8 E4M3 (OCP FP8, no infinities, NaN 0x7f) times a scale for each block of
// [block_rows, block_cols], to out[rows][cols]. `begin` is the number of the first row, scales are
// [.., blocks a row] of F32 or BF16 (qe::Type). Fails with kFormat at a NaN.
QE_API int32_t qe_fp8_floats(const uint8_t* codes, uint64_t begin, uint64_t rows, int32_t cols,
                             const void* scales, int32_t scale_type, int32_t block_rows,
                             int32_t block_cols, int32_t threads, float* out);

// codes[rows][cols] of signed bytes times scales[rows] / 127, to out[rows][cols]: the row-wise
// format of LLM.int8 (Dettmers et al. 2022). Fails with kFormat at the code -128.
QE_API int32_t qe_int8_floats(const int8_t* codes, const void* scales, uint64_t rows, int32_t cols,
                              int32_t threads, float* out);
// The scales of that as fp16, repeated for `groups` groups of a row. Fails as qe_level_codes does.
QE_API int32_t qe_int8_scales(const void* scales, uint64_t rows, int32_t groups, uint16_t* out);
