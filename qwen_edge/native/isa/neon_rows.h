// Everything of the neon table that goes through rows of floats: quantizing, norms, activations,
// softmax and the sampler's passes over the logits.
#pragma once

#include <cmath>

#include "neon_math.h"

namespace qe {
namespace {

void quantize(const float* x, int n, int panel, int8_t* codes, float* scale, int32_t* sum) {
  for (int g = 0; g < n / kActivationGroup; ++g, x += kActivationGroup) {
    const float largest = largest_magnitude(x, kActivationGroup);
    const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
    int16x8_t total = vdupq_n_s16(0);
    QE_UNROLL
    for (int i = 0; i < kActivationGroup; i += 8) {
      const int8x8_t packed = codes8(vld1q_f32(x + i), vld1q_f32(x + i + 4), inverse);
      vst1_s8(codes + i, packed);
      total = vaddw_s8(total, packed);
    }
    *scale = largest / 127.0f;
    *sum = vaddlvq_s16(total);
    codes += static_cast<size_t>(kActivationGroup) * panel;
    scale += panel;
    sum += panel;
  }
}

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
  float32x4_t squares[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    QE_UNROLL
    for (int k = 0; k < 4; ++k) {
      const float32x4_t v = vld1q_f32(x + i + 4 * k);
      squares[k] = vfmaq_f32(squares[k], v, v);
    }
  }
  double total =
      vaddvq_f32(vaddq_f32(vaddq_f32(squares[0], squares[1]), vaddq_f32(squares[2], squares[3])));
  for (; i < n; ++i) total += static_cast<double>(x[i]) * x[i];
  const float factor = static_cast<float>(1.0 / std::sqrt(total / n + eps));
  for (i = 0; i + 4 <= n; i += 4) {
    const float32x4_t scaled = vmulq_n_f32(vld1q_f32(x + i), factor);
    vst1q_f32(out + i, vmulq_f32(scaled, vld1q_f32(weight + i)));
  }
  for (; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void rope(float* x, const float* cosine, const float* sine, int half) {
  int i = 0;
  for (; i + 4 <= half; i += 4) {
    const float32x4_t low = vld1q_f32(x + i), high = vld1q_f32(x + i + half);
    const float32x4_t c = vld1q_f32(cosine + i), s = vld1q_f32(sine + i);
    vst1q_f32(x + i, vfmsq_f32(vmulq_f32(low, c), high, s));
    vst1q_f32(x + i + half, vfmaq_f32(vmulq_f32(high, c), low, s));
  }
  for (; i < half; ++i) {
    const float low = x[i], high = x[i + half];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + half] = high * cosine[i] + low * sine[i];
  }
}

QE_INLINE float32x4_t silu4(float32x4_t gate) {
  return vdivq_f32(gate, vaddq_f32(vdupq_n_f32(1), exp4(vnegq_f32(gate))));
}

void silu_mul(const float* gate, const float* up, int n, float* out) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(out + i, vmulq_f32(silu4(vld1q_f32(gate + i)), vld1q_f32(up + i)));
  }
  for (; i < n; ++i) {
    out[i] = vgetq_lane_f32(silu4(vdupq_n_f32(gate[i])), 0) * up[i];
  }
}

void add(float* accumulator, const float* x, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    vst1q_f32(accumulator + i, vaddq_f32(vld1q_f32(accumulator + i), vld1q_f32(x + i)));
  }
  for (; i < n; ++i) accumulator[i] += x[i];
}

// --- softmax and sampling

// Values whose exponentials are summed in binary32 before they go to the binary64 total.
constexpr size_t kSumRun = 512;

template <bool kStore>
double exp_run(const float* x, size_t n, float largest, float* out) {
  double total = 0;
  for (size_t begin = 0; begin < n; begin += kSumRun) {
    const size_t end = n - begin < kSumRun ? n : begin + kSumRun;
    float32x4_t sum[4] = {vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0)};
    size_t i = begin;
    for (; i + 16 <= end; i += 16) {
      QE_UNROLL
      for (int k = 0; k < 4; ++k) {
        const float32x4_t y = exp4(vsubq_f32(vld1q_f32(x + i + 4 * k), vdupq_n_f32(largest)));
        if constexpr (kStore) vst1q_f32(out + i + 4 * k, y);
        sum[k] = vaddq_f32(sum[k], y);
      }
    }
    total += vaddvq_f32(vaddq_f32(vaddq_f32(sum[0], sum[1]), vaddq_f32(sum[2], sum[3])));
    for (; i < end; ++i) {
      const float y = vgetq_lane_f32(exp4(vdupq_n_f32(x[i] - largest)), 0);
      if constexpr (kStore) out[i] = y;
      total += y;
    }
  }
  return total;
}

float exp_sum(float* x, int n, float largest) {
  return static_cast<float>(exp_run<true>(x, static_cast<size_t>(n), largest, x));
}

double sum_exp(const float* x, size_t n, float largest) {
  return exp_run<false>(x, n, largest, nullptr);
}

float maximum(const float* x, size_t n) {
  float32x4_t largest[4];
  for (float32x4_t& v : largest) v = vdupq_n_f32(-INFINITY);
  size_t i = 0;
  for (; i + 16 <= n; i += 16) {
    QE_UNROLL
    for (int k = 0; k < 4; ++k) largest[k] = vmaxnmq_f32(largest[k], vld1q_f32(x + i + 4 * k));
  }
  float result = vmaxnmvq_f32(
      vmaxnmq_f32(vmaxnmq_f32(largest[0], largest[1]), vmaxnmq_f32(largest[2], largest[3])));
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

size_t collect(const float* x, size_t n, float threshold, int32_t* indexes, size_t capacity) {
  const float32x4_t least = vdupq_n_f32(threshold);
  size_t found = 0;
  for (size_t begin = 0; begin < n; begin += 16) {
    const size_t end = n - begin < 16 ? n : begin + 16;
    if (end - begin == 16) {
      uint32x4_t any = vcgeq_f32(vld1q_f32(x + begin), least);
      QE_UNROLL
      for (int k = 1; k < 4; ++k) {
        any = vorrq_u32(any, vcgeq_f32(vld1q_f32(x + begin + 4 * k), least));
      }
      if (vmaxvq_u32(any) == 0) continue;
    }
    for (size_t i = begin; i < end; ++i) {
      if (!(x[i] >= threshold)) continue;
      if (found < capacity) indexes[found] = static_cast<int32_t>(i);
      ++found;
    }
  }
  return found;
}

}  // namespace
}  // namespace qe
