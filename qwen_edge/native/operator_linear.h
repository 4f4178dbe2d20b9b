// Products with packed matrices as an operation by itself.
#pragma once

#include <map>
#include <vector>

#include "activations.h"
#include "operator_pool.h"

namespace qe {

class LinearOperator {
 public:
  // out [n, rows of all weights] = x times each weight transposed, side by side. All weights have
  // the same columns; `order` as in model.h, or null.
  void compute(const std::vector<Matrix>& weights, const int32_t* order, const float* x,
               int64_t x_stride, int n, bool fp32, OperatorPool& pool, float* out);

 private:
  // Rows of activations, by their columns.
  struct Input {
    int rows;
    Activations activations;
  };

  std::map<int, Input> inputs_;
  AlignedArray<float> padded_;
};

}  // namespace qe
