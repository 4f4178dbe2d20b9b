// The search for the scales (and minimums) of one group of weights.
//
// For one row's group of weights x with importance w it minimizes sum w (x - v s - m)^2 over the
// scale s, the minimum m (if the layout has one) and the values v of the codebook:
//  1. Every candidate scale lays the codebook's lower or upper end (hence scales of both signs)
//  near
//     the largest weight; it gives values v, and those give the best scale by least squares.
//  2. The best of them is refined: round to fp16, choose the values again, solve again, keep what
//     truly has the least error.
// The 16 rows of a tile are 16 lanes and nothing is ever summed across lanes, so that every
// instruction set gives the same bytes.
#pragma once

#include <vector>

#include "packing.h"

namespace qe {

constexpr int kMaxGroup = 128;

// A tensor's values, prepared for the search.
struct Codebook {
  bool linear;  // the values are low, low + 1, ..., high
  float low, high;
  float threshold[15], step[15];  // value = low + sum of the steps whose threshold is passed
  uint8_t code_of_value[256];     // by value + 128
  std::vector<float> candidates;  // factors of the scales to try
};

// Throws if the codebook has only one value.
Codebook prepare_codebook(const QeLayout& layout);

// One group of 16 rows, columns first; x and w hold 0 where there is padding.
struct Group {
  alignas(64) float x[kMaxGroup][kTileRows];
  float w[kMaxGroup];
  float w_sum;  // > 0
  int cols;     // padding included
  int valid;    // without padding
};

// The outcome, each row's; scale and minimum are fp16 values or infinite.
struct Fit {
  alignas(64) float scale[kTileRows], minimum[kTileRows];
  alignas(64) float values[kMaxGroup][kTileRows];
};

using FitGroup = void (*)(const Group& group, const Codebook& codebook, bool has_min, bool search,
                          Fit& fit);

// The function for this codebook and this CPU. With search = false it takes the scale from the
// plain maximum.
FitGroup choose_fit(const Codebook& codebook);

}  // namespace qe
