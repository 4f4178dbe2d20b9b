// The blocks that GGUF files are made of: to floats, to codes that packing.cpp takes, and back.
//
// A row is a sequence of blocks of 32 weights, or of 256 for the types with K in their name. The
// order of the bytes follows ggml's description of its types; gguf_decode.h has it, type by type.
#pragma once

#include <cstdint>

#include "status.h"

namespace qe {

// ggml's numbers of the types that are read.
enum class GgufType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kMXFP4 = 39,
};

}  // namespace qe

// Turns blocks of any of the types into fp32 [rows][cols]. `source` holds exactly `bytes` bytes.
QE_API int32_t qe_gguf_to_floats(int32_t type, const void* source, uint64_t bytes, int64_t rows,
                                 int64_t cols, int32_t threads, float* output);
// Takes the codes [rows][cols] of Q4_0, Q4_1, Q4_K, IQ4_NL, IQ4_XS, MXFP4 (0 to 15), Q5_0, Q5_1,
// Q5_K, Q8_0 and Q3_K (two's complement; of Q3_K multiplied by its scales of 16 weights) apart from
// their scales and minimums, fp16 [rows][cols / 32]; minimums only of Q4_1, Q4_K, Q5_1 and Q5_K,
// else null. Scales that fp16 does not hold are rounded. Fails with kFormat on one
// that is not finite.
QE_API int32_t qe_gguf_to_codes(int32_t type, const void* source, uint64_t bytes, int64_t rows,
                                int64_t cols, int32_t threads, uint8_t* codes, uint16_t* scales,
                                uint16_t* minimums);
// Makes blocks of Q4_0, Q4_1, IQ4_NL, MXFP4 or Q8_0 of codes [rows][cols] and of scales and
// minimums [rows][cols / group], each of which serves group / 32 blocks. With has_zero the minimums
// are zero points, which Q4_1 takes multiplied and rounded to fp16. Fails with kArgument on a scale
// that MXFP4 does not hold: its scales are powers of two, and zero.
QE_API int32_t qe_gguf_from_codes(int32_t type, const uint8_t* codes, const uint16_t* scales,
                                  const uint16_t* minimums, int64_t rows, int64_t cols,
                                  int64_t group, int32_t has_zero, int32_t threads, void* output,
                                  uint64_t bytes);
// Puts columns back into their own order: output[r][order[c]] = values[r][c]. Fails with kFormat
// where the order is not a permutation.
QE_API int32_t qe_restore_columns(const float* values, const int32_t* order, int64_t rows,
                                  int64_t cols, int32_t threads, float* output);
