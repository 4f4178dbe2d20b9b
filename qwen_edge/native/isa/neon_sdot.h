// The dot product of 4 x 4 bytes by lane: what neon_dotprod and neon_i8mm (for one row) run.
// Included inside a region that switches the dot product on.
#pragma once

#include "neon_linear.h"

namespace qe {
namespace {

// acc += codes * x[lane], 4 columns of 4 rows; `offset` is where the 4 activations lie, in bytes.
QE_INLINE int32x4_t dot_lane(int32x4_t acc, int8x16_t codes, const int8_t* x, int offset) {
  const int8x16_t lanes = vld1q_s8(x + (offset & ~15));
  switch (offset & 12) {
    case 0:
      return vdotq_laneq_s32(acc, codes, lanes, 0);
    case 4:
      return vdotq_laneq_s32(acc, codes, lanes, 1);
    case 8:
      return vdotq_laneq_s32(acc, codes, lanes, 2);
    default:
      return vdotq_laneq_s32(acc, codes, lanes, 3);
  }
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

  // 4 dimensions: the sums over 16 positions, whose values lie in 4 groups `stride` bytes apart,
  // plus kFloatBaseBits.
  static QE_INLINE int32x4_t weigh(const int8_t* values, size_t stride, int8x16_t p) {
    int32x4_t sum = vdupq_n_s32(kFloatBaseBits);
    sum = vdotq_laneq_s32(sum, vld1q_s8(values), p, 0);
    sum = vdotq_laneq_s32(sum, vld1q_s8(values + stride), p, 1);
    sum = vdotq_laneq_s32(sum, vld1q_s8(values + 2 * stride), p, 2);
    return vdotq_laneq_s32(sum, vld1q_s8(values + 3 * stride), p, 3);
  }
};

}  // namespace
}  // namespace qe
