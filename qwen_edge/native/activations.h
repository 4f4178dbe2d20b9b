// Rows of activations in fp32 beside their INT8 codes, as the linear kernels want them.
#pragma once

#include <cstring>

#include "isa/isa.h"
#include "memory.h"

namespace qe {

// Columns are padded with zeros to a multiple of 128, so that weights in groups of any size fit.
// The codes lie in panels as wide as a call of n rows makes them.
class Activations {
 public:
  Activations() = default;
  Activations(int rows, int cols) : used_(cols), cols_(static_cast<int>(round_up(cols, 128))) {
    const size_t n = round_up(rows, panel_of(rows)) * cols_;
    x_.reset(static_cast<size_t>(rows) * cols_);
    codes_.reset(n);
    scale_.reset(n / kActivationGroup);
    sum_.reset(n / kActivationGroup);
    std::memset(x_.data(), 0, x_.bytes());
    std::memset(codes_.data(), 0, codes_.bytes());
    std::memset(scale_.data(), 0, scale_.bytes());
    std::memset(sum_.data(), 0, sum_.bytes());
  }

  int cols() const { return cols_; }
  float* row(int i) { return x_.data() + static_cast<size_t>(i) * cols_; }
  const float* row(int i) const { return x_.data() + static_cast<size_t>(i) * cols_; }

  // Quantizes columns [begin, end), begin a multiple of 32, of row i of n. Columns from end up to
  // the next multiple of 32 must be 0.
  void quantize(const IsaTable& isa, int i, int n, int begin, int end) {
    quantize(isa, i, n, begin, row(i) + begin, end - begin);
  }
  // The same for `columns` values from elsewhere.
  void quantize(const IsaTable& isa, int i, int n, int begin, const float* x, int columns) {
    const QuantizedRows rows = quantized(n);
    const size_t at = rows.at(i, begin / kActivationGroup);
    isa.quantize(x, static_cast<int>(round_up(columns, kActivationGroup)), panel_of(n),
                 codes_.data() + kActivationGroup * at, scale_.data() + at, sum_.data() + at);
    if (begin + columns < used_) return;
    // A call of another number of rows may have left its codes where now the padding is.
    for (int g = (used_ + kActivationGroup - 1) / kActivationGroup; g < cols_ / kActivationGroup;
         ++g) {
      const size_t padding = rows.at(i, g);
      std::memset(codes_.data() + kActivationGroup * padding, 0, kActivationGroup);
      sum_[padding] = 0;
    }
  }

  QuantizedRows quantized(int n) const {
    return {codes_.data(), scale_.data(), sum_.data(), n, cols_, panel_of(n)};
  }
  size_t bytes() const { return x_.bytes() + codes_.bytes() + scale_.bytes() + sum_.bytes(); }

 private:
  int used_ = 0, cols_ = 0;
  AlignedArray<float> x_;
  AlignedArray<int8_t> codes_;
  AlignedArray<float> scale_;
  AlignedArray<int32_t> sum_;
};

}  // namespace qe
