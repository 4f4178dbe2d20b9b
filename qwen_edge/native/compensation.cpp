#include "compensation.h"

#include <cstring>

#define QE_INLINE inline __attribute__((always_inline))

namespace qe {
namespace {

// Columns whose sums are kept in registers.
constexpr int kColumns = 8;

// out[c][r] += sum over i < n of errors[i][r] * panel[i][c], for the 32 columns of a panel.
using AddPanel = void (*)(const float* errors, const float* panel, int64_t n, float* out);

template <int kWidth, int kCount>
QE_INLINE void add_columns(const float* errors, const float* panel, int64_t n, float* out) {
  typedef float Vector __attribute__((vector_size(4 * kWidth)));
  Vector sum[kCount];
  for (int c = 0; c < kCount; ++c) std::memcpy(&sum[c], out + c * kTileRows, sizeof(Vector));
  for (int64_t i = 0; i < n; ++i) {
    Vector error;
    std::memcpy(&error, errors + i * kTileRows, sizeof(Vector));
    for (int c = 0; c < kCount; ++c) sum[c] += error * panel[i * kPanelColumns + c];
  }
  for (int c = 0; c < kCount; ++c) std::memcpy(out + c * kTileRows, &sum[c], sizeof(Vector));
}

template <int kWidth, int kCount>
QE_INLINE void add_panel(const float* errors, const float* panel, int64_t n, float* out) {
  for (int c = 0; c < kPanelColumns; c += kCount) {
    for (int r = 0; r < kTileRows; r += kWidth) {
      add_columns<kWidth, kCount>(errors + r, panel + c, n, out + c * kTileRows + r);
    }
  }
}

void add_panel_plain(const float* errors, const float* panel, int64_t n, float* out) {
  add_panel<4, kColumns>(errors, panel, n, out);
}
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void add_panel_avx2(const float* errors, const float* panel,
                                                        int64_t n, float* out) {
  add_panel<8, kColumns>(errors, panel, n, out);
}
__attribute__((target("avx512f"))) void add_panel_avx512(const float* errors, const float* panel,
                                                         int64_t n, float* out) {
  add_panel<16, 2 * kColumns>(errors, panel, n, out);
}
#endif

AddPanel choose_add_panel() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return add_panel_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return add_panel_avx2;
#endif
  return add_panel_plain;
}

// The values of the codebook nearest to y, a weight over its scale.
void nearest(const Codebook& book, float* y) {
  if (book.linear) {
    for (int r = 0; r < kTileRows; ++r) {
      const float clamped = y[r] < book.low ? book.low : y[r] > book.high ? book.high : y[r];
      // Adding 1.5 * 2^23 leaves no bits for a fraction: round to nearest, ties to even.
      y[r] = (clamped + 12582912.0f) - 12582912.0f;
    }
    return;
  }
  float value[kTileRows];
  for (float& each : value) each = book.low;
  for (int k = 0; k < 15; ++k) {
    for (int r = 0; r < kTileRows; ++r) value[r] += y[r] > book.threshold[k] ? book.step[k] : 0;
  }
  std::memcpy(y, value, sizeof(value));
}

}  // namespace

Compensation::Compensation(const float* panels, int64_t cols)
    : panels_(panels),
      errors_(static_cast<size_t>(panels_of_columns(cols) * kPanelColumns + kMaxGroup) *
              kTileRows) {}

void Compensation::shift(int64_t first, Group& group) {
  static const AddPanel add = choose_add_panel();
  std::memcpy(weights_, group.x, sizeof(float) * group.cols * kTileRows);
  for (int c = 0; c < group.valid; c += kPanelColumns) {
    const float* panel = panels_ + panel_offset((first + c) / kPanelColumns);
    add(errors_.data(), panel, first, group.x[c]);
  }
  for (int c = group.valid; c < group.cols; ++c) std::memset(group.x[c], 0, sizeof(group.x[c]));
}

void Compensation::round(int64_t first, const Codebook& codebook, Group& group, Fit& fit) {
  alignas(64) float inverse[kTileRows];
  for (int r = 0; r < kTileRows; ++r) inverse[r] = fit.scale[r] != 0 ? 1 / fit.scale[r] : 0;
  for (int c = 0; c < group.valid; ++c) {
    const int64_t column = first + c, panel = column / kPanelColumns;
    const float* factors = panels_ + panel_offset(panel) + column % kPanelColumns;
    alignas(64) float shifted[kTileRows], value[kTileRows];
    std::memcpy(shifted, group.x[c], sizeof(shifted));
    for (int64_t j = first; j < column; ++j) {
      const float factor = factors[j * kPanelColumns];
      const float* error = &errors_[j * kTileRows];
      for (int r = 0; r < kTileRows; ++r) shifted[r] += error[r] * factor;
    }
    for (int r = 0; r < kTileRows; ++r) value[r] = (shifted[r] - fit.minimum[r]) * inverse[r];
    nearest(codebook, value);
    std::memcpy(fit.values[c], value, sizeof(value));
    float* error = &errors_[column * kTileRows];
    for (int r = 0; r < kTileRows; ++r) {
      error[r] = weights_[c][r] - (value[r] * fit.scale[r] + fit.minimum[r]);
    }
  }
  std::memcpy(group.x, weights_, sizeof(float) * group.cols * kTileRows);
}

}  // namespace qe
