// The neon table's KV cache: storing keys and values, and attention over an fp16 cache.
#pragma once

#include "neon_math.h"

namespace qe {
namespace {

void store_key_f16(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; d += 4) {
    uint8_t halves[8];
    store_half4(halves, vld1q_f32(x + d));
    for (int i = 0; i < 4; ++i) {
      std::memcpy(block + 2 * (kKvBlock * (d + i) + slot), halves + 2 * i, 2);
    }
  }
}

void store_value_f16(uint8_t* block, int slot, const float* x, int head_dim) {
  for (int d = 0; d < head_dim; d += 4) {
    store_half4(block + 2 * (head_dim * slot + d), vld1q_f32(x + d));
  }
}

// Returns the inverse of the fp16 scale that is stored for the vector.
float store_scale_i8(uint8_t* scales, int slot, const float* x, int head_dim) {
  const float32x4_t scale = vdupq_n_f32(largest_magnitude(x, head_dim) / 127.0f);
  const float16x4_t half = vcvt_f16_f32(scale);
  const uint16_t bits = vget_lane_u16(vreinterpret_u16_f16(half), 0);
  std::memcpy(scales + 2 * slot, &bits, 2);
  const float stored = vgetq_lane_f32(vcvt_f32_f16(half), 0);
  return stored > 0 ? 1.0f / stored : 0.0f;
}

// Codes of dimensions d to d + 7, clamped: the scale may have been rounded down.
QE_INLINE void kv_codes8(const float* x, float inverse, uint8_t* codes) {
  const int8x8_t packed = codes8(vld1q_f32(x), vld1q_f32(x + 4), inverse);
  vst1_u8(codes, vreinterpret_u8_s8(vmax_s8(packed, vdup_n_s8(-127))));
}

void store_key_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse =
      store_scale_i8(block + static_cast<size_t>(kKvBlock) * head_dim, slot, x, head_dim);
  for (int d = 0; d < head_dim; d += 8) {
    uint8_t codes[8];
    kv_codes8(x + d, inverse, codes);
    std::memcpy(block + kKvBlock * d + 4 * slot, codes, 4);
    std::memcpy(block + kKvBlock * (d + 4) + 4 * slot, codes + 4, 4);
  }
}

void store_value_i8(uint8_t* block, int slot, const float* x, int head_dim) {
  const float inverse =
      store_scale_i8(block + static_cast<size_t>(kKvBlock) * head_dim, slot, x, head_dim);
  uint8_t* to = block + static_cast<size_t>(4) * head_dim * (slot / 4) + slot % 4;
  for (int d = 0; d < head_dim; d += 8) {
    uint8_t codes[8];
    kv_codes8(x + d, inverse, codes);
    for (int i = 0; i < 8; ++i) to[4 * (d + i)] = codes[i];
  }
}

// 8 values times a factor, to nearest even, as 16 bits.
QE_INLINE int16x8_t round8(const float* x, float factor) {
  const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), factor));
  const int32x4_t b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), factor));
  return vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
}

// sum += a * b
QE_INLINE int32x4_t add_products8(int32x4_t sum, int16x8_t a, int16x8_t b) {
  return vmlal_high_s16(vmlal_s16(sum, vget_low_s16(a), vget_low_s16(b)), a, b);
}

// Writes the nibbles of one group and returns its scale.
uint16_t quantize_i4(const float* x, uint8_t* nibbles) {
  float32x4_t top = vld1q_f32(x), bottom = top;
  for (int i = 4; i < kI4Group; i += 4) {
    top = vmaxnmq_f32(top, vld1q_f32(x + i));
    bottom = vminnmq_f32(bottom, vld1q_f32(x + i));
  }
  const float high = vmaxnmvq_f32(top), low = vminnmvq_f32(bottom);
  const float extreme = high >= -low ? high : low, largest = extreme < 0 ? -extreme : extreme;
  if (!(largest >= kI4Least)) {
    vst1q_u8(nibbles, vdupq_n_u8(8));
    vst1q_u8(nibbles + 16, vdupq_n_u8(8));
    return 0;
  }
  int16x8_t steps[4];
  for (int i = 0; i < 4; ++i) steps[i] = round8(x + 8 * i, kI4Steps / largest);
  int32_t best_product = 0, best_squares = 1;
  for (int k = 0; k < kI4Ratios; ++k) {
    int16x8_t codes[4];
    int32x4_t product = vdupq_n_s32(0), squares = vdupq_n_s32(0);
    for (int i = 0; i < 4; ++i) {
      codes[i] = round8(x + 8 * i, -kI4Ratio[k] / extreme);
      codes[i] = vminq_s16(vmaxq_s16(codes[i], vdupq_n_s16(-8)), vdupq_n_s16(7));
      product = add_products8(product, codes[i], steps[i]);
      squares = add_products8(squares, codes[i], codes[i]);
    }
    const int32_t p = vaddvq_s32(product), s = vaddvq_s32(squares);
    if (explained_i4(p, s) <= explained_i4(best_product, best_squares)) continue;
    best_product = p;
    best_squares = s;
    for (int i = 0; i < 4; ++i) {
      vst1_u8(nibbles + 8 * i, vreinterpret_u8_s8(vmovn_s16(vaddq_s16(codes[i], vdupq_n_s16(8)))));
    }
  }
  return scale_i4(best_product, best_squares, extreme);
}

void store_key_i4(uint8_t* block, int slot, const float* x, int head_dim) {
  uint8_t nibbles[kI4Group];
  for (int d = 0; d < head_dim; d += kI4Group, block += kI4GroupBytes) {
    const uint16_t scale = quantize_i4(x + d, nibbles);
    place_key_i4(block, slot, nibbles, scale);
  }
}

void store_value_i4(uint8_t* block, int slot, const float* x, int head_dim) {
  uint8_t nibbles[kI4Group];
  for (int d = 0; d < head_dim; d += kI4Group, block += kI4GroupBytes) {
    const uint16_t scale = quantize_i4(x + d, nibbles);
    place_value_i4(block, slot, nibbles, scale);
  }
}

// N queries against the keys of one block; a dimension of all 16 positions at a time.
template <int N>
QE_INLINE void scores_f16_block(const uint8_t* block, int head_dim, const float* q, float* out,
                                size_t out_stride) {
  float32x4_t score[N][4];
  for (int i = 0; i < N; ++i) {
    for (int k = 0; k < 4; ++k) score[i][k] = vdupq_n_f32(0);
  }
  for (int d = 0; d < head_dim; ++d) {
    float32x4_t key[4];
    QE_UNROLL
    for (int k = 0; k < 4; ++k) key[k] = load_half4(block + 2 * kKvBlock * d + 8 * k);
    __builtin_prefetch(block + 2 * kKvBlock * d + 1024);
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      const float x = q[static_cast<size_t>(i) * head_dim + d];
      QE_UNROLL
      for (int k = 0; k < 4; ++k) score[i][k] = vfmaq_n_f32(score[i][k], key[k], x);
    }
  }
  for (int i = 0; i < N; ++i) {
    for (int k = 0; k < 4; ++k) vst1q_f32(out + i * out_stride + 4 * k, score[i][k]);
  }
}

void scores_f16(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
                size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b, blocks += kv_block_bytes(KvType::kF16, head_dim)) {
    int i = 0;
    for (; q.n - i >= 4; i += 4) {
      scores_f16_block<4>(blocks, head_dim, q.x + static_cast<size_t>(i) * head_dim,
                          out + i * out_stride + kKvBlock * b, out_stride);
    }
    for (; q.n - i >= 2; i += 2) {
      scores_f16_block<2>(blocks, head_dim, q.x + static_cast<size_t>(i) * head_dim,
                          out + i * out_stride + kKvBlock * b, out_stride);
    }
    if (i < q.n) {
      scores_f16_block<1>(blocks, head_dim, q.x + static_cast<size_t>(i) * head_dim,
                          out + i * out_stride + kKvBlock * b, out_stride);
    }
  }
}

// The values of one block weighed for N queries, 4 * kQuads dimensions at a time.
template <int N, int kQuads>
QE_INLINE void accumulate_f16_rows(const uint8_t* block, int head_dim, const float* p,
                                   size_t p_stride, float* out, size_t out_stride) {
  for (int d = 0; d < head_dim; d += 4 * kQuads) {
    float32x4_t sum[N][kQuads];
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      QE_UNROLL
      for (int k = 0; k < kQuads; ++k) sum[i][k] = vld1q_f32(out + i * out_stride + d + 4 * k);
    }
    const uint8_t* value = block + 2 * d;
    for (int s = 0; s < kKvBlock; ++s, value += 2 * static_cast<size_t>(head_dim)) {
      float32x4_t v[kQuads];
      QE_UNROLL
      for (int k = 0; k < kQuads; ++k) v[k] = load_half4(value + 8 * k);
      __builtin_prefetch(value + kv_block_bytes(KvType::kF16, head_dim));
      QE_UNROLL
      for (int i = 0; i < N; ++i) {
        QE_UNROLL
        for (int k = 0; k < kQuads; ++k) {
          sum[i][k] = vfmaq_n_f32(sum[i][k], v[k], p[i * p_stride + s]);
        }
      }
    }
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      QE_UNROLL
      for (int k = 0; k < kQuads; ++k) vst1q_f32(out + i * out_stride + d + 4 * k, sum[i][k]);
    }
  }
}

void accumulate_f16(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                    size_t p_stride, int n, float* out, size_t out_stride, const uint8_t*) {
  for (int b = 0; b < n_blocks; ++b, blocks += kv_block_bytes(KvType::kF16, head_dim)) {
    const float* weights = p + kKvBlock * b;
    int i = 0;
    for (; n - i >= 4; i += 4) {
      accumulate_f16_rows<4, 4>(blocks, head_dim, weights + i * p_stride, p_stride,
                                out + i * out_stride, out_stride);
    }
    for (; n - i >= 2; i += 2) {
      accumulate_f16_rows<2, 4>(blocks, head_dim, weights + i * p_stride, p_stride,
                                out + i * out_stride, out_stride);
    }
    if (i < n) {
      accumulate_f16_rows<1, 8>(blocks, head_dim, weights + i * p_stride, p_stride,
                                out + i * out_stride, out_stride);
    }
  }
}

}  // namespace
}  // namespace qe
