// Low-rank updates of weights, for conversions.
#pragma once

#include "format.h"
#include "status.h"

// weights[rows, cols] += scale * B A, fp32. B is [rows, rank], A [rank, cols], both row-major, of a
// dense type (qe::Type) and at any address. With an order, the weights' column c is A's column
// order[c]; null takes them as they are.
QE_API int32_t qe_add_low_rank(float* weights, int64_t rows, int64_t cols, int64_t rank,
                               const void* a, int32_t a_type, const void* b, int32_t b_type,
                               float scale, const int32_t* order, int32_t threads);
// n values of a dense type, at any address, as fp32.
QE_API int32_t qe_to_floats(const void* data, int32_t type, int64_t n, float* out);
// 1 in `finite` if none of n values of a dense type is infinite or not a number.
QE_API int32_t qe_all_finite(const void* data, int32_t type, int64_t n, int32_t* finite);
