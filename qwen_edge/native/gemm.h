// Products of fp32 matrices, for conversions.
#pragma once

#include <cstddef>
#include <cstdint>

namespace qe {

// Element (i, j) lies at data[i * row_step + j * col_step].
struct Strided {
  const float* data;
  int64_t row_step, col_step;
};

enum class Store { kSet, kAdd, kSubtract };

// c[i * c_stride + j] =, += or -= the sum over p of a(i, p) * b(p, j), for i < m, j < n, p < k.
// With `upper` only elements with j >= i are sure to be computed; others may hold anything. Each
// sum is taken in the same order whatever the threads.
void multiply(int64_t m, int64_t n, int64_t k, const Strided& a, const Strided& b, Store store,
              bool upper, float* c, int64_t c_stride, int threads);

}  // namespace qe
