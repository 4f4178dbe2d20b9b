// The neon_i8mm table: ARMv8.6's 8-bit matrix multiplication (SMMLA) for two activation rows or
// more, the dot product for one.
#include "isa.h"

#if defined(__aarch64__)
#include "neon_math.h"

// As in neon_dotprod.cpp.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#if !defined(__ARM_FEATURE_DOTPROD)
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#elif !defined(__ARM_FEATURE_MATMUL_INT8)
#pragma GCC target("+i8mm")
#endif
#endif
#include "neon_attention.h"
#include "neon_sdot.h"

namespace qe {
namespace {

// SMMLA multiplies 2 rows x 8 columns of weights by 2 rows x 8 columns of activations. Accumulator
// [q][2 k + h] holds weight rows 2 h and 2 h + 1 of quad q for activation rows 2 k and 2 k + 1, as
// (row 0, x 0), (row 0, x 1), (row 1, x 0), (row 1, x 1).
struct SmmlaIsa {
  using Single = SdotIsa;
  static constexpr int kMaxRows = 8;
  static constexpr int kAccumulators = 8;
  static constexpr bool kNarrowSums = false;
  static constexpr int kSumRows = 2;

  // The values of activation rows 2 k and 2 k + 1, twice.
  static QE_INLINE float32x4_t pair(float32x4_t lanes, int k) {
    const float64x2_t pairs = vreinterpretq_f64_f32(lanes);
    return vreinterpretq_f32_f64(k % 2 == 0 ? vdupq_laneq_f64(pairs, 0)
                                            : vdupq_laneq_f64(pairs, 1));
  }

  template <int N>
  static QE_INLINE void start(const int32x4_t (&lanes)[(N + 3) / 4], int32x4_t (&acc)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      acc[i] = vreinterpretq_s32_f32(pair(vreinterpretq_f32_s32(lanes[i / 4]), i / 2));
    }
  }
  template <int N>
  static QE_INLINE void add_scaled(float32x4_t weight, const float32x4_t (&lanes)[(N + 3) / 4],
                                   const int32x4_t (&acc)[N], float32x4_t (&total)[N]) {
    const float32x4_t weights[2] = {vzip1q_f32(weight, weight), vzip2q_f32(weight, weight)};
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      const float32x4_t factor = vmulq_f32(weights[i % 2], pair(lanes[i / 4], i / 2));
      total[i] = vfmaq_f32(total[i], sum_to_float(acc[i]), factor);
    }
  }
  template <int N>
  static QE_INLINE void add_product(float32x4_t weight, const float32x4_t (&lanes)[(N + 3) / 4],
                                    float32x4_t (&total)[N]) {
    const float32x4_t weights[2] = {vzip1q_f32(weight, weight), vzip2q_f32(weight, weight)};
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      total[i] = vfmaq_f32(total[i], weights[i % 2], pair(lanes[i / 4], i / 2));
    }
  }
  template <int N>
  static QE_INLINE void load(const float* out, size_t stride, float32x4_t (&total)[N]) {
    QE_UNROLL
    for (int i = 0; i < N; i += 2) {
      const float32x4_t first = vld1q_f32(out + i * stride);
      const float32x4_t second = vld1q_f32(out + (i + 1) * stride);
      total[i] = vzip1q_f32(first, second);
      total[i + 1] = vzip2q_f32(first, second);
    }
  }
  template <int N>
  static QE_INLINE void store(const float32x4_t (&total)[N], float* out, size_t stride) {
    QE_UNROLL
    for (int i = 0; i < N; i += 2) {
      vst1q_f32(out + i * stride, vuzp1q_f32(total[i], total[i + 1]));
      vst1q_f32(out + (i + 1) * stride, vuzp2q_f32(total[i], total[i + 1]));
    }
  }

  // Order of the codes: pairs of rows; of each pair 8 columns of one, then of the other.
  template <int N>
  static QE_INLINE void pack(const int8_t* codes, size_t stride, int8_t* packed) {
    for (int i = 0; i < N; i += 2) {
      for (int half = 0; half < 2; ++half) {
        const int8x16_t first = vld1q_s8(codes + i * stride + 16 * half);
        const int8x16_t second = vld1q_s8(codes + (i + 1) * stride + 16 * half);
        int8_t* to = packed + 32 * i + 32 * half;
        vst1q_s8(to, vcombine_s8(vget_low_s8(first), vget_low_s8(second)));
        vst1q_s8(to + 16, vcombine_s8(vget_high_s8(first), vget_high_s8(second)));
      }
    }
  }

  template <int N, int Q, class Codes>
  static QE_INLINE void dot(const Codes& codes, const uint8_t* part, int quad, const int8_t* x,
                            int32x4_t (&acc)[Q][N]) {
    typename Codes::Raw raw[Q];
    QE_UNROLL
    for (int j = 0; j < 4; ++j) {
      int8x16_t low[Q], high[Q];
      advance(codes, part, j, quad, acc, raw, low, high);
      QE_UNROLL
      for (int q = 0; q < Q; ++q) {
        const int32x4_t l = vreinterpretq_s32_s8(low[q]), h = vreinterpretq_s32_s8(high[q]);
        const int8x16_t rows[2] = {vreinterpretq_s8_s32(vzip1q_s32(l, h)),
                                   vreinterpretq_s8_s32(vzip2q_s32(l, h))};
        QE_UNROLL
        for (int i = 0; i < N; ++i) {
          acc[q][i] = vmmlaq_s32(acc[q][i], rows[i % 2], vld1q_s8(x + 64 * (i / 2) + 16 * j));
        }
      }
    }
  }
};

}  // namespace
}  // namespace qe
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace qe {

const IsaTable* neon_i8mm_table() {
  static const IsaTable table = [] {
    IsaTable wider = *neon_dotprod_table();
    wider.name = "neon_i8mm";
    wider.linear_q4 = linear_q4<SmmlaIsa>;
    wider.linear_q8 = linear_q8<SmmlaIsa>;
    wider.sums_q4 = sums_q4<SmmlaIsa>;
    wider.sums_q8 = sums_q8<SmmlaIsa>;
    wider.scores[static_cast<int>(KvType::kI8)] = scores_i8<SmmlaIsa>;
    wider.scores[static_cast<int>(KvType::kI4)] = scores_i4<SmmlaIsa>;
    return wider;
  }();
  return &table;
}

}  // namespace qe
#else
namespace qe {
const IsaTable* neon_i8mm_table() { return nullptr; }
}  // namespace qe
#endif
