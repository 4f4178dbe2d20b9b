// The INT8 and INT4 attention of the three Arm tables; included like neon_linear.h.
#pragma once

#include "neon_linear.h"

namespace qe {
namespace {

// A block of keys is laid out like a tile of INT8 weights whose group is the whole head.
template <class Isa>
void scores_i8(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t*) {
  const Tiles tiles = {blocks, kv_block_bytes(KvType::kI8, head_dim), 1,
                       head_dim / kActivationGroup};
  QuantizedRows x = q.quantized;
  x.n = q.n;
  all_rows<Isa, false>(ByteCodes{}, tiles, x, 0, n_blocks, out, out_stride);
}

// The codes of p * value scale for the 16 positions of a block; returns what one step is worth.
QE_INLINE float quantize_weights(const float* p, const float32x4_t (&scale)[4], int8x16_t* codes) {
  float32x4_t weight[4];
  QE_UNROLL
  for (int k = 0; k < 4; ++k) {
    weight[k] = vmulq_f32(vmaxnmq_f32(vld1q_f32(p + 4 * k), vdupq_n_f32(0)), scale[k]);
  }
  const float largest = vmaxnmvq_f32(
      vmaxnmq_f32(vmaxnmq_f32(weight[0], weight[1]), vmaxnmq_f32(weight[2], weight[3])));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  *codes =
      vcombine_s8(codes8(weight[0], weight[1], inverse), codes8(weight[2], weight[3], inverse));
  return largest * (1 / 127.0f);
}

// N queries, 4 * K dimensions at a time: N * K sums that do not wait for each other.
template <class Isa, int N, int K>
void accumulate_rows(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                     size_t p_stride, float* out, size_t out_stride) {
  const size_t stride = static_cast<size_t>(head_dim) * 4;
  const size_t block_bytes = kv_block_bytes(KvType::kI8, head_dim);
  for (int b = 0; b < n_blocks; ++b, blocks += block_bytes) {
    float32x4_t scale[4];
    QE_UNROLL
    for (int k = 0; k < 4; ++k) scale[k] = load_half4(blocks + 4 * stride + 8 * k);
    int8x16_t codes[N];
    int32x4_t start[N];
    float step[N], any = 0;
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      start[i] = vdupq_n_s32(kFloatBaseBits);
      step[i] = quantize_weights(p + i * p_stride + kKvBlock * b, scale, &codes[i]);
      any += step[i];
    }
    if (any == 0) continue;
    const int8_t* values = reinterpret_cast<const int8_t*>(blocks);
    for (int d = 0; d < head_dim; d += 4 * K) {
      // The next block, a line at a time.
      QE_UNROLL
      for (int k = 0; k < K; ++k) __builtin_prefetch(values + block_bytes + 16 * (d + 4 * k));
      int8x16_t v[4][K];
      int32x4_t sum[N][K];
      QE_UNROLL
      for (int g = 0; g < 4; ++g) {
        QE_UNROLL
        for (int k = 0; k < K; ++k) v[g][k] = vld1q_s8(values + 4 * d + g * stride + 16 * k);
      }
      Isa::template weigh<false>(v, codes, start, sum);
      QE_UNROLL
      for (int i = 0; i < N; ++i) {
        float* to = out + i * out_stride + d;
        QE_UNROLL
        for (int k = 0; k < K; ++k, to += 4) {
          vst1q_f32(to, vfmaq_n_f32(vld1q_f32(to), sum_to_float(sum[i][k]), step[i]));
        }
      }
    }
  }
}

template <class Isa>
void accumulate_i8(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t*) {
  int i = 0;
  for (; n - i >= 4; i += 4) {
    accumulate_rows<typename Isa::Single, 4, 1>(blocks, n_blocks, head_dim, p + i * p_stride,
                                                p_stride, out + i * out_stride, out_stride);
  }
  for (; n - i >= 2; i += 2) {
    accumulate_rows<typename Isa::Single, 2, 2>(blocks, n_blocks, head_dim, p + i * p_stride,
                                                p_stride, out + i * out_stride, out_stride);
  }
  if (i < n) {
    accumulate_rows<typename Isa::Single, 1, 4>(blocks, n_blocks, head_dim, p + i * p_stride,
                                                p_stride, out + i * out_stride, out_stride);
  }
}

// --- INT4

template <class Isa>
void scores_i4(const uint8_t* blocks, int n_blocks, int head_dim, const Queries& q, float* out,
               size_t out_stride, const uint8_t*) {
  linear_q4<Isa>(keys_i4(blocks, n_blocks, head_dim), q.quantized, 0, n_blocks, out, out_stride);
}

// As quantize_weights, but the scales have signs, and with them the weights.
QE_INLINE float quantize_signed(const float* p, const float32x4_t (&scale)[4], int8x16_t* codes) {
  float32x4_t weight[4];
  QE_UNROLL
  for (int k = 0; k < 4; ++k) weight[k] = vmulq_f32(vld1q_f32(p + 4 * k), scale[k]);
  const float largest =
      vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(vabsq_f32(weight[0]), vabsq_f32(weight[1])),
                               vmaxnmq_f32(vabsq_f32(weight[2]), vabsq_f32(weight[3]))));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  *codes =
      vcombine_s8(codes8(weight[0], weight[1], inverse), codes8(weight[2], weight[3], inverse));
  return largest > 0 ? largest * (1 / 127.0f) : 0.0f;
}

// N queries by one group of 32 dims of one block.
template <class Isa, int N>
QE_INLINE void accumulate_group_i4(const uint8_t* group, size_t block_bytes, const float* p,
                                   size_t p_stride, float* out, size_t out_stride) {
  float32x4_t scale[4];
  QE_UNROLL
  for (int k = 0; k < 4; ++k) scale[k] = load_half4(group + kI4CodeBytes + 8 * k);
  int8x16_t codes[N];
  int32x4_t start[N];
  float step[N], any = 0;
  QE_UNROLL
  for (int i = 0; i < N; ++i) {
    step[i] = quantize_signed(p + i * p_stride, scale, &codes[i]);
    start[i] = vdupq_n_s32(kFloatBaseBits - 8 * vaddlvq_s8(codes[i]));
    any += step[i];
  }
  if (any == 0) return;
  QE_UNROLL
  for (int quad = 0; quad < 4; ++quad) {
    __builtin_prefetch(group + block_bytes + 64 * quad);
    int8x16_t v[4][2];
    int32x4_t sum[N][2];
    QE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const uint8x16_t bytes = vld1q_u8(group + 64 * j + 16 * quad);
      v[j][0] = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
      v[j][1] = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
    }
    Isa::template weigh<true>(v, codes, start, sum);
    QE_UNROLL
    for (int i = 0; i < N; ++i) {
      float* to = out + i * out_stride + 4 * quad;
      QE_UNROLL
      for (int k = 0; k < 2; ++k, to += 16) {
        vst1q_f32(to, vfmaq_n_f32(vld1q_f32(to), sum_to_float(sum[i][k]), step[i]));
      }
    }
  }
}

template <class Isa, int N>
void accumulate_rows_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                        size_t p_stride, float* out, size_t out_stride) {
  const size_t block_bytes = kv_block_bytes(KvType::kI4, head_dim);
  // A block at a time, so that memory is read in order.
  for (int b = 0; b < n_blocks; ++b, blocks += block_bytes) {
    for (int g = 0; g < head_dim / kI4Group; ++g) {
      accumulate_group_i4<Isa, N>(blocks + kI4GroupBytes * g, block_bytes, p + kKvBlock * b,
                                  p_stride, out + kI4Group * g, out_stride);
    }
  }
}

template <class Isa>
void accumulate_i4(const uint8_t* blocks, int n_blocks, int head_dim, const float* p,
                   size_t p_stride, int n, float* out, size_t out_stride, const uint8_t*) {
  using Single = typename Isa::Single;
  int i = 0;
  for (; n - i >= 4; i += 4) {
    accumulate_rows_i4<Single, 4>(blocks, n_blocks, head_dim, p + i * p_stride, p_stride,
                                  out + i * out_stride, out_stride);
  }
  for (; n - i >= 2; i += 2) {
    accumulate_rows_i4<Single, 2>(blocks, n_blocks, head_dim, p + i * p_stride, p_stride,
                                  out + i * out_stride, out_stride);
  }
  if (i < n) {
    accumulate_rows_i4<Single, 1>(blocks, n_blocks, head_dim, p + i * p_stride, p_stride,
                                  out + i * out_stride, out_stride);
  }
}

}  // namespace
}  // namespace qe
