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
                size_t out_stride) {
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
                    size_t p_stride, int n, float* out, size_t out_stride) {
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
