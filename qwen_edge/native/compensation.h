// Rounding that makes up for its own errors, a tile of 16 rows at a time: see hessian.h.
#pragma once

#include <vector>

#include "hessian.h"
#include "scale_search.h"

namespace qe {

class Compensation {
 public:
  // `panels` are those of qe_factorize for a matrix of `cols` columns.
  Compensation(const float* panels, int64_t cols);

  // Adds to the weights of the group that begins at column `first` what makes up for the errors of
  // all groups before it. Groups come in order.
  void shift(int64_t first, Group& group);
  // Chooses the values of the shifted group anew, column by column, with the scales of `fit`.
  // Afterwards the group holds its own weights again.
  void round(int64_t first, const Codebook& codebook, Group& group, Fit& fit);

 private:
  const float* panels_;
  std::vector<float> errors_;  // [cols, padded][16]: weight minus its rounded value
  alignas(64) float weights_[kMaxGroup][kTileRows];
};

}  // namespace qe
