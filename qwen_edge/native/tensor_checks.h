// Tensors as they come through the C interface, checked before a kernel reads them.
#pragma once

#include <string>

#include "c_api.h"
#include "isa/isa.h"

namespace qe {

// Far beyond any real model, and small enough that no product of two overflows 64 bits.
constexpr int kLargestDimension = 1 << 20;

// Throws Error(kFormat) unless the condition holds.
void require(bool condition, const std::string& message);

// The tensor as a matrix [rows, cols]; throws unless it is one and long enough.
Matrix matrix(const qe_tensor& t, int rows, int cols, const char* name);

}  // namespace qe
