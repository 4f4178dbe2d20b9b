// The dot product of 4 x 4 bytes by lane: what neon_dotprod and neon_i8mm (for one row) run.
// Included inside a region that switches the dot product on.
#pragma once

#include "neon_linear.h"

namespace qe {
namespace {

// acc += codes * x[lane]: 4 columns of 4 rows.
QE_INLINE int32x4_t lane_product(int32x4_t acc, int8x16_t codes, int8x16_t x, int lane) {
  switch (lane) {
    case 0:
      return vdotq_laneq_s32(acc, codes, x, 0);
    case 1:
      return vdotq_laneq_s32(acc, codes, x, 1);
    case 2:
      return vdotq_laneq_s32(acc, codes, x, 2);
    default:
      return vdotq_laneq_s32(acc, codes, x, 3);
  }
}

// The same, where the 4 activations lie `offset` bytes from x on.
QE_INLINE int32x4_t dot_lane(int32x4_t acc, int8x16_t codes, const int8_t* x, int offset) {
  return lane_product(acc, codes, vld1q_s8(x + (offset & ~15)), offset / 4 % 4);
}

struct SdotIsa : RowLayout {
  using Single = SdotIsa;
  static constexpr int kMaxRows = 8;
  static constexpr int kAccumulators = 8;
  static constexpr bool kNarrowSums = false;
  static constexpr int kSumRows = 1;

  template <int N, int Q, class Codes>
  static QE_INLINE void dot(const Codes& codes, const uint8_t* part, int quad, const int8_t* x,
                            int32x4_t (&acc)[Q][N]) {
    typename Codes::Raw raw[Q];
    QE_UNROLL
    for (int j = 0; j < 4; ++j) {
      int8x16_t low[Q], high[Q];
      advance(codes, part, j, quad, acc, raw, low, high);
      // All low ones before the high ones: a sum's next addition has to wait for its last.
      QE_UNROLL
      for (int q = 0; q < Q; ++q) {
        QE_UNROLL
        for (int i = 0; i < N; ++i) acc[q][i] = dot_lane(acc[q][i], low[q], x, offset<N>(2 * j, i));
      }
      keep_order(acc);
      QE_UNROLL
      for (int q = 0; q < Q; ++q) {
        QE_UNROLL
        for (int i = 0; i < N; ++i) {
          acc[q][i] = dot_lane(acc[q][i], high[q], x, offset<N>(2 * j + 1, i));
        }
      }
      keep_order(acc);
    }
  }

  // The sums over 16 positions of the values of 4 * K dimensions weighed for N queries, plus what a
  // query's sums start from. v[4][K]: 4 dimensions by 4 positions each. kNibbles: all are 0..15.
  template <bool kNibbles, int N, int K>
  static QE_INLINE void weigh(const int8x16_t (&v)[4][K], const int8x16_t (&p)[N],
                              const int32x4_t (&start)[N], int32x4_t (&sum)[N][K]) {
    QE_UNROLL
    for (int g = 0; g < 4; ++g) {
      QE_UNROLL
      for (int k = 0; k < K; ++k) {
        QE_UNROLL
        for (int i = 0; i < N; ++i) {
          sum[i][k] = lane_product(g == 0 ? start[i] : sum[i][k], v[g][k], p[i], g);
        }
      }
    }
  }
};

}  // namespace
}  // namespace qe
