#include "hessian.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gemm.h"
#include "parallel_for.h"

namespace qe {
namespace {

constexpr int64_t kBlock = 64;
constexpr int kAttempts = 8;

// A square matrix, row-major.
struct Square {
  float* data;
  int64_t d;
  float* row(int64_t i) const { return data + i * d; }
  float& at(int64_t i, int64_t j) const { return data[i * d + j]; }
};

// R with A = R R^T, upper triangular, of the diagonal block [first, end) in place, by columns from
// the last. Returns false where a pivot is not positive.
bool factorize_block(const Square& a, int64_t first, int64_t end) {
  for (int64_t k = end - 1; k >= first; --k) {
    double pivot = a.at(k, k);
    for (int64_t j = k + 1; j < end; ++j) pivot -= double{a.at(k, j)} * a.at(k, j);
    if (!(pivot > 0)) return false;
    const double root = std::sqrt(pivot);
    a.at(k, k) = static_cast<float>(root);
    for (int64_t i = first; i < k; ++i) {
      double sum = a.at(i, k);
      for (int64_t j = k + 1; j < end; ++j) sum -= double{a.at(i, j)} * a.at(k, j);
      a.at(i, k) = static_cast<float>(sum / root);
    }
  }
  return true;
}

// out[size][size] = R^-1 of a diagonal block.
void invert_block(const Square& r, int64_t first, int64_t size, float* out) {
  std::fill_n(out, size * size, 0.0f);
  for (int64_t j = 0; j < size; ++j) {
    out[j * size + j] = 1.0f / r.at(first + j, first + j);
    for (int64_t i = j - 1; i >= 0; --i) {
      double sum = 0;
      for (int64_t k = i + 1; k <= j; ++k) {
        sum += double{r.at(first + i, first + k)} * out[k * size + j];
      }
      out[i * size + j] = static_cast<float>(-sum / r.at(first + i, first + i));
    }
  }
}

bool factorize(const Square& a, int threads) {
  std::vector<float> inverse(kBlock * kBlock);
  std::vector<float> strip(static_cast<size_t>(a.d * kBlock));
  for (int64_t end = a.d; end > 0;) {
    const int64_t first = std::max<int64_t>(end - kBlock, 0), size = end - first;
    if (!factorize_block(a, first, end)) return false;
    if (first > 0) {
      invert_block(a, first, size, inverse.data());
      // Above the block: R = A R_block^-T.
      multiply(first, size, size, {a.data + first, a.d, 1}, {inverse.data(), 1, size}, Store::kSet,
               false, strip.data(), size, threads);
      for (int64_t i = 0; i < first; ++i) {
        std::memcpy(&a.at(i, first), &strip[i * size], sizeof(float) * size);
      }
      multiply(first, first, size, {strip.data(), size, 1}, {strip.data(), 1, size},
               Store::kSubtract, true, a.data, a.d, threads);
    }
    end = first;
  }
  return true;
}

// Keeps the moments below the diagonal, where the factorization does not look.
void mirror(const Square& a, int threads) {
  parallel_for((a.d + kBlock - 1) / kBlock, threads, 1, [&](int64_t block) {
    for (int64_t i = block * kBlock; i < std::min(a.d, (block + 1) * kBlock); ++i) {
      for (int64_t j = 0; j < i; ++j) a.at(i, j) = a.at(j, i);
    }
  });
}

void restore(const Square& a, const std::vector<float>& diagonal, float added) {
  for (int64_t i = 0; i < a.d; ++i) {
    for (int64_t j = i + 1; j < a.d; ++j) a.at(i, j) = a.at(j, i);
    a.at(i, i) = diagonal[i] + added;
  }
}

void write_panels(const Square& r, int threads, float* panels, float* pivots) {
  for (int64_t k = 0; k < r.d; ++k) pivots[k] = r.at(k, k) * r.at(k, k);
  parallel_for(panels_of_columns(r.d), threads, 1, [&](int64_t p) {
    const int64_t first = p * kPanelColumns;
    float* panel = panels + panel_offset(p);
    std::fill_n(panel, (first + kPanelColumns) * kPanelColumns, 0.0f);
    for (int64_t k = first; k < std::min(first + kPanelColumns, r.d); ++k) {
      const float inverse = 1.0f / r.at(k, k);
      for (int64_t i = 0; i < k; ++i) {
        panel[i * kPanelColumns + k - first] = r.at(i, k) * inverse;
      }
      panel[k * kPanelColumns + k - first] = 1;
    }
  });
}

void factorize_damped(const Square& a, float damping, int threads, float* panels, float* pivots) {
  std::vector<float> diagonal(static_cast<size_t>(a.d));
  double mean = 0;
  for (int64_t i = 0; i < a.d; ++i) {
    diagonal[i] = a.at(i, i);
    mean += diagonal[i] / static_cast<double>(a.d);
  }
  if (!std::isfinite(mean)) throw Error(kFormat, "the calibration text makes infinite activations");
  // Inputs that are always zero: any rounding will do.
  if (mean <= 0) mean = 1;
  mirror(a, threads);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    restore(a, diagonal, damping * static_cast<float>(mean));
    if (factorize(a, threads)) return write_panels(a, threads, panels, pivots);
    damping = std::max(damping * 10, 1e-6f);
  }
  throw Error(kFormat, "the calibration text makes activations that cannot be used");
}

}  // namespace
}  // namespace qe

QE_API int32_t qe_add_moments(const float* rows, int64_t n, int32_t cols, int32_t threads,
                              float* moments) {
  return qe::guarded([&] {
    qe::multiply(cols, cols, n, {rows, 1, cols}, {rows, cols, 1}, qe::Store::kAdd, true, moments,
                 cols, threads);
  });
}

QE_API int32_t qe_add_squares(const float* rows, int64_t n, int32_t cols, float* squares) {
  return qe::guarded([&] {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t k = 0; k < cols; ++k) squares[k] += rows[i * cols + k] * rows[i * cols + k];
    }
  });
}

QE_API uint64_t qe_panel_floats(int32_t cols) {
  return qe::panel_offset(qe::panels_of_columns(cols));
}

QE_API int32_t qe_factorize(float* moments, int32_t cols, float damping, int32_t threads,
                            float* panels, float* pivots) {
  return qe::guarded([&] {
    if (cols < 1 || !(damping >= 0)) throw qe::Error(qe::kArgument, "no matrix, or no damping");
    qe::factorize_damped({moments, cols}, damping, threads, panels, pivots);
  });
}
