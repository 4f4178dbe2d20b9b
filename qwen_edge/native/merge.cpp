#include "merge.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "memory.h"

namespace qe {
namespace {

// Calls take(i, value) for every value.
template <typename Take>
void each_value(const void* data, int32_t type, int64_t n, const Take& take) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  if (n < 0 || type < static_cast<int32_t>(Type::kF32) ||
      type > static_cast<int32_t>(Type::kBF16)) {
    throw Error(kArgument, "values of an unknown type");
  }
  for (int64_t i = 0; i < n; ++i) {
    if (type == static_cast<int32_t>(Type::kF32)) {
      float value;
      std::memcpy(&value, bytes + 4 * i, 4);
      take(i, value);
      continue;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes + 2 * i, 2);
    const bool half = type == static_cast<int32_t>(Type::kF16);
    take(i, half ? half_to_float(bits) : bfloat16_to_float(bits));
  }
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_add_low_rank(float* weights, int64_t rows, int64_t cols, int64_t rank,
                               const void* a, int32_t a_type, const void* b, int32_t b_type,
                               float scale, const int32_t* order, int32_t threads) {
  return qe::guarded([&] {
    qe::AlignedArray<float> left(static_cast<size_t>(rows * rank));
    qe::AlignedArray<float> right(static_cast<size_t>(rank * cols));
    qe::each_value(b, b_type, rows * rank, [&](int64_t i, float x) { left[i] = x * scale; });
    qe::each_value(a, a_type, rank * cols, [&](int64_t i, float x) { right[i] = x; });
    if (order != nullptr) {
      std::vector<float> row(static_cast<size_t>(cols));
      for (int64_t r = 0; r < rank; ++r) {
        float* values = right.data() + r * cols;
        std::copy_n(values, cols, row.data());
        for (int64_t c = 0; c < cols; ++c) values[c] = row[order[c]];
      }
    }
    qe::multiply(rows, cols, rank, {left.data(), rank, 1}, {right.data(), cols, 1}, qe::Store::kAdd,
                 false, weights, cols, threads);
  });
}

QE_API int32_t qe_to_floats(const void* data, int32_t type, int64_t n, float* out) {
  return qe::guarded(
      [&] { qe::each_value(data, type, n, [&](int64_t i, float x) { out[i] = x; }); });
}

QE_API int32_t qe_all_finite(const void* data, int32_t type, int64_t n, int32_t* finite) {
  return qe::guarded([&] {
    bool all = true;
    qe::each_value(data, type, n, [&](int64_t, float x) { all = all && std::isfinite(x); });
    *finite = all;
  });
}
