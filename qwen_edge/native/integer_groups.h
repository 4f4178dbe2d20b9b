// Weights as GPTQ and AWQ store them: integers of 4 or 8 bits in 32-bit words, transposed, with a
// scale and a zero point for each group of columns. A weight is (code - zero) * scale.
//
// GPTQ (the files of AutoGPTQ and GPTQModel): words [cols / n][rows], n = 32 / bits, word k holding
// a row's columns n k to n k + n - 1 from its lowest bits up; zero points [groups][rows / n]
// likewise along the rows, in version 1 one less than what they stand for. A list may say which
// group each column is of; without it a group is a run of columns.
// AWQ (the GEMM layout of AutoAWQ, 4 bits): words [cols][rows / 8] and zero points
// [groups][rows / 8], in which row 8 k + i is at the bits 4 * {0, 4, 1, 5, 2, 6, 3, 7}[i].
// Scales are [groups][rows], fp16 as a rule. Everything may lie at any address.
#pragma once

#include "status.h"

// Mirrored by model/integer_groups.py, which has checked that the arrays have the sizes above.
struct QeIntegerGroups {
  const void* words;
  const void* zeros;
  const void* scales;
  const void* group_of;  // int32 [cols], or null
  int32_t rows;          // a multiple of 32 / bits
  int32_t cols;          // likewise for GPTQ
  int32_t groups;
  int32_t group_size;  // columns of a group where group_of is null
  int32_t bits;        // 4 or 8
  int32_t is_awq;
  int32_t scale_type;  // qe::Type: F32, F16 or BF16
  int32_t zero_step;   // added to the zero points that are stored, within their bits
};

// Sorts the columns by their group, and those of a group as they come.
//   order [cols]: which column is at each place.
//   unit: the largest of 128, 64 and 32 columns in which no two groups share a unit, or 0.
//   moved: whether any column has another place than before.
//   symmetric: whether all zero points are the middle of the codes' range.
QE_API int32_t qe_integer_groups_inspect(const QeIntegerGroups* source, int32_t* order,
                                         int32_t* unit, int32_t* moved, int32_t* symmetric);
// Rows [first, first + rows) as packing.h takes them, columns in the order given (null for their
// own), a scale and a zero point for each `unit` columns: codes [rows][cols], of 8 bits less 128;
// scales (rounded to) and zeros fp16 [rows][units]; zeros may be null.
QE_API int32_t qe_integer_groups_codes(const QeIntegerGroups* source, const int32_t* order,
                                       int32_t unit, int32_t first, int32_t rows, int32_t threads,
                                       uint8_t* codes, uint16_t* scales, uint16_t* zeros);
// The same rows as fp32 [rows][cols], columns in the order given.
QE_API int32_t qe_integer_groups_floats(const QeIntegerGroups* source, const int32_t* order,
                                        int32_t first, int32_t rows, int32_t threads,
                                        float* output);
