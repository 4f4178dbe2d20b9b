// Arithmetic that every Arm table shares: baseline Armv8-A only, so that code for any wider
// instruction set may inline it.
#pragma once

// Before version 16 clang declares these intrinsics only if the whole file is compiled for them.
#if defined(__clang__) && __clang_major__ < 16
#ifndef __ARM_FEATURE_DOTPROD
#define __ARM_FEATURE_DOTPROD 1
#endif
#ifndef __ARM_FEATURE_MATMUL_INT8
#define __ARM_FEATURE_MATMUL_INT8 1
#endif
#endif
#include <arm_neon.h>

#include "kv_i4.h"

#if defined(__clang__)
#define QE_UNROLL _Pragma("unroll")
#else
#define QE_UNROLL _Pragma("GCC unroll 16")
#endif
#define QE_INLINE inline __attribute__((always_inline))

namespace qe {
namespace {

// Four fp16 values as they lie in a block.
QE_INLINE float32x4_t load_half4(const uint8_t* halves) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(halves)));
}

QE_INLINE void store_half4(uint8_t* halves, float32x4_t x) {
  vst1_u8(halves, vreinterpret_u8_f16(vcvt_f16_f32(x)));
}

// exp(x) for x in [-88, 88]: 2^n times a polynomial over [-ln 2 / 2, ln 2 / 2]. Arguments beyond
// are clamped; what is below -87.68 gives 0.
QE_INLINE float32x4_t exp4(float32x4_t x) {
  x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-88.0f)), vdupq_n_f32(88.0f));
  const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
  // ln 2 in two parts: the first has few enough bits for the product to be exact.
  float32x4_t r = vfmsq_n_f32(x, n, 0.693145752f);
  r = vfmsq_n_f32(r, n, 1.42860682e-6f);
  // Least relative error (4e-9) among polynomials that begin 1 + r.
  float32x4_t y = vfmaq_n_f32(vdupq_n_f32(8.36874545e-3f), r, 1.38145406e-3f);
  y = vfmaq_f32(vdupq_n_f32(4.1668389e-2f), y, r);
  y = vfmaq_f32(vdupq_n_f32(1.66665211e-1f), y, r);
  y = vfmaq_f32(vdupq_n_f32(4.9999994e-1f), y, r);
  y = vfmaq_f32(vdupq_n_f32(1.0f), y, r);
  y = vfmaq_f32(vdupq_n_f32(1.0f), y, r);
  const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
  return vmulq_f32(y, vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
}

// The largest |x| of n values, n a multiple of 4.
QE_INLINE float largest_magnitude(const float* x, int n) {
  float32x4_t largest = vdupq_n_f32(0);
  for (int i = 0; i < n; i += 4) largest = vmaxnmq_f32(largest, vabsq_f32(vld1q_f32(x + i)));
  return vmaxnmvq_f32(largest);
}

// Eight values times a factor, to nearest even, as INT8 codes.
QE_INLINE int8x8_t codes8(float32x4_t low, float32x4_t high, float factor) {
  const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(low, factor));
  const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(high, factor));
  return vqmovn_s16(vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)));
}

}  // namespace
}  // namespace qe
