// Second moments of a matrix's inputs, and the factors that compensated rounding needs.
//
// For weights W [rows, d], their rounded values Q and inputs X [n, d] the squared error of the
// outputs is the sum over rows of e H e^T, with e the row of W - Q and H = X^T X. With the factors
// H = U diag(D) U^T, U upper triangular with ones on its diagonal, it is the sum over columns k of
// D[k] (e[k] + sum of e[j] U[j][k] over j < k)^2: columns are rounded one after the other, each to
// what makes up for those before it. (LDLQ of "QuIP", Chee et al. 2023, arXiv:2307.13304, which
// equals the procedure of "GPTQ", Frantar et al. 2022, arXiv:2210.17323, and needs no inverse.)
#pragma once

#include <cstddef>
#include <cstdint>

#include "status.h"

namespace qe {

constexpr int kPanelColumns = 32;

constexpr int64_t panels_of_columns(int64_t d) { return (d + kPanelColumns - 1) / kPanelColumns; }

// U lies in panels of 32 columns; panel p has the rows 0 .. 32 p + 31, 32 floats each. Columns and
// rows past d are 0.
constexpr size_t panel_offset(int64_t panel) {
  return static_cast<size_t>(panel * (panel + 1) / 2) * kPanelColumns * kPanelColumns;
}

}  // namespace qe

// moments[cols][cols] += X^T X of rows[n][cols]; only elements on and above the diagonal count.
QE_API int32_t qe_add_moments(const float* rows, int64_t n, int32_t cols, int32_t threads,
                              float* moments);
// squares[cols] += the sum over rows[n][cols] of each column's square.
QE_API int32_t qe_add_squares(const float* rows, int64_t n, int32_t cols, float* squares);
// Floats that qe_factorize writes to `panels`.
QE_API uint64_t qe_panel_floats(int32_t cols);
// Factorizes moments + damping * mean of their diagonal * I, which is overwritten, and more of the
// identity where that is not enough in fp32. `panels` receives U, `pivots` [cols] D, not scaled.
// Fails with kFormat if the moments are not finite.
QE_API int32_t qe_factorize(float* moments, int32_t cols, float damping, int32_t threads,
                            float* panels, float* pivots);
