// add_low_rank, written once for all tables but the scalar one. A table's file includes this inside
// the region that switches to its instruction set and brings a Lanes: 16 floats in registers.
//
// The 16 lanes are rows of the weights, so that a column is one load and nothing has to be summed
// across lanes. Columns are spread over chains that do not wait for each other; a row's sums are
// taken in the same order whatever rows stand beside it.
#pragma once

namespace qe {
namespace {

// A single row waits for memory: it asks for weights 4 KiB ahead, which for thin matrices are those
// of the tiles that come next.
constexpr int kAheadHalves = 2048;

// One tile by kRows rows of x.
template <class Lanes, int kRows, int kChains>
QE_INLINE void low_rank_tile(const uint16_t* w, int cols, const float* x, size_t x_stride,
                             float* out, size_t out_stride) {
  Lanes sum[kRows][kChains];
  for (auto& row : sum) {
    for (Lanes& chain : row) chain.clear();
  }
  int c = 0;
  for (; c + kChains <= cols; c += kChains) {
    if (kRows == 1) {
      for (int k = 0; k < kChains; k += 2)
        __builtin_prefetch(w + kTileRows * (c + k) + kAheadHalves);
    }
    for (int k = 0; k < kChains; ++k) {
      const Lanes weight = Lanes::load_half(w + kTileRows * (c + k));
      for (int i = 0; i < kRows; ++i) sum[i][k].add_product(weight, x[i * x_stride + c + k]);
    }
  }
  for (; c < cols; ++c) {
    const Lanes weight = Lanes::load_half(w + kTileRows * c);
    for (int i = 0; i < kRows; ++i) sum[i][0].add_product(weight, x[i * x_stride + c]);
  }
  for (int i = 0; i < kRows; ++i) {
    for (int k = 1; k < kChains; ++k) sum[i][0].add(sum[i][k]);
    sum[i][0].add_to(out + i * out_stride);
  }
}

// kRows times kChains sums fit into the registers.
template <class Lanes, int kRows, int kChains>
QE_INLINE void low_rank_tiles(const uint16_t* w, int tiles, int cols, const float* x,
                              size_t x_stride, int n, float* out, size_t out_stride) {
  for (int t = 0; t < tiles; ++t, w += static_cast<size_t>(kTileRows) * cols, out += kTileRows) {
    int i = 0;
    for (; i + kRows <= n; i += kRows) {
      low_rank_tile<Lanes, kRows, kChains>(w, cols, x + i * x_stride, x_stride,
                                           out + i * out_stride, out_stride);
    }
    for (; i < n; ++i) {
      low_rank_tile<Lanes, 1, kChains>(w, cols, x + i * x_stride, x_stride, out + i * out_stride,
                                       out_stride);
    }
  }
}

}  // namespace
}  // namespace qe
