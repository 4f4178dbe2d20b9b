#include "operator_linear.h"

#include <algorithm>

namespace qe {
namespace {

// How often the calling thread reads ahead before it returns.
constexpr int kCallerSteps = 32;

void multiply(const Kernels& kernels, const Matrix& w, const float* x, int64_t x_stride,
              const QuantizedRows& quantized, int n, int begin, int end, float* out,
              size_t out_stride) {
  if (kernels.reference) {
    kernels.reference->linear(w, x, x_stride, n, begin, end, out, out_stride);
  } else if (w.type == Type::kQ4) {
    kernels.isa->linear_q4(w, quantized, begin, end, out, out_stride);
  } else if (w.type == Type::kQ8) {
    kernels.isa->linear_q8(w, quantized, begin, end, out, out_stride);
  } else {
    kernels.isa->linear_dense(w, x, x_stride, n, begin, end, out, out_stride);
  }
}

}  // namespace

void LinearOperator::compute(const std::vector<Matrix>& weights, const int32_t* order,
                             const float* x, int64_t x_stride, int n, bool fp32, OperatorPool& pool,
                             float* out) {
  const Kernels kernels = kernels_for(fp32);
  pool.ahead.begin(weights, n, pool.active(n));
  const int cols = weights[0].cols;
  int tiles = 0, rows = 0;
  bool quantizes = false, whole_tiles = true;
  for (const Matrix& w : weights) {
    tiles += w.tiles();
    rows += w.rows;
    quantizes = quantizes || (w.group > 0 && !fp32);
    whole_tiles = whole_tiles && w.rows % kTileRows == 0;
  }
  Input& input = inputs_[cols];
  if (input.rows < n) input = {n, Activations(n, cols)};
  Activations& rows_in = input.activations;
  // What is not whole groups is continued with zeros.
  const bool copies = order != nullptr || cols % kActivationGroup != 0;
  const float* read = copies ? rows_in.row(0) : x;
  const int64_t read_stride = copies ? rows_in.cols() : x_stride;
  const auto prepare = [&](int i) {
    const float* row = x + i * x_stride;
    if (copies) {
      float* to = rows_in.row(i);
      for (int c = 0; c < cols; ++c) to[c] = row[order ? order[c] : c];
      row = to;
    }
    if (quantizes) rows_in.quantize(*kernels.isa, i, n, 0, row, cols);
  };
  // A kernel writes whole tiles: where those are wider than the matrix, not to where others lie.
  const size_t stride = whole_tiles ? rows : static_cast<size_t>(tiles) * kTileRows;
  if (!whole_tiles && padded_.size() < n * stride) padded_.reset(n * stride);
  float* target = whole_tiles ? out : padded_.data();
  // A single row takes less time than it would to share it.
  if (n == 1) prepare(0);
  pool.run(n, [&](int thread) {
    if (n > 1) pool.share_rows(thread, n, prepare);
    pool.share_shrinking(thread, tiles, kTileStep, [&](int begin, int end) {
      int first = 0;
      for (const Matrix& w : weights) {
        const int from = std::max(begin - first, 0), to = std::min(end - first, w.tiles());
        if (from < to) {
          multiply(kernels, w, read, read_stride, rows_in.quantized(n), n, from, to,
                   target + static_cast<size_t>(first) * kTileRows, stride);
        }
        first += w.tiles();
      }
    });
  });
  for (int count = 0; count < kCallerSteps; ++count) pool.ahead.fetch(0, count);
  if (whole_tiles) return;
  for (int i = 0; i < n; ++i) {
    const float* from = target + i * stride;
    for (const Matrix& w : weights) {
      out = std::copy_n(from, w.rows, out);
      from += static_cast<size_t>(w.tiles()) * kTileRows;
    }
  }
}

}  // namespace qe
